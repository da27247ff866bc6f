//! Documents as GitHub-flavoured Markdown.

use super::document::{Block, Document, Fit, Table};
use super::escape::{line, markdown as inert, markdown_with_code as with_code};

pub fn render(document: &Document) -> String {
    let blocks: Vec<_> = document.blocks.iter().map(block).collect();
    blocks.join("\n")
}

fn block(block: &Block) -> String {
    match block {
        Block::Heading(text) => format!("### {}\n", inert(text)),
        // Two spaces at the end: lines that follow each other stay lines.
        Block::Line(text) => format!("{}  \n", inert(text)),
        Block::Own(text) => format!("{}  \n", with_code(text)),
        // Indented: code, whatever is in it, as long as it is one line.
        Block::Command(text) => format!("\n    {}\n", line(text)),
        // Not as code: a name from outside must not be able to end it.
        Block::Listing(lines) => lines.iter().map(|text| format!("{}  \n", inert(text))).collect(),
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
        let cells = cells.iter().zip(&table.columns);
        lines += &row(&mut cells.map(|(cell, column)| match column.fit {
            // A table takes this for the end of a cell, in code as well.
            Fit::Own => with_code(cell).replace('|', "\\|"),
            _ => inert(cell),
        }));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::super::document::Column;
    use super::*;

    #[test]
    fn code_in_words_of_our_own_stays_code() {
        let column = |title: &str, fit| Column { title: title.into(), fit };
        let columns = vec![column("FROM OUTSIDE", Fit::Text), column("NEXT", Fit::Own)];
        let cells = ["`a_b`", "`sync; echo 3 > /proc/sys/vm/drop_caches` of x_y, `a | b`"];
        let rows = vec![cells.map(str::to_owned).to_vec()];
        let mut document = Document::default();
        document.table(Table { columns, rows });
        document.own("To confirm: `echo 2 > drop_caches` for max_entries");
        let text = render(&document);
        let lines: Vec<_> = text.lines().filter(|line| !line.is_empty()).map(str::trim_end).collect();
        assert_eq!(
            lines,
            [
                "| FROM OUTSIDE | NEXT |",
                "| --- | --- |",
                "| \\`a\\_b\\` | `sync; echo 3 > /proc/sys/vm/drop_caches` of x\\_y, `a \\| b` |",
                "To confirm: `echo 2 > drop_caches` for max\\_entries",
            ]
        );
    }
}
