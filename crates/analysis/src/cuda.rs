//! What the target took through the CUDA driver, and by which code.
//!
//! Device memory is system memory where CPU and GPU share it, and the GPU's own elsewhere: these rows are what the
//! driver was requested to give, and no part of a plane's sum.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use spark_trace_common::cuda::Kind;

use crate::callers::{Caller, Callers};
use crate::names::Names;
use crate::nearest_instant;
use spark_trace_recording::ledger::time_of;
use spark_trace_recording::{CudaAllocs, CudaTotal, LibraryFile, Recording};

mod by_gpu;
mod calls;

pub use by_gpu::GpuRow;
pub use calls::{EventRow, FailureRow};
pub use spark_trace_common::cuda::DEVICE_ALL;

/// Present where a library was watched or anything was taken through it.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct CudaReport {
    /// The instant that the totals belong to.
    pub at_ns: u64,
    /// The stored instant that the rows by stack, process and backing belong to.
    pub details_at_ns: Option<u64>,
    pub libraries: Vec<LibraryRow>,
    /// Frees of memory whose allocation was not seen.
    pub unknown_frees: Option<u64>,
    pub totals: Vec<TotalRow>,
    pub processes: Vec<ProcessTotals>,
    /// Device memory by GPU, and by process where there are several; empty in older recordings.
    pub gpus: Vec<GpuRow>,
    /// The machine has several GPUs, so that it matters which one.
    pub several_gpus: bool,
    pub host: Vec<HostRow>,
    pub stacks: Vec<AllocRow>,
    pub failures: Vec<FailureRow>,
    pub events: Vec<EventRow>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LibraryRow {
    #[serde(flatten)]
    pub file: LibraryFile,
    /// From being mapped to being watched, where its process ran on: calls in between may be missing. Absent for a
    /// library that was watched before, or until which its process was paused.
    pub late_ns: Option<u64>,
}

/// One kind of memory. Counts are those of the whole trace.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct TotalRow {
    pub kind: String,
    /// At the instant.
    pub live: Option<u64>,
    pub live_at_end: u64,
    pub peak: u64,
    pub peak_ns: u64,
    pub allocs: u64,
    pub frees: u64,
    /// Freed by the end of a context or process.
    pub implicit_frees: u64,
    pub failures: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ProcessTotals {
    pub pid: u32,
    pub comm: String,
    #[serde(flatten)]
    pub total: TotalRow,
}

/// Host memory that the driver pinned, by what it lies in.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct HostRow {
    /// `pinned` (the driver allocated it) or `registered` (the program did).
    pub kind: String,
    /// As recorded; absent where it could not be seen.
    pub backing: Option<String>,
    /// Whether a cgroup is charged for it.
    pub charged: Option<&'static str>,
    /// The row of the system plane that has it.
    pub source: Option<&'static str>,
    pub live: Option<u64>,
    pub allocs: u64,
    pub bytes_allocated: u64,
}

/// What one user stack took with one function.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct AllocRow {
    pub kind: String,
    /// NVML's index of the GPU; absent where it is unknown, and for memory that is not a GPU's.
    pub device: Option<u32>,
    pub function: String,
    #[serde(flatten)]
    pub caller: Caller,
    pub pids: Vec<u32>,
    /// At the stored instant.
    pub live: Option<u64>,
    pub bytes_allocated: u64,
    pub bytes_freed: u64,
    pub allocs: u64,
    pub frees: u64,
    pub implicit_frees: u64,
    pub failures: u64,
}

