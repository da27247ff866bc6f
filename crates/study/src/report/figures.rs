//! Figures as files, SVG and PDF, with what a paper needs to include them.

use std::collections::BTreeSet;

use super::charts::{self, FLOATS, FOLDER, Figure, OF_ONE};
use super::{latex, narrative};
use crate::analysis::{Comparison, Report};
use spark_trace_render::scene::pdf::PdfError;
use spark_trace_render::scene::{pdf, svg};

/// Every figure that is a file: of metrics that can be better or worse. Charts of the others are in the pages.
pub fn all(report: &Report) -> Vec<Figure> {
    let mut names = Names::default();
    let mut figures = vec![];
    let mut add = |drawn: Option<_>, parts: &[&str]| {
        if let Some((scene, caption)) = drawn {
            let across = !OF_ONE.iter().any(|(kind, _)| parts.first() == Some(kind));
            figures.push(Figure { name: names.of(parts), caption, across, scene });
        }
    };
    for rows in narrative::by_metric(report) {
        let name = rows.first().map_or("", |row| row.subject.name.as_str());
        add(charts::models(&rows), &["models", name]);
    }
    for (model, other) in narrative::cells(report) {
        let rows: Vec<&Comparison> = narrative::of_cell(&report.comparisons, &model, &other)
            .filter(|row| row.subject.better.is_some())
            .collect();
        add(charts::metrics(&rows), &["metrics", &model, &other]);
        let sources = narrative::differing(report, &model, &other);
        add(charts::sources(&sources, narrative::sources_title(report)), &["sources", &model, &other]);
        for row in rows {
            for (kind, draw) in OF_ONE {
                add(draw(row), &[kind, &model, &other, &row.subject.name]);
            }
        }
    }
    figures
}

/// Files of all figures.
pub fn files(figures: &[Figure]) -> Result<Vec<(String, Vec<u8>)>, PdfError> {
    let mut files = vec![];
    for Figure { name, scene, .. } in figures {
        files.push((format!("{FOLDER}/{name}.svg"), svg::file(scene)));
        files.push((format!("{FOLDER}/{name}.pdf"), pdf::file(scene)?));
    }
    files.push((format!("{FOLDER}/figures.tex"), environments(figures).into_bytes()));
    Ok(files)
}

/// Each as a figure environment, with caption and label.
fn environments(figures: &[Figure]) -> String {
    let mut text =
        "% Needs \\usepackage{graphicx}; each figure is as wide as one column (3.5 in).\n".to_owned();
    for (place, figure) in figures.iter().enumerate() {
        if place % FLOATS == FLOATS - 1 {
            text.push_str("\n\\clearpage\n");
        }
        text.push_str(&latex::environment(figure, "\\columnwidth"));
    }
    text
}

/// Names of files: distinct where names of models differ in what no file name has.
#[derive(Default)]
pub struct Names {
    taken: BTreeSet<String>,
}

impl Names {
    pub fn of(&mut self, parts: &[&str]) -> String {
        let plain = |text: &&str| -> String {
            text.chars()
                .map(|c| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' })
                .collect()
        };
        let name = parts.iter().map(plain).collect::<Vec<_>>().join("--").trim_start_matches('.').to_owned();
        let numbered = (2..).map(|number: u64| format!("{name}-{number}"));
        let free = std::iter::once(name.clone()).chain(numbered).find(|name| !self.taken.contains(name));
        let name = free.unwrap_or(name);
        self.taken.insert(name.clone());
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_plain_and_distinct() {
        let mut names = Names::default();
        assert_eq!(names.of(&["order", "../m<1>"]), "order--.._m_1_");
        assert_eq!(names.of(&["order", "../m(1)"]), "order--.._m_1_-2");
        assert_eq!(names.of(&[".x"]), "x");
    }
}
