//! The command line. One file per subcommand: it parses, calls the library and chooses the exit code.
//!
//! A new subcommand is one file with `Args` and `run`, and one variant of [`Command`] with its arm.

pub mod error;
pub mod output;

mod chroot;
mod completions;
#[cfg(feature = "live")]
mod demo;
mod destination;
mod diff;
#[cfg(feature = "live")]
mod doctor;
mod export;
mod kv;
mod man;
#[cfg(feature = "live")]
mod progress;
#[cfg(feature = "live")]
mod record;
mod recover;
mod report;
mod rootfs;
mod schema;
#[cfg(feature = "live")]
mod serve;
mod show;
#[cfg(feature = "live")]
mod snapshot;
mod study;
mod top;
mod view;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use error::Exit;

#[cfg(feature = "live")]
use crate::live::{names, pause};

/// Who is using the memory? Traces a run from the kernel up and says where every byte is.
#[derive(Debug, Parser)]
#[command(name = "spark-trace", version, max_term_width = 100, after_help = EXIT_CODES)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "\
Exit codes:
  0   fine
  1   the trace failed
  2   bad input: a recording that is missing, damaged or too new
  64  wrong usage
`record` passes on the exit code of the command it ran; 126 and 127 where it did not start.";

#[derive(Debug, Subcommand)]
enum Command {
    #[cfg(feature = "live")]
    Record(Box<record::Args>),
    #[cfg(feature = "live")]
    Doctor(doctor::Args),
    #[cfg(feature = "live")]
    Demo(demo::Args),
    #[cfg(feature = "live")]
    Snapshot(snapshot::Args),
    #[cfg(feature = "live")]
    Serve(serve::Args),
    Show(show::Args),
    Top(Box<top::Args>),
    Diff(diff::Args),
    Kv(kv::Args),
    Report(report::Args),
    Export(export::Args),
    Study(study::Args),
    Rootfs(rootfs::Args),
    Chroot(chroot::Args),
    Recover(recover::Args),
    Schema(schema::Args),
    Completions(completions::Args),
    Man(man::Args),
}

impl Command {
    fn run(self) -> anyhow::Result<Exit> {
        match self {
            #[cfg(feature = "live")]
            Self::Record(args) => record::run(*args),
            #[cfg(feature = "live")]
            Self::Doctor(args) => doctor::run(args),
            #[cfg(feature = "live")]
            Self::Demo(args) => demo::run(args),
            #[cfg(feature = "live")]
            Self::Snapshot(args) => snapshot::run(args),
            #[cfg(feature = "live")]
            Self::Serve(args) => serve::run(args),
            Self::Show(args) => show::run(args),
            Self::Top(args) => top::run(*args),
            Self::Diff(args) => diff::run(args),
            Self::Kv(args) => kv::run(args),
            Self::Report(args) => report::run(args),
            Self::Export(args) => export::run(args),
            Self::Study(args) => study::run(args),
            Self::Rootfs(args) => rootfs::run(&args),
            Self::Chroot(args) => chroot::run(&args),
            Self::Recover(args) => recover::run(args),
            Self::Schema(args) => schema::run(args),
            Self::Completions(args) => completions::run(args),
            Self::Man(args) => man::run(args),
        }
    }
}

/// Runs the command that `args` (the program's name first) ask for.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args: Vec<OsString> = args.into_iter().collect();
    #[cfg(feature = "live")]
    if args.get(1).is_some_and(|arg| arg == pause::GUARD) {
        // No subcommand of the user's: the tracer calls itself so.
        return if pause::guard().is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    #[cfg(feature = "live")]
    if args.get(1).is_some_and(|arg| arg == names::READER) {
        return names::run();
    }
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => return error::usage(&error),
    };
    if let Err(error) = crate::invoker::check() {
        return error::report(&anyhow::Error::new(error).context(Exit::Usage)).into();
    }
    cli.command.run().unwrap_or_else(|error| error::report(&error)).into()
}
