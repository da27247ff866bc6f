//! Processes outside of the target: who else had memory when it started, and when it had ended.

use std::cmp::Reverse;

use super::process::{self, Processes};
use spark_trace_recording::{Moment, OutsideProcess, journal::Sample};

/// Processes that are kept, the largest.
const KEPT: usize = 16;
/// Processes that are looked at: each takes some 20 microseconds.
const LOOKED_AT: usize = 4096;
/// One that has no more is not worth a name.
const LEAST: u64 = 1 << 20;

/// The largest of all processes but `target` (sorted).
pub fn largest(target: &[u32], moment: Moment) -> Vec<OutsideProcess> {
    let own = std::process::id();
    let others = process::all().into_iter().filter(|pid| *pid != own && target.binary_search(pid).is_err());
    let levels = others.take(LOOKED_AT).filter_map(|pid| Some((pid, Processes::level(pid)?)));
    let mut all: Vec<(u64, u32, u64)> =
        levels.map(|(pid, sample)| (own_memory(&sample), pid, sample.end_ns)).collect();
    all.retain(|(bytes, ..)| *bytes >= LEAST);
    all.sort_unstable_by_key(|(bytes, pid, _)| (Reverse(*bytes), *pid));
    all.truncate(KEPT);
    let named = all.into_iter().filter_map(|(bytes, pid, at_ns)| {
        let comm = process::describe(pid)?.comm;
        Some(OutsideProcess { at_ns, moment: Some(moment), pid, comm, bytes })
    });
    named.collect()
}

/// Pages of files are the page cache's.
fn own_memory(sample: &Sample) -> u64 {
    ["rss_anon", "rss_shmem"].iter().filter_map(|column| sample.values.get(*column)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_of_the_target_and_the_recorder_are_left_out() {
        let all = largest(&[], Moment::Start);
        assert!(all.len() <= KEPT && all.iter().all(|row| row.pid != std::process::id()), "{all:?}");
        assert!(all.is_sorted_by_key(|row| Reverse(row.bytes)), "{all:?}");
        // Processes end meanwhile: those that are left out are not there again.
        let mut pids: Vec<u32> = all.iter().map(|row| row.pid).collect();
        pids.sort_unstable();
        assert!(largest(&pids, Moment::End).iter().all(|row| pids.binary_search(&row.pid).is_err()));
    }
}
