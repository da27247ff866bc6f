//! How a KV cache got its size.

use crate::document::{Cell, Column, Document, Fit, Table};
use crate::kv_sentences as say;
use spark_trace_analysis::kv::{
    Advice, Agreement, Budget, CachedFile, Change, Figures, OutsideUse, ProcessUse, Report, Used, WhatIf,
};
use spark_trace_recording::units::{delta, known, percent, seconds, size, unsigned};

/// Files that a budget names.
const FILES_SHOWN: usize = 10;

/// Processes outside of the target that are named.
const OUTSIDE_SHOWN: usize = 5;

pub fn section(document: &mut Document, report: &Report) {
    summary(document, report);
    details(document, report);
}

/// The answer and its arithmetic.
pub fn summary(document: &mut Document, report: &Report) {
    document.line(say::headline(report));
    if let Some(bytes) = report.b_with_state_of_a {
        document.line(format!("B's KV cache with A's memory at the readings: {}", size(bytes)));
    }
    document.section("The arithmetic", figures(report));
}

pub fn details(document: &mut Document, report: &Report) {
    for (letter, budget) in budgets(report) {
        self::budget(document, letter, budget);
    }
    advice(document, &report.advice);
}

/// Lines, not a table: what there is to say is long, and commands must be whole.
fn advice(document: &mut Document, advice: &[Advice]) {
    if !advice.is_empty() {
        document.heading("What to do about the KV cache");
    }
    for (number, advice) in (1..).zip(advice) {
        let gains =
            advice.gains_bytes.map_or_else(String::new, |bytes| format!(" (up to {} more)", unsigned(bytes)));
        let (what, risk) = say::advice(advice);
        document.line(format!("{number}. {what}{gains}. Risk: {risk}."));
        if let Some(command) = &advice.command {
            document.command(command);
        }
    }
}

/// A, where there is one, then B; one budget alone has no letter.
pub fn budgets(report: &Report) -> impl Iterator<Item = (&'static str, &Budget)> {
    let letter = if report.a.is_some() { "B" } else { "" };
    report.a.iter().map(|budget| ("A", budget)).chain([(letter, &report.b)])
}

fn budget(document: &mut Document, letter: &str, budget: &Budget) {
    let of = |what: &str| super::prefixed(letter, what);
    let reading = &budget.reading;
    document.heading(of("the KV-cache reading"));
    let query = &reading.query;
    document.line(format!(
        "after {}, {} ({}) called {}, which returned {} free{}; found by {}, agrees with {}",
        seconds(reading.since_start_ns),
        query.comm,
        query.pid,
        query.interface,
        unsigned(reading.free),
        reading.total.map_or_else(String::new, |total| format!(" of {}", unsigned(total))),
        reading.found_by,
        reading.signal.unwrap_or("no counter of the machine")
    ));
    document.line(say::engine(budget));
    if let Some(device) = reading.device_free {
        document.line(format!(
            "cuMemGetInfo_v2 returned {} free right before, in the same thread; the engine does not use it",
            unsigned(device)
        ));
    }
    if let Some(before) = &budget.baseline {
        document.line(format!(
            "baseline: after {}, {} free; it fell by {} until the reading",
            seconds(before.since_start_ns),
            unsigned(before.free),
            known(budget.figures.consumed, size)
        ));
    }
    document.line(format!(
        "in use at that time: {}, of which {} reclaimable; MemAvailable {}",
        known(budget.used_total, unsigned),
        unsigned(budget.reclaimable),
        known(budget.available, unsigned)
    ));
    if let Some(reserve) = budget.reserve {
        document.line(format!(
            "MemAvailable leaves out {} that the kernel keeps back: watermarks, and a part of page cache and slab",
            unsigned(reserve)
        ));
    }
    if let Some(failure) = &budget.failure {
        document.line(say::failed(failure));
        if !failure.line.is_empty() {
            document.line(format!("from the log: {}", failure.line));
        }
    }
    for container in &budget.containers {
        document.line(crate::limits::beyond(container));
    }
    document.section(of("in use at the reading, by source"), Table::of(USED, &budget.used));
    document.section(of("from the baseline to the reading, by source"), Table::of(CHANGES, &budget.changes));
    document.section(of("host memory at the reading, by process"), Table::of(PROCESSES, &budget.processes));
    document.section(
        of("the largest processes outside of the target, at its start and its end"),
        Table::of(OUTSIDE, budget.outside.iter().take(OUTSIDE_SHOWN)),
    );
    document.section(of("what if"), Table::of(WHAT_IF, &budget.what_if));
    document.section(of("figures in both the log and the trace"), Table::of(AGREEMENT, &budget.agreement));
    document.section(
        of("page cache at the reading, by file"),
        Table::of(FILES, budget.files.iter().take(FILES_SHOWN)),
    );
    let left_out = budget.files.get(FILES_SHOWN..).unwrap_or_default();
    if !left_out.is_empty() {
        let bytes = left_out.iter().map(|file| file.bytes).fold(0, i64::saturating_add);
        document.line(format!("and {} other files: {}", left_out.len(), size(bytes)));
    }
    for note in &budget.notes {
        document.line(format!("note: {}", say::note(*note)));
    }
}

