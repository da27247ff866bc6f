//! What the first screen leaves out, and how to see it.

use crate::render::document::Document;

pub fn tell(document: &mut Document, others: &[&str], file: Option<&str>) {
    if others.is_empty() {
        return;
    }
    let names = others.join(", ");
    document.heading("More");
    document.line(match file {
        Some(file) => format!(
            "`spark-trace show {file} --all` shows everything. `spark-trace show {file} NAME` shows one section: {names}"
        ),
        None => format!("--all shows everything: {names}"),
    });
}
