//! One run's budget with the memory of another's machine.

use super::arithmetic::{self, Worth};
use super::{Budget, Reading, figures, reading};

/// What B's cache would be with what A's machine had free beside the engine at its readings.
pub fn with_state_of(a: &Budget, b: &Budget) -> Option<i64> {
    let worth = b.figures.kv.and(b.worth())?;
    let others = |reading: &Reading, free: Option<u64>, allocated: Option<u64>| {
        let whole = i64::try_from(reading.total?).ok()?;
        whole.checked_sub_unsigned(free?)?.checked_sub_unsigned(allocated?)
    };
    let at_reading = |of: &Budget| others(&of.reading, of.free_by(b), of.figures.allocated);
    let less = at_reading(b)? - at_reading(a)?;
    let less_before = match (&a.baseline, &b.baseline) {
        (Some(a), Some(b)) if worth.at_baseline != 0.0 => {
            others(b, Some(b.free), Some(0))? - others(a, Some(a.free), Some(0))?
        }
        // A went by one reading: what was there then was there before.
        (None, Some(before)) if worth.at_baseline != 0.0 => {
            let before = others(before, Some(before.free), Some(0))?;
            before - at_reading(a)?
        }
        _ => 0,
    };
    Some(b.figures.kv?.saturating_add(worth.of(less, less_before)))
}

impl Budget {
    /// What was free at the reading, by the signal of another budget.
    fn free_by(&self, other: &Self) -> Option<u64> {
        match other.reading.signal {
            signal if signal == self.reading.signal => Some(self.reading.free),
            Some(reading::AVAILABLE) => self.available,
            Some(reading::FREE) => self.reading.query.values.get(reading::FREE).copied().or(self
                .reading
                .query
                .state
                .as_ref()
                .and_then(|state| state.mem_free)),
            _ => None,
        }
    }

    pub(super) fn worth(&self) -> Option<Worth> {
        arithmetic::worth(
            self.engine.formula?,
            &figures::inputs(&self.figures, &self.reading, self.baseline.as_ref()),
        )
    }
}
