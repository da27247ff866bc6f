//! From reports to bytes: pure. One file per format, one row of [`FORMATS`] each.
//!
//! `show` and `diff` make a [`document`]; `terminal` and `markdown` set any
//! document. Names from outside are made inert in the formats, in one place each (see [`escape`]).

pub mod ascii;
pub mod document;
pub mod escape;
pub mod export;
pub mod exposition;
pub mod html;
pub mod json;
pub mod markdown;
pub mod plot;
pub mod report;
pub mod scene;
pub mod terminal;

mod charges;
mod containers;
pub mod csv;
mod cuda;
mod devices;
pub mod diff;
pub mod engine_run;
mod findings;
mod kv;
mod kv_sentences;
mod limits;
mod memory_queries;
pub mod memory_use;
mod process_env;
pub mod show;
mod stack_frames;
mod user_stacks;

use spark_trace_analysis::{attribution, diff as comparison, kv as budget};

/// What the place of output can show.
#[derive(Debug, Clone, Copy)]
pub struct Style {
    /// Columns that a line may have; absent where nothing is to be cut or wrapped.
    pub width: Option<usize>,
    pub colour: bool,
    /// The locale has no other characters.
    pub ascii: bool,
}

/// Columns of what cannot do without a width, where none is given: a picture, the live view.
pub const USUAL_WIDTH: usize = 80;

impl Default for Style {
    fn default() -> Self {
        Self { width: Some(USUAL_WIDTH), colour: false, ascii: false }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("the report has no JSON form")]
pub struct RenderError(#[from] serde_json::Error);

type Rendered = Result<Vec<u8>, RenderError>;

/// A form that every report can take.
#[derive(Debug)]
pub struct Format {
    pub name: &'static str,
    pub about: &'static str,
    /// Made for programs: lists are whole by default.
    pub whole: bool,
    pub show: fn(&attribution::Report, &show::Shown<'_>, Style) -> Rendered,
    pub diff: fn(&comparison::Report, diff::Shown, Style) -> Rendered,
    pub kv: fn(&budget::Report, Style) -> Rendered,
}

/// Every format; the first is the default.
pub const FORMATS: &[Format] = &[
    Format {
        name: "table",
        about: "Tables for a terminal",
        whole: false,
        show: |report, shown, style| Ok(terminal::render(&show::document(report, shown), style).into_bytes()),
        diff: |report, shown, style| Ok(terminal::render(&diff::document(report, shown), style).into_bytes()),
        kv: |report, style| Ok(terminal::render(&kv::document(report), style).into_bytes()),
    },
    Format {
        name: "json",
        about: "Everything, for programs",
        whole: true,
        show: |report, _, _| json::render(report),
        diff: |report, _, _| json::render(report),
        kv: |report, _| kv::json(report),
    },
    Format {
        name: "csv",
        about: "The rows of the sources, for spreadsheets",
        whole: true,
        show: |report, _, _| Ok(csv::render(show::CSV, &show::csv_rows(report)).into_bytes()),
        diff: |report, _, _| Ok(csv::render(diff::CSV, &report.sources).into_bytes()),
        kv: |report, _| Ok(kv::csv(report).into_bytes()),
    },
    Format {
        name: "markdown",
        about: "The tables, for issues and reports",
        whole: false,
        show: |report, shown, _| Ok(markdown::render(&show::document(report, shown)).into_bytes()),
        diff: |report, shown, _| Ok(markdown::render(&diff::document(report, shown)).into_bytes()),
        kv: |report, _| Ok(markdown::render(&kv::document(report)).into_bytes()),
    },
];

#[cfg(test)]
mod tests;
