//! From cases to verdicts: every hypothesis that a plane can test, and the answer in a sentence.

use super::because::{Cause, Headline, Note, Reason};
use super::case::{Case, Judgement};
use super::table::{DOUBLE_COUNTING, HYPOTHESES, Hypothesis};
use super::{Finding, Findings, Verdict};
use crate::view::Scope;

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
            (None, ..) => Judgement::untestable(Reason::NoReadings),
            (_, true, _) => Judgement::untestable(Reason::NeedsTwoRuns),
            (.., Some(unseen)) => {
                // What was seen may still be said; it decides nothing.
                let judged = (row.judge)(self);
                Judgement { verdict: Verdict::Untestable, because: Reason::Unseen(unseen).into(), ..judged }
            }
            _ => {
                let mut judged = (row.judge)(self);
                let hooks = row.hooks.iter();
                let missed = hooks.flat_map(|hook| self.runs().filter_map(|run| run.missed(hook)));
                judged.because.notes.extend(missed.map(Note::Missed));
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

    fn headline(&self, findings: &[Finding]) -> Headline {
        let double = findings.iter().find(|finding| finding.hypothesis == DOUBLE_COUNTING);
        Headline {
            scope: self.scope,
            at: self.at,
            of_two: self.a.is_some(),
            delta_bytes: self.delta,
            threshold: self.material,
            outside: self.untestable.clone(),
            causes: findings.iter().filter_map(cause).take(NAMED).collect(),
            includes_others: self.includes_others(),
            counted_twice: double.map(|double| double.verdict),
        }
    }
}

/// What a finding explains of a difference, in the direction of the whole.
fn cause(finding: &Finding) -> Option<Cause> {
    let share = finding.share.filter(|share| *share > 0.0 && finding.verdict == Verdict::Supported)?;
    Some(Cause { title: finding.title, bytes: finding.explains_bytes?, share })
}
