//! Device memory of the target over time: from samples, and exact at each memory query.

use spark_trace_recording::Recording;
use spark_trace_recording::ledger::time_of;

/// Column of the target's device memory.
const DEVICE: &str = "live.device-all";
/// What it is the sum of, in the state at a query.
const KINDS: [&str; 3] = ["device", "async", "physical"];

/// Times with the level that was read then.
pub struct DeviceLevel(Vec<(u64, u64)>);

impl DeviceLevel {
    /// Absent where no device memory was seen.
    pub fn new(recording: &Recording) -> Option<Self> {
        let series = &recording.samples.cuda;
        let column = series.columns.get(DEVICE)?;
        let sampled =
            (0..column.len()).filter_map(|index| Some((time_of(series, index)?, column.get(index)?)));
        let queried = recording.provenance.queries.iter().filter_map(|query| {
            let later = query.state.as_ref()?.later.as_ref()?;
            let sum = KINDS.iter().filter_map(|kind| later.cuda_live.get(*kind)).sum();
            Some((query.at_ns, sum))
        });
        let mut levels: Vec<_> = sampled.chain(queried).collect();
        levels.sort_unstable();
        Some(Self(levels))
    }

    /// The level at a time: that of the last reading by then. Before the first there was none.
    pub fn at(&self, at_ns: u64) -> u64 {
        let after = self.0.partition_point(|(time, _)| *time <= at_ns);
        after.checked_sub(1).and_then(|index| self.0.get(index)).map_or(0, |(_, level)| *level)
    }

    /// Whether there is a reading after a time, up to another.
    pub fn is_read(&self, after_ns: u64, until_ns: u64) -> bool {
        let from = self.0.partition_point(|(time, _)| *time <= after_ns);
        self.0.get(from).is_some_and(|(time, _)| *time <= until_ns)
    }

    /// The last time at which nothing was in use, before anything was.
    pub fn first_use(&self) -> Option<u64> {
        let first = self.0.iter().position(|(_, level)| *level > 0)?;
        let before = first.checked_sub(1).and_then(|index| self.0.get(index));
        before.or_else(|| self.0.get(first)).map(|(time, _)| *time)
    }

    /// When the level first came within a hundredth of its highest after `from_ns`, measured from its level then.
    pub fn risen(&self, from_ns: u64) -> Option<u64> {
        let base = self.at(from_ns);
        let later = self.0.iter().filter(|(time, _)| *time > from_ns);
        let growth =
            later.clone().map(|(_, level)| *level).max()?.checked_sub(base).filter(|growth| *growth > 0)?;
        let enough = base.saturating_add(growth - growth / 100);
        later.clone().find(|(_, level)| *level >= enough).map(|(time, _)| *time)
    }
}
