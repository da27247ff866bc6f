//! What is known of a GPU at the time of a reading of NVML beside what that says: which of it the target allocated, and
//! what processes held before the trace began.
//!
//! Allocations whose GPU is not known are on one of those that NVML lists their process on: where that is one, they are
//! there. Where there are several they may be on any of them.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use crate::cuda::ByGpu;
use spark_trace_common::cuda::LIVE_ON_GPU;
use spark_trace_recording::journal::{Sample, SeriesId};

/// Column of a GPU's readings: bytes that the target's calls may have allocated on this or another.
const CUDA_MIXED: &str = "cuda.mixed";

/// Readings that wait: a quarter of an hour of four GPUs.
const MOST_WAITING: usize = 20_000;

#[derive(Debug, Default)]
pub(crate) struct Gpus {
    /// How many are read.
    pub(super) count: usize,
    /// Readings that wait for calls made before them.
    waiting: VecDeque<Sample>,
    /// Readings that there was no room for.
    pub(super) refused: u64,
    /// What processes held at the last reading of each device.
    last: BTreeMap<u32, BTreeMap<u32, u64>>,
    /// The least that the calls of each process left it since the last reading of each device.
    least: BTreeMap<u32, HashMap<u32, u64>>,
    /// What processes held at the first reading, as far as they can still hold it.
    before: BTreeMap<u32, BTreeMap<u32, u64>>,
}

/// What calls of the target's processes allocated and did not free, where calls are seen.
pub(crate) type Live = Option<BTreeMap<u32, ByGpu>>;

impl Gpus {
    /// Takes in readings that have come.
    pub(super) fn expect(&mut self, samples: Vec<Sample>) {
        let room = MOST_WAITING.saturating_sub(self.waiting.len());
        self.refused += samples.len().saturating_sub(room) as u64;
        self.waiting.extend(samples.into_iter().take(room));
    }

    /// The next reading that ended before `at_ns`.
    pub(super) fn next_before(&mut self, at_ns: u64) -> Option<Sample> {
        self.waiting.front().is_some_and(|sample| sample.end_ns <= at_ns).then(|| self.waiting.pop_front())?
    }

    /// A call has changed what a process holds.
    pub(super) fn changed(&mut self, pid: u32, live: &ByGpu) {
        let unknown = live.unknown > 0;
        let only_at: Vec<u32> =
            self.least.keys().copied().filter(|device| unknown && self.is_only_at(pid, *device)).collect();
        for (device, least) in &mut self.least {
            let live = traced(live, *device, only_at.contains(device));
            least.entry(pid).and_modify(|least| *least = (*least).min(live)).or_insert(live);
        }
    }

    /// A pid that comes now is another process than one that had it before.
    pub(super) fn began(&mut self, pid: u32) {
        for before in self.before.values_mut() {
            before.remove(&pid);
        }
    }

    /// Adds what is known to a reading of a GPU.
    pub(crate) fn add_to(&mut self, sample: &mut Sample, live: &Live) {
        let SeriesId::Device(device) = sample.series else { return };
        let held = by_process(sample);
        self.last.insert(device, held.clone());
        let here: Option<BTreeMap<u32, u64>> = live.as_ref().map(|live| {
            live.iter()
                .map(|(pid, live)| (*pid, traced(live, device, self.is_only_at(*pid, device))))
                .collect()
        });
        if let Some(here) = &here {
            sample.values.insert(LIVE_ON_GPU.to_owned(), here.values().sum());
        }
        let older = self.older(device, &held, here.as_ref());
        if let Some(live) = live.as_ref().filter(|_| self.count > 1) {
            let mixed = held.iter().filter(|(pid, _)| !self.is_only_at(**pid, device)).map(|(pid, bytes)| {
                let Some(live) = live.get(pid) else { return 0 };
                let known = older.get(pid).copied().unwrap_or(0) + live.on.get(&device).copied().unwrap_or(0);
                live.unknown.min(bytes.saturating_sub(known))
            });
            sample.values.insert(CUDA_MIXED.to_owned(), mixed.sum());
        }
        sample.values.extend(older.into_iter().map(|(pid, bytes)| (format!("process.{pid}.before"), bytes)));
        self.least.insert(device, here.into_iter().flatten().collect());
    }

