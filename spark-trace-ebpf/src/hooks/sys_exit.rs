//! System call exit, for kernels where the functions of system calls cannot be attached to ([`super::call_return`]).
//!
//! One program sees all calls: another one there would cost every system call of the machine as much again.

use core::ffi::c_void;

use aya_ebpf::{
    EbpfContext, helpers::bpf_get_current_pid_tgid, macros::btf_tracepoint, programs::BtfTracePointContext,
};
use spark_trace_common::{
    event::MappingOp,
    map_records::{MappingCache, MappingTotals},
};

use super::{
    mapping::{add_totals, caller, changed, failed},
    memory_query::{Answer, At, read_returned, sysinfo_returned},
};
use crate::{
    config::conf,
    maps::{MAPPING_CACHE, generation},
    read::load,
    target::{current_task, is_target, memory_cgroup_of_set, was_beside},
};

/// `void sys_exit(struct pt_regs *regs, long ret)`
#[btf_tracepoint(function = "sys_exit")]
pub fn mapping(ctx: BtfTracePointContext) -> i32 {
    // Everybody's system calls end here: whoever is not of the target pays for this look alone.
    if !is_known_bystander() {
        system_call(ctx.as_ptr());
    }
    0
}

/// Whether this CPU has found out before that the current task is not of the target.
#[inline(always)]
fn is_known_bystander() -> bool {
    let Some(cache) = MAPPING_CACHE.get_ptr(0) else { return true };
    // SAFETY: a per-CPU slot that the map keeps alive; programs do not move between CPUs.
    unsafe { (*cache).target == 0 && is_of(cache, current_task()) }
}

/// Whether `cache` is about `task` and the present selection.
///
/// # Safety
/// `cache` must be this CPU's slot, and `task` a task pointer whose type the verifier knows.
#[inline(always)]
unsafe fn is_of(cache: *const MappingCache, task: *const u8) -> bool {
    // SAFETY: by the caller's word.
    unsafe {
        (*cache).css_set == load::<u64>(task, conf!(task_cgroups))
            && (*cache).tgid == load::<u32>(task, conf!(task_tgid))
            && (*cache).generation == generation()
    }
}

/// A function of its own, so that a system call of others saves and restores no registers.
#[inline(never)]
fn system_call(ctx: *mut c_void) -> i32 {
    let ctx = BtfTracePointContext::new(ctx);
    let ids = bpf_get_current_pid_tgid();
    let tgid = (ids >> 32) as u32;
    let Some(cache) = cache_of(tgid) else { return 0 };
    let regs: *const u8 = ctx.arg(0);
    // SAFETY: an argument of a BTF tracepoint.
    let nr: u32 = unsafe { load(regs, conf!(regs_nr)) };
    let op = if nr == conf!(sys_mmap) {
        Some(MappingOp::Mmap)
    } else if nr == conf!(sys_munmap) {
        Some(MappingOp::Munmap)
    } else if nr == conf!(sys_brk) {
        Some(MappingOp::Brk)
    } else if nr == conf!(sys_mremap) {
        Some(MappingOp::Mremap)
    } else if nr == conf!(sys_madvise) {
        Some(MappingOp::Madvise)
    } else if nr == conf!(sys_read) || nr == conf!(sys_pread) || nr == conf!(sys_sysinfo) {
        None
    } else {
        return 0;
    };
    let ret: i64 = ctx.arg(1);
    if failed(ret) {
        return 0;
    }
    // SAFETY: the current task's type is known to the verifier.
    if unsafe { load::<u32>(current_task(), conf!(task_compat)) } & conf!(compat_bits) != 0 {
        return 0;
    }
    let Some(op) = op else {
        figures(&ctx, regs, nr, ret);
        return 0;
    };
    // SAFETY: our context, and an argument of it; a per-CPU slot that the map keeps alive: programs do not move between CPUs.
    unsafe {
        changed(ctx.as_ptr(), regs, (op, ret), ids, |counted| {
            (*cache).counted.mmap_calls += counted.mmap_calls;
            (*cache).counted.mmap_bytes += counted.mmap_bytes;
            (*cache).counted.munmap_calls += counted.munmap_calls;
            (*cache).counted.munmap_bytes += counted.munmap_bytes;
        });
    }
    0
}

/// A system call of the target whose answer may be how much memory there is.
#[inline(always)]
fn figures(ctx: &BtfTracePointContext, regs: *const u8, nr: u32, ret: i64) {
    // SAFETY: an argument of a BTF tracepoint.
    let (arg0, arg1): (u64, u64) = unsafe { (load(regs, conf!(regs_arg0)), load(regs, conf!(regs_arg1))) };
    if nr == conf!(sys_sysinfo) {
        if ret == 0 {
            // SAFETY: as above.
            sysinfo_returned(ctx.as_ptr(), arg0, unsafe { caller(regs) });
        }
    } else if ret > 0 {
        // SAFETY: as above.
        let (position, caller) = unsafe { (load::<u64>(regs, conf!(regs_arg3)), caller(regs)) };
        let position = if nr == conf!(sys_pread) { At::Given(position) } else { At::Before };
        read_returned(
            ctx.as_ptr(),
            arg0 as u32,
            position,
            Answer { buffer: arg1, length: ret as u64, caller },
        );
    }
}

/// This CPU's cache, filled for the current task; `None` where that is not of the target.
#[inline(always)]
fn cache_of(tgid: u32) -> Option<*mut MappingCache> {
    let cache = MAPPING_CACHE.get_ptr_mut(0)?;
    let task = current_task();
    // SAFETY: the current task's type is known to the verifier.
    let set: *const u8 = unsafe { load(task, conf!(task_cgroups)) };
    // SAFETY (whole block): a per-CPU slot that the map keeps alive; programs do not move between CPUs.
    unsafe {
        if !is_of(cache, task) {
            settle(cache);
            (*cache).css_set = set as u64;
            (*cache).tgid = tgid;
            (*cache).generation = generation();
            (*cache).target = u32::from(is_target(memory_cgroup_of_set(set), tgid));
        }
        ((*cache).target != 0).then_some(cache)
    }
}

/// Adds what a CPU has counted to the totals of the process it was counted for.
///
/// # Safety
/// `cache` must be this CPU's slot.
#[inline(always)]
unsafe fn settle(cache: *mut MappingCache) {
    // SAFETY: by the caller's word.
    let MappingCache { tgid, counted, .. } = unsafe { *cache };
    if counted.mmap_calls == 0 && counted.munmap_calls == 0 {
        return;
    }
    // Another spark-trace's goes: not with the question whose target it is, which a CPU remembers for as long as nothing is
    // selected anew.
    if !was_beside(tgid) {
        add_totals(tgid, counted);
    }
    // SAFETY: by the caller's word.
    unsafe { (*cache).counted = MappingTotals::default() };
}
