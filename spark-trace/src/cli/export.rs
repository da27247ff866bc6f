use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};

use crate::cli::bounded::bounded;
use crate::cli::destination::Destination;
use crate::cli::error::Exit;
use crate::cli::headings;
use crate::cli::view::instant;
use spark_trace_analysis::flame::{KINDS, Kind};
use spark_trace_analysis::instant_spec::Choice;
use spark_trace_recording as recording;
use spark_trace_recording::{Recording, redact::redact};
use spark_trace_render::export::{Content, EXPORTS, Export, Options, RECORDING};

/// Convert a recording for other tools
///
/// Levels are those of `show`, at every instant. Planes overlap (a charged page is on the system plane and on the cgroup
/// plane): do not sum across them. docs/export.md explains how to open each format.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Recording to export (.json or .json.zst)
    file: PathBuf,
    /// Format to write
    #[arg(help_heading = headings::OUTPUT, long, value_name = "FORMAT", value_parser = exports())]
    to: &'static Export,
    /// File to write, or - for standard output [default: standard output for formats that are text]
    #[arg(help_heading = headings::OUTPUT, short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Instant to export, for formats that have only one: peak, end, kv (the KV-cache reading), a time since the start
    /// such as 465ms or 12.5s, or @NS, nanoseconds of the recording's clock [default: peak]
    #[arg(help_heading = headings::CONTENT, long, value_name = "INSTANT")]
    at: Option<Choice>,
    /// Kind of stacks, for folded and flamegraph [default: all; flamegraph: the first available]
    #[arg(help_heading = headings::CONTENT, long, value_name = "KIND", value_parser = kinds())]
    stacks: Option<&'static Kind>,
    /// Replace names of users, processes, functions, files, cgroups and images
    #[arg(help_heading = headings::CONTENT, long)]
    redact: bool,
    /// Replace an existing file
    #[arg(help_heading = headings::OUTPUT, long)]
    force: bool,
}

const EXAMPLES: &str = "\
Examples:
  spark-trace export run.json --to perfetto -o run.pftrace    # open in ui.perfetto.dev
  spark-trace export run.json --to pprof --at kv -o run.pb.gz
  spark-trace export run.json --to csv > run.csv
  spark-trace export run.json --to flamegraph --stacks pages -o run.svg
  spark-trace export run.json --to openmetrics --at end -o run.om
  spark-trace export run.json --to recording --redact -o for-the-issue.json";

pub fn run(args: Args) -> anyhow::Result<Exit> {
    wrong_usage(&args).map_err(|error| error.context(Exit::Usage))?;
    let (file, output) = (args.file.clone(), args.output.clone());
    let destination = Destination::new(output.as_deref(), args.force)?;
    match bounded(&[&file], move || exported(&args))? {
        Exported::Recording(recording) => {
            destination.write_recording(&recording)?;
            destination.announce("wrote", "see it with `spark-trace show FILE`");
            Ok(Exit::Fine)
        }
        Exported::Content(content) => destination.write_with(&|out| content.write(out), ""),
    }
}

enum Exported {
    /// Its text is made as it is written: it is as large as all else together.
    Recording(Box<Recording>),
    Content(Content),
}

fn exported(args: &Args) -> anyhow::Result<Exported> {
    let mut recording = recording::read(&args.file)?;
    if args.redact {
        recording = redact(&recording).context("cannot replace the names")?;
    }
    let at = instant(args.at, &args.file, &recording)?;
    if args.to.name == RECORDING {
        return Ok(Exported::Recording(Box::new(recording)));
    }
    let content = (args.to.export)(&recording, Options { at, stacks: args.stacks })
        .with_context(|| format!("{}: cannot be exported as {}", args.file.display(), args.to.name))?;
    Ok(Exported::Content(content))
}

/// What is refused before anything is read.
fn wrong_usage(args: &Args) -> anyhow::Result<()> {
    let Export { name, extension, binary, .. } = args.to;
    anyhow::ensure!(args.at.is_none() || args.to.at, "{name} has the whole run: leave out --at");
    anyhow::ensure!(
        args.stacks.is_none() || args.to.stacks,
        "{name} has no kinds of stacks: leave out --stacks"
    );
    let named = args.output.is_some();
    anyhow::ensure!(
        named || !binary,
        "{name} is binary: name a file with -o, for example -o run.{extension}, or pipe it with -o -"
    );
    let terminal = args.output.as_deref() == Some(Path::new("-")) && io::stdout().is_terminal();
    anyhow::ensure!(
        !(terminal && *binary),
        "{name} is binary and not for a terminal: name a file with -o, for example -o run.{extension}"
    );
    Ok(())
}

fn exports() -> impl TypedValueParser<Value = &'static Export> {
    let names = EXPORTS.iter().map(|export| PossibleValue::new(export.name).help(export.about));
    // The parser lets nothing through that is not in the table.
    PossibleValuesParser::new(names)
        .map(|name| EXPORTS.iter().find(|export| export.name == name).unwrap_or(&EXPORTS[0]))
}

fn kinds() -> impl TypedValueParser<Value = &'static Kind> {
    let names = KINDS.iter().map(|kind| PossibleValue::new(kind.name).help(kind.title));
    PossibleValuesParser::new(names)
        .map(|name| KINDS.iter().find(|kind| kind.name == name).unwrap_or(&KINDS[0]))
}
