//! The command line. One file per subcommand: it parses, calls the library and chooses the exit code.
//!
//! A new subcommand is one file with `Args` and `run`, and one variant of [`Command`] with its arm.

pub mod error;
pub mod output;

mod bounded;
mod chroot;
mod completions;
mod demo;
mod destination;
mod diff;
mod doctor;
mod engine;
mod export;
mod headings;
mod kv;
mod log;
mod man;
mod progress;
mod reclaim;
mod record;
mod recover;
mod report;
mod schema;
mod serve;
mod show;
mod snapshot;
mod spark_report;
mod study;
mod top;
mod view;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use error::Exit;

use spark_trace_agent::{names, pause};

/// Shows what uses memory on machines whose GPU shares it, and why one run uses more than another.
#[derive(Debug, Parser)]
#[command(name = "spark-trace", version, max_term_width = 100, after_help = COMMANDS, help_template = TEMPLATE)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

const TEMPLATE: &str = "{about-with-newline}\n{usage-heading} {usage}{after-help}\n\nOptions:\n{options}\n";

/// The commands in the order in which they are needed. A list without groups does not say where to begin.
const COMMANDS: &str = "\
Start here:
  doctor       Check what this machine can record, and list what is missing
  record       Record where the memory of a run goes
  show         Show the memory of a recorded run
  diff         Compare two recordings: what uses more memory in B than in A

More from recordings:
  kv           Explain the size of the KV cache of an inference engine
  report       Write a report (HTML, Markdown) of one or two recordings
  export       Convert a recording for other tools
  recover      Make a recording from the journal of an interrupted `record`

The machine now:
  snapshot     Show the machine's memory now
  top          Watch the memory of the machine live
  serve        Monitor the machine: metrics, recent minutes, OOM kills
  reclaim      Show what memory could be given back, and take the chosen steps

Many runs:
  study        Record many runs by a plan, and compare them with statistics
  spark-report Test the claim about the DGX Spark, and make a page to send

Others:
  demo         Record a known workload twice and explain the difference
  schema       Print the JSON Schema of the recording format
  completions  Print a completion script for a shell
  man          Print the manual page of the program or of one subcommand
  help         Print the help of a command

Exit codes:
  0   fine
  1   the trace failed
  2   bad input: a recording that is missing, damaged or too new
  64  wrong usage
`record` passes on the exit code of the command it ran; 126 and 127 where it did not start.";

#[derive(Debug, Subcommand)]
enum Command {
    Record(Box<record::Args>),
    Doctor(doctor::Args),
    Demo(demo::Args),
    Snapshot(snapshot::Args),
    Serve(serve::Args),
    Reclaim(reclaim::Args),
    Show(show::Args),
    Top(Box<top::Args>),
    Diff(diff::Args),
    Kv(kv::Args),
    Report(report::Args),
    Export(export::Args),
    Study(study::Args),
    SparkReport(spark_report::Args),
    // The name of `study rootfs` in 0.1.0.
    #[command(hide = true)]
    Rootfs(study::rootfs::Args),
    // Studies run their environments of kind `chroot` with it.
    #[command(hide = true)]
    Chroot(chroot::Args),
    Recover(recover::Args),
    Schema(schema::Args),
    Completions(completions::Args),
    Man(man::Args),
}

impl Command {
    fn run(self) -> anyhow::Result<Exit> {
        match self {
            Self::Record(args) => record::run(*args),
            Self::Doctor(args) => doctor::run(args),
            Self::Demo(args) => demo::run(args),
            Self::Snapshot(args) => snapshot::run(args),
            Self::Serve(args) => serve::run(args),
            Self::Reclaim(args) => reclaim::run(args),
            Self::Show(args) => show::run(args),
            Self::Top(args) => top::run(*args),
            Self::Diff(args) => diff::run(args),
            Self::Kv(args) => kv::run(args),
            Self::Report(args) => report::run(args),
            Self::Export(args) => export::run(args),
            Self::Study(args) => study::run(args),
            Self::SparkReport(args) => spark_report::run(&args),
            Self::Rootfs(args) => study::rootfs::run(&args),
            Self::Chroot(args) => chroot::run(&args),
            Self::Recover(args) => recover::run(args),
            Self::Schema(args) => schema::run(args),
            Self::Completions(args) => completions::run(args),
            Self::Man(args) => man::run(args),
        }
    }
}

/// Runs the command of `args` (the program's name first).
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args: Vec<OsString> = args.into_iter().collect();
    if args.get(1).is_some_and(|arg| arg == pause::GUARD) {
        // No subcommand of the user's: the tracer calls itself so.
        return if pause::guard().is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    if args.get(1).is_some_and(|arg| arg == spark_trace_agent::unprivileged::READER) {
        return names::run();
    }
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => return error::usage(&error),
    };
    if let Err(error) = spark_trace_host::invoker::check() {
        return error::report(&anyhow::Error::new(error).context(Exit::Usage)).into();
    }
    cli.command.run().unwrap_or_else(|error| error::report(&error)).into()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::Cli;

    /// Lines of a terminal's first screen, and its columns.
    const LINES: usize = 30;
    const COLUMNS: usize = 80;

    /// Help that is longer than a screen is found in by its headings.
    #[test]
    fn help_fits_a_screen_or_has_sections() {
        let mut open = vec![Cli::command()];
        let (mut seen, mut long, mut faults) = (0, 0, Vec::new());
        while let Some(mut command) = open.pop() {
            let help = command.clone().term_width(COLUMNS).render_long_help().to_string();
            let is_heading = |line: &&str| line.ends_with(':') && line.starts_with(char::is_alphabetic);
            let headings = help.lines().filter(is_heading).count();
            let lines = help.lines().count();
            if command.get_name() == "spark-trace" {
                for command in command.get_subcommands().filter(|command| !command.is_hide_set()) {
                    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
                    let line = format!("  {:<12} {about}", command.get_name());
                    assert!(help.lines().any(|listed| listed == line), "{line}");
                }
            }
            // Arguments, options and examples alone are no sections.
            if lines > LINES && headings < 4 {
                faults.push(format!("{}: {lines} lines, {headings} headings", command.get_name()));
            }
            seen += 1;
            long += usize::from(lines > LINES);
            open.extend(command.get_subcommands_mut().map(|command| command.clone()));
        }
        assert!(faults.is_empty(), "{faults:#?}");
        assert!(seen > long && long > 0, "{long} of {seen} are longer than a screen");
    }
}
