//! `cargo xtask demo`: from a checkout to the first report.

use std::ffi::OsString;
use std::process::Command;

use anyhow::{Result, bail};

use crate::docker::{self, PrivateDocker};
use crate::{build, process, setup};

/// Builds everything and records the reference workload natively and in a container, and an inference
///
/// Runs `spark-trace demo`. Where no Docker daemon answers, a private one is started for the time it takes.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask demo
  cargo xtask demo -- --help   # what `spark-trace demo` takes")]
pub struct Args {
    /// Passed on to `spark-trace demo`
    #[arg(last = true)]
    args: Vec<OsString>,
}

pub fn run(args: &Args) -> Result<()> {
    if !process::is_root() {
        bail!("tracing needs root: run `sudo env \"PATH=$PATH\" cargo xtask demo`");
    }
    setup::ensure(setup::Scope::Containers)?;
    let built = build::all(true)?;
    let cuda = build::cuda(true)?;
    let mut command = Command::new(&built.spark_trace);
    command.arg("demo").arg("--workload").arg(&built.workload);
    command.arg("--cuda-workload").arg(&cuda.workload).args(&args.args);

    // Kept until the demo has ended.
    let private = if docker::daemon_answers() { None } else { Some(PrivateDocker::start()?) };
    if let Some(docker) = &private {
        command.env("DOCKER_HOST", docker.host());
    }
    process::run(&mut command, "the demo")
}
