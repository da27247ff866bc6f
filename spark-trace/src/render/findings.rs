//! Hypotheses with their verdicts, and what each rests on.

use super::document::Document;
use super::report::findings::{self as told, evidence};
use crate::analysis::findings::{Finding, Findings, Verdict};

/// Evidence that is told of one finding.
const EVIDENCE: usize = 8;

/// Plane by plane: the target's first.
pub fn show(document: &mut Document, planes: &[Findings]) {
    for (index, findings) in planes.iter().enumerate() {
        plane(document, findings, planes.get(..index).unwrap_or_default());
    }
}

/// What a plane before has told with the same evidence is not told again.
fn plane(document: &mut Document, findings: &Findings, before: &[Findings]) {
    document.heading(format!("Findings on {}", told::subject(findings)));
    document.line(&findings.headline);
    for finding in &findings.findings {
        document.line(line(finding));
    }
    let told = |finding: &&Finding| {
        let mut others = before.iter().flat_map(|findings| &findings.findings);
        others.any(|other| (other.hypothesis, &other.evidence) == (finding.hypothesis, &finding.evidence))
    };
    let supported = findings.findings.iter().filter(|finding| finding.verdict == Verdict::Supported);
    for finding in supported.filter(|finding| !told(finding)) {
        document.heading(format!("{}: {}", finding.title, finding.because));
        document.line(finding.claim);
        for row in finding.evidence.iter().take(EVIDENCE) {
            // A line, not a row of a table: what it says would be cut there.
            document.line(format!("- {}", evidence(row)));
        }
        if let Some(left) = finding.evidence.len().checked_sub(EVIDENCE).filter(|left| *left > 0) {
            document.line(format!("{left} more in --format json"));
        }
        document.line(format!("To make sure: {}", finding.next));
    }
}

/// Verdict, share and reason: they would not stand side by side in 80 columns.
fn line(finding: &Finding) -> String {
    let share = finding.share.filter(|_| finding.verdict == Verdict::Supported);
    let share = share.map_or_else(String::new, |share| format!(", {:.1} %", share * 100.0));
    format!("{:<12} {}{share}: {}", finding.verdict.as_str(), finding.title, finding.because)
}
