//! Which details tell of a time: stacks, files and calls are read at few instants only, levels at every sample.

use crate::analysis::view::{Scope, View};
use crate::recording::{Instant, Recording};

/// Details of a peak, or of an answer to a query, are read once that has been seen, at the latest this long after.
const FOLLOW_NS: u64 = 500_000_000;

/// Why details are read when the target was told how much memory is free.
pub const QUERY: &str = "query";

/// Planes whose peaks details are read at.
const WATCHED: [Scope; 2] = [Scope::System, Scope::Cgroup];

/// Two levels that differ by no more than this are as good as one: readings of a machine that does nothing do.
/// `height` is the higher one.
pub fn margin(height: u64) -> u64 {
    (height >> 9).max(256 << 10)
}

/// Index of the instant that tells most of `at_ns`, among those at which `read` says that something was read. First
/// those at which every plane stood as high as then, of these the peak that was read soon after it, else the nearest.
pub fn nearest(recording: &Recording, at_ns: u64, read: impl Fn(usize) -> bool) -> Option<usize> {
    let views: Vec<_> = WATCHED.iter().filter_map(|&scope| View::new(recording, scope)).collect();
    let heights = |at_ns: u64| -> Vec<_> { views.iter().map(|view| view.height(at_ns)).collect() };
    let then = heights(at_ns);
    let instants = &recording.provenance.instants;
    let rank = |instant: &Instant| {
        (!alike(&then, &heights(instant.at_ns)), !follows(instant, at_ns), instant.at_ns.abs_diff(at_ns))
    };
    (0..instants.len()).filter(|&index| read(index)).min_by_key(|&index| instants.get(index).map(rank))
}

fn follows(instant: &Instant, at_ns: u64) -> bool {
    (instant.why.ends_with("-peak") || instant.why == QUERY)
        && (at_ns..=at_ns.saturating_add(FOLLOW_NS)).contains(&instant.at_ns)
}

fn alike(one: &[Option<u64>], other: &[Option<u64>]) -> bool {
    let known = one.iter().zip(other).filter_map(|(one, other)| one.zip(*other));
    known.into_iter().all(|(one, other)| one.abs_diff(other) <= margin(one.max(other)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recording::testing::{MIB, SECOND, START, empty, push};

    const MILLISECOND: u64 = SECOND / 1000;

    /// Details read so many milliseconds after the start, and the machine's used memory by seconds.
    fn read_at(instants: &[(u64, &str)], used_mib: &[u64]) -> Recording {
        let mut recording = empty();
        let instant =
            |&(ms, why): &(u64, &str)| Instant { at_ns: START + ms * MILLISECOND, why: why.to_owned() };
        recording.provenance.instants = instants.iter().map(instant).collect();
        for (second, used) in (0..).zip(used_mib) {
            let columns = [("MemTotal", 16384), ("MemFree", 16384 - used)];
            let columns = columns.map(|(name, mib)| (format!("meminfo.{name}"), mib * MIB));
            push(&mut recording.samples.system, START + second * SECOND, columns);
        }
        recording
    }

    fn chosen(recording: &Recording, ms: u64) -> Option<usize> {
        nearest(recording, START + ms * MILLISECOND, |_| true)
    }

    #[test]
    fn only_instants_that_were_read_count() {
        let recording = read_at(&[(10, ""), (20, ""), (30, "")], &[]);
        assert_eq!(chosen(&recording, 21), Some(1));
        let at_ns = START + 21 * MILLISECOND;
        assert_eq!(nearest(&recording, at_ns, |index| index != 1), Some(2));
        assert_eq!(nearest(&recording, at_ns, |_| false), None);
        assert_eq!(nearest(&empty(), at_ns, |_| true), None);
    }

    #[test]
    fn the_reading_that_a_peak_caused_is_preferred() {
        let recording = read_at(&[(404, "system-peak"), (596, "cgroup-peak"), (900, "end")], &[]);
        assert_eq!(chosen(&recording, 497), Some(1), "the other is from before the peak");
        assert_eq!(chosen(&recording, 880), Some(2));
    }

    /// The highest of nearly equal readings may come late in the time that memory is held, when the details of the peak
    /// have long been read.
    #[test]
    fn details_of_a_time_at_which_as_much_was_held_are_preferred_to_nearer_ones() {
        let recording = read_at(&[(1100, "system-peak"), (5300, "end")], &[500, 900, 900, 900, 901, 500]);
        assert_eq!(chosen(&recording, 4000), Some(0), "at the end it has been given back");
        assert_eq!(chosen(&recording, 5100), Some(1));
        let charged =
            read_at(&[(1100, "system-peak"), (4600, "cgroup-peak")], &[500, 900, 900, 900, 901, 500]);
        assert_eq!(chosen(&charged, 4400), Some(0), "another plane's peak, when it had been given back");
        let grown = read_at(&[(1100, "system-peak"), (5300, "end")], &[500, 600, 700, 800, 901, 500]);
        assert_eq!(chosen(&grown, 4000), Some(1), "neither is alike, so the nearer");
    }
}
