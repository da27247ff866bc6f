//! The device plane: what NVIDIA's management library says of each GPU.
//!
//! Its calls go to the driver and can take tens of milliseconds, so a thread of their own makes them. Readings come
//! back over a channel with their windows; when they are taken out does not matter.

mod device;
pub(crate) mod library;

use std::{
    path::PathBuf,
    sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, channel},
    thread,
    time::{Duration, Instant},
};

use device::Gpu;

use crate::now_ns;
use spark_trace_recording as recording;
use spark_trace_recording::verdict::Verdict;
use spark_trace_recording::{Host, Nvidia, Readings, SourceVerdict, journal::Sample};

/// A driver that has to wake its GPUs first takes seconds.
const START_LIMIT: Duration = Duration::from_secs(10);
/// One reading; a GPU that hangs must not hold up the trace for longer.
const READING_LIMIT: Duration = Duration::from_secs(2);

/// Name of this source in `health.sources`.
const NAME: &str = "nvml";

/// What was found when the library was started.
#[derive(Debug, Clone)]
pub struct Machine {
    pub verdict: SourceVerdict,
    pub gpus: Vec<recording::Gpu>,
    /// Absent where there is no library, or it refused to start.
    pub nvidia: Option<Nvidia>,
}

impl Machine {
    fn without(verdict: Verdict, reason: impl Into<String>) -> Self {
        let verdict =
            SourceVerdict { name: NAME.to_owned(), verdict: verdict.into(), reason: Some(reason.into()) };
        Self { verdict, gpus: Vec::new(), nvidia: None }
    }

    /// Adds what was found to the facts about the machine.
    pub fn describe(&self, host: &mut Host) {
        host.gpus.clone_from(&self.gpus);
        if self.nvidia.is_some() {
            host.nvidia.clone_from(&self.nvidia);
        }
    }

    /// Whether there is anything to read.
    pub fn is_ok(&self) -> bool {
        self.verdict.verdict == Verdict::Ok
    }
}

enum Command {
    Read,
    /// A last reading, then the end.
    Stop,
}

enum Message {
    Started(Box<Machine>),
    Reading(Vec<Sample>),
    Done(Readings),
}

/// The thread that reads, seen from outside.
#[derive(Debug)]
pub struct Nvml {
    commands: Sender<Command>,
    messages: Receiver<Message>,
    machine: Option<Machine>,
    cost: Option<Readings>,
}

impl Nvml {
    /// Starts the library in the thread: the one at `path`, or the one that is found. Nothing is read before the
    /// first [`Self::request_now`]; from then on there is a reading every `interval` too.
    pub fn start(path: Option<PathBuf>, interval: Duration) -> Self {
        let (commands, inbox) = channel();
        let (outbox, messages) = channel();
        let work = move || work(path, interval, &inbox, &outbox);
        let spawned = thread::Builder::new().name(NAME.to_owned()).spawn(work);
        let failed =
            spawned.err().map(|e| Machine::without(Verdict::Broken, format!("cannot start a thread: {e}")));
        Self { commands, messages, machine: failed, cost: None }
    }

    /// What was found; waits until it is known.
    pub fn machine(&mut self) -> &Machine {
        let found = self.machine.take().unwrap_or_else(|| match self.messages.recv_timeout(START_LIMIT) {
            Ok(Message::Started(machine)) => *machine,
            Ok(_) | Err(RecvTimeoutError::Disconnected) => {
                Machine::without(Verdict::Broken, "NVML: its thread ended")
            }
            Err(RecvTimeoutError::Timeout) => {
                let limit = START_LIMIT.as_secs();
                Machine::without(Verdict::Broken, format!("NVML: no answer to nvmlInit_v2 within {limit} s"))
            }
        });
        self.machine.insert(found)
    }

    /// Asks for a reading as soon as may be, beside those of the interval. It comes with [`Self::take`].
    pub fn request_now(&self) {
        // Nobody listens where there is nothing to read.
        let _ = self.commands.send(Command::Read);
    }

