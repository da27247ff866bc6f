//! Calls of the CUDA driver and of NVML, from entry to return.
//!
//! One pair of programs serves all functions: which one was called, and what lies behind which of its
//! pointers when it returns, is in the cookie of the probe (see [`spark_trace_common::cuda`]).

use core::ffi::c_void;

use aya_ebpf::{
    EbpfContext,
    helpers::{
        bpf_get_current_pid_tgid, bpf_ktime_get_ns, bpf_probe_read_user,
        generated::{bpf_get_attach_cookie, bpf_get_stack},
    },
    macros::{uprobe, uretprobe},
    programs::{ProbeContext, RetProbeContext},
};
use spark_trace_common::{
    capacities::USER_STACK_DEPTH,
    config::NO_MEMBER,
    cuda::{
        ANY_SIZE, COOKIE_SILENT, COOKIE_STACK, COOKIE_STATE, COOKIE_URGENT, OUTS, cookie_current,
        cookie_function, cookie_out, cookie_size,
    },
    event::{CallEvent, CallPythonEvent, CallStackEvent, EventKind, MemoryState},
    hook::index,
    map_records::{CallKey, PendingCall},
};

use crate::{
    config::conf,
    hooks::{current_context, python},
    loss::lost,
    maps::{EVENTS, PENDING_CALLS, hit},
    memory_state::memory_state,
    stack_copy,
    target::{USER_STACK, current_task, is_beside, is_target, memory_cgroup_of},
    wake::{self, Patience},
};

#[uprobe]
pub fn call_enter(ctx: ProbeContext) -> u32 {
    let ids = bpf_get_current_pid_tgid();
    // SAFETY: the current task's type is known to the verifier.
    let cgroup = unsafe { memory_cgroup_of(current_task()) };
    let tgid = (ids >> 32) as u32;
    if tgid == conf!(own_tgid) || !is_target(cgroup, tgid) || is_beside(tgid) {
        return 0;
    }
    hit(const { index("library-call") });
    let key = CallKey { tid: ids as u32, function: cookie_function(cookie(&ctx)) };
    let arg = |n: usize| ctx.arg::<u64>(n).unwrap_or(0);
    let pending = PendingCall {
        // SAFETY: no arguments.
        begin_ns: unsafe { bpf_ktime_get_ns() },
        cgroup,
        args: [arg(0), arg(1), arg(2), arg(3), arg(4), arg(5)],
    };
    if PENDING_CALLS.insert(&key, &pending, 0).is_err() {
        lost!(Calls);
    }
    0
}

#[uretprobe]
pub fn call_return(ctx: RetProbeContext) -> u32 {
    let ids = bpf_get_current_pid_tgid();
    let cookie = cookie(&ctx);
    let key = CallKey { tid: ids as u32, function: cookie_function(cookie) };
    let Some(pending) = PENDING_CALLS.get_ptr(&key) else {
        let tgid = (ids >> 32) as u32;
        // SAFETY: the current task's type is known to the verifier.
        let cgroup = unsafe { memory_cgroup_of(current_task()) };
        if tgid != conf!(own_tgid) && is_target(cgroup, tgid) && !is_beside(tgid) {
            lost!(Calls);
        }
        return 0;
    };
    // SAFETY: a live map value.
    let pending = unsafe { *pending };
    let _ = PENDING_CALLS.remove(&key);
    let change = cookie_current(cookie);
    if change != 0 && ctx.ret::<u64>() as i32 == 0 {
        let made = behind(&pending, cookie_out(cookie, 0)).unwrap_or(0);
        current_context::change(ids, change, pending.args[0], made);
    }
    if cookie >> COOKIE_SILENT & 1 != 0 {
        return 0;
    }
    if cookie >> COOKIE_STACK & 1 == 0 {
        let Some(mut slot) = EVENTS.reserve::<CallEvent>(0) else {
            lost!(Events);
            return 0;
        };
        // SAFETY: the slot is ours until it is submitted.
        unsafe { fill(slot.as_mut_ptr(), &ctx, ids, cookie, &pending) };
        slot.submit(wake::flags(patience(cookie)));
        return 0;
    }
    // SAFETY: the program's own context.
    let copy = if is_copied(cookie, &pending) { unsafe { stack_copy::copy(ctx.regs) } } else { 0 };
    if is_large(cookie, &pending)
        && let Some(process) = python::of_process((ids >> 32) as u32)
    {
        let Some(mut slot) = EVENTS.reserve::<CallPythonEvent>(0) else {
            lost!(Events);
            return 0;
        };
        let event = slot.as_mut_ptr();
        // SAFETY: as above; the rest of the frames' room is not read beyond `frames`.
        unsafe {
            fill_with_stack(&raw mut (*event).call, &ctx, ids, cookie, &pending);
            (*event).call.call.copy = copy;
            python::walk(process, &raw mut (*event).python);
        }
        // At once: the names are read from the process while it lives.
        slot.submit(wake::flags(Patience::None));
        return 0;
    }
    let Some(mut slot) = EVENTS.reserve::<CallStackEvent>(0) else {
        lost!(Events);
        return 0;
    };
    // SAFETY: as above.
    unsafe {
        let event = slot.as_mut_ptr();
        fill_with_stack(event, &ctx, ids, cookie, &pending);
        (*event).call.copy = copy;
    }
    // Copies are taken out of their buffer with the events.
    slot.submit(wake::flags(if copy == 0 { patience(cookie) } else { Patience::None }));
    0
}

