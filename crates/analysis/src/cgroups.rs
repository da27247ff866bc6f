//! What each cgroup of the target is charged, with and without those below it.

use crate::signed::signed;
use std::collections::BTreeMap;

use serde::Serialize;

use crate::names::Names;
use spark_trace_recording::ledger::{self, Balance, Facts, Plane};
use spark_trace_recording::{CgroupSeries, Recording, Series, TargetCgroup};

/// How many cgroups below one are removed and still charged (cgroup v2).
const DYING: &str = "cgroup.nr_dying_descendants";

/// One cgroup at one instant. A cgroup's charge contains those of the cgroups below it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CgroupRow {
    pub id: u64,
    pub path: String,
    /// The path for people: a container's id by its first digits, with its name.
    #[serde(skip)]
    pub shown: String,
    /// Name of the container that it belongs to, where that is known.
    pub container: Option<String>,
    /// Charged, with all below.
    pub bytes: Option<i64>,
    /// Without the cgroups below that still exist: what its own processes and removed cgroups below have left.
    pub own: Option<i64>,
    /// Level of each source that has any, with all below.
    pub sources: BTreeMap<&'static str, u64>,
    /// Cgroups below that are removed and still charged; absent where the kernel does not say.
    pub dying: Option<u64>,
}

/// A cgroup with its balance at one instant.
struct At<'a> {
    cgroup: &'a TargetCgroup,
    balance: Balance,
    dying: Option<u64>,
}

/// Cgroups as they were read nearest to `at_ns`; the one with the largest charge of its own first.
pub fn rows(recording: &Recording, at_ns: u64) -> Vec<CgroupRow> {
    let names = Names::new(recording);
    let series: BTreeMap<u64, &CgroupSeries> =
        recording.samples.cgroups.iter().map(|samples| (samples.id, samples)).collect();
    let exists = |cgroup: &&TargetCgroup| {
        cgroup.created_ns.is_none_or(|created| created <= at_ns)
            && cgroup.removed_ns.is_none_or(|removed| removed >= at_ns)
    };
    let facts = Facts { vmap_stack: recording.host.vmap_stack, ..Facts::default() };
    let found = recording.target.cgroups.iter().filter(exists).filter_map(|cgroup| {
        let series = &series.get(&cgroup.id)?.series;
        let index = ledger::nearest(series, at_ns)?;
        let balance = ledger::balance(Plane::of_cgroup(series)?, facts, series, index)?;
        Some(At { cgroup, balance, dying: column(series, DYING, index) })
    });
    let found: Vec<At<'_>> = found.collect();
    let mut below: BTreeMap<&str, i64> = BTreeMap::new();
    for at in &found {
        if let Some((parent, _)) = at.cgroup.path.rsplit_once('/') {
            let sum = below.entry(parent).or_default();
            *sum = sum.saturating_add(bytes(at.balance.expected).unwrap_or(0));
        }
    }
    let mut rows: Vec<_> = found
        .iter()
        .map(|at| {
            let charged = bytes(at.balance.expected);
            let below = below.get(at.cgroup.path.as_str()).copied().unwrap_or(0);
            let sources = at.balance.rows.iter();
            CgroupRow {
                id: at.cgroup.id,
                shown: names.shown_cgroup(&at.cgroup.path),
                container: at.cgroup.container.as_deref().and_then(|id| names.container_name(id)),
                path: at.cgroup.path.clone(),
                bytes: charged,
                own: charged.map(|charged| charged.saturating_sub(below)),
                sources: sources
                    .filter_map(|row| Some((row.source.slug, row.bytes.filter(|&bytes| bytes > 0)?)))
                    .collect(),
                dying: at.dying,
            }
        })
        .collect();
    rows.sort_by(|a, b| b.own.cmp(&a.own).then_with(|| a.path.cmp(&b.path)));
    rows
}

fn column(series: &Series, name: &str, index: usize) -> Option<u64> {
    series.columns.get(name)?.get(index)
}

fn bytes(level: Option<u64>) -> Option<i64> {
    level.map(signed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use spark_trace_testing as testing;
    use spark_trace_testing::{MIB, START, empty, series};

    #[test]
    fn a_parents_own_charge_is_what_its_children_leave() {
        let mut recording = empty();
        for (id, path, mib, dying) in
            [(1, "/a", 100, 2), (2, "/a/b", 60, 0), (3, "/a/b/c", 10, 0), (4, "/ab", 7, 0)]
        {
            recording.target.cgroups.push(TargetCgroup { id, path: path.into(), ..Default::default() });
            let mut samples = series(&[]);
            let columns = [("memory.current", mib * MIB), ("stat.anon", mib * MIB), (DYING, dying)];
            testing::push(&mut samples, START, columns.map(|(name, value)| (name.to_owned(), value)));
            recording.samples.cgroups.push(CgroupSeries { id, path: path.into(), series: samples });
        }
        let rows = rows(&recording, START);
        let sizes: Vec<_> = rows
            .iter()
            .map(|row| (row.path.as_str(), row.bytes.unwrap() >> 20, row.own.unwrap() >> 20, row.dying))
            .collect();
        assert_eq!(
            sizes,
            [
                ("/a/b", 60, 50, Some(0)),
                ("/a", 100, 40, Some(2)),
                ("/a/b/c", 10, 10, Some(0)),
                ("/ab", 7, 7, Some(0))
            ]
        );
        assert_eq!(rows[0].sources["anon"], 60 * MIB);
    }

    #[test]
    fn removed_ones_are_left_out() {
        let recording = testing::container();
        assert!(!rows(&recording, START + 5 * testing::SECOND).is_empty());
        assert!(rows(&empty(), START).is_empty());
    }
}
