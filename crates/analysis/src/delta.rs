//! Two balances of one plane, compared source by source.

use serde::Serialize;
use spark_trace_common::source::{SOURCES, Source, UNATTRIBUTED, counts_from_start};

use crate::attribution::{bytes, difference};
use spark_trace_recording::ledger::{Balance, Plane, Row};

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SourceDelta {
    pub source: &'static str,
    pub a_bytes: Option<i64>,
    pub b_bytes: Option<i64>,
    /// Absent where one of the kernels does not say.
    pub delta_bytes: Option<i64>,
    /// Of the total difference; absent where there is none.
    pub share: Option<f64>,
}

/// Two balances of one plane, compared.
pub struct Rows {
    pub sources: Vec<SourceDelta>,
    pub total: Option<i64>,
    pub residual: Option<i64>,
}

impl Rows {
    pub fn new((plane_a, a): (Plane, &Balance), (plane_b, b): (Plane, &Balance)) -> Self {
        // A run that did not separate the part from its whole has it in the whole: so has the other one here.
        let (a, b) = (&joined(plane_a, a, b), &joined(plane_b, b, a));
        let level = |balance: &Balance, slug| bytes(balance.bytes(slug));
        let known = plane_a.sources().filter(|source| source.slug != UNATTRIBUTED);
        let mut sources: Vec<_> = known
            .map(|source| SourceDelta::new(source.slug, level(a, source.slug), level(b, source.slug)))
            .collect();
        // A row that only one of the kernels has cannot be compared: its bytes are unattributed in both.
        let compared = |side: fn(&SourceDelta) -> Option<i64>| {
            let rows = sources.iter().filter(|row| row.delta_bytes.is_some());
            rows.filter_map(side).fold(0, i64::saturating_add)
        };
        let rest_a = difference(bytes(a.expected), Some(compared(|row| row.a_bytes)));
        let rest_b = difference(bytes(b.expected), Some(compared(|row| row.b_bytes)));
        let unattributed = SourceDelta::new(UNATTRIBUTED, rest_a, rest_b);
        let total = difference(bytes(b.expected), bytes(a.expected));
        let residual = unattributed.delta_bytes;
        sources.push(unattributed);
        for row in &mut sources {
            row.share = share(row.delta_bytes, total);
        }
        Self { sources, total, residual }
    }
}

/// `balance` with the sources that `other` does not know put back into those that they were taken out of.
fn joined(plane: Plane, balance: &Balance, other: &Balance) -> Balance {
    let mut rows = balance.rows.clone();
    for part in 0..rows.len() {
        let Row { source, bytes } = rows[part];
        let Some((bytes, whole)) =
            bytes.filter(|_| other.bytes(source.slug).is_none()).zip(whole_of(plane, source))
        else {
            continue;
        };
        let Some(whole) = rows.iter_mut().find(|row| row.source.slug == whole.slug) else { continue };
        if let Some(level) = &mut whole.bytes {
            *level = level.saturating_add(bytes);
            rows[part].bytes = None;
        }
    }
    Balance::new(balance.at_ns, rows, balance.expected)
}

/// The source that has the bytes of `part` where nobody follows those.
fn whole_of(plane: Plane, part: &Source) -> Option<&'static Source> {
    let counted = plane.terms(part).iter().find(|term| !term.negative && counts_from_start(term.column))?;
    let takes_it_out = |source: &&Source| {
        plane.terms(source).iter().any(|term| term.negative && term.column == counted.column)
    };
    SOURCES.iter().find(takes_it_out)
}

impl SourceDelta {
    fn new(source: &'static str, a_bytes: Option<i64>, b_bytes: Option<i64>) -> Self {
        Self { source, a_bytes, b_bytes, delta_bytes: difference(b_bytes, a_bytes), share: None }
    }
}

fn share(part: Option<i64>, total: Option<i64>) -> Option<f64> {
    let total = total.filter(|&total| total != 0)?;
    // Nothing of a negative total is zero, not minus zero.
    Some(part? as f64 / total as f64 + 0.0)
}
