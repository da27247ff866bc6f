//! Confidence intervals by resampling.

pub mod random;

use crate::{
    Error,
    describe::of_sorted,
    numeric::{
        Mean, check, check_fraction, count, differences, finite, median_of_sorted, midpoint, sorted, sum,
    },
    special::{normal_quantile, normal_sf},
};
use random::Xoshiro256;
use serde::Serialize;

/// What is resampled: always B minus A.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Statistic {
    /// Mean of B minus mean of A.
    DifferenceOfMeans,
    /// Median of B minus median of A.
    DifferenceOfMedians,
    /// Median of the pairs' B minus A.
    MedianOfDifferences,
}

/// Bootstrap confidence intervals of a difference.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Bootstrap {
    /// What was resampled.
    pub statistic: Statistic,
    /// Its value in the samples themselves.
    pub estimate: f64,
    /// The interval between the percentiles of the resampled values (Efron & Tibshirani 1993, chapter 13).
    pub percentile: (f64, f64),
    /// The interval with corrections for bias and acceleration (BCa; Efron 1987). None where it is not defined: all
    /// resampled values lie on one side of the estimate, or leaving single values out never changes it.
    pub bca: Option<(f64, f64)>,
    /// The confidence level of both.
    pub level: f64,
    /// How often both samples were drawn again.
    pub resamples: usize,
    /// What the draws began with: the same seed gives the same intervals.
    pub seed: u64,
}

/// Bootstraps two independent samples, each of two values or more ([`Error::TooFew`]).
///
/// Each resample draws the values of A, then those of B, with replacement, by xoshiro256** (Blackman & Vigna 2021),
/// its state filled from the seed by SplitMix64; an index below n is the upper half of the 128-bit product of n and
/// the next number. Quantiles of the resampled values are of type 7 (Hyndman & Fan 1996). Acceleration is from the
/// jackknife over both samples. [`Error::Parameter`] for no resamples, a level not between 0 and 1, or the statistic of pairs
/// ([`ci_of_pairs`]).
pub fn ci(
    a: &[f64],
    b: &[f64],
    statistic: Statistic,
    resamples: usize,
    level: f64,
    seed: u64,
) -> Result<Bootstrap, Error> {
    check(a, 2)?;
    check(b, 2)?;
    check_fraction(level)?;
    if resamples == 0 || statistic == Statistic::MedianOfDifferences {
        return Err(Error::Parameter);
    }
    // A difference does not depend on where both samples lie, and medians near zero have more digits: from a value in
    // the middle of A on.
    let middle = sorted(a)[a.len() / 2];
    let from_middle =
        |sample: &[f64]| sample.iter().map(|x| finite(x - middle)).collect::<Result<Vec<_>, _>>();
    let (a, b) = (&from_middle(a)?[..], &from_middle(b)?[..]);
    let estimate = finite(statistic.of(&mut a.to_vec(), &mut b.to_vec()))?;
    let mut random = Xoshiro256::new(seed);
    let (mut drawn_a, mut drawn_b) = (vec![0.0; a.len()], vec![0.0; b.len()]);
    let draw = || {
        drawn_a.iter_mut().for_each(|slot| *slot = a[random.below(a.len())]);
        drawn_b.iter_mut().for_each(|slot| *slot = b[random.below(b.len())]);
        statistic.of(&mut drawn_a, &mut drawn_b)
    };
    let acceleration = acceleration(&[(a, -1.0), (b, 1.0)], statistic);
    intervals(statistic, estimate, acceleration, draw, (resamples, level, seed))
}

/// Bootstraps the median of the differences of pairs, two or more ([`Error::TooFew`]; [`Error::Lengths`]): whole pairs are drawn,
/// otherwise as [`ci`] does.
pub fn ci_of_pairs(
    a: &[f64],
    b: &[f64],
    resamples: usize,
    level: f64,
    seed: u64,
) -> Result<Bootstrap, Error> {
    let pairs = differences(a, b)?;
    check(&pairs, 2)?;
    check_fraction(level)?;
    if resamples == 0 {
        return Err(Error::Parameter);
    }
    let statistic = Statistic::MedianOfDifferences;
    let mut random = Xoshiro256::new(seed);
    let mut drawn = vec![0.0; pairs.len()];
    let draw = || {
        drawn.iter_mut().for_each(|slot| *slot = pairs[random.below(pairs.len())]);
        median(&mut drawn)
    };
    let estimate = median(&mut pairs.clone());
    let acceleration = acceleration(&[(&pairs, 1.0)], statistic);
    intervals(statistic, estimate, acceleration, draw, (resamples, level, seed))
}