    /// What processes still have of what they held at the first reading. It only falls: what calls have allocated since is
    /// not in it, the least since the last reading, so that it is never too low.
    fn older(
        &mut self,
        device: u32,
        held: &BTreeMap<u32, u64>,
        here: Option<&BTreeMap<u32, u64>>,
    ) -> BTreeMap<u32, u64> {
        self.before.entry(device).or_insert_with(|| held.clone());
        let least = self.least.get(&device);
        let since = |pid: &u32| {
            let now = here?.get(pid).copied()?;
            Some(least?.get(pid).map_or(0, |least| now.min(*least)))
        };
        let Some(before) = self.before.get_mut(&device) else { return BTreeMap::new() };
        before.retain(|pid, bytes| {
            let Some(now) = held.get(pid) else { return false };
            *bytes = (*bytes).min(now.saturating_sub(since(pid).unwrap_or(0)));
            true
        });
        before.clone()
    }

    /// Processes that any GPU listed at its last reading.
    pub(super) fn processes(&self) -> BTreeSet<u32> {
        self.last.values().flat_map(BTreeMap::keys).copied().collect()
    }

    /// GPUs on which a process holds anything, by the last reading of each or one that has come since: those of all GPUs
    /// are made one after the other.
    fn places(&self, pid: u32) -> usize {
        let column = format!("process.{pid}.used");
        let last = self.last.iter().filter(|(_, held)| held.get(&pid).is_some_and(|bytes| *bytes > 0));
        let coming =
            self.waiting.iter().filter(|sample| sample.values.get(&column).is_some_and(|bytes| *bytes > 0));
        let coming = coming.filter_map(|sample| match sample.series {
            SeriesId::Device(device) => Some(device),
            _ => None,
        });
        last.map(|(device, _)| *device).chain(coming).collect::<BTreeSet<_>>().len()
    }

    fn is_only_at(&self, pid: u32, device: u32) -> bool {
        if self.count <= 1 {
            return true;
        }
        let here = self.last.get(&device).and_then(|held| held.get(&pid)).is_some_and(|bytes| *bytes > 0);
        here && self.places(pid) == 1
    }
}

/// What the calls of a process allocated on a GPU: those that say so, and the others where it can be no other GPU.
fn traced(live: &ByGpu, device: u32, only_here: bool) -> u64 {
    let here = live.on.get(&device).copied().unwrap_or(0);
    if only_here { here.saturating_add(live.unknown) } else { here }
}

