//! Frames of CPython, as the kernel side finds them: where a process keeps its threads, and what was running in one.
//!
//! Code of C and C++ that is built without frame pointers ends a walk of the stack. The interpreter keeps a list of its own,
//! from the innermost frame outwards, and that one is walked.

use crate::capacities::PYTHON_DEPTH;

/// A frame of a thread, with what tells whether its code object is still the same when its name is read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(feature = "zerocopy", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable))]
#[repr(C)]
pub struct PythonFrame {
    /// Address of the code object.
    pub code: u64,
    /// The instruction: its address, or its number in the low half (CPython 3.10).
    pub instruction: u64,
    /// Address of the function's name, and the line that it begins at: members of the code object.
    pub name: u64,
    pub first_line: u32,
    pub reserved: u32,
}

/// Frames of the thread that made a call, innermost first.
#[derive(Debug, Clone, Copy)]
#[cfg_attr(feature = "zerocopy", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable))]
#[repr(C)]
pub struct PythonStack {
    /// Frames in `stack`.
    pub frames: u32,
    /// A [`PythonEnd`].
    pub end: u32,
    pub stack: [PythonFrame; PYTHON_DEPTH],
}

/// How a walk of a thread's frames ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum PythonEnd {
    /// Behind the outermost frame.
    Outermost = 0,
    /// There are more frames than are kept.
    Deep = 1,
    /// No thread of the interpreter's is this one: a thread of a library, or there are too many.
    NoThread = 2,
    /// Memory could not be read.
    Unreadable = 3,
}

impl PythonEnd {
    pub const ALL: [Self; 4] = [Self::Outermost, Self::Deep, Self::NoThread, Self::Unreadable];
}

/// A member that this version does not have.
pub const NO_MEMBER: u32 = u32::MAX;

/// The first of those who own a frame that the interpreter made for itself: no function of Python's (Include/internal/
/// pycore_frame.h `FRAME_OWNED_BY_CSTACK`; in 3.14 pycore_interpframe_structs.h has two of them).
pub const OWNED_BY_C: u8 = 3;

/// Bits of a pointer to a code object that are no part of its address (3.14, Include/internal/pycore_stackref.h `Py_TAG_BITS`).
/// Objects lie at multiples of eight.
pub const TAG_BITS: u64 = 3;

/// Where a process's interpreter keeps its threads and their frames. Offsets are of members of CPython's structures.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(feature = "zerocopy", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable))]
#[repr(C)]
pub struct PythonProcess {
    /// Address of the pointer to the first interpreter; 0 where the process has none, and need not be looked at again.
    pub interpreters: u64,
    pub interpreter_next: u32,
    pub interpreter_threads: u32,
    pub thread_next: u32,
    /// What pthread_self(3) returns in it.
    pub thread_id: u32,
    /// The innermost frame, or what points to it.
    pub thread_frame: u32,
    /// Where that is a structure: its pointer to the innermost frame; else [`NO_MEMBER`].
    pub frame_of_structure: u32,
    pub frame_code: u32,
    pub frame_previous: u32,
    pub frame_instruction: u32,
    pub frame_owner: u32,
    pub code_name: u32,
    pub code_first_line: u32,
}

wire! {
    PythonFrame = 32,
    PythonStack = 8 + 32 * PYTHON_DEPTH,
    PythonProcess = 56,
}
