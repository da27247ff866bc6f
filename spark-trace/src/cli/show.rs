use std::path::PathBuf;

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};

use crate::cli::bounded::bounded;
use crate::cli::error::Exit;
use crate::cli::headings;
use crate::cli::output;
use crate::cli::view::{self, ViewArgs, instant};
use spark_trace_analysis::derived::Derived;
use spark_trace_analysis::{attribution, timeline};
use spark_trace_recording as recording;
use spark_trace_render::show::{Parts, SECTIONS, Section, Shown};
use spark_trace_render::{Style, plot};

/// Show the memory of a recorded run
///
/// Prints a summary in a few lines, then the target's own memory. Name a SECTION to see the machine, hooks, the
/// environment and so on, or use --all. There are two planes, which overlap: the memory in use on the machine, and the
/// memory charged to the target's cgroups. On each, the sources and `unattributed` add up to the kernel's own counter.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Recording to show (.json or .json.zst); `-` is standard input
    file: PathBuf,
    /// Sections to show instead of the first screen
    #[arg(value_name = "SECTION", value_parser = sections(), conflicts_with_all = ["all", "plot"])]
    sections: Vec<&'static Section>,
    /// Show every section, with longer lists
    #[arg(help_heading = headings::CONTENT, long)]
    all: bool,
    #[command(flatten)]
    view: ViewArgs,
    /// Plot the sources over time instead, in the terminal
    #[arg(help_heading = headings::CONTENT, long, conflicts_with_all = ["at", "format", "sort", "top", "all"])]
    plot: bool,
}

const EXAMPLES: &str = "\
Examples:
  spark-trace show run.json
  spark-trace show run.json --all
  spark-trace show run.json machine processes
  spark-trace show run.json.zst --at end --sort bytes
  spark-trace show run.json --at 12.5s --top 30
  spark-trace show run.json --plot
  spark-trace show run.json --format json | jq '.planes.cgroup.sources'";

pub fn run(args: Args) -> anyhow::Result<Exit> {
    let file = args.file.clone();
    output::print(&bounded(&[&file], || text(args))?)
}

fn text(args: Args) -> anyhow::Result<Vec<u8>> {
    let recording = recording::read(&args.file)?;
    let run = Derived::from(&recording);
    if args.plot {
        return Ok(plot(&run, output::style(args.view.width)).into_bytes());
    }
    let at = instant(args.view.at, &args.file, &run)?;
    let report = attribution::report(run, at);
    let (parts, top) = match (args.sections, args.all) {
        (sections, _) if !sections.is_empty() => (Parts::Named(sections), view::TOP),
        (_, true) => (Parts::All, view::TOP),
        (_, false) => (Parts::First, view::TOP_FIRST),
    };
    if matches!(parts, Parts::Named(_)) && args.view.is_whole() {
        return Err(
            anyhow::anyhow!("formats for programs have every section: name none").context(Exit::Usage)
        );
    }
    let file = output::quoted(&args.file.display().to_string());
    let shown = Shown { parts, file: Some(&file) };
    Ok(args.view.render(report, top, |format, report, style| (format.show)(report, &shown, style))?)
}

fn sections() -> impl TypedValueParser<Value = &'static Section> {
    let names = SECTIONS.iter().map(|section| PossibleValue::new(section.name).help(section.about));
    // The parser lets nothing through that is not in the table; the first is the target's own.
    PossibleValuesParser::new(names)
        .map(|name| SECTIONS.iter().find(|section| section.name == name).unwrap_or(&SECTIONS[0]))
}

fn plot(run: &Derived<'_>, style: Style) -> String {
    let columns = plot::columns(style);
    let timelines = timeline::all(run.recording, columns);
    let ends = timelines.iter().flat_map(|timeline| &timeline.at_ns).copied();
    let axis = (ends.clone().min().unwrap_or(0), ends.max().unwrap_or(0));
    plot::render(&timelines, &timeline::marks(run, axis, columns), style)
}
