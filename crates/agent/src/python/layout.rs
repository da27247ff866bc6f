//! Where CPython keeps what a frame's name needs: one row for each version.
//!
//! Offsets are those that `offsetof` gives with the headers of 3.10.13, 3.11.7, 3.12.1 and 3.13.0 (Include/internal; 64 bits,
//! without Py_DEBUG). Of 3.13 the process itself says them (Include/internal/pycore_runtime.h `_Py_DebugOffsets`). What does
//! not fit gives no names: the type of each object is compared before it is believed.

use spark_trace_common::python::{NO_MEMBER, PythonProcess};

/// Members of objects that names are read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// From `_PyRuntime` to its pointer to the first interpreter.
    pub interpreters: u64,
    pub walk: PythonProcess,
    pub code: CodeMembers,
    /// Data of a compact text: of one that is ASCII, and of others.
    pub ascii_data: u64,
    pub compact_data: u64,
    pub lines: LineTable,
}

/// Of a code object (Include/cpython/code.h). Its name and first line are in [`PythonProcess`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CodeMembers {
    pub file_name: u64,
    pub line_table: u64,
    /// The instructions, where they are part of the object.
    pub instructions: Option<u64>,
}

/// How a code object says which lines its instructions are of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LineTable {
    /// Pairs of bytes: instructions, and lines further (PEP 626).
    Pairs,
    /// Entries of several kinds (PEP 657).
    Locations,
}

/// A version of CPython.
#[derive(Debug)]
pub struct Version {
    pub minor: u64,
    pub layout: Layout,
    /// It has `_Py_DebugOffsets`.
    pub says_offsets: bool,
}

const V3_11: PythonProcess = PythonProcess {
    interpreters: 0,
    interpreter_next: 0,
    interpreter_threads: 16,
    thread_next: 8,
    thread_id: 152,
    thread_frame: 56,
    frame_of_structure: 8,
    frame_code: 32,
    frame_previous: 48,
    frame_instruction: 56,
    frame_owner: 69,
    code_name: 128,
    code_first_line: 72,
};

const CODE_3_12: CodeMembers = CodeMembers { file_name: 112, line_table: 136, instructions: Some(192) };

pub const VERSIONS: &[Version] = &[
    Version {
        minor: 10,
        layout: Layout {
            interpreters: 32,
            walk: PythonProcess {
                interpreter_threads: 8,
                thread_id: 176,
                thread_frame: 24,
                frame_of_structure: NO_MEMBER,
                frame_previous: 24,
                frame_instruction: 96,
                frame_owner: NO_MEMBER,
                code_name: 112,
                code_first_line: 40,
                ..V3_11
            },
            code: CodeMembers { file_name: 104, line_table: 120, instructions: None },
            ascii_data: 48,
            compact_data: 72,
            lines: LineTable::Pairs,
        },
        says_offsets: false,
    },
    Version {
        minor: 11,
        layout: Layout {
            interpreters: 40,
            walk: V3_11,
            code: CodeMembers { instructions: Some(184), ..CODE_3_12 },
            ascii_data: 48,
            compact_data: 72,
            lines: LineTable::Locations,
        },
        says_offsets: false,
    },
    Version { minor: 12, layout: V3_12, says_offsets: false },
    Version {
        minor: 13,
        layout: Layout {
            interpreters: 632,
            walk: PythonProcess {
                interpreter_next: 7264,
                interpreter_threads: 7344,
                thread_id: 152,
                thread_frame: 72,
                frame_of_structure: NO_MEMBER,
                ..V3_12.walk
            },
            code: CodeMembers { instructions: Some(200), ..CODE_3_12 },
            ..V3_12
        },
        says_offsets: true,
    },
];

const V3_12: Layout = Layout {
    interpreters: 40,
    walk: PythonProcess {
        interpreter_threads: 72,
        thread_id: 136,
        frame_of_structure: 0,
        frame_code: 0,
        frame_previous: 8,
        frame_owner: 70,
        code_first_line: 68,
        ..V3_11
    },
    code: CODE_3_12,
    ascii_data: 40,
    compact_data: 56,
    lines: LineTable::Locations,
};

/// What `_Py_DebugOffsets` begins with.
const COOKIE: &[u8; 8] = b"xdebugpy";
/// Words of it that are read, its cookie too.
pub const DEBUG_OFFSETS: usize = 44;

/// An offset in a structure of CPython's is smaller than this.
const LARGEST_OFFSET: u64 = 1 << 20;

impl Layout {
    /// The layout that a process of CPython 3.13 says it has; `None` where it is none that is known.
    pub fn said(self, words: &[u64; DEBUG_OFFSETS]) -> Option<Self> {
        // Its number is that of PY_VERSION_HEX; an interpreter without the lock has other objects.
        let (version, without_lock) = (words[1], words[2]);
        if words[0].to_le_bytes() != *COOKIE || minor(version) != Some(13) || without_lock != 0 {
            return None;
        }
        let offset = |index: usize| words.get(index).copied().filter(|offset| *offset < LARGEST_OFFSET);
        let small = |index: usize| u32::try_from(offset(index)?).ok();
        Some(Self {
            // Numbers of words: runtime_state from 3, interpreter_state from 6, thread_state from 19, interpreter_frame from
            // 28, code_object from 34.
            interpreters: offset(5)?,
            walk: PythonProcess {
                interpreters: 0,
                interpreter_next: small(8)?,
                interpreter_threads: small(9)?,
                thread_next: small(21)?,
                thread_frame: small(23)?,
                thread_id: small(24)?,
                frame_of_structure: NO_MEMBER,
                frame_previous: small(29)?,
                frame_code: small(30)?,
                frame_instruction: small(31)?,
                frame_owner: small(33)?,
                code_name: small(37)?,
                code_first_line: small(39)?,
            },
            code: CodeMembers {
                file_name: offset(35)?,
                line_table: offset(38)?,
                instructions: Some(offset(43)?),
            },
            ..self
        })
    }
}

/// The second number of a version, of CPython 3 (Include/patchlevel.h PY_VERSION_HEX).
pub const fn minor(version: u64) -> Option<u64> {
    if version >> 24 == 3 { Some(version >> 16 & 0xff) } else { None }
}
