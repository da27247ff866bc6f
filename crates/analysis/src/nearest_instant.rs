//! Which details fit a time: stacks, files and calls are read at few instants only, levels at every sample.

use crate::view::{Scope, View};
use spark_trace_recording::ledger;
use spark_trace_recording::ledger::heights::{DriverHeights, driver_heights, margin};
use spark_trace_recording::{Instant, InstantKind, Recording};

/// Details of a peak, or of an answer to a query, are read once that has been seen, as a rule no later than this.
pub const FOLLOW_NS: u64 = 500_000_000;

/// Planes whose peaks details are read at.
const WATCHED: [Scope; 2] = [Scope::System, Scope::Cgroup];

/// The instant that stacks, files and calls of `at_ns` are shown for.
pub fn instant(recording: &Recording, at_ns: u64) -> Option<&Instant> {
    recording.provenance.instants.get(index(recording, at_ns)?)
}

/// Its index. All of what is in use is read at every instant: what has no value in a row then had nothing yet.
pub fn index(recording: &Recording, at_ns: u64) -> Option<usize> {
    let provenance = &recording.provenance;
    let read = |index: usize| {
        provenance.page_allocs.iter().any(|row| row.live.get(index).is_some())
            || provenance.files.iter().any(|row| row.live.get(index).is_some())
            || provenance.driver_allocs.iter().any(|row| row.live.get(index).is_some())
            || provenance.cuda_allocs.iter().any(|row| row.live.get(index).is_some())
    };
    nearest(recording, at_ns, read)
}

/// Among the instants at which something was read: the more planes, and the driver, stood as high as then, the better;
/// of equals the peak or query that was read soon after it, else the one at which they stood most nearly so, else the
/// nearest. Once the target has ended its end is all there is.
fn nearest(recording: &Recording, at_ns: u64, read: impl Fn(usize) -> bool) -> Option<usize> {
    let read_at = || recording.provenance.instants.iter().enumerate().filter(|(index, _)| read(*index));
    let ended = read_at().find(|(_, instant)| instant.why == InstantKind::End && instant.at_ns <= at_ns);
    if let Some((index, _)) = ended {
        return Some(index);
    }
    let views = WATCHED.iter().filter_map(|&scope| View::new(recording, scope));
    let views: Vec<_> = views.map(|view| (view.height(at_ns), view)).collect();
    let system = &recording.samples.system;
    let heights_at = |index: usize| driver_heights(system, index);
    let driver_then = ledger::nearest(system, at_ns).map_or(DriverHeights::default(), heights_at);
    let began_ns = began_ns(recording);
    let rank = |instant: &Instant| {
        let far = at_ns.saturating_sub(instant.at_ns) > FOLLOW_NS;
        let before = far && began_ns.is_some_and(|began_ns| (instant.at_ns..at_ns).contains(&began_ns));
        let driver = driver_then.into_iter().zip(heights_at(ledger::last_by(system, instant.at_ns)));
        let heights = views.iter().map(|(then, view)| (*then, view.height_by(instant.at_ns)));
        let planes = heights
            .chain(driver.filter(|known| *known != (None, None)))
            .map(|(then, read)| unlike(then, read, before));
        let (differ, bytes) =
            planes.fold((0, 0_u64), |sum, plane| (sum.0 + plane.0, sum.1.saturating_add(plane.1)));
        (differ, !follows(instant, at_ns), bytes, instant.at_ns.abs_diff(at_ns))
    };
    read_at().min_by_key(|(_, instant)| rank(instant)).map(|(index, _)| index)
}

/// Index of the instant that charges until `at_ns` are shown for. They only grow: how much is in use says nothing of them.
pub fn index_of_charges(recording: &Recording, at_ns: u64) -> Option<usize> {
    let charges = &recording.provenance.charge_stacks;
    let instants = recording.provenance.instants.iter().enumerate();
    let read = instants.filter(|(index, _)| charges.iter().any(|row| row.charged.get(*index).is_some()));
    read.min_by_key(|(_, instant)| (!follows(instant, at_ns), instant.at_ns.abs_diff(at_ns)))
        .map(|(index, _)| index)
}

