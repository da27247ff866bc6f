//! The same as at system call exit ([`super::sys_exit`]), where the functions of system calls can be attached to: nobody else's
//! calls pay for it.
//!
//! These programs may be preempted by one another, so nothing is remembered by CPU but whole answers. On arm64 32-bit programs call
//! some of these functions, too, and on x86-64 those of the x32 ABI do: they are left out, as at system call exit.

use core::ffi::c_void;

use aya_ebpf::{
    EbpfContext,
    helpers::{bpf_get_current_pid_tgid, generated::bpf_task_pt_regs},
    macros::fexit,
    programs::FExitContext,
};
use spark_trace_common::{config::CONTROL_ENDED, event::MappingOp, map_records::Bystander};

use super::{
    mapping::{add_totals, caller, changed, failed},
    memory_query::{Answer, At, read_returned, sysinfo_returned},
};
use crate::{
    config::conf,
    maps::{BYSTANDERS, CONTROL, generation},
    read::load,
    target::{current_task, is_beside, is_target, memory_cgroup_of},
};

/// `long __x64_sys_mmap(const struct pt_regs *regs)`, and so on.
#[fexit]
pub fn mmap_return(ctx: FExitContext) -> i32 {
    mapping_returned(ctx.as_ptr(), ctx.arg(1), MappingOp::Mmap, conf!(sys_mmap))
}

#[fexit]
pub fn munmap_return(ctx: FExitContext) -> i32 {
    mapping_returned(ctx.as_ptr(), ctx.arg(1), MappingOp::Munmap, conf!(sys_munmap))
}

#[fexit]
pub fn brk_return(ctx: FExitContext) -> i32 {
    mapping_returned(ctx.as_ptr(), ctx.arg(1), MappingOp::Brk, conf!(sys_brk))
}

#[fexit]
pub fn mremap_return(ctx: FExitContext) -> i32 {
    mapping_returned(ctx.as_ptr(), ctx.arg(1), MappingOp::Mremap, conf!(sys_mremap))
}

#[fexit]
pub fn madvise_return(ctx: FExitContext) -> i32 {
    mapping_returned(ctx.as_ptr(), ctx.arg(1), MappingOp::Madvise, conf!(sys_madvise))
}

#[fexit]
pub fn sysinfo_return(ctx: FExitContext) -> i32 {
    sysinfo_call(ctx.as_ptr(), ctx.arg(1))
}

/// `ssize_t seq_read_iter(struct kiocb *iocb, struct iov_iter *iter)`
#[fexit]
pub fn seq_file_return(ctx: FExitContext) -> i32 {
    seq_file(ctx.as_ptr(), ctx.arg(2))
}

#[inline(always)]
fn mapping_returned(ctx: *mut c_void, ret: i64, op: MappingOp, nr: u32) -> i32 {
    if failed(ret) {
        return 0;
    }
    let Some(Call { ids, regs, .. }) = call_of_target().filter(|call| call.nr == nr) else { return 0 };
    let tgid = (ids >> 32) as u32;
    // SAFETY: our context, and registers whose type the verifier knows.
    unsafe {
        changed(ctx, regs, (op, ret), ids, |counted| {
            if !is_beside(tgid) {
                add_totals(tgid, counted);
            }
        });
    }
    0
}

#[inline(always)]
fn sysinfo_call(ctx: *mut c_void, ret: i64) -> i32 {
    if ret != 0 {
        return 0;
    }
    let Some(Call { regs, .. }) = call_of_target().filter(|call| call.nr == conf!(sys_sysinfo)) else {
        return 0;
    };
    // SAFETY: registers whose type the verifier knows.
    let (buffer, caller): (u64, u64) = unsafe { (load(regs, conf!(regs_arg0)), caller(regs)) };
    sysinfo_returned(ctx, buffer, caller);
    0
}

/// The contents are in the reader's memory, and the file's position has not moved on yet (fs/read_write.c ksys_read).
#[inline(always)]
fn seq_file(ctx: *mut c_void, length: i64) -> i32 {
    if length <= 0 {
        return 0;
    }
    let Some(Call { regs, nr, .. }) = call_of_target() else { return 0 };
    // SAFETY: registers whose type the verifier knows.
    let (fd, buffer, position, caller): (u64, u64, u64, u64) = unsafe {
        (
            load(regs, conf!(regs_arg0)),
            load(regs, conf!(regs_arg1)),
            load(regs, conf!(regs_arg3)),
            caller(regs),
        )
    };
    let at = if nr == conf!(sys_pread) {
        At::Given(position)
    } else if nr == conf!(sys_read) {
        At::Here
    } else {
        return 0;
    };
    read_returned(ctx, fd as u32, at, Answer { buffer, length: length as u64, caller });
    0
}

/// A system call of the target's, by a 64-bit program.
struct Call {
    /// Process and thread number.
    ids: u64,
    regs: *const u8,
    nr: u32,
}

/// The current call; `None` where it is not of the target, or the trace has ended.
#[inline(always)]
fn call_of_target() -> Option<Call> {
    let ids = bpf_get_current_pid_tgid();
    let task = current_task();
    if !is_of_target(task, (ids >> 32) as u32) {
        return None;
    }
    if CONTROL.get(CONTROL_ENDED).is_none_or(|ended| *ended != 0) {
        return None;
    }
    // SAFETY: the current task's type is known to the verifier, and so is that of its registers.
    unsafe {
        if load::<u32>(task, conf!(task_compat)) & conf!(compat_bits) != 0 {
            return None;
        }
        let regs = bpf_task_pt_regs(task.cast_mut().cast()) as *const u8;
        Some(Call { ids, regs, nr: load(regs, conf!(regs_nr)) })
    }
}

/// Whether the current task is of the target. Others' calls come here, too: they pay for a look at what this CPU remembers.
#[inline(always)]
fn is_of_target(task: *const u8, tgid: u32) -> bool {
    let Some(known) = BYSTANDERS.get_ptr_mut(0) else { return false };
    // SAFETY: the current task's type is known to the verifier.
    let cgroup = unsafe { memory_cgroup_of(task) };
    // What is selected from here on is another generation.
    let bystander = Bystander::new(cgroup, tgid, generation());
    // SAFETY: a per-CPU slot that the map keeps alive; programs do not move between CPUs.
    if unsafe { (*known).is(&bystander) } {
        return false;
    }
    let is_target = is_target(cgroup, tgid);
    if !is_target {
        // SAFETY: as above. Word by word, and what is not whole is no answer.
        unsafe {
            (&raw mut (*known).cgroup).write_volatile(bystander.cgroup);
            (&raw mut (*known).process).write_volatile(bystander.process);
            (&raw mut (*known).seal).write_volatile(bystander.seal);
        }
    }
    is_target
}