    /// Readings that have come since they were last taken.
    pub fn take(&mut self) -> Vec<Sample> {
        let mut samples = Vec::new();
        loop {
            match self.messages.try_recv() {
                Ok(message) => self.sort(message, &mut samples),
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => return samples,
            }
        }
    }

    /// Takes a reading now and waits for it. Says whether it came.
    pub fn read_now(&mut self) -> (Vec<Sample>, bool) {
        let requested_ns = now_ns();
        self.request_now();
        self.collect(|samples| samples.iter().any(|sample| sample.begin_ns >= requested_ns))
    }

    /// Asks for the last reading; [`Self::finish`] collects it.
    pub fn request_stop(&self) {
        let _ = self.commands.send(Command::Stop);
    }

    /// Ends the thread after a last reading. What it cost is absent where it did not come to its end in time.
    pub fn finish(&mut self) -> (Vec<Sample>, Option<Readings>) {
        self.request_stop();
        let (samples, _) = self.collect(|_| false);
        (samples, self.cost)
    }

    /// Takes readings until there are `enough`, the thread has ended or the time is over.
    fn collect(&mut self, enough: impl Fn(&[Sample]) -> bool) -> (Vec<Sample>, bool) {
        let deadline = Instant::now() + READING_LIMIT;
        let mut samples = Vec::new();
        while !enough(&samples) {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(message) = self.messages.recv_timeout(left) else { return (samples, false) };
            self.sort(message, &mut samples);
        }
        (samples, true)
    }

    fn sort(&mut self, message: Message, samples: &mut Vec<Sample>) {
        match message {
            Message::Started(_) => {}
            Message::Reading(reading) => samples.extend(reading),
            Message::Done(cost) => self.cost = Some(cost),
        }
    }
}

/// The thread: starts the library, then reads when it is time or at a request.
fn work(path: Option<PathBuf>, interval: Duration, inbox: &Receiver<Command>, outbox: &Sender<Message>) {
    let start_ns = now_ns();
    let (machine, library) = library::start(path.as_deref());
    let mut cost = Readings { start_ns: now_ns() - start_ns, ..Readings::default() };
    // The caller may be gone by now; then there is nobody to read for.
    let sent = outbox.send(Message::Started(Box::new(machine)));
    let (Ok(()), Some(library)) = (sent, library) else { return };
    let mut gpus = Gpu::all(&library);
    let mut next = None;
    while let Some(stop) = wait(inbox, next) {
        let began = Instant::now();
        let began_ns = now_ns();
        let samples = gpus.iter_mut().map(Gpu::read).collect();
        let took = now_ns() - began_ns;
        cost.readings += 1;
        cost.calls_ns += took;
        cost.longest_ns = cost.longest_ns.max(took);
        if outbox.send(Message::Reading(samples)).is_err() {
            return;
        }
        if stop {
            break;
        }
        // From the beginning of the last one. A driver that is slow to answer is left alone for as long as it took.
        next = began.checked_add(interval).map(|at| at.max(Instant::now() + began.elapsed()));
    }
    let _ = outbox.send(Message::Done(cost));
}

/// Waits for a command, or until `next`. Says whether the reading that is due is the last; nothing where nobody is
/// left to read for. Commands that have come together are one reading.
fn wait(inbox: &Receiver<Command>, next: Option<Instant>) -> Option<bool> {
    let first = match next {
        None => inbox.recv().ok()?,
        Some(next) => match inbox.recv_timeout(next.saturating_duration_since(Instant::now())) {
            Ok(command) => command,
            Err(RecvTimeoutError::Timeout) => Command::Read,
            Err(RecvTimeoutError::Disconnected) => return None,
        },
    };
    let mut commands = std::iter::once(first).chain(inbox.try_iter());
    Some(commands.any(|command| matches!(command, Command::Stop)))
}

#[cfg(test)]
mod tests;
