use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::cli::bounded::bounded;
use crate::cli::error::Exit;
use crate::cli::headings;
use crate::cli::output;
use crate::cli::view::{TOP, ViewArgs, moment, planes};
use spark_trace_analysis::derived::Derived;
use spark_trace_analysis::diff;
use spark_trace_analysis::view::Scope;
use spark_trace_recording as recording;
use spark_trace_render::diff::Shown;

/// Compare two recordings: what uses more memory in B than in A
///
/// Compares the sources at the same kind of instant of each run: the KV-cache reading if both runs have one, else the
/// peak. Other differences between the runs (kernel, profile, losses, state at the start) come before the numbers;
/// findings with their verdicts come after them.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Baseline
    a: PathBuf,
    /// Recording to compare with the baseline
    b: PathBuf,
    /// Plane to compare [default: cgroup if both have one, else system]
    #[arg(help_heading = headings::CONTENT, long, value_parser = planes())]
    plane: Option<Scope>,
    /// List every finding, also the refuted ones
    #[arg(help_heading = headings::CONTENT, long)]
    all: bool,
    #[command(flatten)]
    view: ViewArgs,
}

const EXAMPLES: &str = "\
Examples:
  spark-trace diff native.json container.json
  spark-trace diff native.json container.json --plane system --sort delta
  spark-trace diff before.json after.json --format markdown > report.md";

pub fn run(args: Args) -> anyhow::Result<Exit> {
    let (a, b) = (args.a.clone(), args.b.clone());
    output::print(&bounded(&[&a, &b], || text(args))?)
}

fn text(args: Args) -> anyhow::Result<Vec<u8>> {
    let (a, b) = recording::read_both(&args.a, &args.b)?;
    let (a, b) = (Derived::from(&a), Derived::from(&b));
    let moment = moment(args.view.at, (&args.a, &a), (&args.b, &b))?;
    let report = diff::report(a, b, args.plane, moment).with_context(|| files(&args.a, &args.b))?;
    if args.all && args.view.is_whole() {
        return Err(
            anyhow::anyhow!("formats for programs have everything: leave out --all").context(Exit::Usage)
        );
    }
    let shown = Shown { all: args.all };
    Ok(args.view.render(report, TOP, |format, report, style| (format.diff)(report, shown, style))?)
}

fn files(a: &Path, b: &Path) -> String {
    format!("A = {}, B = {}", a.display(), b.display())
}
