//! Reports of studies: one file per form, one row of [`FORMATS`] each; the site is many files.

mod charts;
mod latex;
mod narrative;
pub mod site;
mod tables;

use crate::analysis::Report;
use spark_trace_render::RenderError;
use spark_trace_render::{Style, json, markdown, terminal};

/// A form that is one file.
#[derive(Debug)]
pub struct Format {
    pub name: &'static str,
    pub about: &'static str,
    pub render: fn(&Report, Style) -> Result<Vec<u8>, RenderError>,
}

/// The first is the default of what is printed.
pub const FORMATS: &[Format] = &[
    Format {
        name: "table",
        about: "Verdicts and their reasons, for a terminal",
        render: |report, style| Ok(terminal::render(&narrative::brief(report), style).into_bytes()),
    },
    Format {
        name: "markdown",
        about: "Every table, for issues and papers' repositories",
        render: |report, _| Ok(markdown::render(&narrative::document(report)).into_bytes()),
    },
    Format {
        name: "csv",
        about: "Every comparison with its figures, for spreadsheets and other statistics",
        render: |report, _| Ok(tables::csv(report).into_bytes()),
    },
    Format { name: "json", about: "Everything, for programs", render: |report, _| json::render(report) },
    Format {
        name: "latex",
        about: "The main table for a paper (package booktabs)",
        render: |report, _| Ok(latex::render(report).into_bytes()),
    },
];
