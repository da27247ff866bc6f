//! Which kernel paths charged the target's cgroups, and whether what hooks count is what the kernel counts.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::names::{self, Names};
use crate::nearest_instant;
use spark_trace_recording::classify::{base_name, is_telling, source_at};
use spark_trace_recording::{Instant, Recording, Series, Symbol};

/// Frames that belong to charging itself, whoever caused it.
const CHARGING: &[&str] = &[
    "page_counter_",
    "try_charge",
    "charge_memcg",
    "__mem_cgroup_charge",
    "mem_cgroup_charge",
    "mem_cgroup_try_charge",
    "obj_cgroup_charge",
    "__memcg_kmem_charge_page",
    "__memcg_charge_slab",
    "__memcg_slab_post_alloc_hook",
    "memcg_slab_post_alloc_hook",
];

/// What a charge is for, by the innermost frame that a rule or the classification of page allocations knows.
const RULES: &[(&[&str], &str)] = &[
    (&["mem_cgroup_charge_skmem", "__sk_mem_raise_allocated", "sk_forced_mem_schedule"], "sock"),
    (&["mem_cgroup_charge_hugetlb", "mem_cgroup_hugetlb_try_charge", "alloc_hugetlb_folio"], "hugetlb"),
    (
        &[
            "__memcg_slab_post_alloc_hook",
            "memcg_slab_post_alloc_hook",
            "kmem_cache_alloc",
            "__kmem_cache_alloc",
            "__kmalloc",
            "kmalloc_trace",
            "__kvmalloc",
        ],
        "slab",
    ),
    (&["__filemap_add_folio", "filemap_add_folio"], "page-cache"),
    (
        &[
            "mem_cgroup_swapin_charge_folio",
            "do_swap_page",
            "do_cow_fault",
            "do_wp_page",
            "collapse_huge_page",
        ],
        "anon",
    ),
];

/// Pages charged through one kernel stack since the trace began.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct ChargeRow {
    /// What the charges were for: `anon`, `shmem`, `page-cache`, `slab`, `page-tables`, ...
    pub class: &'static str,
    /// Innermost first, without those of charging itself.
    pub frames: Vec<String>,
    pub cgroups: Vec<String>,
    /// Up to the instant.
    pub bytes_charged: u64,
    /// In the whole run.
    pub charges: u64,
}

/// What hooks on the page counters of the target's cgroups counted.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Charges {
    /// When stacks were read, to be shown for the report's time; absent where none were.
    pub instant: Option<Instant>,
    /// The most first.
    pub stacks: Vec<ChargeRow>,
    /// Of the target's root cgroups, in the whole run; absent where the whole machine is the target.
    pub bytes_charged: Option<u64>,
    pub bytes_uncharged: Option<u64>,
    pub agreement: Agreement,
}

/// What hooks make a cgroup's usage to be, against what the kernel says it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Agreement {
    /// Readings with both.
    pub readings: u64,
    /// Those of them that nothing was counted around: from the reading before to the one after.
    pub settled: u64,
    /// Settled readings in which the two differ.
    pub differing: u64,
    /// The kernel's value less that of hooks, where they differ most.
    pub largest_difference: i64,
    /// Times that a level was set anew because the kernel had skipped programs, and what that came to.
    pub reseeds: u64,
    pub corrected: i64,
}

/// Absent where no hook on page counters ran.
pub fn report(recording: &Recording, at_ns: u64) -> Option<Charges> {
    let levels = &recording.provenance.charge_levels;
    if levels.is_empty() && recording.provenance.charge_stacks.is_empty() {
        return None;
    }
    let roots = recording.target.cgroups.iter().filter(|cgroup| cgroup.root);
    let of_roots: Vec<_> =
        roots.filter_map(|root| levels.iter().find(|level| level.cgroup == root.id)).collect();
    let instant = nearest_instant::index_of_charges(recording, at_ns);
    Some(Charges {
        instant: instant.and_then(|index| recording.provenance.instants.get(index)).cloned(),
        stacks: rows(recording, at_ns),
        bytes_charged: of_roots.iter().map(|level| level.bytes_charged).reduce(u64::saturating_add),
        bytes_uncharged: of_roots.iter().map(|level| level.bytes_uncharged).reduce(u64::saturating_add),
        agreement: agreement(recording),
    })
}

/// A row with its cgroups, which may be very many.
struct Group {
    row: ChargeRow,
    cgroups: BTreeSet<String>,
}

