//! A recording in the formats of other tools: one file per format, one row of [`EXPORTS`] each.
//!
//! Reports say what a recording means; these hand over what it says, for questions that no report answers. Levels are
//! those of [`spark_trace_analysis::view`], so a number is the same in every output.

mod flamegraph;
mod folded;
pub mod openmetrics;
mod parquet;
mod perfetto;
mod pprof;
mod table;

use std::io::{self, Write};

use spark_trace_analysis::flame::{KINDS, Kind};
use spark_trace_analysis::instant_spec::InstantSpec;
use spark_trace_recording::Recording;
pub use table::Table;

/// What can be chosen of an export.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Of formats that are about one instant.
    pub at: InstantSpec,
    /// Of formats with stacks as text or as a picture; which kind of bytes, where there are several.
    pub stacks: Option<&'static Kind>,
}

#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    #[error(
        "no stack has any bytes in use at this instant ({}): choose another --at, or list the hooks with `spark-trace show FILE hooks`",
        kinds(*wanted)
    )]
    NoStacks { wanted: Option<&'static Kind> },
    #[error("the flame graph cannot be drawn")]
    Flame(#[from] io::Error),
    #[error("the profile cannot be compressed")]
    Compress(#[source] io::Error),
    #[error("the recording cannot be written")]
    Recording(#[from] serde_json::Error),
    #[error("the table cannot be written")]
    Parquet(#[from] ::parquet::errors::ParquetError),
}

fn kinds(wanted: Option<&Kind>) -> String {
    let names = KINDS.iter().map(|kind| kind.name);
    wanted.map_or_else(|| names.collect::<Vec<_>>().join(", "), |kind| kind.name.to_owned())
}

/// What an export writes.
#[derive(Debug)]
pub enum Content {
    Bytes(Vec<u8>),
    /// Its text is made as it is written: that of a day has hundreds of megabytes.
    Table(Table),
}

impl From<Vec<u8>> for Content {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Bytes(bytes)
    }
}

impl Content {
    /// Writes all of it. Errors are those of `out`, which is better buffered.
    pub fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        match self {
            Self::Bytes(bytes) => out.write_all(bytes),
            Self::Table(table) => table.write(out),
        }
    }
}

type Exported = Result<Content, ExportError>;

/// A format of another tool.
#[derive(Debug)]
pub struct Export {
    pub name: &'static str,
    pub about: &'static str,
    /// Of a file's name, without the dot.
    pub extension: &'static str,
    /// Not for a terminal.
    pub binary: bool,
    /// Which of [`Options`] it heeds.
    pub at: bool,
    pub stacks: bool,
    pub export: fn(&Recording, Options) -> Exported,
}

pub const EXPORTS: &[Export] = &[
    Export {
        name: "perfetto",
        about: "Levels, processes and memory queries over time, for ui.perfetto.dev",
        extension: "pftrace",
        binary: true,
        at: false,
        stacks: false,
        export: perfetto::export,
    },
    Export {
        name: "pprof",
        about: "Bytes by stack as a profile, for go tool pprof and pprof.me",
        extension: "pb.gz",
        binary: true,
        at: true,
        stacks: false,
        export: pprof::export,
    },
    Export {
        name: "folded",
        about: "Bytes by stack as text, for flame graph tools: kind;outermost;...;innermost BYTES",
        extension: "folded",
        binary: false,
        at: true,
        stacks: true,
        export: folded::export,
    },
    Export {
        name: "flamegraph",
        about: "Bytes by stack as a picture (SVG) for a browser",
        extension: "svg",
        binary: false,
        at: true,
        stacks: true,
        export: flamegraph::export,
    },
    Export {
        name: "csv",
        about: "Every level of the run in long form, for spreadsheets, pandas, DuckDB",
        extension: "csv",
        binary: false,
        at: false,
        stacks: false,
        export: table::csv,
    },
    Export {
        name: "parquet",
        about: "The table of csv with types and metadata, for pandas, DuckDB, Spark",
        extension: "parquet",
        binary: true,
        at: false,
        stacks: false,
        export: parquet::export,
    },
    Export {
        name: "openmetrics",
        about: "The levels at one instant as metrics, for Prometheus",
        extension: "om",
        binary: false,
        at: true,
        stacks: false,
        export: openmetrics::export,
    },
    Export {
        name: RECORDING,
        about: "The recording itself; --redact replaces names, .json.zst compresses it",
        extension: "json",
        binary: false,
        at: false,
        stacks: false,
        export: |recording, _| Ok(serde_json::to_vec(recording)?.into()),
    },
];

/// The format that is no other tool's.
pub const RECORDING: &str = "recording";

#[cfg(test)]
mod tests;
