//! Address space changes of the target: mmap, munmap, mremap, brk, madvise.
//!
//! One program at system call exit sees the arguments and the result together, so nothing has to be
//! remembered between entry and exit. Large regions become events with their user stack; small ones are
//! counted by process. The same program looks at reads of the kernel's memory figures, see `figures.rs`.

use core::ffi::c_void;

use aya_ebpf::{
    EbpfContext,
    bindings::BPF_NOEXIST,
    helpers::{bpf_get_current_pid_tgid, bpf_ktime_get_ns, bpf_probe_read_user, generated::bpf_get_stack},
    macros::btf_tracepoint,
    programs::BtfTracePointContext,
};
use spark_trace_common::{
    capacities::USER_STACK_DEPTH,
    config::NO_MEMBER,
    event::{EventKind, MappingEvent, MappingOp},
    hook::index,
    map_records::{Heap, MappingCache, MappingTotals},
};

use super::memory_query::{Answer, mapped_executable, read_returned, sysinfo_returned};
use crate::{
    config::conf,
    loss::lost,
    maps::{EVENTS, HEAPS, MAPPING_CACHE, MAPPING_TOTALS, add, generation, hit},
    read::load,
    stack_copy,
    target::{USER_STACK, current_task, is_beside, is_target, memory_cgroup_of_set, was_beside},
    wake::{self, Patience},
};

/// include/uapi/asm-generic/mman-common.h
const PROT_EXEC: u64 = 0x4;
const MAP_ANONYMOUS: u64 = 0x20;

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
    // Failed calls changed nothing (errors are -1 to -4095).
    if (-4095..0).contains(&ret) {
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
    hit(const { index("mapping") });
    // SAFETY: an argument of a BTF tracepoint.
    let (arg0, arg1, arg2, arg3): (u64, u64, u64, u64) = unsafe {
        (
            load(regs, conf!(regs_arg0)),
            load(regs, conf!(regs_arg1)),
            load(regs, conf!(regs_arg2)),
            load(regs, conf!(regs_arg3)),
        )
    };
    if op == MappingOp::Mmap && arg2 & PROT_EXEC != 0 && arg3 & MAP_ANONYMOUS == 0 {
        // SAFETY: as above.
        mapped_executable(unsafe { load(regs, conf!(regs_arg4)) }, tgid);
    }
    let min_region = u64::from(conf!(min_region_4k)) << 12;
    let (mut address, mut length, mut detail) = (arg0, arg1 as i64, 0);
    match op {
        MappingOp::Mmap => {
            address = ret as u64;
            detail = arg3;
            if arg1 < min_region {
                // SAFETY: a per-CPU slot that the map keeps alive; programs do not move between CPUs.
                unsafe {
                    (*cache).counted.mmap_calls += 1;
                    (*cache).counted.mmap_bytes += arg1;
                }
                return 0;
            }
        }
        MappingOp::Munmap => {
            if arg1 < min_region {
                // SAFETY: as above.
                unsafe {
                    (*cache).counted.munmap_calls += 1;
                    (*cache).counted.munmap_bytes += arg1;
                }
                return 0;
            }
        }
        MappingOp::Mremap => {
            address = ret as u64;
            length = arg2 as i64;
            detail = arg1;
            if arg1 < min_region && arg2 < min_region {
                return 0;
            }
        }
        MappingOp::Madvise => {
            detail = arg2;
            if arg1 < min_region {
                return 0;
            }
        }
        MappingOp::Brk => {
            let end = ret as u64;
            let Some(reported) = heap_reported(tgid, end) else { return 0 };
            if end.abs_diff(reported) < min_region {
                return 0;
            }
            let _ = HEAPS.insert(&tgid, &Heap { end, reported: end }, 0);
            address = end;
            length = end.wrapping_sub(reported) as i64;
        }
    }
    // Not with the question whose target it is, which a CPU remembers for as long as nothing is selected anew.
    if is_beside(tgid) {
        return 0;
    }
    let copy = if stack_copy::is_wanted_of(taken(op, length, detail)) {
        // SAFETY: an argument of a BTF tracepoint: the registers with which the thread returns.
        unsafe { stack_copy::copy(regs.cast()) }
    } else {
        0
    };
    let Some(mut slot) = EVENTS.reserve::<MappingEvent>(0) else {
        lost!(Events);
        return 0;
    };
    let event = slot.as_mut_ptr();
    // SAFETY: the slot is ours until it is submitted, and every field of it is written.
    unsafe {
        (*event).kind = EventKind::Mapping as u32;
        (*event).op = op as u32;
        (*event).at_ns = bpf_ktime_get_ns();
        (*event).tgid = tgid;
        (*event).tid = ids as u32;
        (*event).address = address;
        (*event).length = length;
        (*event).detail = detail;
        (*event).prot = if op == MappingOp::Mmap { arg2 as u32 } else { 0 };
        (*event).caller = caller(regs);
        (*event).from = if op == MappingOp::Mremap { arg0 } else { 0 };
        (*event).copy = copy;
        let stack = (&raw mut (*event).stack).cast::<c_void>();
        let bytes = bpf_get_stack(ctx.as_ptr(), stack, (8 * USER_STACK_DEPTH) as u32, USER_STACK);
        // Negative where there is none: the address space is going away.
        (*event).frames = if bytes > 0 { bytes as u32 / 8 } else { 0 };
    }
    slot.submit(wake::flags(Patience::Short));
    0
}

