//! What analyses make of the numbers: verdicts on findings, and the KV-cache budget.

use crate::document::Document;
use crate::html::charts::bars;
use crate::html::page::Page;
use crate::html::{HtmlError, tables};
use crate::report;
use crate::report::findings as verdicts;
use spark_trace_analysis::findings::{Finding, Findings};
use spark_trace_analysis::overview::Overview;

pub fn findings(page: &mut Page, overview: &Overview) -> Result<(), HtmlError> {
    for findings in overview.findings.iter().filter(|findings| !findings.findings.is_empty()) {
        page.element("h3", &[], &format!("On {}", verdicts::subject(findings)));
        page.element("p", &[], &verdicts::to_explain(findings));
        table(page, findings);
    }
    Ok(())
}

fn table(page: &mut Page, findings: &Findings) {
    let label = format!("Table of findings, {} plane", findings.plane.as_str());
    let attributes =
        [("class", "scroll"), ("tabindex", "0"), ("role", "region"), ("aria-label", label.as_str())];
    page.within("div", &attributes, |page| {
        page.within("table", &[("class", "findings")], |page| {
            let caption =
                format!("Hypotheses on the {} plane, the largest share first", findings.plane.as_str());
            page.element("caption", &[], &caption);
            page.within("thead", &[], |page| {
                page.within("tr", &[], |page| {
                    for title in ["Verdict", "Finding", "Explains", "Share", "Evidence", "Next experiment"] {
                        page.element("th", &[("scope", "col")], title);
                    }
                });
            });
            page.within("tbody", &[], |page| {
                for finding in &findings.findings {
                    page.within("tr", &[], |page| self::finding(page, finding));
                }
            });
        });
    });
}

fn finding(page: &mut Page, finding: &Finding) {
    let verdict = format!("{} {}", verdicts::sign(finding.verdict), finding.verdict.as_str());
    page.element("td", &[("class", finding.verdict.as_str())], &verdict);
    page.within("th", &[("scope", "row"), ("class", "t")], |page| {
        page.element("span", &[], finding.title);
        page.element("span", &[("class", "note block")], finding.claim);
    });
    page.element("td", &[("class", "n")], &verdicts::explains(finding));
    page.element("td", &[("class", "n")], &verdicts::share(finding));
    page.within("td", &[("class", "t")], |page| {
        page.text(&finding.because.to_string());
        if finding.evidence.is_empty() {
            return;
        }
        page.within("ul", &[], |page| {
            for evidence in &finding.evidence {
                page.element("li", &[], &verdicts::evidence(evidence));
            }
        });
    });
    page.element("td", &[("class", "t")], verdicts::next(finding));
}

pub fn kv(page: &mut Page, overview: &Overview) -> Result<(), HtmlError> {
    let Some(kv) = &overview.kv else { return Ok(()) };
    let mut document = Document::default();
    report::kv::summary(&mut document, kv);
    tables::document(page, &document);
    for (letter, budget) in report::kv::budgets(kv) {
        let title = report::prefixed(letter, "in use at the KV-cache reading");
        page.element("h3", &[], &title);
        page.within("figure", &[], |page| bars::used(page, &title, &budget.used));
    }
    let mut document = Document::default();
    report::kv::details(&mut document, kv);
    tables::document(page, &document);
    Ok(())
}

pub fn engine(page: &mut Page, overview: &Overview) -> Result<(), HtmlError> {
    let mut document = Document::default();
    for (letter, run) in overview.runs() {
        report::engine(&mut document, letter, run);
    }
    tables::document(page, &document);
    Ok(())
}
