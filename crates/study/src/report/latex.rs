//! The main table for a paper.

use std::fmt::Write as _;

use super::narrative::{absent_of, attrition_of, cells, of_cell, runs_without, title};
use super::tables::{MAIN, with_absent};
use crate::analysis::Report;
use spark_trace_render::escape;

pub fn render(report: &Report) -> String {
    let mut text = format!("% {}; needs \\usepackage{{booktabs}}\n", escaped(&title(report)));
    for (model, other) in cells(report) {
        let rows = of_cell(&report.comparisons, &model, &other);
        let table = with_absent(MAIN, rows, absent_of(report, &model, &other));
        let baseline = report.environments.first().map_or("", String::as_str);
        let line = |cells: &mut dyn Iterator<Item = &String>| {
            cells.map(|cell| escaped(cell)).collect::<Vec<_>>().join(" & ")
        };
        let runs = attrition_of(report, &model, &other).map(runs_without).unwrap_or_default();
        let caption = format!("{model}: {other} (B) against {baseline} (A). {runs}");
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "\\begin{{table}}\n\\centering\n\\caption{{{}}}",
            escaped(caption.trim_end_matches([' ', '.']))
        );
        let _ = writeln!(text, "\\begin{{tabular}}{{ll{}l}}\n\\toprule", "r".repeat(MAIN.len() - 3));
        let _ =
            writeln!(text, "{} \\\\\n\\midrule", line(&mut table.columns.iter().map(|column| &column.title)));
        for row in &table.rows {
            let _ = writeln!(text, "{} \\\\", line(&mut row.iter()));
        }
        text.push_str("\\bottomrule\n\\end{tabular}\n\\end{table}\n");
    }
    text
}

/// Nothing in a name is a command.
pub(super) fn escaped(text: &str) -> String {
    let mut out = String::new();
    // What is invisible or turns the direction of text is written as an escape.
    let plain: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    for c in escape::line(&plain).chars() {
        match c {
            '\\' => out.push_str("\\textbackslash{}"),
            '~' => out.push_str("\\textasciitilde{}"),
            '^' => out.push_str("\\textasciicircum{}"),
            '±' => out.push_str("$\\pm$"),
            '<' | '>' | '|' => write!(out, "${c}$").unwrap_or_default(),
            '&' | '%' | '$' | '#' | '_' | '{' | '}' => {
                out.push('\\');
                out.push(c);
            }
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_inert() {
        assert_eq!(escaped("a_b & 5 % \\input{x}"), "a\\_b \\& 5 \\% \\textbackslash{}input\\{x\\}");
        assert_eq!(escaped("1\n2"), "1 2");
        assert_eq!(escaped("a\u{202e}b"), "a\\textbackslash{}u\\{202e\\}b");
    }
}
