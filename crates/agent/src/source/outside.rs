//! Processes outside of the target: who else had memory when it started, at queries that an engine sizes itself by, and when
//! it had ended.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::time::{Duration, Instant};

use procfs::process::Process as ProcProcess;

use super::process::{self, Processes};
use crate::{clock_ns, page_size};
use spark_trace_recording::{Moment, OutsideProcess, journal::Sample};

/// Processes that are kept, the largest.
const KEPT: usize = 16;
/// Processes that are looked at.
const LOOKED_AT: usize = 16_384;
/// What all of them may take before and after the target.
const BUDGET: Duration = Duration::from_secs(1);
/// One that has no more is not worth a name.
const LEAST: u64 = 1 << 20;

/// What one reading has found.
#[derive(Debug, Default)]
pub struct Found {
    /// The largest first.
    pub rows: Vec<OutsideProcess>,
    /// Processes that were not looked at.
    pub missed: u64,
}

/// The largest of all processes but `target` (sorted), and those that are known to have memory elsewhere.
pub fn largest(target: &[u32], known: &BTreeSet<u32>, moment: Moment) -> Found {
    read(target, Some(moment), known, BUDGET)
}

/// The same in so much time at most, with those that were among the largest before. All or none: who is not among the rows had
/// less.
pub fn near_a_query(target: &[u32], known: &BTreeSet<u32>, budget: Duration) -> Found {
    let mut found = read(target, None, known, budget);
    if found.missed > 0 {
        found.rows.clear();
    }
    found
}

/// All are looked at briefly, and then closely those that may be among the largest. The newest go first after those that are known: what came since the
/// last reading is of more interest than what was there at the start.
fn read(target: &[u32], moment: Option<Moment>, known: &BTreeSet<u32>, budget: Duration) -> Found {
    let until = Instant::now() + budget;
    let own = std::process::id();
    let mut others = process::all();
    others.retain(|pid| *pid != own && target.binary_search(pid).is_err());
    others.sort_by_key(|pid| (!known.contains(pid), Reverse(*pid)));
    let mut looked_at = 0;
    let mut sizes: Vec<(u64, u32)> = Vec::new();
    for &pid in others.iter().take(LOOKED_AT) {
        if Instant::now() >= until {
            break;
        }
        looked_at += 1;
        sizes.extend(
            resident(pid).filter(|bytes| *bytes >= LEAST || known.contains(&pid)).map(|bytes| (bytes, pid)),
        );
    }
    // Pages of files are no memory of theirs: what is resident says only how much it is at most.
    // Those that are known have memory elsewhere: they come first, however small they are.
    sizes.sort_unstable_by_key(|(bytes, pid)| (!known.contains(pid), Reverse(*bytes), *pid));
    let mut all: Vec<(u64, u32, u64)> = Vec::new();
    let mut not_read = 0;
    for (most, pid) in sizes {
        // All that follow have less than the last of those that are kept.
        let is_enough = all.len() >= KEPT && all.iter().filter(|(bytes, ..)| *bytes >= most).count() >= KEPT;
        if is_enough && !known.contains(&pid) {
            continue;
        }
        if Instant::now() >= until {
            not_read += 1;
        } else if let Some(sample) = Processes::level(pid) {
            let bytes = own_memory(&sample);
            let is_kept = bytes >= LEAST || known.contains(&pid);
            all.extend(is_kept.then_some((bytes, pid, sample.end_ns)));
        }
    }
    all.sort_unstable_by_key(|(bytes, pid, _)| (Reverse(*bytes), *pid));
    let mut nth = 0;
    all.retain(|(_, pid, _)| {
        nth += 1;
        nth <= KEPT || known.contains(pid)
    });
    let rows = all.into_iter().filter_map(|(bytes, pid, at_ns)| {
        let (comm, started_ns) = name(pid)?;
        Some(OutsideProcess { at_ns, moment, pid, comm, bytes, started_ns })
    });
    Found { rows: rows.collect(), missed: (others.len() - looked_at + not_read) as u64 }
}

/// What a process has resident, pages of files too; absent of one that has ended, and of a kernel thread.
fn resident(pid: u32) -> Option<u64> {
    let mut text = [0; 128];
    let length = File::open(format!("/proc/{pid}/statm")).ok()?.read(&mut text).ok()?;
    let pages: u64 = std::str::from_utf8(text.get(..length)?).ok()?.split(' ').nth(1)?.parse().ok()?;
    pages.checked_mul(page_size())
}

/// A process's name, and when it was started: on the clock of recordings, to a tick.
fn name(pid: u32) -> Option<(String, Option<u64>)> {
    let stat = ProcProcess::new(i32::try_from(pid).ok()?).ok()?.stat().ok()?;
    let asleep = clock_ns(libc::CLOCK_BOOTTIME).saturating_sub(clock_ns(libc::CLOCK_MONOTONIC));
    let since_boot = stat.starttime.checked_mul(1_000_000_000 / procfs::ticks_per_second().max(1));
    Some((stat.comm, since_boot.and_then(|ns| ns.checked_sub(asleep))))
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
        let none = BTreeSet::new();
        let all = largest(&[], &none, Moment::Start).rows;
        assert!(all.len() <= KEPT && all.iter().all(|row| row.pid != std::process::id()), "{all:?}");
        assert!(all.is_sorted_by_key(|row| Reverse(row.bytes)), "{all:?}");
        // Processes end meanwhile: those that are left out are not there again.
        let mut pids: Vec<u32> = all.iter().map(|row| row.pid).collect();
        pids.sort_unstable();
        assert!(
            largest(&pids, &none, Moment::End).rows.iter().all(|row| pids.binary_search(&row.pid).is_err())
        );
    }

    #[test]
    fn what_is_resident_is_what_the_kernel_has() {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        let kib: u64 = line.split_whitespace().next().unwrap().parse().unwrap();
        // Other tests run beside this one.
        let found = resident(std::process::id()).unwrap();
        assert!(found.abs_diff(kib << 10) < 64 << 20, "{found}, {line}");
        assert_eq!(resident(u32::MAX), None);
    }

    #[test]
    fn without_time_all_are_missed() {
        let found = near_a_query(&[], &BTreeSet::new(), Duration::ZERO);
        assert!(found.rows.is_empty() && found.missed > 0, "{found:?}");
    }

    /// What a GPU has of it is not in its resident memory.
    #[test]
    fn one_that_is_known_has_a_row_however_small_it_is() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let known = BTreeSet::from([child.id()]);
        let rows = |known| largest(&[], known, Moment::Start).rows;
        let (with, without) = (rows(&known), rows(&BTreeSet::new()));
        child.kill().unwrap();
        child.wait().unwrap();
        let is_it = |row: &&OutsideProcess| row.pid == child.id();
        let found = with.iter().find(is_it).unwrap();
        assert!(found.bytes < LEAST, "{found:?}");
        assert!(!without.iter().any(|row| is_it(&row)), "{without:?}");
    }

    /// A process that this one has just started is the younger of both.
    #[test]
    fn starts_are_on_the_recordings_clock() {
        let before_ns = crate::now_ns();
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let (_, started_ns) = name(child.id()).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        // Ticks are of 10 ms, and begin before the start.
        let tick_ns = 1_000_000_000 / procfs::ticks_per_second();
        let started_ns = started_ns.unwrap();
        assert!((before_ns - tick_ns..=crate::now_ns()).contains(&started_ns), "{started_ns} {before_ns}");
    }
}
