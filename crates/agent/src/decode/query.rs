//! Memory queries: from the kernel side's record to the row of the recording.

use spark_trace_common::{
    cuda::{Function, OUTS},
    event::{AnswerSource, CallEvent, MemoryAnswerEvent, MemoryState as StateInPages},
};
use spark_trace_recording::{MemoryQuery, MemoryState};

use super::{DecodeError, Event, operation, record, text};
use crate::{memory_answer, page_size, python::Walk};

/// A memory query that was answered.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Query {
    /// As it is recorded, but for the id of its stack and what is read after the answer.
    pub row: MemoryQuery,
    /// Addresses of the user stack, innermost first.
    pub stack: Vec<u64>,
    /// Return address of the system call's stub, if it keeps no frame.
    pub caller: u64,
    /// Number of the copy of its user stack.
    pub copy: Option<u64>,
    /// Frames of Python; absent where none were walked.
    pub python: Option<Walk>,
}

/// A process has read a part of a file that shows how much memory there is.
#[derive(Debug, Clone, PartialEq)]
pub struct FileRead {
    /// Without figures: they may be in several parts.
    pub query: Query,
    pub part: FilePart,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilePart {
    pub source: AnswerSource,
    /// The file's name and its directory's.
    pub name: String,
    pub parent: String,
    /// Where in the file the read began.
    pub position: u64,
    pub content: Vec<u8>,
}

/// A call of a library function that answers how much memory there is.
pub(super) fn from_call(
    raw: &CallEvent,
    function: &Function,
    outs: [Option<u64>; OUTS],
    (stack, python): (Vec<u64>, Option<Walk>),
) -> Event {
    let figures = function.figures.iter().zip(outs).filter(|_| raw.result == 0);
    let values = figures.filter_map(|(name, bytes)| Some(((*name).to_owned(), bytes?))).collect();
    let row = MemoryQuery {
        at_ns: raw.end_ns,
        began_ns: Some(raw.begin_ns),
        pid: raw.tgid,
        tid: raw.tid,
        cgroup: raw.cgroup,
        interface: function.symbol.to_owned(),
        result: raw.result,
        values,
        state: state(&raw.state),
        ..MemoryQuery::default()
    };
    let copy = (raw.copy != 0).then_some(raw.copy);
    Event::Query(Box::new(Query { row, stack, caller: 0, copy, python }))
}

/// A file that was read, or an answer of sysinfo(2).
pub(super) fn answer(bytes: &[u8]) -> Result<Event, DecodeError> {
    let raw: MemoryAnswerEvent = record("memory answer", bytes)?;
    let sources = [AnswerSource::ReadProc, AnswerSource::ReadCgroup, AnswerSource::Sysinfo];
    let source = operation("memory answer", &sources, raw.op, |source| source as u32)?;
    let row = MemoryQuery {
        at_ns: raw.at_ns,
        pid: raw.tgid,
        tid: raw.tid,
        cgroup: raw.cgroup,
        state: state(&raw.state),
        ..MemoryQuery::default()
    };
    let content = raw.content.get(..raw.length as usize).unwrap_or(&raw.content);
    let query = |row| Query {
        row,
        stack: raw.stack.iter().copied().take(raw.frames as usize).collect(),
        caller: raw.caller,
        copy: None,
        python: None,
    };
    if source == AnswerSource::Sysinfo {
        let row = memory_answer::sysinfo(content, row);
        let row = row.ok_or(DecodeError::Length { what: "sysinfo", len: content.len() })?;
        return Ok(Event::Query(Box::new(query(row))));
    }
    let part = FilePart {
        source,
        name: text(&raw.name),
        parent: text(&raw.parent),
        position: raw.position,
        content: content.to_vec(),
    };
    Ok(Event::FileRead(Box::new(FileRead { query: query(row), part })))
}

impl FilePart {
    /// Appends a later part, if it begins where this one ends.
    pub fn append(&mut self, later: &Self) {
        if self.position + self.content.len() as u64 == later.position {
            self.content.extend(&later.content);
        }
    }

    /// `row` with the figures of what was read; `None` where the file shows nothing about memory.
    pub fn answer(&self, row: MemoryQuery) -> Option<MemoryQuery> {
        memory_answer::file(self.source, (&self.name, &self.parent), &self.content, page_size(), row)
    }
}

/// The machine's memory as the kernel side saw it; absent where it could not be read there.
fn state(raw: &StateInPages) -> Option<MemoryState> {
    let page_size = page_size();
    // Counters that lag behind can be seen below zero.
    let bytes = |pages: i64| u64::try_from(pages).unwrap_or(0).saturating_mul(page_size);
    (raw.has != 0).then(|| MemoryState {
        mem_free: None,
        free: bytes(raw.free),
        file: bytes(raw.file),
        dirty: bytes(raw.dirty),
        writeback: bytes(raw.writeback),
        shmem: bytes(raw.shmem),
        anon: bytes(raw.anon),
        slab_reclaimable: bytes(raw.slab_reclaimable),
        cgroup_usage: bytes(raw.cgroup_usage),
        cgroup: raw.cgroup,
        later: None,
    })
}

#[cfg(test)]
mod tests {
    use spark_trace_common::{cuda::FUNCTIONS, event::EventKind};
    use zerocopy::{FromZeros, IntoBytes};

