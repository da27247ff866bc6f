use anyhow::Context;
use clap::CommandFactory;
use clap_mangen::Man;

use crate::cli::error::Exit;
use crate::cli::{Cli, output};

/// Print the manual page of the program or of one subcommand
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Subcommand to print the page of; the program's own page where none is given
    subcommand: Option<String>,
}

const EXAMPLES: &str = "\
Examples:
  spark-trace man | man -l -
  spark-trace man show | man -l -
  spark-trace man > /usr/local/share/man/man1/spark-trace.1";

pub fn run(args: Args) -> anyhow::Result<Exit> {
    let mut program = Cli::command();
    // Subcommands take their full names ("spark-trace show") from this.
    program.build();
    let command = match &args.subcommand {
        None => program,
        Some(name) => program
            .find_subcommand(name)
            .cloned()
            .with_context(|| format!("no subcommand `{name}`; `spark-trace help` lists them"))
            .context(Exit::Usage)?,
    };
    let mut page = Vec::new();
    Man::new(command).render(&mut page)?;
    output::print(&page)
}
