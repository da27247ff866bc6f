use std::fs;
use std::path::{Path, PathBuf};

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

    /// Print nothing; write all pages into this folder, which is made if missing
    #[arg(long, value_name = "DIR", conflicts_with = "subcommand")]
    output: Option<PathBuf>,
}

const EXAMPLES: &str = "\
Examples:
  spark-trace man | man -l -
  spark-trace man show | man -l -
  spark-trace man --output /usr/local/share/man/man1";

pub fn run(args: Args) -> anyhow::Result<Exit> {
    let mut program = Cli::command();
    // Subcommands take their full names ("spark-trace show") from this.
    program.build();
    if let Some(folder) = &args.output {
        return write_all(&program, folder);
    }
    let command = match &args.subcommand {
        None => program,
        Some(name) => program
            .find_subcommand(name)
            .cloned()
            .with_context(|| format!("no subcommand `{name}`; `spark-trace help` lists them"))
            .context(Exit::Usage)?,
    };
    output::print(&page(command)?)
}

fn page(command: clap::Command) -> anyhow::Result<Vec<u8>> {
    let mut page = Vec::new();
    Man::new(command).render(&mut page)?;
    Ok(page)
}

/// One file for the program, and one for each subcommand: spark-trace-show.1.
fn write_all(program: &clap::Command, folder: &Path) -> anyhow::Result<Exit> {
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    // `help` shows what the pages say.
    let subcommands = program.get_subcommands().filter(|command| command.get_name() != "help");
    for command in std::iter::once(program).chain(subcommands) {
        let name = command.get_display_name().unwrap_or_else(|| command.get_name());
        let path = folder.join(format!("{name}.1"));
        fs::write(&path, page(command.clone())?)
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(Exit::Fine)
}
