use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;

use super::destination::Destination;
use super::error::Exit;
use super::output;
use super::view::{TOP, ViewArgs};
use crate::analysis::{attribution, instant::At};
use crate::live::source::cache::Wanted;
use crate::live::{bundle, snapshot};
use crate::parse;
use crate::recording::redact;
use crate::render::show::Shown;

/// Show who holds the machine's memory now
///
/// Everything is read once, from the kernel's own counters: no program is loaded and nothing is traced. So levels are
/// told, and who holds them; who allocated what, and when, only `record` and `top` can tell.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Write a recording instead, for `show` and `diff`; `.json.zst` compresses it, - is standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Write all that a bug report needs: the recording, what `doctor` says and the kernel's files, as a tar.zst
    #[arg(long, value_name = "FILE")]
    bundle: Option<PathBuf>,
    /// Put stand-ins in the place of names of processes, files, cgroups and images
    #[arg(long)]
    redact: bool,
    /// Replace an existing file
    #[arg(long)]
    force: bool,
    /// Look for cached files below this directory too; without it at those that processes have mapped or open
    #[arg(long, value_name = "DIR", value_parser = parse::directory)]
    files: Vec<PathBuf>,
    /// Files that are kept, the most cached
    #[arg(long, value_name = "N", default_value_t = 200)]
    keep_files: usize,
    /// Time for looking at files
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = parse::duration)]
    files_time: Duration,
    /// Mappings with at least this much resident are listed
    #[arg(long, value_name = "SIZE", default_value = "1M", value_parser = parse::size)]
    min_region: u64,
    /// NVIDIA's management library (libnvidia-ml.so.1), if it is not in a standard location
    #[arg(long, value_name = "PATH", value_parser = parse::file)]
    nvml: Option<PathBuf>,
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

Without root it shows what the user may see of others' processes, and says so.";

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
    let options = snapshot::Options {
        files: Wanted { directories: args.files.clone(), most: args.keep_files, time: args.files_time },
        min_region: args.min_region,
        nvml: args.nvml.clone(),
    };
    let mut recording = snapshot::take(&options).context(Exit::TraceFailed)?;
    if args.redact {
        recording = redact::redact(&recording).context("cannot put stand-ins in the place of names")?;
    }
    if let Some(bundle) = &bundle {
        let contents = bundle::contents(&recording, args.redact).context(Exit::TraceFailed)?;
        bundle.write(&contents, "see what is in it with `tar --zstd -tvf FILE`")?;
    }
    if let Some(output) = &output {
        output.write_recording(&recording)?;
        output.tell("wrote", "see it with `spark-trace show FILE`");
    }
    if output.is_some() || bundle.is_some() {
        return Ok(Exit::Fine);
    }
    let report = attribution::report(&recording, At::End);
    output::print(
        &args.view.render(report, TOP, |format, report, style| (format.show)(report, &Shown::ALL, style))?,
    )
}
