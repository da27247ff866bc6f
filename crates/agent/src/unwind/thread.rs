//! The thread that waits for the process without rights.

use std::{
    fs::File,
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    thread,
    time::{Duration, Instant},
};

use tracing::debug;

use super::{
    serve::{CODE, Code, FRAMES, NEED, request, walk_of},
    walk::{Copied, Walk},
};
use crate::unprivileged::{Broken, Meter, Reader, Took};

/// How long one stack may take, with the first pages of tables from a slow disk. Then another process takes the place of the one
/// that was too slow.
const LONGEST: Duration = Duration::from_secs(2);

/// Stacks from one look at the memory of the process to the next.
const MEMORY_EVERY: u64 = 16;

/// Code of a process that is mapped from a file.
#[derive(Debug, Clone)]
pub struct Range {
    pub start: u64,
    pub end: u64,
    pub offset: u64,
    /// Number of the file, which no other has.
    pub number: u64,
    /// Absent where it could not be opened.
    pub file: Option<Arc<File>>,
}

/// All code of a process, lowest first.
#[derive(Debug, Clone, Default)]
pub struct Ranges {
    /// It changes when the ranges do, and no other process has it.
    pub number: u64,
    pub ranges: Vec<Range>,
}

impl Ranges {
    fn at(&self, address: u64) -> Option<&Range> {
        let after = self.ranges.partition_point(|range| range.start <= address);
        self.ranges.get(after.checked_sub(1)?).filter(|range| address < range.end)
    }
}

/// A stack that is wanted.
#[derive(Debug)]
pub struct Request {
    pub copied: Copied,
    pub ranges: Arc<Ranges>,
}

/// What came of waiting for a stack.
#[derive(Debug)]
pub enum Waited {
    Walk(Walk),
    /// The process that unwinds has ended, or sent what is no stack.
    Failed,
    Late,
}

#[derive(Debug)]
pub struct Thread {
    requests: Sender<Request>,
    answers: Receiver<Option<Walk>>,
    /// Answers that nobody waits for any more.
    late: usize,
}

impl Thread {
    /// Starts it, and waits until the process is ready.
    pub fn start(took: Took) -> Result<Self, String> {
        let (requests, inbox) = channel::<Request>();
        let (outbox, answers) = channel();
        let (began, begins) = channel();
        let work = move || {
            let mut client = Client { reader: None, meter: Meter::new(took), walks: 0 };
            let ready = client.ready();
            let is_ready = ready.is_ok();
            if began.send(ready).is_err() || !is_ready {
                return;
            }
            for request in inbox {
                let walk = client.walk(&request);
                // Files are let go of before anybody learns of the answer.
                drop(request);
                if outbox.send(walk).is_err() {
                    break;
                }
            }
            if let Some(reader) = client.reader {
                reader.end();
            }
        };
        let failed = |error: &dyn std::fmt::Display| format!("the thread that unwinds cannot start: {error}");
        thread::Builder::new().name("unwind".to_owned()).spawn(work).map_err(|error| failed(&error))?;
        begins.recv().map_err(|error| failed(&error))??;
        Ok(Self { requests, answers, late: 0 })
    }

    /// Unwinds a stack, if that takes no longer than `longest`.
    pub fn walk(&mut self, request: Request, longest: Duration) -> Waited {
        while self.late > 0 {
            match self.answers.try_recv() {
                Ok(_) => self.late -= 1,
                Err(_) => return Waited::Late,
            }
        }
        if self.requests.send(request).is_err() {
            return Waited::Failed;
        }
        match self.answers.recv_timeout(longest) {
            Ok(Some(walk)) => Waited::Walk(walk),
            Ok(None) | Err(RecvTimeoutError::Disconnected) => Waited::Failed,
            Err(RecvTimeoutError::Timeout) => {
                self.late += 1;
                Waited::Late
            }
        }
    }
}

struct Client {
    reader: Option<Reader>,
    meter: Meter,
    walks: u64,
}

impl Client {
    fn ready(&mut self) -> Result<(), String> {
        if self.reader.is_none() {
            self.reader = Some(Reader::start()?);
        }
        Ok(())
    }

    fn walk(&mut self, request: &Request) -> Option<Walk> {
        if let Err(why) = self.ready() {
            debug!("{why}");
            return None;
        }
        let reader = self.reader.take()?;
        let walk = exchange(&reader, request, Instant::now() + LONGEST);
        match self.walks % MEMORY_EVERY {
            0 => self.meter.note(&reader),
            _ => self.meter.note_time(&reader),
        }
        self.walks += 1;
        match walk {
            Ok(walk) => {
                self.reader = Some(reader);
                Some(walk)
            }
            Err(why) => {
                debug!("a stack is not unwound ({why:?}); another process unwinds the next one");
                self.meter.ended();
                reader.end();
                None
            }
        }
    }
}

fn exchange(reader: &Reader, wanted: &Request, until: Instant) -> Result<Walk, Broken> {
    reader.send(&request(wanted.ranges.number, &wanted.copied), None)?;
    loop {
        let packet = reader.receive(until)?;
        let (kind, content) = packet.split_first().ok_or(Broken::Closed)?;
        match *kind {
            FRAMES => return walk_of(content).ok_or(Broken::Lies),
            NEED => {
                let address = content.try_into().map(u64::from_le_bytes).map_err(|_| Broken::Lies)?;
                match wanted.ranges.at(address) {
                    Some(range) => {
                        let Range { start, end, offset, number, file } = range;
                        let code = Code { start: *start, end: *end, offset: *offset, file: *number };
                        reader.send(&code.packet(), file.as_deref())?;
                    }
                    // Nothing is known to be there.
                    None => reader.send(&[CODE], None)?,
                }
            }
            _ => return Err(Broken::Lies),
        }
        if Instant::now() > until {
            return Err(Broken::Late);
        }
    }
}
