//! Library calls and mapped libraries.

use spark_trace_common::{
    cuda::{ARGS, FUNCTIONS, Function, OUTS, Op, Value},
    event::{CallEvent, CallPythonEvent, CallStackEvent, LibraryEvent},
    map_records::LibraryKey,
    python::{PythonEnd, PythonStack},
};

use super::{DecodeError, Event, operation, query, record, text};
use crate::python::Walk;

/// A call of a watched library function that has returned. Memory queries are events of their own.
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
    /// The CUDA context that was current in the thread, if that is known.
    pub context: Option<u64>,
    /// Addresses of the user stack, the caller first; empty where none was taken.
    pub stack: Vec<u64>,
    /// Number of the copy of its user stack.
    pub copy: Option<u64>,
    /// Frames of Python; absent where none were walked.
    pub python: Option<Walk>,
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

pub(super) fn call(bytes: &[u8]) -> Result<Event, DecodeError> {
    let stack = |raw: &CallStackEvent| raw.stack.iter().copied().take(raw.call.frames as usize).collect();
    let (raw, stack, python) = if bytes.len() >= size_of::<CallPythonEvent>() {
        let raw: CallPythonEvent = record("call", bytes)?;
        (raw.call.call, stack(&raw.call), Some(walk(&raw.python)?))
    } else if bytes.len() >= size_of::<CallStackEvent>() {
        let raw: CallStackEvent = record("call", bytes)?;
        (raw.call, stack(&raw), None)
    } else {
        (record::<CallEvent>("call", bytes)?, Vec::new(), None)
    };
    let function = FUNCTIONS
        .get(raw.function as usize)
        .ok_or(DecodeError::Operation { what: "call", op: raw.function })?;
    let mut outs = [None; OUTS];
    for (index, out) in outs.iter_mut().enumerate() {
        *out = (raw.outs_read >> index & 1 != 0).then_some(raw.outs[index]);
    }
    if function.op == Op::Query {
        return Ok(query::from_call(&raw, function, outs, (stack, python)));
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
        context: (raw.context != 0).then_some(raw.context),
        stack,
        copy: (raw.copy != 0).then_some(raw.copy),
        python,
    })))
}

fn walk(raw: &PythonStack) -> Result<Walk, DecodeError> {
    Ok(Walk {
        frames: raw.stack.iter().copied().take(raw.frames as usize).collect(),
        end: operation("frames of Python", &PythonEnd::ALL, raw.end, |end| end as u32)?,
    })
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
