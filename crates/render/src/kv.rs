//! The text of `kv`.

use super::csv::{self, Field};
use super::document::Document;
use super::report::kv as budget;
use spark_trace_analysis::kv::{Report, Used};

pub fn document(report: &Report) -> Document {
    let mut document = Document::default();
    document.heading("KV-cache budget");
    budget::section(&mut document, report);
    document
}

/// A source in use at the reading of one run, for CSV.
struct UsedBy {
    run: &'static str,
    source: &'static str,
    bytes: u64,
    reclaimable: &'static str,
}

pub fn csv(report: &Report) -> String {
    let runs = report.a.iter().map(|a| ("a", a)).chain([("b", &report.b)]);
    let rows = runs.flat_map(|(run, budget)| {
        let used = budget.used.iter();
        used.map(move |&Used { source, bytes, reclaimable, .. }| UsedBy { run, source, bytes, reclaimable })
    });
    let rows: Vec<_> = rows.collect();
    csv::render(CSV, &rows)
}

const CSV: &[csv::Column<UsedBy>] = &[
    ("run", |row| Field::Text(row.run.to_owned())),
    ("source", |row| Field::Text(row.source.to_owned())),
    ("bytes", |row| Field::Bytes(i64::try_from(row.bytes).ok())),
    ("reclaimable", |row| Field::Text(row.reclaimable.to_owned())),
];
