//! Two studies against each other, in words and tables.

use super::tables::{interval, number, signed};
use crate::analysis::across::{Across, Difference, Kind, Row};
use crate::analysis::compare::written_p;
use crate::analysis::{SourcesAt, Verdict};
use spark_trace_recording::units::UNKNOWN;
use spark_trace_render::document::{Cell, Document, Fit, Table};
use spark_trace_render::{RenderError, Style, json, markdown, terminal};

/// A form that is one file.
#[derive(Debug)]
pub struct Format {
    pub name: &'static str,
    pub about: &'static str,
    pub render: fn(&Across, Style) -> Result<Vec<u8>, RenderError>,
}

/// The first is the default.
pub const FORMATS: &[Format] = &[
    Format {
        name: "table",
        about: "What changed, for a terminal",
        render: |of, style| Ok(terminal::render(&document(of), style).into_bytes()),
    },
    Format {
        name: "markdown",
        about: "The same, for issues and papers' repositories",
        render: |of, _| Ok(markdown::render(&document(of)).into_bytes()),
    },
    Format { name: "json", about: "Everything, for programs", render: |of, _| json::render(of) },
];

fn known(value: Option<f64>, format: fn(f64) -> String) -> String {
    value.map_or_else(|| UNKNOWN.to_owned(), format)
}

const ROWS: &[Cell<Row>] = &[
    ("FIGURE", Fit::Text, |row| row.subject.name.clone()),
    ("UNIT", Fit::Name, |row| row.subject.unit.clone()),
    ("A", Fit::Number, |row| known(row.a_mean, number)),
    ("B", Fit::Number, |row| known(row.b_mean, number)),
    ("B - A", Fit::Number, |row| known(row.difference, signed)),
    ("95 % CI", Fit::Number, |row| interval(row.ci)),
    ("P", Fit::Number, |row| known(row.p_adjusted, written_p)),
    ("VERDICT", Fit::Name, |row| row.verdict.as_str().to_owned()),
];

const FACTS: &[Cell<Difference>] = &[
    ("FACT", Fit::Text, |row| row.change.fact.clone()),
    ("A", Fit::Text, |row| row.change.before.clone().unwrap_or_else(|| UNKNOWN.to_owned())),
    ("B", Fit::Text, |row| row.change.now.clone().unwrap_or_else(|| UNKNOWN.to_owned())),
];

pub fn document(of: &Across) -> Document {
    let mut document = Document::default();
    document.heading(format!("Studies {} (A) and {} (B)", of.a, of.b));
    summary(of).into_iter().for_each(|line| document.line(line));
    rows(&mut document, &of.cells, |row| format!("{}, {}: B minus A, means", row.model, row.environment));
    rows(&mut document, &of.overheads, |row| {
        let baseline = row.baseline.as_deref().unwrap_or_default();
        format!("{}: what {} and {baseline} differ by, in B minus in A", row.model, row.environment)
    });
    let at = match of.sources_at {
        SourcesAt::Peak => "at each run's peak",
        SourcesAt::KvReading => "at each run's KV-cache reading",
    };
    let sources: Vec<Row> = of.sources.iter().filter(|row| row.difference != Some(0.0)).cloned().collect();
    rows(&mut document, &sources, |row| {
        format!("{}, {}: sources of memory {at}, B minus A, means", row.model, row.environment)
    });
    for (kind, title) in TITLES {
        let changes = of.changes.iter().filter(|change| change.kind == *kind);
        document.section(*title, Table::of(FACTS, changes));
    }
    document
}

const TITLES: &[(Kind, &str)] = &[
    (Kind::Work, "Differs in what was measured"),
    (Kind::Machine, "Differs in where it was measured"),
    (Kind::Course, "Differs in how often and in which order"),
];

fn rows(document: &mut Document, all: &[Row], title: impl Fn(&Row) -> String) {
    for group in all.chunk_by(|one, other| title(one) == title(other)) {
        document.heading(title(&group[0]));
        document.table(Table::of(ROWS, group));
        let mut reasons: Vec<&str> = vec![];
        for row in group.iter().filter(|row| row.primary || row.verdict == Verdict::NotComparable) {
            if !reasons.contains(&row.because.as_str()) {
                document.line(format!("{}: {}", row.subject.name, row.because));
                reasons.push(&row.because);
            }
        }
    }
}

fn summary(of: &Across) -> Vec<String> {
    let count = |rows: &[Row], verdict: Verdict| rows.iter().filter(|row| row.verdict == verdict).count();
    let parts = |rows: &[Row]| {
        let of = |verdict: Verdict| match count(rows, verdict) {
            0 => None,
            many => Some(format!("{many} {}", verdict.as_str())),
        };
        Verdict::ALL.into_iter().filter_map(of).collect::<Vec<_>>().join(", ")
    };
    let mut lines =
        vec![format!("{} figures of a model in an environment: {}.", of.cells.len(), parts(&of.cells))];
    if !of.overheads.is_empty() {
        lines.push(format!(
            "{} differences between environments: {}.",
            of.overheads.len(),
            parts(&of.overheads)
        ));
    }
    if !of.sources.is_empty() {
        lines.push(format!("{} sources of memory: {}.", of.sources.len(), parts(&of.sources)));
    }
    lines.push(because(of));
    for (study, only) in [(&of.a, &of.only_a), (&of.b, &of.only_b)] {
        if !only.is_empty() {
            lines.push(format!("Only {study} has: {}.", only.join(", ")));
        }
    }
    lines
}

/// What a difference may come from.
fn because(of: &Across) -> String {
    let machine: Vec<String> = of
        .changes
        .iter()
        .filter(|change| change.kind == Kind::Machine)
        .map(|change| change.change.fact.clone())
        .collect();
    let time = "The studies ran at different times, so what changes with time is part of every difference.";
    match machine.as_slice() {
        [] => format!("No recorded fact of the machine or of images differs. {time}"),
        [one] => format!("One recorded fact of the machine or of images differs: {one}. {time}"),
        many => format!(
            "{} recorded facts of the machine or of images differ ({}): figures do not separate them. {time}",
            many.len(),
            many.join(", ")
        ),
    }
}
