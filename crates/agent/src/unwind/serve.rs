//! What is done with a stack in the process without rights.
//!
//! It knows of a process's code only what it has requested: for each address that it knows nothing of, the other side sends the
//! mapping and an open file. Files and mappings are kept, each under a number of the other side's.

use std::{collections::HashMap, fs::File, io, os::fd::BorrowedFd, rc::Rc};

use spark_trace_common::stack_copy::REGISTERS;

use super::{
    tables::{Module, Tables},
    walk::{Copied, End, Walk, walk},
};
use crate::unprivileged::socket;

/// First bytes of packets.
pub const STACK: u8 = b'u';
pub const NEED: u8 = b'n';
pub const CODE: u8 = b'c';
pub const FRAMES: u8 = b'a';

/// Address space for tables of files. When they are more, all are mapped anew.
const MOST_MAPPED: u64 = 384 << 20;
/// Processes and files that are kept.
const MOST_PROCESSES: usize = 64;
const MOST_FILES: usize = 4096;

/// Stacks are unwound of any process that a stack comes of.
#[derive(Debug, Default)]
pub struct Unwinder {
    processes: HashMap<u64, Vec<Module>>,
    files: HashMap<u64, Option<Rc<Tables>>>,
    mapped: u64,
}

impl Unwinder {
    /// Answers one request.
    pub fn answer(&mut self, socket: BorrowedFd<'_>, request: &[u8]) -> io::Result<()> {
        let invalid = || io::Error::from(io::ErrorKind::InvalidData);
        let (process, copied) = request_of(request).ok_or_else(invalid)?;
        if self.processes.len() >= MOST_PROCESSES && !self.processes.contains_key(&process) {
            self.processes.clear();
        }
        let mut modules = self.processes.remove(&process).unwrap_or_default();
        let mut failed = None;
        let walked = walk(&copied, |address| {
            let after = modules.partition_point(|module| module.start <= address);
            let known = after.checked_sub(1).and_then(|at| modules.get(at));
            if let Some(module) = known.filter(|module| address < module.end) {
                return Some(module.clone());
            }
            let module = self.need(socket, address).map_err(|error| failed = Some(error)).ok()??;
            modules.insert(after, module.clone());
            Some(module)
        });
        if let Some(error) = failed {
            return Err(error);
        }
        self.processes.insert(process, modules);
        socket::send(socket, &answer_of(&walked), None)
    }

    /// Requests what lies at an address.
    fn need(&mut self, socket: BorrowedFd<'_>, address: u64) -> io::Result<Option<Module>> {
        let mut request = vec![NEED];
        request.extend(address.to_le_bytes());
        socket::send(socket, &request, None)?;
        let (packet, file) = socket::receive(socket)?;
        let invalid = || io::Error::from(io::ErrorKind::InvalidData);
        let (kind, content) = packet.split_first().ok_or_else(invalid)?;
        if *kind != CODE {
            return Err(invalid());
        }
        let Some(code) = Code::of(content) else { return Ok(None) };
        let tables = self.tables(code.file, file.map(File::from));
        Ok(Some(Module::new((code.start, code.end), code.offset, tables)))
    }

    fn tables(&mut self, number: u64, file: Option<File>) -> Option<Rc<Tables>> {
        if let Some(known) = self.files.get(&number) {
            return known.clone();
        }
        let tables = file.and_then(|file| Tables::open(&file)).map(Rc::new);
        let size = tables.as_ref().map_or(0, |tables| tables.size());
        if self.mapped + size > MOST_MAPPED || self.files.len() >= MOST_FILES {
            self.processes.clear();
            self.files.clear();
            self.mapped = 0;
        }
        self.mapped += size;
        self.files.insert(number, tables.clone());
        tables
    }
}

/// Code at an address that was requested.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Code {
    pub start: u64,
    pub end: u64,
    pub offset: u64,
    /// Number of its file.
    pub file: u64,
}

