//! What the device memory of two runs' engines is for.

use serde::Serialize;

use crate::derived::Derived;
use crate::engine_run::{self, PartName, Parts};

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PartDelta {
    pub part: PartName,
    pub a_bytes: Option<u64>,
    pub b_bytes: Option<u64>,
    /// B minus A, where both are known.
    pub delta_bytes: Option<i64>,
}

/// Empty where no run has an engine whose stages are known.
pub fn compare(a: (&Derived<'_>, u64), b: (&Derived<'_>, u64)) -> Vec<PartDelta> {
    let [a, b] = [a, b].map(|(run, at_ns)| engine_run::report(run, at_ns).and_then(|report| report.parts));
    let bytes = |parts: &Option<Parts>, part: PartName| {
        parts.as_ref()?.parts.iter().find(|row| row.part == part).map(|row| row.bytes)
    };
    let rows = PartName::ALL.iter().map(|part| {
        let (a_bytes, b_bytes) = (bytes(&a, *part), bytes(&b, *part));
        let signed = |bytes: u64| i64::try_from(bytes).ok();
        let delta_bytes =
            a_bytes.and_then(signed).zip(b_bytes.and_then(signed)).map(|(a, b)| b.saturating_sub(a));
        PartDelta { part: *part, a_bytes, b_bytes, delta_bytes }
    });
    rows.filter(|row| row.a_bytes.or(row.b_bytes).is_some()).collect()
}
