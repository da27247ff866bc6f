use std::path::{Path, PathBuf};

use clap::ValueEnum;

use crate::cli::error::Exit;
use crate::cli::headings;
use spark_trace_recording::units;
use spark_trace_render::escape;
use spark_trace_study::rootfs::{self, LeftOut, Rootfs};

/// Unpack an image for environments of kind `chroot`
///
/// Writes its files to DIR/tree and its environment, entrypoint and working directory to DIR/rootfs.json, without
/// device nodes and set-user-ID. Prints the remaining differences from a container.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Image of the engine
    image: String,
    /// Directory to unpack to
    dir: PathBuf,
    /// Engine
    #[arg(long, value_enum, default_value = "docker")]
    engine: Engine,
    /// Take the files that lie here already, and write only the notes about them into DIR
    #[arg(long, value_name = "PATH", conflicts_with = "force")]
    tree: Option<PathBuf>,
    /// Rename files that exist
    #[arg(help_heading = headings::OUTPUT, long)]
    force: bool,
}

const EXAMPLES: &str = "\
Examples:
  sudo spark-trace study rootfs nvcr.io/nvidia/vllm:25.11-py3 /data/rootfs/vllm
  sudo spark-trace study rootfs nvcr.io/nvidia/tensorrt-llm/release:1.1.0rc3 /data/rootfs/trtllm --tree ~/container-rootfs
  sudo spark-trace record -- spark-trace chroot /data/rootfs/vllm -- vllm --help";

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
    if let Some(tree) = &args.tree {
        let made = rootfs::adopt(engine, &args.image, &args.dir, tree)?;
        let tree = escape::line(&tree.display().to_string()).to_string();
        println!("{tree} is used with the settings of {}", escape::line(&made.image));
        differences(&made, &args.dir);
        return Ok(Exit::Fine);
    }
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
    differences(&made, &args.dir);
    Ok(Exit::Fine)
}

fn differences(made: &Rootfs, dir: &Path) {
    println!("what still differs from a container:");
    for line in rootfs::differences(made, dir) {
        println!("  {}", escape::line(&line));
    }
}
