//! Verdicts on hypotheses, with what they rest on.

use crate::document::{Cell, Document, Fit, Table};
use spark_trace_analysis::findings::{Evidence, Finding, Findings, Side, Unit, Verdict};
use spark_trace_analysis::view::Scope;
use spark_trace_recording::units::{self, delta, known, size};

pub fn section(document: &mut Document, planes: &[Findings]) {
    for findings in planes.iter().filter(|findings| !findings.findings.is_empty()) {
        plane(document, findings);
    }
}

fn plane(document: &mut Document, findings: &Findings) {
    document.section(format!("Findings on {}", subject(findings)), Table::of(FINDINGS, &findings.findings));
    document.line(to_explain(findings));
    for finding in &findings.findings {
        for evidence in &finding.evidence {
            document.line(format!("{}: {}", finding.title, self::evidence(evidence)));
        }
    }
}

/// Whose memory the verdicts are about.
pub fn subject(findings: &Findings) -> &'static str {
    match (findings.plane, findings.includes_others) {
        (Scope::Cgroup, _) => "memory charged to the target (cgroup plane)",
        (Scope::Device, _) => "the GPUs' memory (device plane)",
        (Scope::System, true) => "the whole machine, with everything else that ran (system plane)",
        (Scope::System, false) => "the machine's memory (system plane)",
    }
}

/// What the verdicts are about.
pub fn to_explain(findings: &Findings) -> String {
    let what = if findings.a_at_ns.is_some() { "B minus A" } else { "growth since the start" };
    format!(
        "To explain: {what} {} on the {} plane, at the {}, of which {} unattributed; threshold {}",
        known(findings.delta_bytes, delta),
        findings.plane.as_str(),
        findings.at.of_a_run(),
        known(findings.residual_bytes, delta),
        size(findings.material_bytes)
    )
}

/// What to do about it: nothing, where it is not so.
pub fn next(finding: &Finding) -> &'static str {
    if finding.verdict == Verdict::Refuted { "" } else { finding.next }
}

/// A verdict has a sign and a word: colours come on top.
pub const fn sign(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Supported => "✔",
        Verdict::Refuted => "✘",
        Verdict::Inconclusive => "?",
        Verdict::Untestable => "–",
    }
}

pub fn explains(finding: &Finding) -> String {
    known(finding.explains_bytes, delta)
}

pub fn share(finding: &Finding) -> String {
    known(finding.share, |part| units::share(part * 100.0))
}

/// One number with its run and its place in the recording.
pub fn evidence(evidence: &Evidence) -> String {
    number(evidence, true)
}

/// The same; readers of a list need each place only once.
pub fn number(evidence: &Evidence, with_place: bool) -> String {
    let value = match (evidence.unit, evidence.value) {
        (Unit::None, _) => String::new(),
        (_, None) => ": not known".to_owned(),
        (Unit::Bytes, Some(value)) => format!(": {}", size(value)),
        (Unit::DeltaBytes, Some(value)) => format!(": {}", delta(value)),
        (Unit::Count, Some(value)) => format!(": {value}"),
    };
    let side = match evidence.side {
        Side::A => Some("A"),
        Side::B => Some("B"),
        Side::Both => None,
    };
    let place = with_place.then_some(evidence.place.as_str());
    let from: Vec<_> = side.into_iter().chain(place).collect();
    let from = if from.is_empty() { String::new() } else { format!(" ({})", from.join(", ")) };
    format!("{}{value}{from}", evidence.what)
}

const FINDINGS: &[Cell<Finding>] = &[
    ("VERDICT", Fit::Name, |row| format!("{} {}", sign(row.verdict), row.verdict.as_str())),
    ("FINDING", Fit::Text, |row| row.title.to_owned()),
    ("EXPLAINS", Fit::Number, explains),
    ("SHARE", Fit::Number, share),
    ("BECAUSE", Fit::Text, |row| row.because.to_string()),
    ("NEXT", Fit::Own, |row| next(row).to_owned()),
];
