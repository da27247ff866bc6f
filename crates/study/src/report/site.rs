//! The site of a study: an index and a page for each comparison. Static, without scripts and without a network, ready
//! for GitHub Pages.

use super::charts::OF_ONE;
use super::figures::{self, Names};
use super::tables::{ATTRITION, MAIN, with_absent};
use super::{FORMATS, ReportError, Studied, charts, data, latex, models, narrative, threats};
use crate::analysis::{Comparison, Report};
use crate::{RESULTS, sha256};
use spark_trace_render::document::Table;
use spark_trace_render::html::page::Page;
use spark_trace_render::html::{STYLE, tables};
use spark_trace_render::scene::{Scene, svg};
use spark_trace_render::{Style, json};

const SITE_STYLE: &str = include_str!("site.css");
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'";
/// Beside the pages, for programs and papers: format, file, and what it is.
const DATA: &[(&str, &str, &str)] = &[
    ("runs", "runs.csv", "every run with its figures"),
    ("runs-dictionary", "runs-dictionary.csv", "the columns of runs.csv with their units"),
    ("csv", "report.csv", "every comparison with its figures"),
    ("json", "report.json", "everything that the analysis found"),
    ("latex", "report.tex", "tables for a paper"),
    ("markdown", "report.md", "all tables as text"),
];
/// Methods, results and threats to validity.
const PAPER: &str = "paper.tex";
/// Sums of all other files, as `sha256sum --check` reads them.
const SUMS: &str = "SHA256SUMS";

/// Names of files and what is in them.
pub type Files = Vec<(String, Vec<u8>)>;

/// A page for each comparison: its model, its environment, the name of its file.
type Pages = Vec<(String, String, String)>;

pub fn files(of: &Studied) -> Result<Files, ReportError> {
    let report = &of.report;
    let mut names = Names::default();
    let cells = narrative::cells(report).into_iter();
    let pages: Pages = cells
        .map(|(model, other)| {
            let name = names.of(&[&model, &other]) + ".html";
            (model, other, name)
        })
        .collect();
    let mut files = vec![("index.html".to_owned(), index(report, &pages))];
    for (model, other, name) in &pages {
        files.push((name.clone(), comparison(report, model, other)));
    }
    for (format, file, _) in DATA {
        if let Some(format) = FORMATS.iter().find(|known| known.name == *format) {
            files.push(((*file).to_owned(), (format.render)(of, Style::default())?));
        }
    }
    // What `study report` reads: the analysis can be done again from the site.
    files.push((RESULTS.to_owned(), json::render(&data::results(&of.results))?));
    let figures = figures::all(report);
    files.push((PAPER.to_owned(), latex::paper(report, &figures).into_bytes()));
    files.extend(figures::files(&figures)?);
    // GitHub Pages would run the files through Jekyll.
    files.push((".nojekyll".to_owned(), vec![]));
    files.push((SUMS.to_owned(), sums(&files).into_bytes()));
    Ok(files)
}

fn sums(files: &Files) -> String {
    let mut text = String::new();
    for (name, bytes) in files {
        text.push_str(&format!("{}  {name}\n", sha256(bytes)));
    }
    text
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

/// A table below its heading, unless it has no rows.
fn section(page: &mut Page, title: &str, table: &Table) {
    if !table.rows.is_empty() {
        page.element("h2", &[], title);
        tables::table(page, title, false, table);
    }
}

/// A picture with its caption.
fn figure(page: &mut Page, drawn: Option<(Scene, String)>) {
    let Some((scene, caption)) = drawn else { return };
    page.within("figure", &[], |page| {
        svg::inline(page, &scene);
        page.element("figcaption", &[], &caption);
    });
}

fn index(report: &Report, pages: &Pages) -> Vec<u8> {
    page(&narrative::title(report), |page| {
        page.element("p", &[], &report.description);
        page.element("h2", &[], "What came out");
        paragraphs(page, narrative::summary(report));
        narrative::warnings(report).iter().for_each(|text| tables::warning(page, text));
        page.element("h2", &[], "Comparisons");
        for (model, other, name) in pages {
            page.within("h3", &[], |page| {
                let baseline = report.environments.first().map_or("", String::as_str);
                let text = format!("{model}: {other} against {baseline}");
                page.element("a", &[("href", name)], &text);
            });
            let rows = narrative::of_cell(&report.comparisons, model, other);
            let absent = narrative::absent_of(report, model, other);
            tables::table(page, &format!("{model}, {other}"), false, &with_absent(MAIN, rows, absent));
            let runs = Table::of(ATTRITION, narrative::attrition_of(report, model, other));
            tables::table(page, &format!("{model}, {other}: runs, A+B"), false, &runs);
        }
        page.within("div", &[("class", "charts")], |page| {
            for rows in narrative::primary_of_many(report) {
                figure(page, charts::models(&rows));
            }
        });
        for (title, lines, table) in models::overheads(report) {
            section(page, &title, &table);
            paragraphs(page, lines);
        }
        page.element("h2", &[], "Methods");
        paragraphs(page, narrative::methods(report));
        section(page, "Machine", &narrative::machine(report));
        page.element("h2", &[], "Threats to validity");
        for (kind, sentences) in threats::threats(report) {
            page.element("h3", &[], kind.title());
            page.element("p", &[], &sentences);
        }
        section(page, "Runs that do not count", &narrative::failures(report));
        page.element("h2", &[], "Data");
        paragraphs(page, narrative::artifact());
        page.within("ul", &[], |page| {
            let own = [
                (RESULTS, "the runs as `spark-trace study report` reads them"),
                (PAPER, "methods, tables, figures and threats to validity as a document that compiles"),
                (SUMS, "checksums of all files"),
            ];
            for (file, what) in DATA.iter().map(|(_, file, what)| (*file, *what)).chain(own) {
                page.within("li", &[], |page| {
                    page.element("a", &[("href", file)], file);
                    page.text(&format!(": {what}"));
                });
            }
            page.element(
                "li",
                &[],
                "figures/: each figure as SVG and PDF, and figures.tex with captions and labels",
            );
        });
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
                OF_ONE.iter().for_each(|(_, draw)| figure(page, draw(row)));
            });
        }
        if !sources.is_empty() {
            page.element("h2", &[], narrative::sources_title(report));
            figure(page, charts::sources(&sources, narrative::sources_title(report)));
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
