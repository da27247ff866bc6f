//! What the first screen leaves out, and how to see it.

use super::cost_in_short;
use crate::document::Document;
use spark_trace_analysis::attribution::Report;

pub fn write(document: &mut Document, report: &Report, others: &[&str], file: Option<&str>) {
    if others.is_empty() {
        return;
    }
    let names = others.join(", ");
    document.heading("More");
    cost_in_short(report).into_iter().for_each(|line| document.line(line));
    match file {
        Some(file) => {
            let hint = format!(
                "`spark-trace show {file} --all` shows everything. `spark-trace show {file} NAME` shows one section: {names}"
            );
            // A name with a backtick would end the code.
            if file.contains('`') { document.line(hint) } else { document.own(hint) }
        }
        None => document.line(format!("--all shows everything: {names}")),
    }
}
