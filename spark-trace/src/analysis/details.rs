//! Which details tell of a time: stacks, files and calls are read at few instants only, levels at every sample.

use crate::analysis::view::{Scope, View};
use crate::ledger::{self, Plane};
use crate::recording::{CgroupSeries, Instant, Recording, Samples};

/// Details of a peak, or of an answer to a query, are read once that has been seen, at the latest this long after.
pub const FOLLOW_NS: u64 = 500_000_000;

/// Why details are read when the target was told how much memory is free.
pub const QUERY: &str = "query";

/// Planes whose peaks details are read at.
const WATCHED: [Scope; 2] = [Scope::System, Scope::Cgroup];

/// Two levels that differ by no more than this are as good as one: readings of a machine that does nothing do.
/// `height` is the higher one.
pub fn margin(height: u64) -> u64 {
    (height >> 9).max(256 << 10)
}

/// Index of the instant that tells most of what was held at `at_ns`, among those at which `read` says that something
/// was read. First those at which the planes stood as high as then, of these the peak that was read soon after it, else
/// the nearest. After all of them nothing is known but the last.
pub fn nearest(recording: &Recording, at_ns: u64, read: impl Fn(usize) -> bool) -> Option<usize> {
    let instants = &recording.provenance.instants;
    let read_at: Vec<(usize, &Instant)> =
        instants.iter().enumerate().filter(|(index, _)| read(*index)).collect();
    let last = read_at.iter().max_by_key(|(_, instant)| instant.at_ns)?;
    if at_ns >= last.1.at_ns {
        return Some(last.0);
    }
    let views: Vec<_> = WATCHED.iter().filter_map(|&scope| View::new(recording, scope)).collect();
    let started_ns = recording.target.started_ns;
    let unlikeness = |instant: &Instant| -> u32 {
        let before = instant.at_ns < started_ns && at_ns >= started_ns;
        let of_plane = |view: &View<'_>| unlike(view.height(at_ns), view.height(instant.at_ns), before);
        views.iter().map(of_plane).sum()
    };
    let rank =
        |instant: &Instant| (unlikeness(instant), !follows(instant, at_ns), instant.at_ns.abs_diff(at_ns));
    read_at.into_iter().min_by_key(|(_, instant)| rank(instant)).map(|(index, _)| index)
}

/// The same for what only ever grows: of the nearest in time there is most of it, whatever was held then.
pub fn nearest_in_time(recording: &Recording, at_ns: u64, read: impl Fn(usize) -> bool) -> Option<usize> {
    let instants = recording.provenance.instants.iter().enumerate().filter(|(index, _)| read(*index));
    instants.min_by_key(|(_, instant)| instant.at_ns.abs_diff(at_ns)).map(|(index, _)| index)
}

/// The instant that stacks, files and calls of `at_ns` are told of.
pub fn instant(recording: &Recording, at_ns: u64) -> Option<&Instant> {
    recording.provenance.instants.get(nearest(recording, at_ns, |index| was_read(recording, index))?)
}

/// Whether anything of what is held was read at an instant.
pub fn was_read(recording: &Recording, index: usize) -> bool {
    let provenance = &recording.provenance;
    provenance.cuda_allocs.iter().any(|row| row.live.get(index).is_some())
        || provenance.driver_allocs.iter().any(|row| row.live.get(index).is_some())
        || provenance.page_allocs.iter().any(|row| row.live.get(index).is_some())
        || provenance.files.iter().any(|row| row.live.get(index).is_some())
}

/// What of the readings [`nearest`] looks at.
pub fn heights(recording: &Recording) -> Samples {
    let is_root = |id: u64| recording.target.cgroups.iter().any(|cgroup| cgroup.root && cgroup.id == id);
    let roots = recording.samples.cgroups.iter().filter(|cgroup| is_root(cgroup.id));
    let cgroups = roots.filter_map(|cgroup| {
        let series = ledger::heights(Plane::of_cgroup(&cgroup.series)?, &cgroup.series);
        Some(CgroupSeries { id: cgroup.id, path: cgroup.path.clone(), series })
    });
    Samples {
        system: ledger::heights(Plane::System, &recording.samples.system),
        cgroups: cgroups.collect(),
        ..Samples::default()
    }
}

fn follows(instant: &Instant, at_ns: u64) -> bool {
    (instant.why.ends_with("-peak") || instant.why == QUERY)
        && (at_ns..=at_ns.saturating_add(FOLLOW_NS)).contains(&instant.at_ns)
}

