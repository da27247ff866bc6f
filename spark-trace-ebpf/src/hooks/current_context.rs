//! The CUDA context that is current in a thread: calls that take device memory name no device, and take that of the
//! current context.
//!
//! cuda.h: a thread has a stack of contexts whose top is current. cuCtxSetCurrent replaces the top, or pushes where the
//! stack is empty, and pops where it is given none. What a thread did before it was watched is not known: below the first
//! context that was seen there may be others.

use spark_trace_common::{
    cuda::Current,
    map_records::{CONTEXT_DEPTH, ThreadContexts},
};

use crate::maps::THREAD_CONTEXTS;

const SET: u64 = Current::Set as u64;
const PUSH: u64 = Current::Push as u64;
const POP: u64 = Current::Pop as u64;
const CREATED: u64 = Current::Created as u64;
const DESTROYED: u64 = Current::Destroyed as u64;

/// The thread's current context, 0 where it has none or it is not known.
#[inline(always)]
pub(crate) fn of(thread: u64) -> u64 {
    let Some(contexts) = THREAD_CONTEXTS.get_ptr(&thread) else { return 0 };
    // SAFETY: the map keeps the value alive, and only its own thread writes it.
    unsafe { top(contexts) }
}

/// A thread is gone, or runs another program.
#[inline(always)]
pub(crate) fn forget(thread: u64) {
    // Almost none has an entry, and looking takes no lock.
    if THREAD_CONTEXTS.get_ptr(&thread).is_some() {
        let _ = THREAD_CONTEXTS.remove(&thread);
    }
}

/// A call of [`Current`] has succeeded: `given` was its argument, `made` the context that it created.
#[inline(always)]
pub(crate) fn change(thread: u64, change: u64, given: u64, made: u64) {
    if THREAD_CONTEXTS.get_ptr(&thread).is_none() {
        let _ = THREAD_CONTEXTS.insert(&thread, &ThreadContexts::default(), 0);
    }
    let Some(contexts) = THREAD_CONTEXTS.get_ptr_mut(&thread) else { return };
    // SAFETY: as above.
    unsafe {
        match change {
            SET if given == 0 => pop(contexts),
            SET => {
                pop(contexts);
                push(contexts, given);
            }
            PUSH => push(contexts, given),
            CREATED => push(contexts, made),
            POP => pop(contexts),
            DESTROYED if top(contexts) == given => pop(contexts),
            _ => {}
        }
    }
}

/// # Safety
/// `contexts` must point at a value of the map.
#[inline(always)]
unsafe fn top(contexts: *const ThreadContexts) -> u64 {
    // SAFETY: by the caller's word; the place is within the array.
    unsafe {
        let depth = (*contexts).depth;
        if depth == 0 || depth > CONTEXT_DEPTH as u64 {
            return 0;
        }
        (*contexts).stack[(depth - 1) as usize & (CONTEXT_DEPTH - 1)]
    }
}

/// # Safety
/// As [`top`].
#[inline(always)]
unsafe fn push(contexts: *mut ThreadContexts, context: u64) {
    // SAFETY: as in `top`.
    unsafe {
        let depth = (*contexts).depth;
        if depth < CONTEXT_DEPTH as u64 {
            (*contexts).stack[depth as usize & (CONTEXT_DEPTH - 1)] = context;
        }
        (*contexts).depth = depth + 1;
    }
}

/// # Safety
/// As [`top`].
#[inline(always)]
unsafe fn pop(contexts: *mut ThreadContexts) {
    // SAFETY: as in `top`.
    unsafe { (*contexts).depth = (*contexts).depth.saturating_sub(1) }
}
