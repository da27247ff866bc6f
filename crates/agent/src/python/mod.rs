//! Frames of Python with their names. The kernel side walks them at the event; what they are called is read from the
//! process afterwards, and kept, for a program's large allocations come from few places.

mod code;
mod find;
mod layout;
mod lines;
mod memory;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, PoisonError},
};

use crate::{names::Client, unprivileged::Took};
use code::{Code, Unnamed};
use find::Interpreter;
use spark_trace_common::python::{PythonEnd, PythonFrame, PythonProcess};
use spark_trace_recording::ReaderCost;

/// Bytes kept of code objects, with their tables of lines. When they are more, all are read anew.
const MOST_BYTES: usize = 32 << 20;
/// Processes that are known to have an interpreter or none: as many as the kernel side has room for.
const MOST_PROCESSES: usize = spark_trace_common::capacities::PYTHON_PROCESSES as usize;

/// Frames of a thread as the kernel side has seen them, innermost first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Walk {
    pub frames: Vec<PythonFrame>,
    pub end: PythonEnd,
}

/// A frame of Python.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Frame {
    /// As the code object has it.
    pub file: Arc<str>,
    /// The function with the classes and functions that it is in (from 3.11 on; its name alone in 3.10).
    pub function: Arc<str>,
    pub line: Option<u32>,
}

#[derive(Debug)]
pub struct Pythons {
    processes: HashMap<u32, Option<Interpreter>>,
    codes: HashMap<(u32, u64), Arc<Code>>,
    bytes: usize,
    unnamed: BTreeMap<Unnamed, u64>,
    /// Reads the files of interpreters.
    reader: Client,
    took: Took,
    /// Processes whose files could not be read, and why the last could not.
    unread: u64,
    /// Since one could be read. A reader that the kernel ended is no reason to look for no more.
    unread_in_a_row: u64,
    why: String,
}

/// After so many in a row that could not be read no more are: whoever makes such files does not hold up the tracer.
const MOST_UNREAD: u64 = 8;

impl Default for Pythons {
    fn default() -> Self {
        let took = Took::default();
        Self {
            processes: HashMap::new(),
            codes: HashMap::new(),
            bytes: 0,
            unnamed: BTreeMap::new(),
            reader: Client::noting(Arc::clone(&took)),
            took,
            unread: 0,
            unread_in_a_row: 0,
            why: String::new(),
        }
    }
}

impl Pythons {
    /// Starts the reader of their files.
    pub fn prepare(&mut self) {
        self.reader.prepare();
    }

    /// Whether a process was looked at, or there is no room to know it.
    pub fn knows(&self, pid: u32) -> bool {
        self.processes.contains_key(&pid) || self.processes.len() >= MOST_PROCESSES
    }

    /// Whether a process was looked at before it had an interpreter, if it has one: a program that is being linked maps
    /// its libraries one by one.
    pub fn had_none(&self, pid: u32) -> bool {
        matches!(self.processes.get(&pid), Some(None))
    }

    /// Looks for the interpreter of a process. Gives what the kernel side needs: no address where there is none.
    pub fn look_at(&mut self, pid: u32) -> PythonProcess {
        let found = self.find(pid);
        self.processes.insert(pid, found);
        found.map(|interpreter| interpreter.walk()).unwrap_or_default()
    }

    fn find(&mut self, pid: u32) -> Option<Interpreter> {
        if self.unread_in_a_row >= MOST_UNREAD {
            return None;
        }
        match find::find(pid, &mut self.reader) {
            Ok(found) => {
                self.unread_in_a_row = 0;
                found
            }
            Err(why) => {
                self.unread += 1;
                self.unread_in_a_row += 1;
                self.why = why;
                None
            }
        }
    }

    /// What the readers took; `None` where none ran.
    pub fn cost(&self) -> Option<ReaderCost> {
        *self.took.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets a process that has ended or become another program. Says whether anything was known of it.
    pub fn forget(&mut self, pid: u32) -> bool {
        let Some(known) = self.processes.remove(&pid) else { return false };
        if known.is_some() {
            self.codes.retain(|(of, _), _| *of != pid);
            self.bytes = self.codes.values().map(|code| code.size()).sum();
        }
        true
    }

    /// Addresses of a user stack that lie before the interpreter's own: what it calls.
    pub fn called<'a>(&self, pid: u32, stack: &'a [u64]) -> &'a [u64] {
        let Some(Some(interpreter)) = self.processes.get(&pid) else { return stack };
        let (start, end) = interpreter.code;
        let own = stack.iter().position(|address| (start..end).contains(address));
        &stack[..own.unwrap_or(stack.len())]
    }

    /// Frames with their names; `None` in the place of one whose name cannot be known any more.
    pub fn name(&mut self, pid: u32, walk: &Walk) -> Vec<Option<Frame>> {
        let Some(Some(interpreter)) = self.processes.get(&pid).copied() else { return Vec::new() };
        walk.frames.iter().map(|frame| self.name_frame(pid, &interpreter, frame)).collect()
    }

    fn name_frame(&mut self, pid: u32, interpreter: &Interpreter, frame: &PythonFrame) -> Option<Frame> {
        let code = match self.code(pid, interpreter, frame) {
            Ok(code) => code,
            Err(why) => {
                *self.unnamed.entry(why).or_default() += 1;
                return None;
            }
        };
        let line = code.line(interpreter, frame);
        Some(Frame { file: Arc::clone(&code.file), function: Arc::clone(&code.name), line })
    }

    fn code(
        &mut self,
        pid: u32,
        interpreter: &Interpreter,
        frame: &PythonFrame,
    ) -> Result<Arc<Code>, Unnamed> {
        let key = (pid, frame.code);
        if let Some(code) = self.codes.get(&key).filter(|code| code.is_of(frame)) {
            return Ok(Arc::clone(code));
        }
        let code = Arc::new(Code::read(pid, interpreter, frame)?);
        if self.bytes + code.size() > MOST_BYTES {
            self.codes.clear();
            self.bytes = 0;
        }
        self.bytes += code.size();
        if let Some(before) = self.codes.insert(key, Arc::clone(&code)) {
            self.bytes = self.bytes.saturating_sub(before.size());
        }
        Ok(code)
    }

    /// What is to be said about frames without a name.
    pub fn warnings(&self) -> Vec<String> {
        let warning =
            |(why, count): (&Unnamed, &u64)| format!("{count} frames of Python have no name: {}", why.why());
        let mut warnings: Vec<String> = self.unnamed.iter().map(warning).collect();
        if self.unread > 0 {
            let more = if self.unread_in_a_row >= MOST_UNREAD { ", and no more were looked for" } else { "" };
            warnings.push(format!(
                "the interpreters of {} processes are not known{more}: {}",
                self.unread, self.why
            ));
        }
        warnings
    }
}
