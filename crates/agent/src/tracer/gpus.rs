//! What is known of a GPU at the time of a reading of NVML beside what that says: which of it the target allocated, and
//! what processes held before the trace began.
//!
//! Calls name no GPU. NVML lists a process on each GPU that it has a context on: what a process on one GPU allocates is
//! there. What one on several GPUs allocates may be on any of them.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use spark_trace_recording::journal::{Sample, SeriesId};

/// Columns of a GPU's readings: bytes that the target's calls allocated on it and did not free, and what processes hold
/// on it whose calls may have been for another.
const CUDA_LIVE: &str = "cuda.live";
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
pub(crate) type Live = Option<BTreeMap<u32, u64>>;

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
    pub(super) fn changed(&mut self, pid: u32, live: u64) {
        for least in self.least.values_mut() {
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
        if let Some(live) = live {
            let all_here: u64 = match self.count {
                0 | 1 => live.values().sum(),
                _ => live
                    .iter()
                    .filter(|(pid, _)| self.is_only_at(**pid, device))
                    .map(|(_, bytes)| bytes)
                    .sum(),
            };
            sample.values.insert(CUDA_LIVE.to_owned(), all_here);
        }
        let older = self.older(device, &held, live.as_ref());
        if let Some(live) = live.as_ref().filter(|_| self.count > 1) {
            let anywhere = |pid: &u32| live.contains_key(pid) && self.places(*pid) > 1;
            let mixed = held.iter().filter(|(pid, _)| anywhere(pid));
            let mixed =
                mixed.map(|(pid, bytes)| bytes.saturating_sub(older.get(pid).copied().unwrap_or(0))).sum();
            sample.values.insert(CUDA_MIXED.to_owned(), mixed);
        }
        sample.values.extend(older.into_iter().map(|(pid, bytes)| (format!("process.{pid}.before"), bytes)));
        let now = live.iter().flatten().map(|(pid, bytes)| (*pid, *bytes));
        self.least.insert(device, now.collect());
    }

    /// What processes still have of what they held at the first reading. It only falls: what calls have allocated since is
    /// not in it, the least since the last reading, so that it is never too low.
    fn older(
        &mut self,
        device: u32,
        held: &BTreeMap<u32, u64>,
        live: Option<&BTreeMap<u32, u64>>,
    ) -> BTreeMap<u32, u64> {
        self.before.entry(device).or_insert_with(|| held.clone());
        let least = self.least.get(&device);
        let since = |pid: &u32| {
            let now = live?.get(pid).copied()?;
            Some(least?.get(pid).map_or(0, |least| now.min(*least)))
        };
        let alone: Vec<u32> =
            held.keys().copied().filter(|pid| self.count <= 1 || self.is_only_at(*pid, device)).collect();
        let Some(before) = self.before.get_mut(&device) else { return BTreeMap::new() };
        before.retain(|pid, bytes| {
            let Some(now) = held.get(pid) else { return false };
            let traced = since(pid).filter(|_| alone.contains(pid)).unwrap_or(0);
            *bytes = (*bytes).min(now.saturating_sub(traced));
            true
        });
        before.clone()
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
        let here = self.last.get(&device).and_then(|held| held.get(&pid)).is_some_and(|bytes| *bytes > 0);
        here && self.places(pid) == 1
    }
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

    fn live(bytes: &[(u32, u64)]) -> Live {
        Some(bytes.iter().copied().collect())
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
        gpus.changed(7, 300);
        let grown =
            added(&mut gpus, 0, &[("process.7.used", 1300), ("process.8.used", 50)], &live(&[(7, 300)]));
        assert_eq!((grown["process.7.before"], grown["cuda.live"]), (1000, 300));
        assert!(!grown.contains_key("process.8.before"), "it came later");
        // It frees 400 of the old and allocates 100.
        gpus.changed(7, 400);
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
        gpus.changed(7, 500);
        added(&mut gpus, 0, &[("process.7.used", 1500)], &live(&[(7, 500)]));
        // The reading was made while nothing was held.
        gpus.changed(7, 0);
        gpus.changed(7, 500);
        let values = added(&mut gpus, 0, &[("process.7.used", 1000)], &live(&[(7, 500)]));
        assert_eq!(values["process.7.before"], 1000);
    }

    #[test]
    fn a_process_on_one_of_two_gpus_allocates_there_and_one_on_both_anywhere() {
        let mut gpus = gpus(2);
        added(&mut gpus, 0, &[], &live(&[]));
        added(&mut gpus, 1, &[], &live(&[]));
        let held = live(&[(7, 300), (8, 800)]);
        let first = added(&mut gpus, 0, &[("process.7.used", 360), ("process.8.used", 360)], &held);
        assert_eq!((first["cuda.live"], first["cuda.mixed"]), (1100, 0), "as far as is known");
        gpus.expect(vec![reading(1, &[("process.8.used", 660)])]);
        let first = added(&mut gpus, 0, &[("process.7.used", 360), ("process.8.used", 360)], &held);
        assert_eq!((first["cuda.live"], first["cuda.mixed"]), (300, 360), "the other GPU's reading has come");
        assert!(gpus.next_before(u64::MAX).is_some());
        let second = added(&mut gpus, 1, &[("process.8.used", 660)], &held);
        assert_eq!((second["cuda.live"], second["cuda.mixed"]), (0, 660));
        let first = added(&mut gpus, 0, &[("process.7.used", 360), ("process.8.used", 360)], &held);
        assert_eq!((first["cuda.live"], first["cuda.mixed"]), (300, 360));
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
