//! `cargo xtask gpu pack`: builds everything into one folder.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::folder::{
    CUDA_WORKLOAD, FILES, Folder, SIMULATED_DRIVER, SPARK_TRACE, STATIC_WORKLOAD, TESTS, XTASK,
};
use crate::build::{Build, Profile};
use crate::suites::Kind;
use crate::{process, setup, workspace};

/// Builds everything that needs a GPU into one folder, to be copied to such a machine
///
/// The machine needs the same architecture, a C library at least as new as this one's, and root. It needs no Rust,
/// no network and no checkout.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  cargo xtask gpu pack gpu-folder")]
pub struct Args {
    /// Folder to put it in; made if missing
    #[arg(value_name = "DIR")]
    dir: PathBuf,
}

/// The machine has the architecture of this one.
const HERE: Build = Build { arch: None, profile: Profile::Release };

/// What is stripped of a program.
#[derive(Clone, Copy)]
enum Strip {
    All,
    /// Names of functions stay: stacks and uprobes need them.
    DebugInfo,
}

pub fn run(args: &Args) -> Result<()> {
    setup::ensure(setup::Scope::Building)?;
    let folder = Folder(args.dir.clone());
    fs::create_dir_all(&folder.0).with_context(|| format!("cannot create {}", folder.0.display()))?;
    let built = HERE.all()?;
    let cuda = HERE.cuda()?;
    put(&built.spark_trace, &folder.path(SPARK_TRACE), Strip::All)?;
    put(&built.workload, &folder.path(STATIC_WORKLOAD), Strip::DebugInfo)?;
    put(&cuda.workload, &folder.path(CUDA_WORKLOAD), Strip::DebugInfo)?;
    put(&cuda.simulated_driver, &folder.path(SIMULATED_DRIVER), Strip::DebugInfo)?;
    put(&xtask()?, &folder.path(XTASK), Strip::All)?;
    let tests = HERE.tests(&[Kind::Gpu])?.programs;
    let (_, program) = tests.first().context("spark-trace has no tests called gpu")?;
    put(program, &folder.path(TESTS), Strip::All)?;
    copy_files(&workspace::root().join("spark-trace/tests/gpu/files"), &folder.path(FILES))?;
    println!(
        "packed into {}; copy it to the machine with a GPU and run there as root: ./{XTASK} gpu run --output OUT",
        folder.0.display()
    );
    Ok(())
}

fn put(from: &Path, to: &Path, strip: Strip) -> Result<()> {
    // Not written over in place: it may be running.
    let _ = fs::remove_file(to);
    let mut command = Command::new("strip");
    if matches!(strip, Strip::DebugInfo) {
        command.arg("--strip-debug");
    }
    command.arg("-o").arg(to).arg(from);
    process::output(&mut command, "stripping a program (binutils)").map(drop)
}

fn xtask() -> Result<PathBuf> {
    let mut command = process::cargo();
    command.args(["build", "--release", "--package", "xtask"]).current_dir(workspace::root());
    process::run(&mut command, "building xtask")?;
    Ok(workspace::target_dir()?.join("release/xtask"))
}

/// Copies the files of a folder; nothing where there is none.
fn copy_files(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("cannot create {}", to.display()))?;
    for entry in fs::read_dir(from).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_file()) {
            fs::copy(entry.path(), to.join(entry.file_name()))
                .with_context(|| format!("cannot copy {}", entry.path().display()))?;
        }
    }
    Ok(())
}
