//! From a source down to who holds it: cgroup, process, then mapping, file or stack.

use crate::signed::signed;
use std::collections::BTreeSet;

use crate::cgroups::{self, CgroupRow};
use crate::cuda;
use crate::driver_allocs;
use crate::files;
use crate::mappings;
use crate::nearest_instant;
use crate::passing::{self, Stack};
use crate::processes::{self, ProcessRow, Split};
use crate::regions;
use crate::stacks;
use crate::view::Scope;
use spark_trace_recording::column::Value;
use spark_trace_recording::units;
use spark_trace_recording::{Column, Provenance, Recording};

/// Somebody who holds a part, or a thing that is a part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder<K> {
    pub key: K,
    pub name: String,
    pub bytes: Option<i64>,
    /// Without what stands in other rows.
    pub own: Option<i64>,
}

/// The last step: what the bytes are, and whose call took them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Detail {
    pub bytes: i64,
    /// What the bytes count: `resident`, `mapped`, `cached`, `allocated`.
    pub counts: &'static str,
    pub what: String,
    /// Innermost first; empty where no stack was seen.
    pub frames: Vec<String>,
}

impl<K> Holder<K> {
    /// Not more than the list's own level: what processes share is in each of them.
    #[must_use]
    pub fn within(self, parent: Option<i64>) -> Self {
        let bytes = self.bytes.map(|bytes| parent.map_or(bytes, |parent| bytes.min(parent)));
        Self { bytes, ..self }
    }
}

impl Detail {
    /// Not more than what it is part of: what is mapped need not be resident, and what is cached may be of another kind.
    #[must_use]
    pub fn within(self, parent: Option<i64>) -> Self {
        match parent.filter(|parent| self.bytes > *parent) {
            None => self,
            Some(parent) => Self {
                what: format!("{} ({} {})", self.what, units::size(self.bytes), self.counts),
                bytes: parent,
                counts: AT_MOST,
                ..self
            },
        }
    }
}

/// What the bytes of a detail count where it may be more than what it is part of.
const AT_MOST: &str = "at most";

/// What of a process's resident memory belongs to a source.
type Part = fn(&Split) -> Option<u64>;

/// How a source is followed below the cgroups.
struct DrilldownRule {
    /// What the names of sources begin with.
    sources: &'static [&'static str],
    part: Option<Part>,
    details: fn(&Recording, u64, &str) -> Vec<Detail>,
    /// Said where there is no detail.
    nothing: &'static str,
}

const RULES: &[DrilldownRule] = &[
    DrilldownRule {
        sources: &["anon"],
        part: Some(|split| split.rss_anon),
        details: mapped,
        nothing: NOT_SEEN,
    },
    DrilldownRule {
        sources: &["shmem"],
        part: Some(|split| split.rss_shmem),
        details: mapped,
        nothing: NOT_SEEN,
    },
    // A page of a file is nobody's: processes that map it share it, and who has read it need not map it.
    DrilldownRule { sources: &["file-clean"], part: None, details: cached, nothing: NOT_SEEN },
    DrilldownRule {
        sources: &["file-dirty"],
        part: None,
        details: none,
        nothing: "the files that are not written back are unknown",
    },
    DrilldownRule {
        sources: &["swap-cache"],
        part: None,
        details: none,
        nothing: "the owners of pages in the swap cache are unknown",
    },
    DrilldownRule { sources: &["nvidia-"], part: None, details: driver, nothing: NOT_SEEN },
    DrilldownRule { sources: &["gpu-", "cuda-"], part: None, details: devices, nothing: NOT_SEEN },
];

const NOT_SEEN: &str = "no allocation since the trace began";

/// What the kernel takes for itself.
const KERNEL: DrilldownRule =
    DrilldownRule { sources: &[""], part: None, details: kernel, nothing: NOT_SEEN };

