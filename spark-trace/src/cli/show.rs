use std::path::PathBuf;

use crate::analysis::attribution;
use crate::cli::error::Exit;
use crate::cli::output;
use crate::cli::view::ViewArgs;
use crate::recording;

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
}

const EXAMPLES: &str = "\
Examples:
  spark-trace show run.json
  spark-trace show run.json.zst --at end --sort bytes
  spark-trace show run.json --at 12.5s --top 30
  spark-trace show run.json --format json | jq '.planes.cgroup.sources'";

pub fn run(args: Args) -> anyhow::Result<Exit> {
    let recording = recording::read(&args.file)?;
    let report = attribution::report(&recording, args.view.at.unwrap_or_default());
    output::print(&args.view.render(report, |format| format.show)?)
}
