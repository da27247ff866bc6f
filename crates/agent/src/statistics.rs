//! Windows in which the kernel counts the programs' run time.
//!
//! Its statistics cost two clock reads a run, more than most of our programs take. So they are on for a
//! small part of the time, and run times are put up to the whole by that part.

use std::{
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use aya::sys::Stats;

/// One tick in so many has the statistics on.
const EVERY: u64 = 20;

#[derive(Debug)]
pub struct Statistics {
    /// Present while they are on: the kernel turns them off when it is closed.
    on: Option<(OwnedFd, Instant)>,
    was_on: Duration,
    begun: Instant,
}

impl Statistics {
    /// Begins with them on, so that even a short trace has run times.
    pub fn begin() -> Self {
        let begun = Instant::now();
        Self { on: enable().map(|fd| (fd, begun)), was_on: Duration::ZERO, begun }
    }

    /// Whether the kernel lets us.
    pub const fn available(&self) -> bool {
        self.on.is_some() || !self.was_on.is_zero()
    }

    /// Turns them on or off for the time to the next tick.
    pub fn tick(&mut self, tick: u64) {
        if let Some((_, since)) = self.on.take() {
            self.was_on += since.elapsed();
        }
        if tick.is_multiple_of(EVERY) {
            self.on = enable().map(|fd| (fd, Instant::now()));
        }
    }

    /// Part of the time so far in which they were on.
    pub fn share(&self) -> Option<f64> {
        let on = self.was_on + self.on.as_ref().map_or(Duration::ZERO, |(_, since)| since.elapsed());
        let share = on.as_secs_f64() / self.begun.elapsed().as_secs_f64();
        (share > 0.0).then_some(share.min(1.0))
    }
}

fn enable() -> Option<OwnedFd> {
    aya::sys::enable_stats(Stats::RunTime).ok()
}
