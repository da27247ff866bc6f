//! Library calls, mapped libraries and memory figures that were read.

use spark_trace_common::{
    cuda::{ARGS, FUNCTIONS, Function, OUTS, Value},
    event::{AnswerSource, CallEvent, CallStackEvent, LibraryEvent, MemoryAnswerEvent, MemoryState},
    map_records::LibraryKey,
};

use super::{DecodeError, Event, operation, record, text};

/// A call of a watched library function that has returned.
#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    /// Row of [`FUNCTIONS`].
    pub function: &'static Function,
    pub begin_ns: u64,
    pub end_ns: u64,
    pub pid: u32,
    pub tid: u32,
    pub cgroup: u64,
    pub result: i32,
    pub args: [u64; ARGS],
    /// What was read behind pointers; absent where that failed or the row wants none.
    pub outs: [Option<u64>; OUTS],
    pub state: Option<State>,
    /// Addresses of the user stack, the caller first; empty where none was taken.
    pub stack: Vec<u64>,
}

impl Call {
    /// The figure that `value` says where to find.
    pub fn value(&self, value: Value) -> Option<u64> {
        let arg = |index: u8| self.args.get(usize::from(index)).copied();
        let out = |index: u8| self.outs.get(usize::from(index)).copied().flatten();
        match value {
            Value::None => None,
            Value::Arg(index) => arg(index),
            Value::Out(index) => out(index),
            Value::OutTimesArg(left, right) => out(left)?.checked_mul(arg(right)?),
        }
    }

    pub const fn succeeded(&self) -> bool {
        self.result == 0
    }
}

/// The machine's memory at one moment, in pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct State {
    pub free: u64,
    pub file: u64,
    pub dirty: u64,
    pub writeback: u64,
    pub shmem: u64,
    pub anon: u64,
    pub slab_reclaimable: u64,
    pub cgroup: u64,
    pub cgroup_usage: u64,
}

/// A process mapped a file that is named as a watched library is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MappedLibrary {
    pub at_ns: u64,
    pub pid: u32,
    pub file: LibraryKey,
    /// Its process was paused and waits to be let go on.
    pub paused: bool,
    pub name: String,
}

/// A process got an answer how much memory there is.
#[derive(Debug, Clone, PartialEq)]
pub struct MemoryAnswer {
    pub op: AnswerSource,
    pub at_ns: u64,
    pub pid: u32,
    pub tid: u32,
    pub cgroup: u64,
    /// Where in the file the read began.
    pub position: u64,
    /// The file's name and its directory's; empty for system calls.
    pub name: String,
    pub parent: String,
    pub content: Vec<u8>,
    pub state: Option<State>,
    pub stack: Vec<u64>,
    /// Return address of the system call's stub, if it keeps no frame.
    pub caller: u64,
}

pub(super) fn call(bytes: &[u8]) -> Result<Event, DecodeError> {
    let (raw, stack) = if bytes.len() >= size_of::<CallStackEvent>() {
        let raw: CallStackEvent = record("call", bytes)?;
        (raw.call, raw.stack.iter().copied().take(raw.call.frames as usize).collect())
    } else {
        (record::<CallEvent>("call", bytes)?, Vec::new())
    };
    let function = FUNCTIONS
        .get(raw.function as usize)
        .ok_or(DecodeError::Operation { what: "call", op: raw.function })?;
    let mut outs = [None; OUTS];
    for (index, out) in outs.iter_mut().enumerate() {
        *out = (raw.outs_read >> index & 1 != 0).then_some(raw.outs[index]);
    }
    Ok(Event::Call(Box::new(Call {
        function,
        begin_ns: raw.begin_ns,
        end_ns: raw.end_ns,
        pid: raw.tgid,
        tid: raw.tid,
        cgroup: raw.cgroup,
        result: raw.result,
        args: raw.args,
        outs,
        state: state(&raw.state),
        stack,
    })))
}

pub(super) fn library(bytes: &[u8]) -> Result<Event, DecodeError> {
    let raw: LibraryEvent = record("library", bytes)?;
    Ok(Event::Library(MappedLibrary {
        at_ns: raw.at_ns,
        pid: raw.tgid,
        file: raw.file,
        paused: raw.paused != 0,
        name: text(&raw.name),
    }))
}

pub(super) fn figures(bytes: &[u8]) -> Result<Event, DecodeError> {
    let raw: MemoryAnswerEvent = record("figures", bytes)?;
    let ops = [AnswerSource::ReadProc, AnswerSource::ReadCgroup, AnswerSource::Sysinfo];
    Ok(Event::MemoryAnswer(Box::new(MemoryAnswer {
        op: operation("figures", &ops, raw.op, |op| op as u32)?,
        at_ns: raw.at_ns,
        pid: raw.tgid,
        tid: raw.tid,
        cgroup: raw.cgroup,
        position: raw.position,
        name: text(&raw.name),
        parent: text(&raw.parent),
        content: raw.content.iter().copied().take(raw.length as usize).collect(),
        state: state(&raw.state),
        stack: raw.stack.iter().copied().take(raw.frames as usize).collect(),
        caller: raw.caller,
    })))
}

fn state(raw: &MemoryState) -> Option<State> {
    // Counters that lag behind can be seen below zero.
    let pages = |pages: i64| u64::try_from(pages).unwrap_or(0);
    (raw.has != 0).then(|| State {
        free: pages(raw.free),
        file: pages(raw.file),
        dirty: pages(raw.dirty),
        writeback: pages(raw.writeback),
        shmem: pages(raw.shmem),
        anon: pages(raw.anon),
        slab_reclaimable: pages(raw.slab_reclaimable),
        cgroup: raw.cgroup,
        cgroup_usage: pages(raw.cgroup_usage),
    })
}
