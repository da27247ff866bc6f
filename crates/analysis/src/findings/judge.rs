//! From cases to verdicts: every hypothesis that a plane can test, and the answer in a sentence.

use super::case::{Case, Judgement};
use super::table::{DOUBLE_COUNTING, HYPOTHESES, Hypothesis};
use super::{Finding, Findings, Verdict};
use crate::view::Scope;
use spark_trace_recording::units;

/// Causes that a headline names.
const NAMED: usize = 3;

impl Case<'_> {
    /// `first`: claims about the runs themselves, on whatever plane, are judged here.
    pub(super) fn judge(&self, first: bool) -> Findings {
        let rows = HYPOTHESES
            .iter()
            .filter(|row| if row.planes.is_empty() { first } else { row.planes.contains(&self.scope) });
        let mut findings: Vec<_> = rows.map(|row| self.finding(row)).collect();
        findings.sort_by_key(|finding| {
            let own = finding.explains_bytes.filter(|_| finding.verdict == Verdict::Supported);
            let rank = Verdict::ALL.iter().position(|verdict| *verdict == finding.verdict);
            (rank, std::cmp::Reverse(own.map_or(0, i64::abs)))
        });
        Findings {
            plane: self.scope,
            includes_others: self.includes_others(),
            untestable: self.untestable.clone(),
            at: self.at,
            a_at_ns: self.a.as_ref().map(|a| a.at_ns),
            b_at_ns: self.b().map_or(0, |b| b.at_ns),
            delta_bytes: self.delta,
            residual_bytes: self.residual,
            material_bytes: self.material,
            headline: self.headline(&findings),
            findings,
        }
    }

    /// The plane is the machine's, and the machine is not the target.
    fn includes_others(&self) -> bool {
        self.scope == Scope::System && self.runs().any(|run| !run.recording.target.is_whole_machine())
    }

    fn finding(&self, row: &Hypothesis) -> Finding {
        let unseen = row.hooks.iter().find_map(|hook| self.runs().find_map(|run| run.unseen(hook)));
        let judgement = match (self.b(), row.of_two && self.a.is_none(), unseen) {
            (None, ..) => Judgement::untestable("the recording has no readings of this memory"),
            (_, true, _) => Judgement::untestable("needs two runs"),
            (.., Some(unseen)) => {
                // What was seen may still be said; it decides nothing.
                let judged = (row.judge)(self);
                Judgement { verdict: Verdict::Untestable, because: unseen, ..judged }
            }
            _ => {
                let mut judged = (row.judge)(self);
                let hooks = row.hooks.iter();
                for missed in hooks.flat_map(|hook| self.runs().filter_map(|run| run.missed(hook))) {
                    judged.because.push_str("; ");
                    judged.because.push_str(&missed);
                }
                judged
            }
        };
        let whole = self.delta.filter(|delta| delta.abs() >= self.material);
        Finding {
            hypothesis: row.slug,
            title: row.title,
            claim: row.claim,
            verdict: judgement.verdict,
            because: judgement.because,
            explains_bytes: judgement.explains,
            share: judgement.explains.zip(whole).map(|(part, whole)| part as f64 / whole as f64),
            evidence: judgement.evidence,
            next: row.next,
        }
    }

    fn headline(&self, findings: &[Finding]) -> String {
        let Some(delta) = self.delta else {
            return match self.scope {
                Scope::System => "The machine's memory was not read.",
                Scope::Cgroup => "The target's cgroup was not read.",
                Scope::Device => "The GPUs' memory was not read.",
            }
            .to_owned();
        };
        let same = delta.abs() < self.material;
        let mut text = self.difference(delta, same);
        match &self.untestable {
            Some(reason) => text.push_str(&format!("; {reason}.")),
            None if same => text.push('.'),
            None => text.push_str(&causes(findings)),
        }
        if self.includes_others() {
            text.push_str(" This includes everything else that ran on the machine.");
        }
        if let Some(double) = findings.iter().find(|f| f.hypothesis == DOUBLE_COUNTING) {
            text.push_str(&format!(" Memory counted twice: {}.", double.verdict.as_str()));
        }
        text
    }

    /// How far the runs are apart, or how far one has come.
    fn difference(&self, delta: i64, same: bool) -> String {
        let at = self.at.of_a_run();
        let amount = units::size(if same { self.material } else { delta.abs() });
        let (more, grown) = if delta > 0 { ("more", "grew") } else { ("less", "shrank") };
        match (self.scope, self.a.is_some(), same) {
            (Scope::Cgroup, true, true) => {
                format!("The targets of A and B are charged the same, within {amount}, each at its {at}")
            }
            (Scope::Cgroup, true, false) => {
                format!("The target of B is charged {amount} {more} than that of A, each at its {at}")
            }
            (Scope::Cgroup, false, true) => {
                format!("The memory charged to the target changed by less than {amount} up to its {at}")
            }
            (Scope::Cgroup, false, false) => {
                format!("The memory charged to the target {grown} by {amount} up to its {at}")
            }
            (Scope::Device, true, true) => {
                format!("The GPUs have the same memory in use in A and B, within {amount}")
            }
            (Scope::Device, true, false) => {
                format!("The GPUs have {amount} {more} in use with B than with A, each at its {at}")
            }
            (Scope::Device, false, true) => {
                format!("The memory in use on the GPUs changed by less than {amount}")
            }
            (Scope::Device, false, false) => {
                format!("The memory in use on the GPUs {grown} by {amount} up to its {at}")
            }
            (Scope::System, true, true) => {
                format!("The machine has the same memory in use in A and B, within {amount}")
            }
            (Scope::System, true, false) => {
                format!("The machine has {amount} {more} in use with B than with A, each at its {at}")
            }
            (Scope::System, false, true) => {
                format!("The machine's memory in use changed by less than {amount} up to its {at}")
            }
            (Scope::System, false, false) => {
                format!("The machine's memory in use {grown} by {amount} up to its {at}")
            }
        }
    }
}

/// The largest causes of a difference.
fn causes(findings: &[Finding]) -> String {
    let parts = findings.iter().filter(|f| f.verdict == Verdict::Supported);
    let parts = parts.filter_map(|f| {
        let share = f.share.filter(|share| *share > 0.0)?;
        let bytes = units::delta(f.explains_bytes?);
        // More than the whole is no share of it: something else went the other way.
        Some(match share <= 1.0 {
            true => format!("{} {bytes} ({:.0} %)", f.title, share * 100.0),
            false => format!("{} {bytes}", f.title),
        })
    });
    let parts: Vec<_> = parts.take(NAMED).collect();
    match parts.is_empty() {
        true => "; no hypothesis explains it.".to_owned(),
        false => format!(": {}.", parts.join(", ")),
    }
}
