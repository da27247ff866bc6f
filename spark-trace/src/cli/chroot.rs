use std::path::PathBuf;

use super::error::Exit;
use spark_trace_study::rootfs::{self, Mount};

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
    /// Bind mount, in a mount namespace of the command's own; `:ro` behind it makes it read-only
    #[arg(long, value_name = "SOURCE:TARGET")]
    mount: Vec<Mount>,
    /// Command and its arguments [default: the image's]
    #[arg(last = true)]
    command: Vec<String>,
}

pub fn run(args: &Args) -> anyhow::Result<Exit> {
    match rootfs::enter(&args.dir, &args.mount, &args.command)? {}
}
