use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;

use super::destination::Destination;
use super::error::Exit;
use super::headings;
use super::log::LogArgs;
use super::output;
use super::view::{TOP, ViewArgs};
use spark_trace_agent::source::cache::Wanted;
use spark_trace_agent::{bug_report, snapshot};
use spark_trace_analysis::{attribution, instant_spec::InstantSpec};
use spark_trace_recording::parse;
use spark_trace_recording::redact;
use spark_trace_render::show::Shown;

/// Show the machine's memory now
///
/// Reads the kernel's counters once; loads no eBPF program and traces nothing. Shows levels and holders only. For
/// allocations with their time and caller use `record` or `top`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Write a recording instead, for `show` and `diff`; `.json.zst` compresses it, - is standard output
    #[arg(help_heading = headings::OUTPUT, short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Write everything for a bug report: the recording, the output of `doctor` and files of the kernel, as a tar.zst
    #[arg(help_heading = headings::OUTPUT, long, value_name = "FILE")]
    bundle: Option<PathBuf>,
    /// Replace names of processes, files, cgroups and images
    #[arg(help_heading = headings::CONTENT, long)]
    redact: bool,
    /// Replace an existing file
    #[arg(help_heading = headings::OUTPUT, long)]
    force: bool,
    /// Also look for cached files below this directory; by default only at files that processes have mapped or open
    #[arg(help_heading = headings::CONTENT, long, value_name = "DIR", value_parser = parse::directory)]
    files: Vec<PathBuf>,
    /// Number of files to list, most cached first
    #[arg(help_heading = headings::CONTENT, long, value_name = "N", default_value_t = 200)]
    keep_files: usize,
    /// Time limit for reading how much of the files is cached
    #[arg(help_heading = headings::CONTENT, long, value_name = "TIME", default_value = "1s", value_parser = parse::duration)]
    files_time: Duration,
    /// List mappings with at least this much resident memory
    #[arg(help_heading = headings::CONTENT, long, value_name = "SIZE", default_value = "1M", value_parser = parse::size)]
    min_region: u64,
    /// NVIDIA's management library (libnvidia-ml.so.1), if it is not in a standard location
    #[arg(help_heading = headings::HOOKS, long, value_name = "PATH", value_parser = parse::file)]
    nvml: Option<PathBuf>,
    #[command(flatten)]
    logging: LogArgs,
    #[command(flatten)]
    view: ViewArgs,
}

const EXAMPLES: &str = "\
Examples:
  sudo spark-trace snapshot
  sudo spark-trace snapshot --files /models --files-time 10s
  sudo spark-trace snapshot -o before.json; ...; sudo spark-trace snapshot -o after.json
  spark-trace diff before.json after.json
  sudo spark-trace snapshot --redact --bundle for-the-issue.tar.zst

Without root, processes of other users are shown only as far as permissions allow; a warning says so.";

pub fn run(args: Args) -> anyhow::Result<Exit> {
    anyhow::ensure!(
        args.output.is_none() || args.output != args.bundle,
        anyhow::anyhow!("--output and --bundle are the same file").context(Exit::Usage)
    );
    let output = args.output.as_deref().map(|name| Destination::new(Some(name), args.force)).transpose()?;
    let bundle = args.bundle.as_deref().map(|name| Destination::new(Some(name), args.force)).transpose()?;
    anyhow::ensure!(
        !bundle.as_ref().is_some_and(|bundle| bundle.is_terminal()),
        anyhow::anyhow!("a bundle is binary and not for a terminal: name a file with --bundle")
            .context(Exit::Usage)
    );
    let _log = args.logging.start().context(Exit::TraceFailed)?;
    let options = snapshot::Options {
        files: Wanted { directories: args.files.clone(), most: args.keep_files, time: args.files_time },
        min_region: args.min_region,
        nvml: args.nvml.clone(),
    };
    let mut recording = snapshot::take(&options).context(Exit::TraceFailed)?;
    if args.redact {
        recording = redact::redact(&recording).context("cannot replace the names")?;
    }
    if let Some(bundle) = &bundle {
        let contents = bug_report::contents(&recording, args.redact).context(Exit::TraceFailed)?;
        bundle.write(&contents, "see what is in it with `tar --zstd -tvf FILE`")?;
    }
    if let Some(output) = &output {
        output.write_recording(&recording)?;
        output.announce("wrote", "see it with `spark-trace show FILE`");
    }
    if output.is_some() || bundle.is_some() {
        return Ok(Exit::Fine);
    }
    let report = attribution::report(&recording, InstantSpec::End);
    output::print(
        &args.view.render(report, TOP, |format, report, style| (format.show)(report, &Shown::ALL, style))?,
    )
}
