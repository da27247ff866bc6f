//! Medians over pairs, without making the pairs: halving the range of f64 until one number is left, counting in
//! linear time how many pairs lie below.

use crate::{
    Error,
    numeric::{finite, midpoint, sorted},
};

/// All differences of two samples, or all means of two values of one, in order.
pub(super) struct Pairs {
    pub(super) count: u128,
    /// How many are up to a bound.
    up_to: Box<dyn Fn(f64) -> u128>,
}

impl Pairs {
    /// All `b[j] - a[i]`.
    pub(super) fn between(a: &[f64], b: &[f64]) -> Pairs {
        let (a, b) = (sorted(a), sorted(b));
        let count = a.len() as u128 * b.len() as u128;
        // Differences fall along a and rise along b.
        let up_to = move |bound: f64| {
            let (mut j, mut pairs) = (0, 0_u128);
            for a in &a {
                while j < b.len() && b[j] - a <= bound {
                    j += 1;
                }
                pairs += j as u128;
            }
            pairs
        };
        Pairs { count, up_to: Box::new(up_to) }
    }

    /// All `(x[i] + x[j]) / 2` with i <= j.
    pub(super) fn within(x: &[f64]) -> Pairs {
        let x = sorted(x);
        let count = x.len() as u128 * (x.len() as u128 + 1) / 2;
        let up_to = move |bound: f64| {
            let (mut j, mut pairs) = (x.len(), 0_u128);
            for (i, low) in x.iter().enumerate() {
                while j > 0 && midpoint(*low, x[j - 1]) > bound {
                    j -= 1;
                }
                pairs += j.saturating_sub(i) as u128;
            }
            pairs
        };
        Pairs { count, up_to: Box::new(up_to) }
    }

    /// The k-th smallest, from 1.
    pub(super) fn at(&self, k: u128) -> f64 {
        smallest(|bound| (self.up_to)(bound) >= k)
    }

    pub(super) fn median(&self) -> Result<f64, Error> {
        finite(midpoint(self.at(self.count.div_ceil(2)), self.at(self.count / 2 + 1)))
    }
}

/// The smallest number that `enough` holds for, which holds for all above it as well.
fn smallest(enough: impl Fn(f64) -> bool) -> f64 {
    let (mut low, mut high) = (ordinal(f64::NEG_INFINITY), ordinal(f64::INFINITY));
    while low < high {
        let middle = low + (high - low) / 2;
        if enough(number(middle)) { high = middle } else { low = middle + 1 }
    }
    // Minus zero sorts below zero and equals it.
    number(low) + 0.0
}

/// The place of a number among all of f64.
fn ordinal(x: f64) -> u64 {
    let bits = x.to_bits();
    if bits >> 63 == 0 { bits | 1 << 63 } else { !bits }
}

fn number(ordinal: u64) -> f64 {
    f64::from_bits(if ordinal >> 63 == 1 { ordinal ^ 1 << 63 } else { !ordinal })
}
