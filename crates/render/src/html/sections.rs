//! What stands where in the page: one row of [`SECTIONS`] and one function each.

use super::HtmlError;
use super::charts::{bars, flame, waterfall};
use super::page::Page;
use super::tables;
use crate::document::{Block, Cell, Document, Fit, Table};
use crate::report;
use crate::show::lists::{self, Extent};
use crate::{charges, cuda, diff, memory_queries, show, user_stacks};
use spark_trace_analysis::flame::{Flame, Row};
use spark_trace_analysis::overview::{Overview, Run};
use spark_trace_analysis::signed::signed;
use spark_trace_recording::units::{seconds, unsigned};

mod answers;
mod timelines;

/// Rows of a list; a line says what is left out.
const TOP: usize = 25;
/// The same for lists that have rows of others.
const EXTENT: Extent = Extent { most: Some(TOP), all: false };
/// Queries that are listed.
const LISTED: usize = 100;

pub struct Section {
    pub id: &'static str,
    pub title: &'static str,
    /// Writes nothing where there is nothing to show: then the section is left out.
    pub write: fn(&mut Page, &Overview) -> Result<(), HtmlError>,
}

pub const SECTIONS: &[Section] = &[
    Section { id: "difference", title: "From A to B", write: difference },
    Section { id: "sources", title: "Sources", write: sources },
    Section { id: "timeline", title: "Timeline", write: timelines::timelines },
    Section { id: "findings", title: "Findings", write: answers::findings },
    Section { id: "kv", title: "KV-cache budget", write: answers::kv },
    Section { id: "engine", title: "Inference engine", write: answers::engine },
    Section { id: "queries", title: "Memory queries", write: memory_queries },
    Section { id: "files", title: "Page cache", write: files },
    Section { id: "cuda", title: "CUDA", write: cuda_calls },
    Section { id: "stacks", title: "Bytes by stack", write: stacks },
    Section { id: "processes", title: "Processes and mappings", write: processes },
    Section { id: "reconciliation", title: "Reconciliation, losses, hooks and cost", write: reconciliation },
];

/// The answer, what it is about, and whether it can be trusted.
pub fn header(page: &mut Page, overview: &Overview) {
    page.element("h1", &[], &report::title(overview));
    let mut headline = Document::default();
    report::headline(&mut headline, overview);
    page.within("div", &[("class", "headline")], |page| tables::document(page, &headline));
    page.within("div", &[("class", "runs")], |page| {
        for (letter, run) in overview.runs() {
            self::run(page, letter, run);
        }
    });
    if let Some(moment) = &overview.moment {
        for warning in &moment.warnings {
            tables::warning(page, warning);
        }
        page.element("p", &[], &moment.reason);
    }
    let Some(comparable) = &overview.comparable else { return };
    let verdict = match comparable.reasons.len() {
        0 => {
            "The runs are comparable: of everything that was checked, only the items below differ.".to_owned()
        }
        1 => "The runs are hard to compare, for one reason:".to_owned(),
        count => format!("The runs are hard to compare, for {count} reasons:"),
    };
    page.element("p", &[("class", "strong")], &verdict);
    for reason in &comparable.reasons {
        tables::warning(page, &format!("not comparable: {reason}"));
    }
    page.within("ul", &[], |page| {
        for note in &comparable.notes {
            page.element("li", &[], note);
        }
    });
}

fn run(page: &mut Page, letter: &str, run: &Run) {
    let class = if run.provenance.is_measured() { "run" } else { "run loud" };
    page.within("div", &[("class", class)], |page| {
        page.within("p", &[("class", "badge")], |page| {
            let word = run.provenance.host.to_uppercase();
            page.element("strong", &[], &report::prefixed(letter, &word));
            let others = run.provenance.remarks.iter().filter_map(|remark| remark.split(':').next());
            let mut others: Vec<_> = others.filter(|other| *other != word).collect();
            others.dedup();
            for other in others {
                page.text(" · ");
                page.element("strong", &[], other);
            }
        });
        page.element("p", &[("class", "name")], &report::name(run));
        page.element("p", &[], &report::machine(run));
        page.element("p", &[("class", "note")], &run.file);
        for warning in report::provenance_warnings(run) {
            tables::warning(page, &warning);
        }
        for warning in report::warnings(run) {
            tables::warning(page, &warning);
        }
    });
}

