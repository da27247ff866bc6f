use clap::CommandFactory;
use clap_complete::Shell;

use crate::cli::error::Exit;
use crate::cli::{Cli, output};

/// Print a completion script for a shell
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Shell to complete for
    shell: Shell,
}

const EXAMPLES: &str = "\
Examples:
  spark-trace completions bash > ~/.local/share/bash-completion/completions/spark-trace
  spark-trace completions fish > ~/.config/fish/completions/spark-trace.fish
  spark-trace completions zsh > \"${fpath[1]}/_spark-trace\"";

pub fn run(args: Args) -> anyhow::Result<Exit> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "spark-trace", &mut script);
    output::print(&script)
}
