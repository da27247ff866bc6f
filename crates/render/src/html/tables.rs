//! Tables and documents in a page.

use super::page::Page;
use crate::document::{Block, Document, Fit, Table};

/// Words of titles that are no words.
const ABBREVIATIONS: &[&str] = &[
    "A", "B", "PID", "RSS", "PSS", "KV", "GPU", "CI", "N", "P", "SD", "CV", "TOST", "(CI)", "(TOST)", "FDR",
];

/// A cell of more characters than this is folded...
const LONG: usize = 140;
/// ...to this many.
const SHOWN: usize = 100;

/// A document's blocks below a heading of level two.
pub fn document(page: &mut Page, document: &Document) {
    let mut caption = "";
    let mut follows = false;
    for block in &document.blocks {
        match block {
            Block::Heading(text) => {
                caption = text;
                page.element("h3", &[], text);
            }
            Block::Line(text) | Block::Own(text) => page.element("p", &[], text),
            Block::Command(text) => page.element("pre", &[("tabindex", "0")], text),
            Block::Listing(lines) => page.within("pre", &[("tabindex", "0")], |page| {
                for line in lines {
                    page.text(line);
                    page.fixed("\n");
                }
            }),
            Block::Warning(text) => warning(page, text),
            // Right below its heading a table needs no visible caption.
            Block::Table(table) => self::table(page, caption, !follows, table),
        }
        follows = matches!(block, Block::Heading(_));
    }
}

/// Told by word and border: colour comes on top.
pub fn warning(page: &mut Page, text: &str) {
    page.within("p", &[("class", "warning")], |page| {
        page.element("strong", &[], "Warning: ");
        page.text(text);
    });
}

/// A table that scrolls by itself where it is too wide.
pub fn table(page: &mut Page, caption: &str, captioned: bool, table: &Table) {
    let attributes = [("class", "scroll"), ("tabindex", "0"), ("role", "region"), ("aria-label", caption)];
    page.within("div", &attributes, |page| {
        page.within("table", &[], |page| {
            let visibility = if captioned { "" } else { "unseen" };
            page.element("caption", &[("class", visibility)], caption);
            page.within("thead", &[], |page| {
                page.within("tr", &[], |page| {
                    for column in &table.columns {
                        let attributes = [("scope", "col"), ("class", class(column.fit))];
                        page.element("th", &attributes, &sentence_case(&column.title));
                    }
                });
            });
            page.within("tbody", &[], |page| {
                for row in &table.rows {
                    page.within("tr", &[], |page| self::row(page, table, row));
                }
            });
        });
    });
}

fn row(page: &mut Page, table: &Table, row: &[String]) {
    for (index, (cell, column)) in row.iter().zip(&table.columns).enumerate() {
        let class = ("class", class(column.fit));
        if index == 0 && column.fit != Fit::Number {
            page.within("th", &[("scope", "row"), class], |page| self::cell(page, cell));
        } else {
            page.within("td", &[class], |page| self::cell(page, cell));
        }
    }
}

/// Stacks are long: their beginning says most, and the rest is there for who wants it.
fn cell(page: &mut Page, cell: &str) {
    match cell.char_indices().nth(LONG) {
        None => page.text(cell),
        Some(_) => page.within("details", &[], |page| {
            let shown = cell.char_indices().nth(SHOWN).map_or(cell, |(end, _)| &cell[..end]);
            page.element("summary", &[], &format!("{shown}…"));
            page.text(cell);
        }),
    }
}

/// A table that is opened where somebody wants the numbers.
pub fn behind(page: &mut Page, caption: &str, table: &Table) {
    page.within("details", &[], |page| {
        page.element("summary", &[], &format!("Table: {caption}"));
        self::table(page, caption, false, table);
    });
}

const fn class(fit: Fit) -> &'static str {
    match fit {
        Fit::Number => "n",
        Fit::Name => "s",
        Fit::Path | Fit::Text | Fit::Own => "t",
    }
}

/// Titles are in capitals, for terminals; read aloud and in a page words are words.
fn sentence_case(title: &str) -> String {
    let words = title.split(' ').enumerate().map(|(index, word)| {
        if ABBREVIATIONS.contains(&word) {
            return word.to_owned();
        }
        let lower = word.to_lowercase();
        match (index, lower.chars().next()) {
            (0, Some(first)) => first.to_uppercase().chain(lower.chars().skip(1)).collect(),
            _ => lower,
        }
    });
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn titles_are_words() {
        for (title, read) in
            [("FIRST TOUCH", "First touch"), ("A FIRST", "A first"), ("RSS PEAK", "RSS peak"), ("", "")]
        {
            assert_eq!(sentence_case(title), read);
        }
    }
}
