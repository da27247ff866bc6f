//! The memory limits of the target's cgroups, and how often they were reached.

use serde::Serialize;

use crate::view::{Root, Scope, View};
use spark_trace_recording::{Recording, Series};

/// The limit of one root cgroup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Limit {
    /// Path of the cgroup.
    pub cgroup: String,
    /// The lowest limit that was in force at the last reading.
    pub bytes: u64,
    /// The kernel's file that says so.
    pub file: &'static str,
    /// How often a charge met the limit during the trace, and the kernel reclaimed pages of the cgroup or refused.
    /// Absent where the limit is that of a cgroup above, which counts for itself.
    pub reached: Option<u64>,
    /// The kernel's own peak, when the cgroup was removed, was the limit: it was reached, whatever the last reading of
    /// the counter said.
    pub reached_by_its_end: bool,
    /// Processes that the kernel killed during the trace because there was no more to reclaim.
    pub oom_kills: Option<u64>,
    /// Bytes of files that were read again during the trace, some time after the kernel had reclaimed them.
    pub read_again: Option<u64>,
}

/// A file with a limit, and the counter of how often it was reached.
struct File {
    name: &'static str,
    limit: &'static str,
    reached: Option<&'static str>,
}

/// mm/memcontrol.c memory_max_show, memory_high_show, __memory_events_show; mm/memcontrol-v1.c mem_cgroup_read_u64
/// (RES_FAILCNT) and memcg1_stat_format, which has the lowest limit of the cgroup and those above it.
const FILES: &[File] = &[
    File { name: "memory.max", limit: "memory.max", reached: Some("events.max") },
    File { name: "memory.high", limit: "memory.high", reached: Some("events.high") },
    File { name: "memory.limit_in_bytes", limit: "memory.limit_in_bytes", reached: Some("memory.failcnt") },
    File {
        name: "memory.stat (hierarchical_memory_limit)",
        limit: "stat.hierarchical_memory_limit",
        reached: None,
    },
];

const OOM_KILLS: &str = "events.oom_kill";

/// Pages that came back after they had been reclaimed (mm/workingset.c workingset_refault), with those of cgroups
/// below. Under v1 the counter without `total_` is of the cgroup alone.
const REFAULTS: [&str; 2] = ["stat.total_workingset_refault_file", "stat.workingset_refault_file"];

/// The same counter of a cgroup with those below it, whichever version it is.
pub fn refaults(series: &Series) -> Option<&'static str> {
    REFAULTS.into_iter().find(|column| series.columns.contains_key(*column))
}

/// Limits that are below the machine's memory, of each root cgroup the lowest.
pub fn rows(recording: &Recording) -> Vec<Limit> {
    let Some(view) = View::new(recording, Scope::Cgroup) else { return vec![] };
    view.roots.iter().filter_map(|root| of(root, recording)).collect()
}

fn of(root: &Root<'_>, recording: &Recording) -> Option<Limit> {
    let machine = recording.host.memory_total;
    let known = FILES.iter().filter_map(|file| Some((file, last(root.series, file.limit)?)));
    // The first of equals: it is the cgroup's own.
    let (file, bytes) = known.filter(|(_, bytes)| *bytes < machine).min_by_key(|(_, bytes)| *bytes)?;
    Some(Limit {
        cgroup: root.cgroup?.path.clone(),
        bytes,
        file: file.name,
        reached: file.reached.and_then(|column| counted(root, column)),
        reached_by_its_end: root.cgroup?.peak_at_removal.is_some_and(|peak| peak >= bytes),
        oom_kills: oom_kills(root),
        read_again: refaults(root.series)
            .and_then(|column| counted(root, column))
            .map(|pages| pages.saturating_mul(recording.host.page_size)),
    })
}

