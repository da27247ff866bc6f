//! Who had memory beside the target.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use spark_trace_recording::{Moment, OutsideProcess, Recording};

use super::outside_device::Device;
use super::{OutsideUse, ProcessUse, Role};

/// A reading takes less than a fifth of this, and begins right after the query.
const NEAR_NS: u64 = 1_000_000_000;
/// Of a reading that has fewer rows, all other processes had less than [`LEAST`] (agent, source/outside.rs).
const KEPT: usize = 16;
/// Processes that a reading looks at again because they were among the largest before; with more of them all are forgotten
/// (agent, neighbours.rs).
const REMEMBERED: usize = 64;
/// Levels of one process so near to a query that differ by more, and by more than a part of it, are no level.
const CLOSE_NS: u64 = NEAR_NS / 4;
const LEAST: u64 = 1 << 20;
/// The kernel has starts to a tick (a hundredth of a second), and two clocks are read for what a machine has slept meanwhile.
const SAME_START_NS: u64 = 10_000_000;
const PART: u64 = 10;

/// What processes outside of the target had at a query.
struct Near<'a> {
    at_ns: u64,
    rows: BTreeMap<u32, Vec<&'a OutsideProcess>>,
    all_remembered: bool,
}

impl<'a> Near<'a> {
    fn new(recording: &'a Recording, at_ns: u64) -> Self {
        let mut rows: BTreeMap<u32, Vec<&OutsideProcess>> = BTreeMap::new();
        for row in recording.provenance.outside.iter().filter(|row| row.at_ns.abs_diff(at_ns) <= NEAR_NS) {
            rows.entry(row.pid).or_default().push(row);
        }
        let near_queries = recording.provenance.outside.iter().filter(|row| row.moment.is_none());
        let all: BTreeSet<u32> = near_queries.map(|row| row.pid).collect();
        Self { at_ns, rows, all_remembered: all.len() <= REMEMBERED }
    }

    /// Bytes of a process; absent where that is not known. `others` are its rows at other times.
    fn bytes(&self, pid: u32, started_ns: Option<u64>, others: &[&OutsideProcess]) -> Option<u64> {
        if self.rows.is_empty() {
            return None;
        }
        if started_ns.is_some_and(|started| started > self.at_ns) {
            return Some(0);
        }
        if let Some(rows) = self.rows.get(&pid) {
            let nearest = rows.iter().min_by_key(|row| row.at_ns.abs_diff(self.at_ns))?;
            let differs = |row: &&&OutsideProcess| {
                let is_close = row.at_ns.abs_diff(self.at_ns) <= CLOSE_NS;
                is_close && row.bytes.abs_diff(nearest.bytes) > LEAST.max(nearest.bytes.max(row.bytes) / PART)
            };
            // One that changes just then had what nobody knows.
            return (!rows.iter().any(|row| differs(&row))).then_some(nearest.bytes);
        }
        // Who was among the largest is looked at in all readings that follow.
        let first_ns = self.rows.values().flatten().map(|row| row.at_ns).min()?;
        let was_known =
            self.all_remembered && others.iter().any(|row| row.moment.is_none() && row.at_ns < first_ns);
        (was_known || self.rows.len() < KEPT).then_some(0)
    }
}

/// Of one without a name: it was not among the largest, nor did the driver list it when it was looked for.
const UNNAMED: &str = "process";

/// What each process outside of the target had at the baseline and at the reading, as far as is known of both; `None` of the first
/// where there is no baseline.
pub fn at_readings(recording: &Recording, before_ns: Option<u64>, at_ns: u64) -> Vec<ProcessUse> {
    let (before, at) = (before_ns.map(|at_ns| Near::new(recording, at_ns)), Near::new(recording, at_ns));
    let (device_before, device_at) =
        (before_ns.map(|at_ns| Device::at(recording, at_ns)), Device::at(recording, at_ns));
    let near = before.iter().chain([&at]).flat_map(|near| near.rows.keys()).copied();
    let of_device = device_before.iter().chain([&device_at]).flat_map(Device::pids);
    let pids: BTreeSet<u32> = near.chain(of_device).collect();
    let rows = pids.into_iter().filter_map(|pid| {
        let all: Vec<&OutsideProcess> =
            recording.provenance.outside.iter().filter(|row| row.pid == pid).collect();
        let started_ns = match all.first() {
            Some(first) => Some(first.started_ns?),
            None => None,
        };
        // A number that came again is another process's.
        let is_same = |row: &&OutsideProcess| {
            let both = row.started_ns.zip(started_ns);
            both.is_some_and(|(one, other)| one.abs_diff(other) <= SAME_START_NS)
        };
        if !all.iter().all(is_same) {
            return None;
        }
        let host = |near: &Near<'_>| near.bytes(pid, started_ns, &all);
        let (host_before, host_at) = (before.as_ref().map(host), host(&at));
        let device = device_at.of(pid);
        // Of one that was not among the largest, device memory alone is known: that is then taken of both times.
        let is_known = host_at.is_some() && host_before.is_none_or(|bytes| bytes.is_some());
        let with_host = |host: Option<u64>| if is_known { host.unwrap_or(0) } else { 0 };
        let has_device = device_before.iter().chain([&device_at]).any(|device| device.lists(pid));
        if !has_device {
            return Some(outside(pid, &all, host_before.flatten(), host_at?, None));
        }
        let device_before = device_before.as_ref().and_then(|device| device.of(pid));
        let before = device_before.map(|bytes| bytes.saturating_add(with_host(host_before.flatten())));
        // One that changes just then had what nobody knows.
        let device = device?;
        let at = device.saturating_add(with_host(host_at));
        Some(outside(pid, &all, before, at, Some(device).filter(|bytes| *bytes > 0)))
    });
    rows.collect()
}

