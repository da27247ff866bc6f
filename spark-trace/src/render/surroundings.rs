//! Environment and rights of the target's processes, and what file systems in memory hold.

use super::document::{Cell, Document, Fit, Table};
use super::units::{delta, known, unsigned};
use crate::analysis::context::{capability_count, seccomp};
use crate::analysis::tmpfs::TmpfsRow;
use crate::recording::ProcessContext;

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

pub fn tmpfs(document: &mut Document, rows: &[TmpfsRow]) {
    // A machine has a dozen empty ones.
    let used = |row: &&TmpfsRow| row.bytes_at_start.max(row.bytes_at_end) > Some(0);
    let rows: Vec<_> = rows.iter().filter(used).collect();
    document.section("Memory file systems", Table::of(TMPFS, rows.iter().copied()));
    for row in rows.iter().filter(|row| !row.notes.is_empty()) {
        document.line(format!("{}: {}", row.mount_point, row.notes.join("; ")));
    }
}

const TMPFS: &[Cell<TmpfsRow>] = &[
    ("MOUNTED AT", Fit::Path, |row| row.mount_point.clone()),
    ("START", Fit::Number, |row| known(row.bytes_at_start, unsigned)),
    ("END", Fit::Number, |row| known(row.bytes_at_end, unsigned)),
    ("GROWTH", Fit::Number, |row| {
        let both = row.bytes_at_end.zip(row.bytes_at_start);
        let growth = both.map(|(end, start)| i64::try_from(i128::from(end) - i128::from(start)));
        known(growth.and_then(Result::ok), delta)
    }),
    ("LARGEST", Fit::Number, |row| known(row.largest(), |file| unsigned(file.bytes))),
    ("FILE", Fit::Path, |row| row.largest().map(|file| file.path.clone()).unwrap_or_default()),
];
