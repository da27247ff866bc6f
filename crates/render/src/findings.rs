//! Hypotheses with their verdicts, and what each rests on.

use std::collections::BTreeSet;

use super::document::Document;
use super::report::findings as words;
use spark_trace_analysis::findings::because::Because;
use spark_trace_analysis::findings::{Finding, Findings, Verdict};

/// Characters of the longest verdict.
const WORD: usize = 12;
/// Rows of evidence that are shown of one finding.
const EVIDENCE: usize = 8;

/// Plane by plane: the target's first. Hypotheses that are refuted are named where `all` are wanted; else they are counted.
pub fn show(document: &mut Document, planes: &[Findings], all: bool) {
    let mut places = BTreeSet::new();
    for (index, findings) in planes.iter().enumerate() {
        plane(document, findings, planes.get(..index).unwrap_or_default(), &mut places, all);
    }
}

/// A finding of an earlier plane with the same evidence is not repeated, nor is a place in the recording that an earlier
/// number has.
fn plane<'a>(
    document: &mut Document,
    findings: &'a Findings,
    before: &[Findings],
    places: &mut BTreeSet<&'a str>,
    all: bool,
) {
    document.heading(format!("Findings on {}", words::subject(findings)));
    document.line(findings.headline.to_string());
    lines(&findings.findings, all).into_iter().for_each(|line| document.line(line));
    let is_repeated = |finding: &&Finding| {
        let mut others = before.iter().flat_map(|findings| &findings.findings);
        others.any(|other| (other.hypothesis, &other.evidence) == (finding.hypothesis, &finding.evidence))
    };
    let supported = findings.findings.iter().filter(|finding| finding.verdict == Verdict::Supported);
    for finding in supported.filter(|finding| !is_repeated(finding)) {
        document.heading(format!("{}: {}", finding.title, finding.because));
        document.line(finding.claim);
        for row in finding.evidence.iter().take(EVIDENCE) {
            // A line, not a row of a table: what it says would be cut there.
            let is_first = places.insert(row.place.as_str());
            document.line(format!("- {}", words::number(row, is_first)));
        }
        if let Some(left) = finding.evidence.len().checked_sub(EVIDENCE).filter(|left| *left > 0) {
            document.line(format!("{left} more in --format json"));
        }
        document.own(format!("To confirm: {}", finding.next));
    }
}

/// A line for each verdict. Of what was not found there is less to say, unless `all` is wanted: one line for each reason
/// why it could not be tested, and one for all that is refuted.
fn lines(findings: &[Finding], all: bool) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let mut reasons: Vec<&Because> = Vec::new();
    let is_short = |finding: &&Finding| !all && finding.verdict == Verdict::Refuted;
    for finding in findings.iter().filter(|finding| !is_short(finding)) {
        if all || finding.verdict != Verdict::Untestable {
            lines.push(line(finding));
        } else if !reasons.contains(&&finding.because) {
            let same =
                |other: &&Finding| other.verdict == Verdict::Untestable && other.because == finding.because;
            let titles: Vec<_> = findings.iter().filter(same).map(|other| other.title).collect();
            lines.push(verdict(finding, &titles.join(", "), ""));
            reasons.push(&finding.because);
        }
    }
    match findings.iter().filter(is_short).collect::<Vec<_>>()[..] {
        [] => {}
        [one] => lines.push(line(one)),
        ref many => lines.push(format!(
            "{:<WORD$} {} other hypotheses; --all names them",
            Verdict::Refuted.as_str(),
            many.len()
        )),
    }
    lines
}

/// Verdict, share and reason: they would not stand side by side in 80 columns.
fn line(finding: &Finding) -> String {
    let share = finding.share.filter(|_| finding.verdict == Verdict::Supported);
    let share = share.map_or_else(String::new, |share| format!(", {:.1} %", share * 100.0));
    verdict(finding, finding.title, &share)
}

fn verdict(finding: &Finding, titles: &str, share: &str) -> String {
    format!("{:<WORD$} {titles}{share}: {}", finding.verdict.as_str(), finding.because)
}

#[cfg(test)]
mod tests {
    use super::*;
    use spark_trace_analysis::findings::because::{Change, Reason, Unseen};

    #[test]
    fn refuted_hypotheses_take_few_lines() {
        let finding = |verdict, title, reason: Reason| Finding {
            hypothesis: "h",
            title,
            claim: "c",
            verdict,
            because: reason.into(),
            explains_bytes: None,
            share: None,
            evidence: vec![],
            next: "n",
        };
        let no_hook = || Reason::Unseen(Unseen::NoHook { hook: "page-alloc".to_owned(), run: "B" });
        let change = |bytes| Reason::Changed(Change { bytes, of_two: true });
        let mut findings = vec![
            finding(Verdict::Supported, "page cache", change(1 << 20)),
            finding(Verdict::Untestable, "eBPF maps", no_hook()),
            finding(Verdict::Untestable, "sockets", Reason::CgroupNotRead),
            finding(Verdict::Untestable, "dentries", no_hook()),
            finding(Verdict::Refuted, "leak", change(0)),
        ];
        let expected = [
            "supported    page cache: 1.0 MiB more in B",
            "untestable   eBPF maps, dentries: B has no hook page-alloc",
            "untestable   sockets: the target's cgroup was not read",
        ];
        assert_eq!(lines(&findings, false)[..3], expected);
        assert_eq!(lines(&findings, false)[3], "refuted      leak: the same in A and B", "one has its name");
        findings.extend((0..26).map(|_| finding(Verdict::Refuted, "another", change(0))));
        assert_eq!(lines(&findings, false)[3..], ["refuted      27 other hypotheses; --all names them"]);
        assert_eq!(lines(&findings, true).len(), 31);
    }
}