fn outside(
    pid: u32,
    rows: &[&OutsideProcess],
    before: Option<u64>,
    at: u64,
    device: Option<u64>,
) -> ProcessUse {
    let comm = rows.last().map_or(UNNAMED, |row| row.comm.as_str()).to_owned();
    ProcessUse { pid: Some(pid), comm, role: Role::Outside, before, at, device, costs: None }
}

/// The largest first.
pub fn processes(recording: &Recording) -> Vec<OutsideUse> {
    let mut found: BTreeMap<(u32, &str), OutsideUse> = BTreeMap::new();
    for row in recording.provenance.outside.iter().filter(|row| row.moment.is_some()) {
        let one = found.entry((row.pid, row.comm.as_str())).or_insert_with(|| OutsideUse {
            pid: row.pid,
            comm: row.comm.clone(),
            at_start: None,
            at_end: None,
        });
        match row.moment {
            Some(Moment::Start) => one.at_start = Some(row.bytes),
            Some(Moment::End) => one.at_end = Some(row.bytes),
            _ => {}
        }
    }
    let mut all: Vec<_> = found.into_values().collect();
    all.sort_by_key(|row| Reverse(row.at_start.max(row.at_end)));
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use spark_trace_recording::OutsideProcess;
    use spark_trace_testing as testing;

    #[test]
    fn the_largest_at_either_time_comes_first() {
        let mut recording = testing::empty();
        let row = |moment, pid, comm: &str, bytes| OutsideProcess {
            at_ns: 1,
            moment: Some(moment),
            pid,
            comm: comm.to_owned(),
            bytes,
            started_ns: None,
        };
        recording.provenance.outside = vec![
            row(Moment::Start, 7, "python3", 40),
            row(Moment::Start, 8, "redis", 30),
            row(Moment::End, 7, "python3", 10),
            // The number came again.
            row(Moment::End, 8, "sshd", 50),
        ];
        let found = processes(&recording);
        let rows: Vec<_> = found.iter().map(|row| (row.comm.as_str(), row.at_start, row.at_end)).collect();
        assert_eq!(
            rows,
            [("sshd", None, Some(50)), ("python3", Some(40), Some(10)), ("redis", Some(30), None)]
        );
    }

    #[test]
    fn what_each_had_at_both_readings_is_known_or_absent() {
        const SECOND: u64 = 1_000_000_000;
        let (baseline, reading) = (10 * SECOND, 20 * SECOND);
        let row = |at_ns, pid, bytes, started_ns| OutsideProcess {
            at_ns,
            moment: None,
            pid,
            comm: format!("p{pid}"),
            bytes,
            started_ns: Some(started_ns),
        };
        let mut recording = testing::empty();
        // A full reading, in which smaller ones are not among the largest.
        let mut rows: Vec<_> = (100..114).map(|pid| row(baseline + 1, pid, 50 << 20, 1)).collect();
        rows.push(row(baseline + 2, 7, 400 << 20, 1));
        rows.push(row(baseline + 3, 8, 300 << 20, 1));
        // It had ended; one came; one was small before; one doubles just then.
        rows.push(row(reading + 1, 9, 300 << 20, 15 * SECOND));
        rows.push(row(reading + 2, 10, 200 << 20, 1));
        rows.push(row(reading + 3, 7, 400 << 20, 1));
        rows.push(row(reading + SECOND / 5, 7, 800 << 20, 1));
        recording.provenance.outside = rows;
        let found = at_readings(&recording, Some(baseline), reading);
        let of = |pid: u32| {
            found
                .iter()
                .find(|row| row.pid == Some(pid))
                .map(|row| (row.before.map(|b| b >> 20), row.at >> 20))
        };
        assert_eq!(of(8), Some((Some(300), 0)), "it was known, and is gone");
        assert_eq!(of(9), Some((Some(0), 300)), "it was started later");
        assert_eq!(of(10), Some((None, 200)), "it was not among the largest");
        assert_eq!(of(7), None, "it changes");
        assert!(found.iter().all(|row| row.role == Role::Outside));
        let far = at_readings(&recording, Some(5 * SECOND), 30 * SECOND);
        assert!(far.is_empty(), "{far:?}");
    }
}