/// What host memory lies in: charged or not, and the source that has it.
type Backing = (&'static str, &'static str, &'static str);

/// Two ways of cudaMallocHost are distinguished so (OGKM 580.95.05 src/nvidia/arch/nvalloc/unix/src/escape.c): pages of
/// the module mapped into the process, which nobody is charged for, and pages of the process that are pinned.
const BACKINGS: &[Backing] = &[
    ("driver", "no", "nvidia-sysmem"),
    ("shmem", "yes", "shmem-pinned"),
    ("anon", "yes", "anon-pinned"),
    ("file", "yes", "file-clean"),
];

/// Whether rows of a kind have a backing.
fn is_host(kind: &str) -> bool {
    Kind::ALL.into_iter().any(|host| host.is_host() && host.as_str() == kind)
}

pub fn report(recording: &Recording, at_ns: u64) -> Option<CudaReport> {
    report_with(recording, at_ns, None)
}

/// The same, with what was in use when a memory query was answered, at `answered_ns`: a sample near it may be of before or after
/// the next allocation.
pub fn report_with(recording: &Recording, at_ns: u64, answered_ns: Option<u64>) -> Option<CudaReport> {
    let provenance = &recording.provenance;
    let nothing = recording.health.libraries.is_empty()
        && provenance.cuda_allocs.is_empty()
        && provenance.cuda_totals.is_empty()
        && provenance.cuda_failures.is_empty()
        && provenance.cuda_events.is_empty();
    if nothing {
        return None;
    }
    let names = Names::new(recording);
    let callers = Callers::new(&names);
    let instant = nearest_instant::index(recording, at_ns);
    let answered = answered_ns.and_then(|ns| Some((ns, answered(recording, ns)?)));
    Some(CudaReport {
        at_ns: answered.map_or(at_ns, |(ns, _)| ns),
        details_at_ns: instant.and_then(|index| provenance.instants.get(index)).map(|instant| instant.at_ns),
        libraries: recording.health.libraries.iter().map(library).collect(),
        unknown_frees: provenance.cuda_unknown_frees,
        totals: totals(recording, at_ns, answered.map(|(_, live)| live)),
        processes: processes(recording, &names, instant),
        gpus: by_gpu::rows(recording, &names, instant),
        several_gpus: recording.host.gpus.len() > 1,
        host: host(&provenance.cuda_allocs, instant),
        stacks: stacks(&provenance.cuda_allocs, &callers, instant),
        failures: calls::failures(recording, &names, &callers),
        events: calls::events(&provenance.cuda_events),
    })
}

fn library(file: &LibraryFile) -> LibraryRow {
    LibraryRow { file: file.clone(), late_ns: late(file) }
}

/// For how long a process ran with a library that was not watched yet. Milliseconds matter here: a program can have
/// started its context in them. One that was paused missed nothing.
pub fn late(file: &LibraryFile) -> Option<u64> {
    let times = file.attached_ns.zip(file.mapped_ns).filter(|_| file.paused_ns.is_none());
    times.map(|(attached, mapped)| attached.saturating_sub(mapped)).filter(|late_ns| *late_ns > 0)
}

/// Rows begin with their first call: before that they had nothing.
pub(super) fn live(allocs: &CudaAllocs, instant: Option<usize>) -> Option<u64> {
    Some(allocs.live.get(instant?).unwrap_or(0))
}

/// Place of a kind in every list.
pub fn order(kind: &str) -> usize {
    let kinds = Kind::ALL.map(Kind::as_str);
    let after_device = kinds.iter().position(|known| *known == Kind::Physical.as_str());
    match kind {
        DEVICE_ALL => after_device.map_or(kinds.len(), |place| 2 * place + 1),
        _ => kinds.iter().position(|known| *known == kind).map_or(2 * kinds.len(), |place| 2 * place),
    }
}

/// What was in use, by kind, when a query was answered.
fn answered(recording: &Recording, ns: u64) -> Option<&BTreeMap<String, u64>> {
    let query = recording.provenance.queries.iter().find(|query| query.at_ns == ns)?;
    Some(&query.state.as_ref()?.later.as_ref()?.cuda_live)
}

fn totals(recording: &Recording, at_ns: u64, answered: Option<&BTreeMap<String, u64>>) -> Vec<TotalRow> {
    let all = recording.provenance.cuda_totals.iter().filter(|total| total.pid.is_none());
    let live = |kind: &str| match answered {
        Some(live) => {
            let parts = live.iter().filter(|(part, _)| is_part_of(part, kind));
            Some(parts.fold(0, |sum: u64, (_, bytes)| sum.saturating_add(*bytes)))
        }
        None => sampled(recording, kind, at_ns),
    };
    let mut rows: Vec<_> = all.map(|t| total(t, live(&t.kind))).collect();
    rows.sort_by_key(|row| order(&row.kind));
    rows
}

fn total(total: &CudaTotal, live: Option<u64>) -> TotalRow {
    TotalRow {
        kind: total.kind.clone(),
        live,
        live_at_end: total.live,
        peak: total.peak,
        peak_ns: total.peak_ns,
        allocs: total.allocs,
        frees: total.frees,
        implicit_frees: total.implicit_frees,
        failures: total.failures,
    }
}

/// What the sample nearest to `at_ns` says of a kind. The series begins with the first use: at the system readings
/// before it, all but the one it was read with, nothing was in use.
fn sampled(recording: &Recording, kind: &str, at_ns: u64) -> Option<u64> {
    let (series, system) = (&recording.samples.cuda, &recording.samples.system);
    let first_ns = *series.begin_ns.first()?;
    let column = series.columns.get(&format!("live.{kind}"));
    let began = column.and_then(|values| values.iter().position(|value| value.is_some()));
    let value = |index: usize| match began {
        Some(began) if index >= began => column.and_then(|values| values.get(index)),
        _ => Some(0),
    };
    let before = system.end_ns.iter().take_while(|&&end_ns| end_ns <= first_ns).count();
    let empty = (0..before.saturating_sub(1)).filter_map(|index| Some((time_of(system, index)?, Some(0))));
    let read = (0..series.begin_ns.len()).filter_map(|index| Some((time_of(series, index)?, value(index))));
    empty.chain(read).min_by_key(|(time, _)| time.abs_diff(at_ns))?.1
}

fn processes(recording: &Recording, names: &Names<'_>, instant: Option<usize>) -> Vec<ProcessTotals> {
    let allocs = &recording.provenance.cuda_allocs;
    let in_use = |pid: u32, kind: &str| {
        let rows = allocs.iter().filter(|row| row.pid == pid && is_part_of(&row.kind, kind));
        rows.map(|row| live(row, instant)).try_fold(0, |sum: u64, live| Some(sum.saturating_add(live?)))
    };
    let mut rows: Vec<_> = recording
        .provenance
        .cuda_totals
        .iter()
        .filter_map(|t| Some((t.pid?, t)))
        .map(|(pid, t)| ProcessTotals { pid, comm: names.comm(pid), total: total(t, in_use(pid, &t.kind)) })
        .collect();
    rows.sort_by_key(|row| (std::cmp::Reverse(row.total.peak), row.pid, order(&row.total.kind)));
    rows
}

fn is_part_of(kind: &str, whole: &str) -> bool {
    match whole {
        DEVICE_ALL => Kind::ALL.iter().any(|known| known.as_str() == kind && known.is_device()),
        _ => kind == whole,
    }
}

fn host(allocs: &[CudaAllocs], instant: Option<usize>) -> Vec<HostRow> {
    let mut groups: BTreeMap<(usize, Option<&str>), HostRow> = BTreeMap::new();
    let pinned = allocs.iter().filter(|row| is_host(&row.kind) && row.allocs > 0);
    for allocs in pinned {
        let backing = allocs.backing.as_deref();
        let known = BACKINGS.iter().find(|(name, ..)| Some(*name) == backing);
        let row = groups.entry((order(&allocs.kind), backing)).or_insert_with(|| HostRow {
            kind: allocs.kind.clone(),
            backing: allocs.backing.clone(),
            charged: known.map(|(_, charged, _)| *charged),
            source: known.map(|(.., source)| *source),
            live: instant.map(|_| 0),
            ..HostRow::default()
        });
        row.live = row.live.zip(live(allocs, instant)).map(|(sum, live)| sum.saturating_add(live));
        row.allocs = row.allocs.saturating_add(allocs.allocs);
        row.bytes_allocated = row.bytes_allocated.saturating_add(allocs.bytes_allocated);
    }
    groups.into_values().collect()
}

/// Kind, GPU, function and caller.
type StackKey<'a> = (&'a str, Option<u32>, &'a str, Caller);

/// The stack that holds the most first, then the one that allocated most.
fn stacks(allocs: &[CudaAllocs], callers: &Callers<'_>, instant: Option<usize>) -> Vec<AllocRow> {
    let mut groups: BTreeMap<StackKey<'_>, (AllocRow, BTreeSet<u32>)> = BTreeMap::new();
    for allocs in allocs {
        let caller = callers.of(allocs.stack);
        let key = (allocs.kind.as_str(), allocs.device, allocs.function.as_str(), caller);
        let (row, pids) = groups.entry(key).or_default();
        let bytes = live(allocs, instant);
        row.live = bytes.map(|bytes| row.live.unwrap_or(0).saturating_add(bytes));
        for (sum, value) in [
            (&mut row.bytes_allocated, allocs.bytes_allocated),
            (&mut row.bytes_freed, allocs.bytes_freed),
            (&mut row.allocs, allocs.allocs),
            (&mut row.frees, allocs.frees),
            (&mut row.implicit_frees, allocs.implicit_frees),
            (&mut row.failures, allocs.failures),
        ] {
            *sum = sum.saturating_add(value);
        }
        pids.insert(allocs.pid);
    }
    let named = groups.into_iter().map(|((kind, device, function, caller), (row, pids))| AllocRow {
        kind: kind.to_owned(),
        device,
        function: function.to_owned(),
        caller,
        pids: pids.into_iter().collect(),
        ..row
    });
    let mut rows: Vec<_> = named.collect();
    rows.sort_by_key(|row| std::cmp::Reverse((row.live, row.bytes_allocated, row.failures)));
    rows
}

#[cfg(test)]
mod tests;
