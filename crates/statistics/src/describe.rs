//! What one sample looks like.

use crate::numeric::{Moments, count, median_of_sorted, sorted};
use serde::Serialize;

/// One sample's figures.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Description {
    /// The number of values.
    pub n: usize,
    /// The arithmetic mean.
    pub mean: f64,
    /// The middle value, or the mean of the two middle ones.
    pub median: f64,
    /// The standard deviation with n - 1. None for one value.
    pub sd: Option<f64>,
    /// The coefficient of variation, `sd / |mean|`. None without `sd` or where the mean is zero.
    pub cv: Option<f64>,
    /// The smallest value.
    pub min: f64,
    /// The largest value.
    pub max: f64,
    /// The quantile at 1/4, see [`quantile`].
    pub q1: f64,
    /// The quantile at 3/4, see [`quantile`].
    pub q3: f64,
}

/// Describes a sample. None where it is empty, a value is not finite, or sums of it leave the range of f64.
pub fn describe(values: &[f64]) -> Option<Description> {
    let moments = Moments::of(values, 1).ok()?;
    let sorted = sorted(values);
    let sd = (values.len() > 1).then(|| moments.variance().sqrt());
    let mean = moments.mean.value();
    Some(Description {
        n: values.len(),
        mean,
        median: median_of_sorted(&sorted),
        sd,
        cv: sd.map(|sd| sd / mean.abs()).filter(|cv| cv.is_finite()),
        min: sorted[0],
        max: sorted[sorted.len() - 1],
        q1: of_sorted(&sorted, 0.25),
        q3: of_sorted(&sorted, 0.75),
    })
}

/// The quantile at `fraction` by linear interpolation at position (n - 1) · fraction of the sorted values: type 7 of
/// Hyndman & Fan (1996), as numpy has it. None where the sample is empty or not finite, or the fraction is not
/// within 0 and 1.
pub fn quantile(values: &[f64], fraction: f64) -> Option<f64> {
    crate::numeric::check(values, 1).ok()?;
    (0.0..=1.0).contains(&fraction).then(|| of_sorted(&sorted(values), fraction))
}

/// [`quantile`] of values that are sorted, for a fraction within 0 and 1.
pub(crate) fn of_sorted(sorted: &[f64], fraction: f64) -> f64 {
    let position = count(sorted.len() - 1) * fraction;
    let below = (position.floor() as usize).min(sorted.len() - 1);
    let above = (below + 1).min(sorted.len() - 1);
    let part = position - position.floor();
    let (low, high) = (sorted[below], sorted[above]);
    // Neither form overflows in the middle of its range, and both ends are met exactly.
    let width = high - low;
    let value = if width.is_finite() { low + part * width } else { low * (1.0 - part) + high * part };
    value.clamp(low, high)
}