fn intervals(
    statistic: Statistic,
    estimate: f64,
    acceleration: Option<f64>,
    mut draw: impl FnMut() -> f64,
    (resamples, level, seed): (usize, f64, u64),
) -> Result<Bootstrap, Error> {
    let mut values = (0..resamples).map(|_| finite(draw())).collect::<Result<Vec<_>, _>>()?;
    values.sort_by(f64::total_cmp);
    let tail = (1.0 - level) / 2.0;
    let percentile = (of_sorted(&values, tail), of_sorted(&values, 1.0 - tail));
    let bca = acceleration
        .and_then(|acceleration| corrected(&values, estimate, acceleration, tail))
        .map(|(low, high)| (of_sorted(&values, low), of_sorted(&values, high)));
    Ok(Bootstrap { statistic, estimate, percentile, bca, level, resamples, seed })
}

impl Statistic {
    /// Of two samples, whose order may change.
    fn of(self, a: &mut [f64], b: &mut [f64]) -> f64 {
        match self {
            Statistic::DifferenceOfMeans => Mean::of(b).minus(Mean::of(a)),
            Statistic::DifferenceOfMedians | Statistic::MedianOfDifferences => median(b) - median(a),
        }
    }

    /// How much each value of one sample pulls its mean or median up: (n - 1) times what the jackknife's average is
    /// more than the figure without that value.
    fn influences(self, sample: &[f64]) -> Vec<f64> {
        match self {
            // (n - 1) (x - m) / (n - 1).
            Statistic::DifferenceOfMeans => {
                let mean = Mean::of(sample);
                sample.iter().map(|x| mean.residual(*x)).collect()
            }
            Statistic::DifferenceOfMedians | Statistic::MedianOfDifferences => {
                let sample = sorted(sample);
                let without = |i: usize| {
                    let at = |k: usize| if k < i { sample[k] } else { sample[k + 1] };
                    let left = sample.len() - 1;
                    if left % 2 == 1 { at(left / 2) } else { midpoint(at(left / 2 - 1), at(left / 2)) }
                };
                let medians: Vec<f64> = (0..sample.len()).map(without).collect();
                let mean = Mean::of(&medians);
                medians.iter().map(|median| -mean.residual(*median) * count(sample.len() - 1)).collect()
            }
        }
    }
}

fn median(sample: &mut [f64]) -> f64 {
    sample.sort_unstable_by(f64::total_cmp);
    median_of_sorted(sample)
}

/// A sixth of the skewness of the influences, those of A against those of B.
fn acceleration(samples: &[(&[f64], f64)], statistic: Statistic) -> Option<f64> {
    let mut parts = vec![];
    for (sample, sign) in samples {
        let n = count(sample.len());
        parts.extend(statistic.influences(sample).into_iter().map(|influence| sign * influence / n));
    }
    // Relative to the largest: cubes leave the range of f64 early.
    let largest = parts.iter().fold(0.0_f64, |largest, part| largest.max(part.abs()));
    let power = |k: i32| sum(parts.iter().map(|part| (part / largest).powi(k)));
    let acceleration = power(3) / (6.0 * power(2).powf(1.5));
    acceleration.is_finite().then_some(acceleration)
}

/// The fractions of the resampled values that BCa takes instead of `tail` and `1 - tail`.
fn corrected(sorted: &[f64], estimate: f64, acceleration: f64, tail: f64) -> Option<(f64, f64)> {
    // Equal sums of unequal values differ by how they were rounded; counts of what equals the estimate must not.
    let largest = sorted.iter().fold(0.0_f64, |largest, value| largest.max(value.abs()));
    let rounding = 8.0 * f64::EPSILON * largest;
    let below = sorted.partition_point(|value| *value < estimate - rounding);
    let up_to = sorted.partition_point(|value| *value <= estimate + rounding);
    let share = (count(below) + count(up_to)) / (2.0 * count(sorted.len()));
    if share <= 0.0 || share >= 1.0 || below == 0 && up_to == sorted.len() {
        return None;
    }
    let bias = normal_quantile(share);
    let fraction = |z: f64| {
        let shifted = bias + z;
        normal_sf(-(bias + shifted / (1.0 - acceleration * shifted)))
    };
    let (low, high) = (fraction(normal_quantile(tail)), fraction(-normal_quantile(tail)));
    ((0.0..=1.0).contains(&low) && (low..=1.0).contains(&high)).then_some((low, high))
}
