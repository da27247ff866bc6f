//! Frames of Python: from the interpreter's list of threads to the one that runs, and along its frames.
//!
//! The thread that holds the interpreter's lock says nothing, because who allocates has let go of it as often as not. So
//! the thread is found by what pthread_self(3) returns in it, which the interpreter keeps of each
//! (Python/pystate.c, `PyThreadState_Bind`).

use core::ffi::c_void;

use aya_ebpf::helpers::{bpf_probe_read_user, generated::bpf_loop};
use spark_trace_common::{
    capacities::{PYTHON_DEPTH, PYTHON_STACKS_A_SECOND, PYTHON_THREADS},
    config::NO_MEMBER as NO_OFFSET,
    python::{NO_MEMBER, OWNED_BY_C, PythonEnd, PythonFrame, PythonProcess, PythonStack, TAG_BITS},
};

use crate::{
    config::conf,
    loss::lost,
    maps::{PYTHON_PROCESSES, PYTHON_RATE},
    rate::allows,
    read::load,
    target::current_task,
};

/// How far a thread pointer lies above what pthread_self(3) returns, at most. On x86-64 they are equal; on arm64 glibc has
/// its structure of the thread before it (sysdeps/aarch64/nptl/tls.h, THREAD_SELF).
const ABOVE_SELF: u64 = if cfg!(bpf_target_arch = "x86_64") { 0 } else { 4096 };

/// Whether the interpreter of a process was found. One that has none may have been looked at before it was linked.
#[inline(always)]
pub(super) fn is_known(tgid: u32) -> bool {
    // SAFETY: a live map value.
    PYTHON_PROCESSES.get_ptr(&tgid).is_some_and(|process| unsafe { (*process).interpreters } != 0)
}

/// A process's interpreter, if it has one and this CPU may walk its frames.
#[inline(always)]
pub(super) fn of_process(tgid: u32) -> Option<*const PythonProcess> {
    let process = PYTHON_PROCESSES.get_ptr(&tgid)?;
    // SAFETY: a live map value.
    if unsafe { (*process).interpreters } == 0 || conf!(task_thread_pointer) == NO_OFFSET {
        return None;
    }
    let rate = PYTHON_RATE.get_ptr_mut(0)?;
    // SAFETY: this CPU's slot.
    if unsafe { allows(rate, PYTHON_STACKS_A_SECOND) }.is_none() {
        lost!(PythonStacks);
        return None;
    }
    Some(process)
}

/// Frames on their way to an event.
struct Frames {
    process: *const PythonProcess,
    to: *mut PythonStack,
    /// The next one.
    frame: u64,
    kept: u32,
    end: u32,
}

/// Writes the frames of the current thread.
///
/// Loops are the helper's: of one of ours the verifier would look at every turn, and of each way through it.
///
/// # Safety
/// `process` must be a live map value, and `to` must point at a slot of the ring buffer.
#[inline(always)]
pub(super) unsafe fn walk(process: *const PythonProcess, to: *mut PythonStack) {
    // SAFETY (whole function): by the caller's word; user addresses are checked by the helper. The callback is of the form
    // that the helper wants, with what it expects.
    unsafe {
        (*to).frames = 0;
        let Some(thread) = thread(process) else {
            (*to).end = PythonEnd::NoThread as u32;
            return;
        };
        let mut frame = word(thread, (*process).thread_frame);
        if (*process).frame_of_structure != NO_MEMBER {
            frame = frame.and_then(|structure| word(structure, (*process).frame_of_structure));
        }
        let Some(frame) = frame else {
            (*to).end = PythonEnd::Unreadable as u32;
            return;
        };
        let mut frames = Frames { process, to, frame, kept: 0, end: PythonEnd::Deep as u32 };
        bpf_loop(PYTHON_DEPTH as u32, next_frame as *mut c_void, (&raw mut frames).cast(), 0);
        (*to).frames = (&raw const frames.kept).read_volatile();
        (*to).end = (&raw const frames.end).read_volatile();
    }
}

/// Writes one frame: `long callback(u32 index, void *ctx)`, not 0 after the last.
extern "C" fn next_frame(slot: u32, frames: *mut Frames) -> i64 {
    // SAFETY (whole function): `walk` hands it over.
    unsafe {
        let process = (*frames).process;
        // One that the interpreter made for itself is none of the program's: the next one takes its place.
        let found = match next_of_program(process, Some((*frames).frame)) {
            Next::Frame(found) => found,
            Next::None => {
                (*frames).end = PythonEnd::Outermost as u32;
                return 1;
            }
            Next::Unreadable => {
                (*frames).end = PythonEnd::Unreadable as u32;
                return 1;
            }
        };
        let Some(described) = describe(process, found) else {
            (*frames).end = PythonEnd::Unreadable as u32;
            return 1;
        };
        (*(*frames).to).stack[slot as usize & (PYTHON_DEPTH - 1)] = described;
        (*frames).kept = slot + 1;
        // What lies outside of the last one is not looked at.
        if slot + 1 < PYTHON_DEPTH as u32 {
            let Some(outside) = word(found, (*process).frame_previous) else {
                (*frames).end = PythonEnd::Unreadable as u32;
                return 1;
            };
            (*frames).frame = outside;
        }
        0
    }
}
const _: () = assert!(PYTHON_DEPTH.is_power_of_two());

