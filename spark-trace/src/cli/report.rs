use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::ValueEnum;

use crate::cli::bounded::bounded;
use crate::cli::destination::Destination;
use crate::cli::error::Exit;
use crate::cli::headings;
use crate::cli::output::{self, WidthArg};
use crate::cli::view::{instant, moment};
use spark_trace_analysis::derived::Derived;
use spark_trace_analysis::instant_spec::Choice;
use spark_trace_analysis::overview::{self, Overview};
use spark_trace_recording as recording;
use spark_trace_recording::{Recording, redact::Names};
use spark_trace_render::{html, markdown, report, terminal};

/// Write a report (HTML, Markdown) of one or two recordings
///
/// One page: the difference source by source, charts over time with the memory queries, verdicts on findings, the
/// KV-cache budget, files, CUDA calls, flame graphs, and the machine and losses behind the numbers. The HTML page needs
/// no network and works without scripts.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Recording to report on; with B, the baseline
    a: PathBuf,
    /// Recording to compare with A
    b: Option<PathBuf>,
    /// File to write, or - for standard output [default: standard output]
    #[arg(help_heading = headings::OUTPUT, short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Output format [default: html for a file, markdown if its name ends in .md or in a pipe, table on a terminal]
    #[arg(help_heading = headings::OUTPUT, long, value_enum)]
    format: Option<Format>,
    #[command(flatten)]
    width: WidthArg,
    /// Instant to show: peak (of each plane), end, kv (the KV-cache reading), a time since the start such as 465ms or
    /// 12.5s, or @NS, nanoseconds of the recording's clock [default: peak; kv if there are two recordings and both have a
    /// KV-cache reading]
    #[arg(help_heading = headings::CONTENT, long, value_name = "INSTANT")]
    at: Option<Choice>,
    /// Replace names of users, processes, functions, files, cgroups and images. What an engine's log states is left out
    #[arg(help_heading = headings::CONTENT, long)]
    redact: bool,
    /// Replace an existing file
    #[arg(help_heading = headings::OUTPUT, long)]
    force: bool,
}

const EXAMPLES: &str = "\
Examples:
  spark-trace report native.json container.json -o report.html
  spark-trace report run.json -o run.html --at end
  spark-trace report native.json container.json --format markdown    # for an issue";

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// One page with charts
    Html,
    /// Headline, findings, differences and budget, for issues
    Markdown,
    /// The same in columns, for a terminal
    Table,
}

pub fn run(args: Args) -> anyhow::Result<Exit> {
    let output = args.output.clone();
    let destination = Destination::new(output.as_deref(), args.force)?;
    let format = args
        .format
        .unwrap_or_else(|| default_format(args.output.as_deref(), destination.is_terminal(), args.width));
    if format != Format::Table && args.width.is_given() {
        return Err(anyhow::anyhow!("--width needs --format table")).context(Exit::Usage);
    }
    if format == Format::Html && destination.is_terminal() {
        return Err(anyhow::anyhow!(
            "HTML is not printed to a terminal; name a file with -o, or use --format markdown"
        ))
        .context(Exit::Usage);
    }
    let files: Vec<_> = [Some(&args.a), args.b.as_ref()].into_iter().flatten().cloned().collect();
    let files: Vec<_> = files.iter().map(PathBuf::as_path).collect();
    let page = bounded(&files, move || render(&overview(&args)?, format, args.width))?;
    destination.write(&page, "")
}

fn default_format(output: Option<&Path>, is_terminal: bool, width: WidthArg) -> Format {
    match output.map(Path::extension) {
        _ if is_terminal || width.is_given() => Format::Table,
        None => Format::Markdown,
        Some(_) if output == Some(Path::new("-")) => Format::Markdown,
        Some(Some(extension)) if extension == "md" => Format::Markdown,
        Some(_) => Format::Html,
    }
}

fn overview(args: &Args) -> anyhow::Result<Overview> {
    let name = |path: &Path| {
        path.file_name()
            .map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned())
    };
    let name_a = name(&args.a);
    // One name has one stand-in in both recordings.
    let names = args.redact.then(Names::new);
    let Some(path_b) = &args.b else {
        let recording = hidden(names.as_ref(), recording::read(&args.a)?)?;
        let run = Derived::from(&recording);
        let at = instant(args.at, &args.a, &run)?;
        return Ok(overview::overview(None, (&name_a, run), at));
    };
    let (a, b) = recording::read_both(&args.a, path_b)?;
    let (a, b) = (hidden(names.as_ref(), a)?, hidden(names.as_ref(), b)?);
    let (a, b) = (Derived::from(&a), Derived::from(&b));
    let moment = moment(args.at, (&args.a, &a), (path_b, &b))?;
    Ok(overview::overview(Some((&name_a, a)), (&name(path_b), b), moment))
}

fn hidden(names: Option<&Names>, recording: Recording) -> anyhow::Result<Recording> {
    match names {
        Some(names) => names.hidden_in(recording).context("cannot replace the names"),
        None => Ok(recording),
    }
}

fn render(overview: &Overview, format: Format, width: WidthArg) -> anyhow::Result<Vec<u8>> {
    Ok(match format {
        Format::Html => html::render(overview)?,
        Format::Markdown => markdown::render(&report::document(overview)).into_bytes(),
        Format::Table => terminal::render(&report::document(overview), output::style(width)).into_bytes(),
    })
}
