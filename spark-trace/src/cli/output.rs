//! Writing results, and what standard output can show.

use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};

use anyhow::Context;

use super::error::Exit;
use super::headings;
use spark_trace_recording::write;
use spark_trace_render::{Style, USUAL_WIDTH};

/// Narrower tables say nothing.
const LEAST_WIDTH: usize = 40;

/// The option of each command that draws tables.
#[derive(Debug, Clone, Copy, Default, clap::Args)]
pub struct WidthArg {
    /// Columns that a line may have, or `none` to cut nothing [default: the terminal's width; elsewhere $COLUMNS, or none]
    #[arg(help_heading = headings::OUTPUT, long, value_name = "COLUMNS", value_parser = columns)]
    width: Option<Columns>,
}

impl WidthArg {
    pub const fn is_given(self) -> bool {
        self.width.is_some()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Columns {
    Unlimited,
    Most(usize),
}

fn columns(text: &str) -> Result<Columns, String> {
    match text.parse() {
        Ok(columns) if columns >= LEAST_WIDTH => Ok(Columns::Most(columns)),
        Ok(_) => Err(format!("at least {LEAST_WIDTH} columns are needed")),
        Err(_) if text == "none" => Ok(Columns::Unlimited),
        Err(_) => Err("neither a number of columns nor `none`".to_owned()),
    }
}

/// Writes a command's result to standard output in one go.
pub fn print(bytes: &[u8]) -> anyhow::Result<Exit> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes).and_then(|()| stdout.flush()).context("cannot write to standard output")?;
    Ok(Exit::Fine)
}

/// Writes a large result to standard output as it is made.
pub fn print_with(content: &dyn Fn(&mut dyn Write) -> io::Result<()>) -> anyhow::Result<Exit> {
    write::buffered(io::stdout().lock(), content).context("cannot write to standard output")?;
    Ok(Exit::Fine)
}

/// What standard output can show. Colour only on a terminal, and never with NO_COLOR (<https://no-color.org>).
pub fn style(width: WidthArg) -> Style {
    let is_refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let terminal = io::stdout().is_terminal();
    Style {
        width: match width.width {
            Some(Columns::Unlimited) => None,
            Some(Columns::Most(columns)) => Some(columns),
            None => width_there(terminal),
        },
        colour: terminal && !is_refused,
        ascii: !has_unicode(["LC_ALL", "LC_CTYPE", "LANG"].map(std::env::var_os)),
    }
}

/// The terminal's own width, else what the user's shell says; a pipe or a file without either has none.
fn width_there(terminal: bool) -> Option<usize> {
    // The first knows no width where the height is not known, as of a terminal whose width alone was set.
    let other = || ratatui::crossterm::terminal::window_size().ok().map(|size| size.columns);
    let own = || terminal_size::terminal_size().map(|(width, _)| width.0).or_else(other).map(usize::from);
    let own = if terminal { own() } else { None };
    let shell = || std::env::var("COLUMNS").ok()?.parse().ok();
    let known = own.filter(|&width| width > 0).or_else(shell).filter(|&width| width > 0);
    known.or(terminal.then_some(USUAL_WIDTH)).map(|width| width.max(LEAST_WIDTH))
}

/// Whether the locale's characters are UTF-8: the first of these variables that has a value says it (setlocale(3));
/// without any it is the C locale, which has ASCII.
fn has_unicode(variables: [Option<OsString>; 3]) -> bool {
    let locale = variables.into_iter().flatten().find(|value| !value.is_empty());
    let locale = locale.map(|value| value.to_string_lossy().to_lowercase());
    locale.is_some_and(|locale| locale.contains("utf-8") || locale.contains("utf8"))
}

/// A word as a shell takes it.
pub fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_width_is_a_number_or_none() {
        assert_eq!(columns("none"), Ok(Columns::Unlimited));
        assert_eq!(columns("132"), Ok(Columns::Most(132)));
        for wrong in ["0", "39", "-80", "wide", ""] {
            assert!(columns(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_first_variable_of_the_locale_decides() {
        let of = |values: [&str; 3]| has_unicode(values.map(|value| Some(OsString::from(value))));
        assert!(of(["", "", "en_US.UTF-8"]) && of(["C.utf8", "", "C"]));
        assert!(!of(["C", "", "en_US.UTF-8"]) && !of(["", "", "de_DE.ISO-8859-1"]));
        assert!(!has_unicode([None, None, None]));
    }

    #[test]
    fn command_lines_can_be_repeated() {
        assert_eq!(quoted("--memory=1g"), "--memory=1g");
        assert_eq!(quoted("/a b/it's"), "'/a b/it'\\''s'");
        assert_eq!(quoted(""), "''");
    }
}