enum Next {
    Frame(u64),
    None,
    Unreadable,
}

/// The first frame of the program's at or outside of `frame`.
///
/// # Safety
/// `process` must be a live map value.
#[inline(always)]
unsafe fn next_of_program(process: *const PythonProcess, mut frame: Option<u64>) -> Next {
    // SAFETY: by the caller's word.
    unsafe {
        // The outermost of 3.14 has one more behind it.
        for _ in 0..3 {
            let Some(address) = frame else { return Next::Unreadable };
            if address == 0 {
                return Next::None;
            }
            if (*process).frame_owner == NO_MEMBER {
                return Next::Frame(address);
            }
            match read::<u8>(address, (*process).frame_owner) {
                Some(OWNED_BY_C..) => frame = word(address, (*process).frame_previous),
                Some(_) => return Next::Frame(address),
                None => return Next::Unreadable,
            }
        }
    }
    Next::Unreadable
}

/// # Safety
/// `process` must be a live map value.
#[inline(always)]
unsafe fn describe(process: *const PythonProcess, frame: u64) -> Option<PythonFrame> {
    // SAFETY: by the caller's word.
    unsafe {
        let code = word(frame, (*process).frame_code)? & !TAG_BITS;
        Some(PythonFrame {
            code,
            instruction: word(frame, (*process).frame_instruction)?,
            name: word(code, (*process).code_name)?,
            first_line: read(code, (*process).code_first_line)?,
            reserved: 0,
        })
    }
}

/// A search for the current thread.
struct Search {
    process: *const PythonProcess,
    /// The thread pointer of the current thread.
    pointer: u64,
    interpreter: u64,
    /// The next one that is looked at.
    thread: u64,
    found: u64,
}

/// The interpreter's structure of the current thread.
///
/// # Safety
/// `process` must be a live map value.
#[inline(always)]
unsafe fn thread(process: *const PythonProcess) -> Option<u64> {
    // SAFETY: the current task's type is known to the verifier; the other by the caller's word. The callback is of the form
    // that the helper wants, with what it expects.
    unsafe {
        let pointer: u64 = load(current_task(), conf!(task_thread_pointer));
        let interpreter = word((*process).interpreters, 0)?;
        let thread = word(interpreter, (*process).interpreter_threads)?;
        let mut search = Search { process, pointer, interpreter, thread, found: 0 };
        bpf_loop(PYTHON_THREADS, next_thread as *mut c_void, (&raw mut search).cast(), 0);
        let found = (&raw const search.found).read_volatile();
        (found != 0).then_some(found)
    }
}

/// Looks at one thread, or goes to the next interpreter: `long callback(u32 index, void *ctx)`, not 0 where the search is over.
extern "C" fn next_thread(_: u32, search: *mut Search) -> i64 {
    // SAFETY: `thread` hands it over.
    unsafe { step(search) }.is_none().into()
}

/// `None` where the search is over.
///
/// # Safety
/// `search` must be as in [`thread`].
#[inline(always)]
unsafe fn step(search: *mut Search) -> Option<()> {
    // SAFETY: by the caller's word.
    unsafe {
        let process = (*search).process;
        let thread = (*search).thread;
        if thread == 0 {
            let interpreter = word((*search).interpreter, (*process).interpreter_next)?;
            if interpreter == 0 {
                return None;
            }
            (*search).interpreter = interpreter;
            (*search).thread = word(interpreter, (*process).interpreter_threads)?;
        } else if (*search).pointer.wrapping_sub(word(thread, (*process).thread_id)?) <= ABOVE_SELF {
            (*search).found = thread;
            return None;
        } else {
            (*search).thread = word(thread, (*process).thread_next)?;
        }
        Some(())
    }
}

#[inline(always)]
fn word(address: u64, offset: u32) -> Option<u64> {
    read(address, offset)
}

#[inline(always)]
fn read<T>(address: u64, offset: u32) -> Option<T> {
    // SAFETY: the helper checks the address.
    unsafe { bpf_probe_read_user(address.wrapping_add(u64::from(offset)) as *const T) }.ok()
}