fn by_process(sample: &Sample) -> BTreeMap<u32, u64> {
    let pid = |column: &str| column.strip_prefix("process.")?.strip_suffix(".used")?.parse().ok();
    sample.values.iter().filter_map(|(column, bytes)| Some((pid(column)?, *bytes))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(device: u32, values: &[(&str, u64)]) -> Sample {
        let values = values.iter().map(|(column, value)| ((*column).to_owned(), *value)).collect();
        Sample { series: SeriesId::Device(device), begin_ns: 1, end_ns: 2, values, absent: Vec::new() }
    }

    fn gpus(count: usize) -> Gpus {
        Gpus { count, ..Gpus::default() }
    }

    /// On a GPU that no call has named.
    fn somewhere(bytes: u64) -> ByGpu {
        ByGpu { unknown: bytes, ..ByGpu::default() }
    }

    fn live(bytes: &[(u32, u64)]) -> Live {
        Some(bytes.iter().map(|(pid, bytes)| (*pid, somewhere(*bytes))).collect())
    }

    fn added(gpus: &mut Gpus, device: u32, values: &[(&str, u64)], live: &Live) -> BTreeMap<String, u64> {
        let mut sample = reading(device, values);
        gpus.add_to(&mut sample, live);
        sample.values
    }

    #[test]
    fn what_was_there_first_is_told_from_what_calls_allocate() {
        let mut gpus = gpus(1);
        let first = added(&mut gpus, 0, &[("process.7.used", 1000)], &live(&[]));
        assert_eq!((first["process.7.before"], first["cuda.live"]), (1000, 0));
        gpus.changed(7, &somewhere(300));
        let grown =
            added(&mut gpus, 0, &[("process.7.used", 1300), ("process.8.used", 50)], &live(&[(7, 300)]));
        assert_eq!((grown["process.7.before"], grown["cuda.live"]), (1000, 300));
        assert!(!grown.contains_key("process.8.before"), "it came later");
        // It frees 400 of the old and allocates 100.
        gpus.changed(7, &somewhere(400));
        let freed = added(&mut gpus, 0, &[("process.7.used", 1000)], &live(&[(7, 400)]));
        assert_eq!(freed["process.7.before"], 700, "at least 300 were the calls' at any time since");
        let later = added(&mut gpus, 0, &[("process.7.used", 1000)], &live(&[(7, 400)]));
        assert_eq!(later["process.7.before"], 600);
        let gone = added(&mut gpus, 0, &[], &live(&[]));
        assert!(!gone.contains_key("process.7.before"));
        let again = added(&mut gpus, 0, &[("process.7.used", 5)], &live(&[]));
        assert!(!again.contains_key("process.7.before"), "another process with its pid");
    }

    #[test]
    fn what_was_freed_and_taken_again_between_two_readings_is_not_taken_from_what_was_before() {
        let mut gpus = gpus(1);
        added(&mut gpus, 0, &[("process.7.used", 1000)], &live(&[]));
        gpus.changed(7, &somewhere(500));
        added(&mut gpus, 0, &[("process.7.used", 1500)], &live(&[(7, 500)]));
        // The reading was made while nothing was held.
        gpus.changed(7, &somewhere(0));
        gpus.changed(7, &somewhere(500));
        let values = added(&mut gpus, 0, &[("process.7.used", 1000)], &live(&[(7, 500)]));
        assert_eq!(values["process.7.before"], 1000);
    }

    #[test]
    fn what_is_on_an_unknown_gpu_is_on_the_only_one_of_its_process_or_anywhere() {
        let mut gpus = gpus(2);
        added(&mut gpus, 0, &[], &live(&[]));
        added(&mut gpus, 1, &[], &live(&[]));
        let held = live(&[(7, 300), (8, 350)]);
        let first = added(&mut gpus, 0, &[("process.7.used", 360), ("process.8.used", 360)], &held);
        assert_eq!((first["cuda.live"], first["cuda.mixed"]), (650, 0), "as far as is known");
        gpus.expect(vec![reading(1, &[("process.8.used", 660)])]);
        let first = added(&mut gpus, 0, &[("process.7.used", 360), ("process.8.used", 360)], &held);
        assert_eq!((first["cuda.live"], first["cuda.mixed"]), (300, 350), "the other GPU's reading has come");
        assert!(gpus.next_before(u64::MAX).is_some());
        let second = added(&mut gpus, 1, &[("process.8.used", 660)], &held);
        assert_eq!((second["cuda.live"], second["cuda.mixed"]), (0, 350));
        let small = [("process.7.used", 360), ("process.8.used", 60)];
        let first = added(&mut gpus, 0, &small, &held);
        assert_eq!((first["cuda.live"], first["cuda.mixed"]), (300, 60), "no more than it holds there");
    }

    #[test]
    fn what_a_call_says_the_gpu_of_is_there_whatever_else_its_process_uses() {
        let mut gpus = gpus(2);
        added(&mut gpus, 0, &[], &live(&[]));
        added(&mut gpus, 1, &[("process.8.used", 100)], &live(&[]));
        let on = BTreeMap::from([(0, 300), (1, 600)]);
        let held: Live = Some(BTreeMap::from([(8, ByGpu { on, unknown: 0 })]));
        gpus.changed(8, &held.as_ref().unwrap()[&8]);
        gpus.expect(vec![reading(1, &[("process.8.used", 760)])]);
        let first = added(&mut gpus, 0, &[("process.8.used", 360)], &held);
        assert_eq!((first["cuda.live"], first["cuda.mixed"]), (300, 0));
        let second = added(&mut gpus, 1, &[("process.8.used", 760)], &held);
        assert_eq!((second["cuda.live"], second["cuda.mixed"]), (600, 0));
        assert_eq!(second["process.8.before"], 100);
        // It frees what it had before: the least that its calls have there since the last reading stays.
        let third = added(&mut gpus, 1, &[("process.8.used", 660)], &held);
        assert_eq!(third["process.8.before"], 60);
    }

    #[test]
    fn without_calls_what_was_before_falls_with_what_is_held() {
        let mut gpus = gpus(1);
        added(&mut gpus, 0, &[("process.7.used", 100)], &None);
        let values = added(&mut gpus, 0, &[("process.7.used", 70)], &None);
        assert_eq!(values["process.7.before"], 70);
        assert!(!values.contains_key("cuda.live"));
        gpus.began(7);
        assert!(!added(&mut gpus, 0, &[("process.7.used", 70)], &None).contains_key("process.7.before"));
    }

    #[test]
    fn readings_wait_for_the_calls_before_them() {
        let mut gpus = gpus(1);
        gpus.expect(vec![reading(0, &[])]);
        assert_eq!(gpus.next_before(1), None);
        assert!(gpus.next_before(2).is_some());
        assert_eq!(gpus.next_before(u64::MAX), None);
    }
}
