//! Environment and rights of the target's processes.

use super::document::{Cell, Document, Fit, Table};
use spark_trace_analysis::process_env::{capability_count, seccomp};
use spark_trace_recording::ProcessContext;
use spark_trace_recording::units::{known, unsigned};

/// The limit that decides what can be pinned.
const LOCKED: &str = "Max locked memory";

pub fn contexts(document: &mut Document, contexts: &[ProcessContext]) {
    document.section("Environment and rights", Table::of(CONTEXTS, contexts));
}

const CONTEXTS: &[Cell<ProcessContext>] = &[
    ("PID", Fit::Number, |row| row.pid.to_string()),
    ("COMM", Fit::Name, |row| row.comm.clone()),
    ("CAPABILITIES", Fit::Name, |row| known(row.capabilities, capability_count)),
    ("SECCOMP", Fit::Name, |row| known(row.seccomp, seccomp)),
    ("MEMLOCK", Fit::Number, |row| {
        known(row.limits.get(LOCKED), |soft| soft.map_or_else(|| "unlimited".to_owned(), unsigned))
    }),
    ("ENVIRONMENT", Fit::Text, |row| {
        let variables = row.environment.iter().map(|(name, value)| format!("{name}={value}"));
        variables.collect::<Vec<_>>().join(" ")
    }),
];