fn way(source: &str) -> &'static DrilldownRule {
    RULES.iter().find(|way| way.sources.iter().any(|prefix| source.starts_with(prefix))).unwrap_or(&KERNEL)
}

/// What is said where nothing is seen behind a source.
pub fn nothing(source: Option<&str>) -> &'static str {
    source.map_or(NOT_SEEN, |source| way(source).nothing)
}

/// Cgroups and processes as they were at one time: enough to list later the holders of any source.
#[derive(Debug, Clone)]
pub struct Holders {
    cgroups: Vec<CgroupRow>,
    processes: Vec<ProcessRow>,
}

impl Holders {
    pub fn at(recording: &Recording, at_ns: u64) -> Self {
        Self { cgroups: cgroups::rows(recording, at_ns), processes: processes::rows(recording, at_ns) }
    }

    /// See [`cgroups`].
    pub fn cgroups(&self, source: Option<&str>) -> Vec<Holder<u64>> {
        holding_cgroups(&self.cgroups, source)
    }

    /// See [`processes`]; of all cgroups.
    pub fn processes(&self, source: Option<&str>) -> Vec<Holder<u32>> {
        holding_processes(&self.processes, source)
    }
}

/// Cgroups that hold something of `source`, the one that holds most without those below it first.
pub fn cgroups(recording: &Recording, at_ns: u64, source: Option<&str>) -> Vec<Holder<u64>> {
    holding_cgroups(&cgroups::rows(recording, at_ns), source)
}

fn holding_cgroups(rows: &[CgroupRow], source: Option<&str>) -> Vec<Holder<u64>> {
    let level = |row: &CgroupRow| match source {
        Some(source) => row.sources.get(source).map(|&bytes| signed(bytes)),
        None => row.bytes,
    };
    let below = |path: &str| {
        let inside =
            rows.iter().filter(|row| row.path.rsplit_once('/').is_some_and(|(parent, _)| parent == path));
        inside.filter_map(level).fold(0, i64::saturating_add)
    };
    let holders = rows.iter().filter_map(|row| {
        let bytes = level(row).filter(|&bytes| bytes != 0)?;
        let own = bytes.saturating_sub(below(&row.path));
        Some(Holder { key: row.id, name: row.shown.clone(), bytes: Some(bytes), own: Some(own) })
    });
    let mut holders: Vec<_> = holders.collect();
    holders.sort_by_key(|holder| std::cmp::Reverse(holder.own));
    holders
}

/// Whether processes can be distinguished in `source`.
pub fn has_processes(source: Option<&str>) -> bool {
    source.is_none_or(|source| way(source).part.is_some())
}

/// Processes of a cgroup, or of all, with what is resident in them of the source's kind. Pages that processes share are
/// in each of them.
pub fn processes(
    recording: &Recording,
    at_ns: u64,
    source: Option<&str>,
    cgroup: Option<u64>,
) -> Vec<Holder<u32>> {
    let inside = cgroup.map(|cgroup| at_or_below(recording, cgroup));
    let cgroup_of = |row: &ProcessRow| {
        recording
            .provenance
            .processes
            .iter()
            .rev()
            .find(|process| process.pid == row.pid)
            .map(|found| found.cgroup)
    };
    let mut rows = processes::rows(recording, at_ns);
    rows.retain(|row| {
        inside.as_ref().is_none_or(|inside| cgroup_of(row).is_some_and(|id| inside.contains(&id)))
    });
    holding_processes(&rows, source)
}

fn holding_processes(rows: &[ProcessRow], source: Option<&str>) -> Vec<Holder<u32>> {
    let part: Part = match source.map(way) {
        Some(way) => way.part.unwrap_or(|_| None),
        None => |split| Some(split.resident()),
    };
    let holders = rows.iter().filter_map(|row| {
        let bytes = part(&row.at?)?;
        let argv = row.argv.iter().skip(1).cloned().collect::<Vec<_>>().join(" ");
        let name = format!("{} ({}) {argv}", row.comm, row.pid);
        Some(Holder { key: row.pid, name: name.trim_end().to_owned(), bytes: Some(signed(bytes)), own: None })
    });
    let mut holders: Vec<_> = holders.collect();
    holders.sort_by_key(|holder| std::cmp::Reverse(holder.bytes));
    holders
}

