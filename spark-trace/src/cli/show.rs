use std::path::PathBuf;

use crate::analysis::{attribution, queries, timeline};
use crate::cli::error::Exit;
use crate::cli::output;
use crate::cli::view::{ViewArgs, instant};
use crate::recording::{self, Recording};
use crate::render::plot;

/// Show who held the memory of a recorded run
///
/// Two planes are shown, which overlap: all memory of the system that is not free, and what is
/// charged to the target's cgroups. On each, sources add up to the plane's own counter, and what
/// they leave of it is printed as unattributed.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Recording to show (.json or .json.zst)
    file: PathBuf,
    #[command(flatten)]
    view: ViewArgs,
    /// Draw how the sources went over the run instead, in the terminal
    #[arg(long, conflicts_with_all = ["at", "format", "sort", "top"])]
    plot: bool,
}

const EXAMPLES: &str = "\
Examples:
  spark-trace show run.json
  spark-trace show run.json.zst --at end --sort bytes
  spark-trace show run.json --at 12.5s --top 30
  spark-trace show run.json --plot
  spark-trace show run.json --format json | jq '.planes.cgroup.sources'";

pub fn run(args: Args) -> anyhow::Result<Exit> {
    let recording = recording::read(&args.file)?;
    if args.plot {
        return output::print(plot(&recording).as_bytes());
    }
    let at = instant(args.view.at, &args.file, &recording)?;
    let report = attribution::report(&recording, at);
    output::print(&args.view.render(report, |format| format.show)?)
}

fn plot(recording: &Recording) -> String {
    let style = output::style();
    let columns = plot::columns(style);
    let timelines = timeline::all(recording, columns);
    let ends = timelines.iter().flat_map(|timeline| &timeline.at_ns).copied();
    let axis = (ends.clone().min().unwrap_or(0), ends.max().unwrap_or(0));
    let queries = queries::report(recording);
    plot::render(&timelines, &timeline::marks(recording, queries.as_ref(), axis, columns), style)
}
