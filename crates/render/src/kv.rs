//! The text of `kv`.

use super::csv::{self, Field};
use super::document::Document;
use super::report::kv as budget;
use super::{Rendered, json, kv_sentences};
use spark_trace_analysis::kv::{Report, Used};

pub fn document(report: &Report) -> Document {
    let mut document = Document::default();
    document.heading("KV-cache budget");
    budget::section(&mut document, report);
    document
}

/// The report, and the sentences that were in it before there were words for their parts.
pub fn json(report: &Report) -> Rendered {
    let mut value = serde_json::to_value(report)?;
    value["headline"] = kv_sentences::headline(report).into();
    for (index, advice) in report.advice.iter().enumerate() {
        let (what, risk) = kv_sentences::advice(advice);
        value["advice"][index]["what"] = what.into();
        value["advice"][index]["risk"] = risk.into();
    }
    let budgets = report.a.iter().map(|budget| ("a", budget)).chain([("b", &report.b)]);
    for (letter, budget) in budgets {
        for (index, row) in budget.what_if.iter().enumerate() {
            value[letter]["what_if"][index]["what"] = kv_sentences::what_if(row).into();
        }
        let notes: Vec<_> = budget.notes.iter().map(|note| kv_sentences::note(*note)).collect();
        value[letter]["notes"] = notes.into();
    }
    json::render(&value)
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
