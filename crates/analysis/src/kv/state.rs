//! The machine's memory at a reading: by source, and by process.

use std::collections::{BTreeMap, BTreeSet};

use spark_trace_recording::ledger::{self, Balance};
use spark_trace_recording::{Column, ProcessSeries, Recording, Series};

use super::{Reading, reading};
use crate::simulated;
use crate::view::View;

/// Memory at one reading.
pub struct State {
    pub balance: Option<Balance>,
    /// Counters of /proc/meminfo: those that the engine itself read, where it did, else the nearest reading's.
    meminfo: BTreeMap<String, u64>,
    pub processes: BTreeMap<u32, u64>,
    /// Those that took or gave back much around that time: what they had at it is not known.
    pub changing: BTreeSet<u32>,
}

const MEMINFO: &str = "/proc/meminfo";
const PREFIX: &str = "meminfo.";

impl State {
    pub fn at(recording: &Recording, reading: &Reading) -> Self {
        let series = &recording.samples.system;
        let index = ledger::nearest(series, reading.at_ns);
        let exact = exact(reading);
        let joined = index.map(|index| joined(series, index, exact));
        let view = joined.as_ref().and_then(|series| View::of_system(recording, series));
        let nearest = joined.iter().flat_map(|series| &series.columns);
        let meminfo = nearest
            .filter_map(|(name, column)| Some((name.strip_prefix(PREFIX)?.to_owned(), column.get(0)?)));
        let processes = recording.samples.processes.iter();
        let changing = processes.clone().filter(|process| is_changing(process, reading.at_ns));
        Self {
            changing: changing.map(|process| process.pid).collect(),
            balance: view.map(|view| view.at(reading.at_ns)),
            meminfo: meminfo.collect(),
            processes: processes
                .filter_map(|process| Some((process.pid, host(process, reading.at_ns)?)))
                .collect(),
        }
    }

    pub fn counter(&self, name: &str) -> Option<u64> {
        self.meminfo.get(name).copied()
    }

    pub fn bytes(&self, slug: &str) -> Option<u64> {
        self.balance.as_ref()?.bytes(slug)
    }

    /// What the kernel keeps back from MemAvailable (mm/show_mem.c si_mem_available): the reserves of all zones, and of
    /// the page cache and of reclaimable memory half, or the low watermarks where they are lower.
    pub fn reserve(&self) -> Option<u64> {
        let parts = ["MemFree", "Active(file)", "Inactive(file)", "KReclaimable"];
        let all = parts.into_iter().map(|name| self.counter(name)).sum::<Option<u64>>()?;
        Some(all.saturating_sub(self.counter("MemAvailable")?))
    }
}

/// What the engine's own reading of /proc/meminfo was, or that of the GPU's library inside its call.
fn exact(reading: &Reading) -> Option<&BTreeMap<String, u64>> {
    let own = std::iter::once(&reading.query).chain(&reading.query.nested);
    own.filter(|query| query.interface == MEMINFO && query.result == 0).map(|query| &query.values).next()
}

/// One reading of the system, with the counters of /proc/meminfo as they were at another moment.
fn joined(series: &Series, index: usize, exact: Option<&BTreeMap<String, u64>>) -> Series {
    let at = |times: &[u64]| times.get(index).copied().into_iter().collect();
    let mut columns: BTreeMap<String, Column> = series
        .columns
        .iter()
        .map(|(name, column)| (name.clone(), Column::from_iter([known_until(column, index, name)])))
        .collect();
    for (name, value) in exact.into_iter().flatten() {
        // The kernel's file has counts among its sizes, which a reading has no column for.
        if let Some(column) = columns.get_mut(&format!("{PREFIX}{name}")) {
            *column = Column::from_iter([Some(*value)]);
        }
    }
    Series { begin_ns: at(&series.begin_ns), end_ns: at(&series.end_ns), columns, absent: vec![] }
}

/// A value; of a column that counts from the start nothing has been counted before its first.
fn known_until(column: &Column, index: usize, name: &str) -> Option<u64> {
    let counts = spark_trace_common::source::counts_from_start(name);
    let before_first = || column.iter().take(index + 1).all(|value| value.is_none());
    column.get(index).or_else(|| (counts && before_first()).then_some(0))
}

/// Readings are at most that far apart that tell of an instant.
const NEAR_NS: u64 = 1_000_000_000;

/// Anonymous and shared pages of a process near a time; absent where it was not there.
fn host(process: &ProcessSeries, at_ns: u64) -> Option<u64> {
    host_in(process, ledger::nearest(&process.series, at_ns)?, at_ns)
}

/// The same in one reading, if it is near.
fn host_in(process: &ProcessSeries, index: usize, at_ns: u64) -> Option<u64> {
    let series = &process.series;
    let is_near = ledger::time_of(series, index)?.abs_diff(at_ns) <= NEAR_NS;
    let kind = |name: &str| series.columns.get(name)?.get(index);
    is_near.then(|| Some(kind("rss_anon")?.saturating_add(kind("rss_shmem").unwrap_or(0))))?
}

/// Whether the readings before and after a time, both near, differ much.
fn is_changing(process: &ProcessSeries, at_ns: u64) -> bool {
    /// Less is not worth naming, or as good as nothing.
    const LEAST: u64 = 1 << 20;
    const PART: u64 = 10;
    let around = || {
        let index = ledger::nearest(&process.series, at_ns)?;
        let is_before = ledger::time_of(&process.series, index)? <= at_ns;
        let other = if is_before { index.checked_add(1) } else { index.checked_sub(1) }?;
        Some((host_in(process, index, at_ns)?, host_in(process, other, at_ns)?))
    };
    around().is_some_and(|(one, other)| one.abs_diff(other) > LEAST.max(one.max(other) / PART))
}

/// Processes that were the target's and lived at a time.
pub fn living(recording: &Recording, at_ns: u64) -> BTreeSet<u32> {
    let processes = recording.provenance.processes.iter();
    let lived = processes.filter(|process| {
        process.started_ns.is_none_or(|started| started <= at_ns)
            && process.ended_ns.is_none_or(|ended| ended >= at_ns)
    });
    lived.map(|process| process.pid).collect()
}

/// Device memory of the target that lies in pages of its own.
pub fn device_in_anon(recording: &Recording, reading: &Reading) -> u64 {
    let live = reading::live_at(recording, &reading.query).unwrap_or(0);
    simulated::in_own_pages(recording, reading.at_ns, live)
}
