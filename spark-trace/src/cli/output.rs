//! Writing results, and what standard output can show.

use std::io::{self, IsTerminal, Write};

use anyhow::Context;

use super::error::Exit;
use crate::render::Style;

/// Writes a command's result to standard output in one go.
pub fn print(bytes: &[u8]) -> anyhow::Result<Exit> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes).and_then(|()| stdout.flush()).context("cannot write to standard output")?;
    Ok(Exit::Fine)
}

/// What standard output can show. Colour only where a person reads, and only unless they asked for
/// none (<https://no-color.org>).
pub fn style() -> Style {
    let asked_for_none = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let terminal = io::stdout().is_terminal();
    let width = terminal_size::terminal_size().filter(|_| terminal).map(|(width, _)| usize::from(width.0));
    let plain = Style::default();
    Style { width: width.unwrap_or(plain.width).max(plain.width), colour: terminal && !asked_for_none }
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
    fn command_lines_can_be_repeated() {
        assert_eq!(quoted("--memory=1g"), "--memory=1g");
        assert_eq!(quoted("/a b/it's"), "'/a b/it'\\''s'");
        assert_eq!(quoted(""), "''");
    }
}