/// Stacks with what they had charged until the instant nearest to `at_ns`, the most first.
pub fn rows(recording: &Recording, at_ns: u64) -> Vec<ChargeRow> {
    let names = Names::new(recording);
    let instant = nearest_instant::index_of_charges(recording, at_ns);
    let mut groups: BTreeMap<(&'static str, Vec<String>), Group> = BTreeMap::new();
    for charged in &recording.provenance.charge_stacks {
        let symbols = names.frames(charged.stack);
        let asking = symbols.iter().skip_while(|symbol| symbol.name.as_deref().is_some_and(is_charging));
        let frames: Vec<_> = asking.map(|symbol| names::frame(symbol)).collect();
        let class = class_of(&symbols);
        let Group { row, cgroups } = groups.entry((class, frames)).or_insert_with_key(|(class, frames)| {
            let row = ChargeRow { class, frames: frames.clone(), ..ChargeRow::default() };
            Group { row, cgroups: BTreeSet::new() }
        });
        let bytes = instant.and_then(|index| charged.charged.get(index));
        row.bytes_charged = row.bytes_charged.saturating_add(bytes.unwrap_or(0));
        row.charges = row.charges.saturating_add(charged.charges);
        let cgroup = names.cgroup(charged.cgroup);
        if cgroups.insert(cgroup.clone()) {
            row.cgroups.push(cgroup);
        }
    }
    // Some came after the instant.
    let mut rows: Vec<_> =
        groups.into_values().map(|group| group.row).filter(|row| row.bytes_charged > 0).collect();
    rows.sort_by_key(|row| std::cmp::Reverse(row.bytes_charged));
    rows
}

/// A frame of charging, of the page allocator or of tracing.
fn is_charging(name: &str) -> bool {
    let base = base_name(name);
    !is_telling(name) || CHARGING.iter().any(|prefix| base.starts_with(prefix))
}

pub(super) fn class_of(frames: &[&Symbol]) -> &'static str {
    let by_rule = |symbol: &Symbol| {
        let name = base_name(symbol.name.as_deref()?);
        let rule = RULES.iter().find(|(prefixes, _)| prefixes.iter().any(|prefix| name.starts_with(prefix)));
        rule.map(|(_, class)| *class)
    };
    let found =
        (0..frames.len()).find_map(|index| by_rule(frames[index]).or_else(|| source_at(frames, index)));
    match found {
        // A charge does not say which kind of slab, nor whether a page is going to be dirty.
        Some("slab-unreclaimable" | "slab-reclaimable") => "slab",
        Some("file-clean" | "file-dirty") => "page-cache",
        Some(class) => class,
        None if is_page_fault(frames) => "anon",
        None => "other",
    }
}

/// A page charged to the task right in the fault handler: compilers fold do_anonymous_page and the copying of pages
/// into it on some kernels (6.1), while pages of files and shmem are charged in functions of their own.
fn is_page_fault(frames: &[&Symbol]) -> bool {
    let named = |symbol: &&&Symbol, name: &str| symbol.name.as_deref().is_some_and(|n| base_name(n) == name);
    let charged = frames.iter().position(|symbol| named(&symbol, "__mem_cgroup_charge"));
    let handler = charged.and_then(|at| frames.get(at + 1));
    handler.is_some_and(|symbol| {
        ["__handle_mm_fault", "handle_pte_fault", "do_fault"].iter().any(|name| named(&symbol, name))
    })
}

fn agreement(recording: &Recording) -> Agreement {
    let mut agreement = Agreement::default();
    for level in &recording.provenance.charge_levels {
        agreement.reseeds += level.reseeds;
        agreement.corrected += level.corrected;
    }
    for samples in &recording.samples.cgroups {
        let readings: Vec<_> = readings(&samples.series).collect();
        for (index, &[before, usage, after]) in readings.iter().enumerate() {
            agreement.readings += 1;
            // A task may be stopped between the kernel's count and the hook's: then the next reading has both.
            let stood =
                index.checked_sub(1).and_then(|i| readings.get(i)).is_none_or(|[.., last]| *last == before);
            let stands = readings.get(index + 1).is_none_or(|[next, ..]| *next == after);
            if before != after || !stood || !stands {
                continue;
            }
            agreement.settled += 1;
            let difference = usage as i64 - after as i64;
            agreement.differing += u64::from(difference != 0);
            if difference.abs() > agreement.largest_difference.abs() {
                agreement.largest_difference = difference;
            }
        }
    }
    agreement
}

