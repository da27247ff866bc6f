//! The report as one HTML page that needs nothing else: no network, no script to be read.
//!
//! [`page`] is where markup is written, and [`crate::escape`] where text is made inert; everything here says
//! what stands where.

use super::report;
use spark_trace_analysis::overview::Overview;

pub mod charts;
pub mod page;
mod sections;
mod svg;
pub mod tables;

use page::Page;
use sections::Section;

pub const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("script.js");
/// SHA-256 of the script, as the page's policy wants it: no other script runs, whatever a name holds.
const SCRIPT_HASH: &str = "sha256-/LY9xSn9uoCIs9FJi+GgikSwBBKltJsGlIMlUC3NIKU=";

pub use charts::flame::FlameError as HtmlError;

pub fn render(overview: &Overview) -> Result<Vec<u8>, HtmlError> {
    let mut main = Page::default();
    charts::palette::define(&mut main);
    let mut listed: Vec<&Section> = vec![];
    for section in sections::SECTIONS {
        let mut inside = main.part();
        (section.write)(&mut inside, overview)?;
        if inside.is_empty() {
            continue;
        }
        let heading = format!("{}-heading", section.id);
        main.within("section", &[("id", section.id), ("aria-labelledby", &heading)], |page| {
            page.element("h2", &[("id", &heading)], section.title);
            page.append(inside);
        });
        listed.push(section);
    }
    let mut page = Page::default();
    page.fixed("<!DOCTYPE html>\n");
    page.within("html", &[("lang", "en")], |page| {
        page.within("head", &[], |page| head(page, overview));
        page.within("body", &[], |page| {
            page.element("a", &[("class", "skip"), ("href", "#main")], "Skip to the report");
            page.within("header", &[], |page| sections::header(page, overview));
            page.within("nav", &[("aria-label", "Sections")], |page| contents(page, &listed));
            page.within("main", &[("id", "main"), ("tabindex", "-1")], |page| page.append(main));
            page.within("footer", &[], |page| footer(page, overview));
            page.within("script", &[], |page| page.fixed(SCRIPT));
        });
    });
    page.fixed("\n");
    Ok(page.finish().into_bytes())
}

fn head(page: &mut Page, overview: &Overview) {
    page.fixed("<meta charset=\"utf-8\">");
    page.within_void("meta", &[("http-equiv", "Content-Security-Policy"), ("content", &policy())]);
    page.fixed("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">");
    page.fixed("<meta name=\"color-scheme\" content=\"light dark\">");
    page.fixed("<meta name=\"referrer\" content=\"no-referrer\">");
    page.element("title", &[], &format!("{} · spark-trace", report::title(overview)));
    page.within("style", &[], |page| page.fixed(STYLE));
}

fn policy() -> String {
    format!(
        "default-src 'none'; style-src 'unsafe-inline'; script-src '{SCRIPT_HASH}'; base-uri 'none'; form-action 'none'"
    )
}

fn contents(page: &mut Page, listed: &[&Section]) {
    page.within("ul", &[], |page| {
        for section in listed {
            let target = format!("#{}", section.id);
            page.within("li", &[], |page| page.element("a", &[("href", &target)], section.title));
        }
    });
}

fn footer(page: &mut Page, overview: &Overview) {
    page.element(
        "p",
        &[],
        &format!(
            "Made by spark-trace {}. Sizes are in powers of 1024. A dash means unknown, not zero. Planes overlap and are not summed.",
            env!("CARGO_PKG_VERSION")
        ),
    );
    for (letter, run) in overview.runs() {
        let tool = &run.report.tool;
        page.element(
            "p",
            &[],
            &report::prefixed(letter, &format!("{}, recorded by spark-trace {}", run.file, tool.version)),
        );
    }
}

#[cfg(test)]
mod tests;