/// Mappings, files or stacks behind a source, of one cgroup or process where one is named; the largest first.
pub fn details(
    recording: &Recording,
    at_ns: u64,
    source: Option<&str>,
    cgroup: Option<u64>,
    pid: Option<u32>,
) -> Vec<Detail> {
    let narrow = narrow(recording, at_ns, cgroup, pid);
    let mut found = match source {
        Some(source) => (way(source).details)(&narrow, at_ns, source),
        None => [mapped, devices].iter().flat_map(|details| details(&narrow, at_ns, "")).collect(),
    };
    found.sort_by_key(|detail| std::cmp::Reverse(detail.bytes));
    found
}

/// The provenance of one cgroup with all below it, or of one process, at one time, and nothing else. Which instant fits
/// that time goes by all that was read.
fn narrow(recording: &Recording, at_ns: u64, cgroup: Option<u64>, pid: Option<u32>) -> Recording {
    let inside = cgroup.map(|cgroup| at_or_below(recording, cgroup));
    let in_cgroup = |id: u64| inside.as_ref().is_none_or(|inside| inside.contains(&id));
    let all = &recording.provenance;
    let chosen = nearest_instant::index(recording, at_ns);
    let members: BTreeSet<u32> =
        all.processes.iter().filter(|process| in_cgroup(process.cgroup)).map(|process| process.pid).collect();
    let is_meant = |other: u32| pid.map_or_else(|| members.contains(&other), |pid| pid == other);
    let provenance = Provenance {
        instants: chosen.and_then(|index| all.instants.get(index)).cloned().into_iter().collect(),
        // Neither names a process.
        page_allocs: kept(&all.page_allocs, |row| in_cgroup(row.cgroup), |row| at_one(&mut row.live, chosen)),
        files: kept(&all.files, |row| in_cgroup(row.charged_to), |row| at_one(&mut row.live, chosen)),
        mappings: all.mappings.iter().filter(|row| is_meant(row.pid)).cloned().collect(),
        regions: all.regions.iter().filter(|row| is_meant(row.pid)).cloned().collect(),
        processes: all.processes.iter().filter(|row| is_meant(row.pid)).cloned().collect(),
        cgroups: all.cgroups.clone(),
        driver_allocs: kept(&all.driver_allocs, |row| is_meant(row.pid), |row| at_one(&mut row.live, chosen)),
        cuda_allocs: kept(&all.cuda_allocs, |row| is_meant(row.pid), |row| at_one(&mut row.live, chosen)),
        stacks: all.stacks.clone(),
        symbols: all.symbols.clone(),
        ..Provenance::default()
    };
    Recording { provenance, ..recording.unread() }
}

/// Some of the rows, each with `cut` done to it.
fn kept<T: Clone>(rows: &[T], is_meant: impl Fn(&T) -> bool, cut: impl Fn(&mut T)) -> Vec<T> {
    let mut kept: Vec<T> = rows.iter().filter(|row| is_meant(row)).cloned().collect();
    kept.iter_mut().for_each(cut);
    kept
}

/// Of the values at all instants the one. A row that has none came later.
fn at_one<T: Value>(live: &mut Column<T>, instant: Option<usize>) {
    *live = instant.map(|index| Some(live.get(index).unwrap_or_default())).into_iter().collect();
}

