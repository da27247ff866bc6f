//! Reports of studies: one file per form, one row of [`FORMATS`] each; the site is many files.

pub mod across;
mod charts;
mod data;
mod figures;
mod happenings;
mod latex;
mod models;
mod narrative;
pub mod site;
mod state;
mod tables;
mod threats;

pub use happenings::happened;

use crate::analysis::Report;
use crate::results::Results;
use spark_trace_render::RenderError;
use spark_trace_render::scene::pdf::PdfError;
use spark_trace_render::{Style, json, markdown, terminal};

/// What a report is made from: the runs, and what the analysis found in them.
#[derive(Debug)]
pub struct Studied {
    pub results: Results,
    pub report: Report,
}

#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    #[error(transparent)]
    Render(#[from] RenderError),
    #[error(transparent)]
    Pdf(#[from] PdfError),
}

/// A form that is one file.
#[derive(Debug)]
pub struct Format {
    pub name: &'static str,
    pub about: &'static str,
    pub render: fn(&Studied, Style) -> Result<Vec<u8>, RenderError>,
}

/// The first is the default of what is printed.
pub const FORMATS: &[Format] = &[
    Format {
        name: "table",
        about: "Verdicts and their reasons, for a terminal",
        render: |of, style| Ok(terminal::render(&narrative::brief(&of.report), style).into_bytes()),
    },
    Format {
        name: "markdown",
        about: "Every table, for issues and papers' repositories",
        render: |of, _| Ok(markdown::render(&narrative::document(&of.report)).into_bytes()),
    },
    Format {
        name: "csv",
        about: "Every comparison with its figures, for spreadsheets and other statistics",
        render: |of, _| Ok(tables::csv(&of.report).into_bytes()),
    },
    Format {
        name: "runs",
        about: "Every run with its figures, a row each (CSV)",
        render: |of, _| Ok(data::runs(&of.results).into_bytes()),
    },
    Format {
        name: "runs-dictionary",
        about: "The columns of `runs` with their units (CSV)",
        render: |of, _| Ok(data::dictionary(&of.results).into_bytes()),
    },
    Format { name: "json", about: "Everything, for programs", render: |of, _| json::render(&of.report) },
    Format {
        name: "latex",
        about: "Tables for a paper (package booktabs)",
        render: |of, _| Ok(latex::render(&of.report).into_bytes()),
    },
];
