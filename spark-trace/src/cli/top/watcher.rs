//! What `top` does at every reading, in the trace's own thread: it wants details while they are in sight, and hands over
//! what is to be written. Everything else is made of the recording where it is.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
    mpsc::{Receiver, SyncSender},
};
use std::time::{Duration, Instant};

use spark_trace_agent::monitor::Update;
use spark_trace_agent::session::{Named, Wishes};
use spark_trace_recording::{Recording, retention};

/// Details are read at most so often: that takes some milliseconds, and names of functions more.
const DETAILS_EVERY: Duration = Duration::from_secs(1);
/// A recording is written without names where they take longer.
const LONGEST_NAMING: Duration = Duration::from_secs(20);

/// When details were read last.
#[derive(Debug, Default)]
pub struct Pace(Option<Instant>);

impl Pace {
    /// Whether it is time again; if so, it begins anew.
    pub fn is_due(&mut self) -> bool {
        let due = self.0.is_none_or(|last| last.elapsed() >= DETAILS_EVERY);
        if due {
            self.0 = Some(Instant::now());
        }
        due
    }
}

/// What the user's thread wants, from the next reading on.
#[derive(Debug)]
pub enum Command {
    /// Who took what, and the mappings of one process; or no longer.
    Details { wanted: bool, pid: Option<u32> },
    /// Nothing is forgotten from this time on. What was kept goes where there is room for one recording.
    Keep { since_ns: u64, to: SyncSender<Box<Recording>> },
    /// What was kept is handed over, with the names of functions.
    HandOver,
}

/// A recording of what is seen.
#[derive(Debug)]
struct Kept {
    since_ns: u64,
    to: SyncSender<Box<Recording>>,
    /// Since when it waits for names; absent until it is to be handed over.
    naming: Option<Naming>,
}

#[derive(Debug)]
struct Naming {
    since: Instant,
    wanted: bool,
}

impl Kept {
    /// Hands over what was read by now.
    fn hand_over(self, mut recording: Box<Recording>) {
        retention::begin_at(&mut recording, self.since_ns);
        // There is room for one, and this is the one; who wanted it may have ended.
        let _ = self.to.try_send(recording);
    }
}

pub struct Watcher {
    commands: Receiver<Command>,
    /// Readings so far, for the user's thread to see.
    readings: Arc<AtomicU64>,
    wants_details: bool,
    pid: Option<u32>,
    details: Pace,
    /// The last is under way; those before it wait for names.
    kept: Vec<Kept>,
}

impl Watcher {
    pub fn new(commands: Receiver<Command>, readings: Arc<AtomicU64>) -> Self {
        Self {
            commands,
            readings,
            wants_details: false,
            pid: None,
            details: Pace::default(),
            kept: Vec::new(),
        }
    }

    pub fn see(&mut self, seen: Update<'_>) -> Wishes {
        self.take_commands();
        match seen {
            Update::Reading { recording, awaits_names } => {
                self.readings.fetch_add(1, Ordering::Release);
                self.reading(recording, awaits_names)
            }
            // It has all names that there was time for.
            Update::End(recording) => {
                for kept in self.kept.drain(..) {
                    kept.hand_over(recording.clone());
                }
                Wishes::default()
            }
        }
    }

    fn take_commands(&mut self) {
        while let Ok(command) = self.commands.try_recv() {
            match command {
                Command::Details { wanted, pid } => (self.wants_details, self.pid) = (wanted, pid),
                Command::Keep { since_ns, to } => {
                    self.kept.push(Kept { since_ns, to, naming: None });
                }
                Command::HandOver => {
                    if let Some(kept) = self.kept.last_mut() {
                        kept.naming = Some(Naming { since: Instant::now(), wanted: false });
                    }
                }
            }
        }
    }

