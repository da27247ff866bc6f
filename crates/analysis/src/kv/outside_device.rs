//! Device memory of processes outside of the target, where the GPU has none of its own: it is the machine's, and no page of
//! it is in their resident memory.

use std::collections::{BTreeMap, BTreeSet};

use spark_trace_recording::{Nvidia, Recording, Series, ledger};

use crate::devices::shares_memory;

/// A reading of a GPU that is farther away says nothing of a query.
const NEAR_NS: u64 = 1_000_000_000;
/// Of what differs by more between the readings around a query, nobody knows what it was at it.
const LEAST: u64 = 1 << 20;

/// Bytes by process at one time, of all GPUs that have no memory of their own.
#[derive(Debug, Default)]
pub struct Device {
    /// `None` of a process that took or gave back much just then.
    bytes: BTreeMap<u32, Option<u64>>,
    /// Every process that is listed has its bytes in `bytes`.
    is_whole: bool,
}

impl Device {
    pub fn at(recording: &Recording, at_ns: u64) -> Self {
        // The memory of a simulated GPU is the process's own, unless its modules have the pages.
        let in_own_pages = |nvidia: &Nvidia| nvidia.simulated && !nvidia.is_stand_in();
        if recording.target.is_whole_machine() || recording.host.nvidia.as_ref().is_some_and(in_own_pages) {
            return Self::default();
        }
        let mut found = Self { is_whole: true, ..Self::default() };
        for device in recording.samples.devices.iter().filter(|device| shares_memory(&device.series)) {
            found.add(&device.series, at_ns);
        }
        for process in &recording.provenance.processes {
            found.bytes.remove(&process.pid);
        }
        found
    }

    fn add(&mut self, series: &Series, at_ns: u64) {
        let near =
            |index: usize| ledger::time_of(series, index).filter(|time| time.abs_diff(at_ns) <= NEAR_NS);
        let nearest = ledger::nearest(series, at_ns).and_then(|index| Some((index, near(index)?)));
        let Some((nearest, time)) = nearest else {
            self.is_whole = false;
            return;
        };
        let read = |index: usize| -> BTreeMap<u32, u64> { ledger::device_processes(series, index).collect() };
        let now = read(nearest);
        let listed = series.columns.get("processes.listed").and_then(|column| column.get(nearest));
        self.is_whole &= listed == u64::try_from(now.len()).ok();
        let other = if time <= at_ns { nearest.checked_add(1) } else { nearest.checked_sub(1) };
        let other = other.filter(|other| near(*other).is_some()).map(read);
        let pids: BTreeSet<u32> = now.keys().chain(other.iter().flat_map(BTreeMap::keys)).copied().collect();
        for pid in pids {
            let of = |rows: &BTreeMap<u32, u64>| rows.get(&pid).copied().unwrap_or(0);
            let changes = other.as_ref().is_some_and(|other| of(other).abs_diff(of(&now)) > LEAST);
            let sum = self.bytes.entry(pid).or_insert(Some(0));
            *sum = sum.filter(|_| !changes).and_then(|sum| sum.checked_add(of(&now)));
        }
    }

    /// Processes that have any, or may have.
    pub fn pids(&self) -> impl Iterator<Item = u32> {
        self.bytes.iter().filter(|(_, bytes)| bytes.is_none_or(|bytes| bytes > 0)).map(|(pid, _)| *pid)
    }

    /// Whether a process is among them.
    pub fn lists(&self, pid: u32) -> bool {
        self.bytes.get(&pid).is_some_and(|bytes| bytes.is_none_or(|bytes| bytes > 0))
    }

    /// Bytes of a process; absent where they are not known.
    pub fn of(&self, pid: u32) -> Option<u64> {
        match self.bytes.get(&pid) {
            Some(bytes) => *bytes,
            None => self.is_whole.then_some(0),
        }
    }

    /// Of all of them; absent where that of any is not known.
    pub fn sum(&self) -> Option<u64> {
        let known = || self.bytes.values().copied().sum::<Option<u64>>();
        self.is_whole.then(known).flatten()
    }
}

#[cfg(test)]
mod tests {
    use spark_trace_testing as testing;
    use spark_trace_testing::{MIB, SECOND, START};

    use super::*;

    /// Readings a second apart of a GPU that has no memory of its own, with what NVML lists.
    fn unified(readings: &[&[(u32, u64)]]) -> Recording {
        let mut recording = testing::gpus();
        recording.host.nvidia.as_mut().unwrap().simulated = false;
        // The first has memory of its own, and others there.
        let series = &mut recording.samples.devices[1].series;
        series.begin_ns.clear();
        series.end_ns.clear();
        series.columns.clear();
        for (second, rows) in (0..).zip(readings) {
            let listed = ("processes.listed".to_owned(), rows.len() as u64);
            let rows = rows.iter().map(|(pid, mib)| (format!("process.{pid}.used"), mib * MIB));
            testing::push(series, START + second * SECOND, rows.chain([listed]));
        }
        recording
    }

    #[test]
    fn only_what_others_have_of_the_machines_memory_counts() {
        let recording = unified(&[&[(7, 300), (4242, 700)], &[(7, 300), (4242, 700)]]);
        let found = Device::at(&recording, START + SECOND);
        assert_eq!(found.pids().collect::<Vec<_>>(), [7]);
        assert_eq!((found.of(7), found.of(8), found.sum()), (Some(300 * MIB), Some(0), Some(300 * MIB)));
        let far = Device::at(&recording, START + 9 * SECOND);
        assert_eq!((far.of(7), far.sum()), (None, None), "no reading is near");
    }

    #[test]
    fn what_changes_just_then_or_is_not_told_is_unknown() {
        let mut recording = unified(&[&[(7, 300), (9, 50)], &[(7, 100), (9, 50)]]);
        let found = Device::at(&recording, START + SECOND / 4);
        assert_eq!((found.of(7), found.of(9), found.sum()), (None, Some(50 * MIB), None));
        assert!(found.lists(7) && !found.lists(8) && found.pids().eq([7, 9]));
        let series = &mut recording.samples.devices[1].series;
        series.columns.insert("processes.listed".to_owned(), [Some(3), Some(3)].into_iter().collect());
        assert_eq!(Device::at(&recording, START + SECOND / 4).of(8), None, "one is listed without its bytes");
    }

    #[test]
    fn a_simulated_gpu_has_its_memory_in_the_processes_own_unless_modules_have_it() {
        let mut recording = unified(&[&[(7, 300)], &[(7, 300)]]);
        let nvidia = recording.host.nvidia.as_mut().unwrap();
        nvidia.simulated = true;
        assert_eq!(Device::at(&recording, START).sum(), None);
        recording.host.nvidia.as_mut().unwrap().kernel_module = Some("stand-in".to_owned());
        assert_eq!(Device::at(&recording, START).sum(), Some(300 * MIB));
    }
}
