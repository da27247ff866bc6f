//! Medians over pairs, without making the pairs: halving the range of f64 until one number is left, counting in
//! linear time how many pairs lie below.

use crate::{
    Error,
    numeric::{finite, midpoint, sorted},
};

/// The median of all `b[j] - a[i]`.
pub(super) fn between(a: &[f64], b: &[f64]) -> Result<f64, Error> {
    let (a, b) = (sorted(a), sorted(b));
    let pairs = a.len() as u128 * b.len() as u128;
    // Differences fall along a and rise along b.
    let up_to = |bound: f64| {
        let (mut j, mut pairs) = (0, 0_u128);
        for a in &a {
            while j < b.len() && b[j] - a <= bound {
                j += 1;
            }
            pairs += j as u128;
        }
        pairs
    };
    median(pairs, up_to)
}

/// The median of all `(x[i] + x[j]) / 2` with i <= j.
pub(super) fn within(x: &[f64]) -> Result<f64, Error> {
    let x = sorted(x);
    let pairs = x.len() as u128 * (x.len() as u128 + 1) / 2;
    let up_to = |bound: f64| {
        let (mut j, mut pairs) = (x.len(), 0_u128);
        for (i, low) in x.iter().enumerate() {
            while j > 0 && midpoint(*low, x[j - 1]) > bound {
                j -= 1;
            }
            pairs += j.saturating_sub(i) as u128;
        }
        pairs
    };
    median(pairs, up_to)
}

fn median(pairs: u128, up_to: impl Fn(f64) -> u128) -> Result<f64, Error> {
    let low = smallest(|bound| up_to(bound) > (pairs - 1) / 2);
    let high = smallest(|bound| up_to(bound) > pairs / 2);
    finite(midpoint(low, high))
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