fn difference(page: &mut Page, overview: &Overview) -> Result<(), HtmlError> {
    for diff in &overview.diffs {
        let title = report::waterfall_title(diff);
        page.element("h3", &[], &title);
        page.within("figure", &[], |page| {
            waterfall::draw(page, diff);
            page.element(
                "figcaption",
                &[],
                "▲ more in B (plain), ▼ less in B (striped). Unattributed: the counter of the plane minus its sources.",
            );
            tables::behind(page, &title, &report::waterfall(diff));
        });
    }
    Ok(())
}

/// Of one run: two have the waterfall.
fn sources(page: &mut Page, overview: &Overview) -> Result<(), HtmlError> {
    if overview.a.is_some() {
        return Ok(());
    }
    for plane in overview.b.report.planes.iter() {
        let after = seconds(plane.at_ns.saturating_sub(overview.b.report.target.started_ns));
        let title = format!("In use by source on the {} plane, after {after}", report::plane_name(plane));
        page.element("h3", &[], &title);
        page.within("figure", &[], |page| {
            bars::plane(page, &title, plane);
            tables::behind(page, &title, &show::sources(&overview.b.report, plane));
        });
    }
    Ok(())
}

fn memory_queries(page: &mut Page, overview: &Overview) -> Result<(), HtmlError> {
    for (letter, run) in overview.runs() {
        let Some(queries) = &run.report.queries else { continue };
        let mut shown = queries.clone();
        let left_out = shown.folded.len().saturating_sub(LISTED);
        shown.folded.truncate(LISTED);
        let mut document = Document::default();
        memory_queries::show(&mut document, &shown, run.report.target.started_ns);
        if left_out > 0 {
            document.line(format!("{left_out} more groups of queries are left out"));
        }
        for_run(page, letter, &document);
    }
    Ok(())
}

/// A document whose headings say which run they are of.
fn for_run(page: &mut Page, letter: &str, document: &Document) {
    if document.blocks.is_empty() {
        return;
    }
    let mut of_run = Document::default();
    for block in &document.blocks {
        of_run.push(match block {
            Block::Heading(text) => Block::Heading(report::prefixed(letter, text)),
            block => block.clone(),
        });
    }
    tables::document(page, &of_run);
}

fn files(page: &mut Page, overview: &Overview) -> Result<(), HtmlError> {
    for report in &overview.diffs {
        let mut document = Document::default();
        let title = format!("B minus A on the {} plane, by file", report.plane.as_str());
        document.largest(title, diff::FILES, &report.files, TOP, |row| row.delta_bytes);
        tables::document(page, &document);
    }
    for (letter, run) in overview.runs() {
        let mut document = Document::default();
        lists::files(&mut document, &run.report, &read_at(run), EXTENT);
        for_run(page, letter, &document);
    }
    Ok(())
}

/// Of stacks, files and requests to the driver.
fn read_at(run: &Run) -> String {
    show::read_at(&run.report, run.report.details_instant.as_ref())
}

fn details_at(run: &Run) -> String {
    seconds(run.report.details_at_ns.saturating_sub(run.report.target.started_ns))
}

fn cuda_calls(page: &mut Page, overview: &Overview) -> Result<(), HtmlError> {
    if let Some(delta) = overview.diffs.first().and_then(|diff| diff.cuda.as_ref()) {
        let mut document = Document::default();
        cuda::diff(&mut document, delta);
        tables::document(page, &document);
    }
    for (letter, run) in overview.runs() {
        let Some(report) = &run.report.cuda else { continue };
        let mut document = Document::default();
        let mut shown = report.clone();
        let others = shown.stacks.split_off(shown.stacks.len().min(TOP));
        let failures = shown.failures.len().saturating_sub(LISTED);
        shown.failures.truncate(LISTED);
        cuda::in_use(&mut document, &shown, run.report.target.started_ns);
        run.report.user_stacks.iter().for_each(|stacks| document.line(user_stacks::sentence(stacks)));
        cuda::libraries(&mut document, &shown);
        if !others.is_empty() {
            let bytes = others.iter().filter_map(|row| row.live).fold(0, u64::saturating_add);
            document.line(format!("{} more stacks not shown: {}", others.len(), unsigned(bytes)));
        }
        if failures > 0 {
            document.line(format!("{failures} more failures are left out"));
        }
        for_run(page, letter, &document);
    }
    Ok(())
}

