//! What `reclaim` shows: the steps, and the machine before and after them.

mod launch;

pub use launch::Launch;

use serde::Serialize;

use spark_trace_agent::reclaim::{Kind, Step};
use spark_trace_analysis::diff::{self, DiffError, SourceDelta};
use spark_trace_analysis::instant_spec::InstantSpec;
use spark_trace_analysis::view::Scope;
use spark_trace_recording::Recording;
use spark_trace_recording::units::{UNKNOWN, delta, duration, known, size, unsigned};
use spark_trace_render::document::{Cell, Document, Fit, Table};

const SCHEMA: &str = "spark-trace/reclaim";
const SCHEMA_VERSION: u32 = 1;

/// The steps with their outcomes. Sizes are bytes.
#[derive(Debug, Serialize)]
pub struct Report {
    schema: &'static str,
    schema_version: u32,
    /// Whether the steps were taken.
    applied: bool,
    launch: Option<Launch>,
    steps: Vec<Step>,
    memory: Memory,
    /// The machine by source, before the first step and after the last; empty in a dry run.
    sources: Vec<SourceDelta>,
}

/// Free memory by the kernel's two figures.
#[derive(Debug, Serialize)]
struct Memory {
    free_before: Option<i64>,
    free_after: Option<i64>,
    available_before: Option<i64>,
    available_after: Option<i64>,
}

impl Report {
    /// `after` is absent in a dry run.
    pub fn new(
        steps: Vec<Step>,
        launch: Option<Launch>,
        before: &Recording,
        after: Option<&Recording>,
    ) -> Result<Self, DiffError> {
        let compare = |after| diff::report(before, after, Some(Scope::System), InstantSpec::End);
        let sources = after.map(compare).transpose()?.map(|report| report.sources).unwrap_or_default();
        let of = |recording: Option<&Recording>, name: &str| {
            recording?.samples.system.columns.get(name)?.last().and_then(|value| i64::try_from(value).ok())
        };
        let memory = Memory {
            free_before: of(Some(before), "meminfo.MemFree"),
            free_after: of(after, "meminfo.MemFree"),
            available_before: of(Some(before), "meminfo.MemAvailable"),
            available_after: of(after, "meminfo.MemAvailable"),
        };
        let applied = after.is_some();
        Ok(Self { schema: SCHEMA, schema_version: SCHEMA_VERSION, applied, launch, steps, memory, sources })
    }

    /// Whether a step was refused or failed.
    pub fn is_incomplete(&self) -> bool {
        let failed = |step: &Step| step.outcome.as_ref().is_some_and(|outcome| outcome.error.is_some());
        self.steps.iter().any(|step| step.refused.is_some() || failed(step))
    }

    pub fn document(&self) -> Document {
        let mut document = Document::default();
        document.heading(self.title());
        if let Some(launch) = &self.launch {
            document.line(launch.sentence());
        }
        if self.steps.is_empty() {
            document.line("No step is chosen: name what may go, such as --files with the engine's files, or --page-cache.");
        } else {
            document.table(Table::of(if self.applied { TAKEN } else { EXPECTED }, &self.steps));
        }
        for step in &self.steps {
            self.explain(&mut document, step);
        }
        document.heading("The machine");
        document.line(self.memory.sentence());
        let changed = self.sources.iter().filter(|row| row.delta_bytes.is_some_and(|bytes| bytes != 0));
        document.section(
            "Sources, before the first step (A) and after the last (B)",
            Table::of(SOURCES, changed),
        );
        if self.applied {
            document
                .line("Other programs took and freed memory meanwhile: these rows have their changes, too.");
        } else {
            document
                .line("Nothing was changed. Choose steps by their options, and add --apply to take them.");
        }
        document
    }

    fn title(&self) -> String {
        if !self.applied {
            return "What could be given back (dry run)".to_owned();
        }
        let given = self.steps.iter().filter_map(|step| step.outcome.as_ref()?.given_back_bytes);
        format!("Given back: {}", size(given.sum()))
    }

    fn explain(&self, document: &mut Document, step: &Step) {
        let name = name(step);
        if let Some(why) = &step.refused {
            document.warning(format!("{name}: cannot be taken: {why}"));
            return;
        }
        if let Some(why) = &step.needless {
            document.line(format!("{name}: left out: {why}"));
            return;
        }
        if let Some(error) = step.outcome.as_ref().and_then(|outcome| outcome.error.as_ref()) {
            document.warning(format!("{name}: failed: {error}"));
        }
        // What was found when the step was taken is the newer.
        let kept = step.outcome.as_ref().map(|outcome| &outcome.kept).filter(|kept| !kept.is_empty());
        for kept in kept.unwrap_or(&step.kept) {
            document.line(format!("{name}: {} stays: {}", unsigned(kept.bytes), kept.why));
        }
        for note in &step.notes {
            document.line(format!("{name}: {note}"));
        }
        if let Some([before, after]) = step.outcome.as_ref().and_then(|outcome| outcome.blocks) {
            let (before, after) = (unsigned(before), unsigned(after));
            document.line(format!(
                "{name}: free memory in blocks of 2 MiB and more: {before} before, {after} after"
            ));
        }
    }
}

impl Memory {
    fn sentence(&self) -> String {
        let level = |bytes| known(bytes, size);
        let now = |before, after: Option<i64>| match after {
            Some(_) => format!("{} before, {} after", level(before), level(after)),
            None => level(before),
        };
        format!(
            "MemFree {}; MemAvailable {}",
            now(self.free_before, self.free_after),
            now(self.available_before, self.available_after)
        )
    }
}

fn name(step: &Step) -> String {
    step.subject.as_ref().map_or_else(|| step.kind.to_string(), |subject| format!("{} {subject}", step.kind))
}

fn expected(step: &Step) -> String {
    match step.kind {
        Kind::Compaction => UNKNOWN.to_owned(),
        _ => known(step.expected_bytes.filter(|_| step.is_open()), unsigned),
    }
}

const STEP: Cell<Step> = ("STEP", Fit::Name, |step| step.kind.to_string());
const OF: Cell<Step> = ("OF", Fit::Path, |step| step.subject.clone().unwrap_or_default());
const RISK: Cell<Step> = ("RISK", Fit::Text, |step| step.risk.to_owned());

const EXPECTED: &[Cell<Step>] = &[("GIVES BACK", Fit::Number, expected), STEP, OF, RISK];

const TAKEN: &[Cell<Step>] = &[
    ("EXPECTED", Fit::Number, expected),
    ("GIVEN BACK", Fit::Number, |step| {
        let bytes = step.outcome.as_ref().and_then(|outcome| outcome.given_back_bytes);
        known(bytes, size)
    }),
    ("TOOK", Fit::Number, |step| known(step.outcome.as_ref(), |outcome| duration(outcome.took_ns))),
    STEP,
    OF,
];

const SOURCES: &[Cell<SourceDelta>] = &[
    ("SOURCE", Fit::Name, |row| row.source.to_owned()),
    ("A", Fit::Number, |row| known(row.a_bytes, size)),
    ("B", Fit::Number, |row| known(row.b_bytes, size)),
    ("DELTA", Fit::Number, |row| known(row.delta_bytes, delta)),
];