    use super::super::decode;
    use super::*;

    const STATE: StateInPages = StateInPages {
        free: 10,
        // Behind by what CPUs have not added yet.
        file: -3,
        dirty: 1,
        writeback: 2,
        shmem: 3,
        anon: 4,
        slab_reclaimable: 5,
        cgroup_usage: 6,
        cgroup: 77,
        has: 1,
    };

    fn call(result: i32, state: StateInPages) -> MemoryQuery {
        let mut raw = CallEvent::new_zeroed();
        let function = FUNCTIONS.iter().position(|function| function.symbol == "cuMemGetInfo_v2").unwrap();
        (raw.kind, raw.function, raw.result) = (EventKind::Call as u32, function as u32, result);
        (raw.begin_ns, raw.end_ns, raw.tgid, raw.tid, raw.cgroup) = (5, 9, 42, 43, 99);
        (raw.outs, raw.outs_read, raw.state) = ([1 << 30, 1 << 32, 0], 0b11, state);
        match decode(raw.as_bytes()).unwrap() {
            Event::Query(query) => query.row,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_call_becomes_the_row_of_the_recording() {
        let row = call(0, STATE);
        assert_eq!((row.began_ns, row.at_ns, row.pid, row.tid, row.cgroup), (Some(5), 9, 42, 43, 99));
        assert_eq!(
            (row.interface.as_str(), row.values["free"], row.values["total"]),
            ("cuMemGetInfo_v2", 1 << 30, 1 << 32)
        );
        let (state, page) = (row.state.unwrap(), page_size());
        assert_eq!((state.free, state.file, state.anon), (10 * page, 0, 4 * page));
        assert_eq!((state.cgroup_usage, state.cgroup), (6 * page, 77));
        assert!(state.later.is_none() && state.mem_free.is_none(), "not read yet");
        let failed = call(100, StateInPages { has: 0, ..STATE });
        assert!(failed.values.is_empty() && failed.state.is_none() && failed.result == 100);
    }

    fn read(position: u64, content: &[u8]) -> FileRead {
        let mut raw = MemoryAnswerEvent::new_zeroed();
        (raw.kind, raw.op, raw.position) =
            (EventKind::MemoryAnswer as u32, AnswerSource::ReadProc as u32, position);
        (raw.length, raw.frames, raw.caller) = (content.len() as u32, 1, 8);
        raw.name[..7].copy_from_slice(b"meminfo");
        raw.parent[..1].copy_from_slice(b"/");
        raw.stack[0] = 0x1000;
        raw.content[..content.len()].copy_from_slice(content);
        match decode(raw.as_bytes()).unwrap() {
            Event::FileRead(read) => *read,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn parts_of_a_file_make_one_answer() {
        let mut first = read(0, b"MemTotal: 8 kB\nMemF");
        assert_eq!((first.query.stack.as_slice(), first.query.caller), (&[0x1000][..], 8));
        first.part.append(&read(25, b"elsewhere").part);
        first.part.append(&read(19, b"ree: 4 kB\n").part);
        let row = first.part.answer(MemoryQuery { pid: 7, ..first.query.row }).unwrap();
        assert_eq!((row.pid, row.interface.as_str()), (7, "/proc/meminfo"));
        assert_eq!((row.values.len(), row.values["MemTotal"], row.values["MemFree"]), (2, 8192, 4096));
    }

    #[test]
    fn a_length_beyond_the_record_is_cut_and_a_short_sysinfo_is_an_error() {
        let mut raw = MemoryAnswerEvent::new_zeroed();
        (raw.kind, raw.op) = (EventKind::MemoryAnswer as u32, AnswerSource::Sysinfo as u32);
        (raw.length, raw.frames) = (u32::MAX, u32::MAX);
        raw.content[32] = 7;
        match decode(raw.as_bytes()).unwrap() {
            Event::Query(query) => assert_eq!(query.row.values["totalram"], 7),
            other => panic!("{other:?}"),
        }
        raw.length = 50;
        assert_eq!(decode(raw.as_bytes()), Err(DecodeError::Length { what: "sysinfo", len: 50 }));
    }
}
