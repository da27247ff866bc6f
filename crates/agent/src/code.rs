//! Where the code of processes lies, so that an address of a stack can be distinguished from rubbish. No event costs a walk of all
//! mappings: code is looked at when a program begins, one address is looked up in the kernel, and where it does not
//! answer for one address, all mappings are read at a bounded rate and what lies in none is remembered.

use std::collections::HashMap;

use super::{
    maps::{self, Answer, Mapping},
    now_ns,
};

/// Time between two readings of all mappings of a process, at least, and how long an address that the kernel was asked
/// for counts as none of code, ...
const REST_NS: u64 = 5_000_000;
/// ... and between readings, how many times as long as the last one took.
const REST_FACTOR: u64 = 20;
/// Addresses remembered of one process.
const MOST_OUTSIDE: usize = 4096;

/// What an address of a process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// Code of a file, by the caller's number of it, at an offset.
    File(usize, u64),
    /// Code in no file that is known: generated, the kernel's own (vdso), or of one file too many.
    Generated,
    /// No code: no frame lies there.
    Outside,
    /// Nobody can say: the process is gone, or it is too early to look again.
    Unknown,
}

/// Gives a file its number, as long as there are not too many.
pub type Number<'a> = &'a mut dyn FnMut(&Mapping) -> Option<usize>;

#[derive(Debug, Default)]
pub struct Code {
    processes: HashMap<u32, Known>,
    /// Never request one address: as on kernels that do not answer.
    walks: bool,
    /// The last number given.
    numbers: u64,
}

#[derive(Debug, Default)]
struct Known {
    /// Lowest first.
    code: Vec<Range>,
    /// Addresses that lay in no code, and when that was seen. A program that makes mappings fast brings the same few again
    /// and again.
    outside: HashMap<u64, u64>,
    read_ns: u64,
    cost_ns: u64,
    /// It has mapped a file since.
    changed: bool,
    /// Another one whenever the ranges have changed; no other process has it.
    number: u64,
}

#[derive(Debug, Clone, Copy)]
struct Range {
    start: u64,
    end: u64,
    offset: u64,
    file: Option<usize>,
}

impl Range {
    fn new(mapping: &Mapping, number: Number<'_>) -> Self {
        let file = if mapping.is_file() { number(mapping) } else { None };
        Self { start: mapping.start, end: mapping.end, offset: mapping.offset, file }
    }

    fn at(&self, address: u64) -> Found {
        match self.file {
            Some(file) => Found::File(file, address - self.start + self.offset),
            None => Found::Generated,
        }
    }
}

impl Known {
    fn find(&self, address: u64) -> Option<&Range> {
        let after = self.code.partition_point(|range| range.start <= address);
        self.code.get(after.checked_sub(1)?).filter(|range| address < range.end)
    }

    /// Takes in a mapping in place of what lay there before.
    fn insert(&mut self, range: Range) {
        self.remove(range.start, range.end);
        let at = self.code.partition_point(|known| known.start < range.start);
        self.code.insert(at, range);
    }

    fn remove(&mut self, start: u64, end: u64) {
        let from = self.code.partition_point(|known| known.end <= start);
        let to = self.code.partition_point(|known| known.start < end);
        if from < to {
            self.code.drain(from..to);
        }
    }

    fn is_outside(&mut self, address: u64, now: u64) {
        if self.outside.len() >= MOST_OUTSIDE {
            self.outside.clear();
        }
        self.outside.insert(address, now);
    }

    const fn is_due(&self, now: u64) -> bool {
        let rest = self.cost_ns.saturating_mul(REST_FACTOR);
        self.changed || now.saturating_sub(self.read_ns) >= if rest > REST_NS { rest } else { REST_NS }
    }
}

impl Code {
    /// Looks at all code of a process. One that is ending has none left: what was known is kept.
    pub fn look_at(&mut self, pid: u32, number: Number<'_>) {
        let began = now_ns();
        let Some(code) = maps::code(pid).filter(|code| !code.is_empty()) else { return };
        let code = code.iter().map(|mapping| Range::new(mapping, number)).collect();
        let read_ns = now_ns();
        let number = self.next_number();
        let known = Known { code, read_ns, cost_ns: read_ns - began, number, ..Known::default() };
        self.processes.insert(pid, known);
    }

    const fn next_number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    /// A number that stands for the code of a process as it is known, another one when it has changed; and that code: start, end,
    /// offset and number of each file's. `None` of a process that was not looked at.
    pub fn of(&self, pid: u32) -> Option<(u64, impl Iterator<Item = (u64, u64, u64, usize)>)> {
        let known = self.processes.get(&pid)?;
        let files = known.code.iter().filter_map(|range| Some((range, range.file?)));
        Some((known.number, files.map(|(range, file)| (range.start, range.end, range.offset, file))))
    }

