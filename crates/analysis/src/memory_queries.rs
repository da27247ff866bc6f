//! The memory queries of the target, and their answers.
//!
//! A library answers some queries by a query to the kernel: such a query, made by the same thread while the library's
//! call ran, is part of that call and stands under it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use spark_trace_common::cuda::FUNCTIONS;

use crate::callers::{Caller, Callers};
use crate::names::Names;
use spark_trace_common::result::result_name;
use spark_trace_recording::{MemoryQuery, MemoryState, Recording};

mod fold;

pub use fold::{Folded, Range, fold};

/// All queries; absent from a recording without any.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Queries {
    /// By interface: calls of libraries first, then the most frequent.
    pub summaries: Vec<Summary>,
    /// In the order of the answers, those made inside a call under it.
    pub rows: Vec<MemoryQueryRow>,
    /// The same with those alike in a row as one, for people.
    #[serde(skip)]
    pub folded: Vec<Folded>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct MemoryQueryRow {
    pub at_ns: u64,
    /// Of a library call.
    pub began_ns: Option<u64>,
    pub pid: u32,
    pub tid: u32,
    pub comm: String,
    pub cgroup: String,
    pub interface: String,
    pub directory: Option<String>,
    pub result: i32,
    pub result_name: Option<&'static str>,
    pub values: BTreeMap<String, u64>,
    pub text: Option<String>,
    /// The machine's memory when the answer came.
    pub state: Option<MemoryState>,
    #[serde(flatten)]
    pub caller: Caller,
    /// Queries that the call made itself.
    pub nested: Vec<MemoryQueryRow>,
}

/// One interface, of all processes. Queries made inside others do not count, but for `inside`.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Summary {
    pub interface: String,
    pub directory: Option<String>,
    pub is_call: bool,
    pub count: u64,
    pub failed: u64,
    /// Made by calls of libraries on their own.
    pub inside: u64,
    /// First and last answer; absent where there was none, or only to queries inside others.
    pub first: Option<Answer>,
    pub last: Option<Answer>,
    /// `comm (pid)`.
    pub processes: Vec<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Answer {
    pub at_ns: u64,
    pub values: BTreeMap<String, u64>,
    pub text: Option<String>,
}

/// The figures of an answer that matter, the most important one first. All are bytes; files that mix units (vmstat) and
/// answers that are not figures have none.
const FIGURES: &[(&str, &[&str])] = &[
    ("cuMemGetInfo_v2", &["free", "total"]),
    ("cuDeviceTotalMem_v2", &["total"]),
    ("nvmlDeviceGetMemoryInfo", &["used", "free", "total"]),
    ("nvmlDeviceGetMemoryInfo_v2", &["used", "free", "total"]),
    ("/proc/meminfo", &["MemFree", "MemAvailable"]),
    ("/proc/PID/status", &["VmRSS", "VmHWM"]),
    ("/proc/PID/statm", &["resident"]),
    ("/proc/PID/smaps_rollup", &["Rss", "Pss"]),
    ("sysinfo", &["freeram", "totalram"]),
    ("memory.stat", &["anon", "file", "kernel", "total_rss", "total_cache"]),
    ("memory.events", &[]),
    ("/proc/vmstat", &[]),
];

/// What most files of a cgroup hold.
const ONE_FIGURE: &[&str] = &["bytes"];

/// Names of the figures of an interface that matter.
pub fn figures(interface: &str) -> &'static [&'static str] {
    FIGURES.iter().find(|(name, _)| *name == interface).map_or(ONE_FIGURE, |(_, figures)| figures)
}

pub fn report(recording: &Recording) -> Option<Queries> {
    let queries = &recording.provenance.queries;
    if queries.is_empty() {
        return None;
    }
    let names = Names::new(recording);
    let callers = Callers::new(&names);
    let rows = nest(queries.iter().map(|query| row(query, &names, &callers)).collect());
    Some(Queries { summaries: summaries(&rows), folded: fold(&rows), rows })
}

fn row(query: &MemoryQuery, names: &Names<'_>, callers: &Callers<'_>) -> MemoryQueryRow {
    let library = FUNCTIONS.iter().find(|function| function.symbol == query.interface).map(|f| f.library);
    MemoryQueryRow {
        at_ns: query.at_ns,
        began_ns: query.began_ns,
        pid: query.pid,
        tid: query.tid,
        comm: names.comm(query.pid),
        cgroup: names.cgroup(query.cgroup),
        interface: query.interface.clone(),
        directory: query.directory.clone(),
        result: query.result,
        result_name: library.and_then(|library| result_name(library, query.result)),
        values: query.values.clone(),
        text: query.text.clone(),
        state: query.state.clone(),
        caller: callers.of(query.stack),
        nested: vec![],
    }
}

impl MemoryQueryRow {
    fn begin_ns(&self) -> u64 {
        self.began_ns.unwrap_or(self.at_ns)
    }
}

/// Puts queries under the call that made them. Calls of one thread lie inside each other or apart, so by the time
/// a call returns, its own queries are the last of its thread that began after it.
fn nest(mut rows: Vec<MemoryQueryRow>) -> Vec<MemoryQueryRow> {
    // What returns at the same time: files before calls, inner calls before outer ones.
    rows.sort_by_key(|row| (row.at_ns, row.began_ns.is_some(), Reverse(row.begin_ns())));
    let mut threads: BTreeMap<(u32, u32), Vec<MemoryQueryRow>> = BTreeMap::new();
    for mut row in rows {
        let thread = threads.entry((row.pid, row.tid)).or_default();
        if let Some(began_ns) = row.began_ns {
            let inside = thread.iter().rev().take_while(|earlier| earlier.begin_ns() >= began_ns).count();
            row.nested = thread.split_off(thread.len() - inside);
        }
        thread.push(row);
    }
    let mut rows: Vec<_> = threads.into_values().flatten().collect();
    rows.sort_by_key(|row| row.at_ns);
    rows
}

type Interface = (String, Option<String>);

fn summaries(rows: &[MemoryQueryRow]) -> Vec<Summary> {
    let mut groups: BTreeMap<Interface, (Summary, BTreeSet<String>)> = BTreeMap::new();
    for row in rows {
        let (summary, processes) = groups.entry(interface(row)).or_default();
        summary.is_call |= row.began_ns.is_some();
        summary.count += 1;
        summary.failed += u64::from(row.result != 0);
        processes.insert(format!("{} ({})", row.comm, row.pid));
        if row.result == 0 {
            let answer = Answer { at_ns: row.at_ns, values: row.values.clone(), text: row.text.clone() };
            summary.first.get_or_insert_with(|| answer.clone());
            summary.last = Some(answer);
        }
        count_inside(&mut groups, &row.nested);
    }
    let named = groups.into_iter().map(|((interface, directory), (summary, processes))| Summary {
        interface,
        directory,
        processes: processes.into_iter().collect(),
        ..summary
    });
    let mut summaries: Vec<_> = named.collect();
    summaries.sort_by_key(|summary| (!summary.is_call, Reverse(summary.count)));
    summaries
}

fn count_inside(groups: &mut BTreeMap<Interface, (Summary, BTreeSet<String>)>, nested: &[MemoryQueryRow]) {
    for row in nested {
        let (summary, _) = groups.entry(interface(row)).or_default();
        summary.is_call |= row.began_ns.is_some();
        summary.inside += 1;
        count_inside(groups, &row.nested);
    }
}

fn interface(row: &MemoryQueryRow) -> Interface {
    (row.interface.clone(), row.directory.clone())
}

#[cfg(test)]
mod tests;
