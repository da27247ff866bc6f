//! Timed rounds of a storm.

use anyhow::Result;
use serde::Serialize;

use crate::sys::{self, clock_ns, monotonic_ns};

/// One timed round, or batch of rounds.
#[derive(Debug, Serialize)]
pub struct Round {
    /// CLOCK_MONOTONIC.
    pub begin_ns: u64,
    pub wall_ns: u64,
    /// Of our one thread: includes the kernel's work for it, not what other tasks do.
    pub cpu_ns: u64,
    pub operations: u64,
}

pub fn until_stopped<T>(rounds: impl Iterator<Item = T>) -> impl Iterator<Item = T> {
    rounds.take_while(|_| sys::stop_signal().is_none())
}

/// Times `round`, which returns how many operations it did.
pub fn time(round: impl FnOnce() -> Result<u64>) -> Result<Round> {
    let (wall, cpu) = (monotonic_ns(), clock_ns(libc::CLOCK_THREAD_CPUTIME_ID));
    let operations = round()?;
    let cpu_ns = clock_ns(libc::CLOCK_THREAD_CPUTIME_ID).saturating_sub(cpu);
    Ok(Round { begin_ns: wall, wall_ns: monotonic_ns().saturating_sub(wall), cpu_ns, operations })
}

/// `rounds` in up to `batches` parts which differ by one at most.
pub fn batch_sizes(rounds: u32, batches: u32) -> impl Iterator<Item = u32> {
    let batches = batches.clamp(1, rounds.max(1));
    (0..batches).map(move |index| rounds / batches + u32::from(index < rounds % batches))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_hold_all_rounds() {
        for (rounds, batches) in [(200_000, 20), (7, 3), (2, 20), (1, 1)] {
            assert_eq!(batch_sizes(rounds, batches).sum::<u32>(), rounds);
            assert!(batch_sizes(rounds, batches).all(|size| size > 0));
        }
    }
}
