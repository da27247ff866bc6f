use std::path::PathBuf;

use clap::ValueEnum;

use super::error::Exit;
use crate::render::escape;
use crate::study::rootfs;

/// Unpack an image for `chroot`, with the settings its containers would have
///
/// Environment, entrypoint and working directory of the image are kept beside its files: `spark-trace chroot` uses them.
/// What still differs from a container is printed.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Image that the engine has
    image: String,
    /// Directory to unpack it in, empty or to be made
    dir: PathBuf,
    /// Container engine
    #[arg(long, value_enum, default_value = "docker")]
    engine: Engine,
    /// Unpack over what is there
    #[arg(long)]
    force: bool,
}

const EXAMPLES: &str = "\
Examples:
  sudo spark-trace rootfs nvcr.io/nvidia/tensorrt-llm/release:1.1.0rc3 /data/rootfs/tensorrt-llm
  sudo spark-trace record -- spark-trace chroot /data/rootfs/tensorrt-llm -- trtllm-bench --help";

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Engine {
    Docker,
    Podman,
}

pub fn run(args: &Args) -> anyhow::Result<Exit> {
    let engine = match args.engine {
        Engine::Docker => "docker",
        Engine::Podman => "podman",
    };
    let made = rootfs::unpack(engine, &args.image, &args.dir, args.force)?;
    println!("{} ({}) is in {}", escape::line(&made.image), escape::line(&made.id), args.dir.display());
    println!(
        "carried over: {} environment variables, entrypoint, command, working directory",
        made.environment.len()
    );
    println!("what still differs from a container:");
    for line in rootfs::differences(&made, &args.dir) {
        println!("  {}", escape::line(&line));
    }
    Ok(Exit::Fine)
}
