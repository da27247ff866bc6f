//! `cargo xtask build`: the two programs.

use std::path::PathBuf;

use anyhow::{Result, ensure};

use crate::{process, workspace};

/// Builds spark-trace and the reference workload and prints where they are
///
/// The workload is linked statically, so it runs in an image that holds nothing else.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  cargo xtask build\n  cargo xtask build --release --cuda")]
pub struct Args {
    /// Optimise; the build for measuring
    #[arg(long)]
    release: bool,
    /// Also build the workload that can load a CUDA driver, and the simulated driver beside it
    #[arg(long)]
    cuda: bool,
}

pub fn run(args: &Args) -> Result<()> {
    let built = all(args.release)?;
    println!("{}", built.spark_trace.display());
    println!("{}", built.workload.display());
    if args.cuda {
        let cuda = cuda(args.release)?;
        println!("{}\n{}", cuda.workload.display(), cuda.simulated_driver.display());
    }
    Ok(())
}

/// Paths of the programs.
pub struct Built {
    pub spark_trace: PathBuf,
    pub workload: PathBuf,
}

/// Builds both programs.
pub fn all(release: bool) -> Result<Built> {
    let workload = workload(release)?;
    let mut command = process::cargo();
    command.args(["build", "--package", "spark-trace"]).current_dir(workspace::root());
    if release {
        command.arg("--release");
    }
    process::run(&mut command, "building spark-trace")?;
    let spark_trace = built(workspace::profile_dir(None, release)?.join("spark-trace"))?;
    Ok(Built { spark_trace, workload })
}

/// Builds the static workload.
pub fn workload(release: bool) -> Result<PathBuf> {
    let triple = workspace::host_triple();
    let mut command = process::cargo();
    command
        // With a target named, cargo keeps these flags from build scripts and proc macros, which
        // cannot be linked statically.
        .args(["build", "--package", "spark-trace-workload", "--target", &triple])
        .env("RUSTFLAGS", "-C target-feature=+crt-static -C force-frame-pointers=yes")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .current_dir(workspace::root());
    if release {
        command.arg("--release");
    }
    process::run(&mut command, "building the static workload")?;
    built(workspace::profile_dir(Some(&triple), release)?.join("spark-trace-workload"))
}

/// Paths of what CUDA workloads need.
pub struct Cuda {
    pub workload: PathBuf,
    pub simulated_driver: PathBuf,
}

/// Builds the workload that can load a driver, and the simulated driver.
pub fn cuda(release: bool) -> Result<Cuda> {
    // A directory of its own: other flags than those of the other builds, which would be built anew each time.
    let directory = workspace::target_dir()?.join("cuda");
    let mut command = process::cargo();
    command
        .args(["build", "--package", "spark-trace-workload", "--package", "spark-trace-simulated-cuda"])
        .arg("--target-dir")
        .arg(&directory)
        // User stacks are followed by frame pointers.
        .env("RUSTFLAGS", "-C force-frame-pointers=yes")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .current_dir(workspace::root());
    if release {
        command.arg("--release");
    }
    process::run(&mut command, "building the CUDA workload and the simulated driver")?;
    let directory = directory.join(if release { "release" } else { "debug" });
    Ok(Cuda {
        workload: built(directory.join("spark-trace-workload"))?,
        simulated_driver: built(directory.join("libspark_trace_simulated_cuda.so"))?,
    })
}

fn built(path: PathBuf) -> Result<PathBuf> {
    ensure!(path.is_file(), "cargo succeeded but left no {}: was the binary renamed?", path.display());
    Ok(path)
}
