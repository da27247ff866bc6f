//! Documents for a terminal: readable in 80 columns, and without colour.

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::Style;
use super::document::{Block, Document, Fit, Table};
use super::escape::line as inert;

const BOLD: &str = "\x1b[1m";
const BOLD_YELLOW: &str = "\x1b[1;33m";
const RESET: &str = "\x1b[0m";
const GAP: &str = "  ";
/// A column that may be cut keeps at least this much.
const LEAST: usize = 12;
/// Stands for what was cut off.
const CUT: &str = "…";

pub fn render(document: &Document, style: Style) -> String {
    let text = set_document(document, style);
    if style.ascii { super::ascii::of(&text) } else { text }
}

fn set_document(document: &Document, style: Style) -> String {
    let mut text = String::new();
    let mut before: Option<&Block> = None;
    for block in &document.blocks {
        // A table stands by itself, except below its heading.
        if matches!((before, block), (Some(Block::Table(_) | Block::Line(_)), Block::Table(_))) {
            text.push('\n');
        }
        before = Some(block);
        match block {
            Block::Heading(heading) => {
                if !text.is_empty() {
                    text.push('\n');
                }
                let mut lines = String::new();
                wrap(&mut lines, "", &inert(heading), style);
                text += &coloured(lines.trim_end(), BOLD, style);
                text.push('\n');
            }
            Block::Line(line) | Block::Own(line) => wrap(&mut text, "", &inert(line), style),
            Block::Command(command) => {
                text.push_str("    ");
                text.push_str(&inert(command));
                text.push('\n');
            }
            Block::Listing(lines) => {
                for line in lines {
                    text.push_str("    ");
                    text.push_str(&inert(line));
                    text.push('\n');
                }
            }
            Block::Warning(warning) => {
                wrap(&mut text, &coloured("WARNING ", BOLD_YELLOW, style), &inert(warning), style);
            }
            Block::Table(table) => set(&mut text, table, style),
        }
    }
    text
}

fn coloured(text: &str, colour: &str, style: Style) -> String {
    if style.colour { format!("{colour}{text}{RESET}") } else { text.to_owned() }
}

/// Breaks a line between words; what follows the first line is indented.
fn wrap(text: &mut String, start: &str, line: &str, style: Style) {
    text.push_str(start);
    let mut used = if start.is_empty() { 0 } else { "WARNING ".len() };
    for (index, word) in line.split(' ').enumerate() {
        let width = word.width();
        if index > 0 && style.width.is_some_and(|columns| used + 1 + width > columns) {
            text.push_str("\n  ");
            used = 2;
        } else if index > 0 {
            text.push(' ');
            used += 1;
        }
        text.push_str(word);
        used += width;
    }
    text.push('\n');
}

fn set(text: &mut String, table: &Table, style: Style) {
    let rows: Vec<Vec<String>> =
        table.rows.iter().map(|row| row.iter().map(|cell| inert(cell)).collect()).collect();
    let widths = widths(table, &rows, style.width.unwrap_or(usize::MAX));
    let titles: Vec<_> = table.columns.iter().map(|column| inert(&column.title)).collect();
    for (index, row) in std::iter::once(&titles).chain(&rows).enumerate() {
        let cells = row.iter().zip(&table.columns).zip(&widths);
        let cells: Vec<_> = cells.map(|((cell, column), &width)| pad(cell, column.fit, width)).collect();
        let line = cells.join(GAP);
        let line = line.trim_end();
        text.push_str(&if index == 0 { coloured(line, BOLD, style) } else { line.to_owned() });
        text.push('\n');
    }
}

/// Widths of the columns: what they need, the widest that may be cut narrowed until all fit.
fn widths(table: &Table, rows: &[Vec<String>], available: usize) -> Vec<usize> {
    let needed = |index: usize| {
        let cells = rows.iter().filter_map(|row| row.get(index)).map(|cell| cell.width());
        cells.chain(table.columns.get(index).map(|column| column.title.width())).max().unwrap_or(0)
    };
    let mut widths: Vec<_> = (0..table.columns.len()).map(needed).collect();
    let gaps = GAP.len() * widths.len().saturating_sub(1);
    while widths.iter().sum::<usize>() + gaps > available {
        let may_be_cut = widths.iter_mut().zip(&table.columns).filter(|(_, column)| column.fit.may_be_cut());
        match may_be_cut.map(|(width, _)| width).max() {
            Some(width) if *width > LEAST => *width -= 1,
            _ => break,
        }
    }
    widths
}

