//! The site of a study: an index and a page for each comparison. Static, without scripts and without a network, ready
//! for GitHub Pages.

use super::tables::{ATTRITION, MAIN, with_absent};
use super::{FORMATS, charts, narrative};
use crate::analysis::{Comparison, Report};
use spark_trace_render::document::Table;
use spark_trace_render::html::page::Page;
use spark_trace_render::html::{STYLE, tables};
use spark_trace_render::{RenderError, Style};

const SITE_STYLE: &str = include_str!("site.css");
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'";
/// Beside the pages, for programs and papers.
const DATA: &[(&str, &str)] =
    &[("json", "report.json"), ("csv", "report.csv"), ("latex", "report.tex"), ("markdown", "report.md")];

/// Names of files and what is in them.
pub type Files = Vec<(String, Vec<u8>)>;

pub fn files(report: &Report) -> Result<Files, RenderError> {
    let mut files = vec![("index.html".to_owned(), index(report))];
    for (model, other) in narrative::cells(report) {
        files.push((name(&model, &other), comparison(report, &model, &other)));
    }
    for (format, file) in DATA {
        if let Some(format) = FORMATS.iter().find(|known| known.name == *format) {
            files.push(((*file).to_owned(), (format.render)(report, Style::default())?));
        }
    }
    // GitHub Pages would run the files through Jekyll.
    files.push((".nojekyll".to_owned(), vec![]));
    Ok(files)
}

/// Names of models and environments may come from elsewhere: what is no letter or digit is left out.
fn name(model: &str, other: &str) -> String {
    let plain = |text: &str| -> String {
        text.chars().map(|c| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' }).collect()
    };
    format!("{}--{}.html", plain(model), plain(other)).trim_start_matches('.').to_owned()
}

fn page(title: &str, main: impl FnOnce(&mut Page)) -> Vec<u8> {
    let mut page = Page::default();
    page.fixed("<!DOCTYPE html>\n");
    page.within("html", &[("lang", "en")], |page| {
        page.within("head", &[], |page| {
            page.fixed("<meta charset=\"utf-8\">");
            page.within_void("meta", &[("http-equiv", "Content-Security-Policy"), ("content", POLICY)]);
            page.fixed("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">");
            page.fixed("<meta name=\"color-scheme\" content=\"light dark\">");
            page.element("title", &[], &format!("{title} · spark-trace"));
            page.within("style", &[], |page| {
                page.fixed(STYLE);
                page.fixed(SITE_STYLE);
            });
        });
        page.within("body", &[], |page| {
            page.element("a", &[("class", "skip"), ("href", "#main")], "Skip to the report");
            page.within("header", &[], |page| page.element("h1", &[], title));
            page.within("main", &[("id", "main"), ("tabindex", "-1")], main);
            page.within("footer", &[], |page| {
                let made = format!(
                    "Made by spark-trace {}. A dash stands for what is not known.",
                    env!("CARGO_PKG_VERSION")
                );
                page.element("p", &[], &made);
            });
        });
    });
    page.fixed("\n");
    page.finish().into_bytes()
}

fn paragraphs(page: &mut Page, lines: Vec<String>) {
    lines.iter().for_each(|line| page.element("p", &[], line));
}

fn index(report: &Report) -> Vec<u8> {
    page(&narrative::title(report), |page| {
        page.element("p", &[], &report.description);
        page.element("h2", &[], "What came out");
        paragraphs(page, narrative::summary(report));
        narrative::warnings(report).iter().for_each(|text| tables::warning(page, text));
        page.element("h2", &[], "Comparisons");
        for (model, other) in narrative::cells(report) {
            page.within("h3", &[], |page| {
                let baseline = report.environments.first().map_or("", String::as_str);
                let text = format!("{model}: {other} against {baseline}");
                page.element("a", &[("href", &name(&model, &other))], &text);
            });
            let rows = narrative::of_cell(&report.comparisons, &model, &other);
            let absent = narrative::absent_of(report, &model, &other);
            tables::table(page, &format!("{model}, {other}"), false, &with_absent(MAIN, rows, absent));
            let runs = Table::of(ATTRITION, narrative::attrition_of(report, &model, &other));
            tables::table(page, &format!("{model}, {other}: runs, A+B"), false, &runs);
        }
        page.element("h2", &[], "Methods");
        paragraphs(page, narrative::methods(report));
        page.element("h2", &[], "Data");
        page.within("ul", &[], |page| {
            for (format, file) in DATA {
                page.within("li", &[], |page| {
                    page.element("a", &[("href", file)], &format!("{file} ({format})"))
                });
            }
        });
        if !report.failures.is_empty() {
            let count = report.failures.len();
            page.element(
                "p",
                &[],
                &format!("{count} runs do not count; they are listed in report.md and report.json."),
            );
        }
    })
}

fn comparison(report: &Report, model: &str, other: &str) -> Vec<u8> {
    let baseline = report.environments.first().map_or("", String::as_str);
    let title = format!("{model}: {other} against {baseline}");
    page(&title, |page| {
        page.within("p", &[], |page| page.element("a", &[("href", "index.html")], "All comparisons"));
        let rows: Vec<&Comparison> = narrative::of_cell(&report.comparisons, model, other).collect();
        let sources = narrative::differing(report, model, other);
        for row in &rows {
            page.element("h2", &[], &row.subject.title);
            page.within("p", &[("class", "strong")], |page| {
                page.text(&format!("{}: {}", row.verdict.as_str(), row.because));
            });
            if let Some(overhead) = &row.overhead {
                page.element("p", &[], &format!("Overhead: {overhead}."));
            }
            page.within("div", &[("class", "charts")], |page| {
                for draw in [charts::order, charts::boxes, charts::cumulative] {
                    page.within("figure", &[], |page| draw(page, row));
                }
            });
        }
        if !sources.is_empty() {
            page.element("h2", &[], narrative::sources_title(report));
            page.within("figure", &[], |page| charts::sources(page, &sources));
        }
        page.element("h2", &[], "Tables");
        for (title, table) in narrative::tables(report, model, other) {
            if !table.rows.is_empty() {
                page.element("h3", &[], title);
                tables::table(page, title, false, &table);
            }
        }
    })
}