/// Readings that have the kernel's value and the hooks' before and after it.
fn readings(series: &Series) -> impl Iterator<Item = [u64; 3]> {
    let column = |names: &[&str]| names.iter().find_map(|name| series.columns.get(*name));
    let usage = column(&["memory.current", "memory.usage_in_bytes"]);
    let columns = column(&["hooks.before"]).zip(usage).zip(column(&["hooks.after"]));
    columns.into_iter().flat_map(|((before, usage), after)| {
        (before.iter().zip(usage.iter()).zip(after.iter()))
            .filter_map(|((before, usage), after)| Some([before?, usage?, after?]))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use spark_trace_testing as testing;
    use spark_trace_testing::{MIB, SECOND, START};

    fn of(frames: &[&str]) -> &'static str {
        let mut recording = testing::empty();
        let id = testing::stack(&mut recording.provenance, "kernel", frames);
        class_of(&Names::new(&recording).frames(Some(id)))
    }

    #[test]
    fn stacks_of_real_kernels_find_their_class() {
        let cases: &[(&[&str], &str)] = &[
            (&["try_charge_memcg", "charge_memcg", "__mem_cgroup_charge", "do_anonymous_page"], "anon"),
            (
                &["try_charge_memcg", "__mem_cgroup_charge", "shmem_alloc_and_add_folio", "shmem_fault"],
                "shmem",
            ),
            (&["__mem_cgroup_charge", "__filemap_add_folio", "page_cache_ra_unbounded"], "page-cache"),
            (
                &[
                    "obj_cgroup_charge_pages",
                    "__memcg_slab_post_alloc_hook",
                    "kmem_cache_alloc_lru_noprof",
                    "xas_alloc",
                    "__filemap_add_folio",
                ],
                "slab",
            ),
            (
                &[
                    "obj_cgroup_charge_pages",
                    "__memcg_kmem_charge_page",
                    "alloc_pages",
                    "pte_alloc_one",
                    "do_anonymous_page",
                ],
                "page-tables",
            ),
            (
                &["__memcg_kmem_charge_page", "alloc_pages", "nvidia_uvm:uvm_cpu_chunk_alloc"],
                "nvidia-managed",
            ),
            (&["try_charge_memcg", "charge_memcg", "__mem_cgroup_charge", "__handle_mm_fault"], "anon"),
            (&["__mem_cgroup_charge", "something_new", "__handle_mm_fault"], "other"),
            (&["something_new"], "other"),
            (&[], "other"),
        ];
        for (frames, class) in cases {
            assert_eq!(of(frames), *class, "{frames:?}");
        }
    }

    #[test]
    fn charges_are_listed_by_the_path_that_caused_them() {
        let recording = testing::container();
        let charges = report(&recording, START + 5 * SECOND).unwrap();
        let rows: Vec<_> = charges.stacks.iter().map(|row| (row.class, row.bytes_charged / MIB)).collect();
        assert_eq!(rows, [("page-cache", 990), ("anon", 812)]);
        assert_eq!(charges.stacks[1].frames, ["do_anonymous_page", "handle_mm_fault"]);
        assert_eq!(report(&testing::empty(), START), None);
    }

    #[test]
    fn readings_beside_which_something_was_charged_do_not_count() {
        let mut recording = testing::container();
        let counts = |recording: &Recording| {
            let agreement = report(recording, START).unwrap().agreement;
            (agreement.readings, agreement.settled, agreement.differing, agreement.largest_difference)
        };
        let series = |recording: &mut Recording, before: u64, after: u64| {
            let series = &mut recording.samples.cgroups[0].series;
            // Nothing was counted between the readings either.
            let usage = series.columns.get_mut("memory.current").unwrap();
            let first = usage.first().unwrap();
            usage.map(|_| first);
            let usage = usage.clone();
            let column = |change: u64| usage.iter().map(|bytes| bytes.map(|bytes| bytes + change)).collect();
            series.columns.insert("hooks.before".into(), column(before));
            series.columns.insert("hooks.after".into(), column(after));
            usage.len() as u64
        };
        let all = series(&mut recording, 0, 0);
        assert_eq!(counts(&recording), (all, all, 0, 0));
        series(&mut recording, 0, 4096);
        assert_eq!(counts(&recording), (all, 0, 0, 0));
        series(&mut recording, 8192, 8192);
        assert_eq!(counts(&recording), (all, all, all, -8192));
    }
}
