//! Walks of processes' page tables: what is resident in which mapping, and proportional shares. They take as long as a
//! process is large (fs/proc/task_mmu.c smap_gather_stats), so a thread of their own makes them, one after the other, and
//! readings do not wait for them.

use std::{
    collections::HashSet,
    sync::mpsc::{Receiver, Sender, channel},
    thread,
    time::{Duration, Instant},
};

use super::source::process;
use spark_trace_recording::{Region, journal::Sample};

/// Processes that wait for a walk. Hundreds that a server forks at once want theirs at the same reading; a small process takes
/// less than a millisecond.
const MOST_WAITING: usize = 1024;

/// What a walk has found.
#[derive(Debug)]
pub struct Walk {
    pub pid: u32,
    pub regions: Vec<Region>,
    pub pss: Option<Sample>,
}

/// A process that was walked, and what was found where it still lived.
type Found = (u32, Option<Walk>);

/// The thread, seen from outside.
#[derive(Debug)]
struct Thread {
    /// Processes, each with the least that a mapping of it must have resident.
    wishes: Sender<(u32, u64)>,
    found: Receiver<Found>,
}

#[derive(Debug, Default)]
pub struct Walks {
    thread: Option<Thread>,
    waiting: HashSet<u32>,
    /// Walks that were wanted and not made.
    pub refused: u64,
}

impl Walks {
    /// Wants a walk of a process; of its mappings those with at least `min` bytes resident.
    pub fn want(&mut self, pid: u32, min: u64) {
        if self.waiting.contains(&pid) {
            return;
        }
        let sent =
            self.waiting.len() < MOST_WAITING && self.start().is_some_and(|w| w.send((pid, min)).is_ok());
        if sent {
            self.waiting.insert(pid);
        } else {
            self.refused += 1;
        }
    }

    fn start(&mut self) -> Option<&Sender<(u32, u64)>> {
        if self.thread.is_none() {
            let (wishes, inbox) = channel();
            let (outbox, found) = channel();
            let work = move || {
                for (pid, min) in inbox {
                    if outbox.send((pid, walk(pid, min))).is_err() {
                        return;
                    }
                }
            };
            thread::Builder::new().name("walks".to_owned()).spawn(work).ok()?;
            self.thread = Some(Thread { wishes, found });
        }
        self.thread.as_ref().map(|thread| &thread.wishes)
    }

    /// What was found since this was last called.
    pub fn take(&mut self) -> Vec<Walk> {
        self.collect(|found| found.try_recv().ok())
    }

    /// The same, after the walks that are still wanted, for so long at most. The others are not made any more.
    pub fn finish(&mut self, limit: Duration) -> Vec<Walk> {
        let until = Instant::now() + limit;
        let mut all = self.take();
        while !self.waiting.is_empty() {
            let left = until.saturating_duration_since(Instant::now());
            let found = self.collect_one(|found| found.recv_timeout(left).ok());
            match found {
                Some(found) => all.extend(found),
                None => {
                    self.refused += self.waiting.len() as u64;
                    self.waiting.clear();
                }
            }
        }
        // The thread ends with its last walk.
        self.thread = None;
        all
    }

    fn collect(&mut self, next: impl Fn(&Receiver<Found>) -> Option<Found>) -> Vec<Walk> {
        let mut all = Vec::new();
        while let Some(found) = self.collect_one(&next) {
            all.extend(found);
        }
        all
    }

    fn collect_one(&mut self, next: impl Fn(&Receiver<Found>) -> Option<Found>) -> Option<Option<Walk>> {
        let (pid, walk) = next(&self.thread.as_ref()?.found)?;
        self.waiting.remove(&pid);
        Some(walk)
    }
}

/// `None` where the process is gone.
fn walk(pid: u32, min: u64) -> Option<Walk> {
    let regions = process::regions(pid, min)?;
    Some(Walk { pid, regions, pss: process::pss(pid) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_walk_is_made_beside_and_taken_once() {
        let mut walks = Walks::default();
        let pid = std::process::id();
        walks.want(pid, 1);
        walks.want(pid, 1);
        let found = walks.finish(Duration::from_secs(60));
        assert_eq!(found.len(), 1);
        assert!(found[0].pid == pid && found[0].pss.is_some() && !found[0].regions.is_empty());
        assert!(walks.take().is_empty() && walks.refused == 0);
        walks.want(u32::MAX, 1);
        assert!(walks.finish(Duration::from_secs(60)).is_empty(), "no such process");
    }

    #[test]
    fn those_beyond_the_bound_are_counted() {
        let mut walks = Walks { waiting: (1..=MOST_WAITING as u32).collect(), ..Walks::default() };
        walks.want(u32::MAX, 1);
        assert_eq!(walks.refused, 1);
    }
}
