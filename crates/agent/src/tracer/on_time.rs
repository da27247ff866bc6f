//! Readings that wait for the events before them, and times without a reading.
//!
//! Levels are read when it is time, also while events are behind. What only events tell (what the target has pinned, what
//! it holds through the CUDA driver) is added to a reading once the events before it are known: never from another moment.

use std::{collections::VecDeque, io::Write};

use super::{
    Tracer, TracerError,
    reading::{Levels, driver_column},
};
use crate::driver::DriverBytes;
use spark_trace_recording::{Gaps, journal::Entry};

/// Readings further apart than so many intervals are a gap.
const INTERVALS: u64 = 3;

#[derive(Default)]
pub(super) struct Waiting {
    levels: VecDeque<Levels>,
}

/// Counts times without a reading.
#[derive(Debug, Clone, Copy, Default)]
pub struct Watch {
    /// A gap is longer than this; 0 before the watch begins.
    limit_ns: u64,
    last_ns: u64,
    gaps: Gaps,
}

impl Watch {
    /// Watches from `now_ns` on.
    pub const fn begin(interval_ns: u64, now_ns: u64) -> Self {
        Self {
            limit_ns: interval_ns.saturating_mul(INTERVALS),
            last_ns: now_ns,
            gaps: Gaps { count: 0, longest_ns: 0, total_ns: 0 },
        }
    }

    /// There was a reading.
    pub fn read(&mut self, begin_ns: u64, end_ns: u64) {
        if self.limit_ns == 0 {
            return;
        }
        let gap = begin_ns.saturating_sub(self.last_ns);
        if gap > self.limit_ns {
            self.gaps.count += 1;
            self.gaps.longest_ns = self.gaps.longest_ns.max(gap);
            self.gaps.total_ns = self.gaps.total_ns.saturating_add(gap);
        }
        self.last_ns = self.last_ns.max(end_ns);
    }

    /// What was counted; absent where nothing is watched.
    pub fn gaps(&self) -> Option<Gaps> {
        (self.limit_ns > 0).then_some(self.gaps)
    }
}

impl<W: Write> Tracer<W> {
    /// Takes in readings of the kernel's levels. They are kept at once unless events are behind.
    pub(super) fn take_levels(&mut self, levels: Levels) -> Result<(), TracerError> {
        self.waiting.levels.push_back(levels);
        if self.is_behind { Ok(()) } else { self.complete_levels(u64::MAX) }
    }

    /// Completes the readings that ended before `at_ns`, of which all events are known.
    pub(super) fn complete_levels(&mut self, at_ns: u64) -> Result<(), TracerError> {
        while self.waiting.levels.front().is_some_and(|levels| levels.system.end_ns <= at_ns) {
            if let Some(levels) = self.waiting.levels.pop_front() {
                self.complete(levels)?;
            }
        }
        Ok(())
    }

    fn complete(&mut self, levels: Levels) -> Result<(), TracerError> {
        let Levels { mut system, cgroups, driver, is_early } = levels;
        if is_early {
            self.add_pinned(&mut system);
        }
        let pinned = self.pinned_columns();
        let cuda = self.cuda_sample(system.end_ns);
        self.journal.add(Entry::Sample(system))?;
        if let Some(sample) = cuda {
            self.journal.add(Entry::Sample(sample))?;
        }
        let sole = self.sole_root();
        for (id, mut sample) in cgroups {
            let Some(selected) = self.cgroups.get(&id) else { continue };
            // Which of several cgroups a page is charged to is not kept apart. A command that starts one container is charged
            // for nothing of that itself, or the two are added up.
            if sole == Some(id) && selected.info.root {
                sample.values.extend(pinned.clone());
                for (source, held) in driver.iter().flat_map(DriverBytes::by_source) {
                    sample.values.insert(driver_column(source), held.target.charged);
                }
            }
            self.journal.add(Entry::Sample(sample))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn readings_further_apart_than_three_intervals_are_gaps() {
        let mut watch = Watch::begin(100 * MS, 1000 * MS);
        for begin in [1100, 1200, 1501, 1850, 12_000, 12_100] {
            watch.read(begin * MS, (begin + 1) * MS);
        }
        // 1201 to 1501 is three intervals and not more.
        let gaps = watch.gaps().unwrap();
        assert_eq!((gaps.count, gaps.longest_ns / MS, gaps.total_ns / MS), (2, 10_149, 348 + 10_149));
    }

    #[test]
    fn before_the_watch_begins_nothing_is_known() {
        let mut watch = Watch::default();
        watch.read(5, 6);
        watch.read(u64::MAX, u64::MAX);
        assert_eq!(watch.gaps(), None);
        assert_eq!(Watch::begin(1, 7).gaps(), Some(Gaps::default()));
    }
}