    /// What lies at an address, of a process that was looked at.
    pub fn find(&mut self, pid: u32, address: u64, number: Number<'_>) -> Found {
        let Some(known) = self.processes.get_mut(&pid) else { return Found::Unknown };
        if let Some(range) = known.find(address) {
            return range.at(address);
        }
        if !self.walks {
            let now = now_ns();
            if known.outside.get(&address).is_some_and(|seen_ns| now.saturating_sub(*seen_ns) < REST_NS) {
                return Found::Outside;
            }
            match maps::at(pid, address) {
                Answer::Mapped(mapping) if mapping.executable => {
                    let range = Range::new(&mapping, number);
                    known.insert(range);
                    self.numbers += 1;
                    known.number = self.numbers;
                    return range.at(address);
                }
                Answer::Mapped(_) | Answer::Nothing => {
                    known.is_outside(address, now);
                    return Found::Outside;
                }
                Answer::Gone => return Found::Unknown,
                Answer::Unsupported => self.walks = true,
            }
        }
        if known.outside.contains_key(&address) {
            return Found::Outside;
        }
        if !known.is_due(now_ns()) {
            return Found::Unknown;
        }
        self.look_at(pid, number);
        let Some(known) = self.processes.get_mut(&pid) else { return Found::Unknown };
        match known.find(address) {
            Some(range) => range.at(address),
            // The process was gone, and what is known is as old as it was.
            None if known.is_due(now_ns()) => Found::Unknown,
            None => {
                known.is_outside(address, now_ns());
                Found::Outside
            }
        }
    }

    pub fn knows(&self, pid: u32) -> bool {
        self.processes.contains_key(&pid)
    }

    /// A process has mapped something there, which may be a file, or nothing any more.
    pub fn changed(&mut self, pid: u32, (start, end): (u64, u64), is_file: bool, at_ns: u64) {
        // What was read since is newer than the event.
        if let Some(known) = self.processes.get_mut(&pid).filter(|known| known.read_ns < at_ns) {
            known.remove(start, end);
            known.changed |= is_file;
            self.numbers += 1;
            known.number = self.numbers;
        }
    }

    /// Forgets a process; says which files it had mapped.
    pub fn forget(&mut self, pid: u32) -> Vec<usize> {
        let known = self.processes.remove(&pid);
        known.into_iter().flat_map(|known| known.code).filter_map(|range| range.file).collect()
    }

    /// Files that processes have mapped.
    pub fn files(&self) -> impl Iterator<Item = usize> {
        self.processes.values().flat_map(|known| &known.code).filter_map(|range| range.file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A kernel that answers for one address, and one that does not.
    fn both() -> [Code; 2] {
        [false, true].map(|walks| Code { walks, ..Code::default() })
    }

    fn executable(mappings: usize, protection: i32) -> (u64, u64) {
        let length = mappings * 4096;
        // SAFETY: a new mapping wherever the kernel has room.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length,
                protection,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        assert_ne!(start, libc::MAP_FAILED);
        (start as u64, length as u64)
    }

    #[test]
    fn code_of_a_file_is_distinguished_from_data_and_from_nothing() {
        let pid = std::process::id();
        let here = executable as *const () as u64;
        let data = Box::new(7u8);
        for mut code in both() {
            let mut files = Vec::new();
            let mut number = |mapping: &Mapping| {
                files.push(mapping.name.clone());
                Some(files.len() - 1)
            };
            assert_eq!(code.find(pid, here, &mut number), Found::Unknown, "not looked at");
            code.look_at(pid, &mut number);
            assert!(matches!(code.find(pid, here, &mut number), Found::File(..)));
            // Where it is too early to look again, it is not known.
            let rubbish = code.find(pid, 0x10, &mut number);
            assert!(matches!(rubbish, Found::Outside | Found::Unknown), "{rubbish:?}");
            code.processes.get_mut(&pid).unwrap().read_ns = 0;
            assert_eq!(code.find(pid, 0x10, &mut number), Found::Outside);
            code.processes.get_mut(&pid).unwrap().read_ns = 0;
            assert_eq!(code.find(pid, &raw const *data as u64, &mut number), Found::Outside);
            let exe = std::fs::read_link("/proc/self/exe").unwrap();
            assert!(files.iter().any(|name| exe.to_str() == Some(name)), "{files:?}");
        }
    }

    #[test]
    fn code_that_came_later_is_found_and_what_was_unmapped_is_forgotten() {
        let pid = std::process::id();
        let mut number = |_: &Mapping| Some(0);
        for mut code in both() {
            code.look_at(pid, &mut number);
            let (start, length) = executable(3, libc::PROT_READ | libc::PROT_EXEC);
            code.processes.get_mut(&pid).unwrap().read_ns = 0;
            assert_eq!(code.find(pid, start + 5000, &mut number), Found::Generated);
            assert!(code.processes[&pid].find(start).is_some());
            code.processes.get_mut(&pid).unwrap().read_ns = 2;
            code.changed(pid, (start + 4096, start + 8192), false, 1);
            assert!(code.processes[&pid].find(start).is_some(), "read after that");
            code.changed(pid, (start + 4096, start + 8192), false, u64::MAX);
            assert!(code.processes[&pid].find(start).is_none());
            // SAFETY: it was mapped above and is not used.
            unsafe { libc::munmap(start as *mut _, length as usize) };
        }
    }

    #[test]
    fn rubbish_does_not_make_all_mappings_be_read_again() {
        let pid = std::process::id();
        let mut number = |_: &Mapping| Some(0);
        let mut code = Code { walks: true, ..Code::default() };
        code.look_at(pid, &mut number);
        let known = code.processes.get_mut(&pid).unwrap();
        // A process of very many mappings, read just now.
        known.cost_ns = 1_000_000_000;
        let read_ns = known.read_ns;
        for address in 1..1000 {
            assert_eq!(code.find(pid, address, &mut number), Found::Unknown);
        }
        assert_eq!(code.processes[&pid].read_ns, read_ns);
        code.processes.get_mut(&pid).unwrap().outside.insert(8, read_ns);
        assert_eq!(code.find(pid, 8, &mut number), Found::Outside);
        assert!(!code.files().count().eq(&0) && !code.forget(pid).is_empty() && !code.knows(pid));
    }
}
