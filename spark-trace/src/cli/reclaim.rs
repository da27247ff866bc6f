use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::ValueEnum;

use super::engine::engines;
use super::error::Exit;
use super::headings;
use super::log::LogArgs;
use super::output;
use crate::reclaim::{Launch, Report};
use spark_trace_agent::reclaim::{self, Wanted};
use spark_trace_agent::source::cache;
use spark_trace_agent::{is_root, raise_open_files, snapshot};
use spark_trace_engines::Engine;
use spark_trace_recording::Recording;
use spark_trace_render::{json, terminal};

/// Show what memory could be given back, and take the chosen steps
///
/// Names of files, cgroups and steps choose. Without --apply none is taken: each is shown with the bytes that it should give back, what stays and why, and what it costs others. Without a choice, the steps for the whole machine are
/// shown. Files that a process has mapped are left out unless --mapped is given.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Drop the clean page cache of this file, or of all files below this directory
    #[arg(help_heading = headings::CONTENT, long, value_name = "PATH")]
    files: Vec<PathBuf>,
    /// Drop page cache that is charged to this cgroup (cgroup v2), by its path below the mount point
    #[arg(help_heading = headings::CONTENT, long, value_name = "PATH")]
    cgroup: Vec<String>,
    /// Make NVIDIA's driver free the pages that it keeps in pools
    #[arg(help_heading = headings::CONTENT, long)]
    driver_pools: bool,
    /// Drop all clean page cache of the machine (/proc/sys/vm/drop_caches)
    #[arg(help_heading = headings::CONTENT, long)]
    page_cache: bool,
    /// Move free pages together, so that there are larger free blocks; gives nothing back
    #[arg(help_heading = headings::CONTENT, long)]
    compaction: bool,
    /// Choose what raises the reading of free memory that this engine sizes its KV cache by
    #[arg(help_heading = headings::CONTENT, long, value_name = "ENGINE", value_parser = engines())]
    before_launch: Option<Engine>,
    /// Drop what is not in use of files that a process has mapped, too
    #[arg(help_heading = headings::CONTENT, long, requires = "files")]
    mapped: bool,
    /// Wait until the files of --files are on the disk: pages that are not yet there stay
    #[arg(help_heading = headings::CONTENT, long, requires = "files")]
    write_back: bool,
    /// Take the steps
    #[arg(help_heading = headings::CONTENT, long)]
    apply: bool,
    /// Output format
    #[arg(help_heading = headings::OUTPUT, long, value_enum, default_value = "table")]
    format: Format,
    #[command(flatten)]
    width: output::WidthArg,
    #[command(flatten)]
    logging: LogArgs,
}

const EXAMPLES: &str = "\
Examples:
  sudo spark-trace reclaim
  sudo spark-trace reclaim --files /models
  sudo spark-trace reclaim --files /models --driver-pools --apply
  sudo spark-trace reclaim --before-launch tensorrt-llm --files /models --apply && docker run ...

Exit codes:
  0   every chosen step was shown, or taken, or left out because the engine gains nothing by it
  1   a chosen step cannot be taken, or failed; the others were taken";

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    /// Tables for a terminal
    Table,
    /// Everything, for programs
    Json,
}

pub fn run(args: Args) -> anyhow::Result<Exit> {
    let _log = args.logging.start().context(Exit::TraceFailed)?;
    // A directory that is being read takes two.
    raise_open_files();
    anyhow::ensure!(
        is_root(),
        anyhow::anyhow!(
            "only root sees which processes have a file mapped, and only root may take most steps: use sudo"
        )
        .context(Exit::TraceFailed)
    );
    let mut wanted = wanted(&args);
    anyhow::ensure!(
        !(args.apply && wanted.is_empty() && args.before_launch.is_none()),
        anyhow::anyhow!(
            "--apply takes the chosen steps, and none is chosen: run `reclaim` without it to see them"
        )
        .context(Exit::Usage)
    );
    let is_choice = !wanted.is_empty() || args.before_launch.is_some();
    if !is_choice {
        (wanted.driver_pools, wanted.page_cache, wanted.compaction) = (true, true, true);
    }
    let before = snapshot()?;
    let launch = args.before_launch.map(|engine| Launch::of(engine, &before));
    // Without a driver that has pools there is nothing to gain: no fault of a wrapper that starts any engine.
    wanted.driver_pools |= launch.as_ref().is_some_and(Launch::gains_by_pools) && reclaim::has_pools();
    let mut steps = reclaim::expect(&wanted);
    if let Some(launch) = &launch {
        launch.leave_out(&mut steps);
    }
    let mut after = None;
    if args.apply {
        reclaim::apply(&mut steps, &wanted);
        after = Some(snapshot()?);
    }
    let report = Report::new(steps, launch, &before, after.as_ref())?;
    let bytes = match args.format {
        Format::Table => terminal::render(&report.document(), output::style(args.width)).into_bytes(),
        Format::Json => json::render(&report)?,
    };
    output::print(&bytes)?;
    Ok(if is_choice && report.is_incomplete() { Exit::TraceFailed } else { Exit::Fine })
}

fn wanted(args: &Args) -> Wanted {
    Wanted {
        files: args.files.clone(),
        cgroups: args.cgroup.clone(),
        driver_pools: args.driver_pools,
        page_cache: args.page_cache,
        compaction: args.compaction,
        mapped: args.mapped,
        write_back: args.write_back,
    }
}

/// The machine's counters, without a look at single files.
fn snapshot() -> anyhow::Result<Recording> {
    let files = cache::Wanted { directories: Vec::new(), most: 0, time: Duration::ZERO };
    let options = snapshot::Options { files, min_region: u64::MAX, nvml: None };
    snapshot::take(&options).context(Exit::TraceFailed)
}