impl Fit {
    const fn may_be_cut(self) -> bool {
        matches!(self, Self::Path | Self::Text | Self::Own)
    }
}

fn pad(cell: &str, fit: Fit, width: usize) -> String {
    let cell = match fit {
        Fit::Path if cell.width() > width => format!("{CUT}{}", last_columns(cell, width - CUT.width())),
        Fit::Text | Fit::Own if cell.width() > width => {
            format!("{}{CUT}", first_columns(cell, width - CUT.width()))
        }
        _ => cell.to_owned(),
    };
    let blank = " ".repeat(width.saturating_sub(cell.width()));
    if fit == Fit::Number { blank + &cell } else { cell + &blank }
}

/// As much of the beginning as fits into `columns`.
fn first_columns(text: &str, columns: usize) -> &str {
    let mut used = 0;
    let end = text.char_indices().find(|(_, c)| {
        used += c.width().unwrap_or(0);
        used > columns
    });
    end.map_or(text, |(end, _)| &text[..end])
}

/// As much of the end as fits into `columns`.
fn last_columns(text: &str, columns: usize) -> &str {
    let mut used = 0;
    let start = text.char_indices().rev().find(|(_, c)| {
        used += c.width().unwrap_or(0);
        used > columns
    });
    start.map_or(text, |(start, c)| &text[start + c.len_utf8()..])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::document::Column;
    use super::*;

    fn table(cells: &[&str]) -> Document {
        let column = |title: &str, fit| Column { title: title.into(), fit };
        let columns = vec![column("SIZE", Fit::Number), column("FILE", Fit::Path), column("WHAT", Fit::Text)];
        let rows = vec![cells.iter().map(|cell| (*cell).to_owned()).collect()];
        Document { blocks: vec![Block::Table(Table { columns, rows })] }
    }

    fn narrow(width: usize) -> Style {
        Style { width: Some(width), ..Style::default() }
    }

    #[test]
    fn numbers_stand_right_and_long_text_is_cut() {
        let long = table(&["5 B", "/a/very/long/path/to/some/file", "and what it is for"]);
        let text = render(&long, narrow(40));
        assert_eq!(text, "SIZE  FILE              WHAT\n 5 B  …th/to/some/file  and what it is …\n");
        let short = table(&["5 B", "/a", "b"]);
        assert_eq!(render(&short, narrow(40)), "SIZE  FILE  WHAT\n 5 B  /a    b\n");
    }

    #[test]
    fn lines_break_between_words() {
        let document = Document { blocks: vec![Block::Warning("one two three four".into())] };
        assert_eq!(render(&document, narrow(16)), "WARNING one two\n  three four\n");
        let document = Document { blocks: vec![Block::Heading("one two three four".into())] };
        assert_eq!(render(&document, narrow(16)), "one two three\n  four\n");
        let bold = Style { colour: true, ..narrow(16) };
        assert_eq!(render(&document, bold), "\x1b[1mone two three\n  four\x1b[0m\n");
    }

    #[test]
    fn colour_is_only_there_on_request() {
        let document = Document { blocks: vec![Block::Heading("A".into()), Block::Warning("b".into())] };
        assert!(!render(&document, Style::default()).contains('\x1b'));
        let coloured = render(&document, Style { colour: true, ..Style::default() });
        assert_eq!(coloured, "\x1b[1mA\x1b[0m\n\x1b[1;33mWARNING \x1b[0mb\n");
    }

    proptest! {
        #[test]
        fn tables_fit_and_stay_inert(path in ".*", what in ".*") {
            let text = render(&table(&["12.0 MiB", &path, &what]), Style::default());
            prop_assert_eq!(text.lines().count(), 2);
            prop_assert!(text.lines().all(|line| line.width() <= 80));
            prop_assert!(!text.contains('\x1b'));
        }
    }
}