/// The figure of which two runs have a difference.
const COMPUTED: &str = "KV cache, computed";

type Figure = (&'static str, fn(&Figures) -> Option<i64>);

fn whole(bytes: Option<u64>) -> Option<i64> {
    i64::try_from(bytes?).ok()
}

const FIGURES: &[Figure] = &[
    ("total x fraction", |figures| figures.requested),
    ("fall of the signal since the baseline", |figures| figures.consumed),
    ("allocated at the reading", |figures| whole(figures.allocated)),
    ("allocated at most before", |figures| whole(figures.allocated_peak)),
    ("given back by the dummy run", |figures| whole(figures.transient).filter(|&bytes| bytes > 0)),
    ("estimate for CUDA graphs", |figures| figures.graphs),
    ("of it, cache of the dummy run", |figures| whole(Some(figures.temporary_kv)).filter(|&bytes| bytes > 0)),
    ("outside (total - free - allocated)", |figures| whole(figures.outside)),
    ("peak (highest allocated + outside)", |figures| whole(figures.peak)),
    ("kept free by the engine", |figures| Some(figures.margin).filter(|&bytes| bytes > 0)),
    ("free, by the container's counter", |figures| whole(figures.container_free)),
    ("weights and compute buffers", |figures| figures.beside_cache),
    ("cache of the whole context", |figures| figures.context),
    (COMPUTED, |figures| figures.kv),
    ("of it, there before the reading", |figures| whole(figures.kv_backed)),
    ("range of addresses for the cache", |figures| figures.kv_upper),
    ("taken for it", |figures| whole(figures.kv_taken)),
    ("outside, as logged", |figures| whole(figures.logged_outside)),
    ("peak, as logged", |figures| whole(figures.logged_peak)),
    ("KV cache, as logged", |figures| figures.logged_kv),
    ("allocated for it, from the log", |figures| whole(figures.logged_allocated)),
];

/// The framework's arithmetic, a column for each run.
fn figures(report: &Report) -> Table {
    let column = |title: &str, fit| Column { title: title.to_owned(), fit };
    let budgets: Vec<_> = budgets(report).collect();
    let letters = budgets.iter().map(|(letter, _)| {
        let letter = if letter.is_empty() { "BYTES" } else { letter };
        column(letter, Fit::Number)
    });
    let columns = std::iter::once(column("FIGURE", Fit::Name)).chain(letters).collect();
    let row = |name: &str, cell: &dyn Fn(&Budget) -> String| -> Vec<String> {
        std::iter::once(name.to_owned()).chain(budgets.iter().map(|(_, budget)| cell(budget))).collect()
    };
    let mut rows = vec![
        row("free, by the answer", &|budget| unsigned(budget.reading.free)),
        row("total, by the answer", &|budget| known(budget.reading.total, unsigned)),
        row("fraction for the cache", &|budget| {
            let from = budget.figures.fraction_from.unwrap_or_default();
            known(budget.figures.fraction, |fraction| format!("{fraction} ({from})"))
        }),
    ];
    let known_figures =
        FIGURES.iter().filter(|(_, of)| budgets.iter().any(|(_, b)| of(&b.figures).is_some()));
    rows.extend(known_figures.map(|(name, of)| row(name, &|budget| known(of(&budget.figures), size))));
    let mut table = Table { columns, rows };
    if budgets.len() > 1 {
        table.columns.push(column("B MINUS A", Fit::Number));
        for row in &mut table.rows {
            let is_kv = row.first().is_some_and(|name| *name == COMPUTED);
            row.push(match is_kv {
                true => known(report.kv_delta_bytes, delta),
                false => String::new(),
            });
        }
    }
    table
}

const USED: &[Cell<Used>] = &[
    ("SOURCE", Fit::Name, |row| row.source.to_owned()),
    ("BYTES", Fit::Number, |row| unsigned(row.bytes)),
    ("RECLAIMABLE", Fit::Name, |row| row.reclaimable.to_owned()),
    ("LOWERS SIGNAL", Fit::Name, |row| if row.lowers { "yes" } else { "no" }.to_owned()),
    ("WHAT", Fit::Text, |row| row.title.to_owned()),
];

const WHAT_IF: &[Cell<WhatIf>] = &[
    ("IF", Fit::Text, say::what_if),
    ("KV CACHE", Fit::Number, |row| size(row.kv)),
    ("CHANGE", Fit::Number, |row| delta(row.delta)),
];

const AGREEMENT: &[Cell<Agreement>] = &[
    ("FIGURE", Fit::Name, |row| row.figure.to_owned()),
    ("LOGGED", Fit::Number, |row| size(row.logged)),
    ("TRACED", Fit::Number, |row| size(row.traced)),
    ("TRACED MINUS LOGGED", Fit::Number, |row| percent(row.percent)),
];

const FILES: &[Cell<CachedFile>] = &[
    ("BYTES", Fit::Number, |row| size(row.bytes)),
    ("FILE", Fit::Path, |row| row.path.clone()),
    ("FIRST TOUCH", Fit::Text, |row| {
        row.first_touch.clone().unwrap_or_else(|| "before the trace".to_owned())
    }),
    ("CHARGED TO", Fit::Path, |row| row.charged_to.clone()),
];

const CHANGES: &[Cell<Change>] = &[
    ("SOURCE", Fit::Name, |row| row.source.to_owned()),
    ("BASELINE", Fit::Number, |row| size(row.before)),
    ("READING", Fit::Number, |row| size(row.after)),
    ("CHANGE", Fit::Number, |row| delta(row.change)),
    ("WHAT", Fit::Text, |row| row.title.to_owned()),
];

const PROCESSES: &[Cell<ProcessUse>] = &[
    ("PID", Fit::Number, |row| known(row.pid, |pid| pid.to_string())),
    ("COMM", Fit::Name, |row| row.comm.clone()),
    ("BASELINE", Fit::Number, |row| known(row.before, unsigned)),
    ("READING", Fit::Number, |row| unsigned(row.at)),
    ("COSTS THE CACHE", Fit::Number, |row| known(row.costs, size)),
    ("WHO", Fit::Text, |row| say::role(row.role, row.pid.is_some()).to_owned()),
];

const OUTSIDE: &[Cell<OutsideUse>] = &[
    ("PID", Fit::Number, |row| row.pid.to_string()),
    ("COMM", Fit::Name, |row| row.comm.clone()),
    ("START", Fit::Number, |row| known(row.at_start, unsigned)),
    ("END", Fit::Number, |row| known(row.at_end, unsigned)),
];