    fn reading(&mut self, recording: &Recording, awaits_names: bool) -> Wishes {
        let is_named = |kept: &mut Kept| {
            let naming = kept.naming.as_ref();
            naming.is_some_and(|n| n.wanted && !awaits_names || n.since.elapsed() >= LONGEST_NAMING)
        };
        for kept in self.kept.extract_if(.., is_named) {
            kept.hand_over(Box::new(recording.clone()));
        }
        let keep_since = self.kept.iter().map(|kept| kept.since_ns).min();
        // Wanted once: what comes later is in later readings.
        let mut all = false;
        for naming in self.kept.iter_mut().filter_map(|kept| kept.naming.as_mut()) {
            all |= !std::mem::replace(&mut naming.wanted, true);
        }
        let due = (self.wants_details || all) && self.details.is_due();
        let details = all || due;
        let names = match (all, self.pid) {
            (true, _) => Named::All,
            (false, Some(pid)) if details => Named::Process(pid),
            (false, _) => Named::None,
        };
        Wishes { details, names, keep_since, end: false }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use spark_trace_testing as testing;
    use spark_trace_testing::{SECOND, START};

    struct Watched {
        commands: mpsc::Sender<Command>,
        watcher: Watcher,
    }

    fn watched() -> Watched {
        let (commands, taken) = mpsc::channel();
        Watched { commands, watcher: Watcher::new(taken, Arc::default()) }
    }

    impl Watched {
        fn reading(&mut self, awaits_names: bool) -> Wishes {
            self.watcher.see(Update::Reading { recording: &testing::container(), awaits_names })
        }

        fn keep(&self, since_ns: u64) -> Receiver<Box<Recording>> {
            let (to, handed) = mpsc::sync_channel(1);
            self.commands.send(Command::Keep { since_ns, to }).unwrap();
            handed
        }
    }

    #[test]
    fn details_are_wanted_while_they_are_in_sight() {
        let mut watched = watched();
        assert!(!watched.reading(false).details);
        watched.commands.send(Command::Details { wanted: true, pid: Some(7) }).unwrap();
        let wishes = watched.reading(false);
        assert!(wishes.details && wishes.names == Named::Process(7) && !wishes.end);
        watched.commands.send(Command::Details { wanted: false, pid: None }).unwrap();
        assert!(!watched.reading(false).details);
    }

    #[test]
    fn what_is_kept_is_handed_over_once_it_has_its_names() {
        let mut watched = watched();
        let since_ns = START + 2 * SECOND;
        let handed = watched.keep(since_ns);
        assert_eq!(watched.reading(false).keep_since, Some(since_ns));
        assert!(handed.try_recv().is_err(), "not wanted yet");
        watched.commands.send(Command::HandOver).unwrap();
        let wishes = watched.reading(false);
        assert!(wishes.details && wishes.names == Named::All);
        assert!(!watched.reading(true).details, "wanted once");
        assert!(handed.try_recv().is_err(), "names are still to come");
        assert_eq!(watched.reading(false).keep_since, None);
        assert_eq!(handed.try_recv().unwrap().target.started_ns, since_ns);
    }

    #[test]
    fn a_second_recording_leaves_the_first_alone() {
        let mut watched = watched();
        let first = watched.keep(START);
        watched.commands.send(Command::HandOver).unwrap();
        let second = watched.keep(START + SECOND);
        assert_eq!(watched.reading(false).keep_since, Some(START));
        assert_eq!(watched.reading(false).keep_since, Some(START + SECOND));
        assert!(first.try_recv().is_ok() && second.try_recv().is_err());
    }

    #[test]
    fn what_is_kept_outlives_the_trace() {
        let mut watched = watched();
        let handed = watched.keep(START);
        watched.watcher.see(Update::End(Box::new(testing::container())));
        drop(watched);
        assert!(!handed.recv().unwrap().samples.system.begin_ns.is_empty());
    }

    #[test]
    fn a_trace_that_fails_leaves_nobody_waiting() {
        let watched = watched();
        let handed = watched.keep(START);
        drop(watched);
        assert!(handed.recv().is_err());
    }
}
