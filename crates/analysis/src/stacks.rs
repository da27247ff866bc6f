//! Which kernel paths allocated the pages that are still in use.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::names::{self, Names};
use crate::nearest_instant;
use crate::view::Scope;
use crate::whose::Whose;
use spark_trace_recording::Mobility;
use spark_trace_recording::classify::classify;
use spark_trace_recording::classify::purpose::Purpose;
use spark_trace_recording::word::Word;
use spark_trace_recording::{PageAllocs, Recording};

/// Page allocations of one kernel stack since the trace began.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct StackRow {
    /// Whose tasks allocated them.
    pub whose: Whose,
    /// The source of these pages, by the frames.
    pub source: &'static str,
    pub label: String,
    /// Innermost first.
    pub frames: Vec<String>,
    /// The pages were allocated to be charged to a cgroup.
    pub charged: bool,
    /// They were not, but a cgroup may be charged for objects in them: which, the page does not say.
    pub charged_by_object: bool,
    pub mobility: Word<Mobility>,
    /// Cgroups of the allocating tasks.
    pub cgroups: Vec<String>,
    /// Bytes allocated since the trace began and in use at the instant.
    pub bytes: u64,
    pub allocs: u64,
    pub frees: u64,
    pub bytes_allocated: u64,
    pub bytes_freed: u64,
}

/// Stands for every cgroup that is not the target's: the recorder keeps those as one.
pub const OTHERS: &str = "(not the target's)";

/// What makes a row: whose it is, frames, whether charged, and mobility.
type Key<'a> = (Whose, Vec<String>, bool, &'a Word<Mobility>);

/// Stacks with their bytes at the instant that fits `at_ns` best: the target's and those of the NVIDIA
/// driver first, and of them the most first. On the cgroup plane only pages charged to the target.
pub fn rows(recording: &Recording, scope: Scope, at_ns: u64) -> Vec<StackRow> {
    let names = Names::new(recording);
    let instant = nearest_instant::index(recording, at_ns);

    let mut groups: BTreeMap<Key<'_>, (StackRow, BTreeSet<String>)> = BTreeMap::new();
    for allocs in recording.provenance.page_allocs.iter().filter(|allocs| is_in(scope, &names, allocs)) {
        let symbols = names.frames(allocs.stack);
        let frames: Vec<_> = symbols.iter().map(|symbol| names::frame(symbol)).collect();
        let whose = names.whose_cgroup(allocs.cgroup);
        let key = (whose, frames, allocs.charged, &allocs.mobility);
        let (row, cgroups) = groups.entry(key).or_insert_with_key(|(whose, frames, charged, mobility)| {
            let verdict = classify(&symbols, mobility.known());
            let row = StackRow {
                whose: *whose,
                source: verdict.source,
                label: verdict.label,
                frames: frames.clone(),
                charged: *charged,
                charged_by_object: verdict.charged_by_object && !charged,
                mobility: (*mobility).clone(),
                ..StackRow::default()
            };
            (row, BTreeSet::new())
        });
        row.add(allocs, instant);
        // The recorder keeps all tasks outside the target as one.
        cgroups.insert(if allocs.cgroup == 0 { OTHERS.into() } else { names.cgroup(allocs.cgroup) });
    }

    let mut rows: Vec<_> = groups
        .into_values()
        .map(|(row, cgroups)| StackRow { cgroups: cgroups.into_iter().collect(), ..row })
        .collect();
    rows.sort_by_key(|row| (!row.is_listed(), std::cmp::Reverse(row.bytes)));
    rows
}

/// What stacks hold for one purpose, by what it is called, the most first; of all tasks, or of the target's alone.
pub fn for_purpose(
    recording: &Recording,
    purpose: Purpose,
    target_only: bool,
    at_ns: u64,
) -> Vec<(String, u64)> {
    let names = Names::new(recording);
    let Some(instant) = nearest_instant::index(recording, at_ns) else { return vec![] };
    let mut sums: BTreeMap<String, u64> = BTreeMap::new();
    for allocs in &recording.provenance.page_allocs {
        if target_only && !names.is_target(allocs.cgroup) {
            continue;
        }
        let verdict = classify(&names.frames(allocs.stack), allocs.mobility.known());
        if verdict.purpose == Some(purpose) {
            let sum = sums.entry(verdict.label).or_default();
            *sum = sum.saturating_add(allocs.live.get(instant).unwrap_or(0));
        }
    }
    let mut sums: Vec<_> = sums.into_iter().filter(|(_, bytes)| *bytes > 0).collect();
    sums.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
    sums
}

/// What stacks hold of one source, by whether the allocation is charged to a cgroup.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Observed {
    pub charged: u64,
    pub uncharged: u64,
    /// In pages of which objects are charged one by one.
    pub by_object: u64,
}

impl Observed {
    pub const fn bytes(self) -> u64 {
        self.charged.saturating_add(self.uncharged).saturating_add(self.by_object)
    }
}

