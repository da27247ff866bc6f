//! Readings that wait for the events before them, and times without a reading.
//!
//! Levels are read when it is time, also while events are behind. What only events show (what the target has pinned, what
//! it holds through the CUDA driver) is added to a reading once the events before it are known: never from another moment.

use std::{
    collections::{BTreeMap, VecDeque},
    io::Write,
    time::Duration,
};

use super::{
    Tracer, TracerError,
    reading::{Levels, driver_column},
};
use crate::driver::DriverBytes;
use spark_trace_recording::{Gaps, journal::Entry};

/// Readings further apart than so many intervals are a gap.
const INTERVALS: u64 = 3;

/// Series in readings that wait, some 50 MiB of them: events come in seconds after they happened, not in minutes.
const MOST_WAITING: usize = 10_000;

#[derive(Default)]
pub(super) struct Deferred {
    levels: VecDeque<Levels>,
    /// Series in them.
    series: usize,
    /// Readings that there was no room for.
    refused: u64,
}

impl Deferred {
    fn push(&mut self, levels: Levels) {
        self.series += levels.series();
        self.levels.push_back(levels);
        if self.series > MOST_WAITING {
            self.thin();
        }
    }

    /// Leaves every other reading out: of all the time that they are of some stay.
    fn thin(&mut self) {
        let before = self.levels.len();
        let mut index = 0;
        self.levels.retain(|_| {
            index += 1;
            index % 2 == 1
        });
        self.refused += (before - self.levels.len()) as u64;
        self.series = self.levels.iter().map(Levels::series).sum();
    }

    /// The first of them, if it ended before `at_ns`.
    fn pop_before(&mut self, at_ns: u64) -> Option<Levels> {
        self.levels.front().filter(|levels| levels.system.end_ns <= at_ns)?;
        let levels = self.levels.pop_front()?;
        self.series -= levels.series();
        Some(levels)
    }
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

    /// The time that readings should be apart; absent before the watch begins.
    pub fn interval(&self) -> Option<Duration> {
        (self.limit_ns > 0).then(|| Duration::from_nanos(self.limit_ns / INTERVALS))
    }

    /// What was counted; absent where nothing is watched.
    pub fn gaps(&self) -> Option<Gaps> {
        (self.limit_ns > 0).then_some(self.gaps)
    }
}

/// What watches each kind of reading.
#[derive(Debug, Default)]
pub(super) struct Watches {
    pub levels: Watch,
    /// As a GPU's begins; absent where none is read.
    new_device: Option<Watch>,
    /// Of each GPU that was read.
    devices: BTreeMap<u32, Watch>,
}

impl Watches {
    /// Watches from `now_ns` on.
    pub fn begin(interval: Duration, gpu_interval: Option<Duration>, now_ns: u64) -> Self {
        let watch = |interval: Duration| Watch::begin(interval.as_nanos() as u64, now_ns);
        Self { levels: watch(interval), new_device: gpu_interval.map(watch), devices: BTreeMap::new() }
    }

    /// There was a reading of a GPU.
    pub fn device_read(&mut self, device: u32, begin_ns: u64, end_ns: u64) {
        if let Some(new) = self.new_device {
            self.devices.entry(device).or_insert(new).read(begin_ns, end_ns);
        }
    }

    /// Of the GPU that was without a reading for longest.
    pub fn device_gaps(&self) -> Option<Gaps> {
        let devices = self.devices.values().chain(&self.new_device);
        devices.filter_map(Watch::gaps).max_by_key(|gaps| gaps.total_ns)
    }
}

impl<W: Write> Tracer<W> {
    /// Takes in readings of the kernel's levels. They are kept at once unless events are behind.
    pub(super) fn take_levels(&mut self, levels: Levels) -> Result<(), TracerError> {
        self.waiting.push(levels);
        if self.is_behind { Ok(()) } else { self.complete_levels(u64::MAX) }
    }

    /// Completes the readings that ended before `at_ns`, of which all events are known.
    pub(super) fn complete_levels(&mut self, at_ns: u64) -> Result<(), TracerError> {
        while let Some(levels) = self.waiting.pop_before(at_ns) {
            self.complete(levels)?;
        }
        Ok(())
    }

    /// Readings that waited for events and for which there was no room.
    pub fn readings_lost(&self) -> u64 {
        self.waiting.refused + self.gpus.refused
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
                for (source, bytes) in driver.iter().flat_map(DriverBytes::by_source) {
                    sample.values.insert(driver_column(source), bytes.target.charged);
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
    use spark_trace_recording::journal::{Sample, SeriesId};

    const MS: u64 = 1_000_000;

    fn levels(at_ns: u64, cgroups: u64) -> Levels {
        let sample = |series| Sample {
            series,
            begin_ns: at_ns,
            end_ns: at_ns,
            values: BTreeMap::new(),
            absent: Vec::new(),
        };
        let cgroups = (0..cgroups).map(|id| (id, sample(SeriesId::Cgroup(id)))).collect();
        Levels { system: sample(SeriesId::System), cgroups, driver: None, is_early: true }
    }

    #[test]
    fn readings_that_wait_have_a_bound_and_are_of_all_the_time() {
        let mut waiting = Deferred::default();
        for at in 0..1000 {
            waiting.push(levels(at, 99));
            assert!(waiting.series <= MOST_WAITING, "at {at}");
        }
        let kept: Vec<u64> =
            std::iter::from_fn(|| waiting.pop_before(999)).map(|levels| levels.system.end_ns).collect();
        assert_eq!((kept.len() as u64 + waiting.refused, waiting.series), (1000, 0));
        assert_eq!((kept[0], kept.last()), (0, Some(&999)));
        assert!(kept.len() >= 50 && kept.is_sorted(), "{kept:?}");
        waiting.push(levels(5, 0));
        assert!(waiting.pop_before(4).is_none());
    }

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
    fn of_gpus_the_one_without_a_reading_for_longest_counts() {
        let mut watches = Watches::default();
        watches.device_read(0, 5000 * MS, 5001 * MS);
        assert_eq!(watches.device_gaps(), None, "no GPU is to be read");
        let interval = Duration::from_millis(100);
        watches = Watches::begin(interval, Some(interval), 0);
        assert_eq!(watches.device_gaps(), Some(Gaps::default()));
        watches.device_read(0, 100 * MS, 101 * MS);
        watches.device_read(1, 900 * MS, 901 * MS);
        assert_eq!(watches.device_gaps().map(|gaps| gaps.longest_ns / MS), Some(900));
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