/// How much is held against it that a plane stood the same at two times: 0 if it did, 1 if nobody knows, 2 if it did
/// not. `before`: one of them is before the target began, and a small target on a large machine does not show.
fn unlike(one: Option<u64>, other: Option<u64>, before: bool) -> u32 {
    match one.zip(other) {
        Some((one, other)) if one.abs_diff(other) > margin(one.max(other)) => 2,
        Some(_) if !before => 0,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recording::testing::{MIB, SECOND, START, empty, push};
    use crate::recording::{Series, TargetCgroup};

    const MILLISECOND: u64 = SECOND / 1000;

    /// Details read so many milliseconds after the start, and the machine's used memory by seconds.
    fn read_at(instants: &[(i64, &str)], used_mib: &[u64]) -> Recording {
        let mut recording = empty();
        let instant = |&(ms, why): &(i64, &str)| Instant {
            at_ns: START.saturating_add_signed(ms * MILLISECOND as i64),
            why: why.to_owned(),
        };
        recording.provenance.instants = instants.iter().map(instant).collect();
        for (second, used) in (0..).zip(used_mib) {
            let columns = [("MemTotal", 131_072), ("MemFree", 131_072 - used)];
            let columns = columns.map(|(name, mib)| (format!("meminfo.{name}"), mib * MIB));
            push(&mut recording.samples.system, START + second * SECOND, columns);
        }
        recording
    }

    /// Adds the target's cgroup, charged with so many MiB by seconds.
    fn charged(mut recording: Recording, mib: &[u64]) -> Recording {
        let created_ns = Some(START);
        recording.target.cgroups.push(TargetCgroup { id: 7, root: true, created_ns, ..Default::default() });
        let mut series = Series::default();
        for (second, mib) in (0..).zip(mib) {
            push(&mut series, START + second * SECOND, [("memory.current".to_owned(), mib * MIB)]);
        }
        recording.samples.cgroups.push(CgroupSeries { id: 7, path: "/target".into(), series });
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
        assert_eq!(nearest_in_time(&recording, START + 497 * MILLISECOND, |_| true), Some(0));
    }

    /// The highest of nearly equal readings may come late in the time that memory is held, when the details of the peak
    /// have long been read.
    #[test]
    fn details_of_a_time_at_which_as_much_was_held_are_preferred_to_nearer_ones() {
        let recording = read_at(&[(1100, "system-peak"), (5300, "end")], &[500, 900, 900, 900, 901, 500]);
        assert_eq!(chosen(&recording, 4000), Some(0), "at the end it has been given back");
        assert_eq!(chosen(&recording, 5100), Some(1));
        let other = read_at(&[(1100, "system-peak"), (4600, "cgroup-peak")], &[500, 900, 900, 900, 901, 500]);
        assert_eq!(chosen(&other, 4400), Some(0), "another plane's peak, when it had been given back");
        let grown = read_at(&[(1100, "system-peak"), (5300, "end")], &[500, 600, 700, 800, 901, 500]);
        assert_eq!(chosen(&grown, 4000), Some(1), "neither is alike, so the nearer");
        assert_eq!(nearest_in_time(&recording, START + 4000 * MILLISECOND, |_| true), Some(1));
    }

    #[test]
    fn a_plane_that_stood_the_same_counts_where_others_moved_the_machine() {
        let moved = read_at(&[(1100, "cgroup-peak"), (5300, "end")], &[500, 900, 1200, 1500, 1801, 1300]);
        assert_eq!(chosen(&moved, 4000), Some(1));
        let moved = charged(moved, &[0, 300, 300, 300, 300, 0]);
        assert_eq!(chosen(&moved, 4000), Some(0));
    }

    #[test]
    fn what_was_read_before_the_target_began_tells_little_of_it() {
        let large = [100_000, 100_001, 100_001, 100_002, 100_000, 100_001];
        let recording = read_at(&[(-100, "system-peak"), (5300, "end")], &large);
        assert_eq!(chosen(&recording, 1000), Some(1), "20 MiB more do not show in 100 GiB");
        assert_eq!(nearest(&recording, START - SECOND, |_| true), Some(0));
        let recording =
            charged(read_at(&[(-100, "system-peak"), (5300, "end")], &large), &[0, 20, 20, 20, 20, 5]);
        assert_eq!(chosen(&recording, 0), Some(0));
    }

    #[test]
    fn after_the_last_instant_nothing_else_is_known() {
        let mut recording =
            charged(read_at(&[(-100, "system-peak"), (4300, "end")], &[500; 5]), &[0, 9, 9, 9, 5]);
        recording.target.cgroups[0].removed_ns = Some(START + 4400 * MILLISECOND);
        assert_eq!(
            chosen(&recording, 4500),
            Some(1),
            "its cgroup holds nothing any more, as before it began"
        );
    }

    #[test]
    fn what_is_kept_of_readings_chooses_the_same() {
        let recording = read_at(&[(1100, "system-peak"), (5300, "end")], &[500, 900, 900, 900, 901, 500]);
        let mut recording = charged(recording, &[0, 400, 400, 400, 400, 0]);
        recording.samples.system.columns.insert("meminfo.AnonPages".into(), vec![Some(MIB); 6].into());
        let kept = Recording { samples: heights(&recording), ..recording.clone() };
        assert_eq!(kept.samples.system.columns.len(), 2);
        for ms in (0..6000).step_by(100) {
            assert_eq!(chosen(&kept, ms), chosen(&recording, ms), "{ms} ms");
        }
    }

    #[test]
    fn levels_are_alike_within_a_margin() {
        let (small, large) = (64 << 20, 100 << 30);
        for (level, margin) in [(small, 256 << 10), (large, 200 << 20)] {
            assert_eq!(unlike(Some(level), Some(level - margin), false), 0, "{level}");
            assert_eq!(unlike(Some(level), Some(level - margin - 1), false), 2, "{level}");
        }
        assert_eq!(unlike(Some(small), None, false), 1);
        assert_eq!(unlike(Some(small), Some(small), true), 1);
        assert_eq!(unlike(Some(small), Some(0), true), 2);
    }
}
