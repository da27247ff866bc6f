//! Rows as CSV (RFC 4180, with line feeds): sizes as plain bytes, unknown as an empty cell.

use super::escape;

pub enum Field {
    Text(String),
    Bytes(Option<i64>),
    Ratio(Option<f64>),
}

/// One column of a file of `T`: its name and what it says of a row.
pub type Column<T> = (&'static str, fn(&T) -> Field);

pub fn render<'a, T: 'a>(columns: &[Column<T>], rows: impl IntoIterator<Item = &'a T>) -> String {
    let line = |cells: Vec<String>| cells.join(",") + "\n";
    let header = line(columns.iter().map(|(name, _)| (*name).to_owned()).collect());
    let rows = rows.into_iter().map(|row| line(columns.iter().map(|(_, field)| cell(field(row))).collect()));
    std::iter::once(header).chain(rows).collect()
}

/// A file whose columns are known only when it is written.
pub fn lines(header: &[&str], rows: impl IntoIterator<Item = Vec<Field>>) -> String {
    let header = header.iter().map(|name| escape::csv(name)).collect::<Vec<_>>();
    let rows = rows.into_iter().map(|row| row.into_iter().map(cell).collect::<Vec<_>>());
    std::iter::once(header).chain(rows).map(|line| line.join(",") + "\n").collect()
}

fn cell(field: Field) -> String {
    match field {
        Field::Text(text) => escape::csv(&text),
        Field::Bytes(bytes) => bytes.map_or_else(String::new, |bytes| bytes.to_string()),
        Field::Ratio(ratio) => ratio.map_or_else(String::new, |ratio| ratio.to_string()),
    }
}
