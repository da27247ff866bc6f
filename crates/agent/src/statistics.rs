//! Windows in which the kernel counts the programs' run time.
//!
//! Its statistics cost two clock reads a run, more than most of our programs take. So they are on for a
//! small part of the time, and run times are put up to the whole by that part.

use std::{
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use aya::sys::Stats;

use super::program_stats::ProgramStats;

/// One tick in so many has the statistics on. What itself is done every so many ticks must not be done in each of these
/// windows, or in none: the two numbers have no common divisor.
pub const EVERY: u64 = 21;

/// Time with the statistics on, of a time.
#[derive(Debug, Clone, Copy, Default)]
struct Part {
    on: Duration,
    of: Duration,
}

impl Part {
    fn share(self) -> Option<f64> {
        let share = self.on.as_secs_f64() / self.of.as_secs_f64();
        (share > 0.0).then_some(share.min(1.0))
    }
}

#[derive(Debug)]
pub struct Statistics {
    /// Present while they are on: the kernel turns them off when it is closed.
    on: Option<(OwnedFd, Instant)>,
    was_on: Duration,
    begun: Instant,
    start: Option<Start>,
}

/// What was counted until the first tick. It was all counted, and much is done in that time: it says nothing of the rest.
#[derive(Debug)]
struct Start {
    ended: Instant,
    was_on: Duration,
    /// By hook.
    counted: Vec<Option<ProgramStats>>,
}

impl Statistics {
    /// Begins with them on, so that even a short trace has run times.
    pub fn begin() -> Self {
        let begun = Instant::now();
        Self { on: enable().map(|fd| (fd, begun)), was_on: Duration::ZERO, begun, start: None }
    }

    /// Whether the kernel lets us.
    pub const fn available(&self) -> bool {
        self.on.is_some() || !self.was_on.is_zero()
    }

    /// Turns them on or off for the time to the next tick. `counted`: by hook, up to now.
    pub fn tick(&mut self, tick: u64, counted: impl FnOnce() -> Vec<Option<ProgramStats>>) {
        let is_start = self.start.is_none();
        if let Some((_, since)) = self.on.take() {
            self.was_on += since.elapsed();
        }
        if is_start {
            self.start = Some(Start { ended: Instant::now(), was_on: self.was_on, counted: counted() });
        }
        if tick.is_multiple_of(EVERY) {
            self.on = enable().map(|fd| (fd, Instant::now()));
        }
    }

    /// The whole of what a hook's programs have done, of which `now` was counted. Absent where they were never on.
    pub fn whole(&self, hook: usize, now: ProgramStats) -> Option<ProgramStats> {
        let is_on = self.on.as_ref().map_or(Duration::ZERO, |(_, since)| since.elapsed());
        let all = Part { on: self.was_on + is_on, of: self.begun.elapsed() };
        let later = self.start.as_ref().and_then(|start| {
            let part = Part { on: all.on.saturating_sub(start.was_on), of: start.ended.elapsed() };
            Some((part.share()?, start.counted.get(hook).copied().flatten().unwrap_or_default()))
        });
        match later {
            Some((share, before)) => Some(before.plus(now.since(before).put_up(share))),
            // A trace that is as short as this has nothing else to go by.
            None => all.share().map(|share| now.put_up(share)),
        }
    }
}

fn enable() -> Option<OwnedFd> {
    aya::sys::enable_stats(Stats::RunTime).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(runs: u64) -> ProgramStats {
        ProgramStats { runs, run_time_ns: 10 * runs, recursion_misses: 3 }
    }

    #[test]
    fn what_was_counted_at_the_start_is_not_put_up() {
        let ago = |ms| Instant::now() - Duration::from_millis(ms);
        let start = Start {
            ended: ago(10_000),
            was_on: Duration::from_millis(500),
            counted: vec![Some(counted(1000)), None],
        };
        let mut statistics = Statistics {
            on: None,
            was_on: Duration::from_millis(1500),
            begun: ago(10_500),
            start: Some(start),
        };
        // On for 1 s of the 10 s since.
        let runs = |statistics: &Statistics, hook, runs| statistics.whole(hook, counted(runs)).unwrap().runs;
        assert!((1998..=2002).contains(&runs(&statistics, 0, 1100)), "{}", runs(&statistics, 0, 1100));
        assert!((998..=1002).contains(&runs(&statistics, 1, 100)));
        // Before the first window after it.
        statistics.start = None;
        assert!((6990..=7010).contains(&runs(&statistics, 0, 1000)));
        statistics.was_on = Duration::ZERO;
        assert!(statistics.whole(0, counted(5)).is_none());
    }
}
