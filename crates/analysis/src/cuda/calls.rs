//! Calls that are listed one by one: what the driver refused, and contexts, modules and pools.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::callers::{Caller, Callers};
use crate::names::Names;
use spark_trace_recording::{CudaEvent, Recording};

/// An allocation that the driver refused.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct FailureRow {
    pub at_ns: u64,
    pub pid: u32,
    pub tid: u32,
    pub comm: String,
    pub kind: String,
    pub function: String,
    pub size: Option<u64>,
    pub result: i32,
    pub result_name: Option<String>,
    #[serde(flatten)]
    pub caller: Caller,
}

/// What happened to contexts, modules and pools through one function.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct EventRow {
    pub event: String,
    pub function: String,
    pub count: u64,
    /// Of those, what returned an error.
    pub failed: u64,
    /// How long the calls took.
    pub total_ns: u64,
    pub longest_ns: u64,
    pub first_ns: u64,
    pub last_ns: u64,
}

/// In the order of time.
pub(super) fn failures(recording: &Recording, names: &Names<'_>, callers: &Callers<'_>) -> Vec<FailureRow> {
    let failures = recording.provenance.cuda_failures.iter();
    let mut rows: Vec<_> = failures
        .map(|failure| FailureRow {
            at_ns: failure.at_ns,
            pid: failure.pid,
            tid: failure.tid,
            comm: names.comm(failure.pid),
            kind: failure.kind.clone(),
            function: failure.function.clone(),
            size: failure.size,
            result: failure.result,
            result_name: failure.result_name.clone(),
            caller: callers.of(failure.stack),
        })
        .collect();
    rows.sort_by_key(|row| row.at_ns);
    rows
}

/// By event and function, what took longest in all first.
pub(super) fn events(events: &[CudaEvent]) -> Vec<EventRow> {
    let mut groups: BTreeMap<(&str, &str), EventRow> = BTreeMap::new();
    for event in events {
        let row = groups.entry((&event.event, &event.function)).or_insert_with(|| EventRow {
            event: event.event.clone(),
            function: event.function.clone(),
            first_ns: event.at_ns,
            ..EventRow::default()
        });
        row.count += 1;
        row.failed += u64::from(event.result != 0);
        row.total_ns = row.total_ns.saturating_add(event.duration_ns);
        row.longest_ns = row.longest_ns.max(event.duration_ns);
        row.first_ns = row.first_ns.min(event.at_ns);
        row.last_ns = row.last_ns.max(event.at_ns);
    }
    let mut rows: Vec<_> = groups.into_values().collect();
    rows.sort_by_key(|row| std::cmp::Reverse(row.total_ns));
    rows
}
