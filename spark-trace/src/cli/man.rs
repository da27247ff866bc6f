use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::CommandFactory;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, roman};

use crate::cli::error::Exit;
use crate::cli::{Cli, output};
use spark_trace_recording::write::{WriteOptions, write_public};

/// Print the manual page of the program or of one subcommand
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Subcommand to print the page of, such as `show` or `study run`; without one, the program's own page
    subcommand: Vec<String>,

    /// Print nothing; write all pages into this folder, which is made if missing
    #[arg(long, value_name = "DIR", conflicts_with = "subcommand")]
    output: Option<PathBuf>,
}

const EXAMPLES: &str = "\
Examples:
  spark-trace man | man -l -
  spark-trace man show | man -l -
  spark-trace man study run | man -l -
  spark-trace man --output /usr/local/share/man/man1";

pub fn run(args: Args) -> anyhow::Result<Exit> {
    let mut program = Cli::command();
    // Subcommands take their full names ("spark-trace show") from this.
    program.build();
    if let Some(folder) = &args.output {
        fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
        write_all(&program, folder)?;
        return Ok(Exit::Fine);
    }
    let mut command = &program;
    for name in &args.subcommand {
        command = command
            .find_subcommand(name)
            .with_context(|| {
                format!("no subcommand `{}`; `spark-trace help` lists them", args.subcommand.join(" "))
            })
            .context(Exit::Usage)?;
    }
    output::print(&page(command)?)
}

/// clap_mangen's page with what it leaves out of a synopsis, the values, and with headings for what stands at the end.
fn page(command: &clap::Command) -> anyhow::Result<Vec<u8>> {
    let man = Man::new(command.clone());
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    let usage = command.clone().render_usage().to_string();
    let usage = usage.trim_start_matches("Usage:").lines().map(str::trim);
    section("SYNOPSIS", usage, &mut page)?;
    man.render_description_section(&mut page)?;
    if command.get_arguments().any(|argument| !argument.is_hide_set()) {
        man.render_options_section(&mut page)?;
    }
    if command.has_subcommands() {
        man.render_subcommands_section(&mut page)?;
    }
    let end = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    for (title, lines) in sections(&end) {
        // The section on subcommands has them already.
        let first = lines.first().and_then(|line| line.split_whitespace().next());
        if first.is_some_and(|name| command.find_subcommand(name).is_some()) {
            continue;
        }
        section(&title, lines.into_iter(), &mut page)?;
    }
    if command.get_version().is_some() {
        man.render_version_section(&mut page)?;
    }
    Ok(page)
}

/// Lines that stay lines.
fn section<'a>(title: &str, lines: impl Iterator<Item = &'a str>, page: &mut Vec<u8>) -> std::io::Result<()> {
    let mut roff = Roff::default();
    roff.control("SH", [title]).control("nf", []);
    for line in lines {
        roff.text([roman(line)]);
    }
    roff.control("fi", []).to_writer(page)
}

/// What `--help` ends with, by its headings: lines that begin at the margin and end with a colon.
fn sections(text: &str) -> Vec<(String, Vec<&str>)> {
    let mut sections: Vec<(String, Vec<&str>)> = Vec::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let heads = lines.peek().is_some_and(|next| next.starts_with(' '));
        match (line.strip_suffix(':').filter(|title| heads && !title.starts_with(' ')), sections.last_mut()) {
            (Some("Exit codes"), _) => sections.push(("EXIT STATUS".to_owned(), Vec::new())),
            (Some(title), _) => sections.push((title.to_uppercase(), Vec::new())),
            (None, Some((title, lines)))
                if title != "NOTES" && (line.is_empty() || line.starts_with(' ')) =>
            {
                lines.push(line);
            }
            (None, Some((title, lines))) if title == "NOTES" => lines.push(line),
            (None, _) => sections.push(("NOTES".to_owned(), vec![line])),
        }
    }
    sections
}

/// One file for the program, and one for each subcommand and for those below it: spark-trace-study-run.1.
fn write_all(command: &clap::Command, folder: &Path) -> anyhow::Result<()> {
    let name = command.get_display_name().unwrap_or_else(|| command.get_name());
    let path = folder.join(format!("{name}.1"));
    let options = WriteOptions { force: true, owner: None };
    write_public(&page(command)?, &path, options)?;
    // `help` shows what the pages say; what is hidden has no page of its own.
    let shown = |command: &&clap::Command| command.get_name() != "help" && !command.is_hide_set();
    for below in command.get_subcommands().filter(shown) {
        write_all(below, folder)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_at_the_end_of_help_has_headings() {
        let text = "Examples:\n  one\n  two\n\nUnder sudo: this.\n\nExit codes:\n  0  fine";
        let found = sections(text);
        let titles: Vec<_> = found.iter().map(|(title, _)| title.as_str()).collect();
        assert_eq!(titles, ["EXAMPLES", "NOTES", "EXIT STATUS"]);
        assert_eq!(found[0].1, ["  one", "  two", ""]);
        assert_eq!(found[1].1[0], "Under sudo: this.");
    }
}