/// Bytes that `rows` hold of each source.
pub fn by_source(rows: &[StackRow]) -> BTreeMap<&'static str, Observed> {
    let mut sums: BTreeMap<&'static str, Observed> = BTreeMap::new();
    for row in rows {
        let Observed { charged, uncharged, by_object } = sums.entry(row.source).or_default();
        let sum = match (row.charged, row.charged_by_object) {
            (true, _) => charged,
            (false, true) => by_object,
            (false, false) => uncharged,
        };
        *sum = sum.saturating_add(row.bytes);
    }
    sums
}

fn is_in(scope: Scope, names: &Names<'_>, allocs: &PageAllocs) -> bool {
    match scope {
        Scope::System => true,
        Scope::Cgroup => allocs.charged && names.is_target(allocs.cgroup),
        // Pages are the system's memory.
        Scope::Device => false,
    }
}

/// What the sources of the NVIDIA driver begin with.
const DRIVER: &str = "nvidia-";

impl StackRow {
    /// It is the target's, or may be: the driver takes pages for it in threads of its own, too.
    pub fn is_listed(&self) -> bool {
        self.whose == Whose::Target || self.source.starts_with(DRIVER)
    }

    fn add(&mut self, allocs: &PageAllocs, instant: Option<usize>) {
        let live = instant.and_then(|index| allocs.live.get(index));
        for (sum, value) in [
            (&mut self.bytes, live.unwrap_or(0)),
            (&mut self.allocs, allocs.allocs),
            (&mut self.frees, allocs.frees),
            (&mut self.bytes_allocated, allocs.bytes_allocated),
            (&mut self.bytes_freed, allocs.bytes_freed),
        ] {
            *sum = sum.saturating_add(value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use spark_trace_testing as testing;
    use spark_trace_testing::{MIB, SECOND, START};

    #[test]
    fn stacks_are_classified_and_sorted() {
        let recording = testing::container();
        let rows = rows(&recording, Scope::System, START + 5 * SECOND);
        let summary: Vec<_> = rows.iter().map(|row| (row.source, row.bytes / MIB, row.charged)).collect();
        assert_eq!(summary, [("nvidia-sysmem", 64, false), ("slab-unreclaimable", 8, true)]);
        assert_eq!((rows[0].whose, rows[1].whose), (Whose::Others, Whose::Target));
        assert_eq!(rows[0].cgroups, ["(not the target's)"]);
        assert_eq!(
            by_source(&rows)["nvidia-sysmem"],
            Observed { uncharged: 64 * MIB, ..Observed::default() }
        );
        assert_eq!(by_source(&rows)["slab-unreclaimable"].bytes(), 8 * MIB);
    }

    #[test]
    fn the_cgroup_plane_has_only_the_targets_charged_pages() {
        let recording = testing::container();
        let rows = rows(&recording, Scope::Cgroup, START + 10 * SECOND);
        assert_eq!(rows.len(), 1);
        assert_eq!(rows[0].bytes, 4 * MIB);
    }

    #[test]
    fn whether_objects_in_slab_pages_are_charged_is_not_known() {
        let mut recording = testing::container();
        let frames = ["allocate_slab", "kmem_cache_alloc_lru_noprof", "__d_alloc"];
        testing::page_allocs(&mut recording, 20, 30, &frames);
        let allocs = recording.provenance.page_allocs.last_mut().unwrap();
        (allocs.charged, allocs.mobility) = (false, "reclaimable".into());
        let rows = rows(&recording, Scope::System, START + 5 * SECOND);
        let names = rows.iter().find(|row| row.source == "slab-reclaimable").unwrap();
        assert!(!names.charged && names.charged_by_object, "{names:?}");
        let observed = by_source(&rows)["slab-reclaimable"];
        assert_eq!(observed, Observed { by_object: 30 * MIB, ..Observed::default() });
        assert_eq!(observed.bytes(), 30 * MIB);
        let of = |target_only| for_purpose(&recording, Purpose::Names, target_only, START + 5 * SECOND);
        assert_eq!(of(true), [("dentries (names of files)".to_owned(), 30 * MIB)]);
        assert_eq!(for_purpose(&recording, Purpose::BpfMaps, false, START + 5 * SECOND), []);
    }

    #[test]
    fn the_same_stack_of_several_cgroups_is_one_row_for_the_target_and_one_for_others() {
        let mut recording = testing::container();
        for cgroup in [1, 2, 21] {
            let mut other = recording.provenance.page_allocs[0].clone();
            other.cgroup = cgroup;
            recording.provenance.page_allocs.push(other);
        }
        let below = spark_trace_recording::TargetCgroup { id: 21, ..Default::default() };
        recording.target.cgroups.push(below);
        let rows = rows(&recording, Scope::System, START + 5 * SECOND);
        let slab = rows.iter().filter(|row| row.source == "slab-unreclaimable");
        let slab: Vec<_> = slab.map(|row| (row.whose, row.bytes / MIB, row.cgroups.len())).collect();
        assert_eq!(slab, [(Whose::Target, 16, 2), (Whose::Others, 16, 2)]);
    }
}
