//! What `kv` has to tell.

use super::csv::{self, Field};
use super::document::{Cell, Document, Fit, Table};
use super::units::{UNKNOWN, delta, known, percent, seconds, size, unsigned};
use crate::analysis::kv::{Agreement, Budget, CachedFile, Report, Used, WhatIf};

pub fn document(report: &Report) -> Document {
    let mut document = Document::default();
    document.heading("KV-cache budget");
    document.line(&report.headline);
    match &report.a {
        Some(a) => {
            budget(&mut document, "A: ", a);
            budget(&mut document, "B: ", &report.b);
            if let Some(kv) = report.b_with_state_of_a {
                document.line(format!(
                    "With as much in use by others as in A, B would have had {}",
                    unsigned(kv)
                ));
            }
        }
        None => budget(&mut document, "", &report.b),
    }
    if !report.advice.is_empty() {
        document.heading("What to do about it");
    }
    for (number, advice) in (1..).zip(&report.advice) {
        let gains =
            advice.gains_bytes.map_or_else(String::new, |bytes| format!(" (up to {} more)", unsigned(bytes)));
        document.line(format!("{number}. {}{gains}. Risk: {}.", advice.what, advice.risk));
        if let Some(command) = &advice.command {
            document.command(command);
        }
    }
    document
}

fn budget(document: &mut Document, name: &str, budget: &Budget) {
    let (reading, figures) = (&budget.reading, &budget.figures);
    let of = reading.total.map_or_else(String::new, |total| format!(" of {}", unsigned(total)));
    document.heading(format!(
        "{name}after {}, {} told {} ({}) that {}{of} is free",
        seconds(reading.since_start_ns),
        reading.query.asked,
        reading.query.comm,
        reading.query.pid,
        unsigned(reading.free)
    ));
    let signal =
        reading.signal.map_or_else(|| "with no figure of the kernel's".to_owned(), ToOwned::to_owned);
    document.line(format!(
        "the answer agrees with {signal}; it is taken for the one that sized the cache because of the {}",
        reading.found_by
    ));
    for note in &budget.notes {
        document.line(format!("note: {note}"));
    }
    let rows: Vec<Figure> = figure_rows(budget);
    document.table(Table::of(FIGURES, &rows));
    document.section(
        format!("{name}agreement of the log with the trace"),
        Table::of(AGREEMENT, &budget.agreement),
    );
    document.section(
        format!(
            "{name}in use then: {}, of which the kernel would have given up {}; MemAvailable {}",
            known(budget.used_total, unsigned),
            unsigned(budget.reclaimable),
            known(budget.available, unsigned)
        ),
        Table::of(USED, &budget.used),
    );
    document.section(
        format!("{name}page cache by file then (since the trace began)"),
        Table::of(FILES, &budget.files),
    );
    let had = known(figures.kv, unsigned);
    document.section(
        format!("{name}the cache would be {had} by the arithmetic; and if"),
        Table::of(WHAT_IF, &budget.what_if),
    );
}

/// A figure of the arithmetic, as the log has it and as the trace does.
struct Figure {
    name: &'static str,
    logged: Option<u64>,
    traced: Option<u64>,
}

fn figure_rows(budget: &Budget) -> Vec<Figure> {
    let figures = &budget.figures;
    let row = |name, logged, traced| Figure { name, logged, traced };
    let temporary = (figures.temporary_kv > 0).then_some(figures.temporary_kv);
    vec![
        row("own allocations at the reading", None, figures.allocated),
        row("own allocations, at most until then", None, figures.allocated_peak),
        row("in use by others (total - free - own)", figures.logged_outside, figures.outside),
        row("peak (own, at most, and others)", figures.logged_peak, figures.peak),
        row("cache of the dummy run", temporary, None),
        row("KV cache ((total - peak + dummy) x fraction)", figures.logged_kv, figures.kv),
        row("KV cache, as it was allocated", figures.logged_allocated, figures.kv_taken),
    ]
}

const FIGURES: &[Cell<Figure>] = &[
    ("FIGURE", Fit::Name, |row| row.name.to_owned()),
    ("LOG", Fit::Number, |row| known(row.logged, unsigned)),
    ("TRACE", Fit::Number, |row| known(row.traced, unsigned)),
];

const AGREEMENT: &[Cell<Agreement>] = &[
    ("FIGURE", Fit::Name, |row| row.figure.to_owned()),
    ("LOG", Fit::Number, |row| unsigned(row.logged)),
    ("TRACE", Fit::Number, |row| unsigned(row.traced)),
    ("OFF BY", Fit::Number, |row| percent(row.percent)),
];

const USED: &[Cell<Used>] = &[
    ("SOURCE", Fit::Name, |row| row.source.to_owned()),
    ("BYTES", Fit::Number, |row| unsigned(row.bytes)),
    ("RECLAIMABLE", Fit::Name, |row| row.reclaimable.to_owned()),
];

const FILES: &[Cell<CachedFile>] = &[
    ("BYTES", Fit::Number, |row| size(row.bytes)),
    ("FIRST TOUCHED BY", Fit::Name, |row| row.first_touch.clone().unwrap_or_else(|| UNKNOWN.to_owned())),
    ("FILE", Fit::Path, |row| row.path.clone()),
];

const WHAT_IF: &[Cell<WhatIf>] = &[
    ("IF", Fit::Text, |row| row.what.clone()),
    ("KV CACHE", Fit::Number, |row| unsigned(row.kv)),
    ("CHANGE", Fit::Number, |row| delta(row.delta)),
];

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
