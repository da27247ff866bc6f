//! A code object of another process: file, name and lines. Each pointer may lead anywhere and each length be any.

use std::sync::Arc;

use spark_trace_common::python::PythonFrame;

use super::{find::Interpreter, lines, memory};

/// Characters of a name or a path that are read.
const LONGEST_TEXT: u64 = 1024;
/// Bytes of a table of lines. Generated modules have functions of some ten thousand lines.
const LARGEST_TABLE: u64 = 256 << 10;

/// An object begins with its count of references and its type; one of variable size then has its length
/// (Include/object.h).
const OBJECT_TYPE: usize = 1;
const OBJECT_SIZE: usize = 2;
/// From a bytes object to its bytes (Include/cpython/bytesobject.h).
const BYTES_DATA: u64 = 32;

/// What is read of a code object, as it was when its frame was seen.
#[derive(Debug)]
pub struct Code {
    pub file: Arc<str>,
    pub name: Arc<str>,
    seen: PythonFrame,
    table: Vec<u8>,
}

/// Why a frame has no name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unnamed {
    /// It cannot be read: its process is gone.
    Unreadable,
    /// Something else is there by now.
    Changed,
    /// A name, a path or a table of lines is larger than any that is read.
    TooLarge,
}

impl Unnamed {
    pub const fn why(self) -> &'static str {
        match self {
            Self::Unreadable => "their process had ended before they were read",
            Self::Changed => "their function was gone before it was read",
            Self::TooLarge => "a name, a path or a table of lines is larger than what is read",
        }
    }
}

impl Code {
    /// Whether this was read for the code object that `frame` had.
    pub const fn is_of(&self, frame: &PythonFrame) -> bool {
        self.seen.code == frame.code
            && self.seen.name == frame.name
            && self.seen.first_line == frame.first_line
    }

    /// Bytes that it takes.
    pub fn size(&self) -> usize {
        size_of::<Self>() + self.file.len() + self.name.len() + self.table.len()
    }

    /// The line of an instruction.
    pub fn line(&self, interpreter: &Interpreter, frame: &PythonFrame) -> Option<u32> {
        let layout = &interpreter.layout;
        let instruction = match layout.code.instructions {
            Some(offset) => {
                frame.instruction.checked_sub(frame.code.checked_add(offset)?)? / lines::INSTRUCTION
            }
            // A number of 32 bits; before the first instruction it is -1.
            None => u64::from((frame.instruction as u32).cast_signed().max(0).unsigned_abs()),
        };
        lines::line(layout.lines, &self.table, frame.first_line, instruction)
    }

    /// Reads the code object of a frame.
    pub fn read(pid: u32, interpreter: &Interpreter, frame: &PythonFrame) -> Result<Self, Unnamed> {
        let layout = &interpreter.layout;
        let at = |offset: u64| frame.code.wrapping_add(offset);
        let head = || -> Result<[u64; 3], Unnamed> {
            let word = |offset: u64| memory::word(pid, at(offset)).ok_or(Unnamed::Unreadable);
            let kind = word(8 * OBJECT_TYPE as u64)?;
            let first_line = word(u64::from(layout.walk.code_first_line))? as u32;
            let name = word(u64::from(layout.walk.code_name))?;
            if kind != interpreter.types.code || first_line != frame.first_line || name != frame.name {
                return Err(Unnamed::Changed);
            }
            Ok([word(layout.code.file_name)?, name, word(layout.code.line_table)?])
        };
        let before = head()?;
        let [file, name, table] = before;
        let code = Self {
            file: text(pid, interpreter, file)?.into(),
            name: text(pid, interpreter, name)?.into(),
            seen: *frame,
            table: bytes(pid, interpreter, table)?,
        };
        // What was freed while it was read may have been anything.
        if head()? == before { Ok(code) } else { Err(Unnamed::Changed) }
    }
}

/// A text (Include/cpython/unicodeobject.h PyASCIIObject): type, length, and in the low bits of its state the bytes of a
/// character, whether its data follow it, and whether they are ASCII.
fn text(pid: u32, interpreter: &Interpreter, address: u64) -> Result<String, Unnamed> {
    const STATE: usize = 4;
    let head: [u64; STATE + 1] = memory::words(pid, address).ok_or(Unnamed::Unreadable)?;
    let (kind, compact, ascii) = (head[STATE] >> 2 & 7, head[STATE] >> 5 & 1, head[STATE] >> 6 & 1);
    if head[OBJECT_TYPE] != interpreter.types.text || compact == 0 || !matches!(kind, 1 | 2 | 4) {
        return Err(Unnamed::Changed);
    }
    let length = head[OBJECT_SIZE];
    if length > LONGEST_TEXT {
        return Err(Unnamed::TooLarge);
    }
    let layout = &interpreter.layout;
    let data = if ascii == 1 { layout.ascii_data } else { layout.compact_data };
    let mut bytes = vec![0; (length * kind) as usize];
    memory::fill(pid, address.wrapping_add(data), &mut bytes).ok_or(Unnamed::Unreadable)?;
    let character = |bytes: &[u8]| {
        let number = bytes.iter().rev().fold(0, |number, byte| number << 8 | u32::from(*byte));
        char::from_u32(number).unwrap_or(char::REPLACEMENT_CHARACTER)
    };
    Ok(bytes.chunks_exact(kind as usize).map(character).collect())
}

fn bytes(pid: u32, interpreter: &Interpreter, address: u64) -> Result<Vec<u8>, Unnamed> {
    let head: [u64; OBJECT_SIZE + 1] = memory::words(pid, address).ok_or(Unnamed::Unreadable)?;
    if head[OBJECT_TYPE] != interpreter.types.bytes {
        return Err(Unnamed::Changed);
    }
    if head[OBJECT_SIZE] > LARGEST_TABLE {
        return Err(Unnamed::TooLarge);
    }
    let mut bytes = vec![0; head[OBJECT_SIZE] as usize];
    memory::fill(pid, address.wrapping_add(BYTES_DATA), &mut bytes).ok_or(Unnamed::Unreadable)?;
    Ok(bytes)
}