/// When the target began, if that was while tracing.
fn began_ns(recording: &Recording) -> Option<u64> {
    let target = &recording.target;
    let created = target.cgroups.iter().any(|cgroup| cgroup.root && cgroup.created_ns.is_some());
    (created || target.is_command()).then_some(target.started_ns)
}

fn follows(instant: &Instant, at_ns: u64) -> bool {
    instant.why.known().is_some_and(|kind| kind.is_peak() || kind == InstantKind::Query)
        && (at_ns..=at_ns.saturating_add(FOLLOW_NS)).contains(&instant.at_ns)
}

/// Whether a plane stood differently at two times (0 no, 1 unknown, 2 yes), and by how many bytes. `before`: one of them
/// is well before the target began, and then equal heights say nothing: a small target on a large machine does not show.
fn unlike(one: Option<u64>, other: Option<u64>, before: bool) -> (u32, u64) {
    match one.zip(other) {
        Some((one, other)) if one.abs_diff(other) > margin(one.max(other)) => (2, one.abs_diff(other)),
        Some(_) if !before => (0, 0),
        _ => (1, 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver_allocs;
    use spark_trace_recording::{
        CgroupSeries, ChargeStack, DriverAllocs, PageAllocs, Series, Target, TargetCgroup,
    };
    use spark_trace_testing::{MIB, SECOND, START, empty, push};

    const MILLISECOND: u64 = SECOND / 1000;

    /// Details read so many milliseconds after the start, and the machine's used memory by seconds.
    fn read_at(instants: &[(i64, &str)], used_mib: &[u64]) -> Recording {
        let mut recording = empty();
        let instant = |&(ms, why): &(i64, &str)| Instant {
            at_ns: START.saturating_add_signed(ms * MILLISECOND as i64),
            why: why.into(),
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
    }

    /// The highest of nearly equal readings may come late in the time that memory is in use, when the details of the peak
    /// have long been read.
    #[test]
    fn details_of_a_time_at_which_as_much_was_in_use_are_preferred_to_nearer_ones() {
        let recording = read_at(&[(1100, "system-peak"), (5300, "end")], &[500, 900, 900, 900, 901, 500]);
        assert_eq!(chosen(&recording, 4000), Some(0), "at the end it has been given back");
        assert_eq!(chosen(&recording, 5100), Some(1));
        let other = read_at(&[(1100, "system-peak"), (5000, "cgroup-peak")], &[500, 900, 900, 900, 901, 500]);
        assert_eq!(chosen(&other, 4500), Some(0), "another plane's peak, when it had been given back");
        let grown = read_at(&[(1100, "system-peak"), (5300, "end")], &[500, 600, 700, 800, 901, 500]);
        assert_eq!(chosen(&grown, 4000), Some(0), "neither is alike, and then more was held than at the end");
    }

    #[test]
    fn a_plane_that_stood_the_same_counts_where_others_moved_the_machine() {
        let moved = read_at(&[(1100, "cgroup-peak"), (5300, "end")], &[500, 900, 1200, 1500, 1801, 1300]);
        assert_eq!(chosen(&moved, 4000), Some(1));
        let moved = charged(moved, &[0, 300, 300, 300, 300, 0]);
        assert_eq!(chosen(&moved, 4000), Some(0));
    }

    /// On a slow machine planes are read long after each other, and details long after the planes.
    #[test]
    fn details_are_of_the_readings_before_them() {
        let mut slow =
            charged(read_at(&[(1400, "cgroup-peak"), (2900, "system-peak")], &[500, 700, 900, 500]), &[]);
        let cgroup = &mut slow.samples.cgroups[0].series;
        for ms in [300, 1300, 2300, 3300] {
            push(cgroup, START + ms * MILLISECOND, [("memory.current".to_owned(), 20 * MIB)]);
        }
        assert_eq!(chosen(&slow, 2000), Some(1), "the next reading is nearer to it, but came later");
    }

    #[test]
    fn what_the_driver_takes_from_page_cache_shows_in_no_plane() {
        let mut recording = read_at(&[(1100, "driver-peak"), (5300, "end")], &[9000; 6]);
        let in_use = [0, 128, 128, 128, 128, 0].map(|mib| Some(mib * MIB));
        recording.samples.system.columns.insert("driver.nvidia_sysmem".into(), in_use.into());
        assert_eq!(chosen(&recording, 4000), Some(0));
        assert_eq!(chosen(&recording, 5200), Some(1));

        // Nor does what it pins.
        let mut recording =
            read_at(&[(1100, "driver-peak"), (4100, "cgroup-peak"), (5300, "end")], &[9000; 6]);
        let mut chosen_with = |column: &str, mib: [u64; 6]| {
            let values = mib.map(|mib| Some(mib * MIB)).into();
            recording.samples.system.columns.insert(column.to_owned(), values);
            chosen(&recording, 3300)
        };
        assert_eq!(chosen_with("driver.nvidia_sysmem", [0, 128, 128, 128, 128, 0]), Some(1));
        assert_eq!(chosen_with("driver.nvidia_pinned", [0, 32, 32, 32, 0, 0]), Some(0));
    }

    #[test]
    fn readings_before_the_target_began_show_little_of_it() {
        let large = [100_000, 100_001, 100_001, 100_002, 100_000, 100_001];
        let recording = read_at(&[(-100, "system-peak"), (5300, "end")], &large);
        assert_eq!(chosen(&recording, 1000), Some(1), "20 MiB more do not show in 100 GiB");
        assert_eq!(chosen(&recording, 100), Some(0), "it had hardly begun");
        assert_eq!(nearest(&recording, START - SECOND, |_| true), Some(0));
        let attached =
            Recording { target: Target { kind: "pid".into(), ..recording.target.clone() }, ..recording };
        assert_eq!(chosen(&attached, 1000), Some(0), "what it held was seeded then");
    }

    #[test]
    fn once_the_target_has_ended_its_end_is_all_there_is() {
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
    fn a_row_that_came_later_is_empty_before() {
        let mut recording = read_at(&[(1000, "cgroup-peak"), (3100, "system-peak"), (5000, "end")], &[]);
        let allocs = |live: [Option<u64>; 3]| PageAllocs { live: live.into(), ..Default::default() };
        recording.provenance.page_allocs = vec![allocs([Some(1); 3])];
        recording.provenance.driver_allocs =
            vec![DriverAllocs { live: [None, Some(128 * MIB), Some(0)].into(), ..Default::default() }];
        assert_eq!(index(&recording, START + 900 * MILLISECOND), Some(0));
        let live = |ms: u64| driver_allocs::rows(&recording, START + ms * MILLISECOND)[0].live;
        assert_eq!([live(900), live(3000), live(6000)], [0, 128 * MIB, 0]);
        assert_eq!(instant(&recording, START + 3000 * MILLISECOND).unwrap().why, InstantKind::SystemPeak);
    }

    #[test]
    fn charges_are_those_of_the_nearest_time_whatever_was_in_use() {
        let mut recording = read_at(&[(1100, "system-peak"), (5300, "end")], &[500, 900, 900, 900, 901, 500]);
        assert_eq!(index_of_charges(&recording, START + 4000 * MILLISECOND), None, "nobody counted");
        recording.provenance.charge_stacks =
            vec![ChargeStack { charged: [Some(1), Some(2)].into(), ..Default::default() }];
        assert_eq!(index_of_charges(&recording, START + 4000 * MILLISECOND), Some(1));
        assert_eq!(chosen(&recording, 4000), Some(0));
    }

    #[test]
    fn levels_are_alike_within_a_margin() {
        let (small, large) = (64 << 20, 100 << 30);
        for (level, margin) in [(small, 256 << 10), (large, 200 << 20)] {
            assert_eq!(unlike(Some(level), Some(level - margin), false), (0, 0), "{level}");
            assert_eq!(unlike(Some(level), Some(level - margin - 1), false), (2, margin + 1), "{level}");
        }
        assert_eq!(unlike(Some(small), None, false), (1, 0));
        assert_eq!(unlike(Some(small), Some(small), true), (1, 0));
        assert_eq!(unlike(Some(small), Some(0), true), (2, small));
    }
}
