//! From recordings to answers: one hypothesis after the other is put to the numbers of one or two runs.
//!
//! [`HYPOTHESES`] is the table; a hypothesis is one row and one pure function. What a recording could not see is never
//! evidence: where a hook was missing or lost events, a verdict that would rest on it is `untestable`.

use serde::Serialize;

use crate::derived::Derived;
use crate::instant_spec::InstantSpec;
use crate::moment::Moments;
use crate::view::{Scope, View};
use spark_trace_recording::Recording;

mod accounting;
pub mod because;
mod cache;
mod case;
mod causes;
mod copies;
mod device;
mod groups;
mod judge;
mod memory;
mod others;
mod run;
mod surroundings;
mod table;
mod words;

use because::{Because, Headline, Outside};
pub use case::Case;
pub use table::{DOUBLE_COUNTING, HYPOTHESES, Hypothesis};

/// What the numbers say of a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    Supported,
    Refuted,
    /// The numbers were to be had and do not decide.
    Inconclusive,
    /// The numbers were not to be had.
    Untestable,
}

impl Verdict {
    pub const ALL: [Self; 4] = [Self::Supported, Self::Inconclusive, Self::Untestable, Self::Refuted];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Supported => "supported",
            Self::Refuted => "refuted",
            Self::Inconclusive => "inconclusive",
            Self::Untestable => "untestable",
        }
    }
}

/// One number that a verdict rests on.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Evidence {
    /// What it is, in words; it may hold names from outside.
    pub what: String,
    pub value: Option<i64>,
    pub unit: Unit,
    /// The run it is of: `a`, `b`, or both compared.
    pub side: Side,
    /// Where in the recording it stands.
    pub place: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unit {
    Bytes,
    /// A difference, B minus A.
    DeltaBytes,
    Count,
    /// The words say it all.
    None,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Side {
    A,
    B,
    Both,
}

/// What became of one hypothesis.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Finding {
    pub hypothesis: &'static str,
    pub title: &'static str,
    /// The claim in a sentence.
    pub claim: &'static str,
    pub verdict: Verdict,
    /// Why; its text is a sentence.
    pub because: Because,
    /// Of the difference (of one run: of the growth), how many bytes it explains; absent where it explains none of its
    /// own, because another row has them.
    pub explains_bytes: Option<i64>,
    /// The same as a part of the whole.
    pub share: Option<f64>,
    pub evidence: Vec<Evidence>,
    /// The experiment that would decide it, or make sure.
    pub next: &'static str,
}

/// The hypotheses of one plane, and what they were to explain.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Findings {
    pub plane: Scope,
    /// The plane is the machine's: it has everything else that ran in it.
    pub includes_others: bool,
    /// Why the plane's levels say nothing of the runs, if so.
    pub untestable: Option<Outside>,
    pub at: InstantSpec,
    pub a_at_ns: Option<u64>,
    pub b_at_ns: u64,
    /// B minus A; of one run the growth since its start.
    pub delta_bytes: Option<i64>,
    /// What of it is in no source.
    pub residual_bytes: Option<i64>,
    /// Differences smaller than this explain nothing.
    pub material_bytes: i64,
    /// The answer; its text is a sentence or two.
    pub headline: Headline,
    /// The largest share first; what explains nothing by its verdict, then in the table's order.
    pub findings: Vec<Finding>,
}

/// Judges one run by its growth, or B against A, plane by plane: the target's first, where both have it, the machine's
/// last.
pub fn judge<'a, R: Into<Derived<'a>>>(a: Option<R>, b: R, at: impl Into<Moments>) -> Vec<Findings> {
    let (a, b, at) = (a.map(Into::into), b.into(), at.into());
    let planes = planes(a.as_ref().map(|a| a.recording), b.recording, at);
    let judged = planes.into_iter().enumerate();
    judged.map(|(index, plane)| Case::new(a.as_ref(), &b, at, plane).judge(index == 0)).collect()
}

/// The same on one plane alone.
pub fn judge_on<'a, R: Into<Derived<'a>>>(
    a: Option<R>,
    b: R,
    at: impl Into<Moments>,
    plane: Scope,
) -> Findings {
    Case::new(a.map(Into::into).as_ref(), &b.into(), at.into(), plane).judge(true)
}

/// The planes that all recordings have. What the target took most of comes first: its cgroup's memory or the GPUs'.
/// Where there is none, the machine's is the answer all the same: it says why it is not known.
fn planes(a: Option<&Recording>, b: &Recording, at: Moments) -> Vec<Scope> {
    let all = || a.into_iter().zip([at.a]).chain([(b, at.b)]);
    let has = |scope: &Scope| all().all(|(recording, _)| View::new(recording, *scope).is_some());
    // Of a machine that does not show its memory nothing is left but to say so.
    let mut planes: Vec<_> = [Scope::Cgroup, Scope::Device, Scope::System].into_iter().filter(has).collect();
    let taken = |scope: Scope, of: fn(&spark_trace_recording::ledger::Balance) -> Option<u64>| {
        all().filter_map(|(recording, at)| of(&View::new(recording, scope)?.choose(at))).max()
    };
    let on_gpus = taken(Scope::Device, |balance| {
        let rows = device::OF_TARGET.iter().filter_map(|slug| balance.bytes(slug));
        rows.reduce(u64::saturating_add)
    });
    if on_gpus.unwrap_or(0) > taken(Scope::Cgroup, |balance| balance.expected).unwrap_or(0) {
        planes.sort_by_key(|plane| {
            [Scope::Device, Scope::Cgroup, Scope::System].iter().position(|of| of == plane)
        });
    } else if on_gpus.unwrap_or(0) == 0 {
        // The target took nothing of the GPUs.
        planes.retain(|plane| *plane != Scope::Device);
    }
    if planes.is_empty() {
        planes.push(Scope::System);
    }
    planes
}

#[cfg(test)]
mod manual;
#[cfg(test)]
mod tests;
