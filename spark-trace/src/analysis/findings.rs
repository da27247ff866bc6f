//! From recordings to answers: one hypothesis after the other is put to the numbers of one or two runs.
//!
//! [`HYPOTHESES`] is the table; a hypothesis is one row and one pure function. What a recording could not see is never
//! evidence: where a hook was missing or lost events, a verdict that would rest on it is `untestable`.

use serde::Serialize;

use crate::analysis::instant::At;
use crate::recording::Recording;

mod accounting;
mod cache;
mod case;
mod causes;
mod memory;
mod surroundings;
mod table;

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
    /// A difference, B less A.
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
    /// Why, in a sentence.
    pub because: String,
    /// Of the difference (of one run: of the growth), how many bytes it explains; absent where it explains none of its
    /// own, because another row has them.
    pub explains_bytes: Option<i64>,
    /// The same as a part of the whole.
    pub share: Option<f64>,
    pub evidence: Vec<Evidence>,
    /// The experiment that would decide it, or make sure.
    pub next: &'static str,
}

/// All hypotheses, and what they were to explain.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Findings {
    /// Of the system plane, which the planes of all processes and containers share.
    pub at: At,
    pub a_at_ns: Option<u64>,
    pub b_at_ns: u64,
    /// B less A; of one run the growth since its start.
    pub delta_bytes: Option<i64>,
    /// What of it is in no source.
    pub residual_bytes: Option<i64>,
    /// Differences smaller than this explain nothing.
    pub material_bytes: i64,
    /// The answer in a sentence or two.
    pub headline: String,
    /// The largest share first; what explains nothing by its verdict, then in the table's order.
    pub findings: Vec<Finding>,
}

/// Judges one run by its growth, or B against A.
pub fn judge(a: Option<&Recording>, b: &Recording, at: At) -> Findings {
    Case::new(a, b, at).judge()
}

#[cfg(test)]
mod manual;
#[cfg(test)]
mod tests;
