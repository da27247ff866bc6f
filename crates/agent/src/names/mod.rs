//! Names of functions in files that anybody may have made.
//!
//! Such a file is read in a process of its own, the reader, which has no rights, little memory and a time limit
//! ([`crate::unprivileged`]). Where it ends or takes too long the
//! names of that file are missing, the recording says so, and another reader is started for the next file.
//!
//! A thread waits for the reader, so that nobody else has to.

mod client;
mod reader;

use std::{
    collections::{BTreeMap, HashMap},
    fs::File,
    sync::{
        Arc, PoisonError,
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    thread,
    time::{Duration, Instant},
};

pub use client::Client;
pub use reader::run;

use crate::unprivileged::Took;
use spark_trace_recording::ReaderCost;

/// How long one file may take.
const LONGEST_FILE: Duration = Duration::from_secs(5);
/// Places of one file that are looked up at once.
const MOST_PLACES: usize = 1024;
/// Files of which it is kept that their names are missing, and why.
const MOST_MISSING: usize = 512;

/// Places in a file that are to be named.
struct Request {
    number: u64,
    file: Arc<File>,
    offsets: Vec<u64>,
    /// What has not begun by then is not begun.
    until: Instant,
}

/// A name for each place of a request, or why there are none.
type Answer = Result<Vec<Option<String>>, String>;

/// The symbols that wait for an answer.
#[derive(Debug)]
struct Pending {
    path: String,
    symbols: Vec<u32>,
}

/// The thread that waits for the reader: what it is to look up, and what it has found.
#[derive(Debug)]
struct Thread {
    requests: Sender<Request>,
    answers: Receiver<(u64, Answer)>,
}

/// Looks names up, and keeps what is missing.
#[derive(Debug, Default)]
pub struct Namer {
    thread: Option<Thread>,
    took: Took,
    next: u64,
    pending: HashMap<u64, Pending>,
    /// Frames without a name, by file and reason.
    missing: BTreeMap<(String, String), u64>,
    /// Those of files for which there was no room.
    more_missing: u64,
}

impl Namer {
    /// Asks for the names of places in a file, each with the number of its symbol; nothing is begun after `until`.
    pub fn request(&mut self, path: &str, file: &Arc<File>, places: &[(u32, u64)], until: Instant) {
        for places in places.chunks(MOST_PLACES) {
            let symbols = places.iter().map(|(symbol, _)| *symbol).collect();
            let offsets = places.iter().map(|(_, offset)| *offset).collect();
            let pending = Pending { path: path.to_owned(), symbols };
            let request = Request { number: self.next, file: Arc::clone(file), offsets, until };
            match self.start() {
                Ok(requests) if requests.send(request).is_ok() => {
                    self.pending.insert(self.next, pending);
                    self.next += 1;
                }
                Ok(_) => self.miss(&pending, "the thread that looks names up has ended"),
                Err(error) => {
                    self.miss(&pending, &format!("the thread that looks names up cannot be started: {error}"))
                }
            }
        }
    }

    /// Hands over the names that have come, and waits for those that have not until a time.
    pub fn take(&mut self, until: Instant, mut name: impl FnMut(u32, String)) {
        while !self.pending.is_empty() {
            let Some(Thread { answers, .. }) = &self.thread else { return };
            let left = until.saturating_duration_since(Instant::now());
            let (number, answer) = match answers.recv_timeout(left) {
                Ok(answer) => answer,
                Err(RecvTimeoutError::Timeout) => return,
                Err(RecvTimeoutError::Disconnected) => {
                    for pending in std::mem::take(&mut self.pending).into_values() {
                        self.miss(&pending, "the thread that looks names up has ended");
                    }
                    return;
                }
            };
            let Some(pending) = self.pending.remove(&number) else { continue };
            match answer {
                Ok(names) => {
                    let named = pending.symbols.iter().zip(names);
                    named.for_each(|(symbol, found)| {
                        if let Some(found) = found {
                            name(*symbol, found);
                        }
                    });
                }
                Err(why) => self.miss(&pending, &why),
            }
        }
    }

    /// What the readers took; `None` where none ran.
    pub fn cost(&self) -> Option<ReaderCost> {
        *self.took.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether names are still to come.
    pub fn is_waiting(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Gives up waiting: what has not come is missing.
    pub fn give_up(&mut self, why: &str) {
        for pending in std::mem::take(&mut self.pending).into_values() {
            self.miss(&pending, why);
        }
    }

    /// Frames that will have no name, because their file could not be read.
    pub fn miss_frames(&mut self, path: &str, why: &str, frames: u64) {
        let key = (path.to_owned(), why.to_owned());
        if self.missing.len() >= MOST_MISSING && !self.missing.contains_key(&key) {
            self.more_missing += frames;
        } else {
            *self.missing.entry(key).or_default() += frames;
        }
    }

    fn miss(&mut self, pending: &Pending, why: &str) {
        self.miss_frames(&pending.path, why, pending.symbols.len() as u64);
    }

    /// Sentences about the names that are missing: the files with the most frames, and the sum of the rest.
    pub fn warnings(&self) -> Vec<String> {
        let mut rows: Vec<_> = self.missing.iter().collect();
        rows.sort_by_key(|(_, frames)| std::cmp::Reverse(**frames));
        let (named, rest) = rows.split_at(rows.len().min(MOST_NAMED));
        let frames = |count: u64| if count == 1 { "1 frame".to_owned() } else { format!("{count} frames") };
        let mut warnings: Vec<String> = named
            .iter()
            .map(|((path, why), count)| format!("names of {} in {path} are missing: {why}", frames(**count)))
            .collect();
        let awaited: u64 = self.pending.values().map(|pending| pending.symbols.len() as u64).sum();
        if awaited > 0 {
            warnings.push(format!("names of {} are still being looked up", frames(awaited)));
        }
        let rest = rest.iter().map(|(_, count)| **count).sum::<u64>() + self.more_missing;
        if rest > 0 {
            warnings.push(format!("names of {} in other files are missing, too", frames(rest)));
        }
        warnings
    }

    fn start(&mut self) -> std::io::Result<&Sender<Request>> {
        if self.thread.is_none() {
            let (requests, inbox) = channel::<Request>();
            let (outbox, answers) = channel();
            let took = Arc::clone(&self.took);
            let work = move || {
                let mut client = Client::noting(took);
                for request in inbox {
                    let left = request.until.saturating_duration_since(Instant::now());
                    let answer = if left.is_zero() {
                        Err(NO_TIME.to_owned())
                    } else {
                        client.names(&request.file, &request.offsets, left.min(LONGEST_FILE))
                    };
                    // The file is let go of before anybody learns of the answer.
                    let number = request.number;
                    drop(request);
                    if outbox.send((number, answer)).is_err() {
                        return;
                    }
                }
            };
            thread::Builder::new().name("names".to_owned()).spawn(work)?;
            self.thread = Some(Thread { requests, answers });
        }
        self.thread
            .as_ref()
            .map(|thread| &thread.requests)
            .ok_or_else(|| std::io::Error::from(std::io::ErrorKind::NotConnected))
    }
}

/// Why names are missing that nobody had the time to look up.
pub const NO_TIME: &str = "the time limit for names was reached";

/// Files that are named in warnings.
const MOST_NAMED: usize = 8;

#[cfg(test)]
mod misbehave;
#[cfg(test)]
mod tests;
