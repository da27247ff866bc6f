//! `study`: one file per step, from the plan to the report.

mod check;
mod compare;
mod import;
mod init;
mod report;
pub mod rootfs;
mod run;
mod shared;
mod status;

use clap::Subcommand;

use crate::cli::error::Exit;

/// Record many runs by a plan, and compare them with statistics
///
/// A study compares environments over many runs, in an order that cancels drift.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(subcommand)]
    step: Step,
}

const EXAMPLES: &str = "\
Examples:
  spark-trace study init --template quick study.toml   # a plan to adapt
  spark-trace study check study.toml                   # what is missing, and how long it takes
  sudo spark-trace study run study.toml --dir my-study # hours
  spark-trace study report my-study -o site            # a web site";

#[derive(Debug, Subcommand)]
enum Step {
    Init(init::Args),
    Check(check::Args),
    Run(run::Args),
    Resume(run::ResumeArgs),
    Reread(run::RereadArgs),
    Status(status::Args),
    Stop(status::StopArgs),
    Import(import::Args),
    Report(report::Args),
    Compare(compare::Args),
    Rootfs(rootfs::Args),
}

pub fn run(args: Args) -> anyhow::Result<Exit> {
    match args.step {
        Step::Init(args) => init::run(&args),
        Step::Check(args) => check::run(&args),
        Step::Run(args) => run::run(&args),
        Step::Resume(args) => run::resume(&args),
        Step::Reread(args) => run::reread(&args),
        Step::Status(args) => status::run(&args),
        Step::Stop(args) => status::stop(&args),
        Step::Import(args) => import::run(&args),
        Step::Report(args) => report::run(&args),
        Step::Compare(args) => compare::run(&args),
        Step::Rootfs(args) => rootfs::run(&args),
    }
}