impl Code {
    pub fn packet(&self) -> Vec<u8> {
        let words = [self.start, self.end, self.offset, self.file];
        [CODE].into_iter().chain(words.into_iter().flat_map(u64::to_le_bytes)).collect()
    }

    fn of(content: &[u8]) -> Option<Self> {
        let words: Vec<u64> = words(content);
        let [start, end, offset, file] = words.try_into().ok()?;
        Some(Self { start, end, offset, file })
    }
}

fn words(bytes: &[u8]) -> Vec<u64> {
    bytes.as_chunks().0.iter().map(|bytes| u64::from_le_bytes(*bytes)).collect()
}

/// Words before the bytes of a stack: process, instruction, start, registers.
const HEAD: usize = 3 + REGISTERS;

/// A request. `process` is a number that a process has for as long as its code is the same.
pub fn request(process: u64, copied: &Copied) -> Vec<u8> {
    let head = [process, copied.instruction, copied.start].into_iter().chain(copied.registers);
    let head = head.flat_map(u64::to_le_bytes);
    [STACK].into_iter().chain(head).chain(copied.bytes.iter().copied()).collect()
}

fn request_of(bytes: &[u8]) -> Option<(u64, Copied)> {
    let (head, bytes) = bytes.split_at_checked(8 * HEAD)?;
    let head = words(head);
    let registers = head.get(3..)?.try_into().ok()?;
    let copied = Copied { instruction: head[1], start: head[2], registers, bytes: bytes.to_vec() };
    Some((head[0], copied))
}

/// How ends are numbered in answers.
const ENDS: &[End] =
    &[End::Outermost, End::Deep, End::Unknown(0), End::NoTable, End::NotCopied, End::Nonsense];

fn answer_of(walk: &Walk) -> Vec<u8> {
    let (plain, address) = match walk.end {
        End::Unknown(address) => (End::Unknown(0), address),
        end => (end, 0),
    };
    let number = ENDS.iter().position(|end| *end == plain).unwrap_or_default() as u64;
    let words = [number, address].into_iter().chain(walk.frames.iter().copied());
    [FRAMES].into_iter().chain(words.flat_map(u64::to_le_bytes)).collect()
}

/// An answer's content; `None` where it is none.
pub fn walk_of(content: &[u8]) -> Option<Walk> {
    let words = words(content);
    let (head, frames) = words.split_at_checked(2)?;
    let end = match ENDS.get(usize::try_from(head[0]).ok()?)? {
        End::Unknown(_) => End::Unknown(head[1]),
        end => *end,
    };
    let valid = !frames.is_empty() && frames.len() <= super::walk::MOST_FRAMES;
    valid.then(|| Walk { frames: frames.to_vec(), end })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_read_as_they_were_written() {
        let mut registers = [0; REGISTERS];
        registers[7] = 0x7fff_0010;
        let copied = Copied { instruction: 0x4010, registers, start: 0x7fff_0000, bytes: vec![7; 1024] };
        let packet = request(5, &copied);
        let (process, read) = request_of(&packet[1..]).unwrap();
        assert_eq!((packet[0], process, read.instruction, read.start), (STACK, 5, 0x4010, 0x7fff_0000));
        assert_eq!((read.registers, read.bytes), (registers, vec![7; 1024]));
        assert!(request_of(&packet[1..100]).is_none());
        for end in ENDS.iter().copied().chain([End::Unknown(0x1234)]) {
            let walk = Walk { frames: vec![1, 2, 3], end };
            assert_eq!(walk_of(&answer_of(&walk)[1..]), Some(walk));
        }
        assert_eq!(walk_of(&[0; 16]), None, "no frame");
        assert_eq!(walk_of(&[9; 24]), None, "no such end");
        let code = Code { start: 1, end: 2, offset: 3, file: 4 };
        assert_eq!(Code::of(&code.packet()[1..]), Some(code));
        assert_eq!(Code::of(&[]), None);
    }
}
