//! `cargo xtask docs`: documents that are generated from tables, from the program and from kept measurements.

mod commands;
mod fields;
mod kernels;
mod links;
mod literals;
mod program;
mod sources;
mod words;

use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use crate::workspace;

/// Generates docs/reference/: sources from their table, kernels from the kept runs of `cargo xtask vm`, commands and fields
/// from what spark-trace prints
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  cargo xtask docs\n  cargo xtask docs --check   # in CI: are they up to date?"
)]
pub struct Args {
    /// Only check: fail if a file differs, if text for users has a word that docs/glossary.md bans, or if a link is dead
    #[arg(long)]
    check: bool,
    /// Take help and schema of this spark-trace, in place of one that is built for it
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
}

/// One generated file.
struct Document {
    /// From the workspace's directory.
    file: &'static str,
    from: &'static str,
    text: fn() -> Result<String>,
}

const DOCUMENTS: &[Document] = &[
    Document { file: "docs/reference/sources.md", from: "the table SOURCES", text: || Ok(sources::text()) },
    Document { file: "docs/reference/cli.md", from: "the program's help", text: commands::text },
    Document { file: "docs/reference/recording-fields.md", from: "the program's schema", text: fields::text },
    Document { file: "docs/reference/kernels.md", from: "the newest results/*-kernels", text: kernels::text },
];

pub fn run(args: &Args) -> Result<()> {
    if let Some(program) = &args.program {
        program::take(program)?;
    }
    DOCUMENTS.iter().try_for_each(|document| document.run(args.check))?;
    if args.check {
        words::check()?;
        links::check()?;
    }
    Ok(())
}

impl Document {
    fn run(&self, check: bool) -> Result<()> {
        let path = workspace::root().join(self.file);
        let wanted = (self.text)().with_context(|| format!("cannot generate {}", self.file))?;
        if !check {
            std::fs::write(&path, wanted).with_context(|| format!("cannot write {}", path.display()))?;
            println!("wrote {}", path.display());
            return Ok(());
        }
        let present = std::fs::read_to_string(&path)
            .with_context(|| format!("cannot read {}: run `cargo xtask docs`", path.display()))?;
        if let Some(line) = first_difference(&present, &wanted) {
            bail!("{} differs from {} at line {line}: run `cargo xtask docs`", self.file, self.from);
        }
        println!("{} is up to date", self.file);
        Ok(())
    }
}

fn first_difference(present: &str, wanted: &str) -> Option<usize> {
    if present == wanted {
        return None;
    }
    let (present, wanted): (Vec<&str>, Vec<&str>) = (present.lines().collect(), wanted.lines().collect());
    let same = present.iter().zip(&wanted).take_while(|(a, b)| a == b).count();
    Some(same + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_found_by_line() {
        assert_eq!(first_difference("a\nb\n", "a\nb\n"), None);
        assert_eq!(first_difference("a\nb\n", "a\nc\n"), Some(2));
        assert_eq!(first_difference("a\n", "a\nb\n"), Some(2));
    }
}
