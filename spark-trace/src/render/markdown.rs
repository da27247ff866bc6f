//! Documents as GitHub-flavoured Markdown.

use super::document::{Block, Document, Fit, Table};
use super::escape::{line, markdown as inert};

pub fn render(document: &Document) -> String {
    let blocks: Vec<_> = document.blocks.iter().map(block).collect();
    blocks.join("\n")
}

fn block(block: &Block) -> String {
    match block {
        Block::Heading(text) => format!("### {}\n", inert(text)),
        // Two spaces at the end: lines that follow each other stay lines.
        Block::Line(text) => format!("{}  \n", inert(text)),
        // Indented: code, whatever is in it, as long as it is one line.
        Block::Command(text) => format!("\n    {}\n", line(text)),
        Block::Warning(text) => format!("> **WARNING** {}\n", inert(text)),
        Block::Table(table) => self::table(table),
    }
}

fn table(table: &Table) -> String {
    let row =
        |cells: &mut dyn Iterator<Item = String>| format!("| {} |\n", cells.collect::<Vec<_>>().join(" | "));
    let rule = table.columns.iter().map(|column| if column.fit == Fit::Number { "---:" } else { "---" });
    let mut lines = row(&mut table.columns.iter().map(|column| inert(&column.title)));
    lines += &row(&mut rule.map(str::to_owned));
    for cells in &table.rows {
        lines += &row(&mut cells.iter().map(|cell| inert(cell)));
    }
    lines
}