/// Bytes of anonymous memory that a call makes room for.
#[inline(always)]
fn taken(op: MappingOp, length: i64, detail: u64) -> u64 {
    let bytes = match op {
        MappingOp::Mmap if detail & MAP_ANONYMOUS != 0 => length,
        MappingOp::Brk => length,
        MappingOp::Mremap => length.wrapping_sub(detail as i64),
        _ => 0,
    };
    if bytes > 0 { bytes as u64 } else { 0 }
}

/// A system call of the target whose answer may be how much memory there is.
#[inline(always)]
fn figures(ctx: &BtfTracePointContext, regs: *const u8, nr: u32, ret: i64) {
    // SAFETY: an argument of a BTF tracepoint.
    let (arg0, arg1): (u64, u64) = unsafe { (load(regs, conf!(regs_arg0)), load(regs, conf!(regs_arg1))) };
    if nr == conf!(sys_sysinfo) {
        if ret == 0 {
            // SAFETY: as above.
            sysinfo_returned(ctx, arg0, unsafe { caller(regs) });
        }
    } else if ret > 0 {
        // SAFETY: as above.
        let (position, caller) = unsafe { (load::<u64>(regs, conf!(regs_arg3)), caller(regs)) };
        let position = (nr == conf!(sys_pread)).then_some(position);
        read_returned(ctx, arg0 as u32, position, Answer { buffer: arg1, length: ret as u64, caller });
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
    if was_beside(tgid) {
        // SAFETY: by the caller's word.
        unsafe { (*cache).counted = MappingTotals::default() };
        return;
    }
    if MAPPING_TOTALS.get_ptr(&tgid).is_none() {
        let _ = MAPPING_TOTALS.insert(&tgid, &MappingTotals::default(), u64::from(BPF_NOEXIST));
    }
    match MAPPING_TOTALS.get_ptr_mut(&tgid) {
        // SAFETY: a live map value, and this CPU's slot.
        Some(totals) => unsafe {
            add(&raw mut (*totals).mmap_calls, counted.mmap_calls);
            add(&raw mut (*totals).mmap_bytes, counted.mmap_bytes);
            add(&raw mut (*totals).munmap_calls, counted.munmap_calls);
            add(&raw mut (*totals).munmap_bytes, counted.munmap_bytes);
        },
        None => lost!(MappingTotals),
    }
    // SAFETY: by the caller's word.
    unsafe { (*cache).counted = MappingTotals::default() };
}

/// Where the heap ended at its last event; the end itself where it is seen for the first time.
#[inline(always)]
fn heap_reported(tgid: u32, end: u64) -> Option<u64> {
    if let Some(heap) = HEAPS.get_ptr_mut(&tgid) {
        // SAFETY: a live map value; a heap has one end, and brk holds the address space's lock.
        return unsafe {
            (*heap).end = end;
            Some((*heap).reported)
        };
    }
    if HEAPS.insert(&tgid, &Heap { end, reported: end }, 0).is_err() {
        lost!(MappingTotals);
    }
    None
}

/// Where the system call's stub returns to, if it keeps no frame.
///
/// # Safety
/// `regs` must be a register pointer whose type the verifier knows.
#[inline(always)]
unsafe fn caller(regs: *const u8) -> u64 {
    // SAFETY: by the caller's word; the helper checks the user address.
    unsafe {
        if conf!(regs_link) != NO_MEMBER {
            return load(regs, conf!(regs_link));
        }
        let sp: u64 = load(regs, conf!(regs_sp));
        bpf_probe_read_user(sp as *const u64).unwrap_or(0)
    }
}
