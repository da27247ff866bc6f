use std::path::PathBuf;

use clap::ValueEnum;

use super::error::Exit;
use crate::render::escape;
use crate::study::rootfs::{self, LeftOut};
use crate::units;

/// Unpack an image for `chroot`, with the settings its containers would have
///
/// Its files come into DIR/tree. Environment, entrypoint and working directory of the image are kept beside them in
/// DIR/rootfs.json: `spark-trace chroot` uses them. DIR is for root alone; device nodes and set-user-ID are left out.
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
    /// Unpack beside what is there: the earlier files are renamed
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
    let unpacked = rootfs::unpack(engine, &args.image, &args.dir, args.force)?;
    let made = unpacked.rootfs;
    println!("{} ({}) is in {}", escape::line(&made.image), escape::line(&made.id), args.dir.display());
    println!(
        "carried over: {} environment variables, entrypoint, command, working directory",
        made.environment.len()
    );
    let LeftOut { devices, privileged } = unpacked.left_out;
    if devices > 0 {
        println!(
            "left out: {}",
            units::count(usize::try_from(devices).unwrap_or(usize::MAX), "device node", "device nodes")
        );
    }
    if privileged > 0 {
        let files = units::count(usize::try_from(privileged).unwrap_or(usize::MAX), "file", "files");
        println!("set-user-ID and set-group-ID were taken away from {files}");
    }
    if let Some(moved) = unpacked.moved {
        println!("the earlier files are in {}", escape::line(&moved.display().to_string()));
    }
    println!("what still differs from a container:");
    for line in rootfs::differences(&made, &args.dir) {
        println!("  {}", escape::line(&line));
    }
    Ok(Exit::Fine)
}