fn at_or_below(recording: &Recording, cgroup: u64) -> BTreeSet<u64> {
    let own = recording.target.cgroups.iter().map(|found| (found.id, found.path.as_str()));
    let named = recording.provenance.cgroups.iter().map(|found| (found.id, found.path.as_str()));
    let all: Vec<_> = own.chain(named).collect();
    let Some(root) = all.iter().find(|(id, _)| *id == cgroup).map(|(_, path)| *path) else {
        return BTreeSet::from([cgroup]);
    };
    let inside =
        |path: &str| path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    all.iter().filter(|(_, path)| inside(path)).map(|(id, _)| *id).collect()
}

/// By the call that mapped it, and by what is resident.
fn mapped(recording: &Recording, at_ns: u64, _source: &str) -> Vec<Detail> {
    let calls =
        mappings::rows(recording, at_ns).into_iter().filter(|row| row.bytes > 0 && row.kind != "file");
    let calls = calls.map(|row| Detail {
        bytes: signed(row.bytes),
        counts: "mapped",
        what: format!("{} in {} calls", row.kind, row.calls),
        frames: passing::callers(&row.frames, Stack::User),
    });
    let resident =
        regions::rows(recording, at_ns).into_iter().filter(|row| row.anonymous > 0 || row.is_shared_memory());
    let resident = resident.map(|row| Detail {
        bytes: signed(if row.is_shared_memory() { row.rss } else { row.anonymous }),
        counts: "resident",
        what: format!("{} in {} mappings", row.name, row.regions),
        frames: Vec::new(),
    });
    calls.chain(resident).collect()
}

fn none(_: &Recording, _: u64, _: &str) -> Vec<Detail> {
    Vec::new()
}

fn cached(recording: &Recording, at_ns: u64, _source: &str) -> Vec<Detail> {
    let rows = files::largest(recording, at_ns).into_iter().filter(|row| row.bytes != 0);
    rows.map(|row| Detail {
        bytes: row.bytes,
        counts: "cached",
        what: match &row.first_touch {
            Some(touch) => format!("{}, first touched by {} ({})", row.shown, touch.comm, touch.pid),
            None if row.is_from_before() => format!("{}, cached before the trace", row.shown),
            // It has only lost pages.
            None => row.shown.clone(),
        },
        frames: Vec::new(),
    })
    .collect()
}

fn kernel(recording: &Recording, at_ns: u64, source: &str) -> Vec<Detail> {
    let rows = stacks::rows(recording, Scope::System, at_ns).into_iter();
    // What nobody counts, and what a cgroup is charged together, may be any of them.
    let any = matches!(source, "unattributed" | "kernel-other");
    rows.filter(|row| row.bytes > 0 && (any || row.source == source))
        .map(|row| Detail {
            bytes: signed(row.bytes),
            counts: "allocated",
            what: format!("{}: {}", row.source, row.label),
            frames: passing::callers(&row.frames, Stack::Kernel),
        })
        .collect()
}

fn driver(recording: &Recording, at_ns: u64, source: &str) -> Vec<Detail> {
    let rows = driver_allocs::rows(recording, at_ns).into_iter().filter(|row| row.live > 0);
    let rows = rows.map(|row| Detail {
        bytes: signed(row.live),
        counts: "allocated",
        what: format!("{} for {} ({})", row.kind, row.comm, row.pid),
        frames: passing::callers(&row.frames, Stack::Kernel),
    });
    rows.chain(kernel(recording, at_ns, source)).chain(devices(recording, at_ns, source)).collect()
}

fn devices(recording: &Recording, at_ns: u64, _source: &str) -> Vec<Detail> {
    let rows = cuda::report(recording, at_ns).map(|report| report.stacks).unwrap_or_default();
    rows.into_iter()
        .map(|row| Detail {
            bytes: signed(row.live.unwrap_or(row.bytes_allocated.saturating_sub(row.bytes_freed))),
            counts: "allocated",
            what: format!("{} by {}", row.kind, row.function),
            frames: passing::callers(&row.caller.frames, Stack::User),
        })
        .filter(|detail| detail.bytes > 0)
        .collect()
}
