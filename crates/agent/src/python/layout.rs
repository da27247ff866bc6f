//! Where CPython keeps what a frame's name needs: one row for each version.
//!
//! Offsets are those that `offsetof` gives with the headers of 3.10.13, 3.11.7, 3.12.1 and 3.13.0 (Include/internal; 64 bits,
//! without Py_DEBUG). From 3.13 on the process itself has them (Include/internal/pycore_runtime.h and, from 3.14 on,
//! pycore_debug_offsets.h: `_Py_DebugOffsets`). What does not fit gives no names: the type of each object is compared before it
//! is believed.

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
    /// Where `_Py_DebugOffsets` has them, if it has that.
    pub words: Option<&'static Words>,
}

/// Numbers of words in `_Py_DebugOffsets`.
#[derive(Debug)]
pub struct Words {
    interpreters: usize,
    interpreter_next: usize,
    interpreter_threads: usize,
    thread_next: usize,
    thread_frame: usize,
    thread_id: usize,
    frame_previous: usize,
    frame_code: usize,
    frame_instruction: usize,
    frame_owner: usize,
    file_name: usize,
    qualified_name: usize,
    line_table: usize,
    first_line: usize,
    instructions: usize,
}

const WORDS_3_13: Words = Words {
    interpreters: 5,
    interpreter_next: 8,
    interpreter_threads: 9,
    thread_next: 21,
    thread_frame: 23,
    thread_id: 24,
    frame_previous: 29,
    frame_code: 30,
    frame_instruction: 31,
    frame_owner: 33,
    file_name: 35,
    qualified_name: 37,
    line_table: 38,
    first_line: 39,
    instructions: 43,
};

const WORDS_3_14: Words = Words {
    thread_next: 24,
    thread_frame: 26,
    thread_id: 27,
    frame_previous: 32,
    frame_code: 33,
    frame_instruction: 34,
    frame_owner: 36,
    file_name: 40,
    qualified_name: 42,
    line_table: 43,
    first_line: 44,
    instructions: 48,
    ..WORDS_3_13
};

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
        words: None,
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
        words: None,
    },
    Version { minor: 12, layout: V3_12, words: None },
    Version { minor: 13, layout: V3_12, words: Some(&WORDS_3_13) },
    Version { minor: 14, layout: V3_12, words: Some(&WORDS_3_14) },
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
pub const DEBUG_OFFSETS: usize = 49;

/// An offset in a structure of CPython's is smaller than this.
const LARGEST_OFFSET: u64 = 1 << 20;

impl Layout {
    /// The layout that a process of a version has by its own word; `None` where it is none that is known.
    pub fn said(self, of: &Version, at: &Words, words: &[u64; DEBUG_OFFSETS]) -> Option<Self> {
        // Its number is that of PY_VERSION_HEX; an interpreter without the lock has other objects.
        let (version, without_lock) = (words[1], words[2]);
        if words[0].to_le_bytes() != *COOKIE || minor(version) != Some(of.minor) || without_lock != 0 {
            return None;
        }
        let offset = |index: usize| words.get(index).copied().filter(|offset| *offset < LARGEST_OFFSET);
        let small = |index: usize| u32::try_from(offset(index)?).ok();
        Some(Self {
            interpreters: offset(at.interpreters)?,
            walk: PythonProcess {
                interpreters: 0,
                interpreter_next: small(at.interpreter_next)?,
                interpreter_threads: small(at.interpreter_threads)?,
                thread_next: small(at.thread_next)?,
                thread_frame: small(at.thread_frame)?,
                thread_id: small(at.thread_id)?,
                frame_of_structure: NO_MEMBER,
                frame_previous: small(at.frame_previous)?,
                frame_code: small(at.frame_code)?,
                frame_instruction: small(at.frame_instruction)?,
                frame_owner: small(at.frame_owner)?,
                code_name: small(at.qualified_name)?,
                code_first_line: small(at.first_line)?,
            },
            code: CodeMembers {
                file_name: offset(at.file_name)?,
                line_table: offset(at.line_table)?,
                instructions: Some(offset(at.instructions)?),
            },
            ..self
        })
    }
}

/// The second number of a version, of CPython 3 (Include/patchlevel.h PY_VERSION_HEX).
pub const fn minor(version: u64) -> Option<u64> {
    if version >> 24 == 3 { Some(version >> 16 & 0xff) } else { None }
}