/// Also those after the last reading, where the kernel reported them as it removed the cgroup.
fn oom_kills(root: &Root<'_>) -> Option<u64> {
    let removed = root.cgroup.and_then(|cgroup| cgroup.oom_kills_at_removal);
    let before = match root.created_ns() {
        Some(_) => 0,
        None => root.series.columns.get(OOM_KILLS).and_then(|column| column.known().next()).unwrap_or(0),
    };
    counted(root, OOM_KILLS).max(removed.map(|kills| kills.saturating_sub(before)))
}

fn last(series: &Series, column: &str) -> Option<u64> {
    series.columns.get(column)?.known().next_back()
}

/// How far a counter has come during the trace: a cgroup that was created meanwhile began at zero.
fn counted(root: &Root<'_>, column: &str) -> Option<u64> {
    let last = last(root.series, column)?;
    let first = root.series.columns.get(column)?.known().next()?;
    Some(if root.created_ns().is_some() { last } else { last.saturating_sub(first) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use spark_trace_recording::CgroupSeries;
    use spark_trace_testing as testing;
    use spark_trace_testing::{MIB, SECOND, START, series};

    const NONE: u64 = 0x7fff_ffff_ffff_f000;

    fn limited(created: bool, first: &[(&str, u64)], last: &[(&str, u64)]) -> Vec<Limit> {
        let mut recording = testing::container();
        let root = &mut recording.target.cgroups[0];
        root.created_ns = created.then_some(START);
        let (id, path) = (root.id, root.path.clone());
        let series = series(&[(START, first), (START + SECOND, last)]);
        recording.samples.cgroups = vec![CgroupSeries { id, path, series }];
        rows(&recording)
    }

    #[test]
    fn the_lowest_limit_counts_with_its_own_counter() {
        let usage = ("memory.current", MIB);
        let first =
            [usage, ("memory.max", 300 * MIB), ("events.max", 4), ("events.high", 1), ("events.oom_kill", 0)];
        let last = [
            usage,
            ("memory.max", 200 * MIB),
            ("memory.high", 150 * MIB),
            ("events.max", 4),
            ("events.high", 13),
            ("events.oom_kill", 2),
            ("stat.workingset_refault_file", 512),
        ];
        let limit = &limited(true, &first, &last)[0];
        assert_eq!(limit.read_again, Some(2 * MIB));
        let limit = &limited(false, &first, &last)[0];
        assert_eq!((limit.bytes, limit.file, limit.reached), (150 * MIB, "memory.high", Some(12)));
        assert_eq!(limit.oom_kills, Some(2));
        // One that was created while tracing began at zero.
        assert_eq!(limited(true, &first, &last)[0].reached, Some(13));
    }

    #[test]
    fn a_limit_of_a_cgroup_above_has_no_counter_here() {
        let usage = ("memory.usage_in_bytes", MIB);
        let above = [
            usage,
            ("stat.hierarchical_memory_limit", 100 * MIB),
            ("memory.failcnt", 0),
            ("events.oom_kill", 0),
        ];
        let limit = &limited(true, &above, &above)[0];
        assert_eq!((limit.bytes, limit.reached, limit.oom_kills), (100 * MIB, None, Some(0)));
        let own = [
            usage,
            ("stat.hierarchical_memory_limit", 100 * MIB),
            ("memory.limit_in_bytes", 100 * MIB),
            ("memory.failcnt", 7),
            ("stat.workingset_refault_file", 1),
            ("stat.total_workingset_refault_file", 256),
        ];
        let limit = &limited(true, &own, &own)[0];
        assert_eq!(limit.read_again, Some(MIB), "with the cgroups below");
        assert_eq!((limit.file, limit.reached, limit.oom_kills), ("memory.limit_in_bytes", Some(7), None));
    }

    #[test]
    fn no_limit_is_no_row() {
        let none = [("memory.usage_in_bytes", MIB), ("stat.hierarchical_memory_limit", NONE)];
        assert_eq!(limited(true, &none, &none), []);
        // One that no program on this machine can reach.
        let large = [("memory.current", MIB), ("memory.max", testing::MEMORY_TOTAL)];
        assert_eq!(limited(true, &large, &large), []);
    }
}
