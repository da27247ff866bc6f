//! `study`: one file per step, from the plan to the report.

mod import;
mod init;
mod report;
#[cfg(feature = "live")]
mod run;
#[cfg(feature = "live")]
mod status;

use clap::Subcommand;

use crate::cli::error::Exit;

/// Many runs by a plan, and what they show
///
/// A study compares environments (natively, chroot, containers) over many runs in an order that keeps drift out,
/// keeps every run's recording, and says what the figures show and what they cannot show.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(subcommand)]
    step: Step,
}

const EXAMPLES: &str = "\
Examples:
  spark-trace study init --template quick study.toml      # a plan to adapt
  spark-trace study run study.toml --dry-run              # what it would run, in which order
  sudo spark-trace study run study.toml --dir my-study    # hours; Ctrl-C loses the run under way
  sudo spark-trace study resume my-study
  spark-trace study report my-study -o site               # a site for GitHub Pages";

#[derive(Debug, Subcommand)]
enum Step {
    Init(init::Args),
    #[cfg(feature = "live")]
    Run(run::Args),
    #[cfg(feature = "live")]
    Resume(run::ResumeArgs),
    #[cfg(feature = "live")]
    Reread(run::RereadArgs),
    #[cfg(feature = "live")]
    Status(status::Args),
    #[cfg(feature = "live")]
    Stop(status::StopArgs),
    Import(import::Args),
    Report(report::Args),
}

pub fn run(args: Args) -> anyhow::Result<Exit> {
    match args.step {
        Step::Init(args) => init::run(&args),
        #[cfg(feature = "live")]
        Step::Run(args) => run::run(&args),
        #[cfg(feature = "live")]
        Step::Resume(args) => run::resume(&args),
        #[cfg(feature = "live")]
        Step::Reread(args) => run::reread(&args),
        #[cfg(feature = "live")]
        Step::Status(args) => status::run(&args),
        #[cfg(feature = "live")]
        Step::Stop(args) => status::stop(&args),
        Step::Import(args) => import::run(&args),
        Step::Report(args) => report::run(&args),
    }
}
