//! The text of `diff`.

use spark_trace_common::source::UNATTRIBUTED;

use super::charges;
use super::csv::{self, Field};
use super::cuda;
use super::document::{Cell, Document, Fit, Table};
use super::engine_run;
use super::findings;
use spark_trace_analysis::diff::detail::{FileDelta, OnlyIn, RegionDelta, StackDelta};
use spark_trace_analysis::diff::{Report, Side, SourceDelta};
use spark_trace_analysis::files::FileRow;
use spark_trace_analysis::passing::{self, Stack};
use spark_trace_analysis::view::Scope;
use spark_trace_recording::units::{delta, known, share, size};

/// How much is shown.
#[derive(Debug, Clone, Copy, Default)]
pub struct Shown {
    /// Every hypothesis by its name, also those that are refuted.
    pub all: bool,
}

pub fn document(report: &Report, Shown { all }: Shown) -> Document {
    let mut document = Document::default();
    document.heading(format!(
        "B minus A on the {} plane, each at its {}",
        report.plane.as_str(),
        report.at.of_a_run()
    ));
    for warning in &report.warnings {
        document.warning(warning);
    }
    document.line(&report.at_reason);
    for (name, side) in [("A", &report.a), ("B", &report.b)] {
        document.line(self::side(name, side));
    }
    comparable(&mut document, report);
    document.heading("Sources");
    document.table(sources(report));
    document.line(format!(
        "total difference {}, of which unattributed {}",
        known(report.total_delta_bytes, delta),
        known(report.residual_bytes, delta)
    ));
    let counted = match report.plane {
        Scope::System => "Page cache by file (since each trace began)",
        Scope::Cgroup => "Page cache by file, charged to the target (since each trace began)",
        // It has none.
        Scope::Device => "",
    };
    document.section(counted, Table::of(FILES, &report.files));
    document.section(
        "Kernel and driver pages by stack (since each trace began)",
        Table::of(STACKS, &report.stacks),
    );
    document
        .section("Charged by stack (since each trace began)", Table::of(charges::DELTAS, &report.charges));
    document.section("Anonymous and shared memory by mapping", Table::of(REGIONS, &report.regions));
    if let Some(cuda) = &report.cuda {
        cuda::diff(&mut document, cuda);
    }
    engine_run::diff(&mut document, &report.engine);
    findings::show(&mut document, &report.findings, all);
    document
}

fn side(name: &str, side: &Side) -> String {
    format!("{name}: {} {}, {}", side.kind, side.target, known(side.expected, size))
}

fn comparable(document: &mut Document, report: &Report) {
    for reason in &report.comparable.reasons {
        document.warning(format!("not comparable: {reason}"));
    }
    for note in &report.comparable.notes {
        document.line(format!("note: {note}"));
    }
}

/// Rows with anything in them; `unattributed` in any case.
fn sources(report: &Report) -> Table {
    let rows = report.sources.iter().filter(|row| {
        let levels = [row.a_bytes, row.b_bytes];
        row.source == UNATTRIBUTED || levels.into_iter().flatten().any(|bytes| bytes != 0)
    });
    Table::of(SOURCES, rows)
}

const SOURCES: &[Cell<SourceDelta>] = &[
    ("SOURCE", Fit::Name, |row| row.source.to_owned()),
    ("A", Fit::Number, |row| known(row.a_bytes, size)),
    ("B", Fit::Number, |row| known(row.b_bytes, size)),
    ("DELTA", Fit::Number, |row| known(row.delta_bytes, delta)),
    ("SHARE", Fit::Number, |row| known(row.share, |part| share(part * 100.0))),
];

pub(super) const FILES: &[Cell<FileDelta>] = &[
    ("DELTA", Fit::Number, |row| delta(row.delta_bytes)),
    ("ONLY IN", Fit::Name, |row| only_in(row.only_in)),
    ("FILE", Fit::Path, |row| row.path.clone()),
    ("FIRST TOUCH", Fit::Text, holders),
];

pub(super) const STACKS: &[Cell<StackDelta>] = &[
    ("DELTA", Fit::Number, |row| delta(row.delta_bytes)),
    ("ONLY IN", Fit::Name, |row| only_in(row.only_in)),
    ("SOURCE", Fit::Name, |row| row.source.to_owned()),
    ("STACK", Fit::Text, |row| passing::line(&row.frames, Stack::Kernel)),
];

pub(super) const REGIONS: &[Cell<RegionDelta>] = &[
    ("DELTA", Fit::Number, |row| delta(row.delta_bytes)),
    ("A", Fit::Number, |row| size(row.a_bytes)),
    ("B", Fit::Number, |row| size(row.b_bytes)),
    ("SOURCE", Fit::Name, |row| row.source.to_owned()),
    ("COMM", Fit::Name, |row| row.comm.clone()),
    ("MAPPING", Fit::Path, |row| row.region.clone()),
];

fn only_in(side: Option<OnlyIn>) -> String {
    match side {
        Some(OnlyIn::A) => "A",
        Some(OnlyIn::B) => "B",
        None => "",
    }
    .to_owned()
}

/// Each run's largest holder of a file, with whoever made it pay.
fn holders(row: &FileDelta) -> String {
    let largest = |rows: &[FileRow]| {
        let holder = rows.first()?;
        let cgroup = holder.payer.rsplit('/').find(|part| !part.is_empty()).unwrap_or("/");
        Some(match &holder.first_touch {
            Some(touch) => format!("{cgroup} ({})", touch.comm),
            None if holder.is_from_before() => format!("{cgroup} (cached before)"),
            // It has only lost pages.
            None => cgroup.to_owned(),
        })
    };
    let sides = [("A", largest(&row.a_holders)), ("B", largest(&row.b_holders))];
    let named = sides.into_iter().filter_map(|(name, holder)| Some(format!("{name}: {}", holder?)));
    named.collect::<Vec<_>>().join("; ")
}

pub const CSV: &[csv::Column<SourceDelta>] = &[
    ("source", |row| Field::Text(row.source.to_owned())),
    ("a_bytes", |row| Field::Bytes(row.a_bytes)),
    ("b_bytes", |row| Field::Bytes(row.b_bytes)),
    ("delta_bytes", |row| Field::Bytes(row.delta_bytes)),
    ("share", |row| Field::Ratio(row.share)),
];
