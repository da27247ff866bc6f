use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;

use super::error::Exit;
use super::headings;
use super::log::LogArgs;
use crate::serve::{
    self, Access, AccessError, DEFAULT_LISTEN, DEFAULT_STATE, Options, ServeError, StateError,
};
use spark_trace_recording::parse;

/// Monitor the machine: metrics, recent minutes, OOM kills
///
/// Serves GET /metrics (OpenMetrics, for Prometheus) and GET /healthz. Keeps the last minutes in memory and in a file;
/// `spark-trace record --since` makes a recording of them. When the kernel kills a process because memory has run out,
/// the minutes before the kill are written as a recording. docs/fleet.md explains how to run it on many machines.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Listen address; one that is not loopback requires --token-file
    #[arg(help_heading = headings::SERVICE, long, value_name = "ADDR", default_value_t = DEFAULT_LISTEN)]
    listen: SocketAddr,

    /// Answer only requests that have the token in this file (`Authorization: Bearer TOKEN`)
    #[arg(help_heading = headings::SERVICE, long, value_name = "FILE")]
    token_file: Option<PathBuf>,

    /// Time between two readings of the levels
    #[arg(help_heading = headings::DETAIL, long, value_name = "TIME", default_value = "1s", value_parser = parse::interval)]
    interval: Duration,

    /// Time for which readings are kept
    #[arg(help_heading = headings::DETAIL, long, value_name = "TIME", default_value = "10m", value_parser = parse::duration)]
    window: Duration,

    /// Directory for the recent minutes and the recordings of OOM kills; created if missing
    #[arg(help_heading = headings::SERVICE, long, value_name = "DIR", default_value = DEFAULT_STATE)]
    state: PathBuf,

    /// Number of cgroups with their own metrics, largest first; the others are summed
    #[arg(help_heading = headings::SERVICE, long, value_name = "N", default_value_t = 50)]
    cgroups: usize,

    /// Number of recordings of OOM kills to keep, latest first
    #[arg(help_heading = headings::SERVICE, long, value_name = "N", default_value_t = 10)]
    keep_oom: usize,

    /// Record only levels and requests to the NVIDIA driver, no stacks or files: lowest overhead
    #[arg(help_heading = headings::DETAIL, long)]
    light: bool,

    /// NVIDIA's management library (libnvidia-ml.so.1), if it is not in a standard location
    #[arg(help_heading = headings::HOOKS, long, value_name = "PATH", value_parser = parse::file)]
    nvml: Option<PathBuf>,

    #[command(flatten)]
    logging: LogArgs,
}

const EXAMPLES: &str = "\
Examples:
  sudo spark-trace serve
  curl http://127.0.0.1:9753/metrics
  sudo spark-trace record --since 5m -o what-happened.json.zst
  sudo spark-trace serve --listen 0.0.0.0:9753 --token-file /etc/spark-trace/token

SIGINT or SIGTERM ends it; nothing stays attached.";

pub fn run(args: Args) -> anyhow::Result<Exit> {
    let access = Access::new(args.listen, args.token_file.as_deref()).map_err(|error| {
        let exit = if matches!(error, AccessError::Unreadable { .. }) { Exit::BadInput } else { Exit::Usage };
        anyhow::Error::new(error).context(exit)
    })?;
    anyhow::ensure!(
        args.window > args.interval,
        anyhow::anyhow!("--window must be longer than --interval").context(Exit::Usage)
    );
    let _log = args.logging.start().context(Exit::TraceFailed)?;
    let keeping = format!("keeping the last {:?} in {}", args.window, args.state.display());
    let options = Options {
        listen: args.listen,
        access,
        interval: args.interval,
        window: args.window,
        state: args.state,
        cgroups: args.cgroups,
        keep_oom: args.keep_oom,
        light: args.light,
        nvml: args.nvml,
    };
    let ready = |address| eprintln!("spark-trace: serving http://{address}/metrics, {keeping}");
    match serve::run(options, ready) {
        Err(ServeError::State(StateError::Folder { path, cause }))
            if cause.kind() == std::io::ErrorKind::PermissionDenied && !spark_trace_agent::is_root() =>
        {
            let path = path.display();
            Err(anyhow::anyhow!(
                "`serve` needs root: its folder {path} is root's. Try `sudo spark-trace serve`"
            ))
        }
        Err(ServeError::Trace(error)) => Err(anyhow::Error::new(error).context(Exit::TraceFailed)),
        other => Ok(other.map(|()| Exit::Fine)?),
    }
}