/// Whether the frames of Python are wanted of a call.
#[inline(always)]
fn is_large(cookie: u64, pending: &PendingCall) -> bool {
    if conf!(python_min_4k) == NO_MEMBER {
        return false;
    }
    match cookie_size(cookie) {
        0 => false,
        ANY_SIZE => true,
        arg => argument(pending, arg).is_some_and(|size| size >= u64::from(conf!(python_min_4k)) << 12),
    }
}

/// Whether the user stack is copied of a call.
#[inline(always)]
fn is_copied(cookie: u64, pending: &PendingCall) -> bool {
    if !stack_copy::is_wanted() {
        return false;
    }
    match cookie_size(cookie) {
        0 => false,
        ANY_SIZE => true,
        arg => argument(pending, arg).is_some_and(stack_copy::is_wanted_of),
    }
}

#[inline(always)]
fn patience(cookie: u64) -> Patience {
    if cookie >> COOKIE_URGENT & 1 != 0 { Patience::None } else { Patience::Long }
}

#[inline(always)]
fn cookie(ctx: &impl EbpfContext) -> u64 {
    // SAFETY: the context is the program's own.
    unsafe { bpf_get_attach_cookie(ctx.as_ptr()) }
}

/// Writes everything with the stack, of which no more is read than `frames`.
///
/// # Safety
/// `event` must point at a slot of the ring buffer.
#[inline(always)]
unsafe fn fill_with_stack(
    event: *mut CallStackEvent,
    ctx: &RetProbeContext,
    ids: u64,
    cookie: u64,
    pending: &PendingCall,
) {
    // SAFETY: by the caller's word.
    unsafe {
        fill(&raw mut (*event).call, ctx, ids, cookie, pending);
        let stack = (&raw mut (*event).stack).cast::<c_void>();
        let bytes = bpf_get_stack(ctx.as_ptr(), stack, (8 * USER_STACK_DEPTH) as u32, USER_STACK);
        (*event).call.frames = if bytes > 0 { bytes as u32 / 8 } else { 0 };
    }
}

/// Writes everything but the stack.
///
/// # Safety
/// `event` must point at a slot of the ring buffer.
#[inline(always)]
unsafe fn fill(event: *mut CallEvent, ctx: &RetProbeContext, ids: u64, cookie: u64, pending: &PendingCall) {
    // SAFETY (whole function): the slot by the caller's word; user addresses are checked by the helper.
    unsafe {
        (*event).kind = EventKind::Call as u32;
        (*event).function = cookie_function(cookie);
        (*event).begin_ns = pending.begin_ns;
        (*event).end_ns = bpf_ktime_get_ns();
        (*event).tgid = (ids >> 32) as u32;
        (*event).tid = ids as u32;
        (*event).result = ctx.ret::<u64>() as i32;
        (*event).frames = 0;
        (*event).cgroup = pending.cgroup;
        (*event).args = pending.args;
        (*event).outs = [0; OUTS];
        let mut read = 0;
        if let Some(value) = behind(pending, cookie_out(cookie, 0)) {
            (*event).outs[0] = value;
            read |= 1;
        }
        if let Some(value) = behind(pending, cookie_out(cookie, 1)) {
            (*event).outs[1] = value;
            read |= 2;
        }
        if let Some(value) = behind(pending, cookie_out(cookie, 2)) {
            (*event).outs[2] = value;
            read |= 4;
        }
        (*event).outs_read = read;
        (*event).context = current_context::of(ids);
        (*event).copy = 0;
        (*event).state =
            if cookie >> COOKIE_STATE & 1 == 0 { MemoryState::default() } else { memory_state() };
    }
}

/// Eight bytes behind an argument (counted from 1; 0 for none).
#[inline(always)]
fn behind(pending: &PendingCall, (arg, offset): (u64, u64)) -> Option<u64> {
    let pointer = argument(pending, arg)?;
    // SAFETY: the helper checks the address.
    unsafe { bpf_probe_read_user((pointer + offset) as *const u64) }.ok()
}

/// An argument, counted from 1.
#[inline(always)]
fn argument(pending: &PendingCall, arg: u64) -> Option<u64> {
    // Compared one by one: the verifier wants constant places on the stack.
    match arg {
        1 => Some(pending.args[0]),
        2 => Some(pending.args[1]),
        3 => Some(pending.args[2]),
        4 => Some(pending.args[3]),
        5 => Some(pending.args[4]),
        6 => Some(pending.args[5]),
        _ => None,
    }
}
