//! Frames of Python: from the interpreter's list of threads to the one that runs, and along its frames.
//!
//! The thread that holds the interpreter's lock says nothing, because who allocates has let go of it as often as not. So
//! the thread is found by what pthread_self(3) returns in it, which the interpreter keeps of each
//! (Python/pystate.c, `PyThreadState_Bind`).

use aya_ebpf::helpers::bpf_probe_read_user;
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
    if !unsafe { allows(rate, PYTHON_STACKS_A_SECOND) } {
        lost!(PythonStacks);
        return None;
    }
    Some(process)
}

/// Writes the frames of the current thread.
///
/// # Safety
/// `process` must be a live map value, and `to` must point at a slot of the ring buffer.
#[inline(always)]
pub(super) unsafe fn walk(process: *const PythonProcess, to: *mut PythonStack) {
    // SAFETY (whole function): by the caller's word; user addresses are checked by the helper.
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
        let mut kept = 0;
        let mut end = PythonEnd::Deep;
        for slot in 0..PYTHON_DEPTH {
            // One that the interpreter made for itself is none of the program's: the next one takes its place.
            let found = match next_of_program(process, frame) {
                Next::Frame(found) => found,
                Next::None => {
                    end = PythonEnd::Outermost;
                    break;
                }
                Next::Unreadable => {
                    end = PythonEnd::Unreadable;
                    break;
                }
            };
            let Some(described) = describe(process, found) else {
                end = PythonEnd::Unreadable;
                break;
            };
            (*to).stack[slot] = described;
            kept = slot as u32 + 1;
            frame = word(found, (*process).frame_previous);
        }
        (*to).frames = kept;
        (*to).end = end as u32;
    }
}

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

/// The interpreter's structure of the current thread.
///
/// # Safety
/// `process` must be a live map value.
#[inline(always)]
unsafe fn thread(process: *const PythonProcess) -> Option<u64> {
    // SAFETY: the current task's type is known to the verifier; the other by the caller's word.
    unsafe {
        let pointer: u64 = load(current_task(), conf!(task_thread_pointer));
        let mut interpreter = word((*process).interpreters, 0)?;
        let mut thread = word(interpreter, (*process).interpreter_threads)?;
        for _ in 0..PYTHON_THREADS {
            if thread == 0 {
                interpreter = word(interpreter, (*process).interpreter_next)?;
                if interpreter == 0 {
                    return None;
                }
                thread = word(interpreter, (*process).interpreter_threads)?;
            } else if pointer.wrapping_sub(word(thread, (*process).thread_id)?) <= ABOVE_SELF {
                return Some(thread);
            } else {
                thread = word(thread, (*process).thread_next)?;
            }
        }
        None
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