fn stacks(page: &mut Page, overview: &Overview) -> Result<(), HtmlError> {
    let letter = if overview.a.is_some() { "B" } else { "" };
    for flame in &overview.flames {
        self::flame(page, &report::prefixed(letter, flame.title), flame, false)?;
    }
    for flame in overview.flame_diffs.iter().filter(|flame| flame.rows.iter().any(|row| row.b_bytes > 0)) {
        let title = format!("{}: B compared with A", flame.title);
        self::flame(page, &title, flame, true)?;
    }
    for (letter, run) in overview.runs() {
        let mut document = Document::default();
        let titled = |what: &str| format!("{what}, in use after {}", read_at(run));
        let report = &run.report;
        lists::stacks(&mut document, report, &read_at(run), EXTENT);
        let title = titled("Requested of the NVIDIA driver");
        document.largest(title, charges::DRIVER_ALLOCS, &report.driver_allocs, TOP, |row| signed(row.live));
        if let Some(charged) = &report.charges {
            charges::show(&mut document, charged, &show::read_at(report, charged.instant.as_ref()));
        }
        for_run(page, letter, &document);
    }
    Ok(())
}

const FLAME_ROWS: &[Cell<Row>] = &[
    ("B", Fit::Number, |row| unsigned(row.b_bytes)),
    ("A", Fit::Number, |row| unsigned(row.a_bytes)),
    ("STACK", Fit::Text, |row| row.frames.join(" -> ")),
];

fn flame(page: &mut Page, title: &str, flame: &Flame, compared: bool) -> Result<(), HtmlError> {
    page.element("h3", &[], title);
    let mut drawn = Ok(());
    page.within("figure", &[], |page| {
        drawn = flame::draw(page, title, flame, compared);
        let caption = match compared {
            true => {
                "Widths are B's bytes. Red frames have more in B than in A, blue ones less; each title has the difference. Stacks of A alone are in the table."
            }
            false => "Widths are bytes; the code that allocated is at the top.",
        };
        page.element("figcaption", &[], caption);
        let mut table = Table::of(FLAME_ROWS, flame.rows.iter().take(TOP));
        if !compared {
            table.columns.remove(1);
            table.rows.iter_mut().for_each(|row| drop(row.remove(1)));
        }
        tables::behind(page, title, &table);
        let others = flame.rows.get(TOP..).unwrap_or_default();
        let bytes = others.iter().map(|row| row.b_bytes).fold(flame.left_out.b_bytes, u64::saturating_add);
        let count = others.len() + flame.left_out.rows;
        if count > 0 {
            page.element("p", &[("class", "note")], &format!("{count} more stacks not in the table: {}", unsigned(bytes)));
        }
    });
    drawn
}

fn processes(page: &mut Page, overview: &Overview) -> Result<(), HtmlError> {
    for (letter, run) in overview.runs() {
        let mut document = Document::default();
        let report = &run.report;
        document.largest("Processes", show::tables::PROCESSES, &report.processes, TOP, |row| {
            signed(row.highest())
        });
        lists::regions(&mut document, report, Some(TOP));
        let title = format!("Large mappings by user stack, after {}", details_at(run));
        document.largest(title, show::tables::MAPPINGS, &report.mappings, TOP, |row| signed(row.bytes));
        for_run(page, letter, &document);
    }
    Ok(())
}

fn reconciliation(page: &mut Page, overview: &Overview) -> Result<(), HtmlError> {
    for (letter, run) in overview.runs() {
        let mut document = Document::default();
        report::reconciliation(&mut document, letter, run);
        tables::document(page, &document);
        let title = report::prefixed(letter, "hooks and their verdicts");
        tables::behind(page, &title, &report::hooks(&run.report.health));
    }
    Ok(())
}
