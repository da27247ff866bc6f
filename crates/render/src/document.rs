//! The text of a report, before any format gives it a form.
//!
//! Texts in it are as they came: formats make them inert.

use spark_trace_recording::units::size;

#[derive(Debug, Default)]
pub struct Document {
    pub blocks: Vec<Block>,
}

#[derive(Debug, Clone)]
pub enum Block {
    Heading(String),
    Line(String),
    /// Words of our own, with nothing from outside in them: what stands between backticks is code.
    Own(String),
    /// To be typed as it stands: never wrapped.
    Command(String),
    /// Lines that stay as they are, one below the other.
    Listing(Vec<String>),
    /// What the reader must not overlook.
    Warning(String),
    Table(Table),
}

#[derive(Debug, Clone)]
pub struct Table {
    pub columns: Vec<Column>,
    pub rows: Vec<Vec<String>>,
}

#[derive(Debug, Clone)]
pub struct Column {
    pub title: String,
    pub fit: Fit,
}

/// How a column takes the room there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fit {
    /// Numbers: right-aligned, never cut.
    Number,
    /// Short names: left-aligned, never cut.
    Name,
    /// Paths: cut at their beginning.
    Path,
    /// Other text: cut at its end.
    Text,
    /// Words of our own, with nothing from outside in them: what stands between backticks is code. Cut at its end.
    Own,
}

impl Document {
    pub fn push(&mut self, block: Block) {
        self.blocks.push(block);
    }

    pub fn heading(&mut self, text: impl Into<String>) {
        self.blocks.push(Block::Heading(text.into()));
    }

    pub fn line(&mut self, text: impl Into<String>) {
        self.blocks.push(Block::Line(text.into()));
    }

    pub fn command(&mut self, text: impl Into<String>) {
        self.blocks.push(Block::Command(text.into()));
    }

    pub fn own(&mut self, text: impl Into<String>) {
        self.blocks.push(Block::Own(text.into()));
    }

    pub fn listing(&mut self, lines: Vec<String>) {
        self.blocks.push(Block::Listing(lines));
    }

    pub fn warning(&mut self, text: impl Into<String>) {
        self.blocks.push(Block::Warning(text.into()));
    }

    pub fn table(&mut self, table: Table) {
        self.blocks.push(Block::Table(table));
    }

    /// A table with its heading, unless it has no rows.
    pub fn section(&mut self, heading: impl Into<String>, table: Table) {
        if !table.rows.is_empty() {
            self.heading(heading);
            self.table(table);
        }
    }
}

impl Document {
    /// A section of the first `most` rows, and of the others how many they are and what they hold.
    pub fn largest<T>(
        &mut self,
        heading: impl Into<String>,
        cells: &[Cell<T>],
        rows: &[T],
        most: usize,
        bytes: impl Fn(&T) -> i64,
    ) {
        self.section(heading, Table::of(cells, rows.iter().take(most)));
        let others = rows.get(most..).unwrap_or_default();
        if !others.is_empty() {
            let bytes = others.iter().map(bytes).fold(0, i64::saturating_add);
            self.line(format!("{} more rows not shown: {}", others.len(), size(bytes)));
        }
    }
}

/// One column of a table of `T`: title, fit and what it says of a row.
pub type Cell<T> = (&'static str, Fit, fn(&T) -> String);

impl Table {
    /// The table that `cells` make of `rows`.
    pub fn of<'a, T: 'a>(cells: &[Cell<T>], rows: impl IntoIterator<Item = &'a T>) -> Self {
        let columns = cells.iter().map(|&(title, fit, _)| Column { title: title.to_owned(), fit }).collect();
        let row = |row| cells.iter().map(|(_, _, cell)| cell(row)).collect();
        Self { columns, rows: rows.into_iter().map(row).collect() }
    }
}
