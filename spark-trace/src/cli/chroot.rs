use std::path::PathBuf;

use super::error::Exit;
use spark_trace_study::rootfs;

/// Run a command in an image that `study rootfs` has unpacked
///
/// The command gets the image's environment, entrypoint and working directory, and nothing of the caller's environment.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  sudo spark-trace chroot /data/rootfs/tensorrt-llm -- trtllm-bench --help"
)]
pub struct Args {
    /// The unpacked image
    dir: PathBuf,
    /// Command and its arguments [default: the image's]
    #[arg(last = true)]
    command: Vec<String>,
}

pub fn run(args: &Args) -> anyhow::Result<Exit> {
    match rootfs::enter(&args.dir, &args.command)? {}
}
