//! Who else has memory near a query that an engine sizes itself by. A thread of its own reads them, one reading after the other,
//! and neither events nor readings wait for it.

use std::{
    collections::BTreeSet,
    sync::mpsc::{Receiver, Sender, channel},
    thread,
    time::Duration,
};

use super::source::outside::{self, Found};
use crate::now_ns;

/// A reading serves the queries of this time after it began; of the [`Neighbours::SPACED`]th reading and so on of twice the time
/// of the one before, so that a program that polls for hours takes some hundred readings and no more.
const SERVES: Duration = Duration::from_millis(100);
const SPACED: u32 = 32;
/// ... but a day is longer than any run.
const LONGEST_SPACE: u32 = 20;
/// What one reading may take: 2,160 processes took 45 to 130 ms (measured, x86-64, debug build, beside compilers).
const BUDGET: Duration = Duration::from_millis(200);
/// Processes that were among the largest stay among those that are read: a fall is seen, too. With more of them all are forgotten
/// (analysis, kv/outside.rs has the same number).
const REMEMBERED: usize = 64;

/// Whose memory is of interest.
#[derive(Debug)]
struct Wish {
    /// Processes of the target, sorted: they are left out.
    target: Vec<u32>,
    /// Those that a GPU lists: what it has of them is not in their resident memory.
    on_gpus: BTreeSet<u32>,
}

#[derive(Debug)]
struct Thread {
    wishes: Sender<Wish>,
    found: Receiver<Found>,
}

#[derive(Debug, Default)]
pub struct Neighbours {
    thread: Option<Thread>,
    /// A reading is under way.
    reads: bool,
    /// When the last began, and how many began.
    began_ns: u64,
    readings: u32,
    /// The most processes that one reading did not look at in time.
    pub missed: u64,
    /// Queries without a reading, because one was under way or did not end.
    pub unserved: u64,
}

impl Neighbours {
    /// Whether a query now wants a reading of its own, and can have it.
    pub fn wants(&mut self) -> bool {
        let space = SERVES.saturating_mul(1 << (self.readings / SPACED).min(LONGEST_SPACE));
        let since = Duration::from_nanos(now_ns().saturating_sub(self.began_ns));
        let is_due = self.readings == 0 || since >= space;
        self.unserved += u64::from(is_due && self.reads);
        is_due && !self.reads
    }

    /// Begins a reading.
    pub fn read(&mut self, target: Vec<u32>, on_gpus: BTreeSet<u32>) {
        let sent = self.start().is_some_and(|wishes| wishes.send(Wish { target, on_gpus }).is_ok());
        if sent {
            self.reads = true;
            self.began_ns = now_ns();
            self.readings = self.readings.saturating_add(1);
        }
    }

    fn start(&mut self) -> Option<&Sender<Wish>> {
        if self.thread.is_none() {
            let (wishes, inbox) = channel::<Wish>();
            let (outbox, found) = channel();
            let work = move || {
                let mut known: BTreeSet<u32> = BTreeSet::new();
                for Wish { target, on_gpus } in inbox {
                    let wanted: BTreeSet<u32> = &known | &on_gpus;
                    let read = outside::near_a_query(&target, &wanted, BUDGET);
                    known.extend(read.rows.iter().map(|row| row.pid));
                    if known.len() > REMEMBERED {
                        known.clear();
                    }
                    if outbox.send(read).is_err() {
                        return;
                    }
                }
            };
            thread::Builder::new().name("neighbours".to_owned()).spawn(work).ok()?;
            self.thread = Some(Thread { wishes, found });
        }
        self.thread.as_ref().map(|thread| &thread.wishes)
    }

    /// A reading that has ended since this was last called.
    pub fn take(&mut self) -> Option<Found> {
        let found = self.thread.as_ref()?.found.try_recv().ok()?;
        Some(self.came(found))
    }

    /// The one that is under way.
    pub fn finish(&mut self) -> Option<Found> {
        let thread = self.thread.take().filter(|_| self.reads)?;
        // One process that does not answer must not hold up the end.
        let Ok(found) = thread.found.recv_timeout(2 * BUDGET) else {
            self.unserved += 1;
            return None;
        };
        Some(self.came(found))
    }

    fn came(&mut self, found: Found) -> Found {
        self.reads = false;
        self.missed = self.missed.max(found.missed);
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_reading_serves_the_queries_of_a_while() {
        let mut neighbours = Neighbours::default();
        assert!(neighbours.wants());
        neighbours.read(Vec::new(), BTreeSet::new());
        assert!(!neighbours.wants(), "one is under way");
        let began_ns = neighbours.began_ns;
        let found = neighbours.finish().unwrap();
        assert!(found.rows.iter().all(|row| row.at_ns >= began_ns && row.moment.is_none()), "{found:?}");
        assert!(found.rows.iter().any(|row| row.pid == std::os::unix::process::parent_id()), "{found:?}");
        neighbours.began_ns = now_ns();
        assert!(!neighbours.wants(), "just read");
        neighbours.began_ns = now_ns() - SERVES.as_nanos() as u64;
        assert!(neighbours.wants());
        neighbours.readings = 4 * SPACED;
        assert!(!neighbours.wants(), "sixteen times as long");
    }
}
