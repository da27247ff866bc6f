use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::ValueEnum;

use crate::analysis::instant::Choice;
use crate::analysis::overview::{self, Overview};
use crate::cli::destination::Destination;
use crate::cli::error::Exit;
use crate::cli::output::{self, WidthArg};
use crate::cli::view::{instant, moment};
use crate::recording::{self, Recording, redact::redact};
use crate::render::{html, markdown, report, terminal};

/// Write a report of one recording, or of what differs between two
///
/// One page with the answer first: how A becomes B source by source, the course of every source with the memory queries
/// made meanwhile, verdicts on findings, the KV-cache budget, files, CUDA calls, flame graphs; at its end what
/// the numbers rest on. The HTML page needs no network and can be read without scripts.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Recording to report on; with B the one to compare with
    a: PathBuf,
    /// Recording to explain
    b: Option<PathBuf>,
    /// File to write, or - for standard output [default: standard output]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Form of the output [default: html where a file is written, unless its name ends in .md; table on a terminal; else
    /// markdown]
    #[arg(long, value_enum)]
    format: Option<Format>,
    #[command(flatten)]
    width: WidthArg,
    /// Instant to look at: peak (each plane's own), end, kv (the KV-cache reading), a time since the start
    /// such as 465ms or 12.5s (a number alone is seconds), or @NS, nanoseconds of the recording's clock [default: peak; of two recordings kv where both have a KV-cache
    /// reading]
    #[arg(long, value_name = "INSTANT")]
    at: Option<Choice>,
    /// Put stand-ins in the place of names of users, processes, functions, files, cgroups and images
    #[arg(long)]
    redact: bool,
    /// Replace an existing file
    #[arg(long)]
    force: bool,
}

const EXAMPLES: &str = "\
Examples:
  spark-trace report native.json container.json -o report.html
  spark-trace report run.json -o run.html --at end
  spark-trace report native.json container.json --format markdown    # for an issue";

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// One page with charts, for people
    Html,
    /// Headline, findings, differences and budget, for issues
    Markdown,
    /// The same for a terminal, in columns
    Table,
}

pub fn run(args: Args) -> anyhow::Result<Exit> {
    let destination = Destination::new(args.output.as_deref(), args.force)?;
    let format = args
        .format
        .unwrap_or_else(|| default_format(args.output.as_deref(), destination.is_terminal(), args.width));
    if format != Format::Table && args.width.is_given() {
        return Err(anyhow::anyhow!(
            "--width is for --format table: the other forms have no columns of characters"
        ))
        .context(Exit::Usage);
    }
    if format == Format::Html && destination.is_terminal() {
        return Err(anyhow::anyhow!(
            "a page is not for a terminal; name a file with -o, or use --format markdown"
        ))
        .context(Exit::Usage);
    }
    destination.write(&render(&overview(&args)?, format, args.width)?, "")
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
    let Some(path_b) = &args.b else {
        let recording = hidden(args, recording::read(&args.a)?)?;
        let at = instant(args.at, &args.a, &recording)?;
        return Ok(overview::overview(None, (&name_a, &recording), at));
    };
    let (a, b) = recording::read_both(&args.a, path_b)?;
    let (a, b) = (hidden(args, a)?, hidden(args, b)?);
    let moment = moment(args.at, (&args.a, &a), (path_b, &b))?;
    Ok(overview::overview(Some((&name_a, &a)), (&name(path_b), &b), moment))
}

fn hidden(args: &Args, recording: Recording) -> anyhow::Result<Recording> {
    if !args.redact {
        return Ok(recording);
    }
    redact(&recording).context("cannot put stand-ins in the place of names")
}

fn render(overview: &Overview, format: Format, width: WidthArg) -> anyhow::Result<Vec<u8>> {
    Ok(match format {
        Format::Html => html::render(overview)?,
        Format::Markdown => markdown::render(&report::document(overview)).into_bytes(),
        Format::Table => terminal::render(&report::document(overview), output::style(width)).into_bytes(),
    })
}
