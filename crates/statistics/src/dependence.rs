//! What pairs of runs that follow one another have in common, and how much less their mean is known for it.

use crate::{
    Error,
    numeric::{Mean, check, count},
    series::{Lag1, lag1},
    special::normal_sf,
};
use serde::Serialize;

/// The differences' own autocorrelation is taken where chance alone makes as much in less than this part of all samples. Where it is
/// not that certain, its noise would cost more power than it saves errors.
const CERTAIN: f64 = 0.05;
/// No autocorrelation is taken to be larger: what is left of a mean's precision would be a division by nothing.
const LARGEST: f64 = 0.9;

/// Autocorrelation that a test of pairs allows for.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Dependence {
    pub of: Of,
    /// At lag 1, corrected for its bias of -1/n; 0 where it is not positive.
    pub r: f64,
    /// How many times as large it makes the variance of the mean difference; 1 where it makes it smaller.
    pub larger: f64,
}

/// What the autocorrelation is that of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Of {
    /// Of all runs in their order, each without its environment's mean.
    Runs,
    /// Of the pairs' differences.
    Differences,
}

/// The dependence of the pairs `b[i] - a[i]` of runs whose places in the order of running are `at_a` and `at_b`.
///
/// If each run has the part r of the deviation of the run before (an autoregression of order 1), then the order says what the
/// differences have in common: of A B B A little, r (1 - r) / 2 at lag 1. All runs say what r is, which the half as many differences
/// cannot. The variance of the mean difference is w'Rw, R[i, j] = r^|i - j| over the runs in their order; the test takes it to be
/// that of the differences over n.
///
/// Where the environments themselves change slowly, each in its own way, the differences depend on each other more than that. Their own
/// autocorrelation r, if it is certain, makes the variance (1 + r) / (1 - r) times as large. The larger of both is taken.
///
/// Needs a pair ([`Error::TooFew`]) and equal lengths ([`Error::Lengths`]). Without variation r is 0.
pub fn of_pairs(a: &[f64], b: &[f64], at_a: &[u32], at_b: &[u32]) -> Result<Dependence, Error> {
    if a.len() != b.len() || a.len() != at_a.len() || a.len() != at_b.len() {
        return Err(Error::Lengths);
    }
    check(a, 1)?;
    check(b, 1)?;
    let (mean_a, mean_b) = (Mean::of(a), Mean::of(b));
    let mut runs: Vec<(u32, f64, f64)> = a
        .iter()
        .zip(at_a)
        .map(|(value, at)| (*at, mean_a.residual(*value), -1.0))
        .chain(b.iter().zip(at_b).map(|(value, at)| (*at, mean_b.residual(*value), 1.0)))
        .collect();
    runs.sort_by_key(|(at, ..)| *at);
    let n = count(a.len());
    let left: Vec<f64> = runs.iter().map(|(_, left, _)| *left).collect();
    let r = lag1(&left).map_or(0.0, |found| unbiased(&found, 2.0 * n));
    let mut places = vec![(0, 0); a.len()];
    let mut order = [at_a, at_b].map(|at| at.iter().copied().enumerate().collect::<Vec<_>>());
    order.iter_mut().for_each(|side| side.sort_by_key(|(_, at)| *at));
    let (mut next_a, mut next_b) = (order[0].iter(), order[1].iter());
    for (place, (.., sign)) in runs.iter().enumerate() {
        if *sign < 0.0 {
            next_a.next().into_iter().for_each(|(pair, _)| places[*pair].0 = place);
        } else {
            next_b.next().into_iter().for_each(|(pair, _)| places[*pair].1 = place);
        }
    }
    let signs: Vec<f64> = runs.iter().map(|(.., sign)| *sign).collect();
    let of_runs = Dependence { of: Of::Runs, r, larger: larger(r, &signs, &places).max(1.0) };
    let differences: Vec<f64> = a.iter().zip(b).map(|(a, b)| b - a).collect();
    let own = lag1(&differences).ok().filter(|found| normal_sf(found.z) < CERTAIN);
    let own = own.map(|found| unbiased(&found, n));
    let own = own.map(|r| Dependence { of: Of::Differences, r, larger: (1.0 + r) / (1.0 - r) });
    Ok(own.filter(|own| own.larger > of_runs.larger).unwrap_or(of_runs))
}

/// Of independent values r is -1/n on average (Dufour & Roy 1985).
fn unbiased(found: &Lag1, n: f64) -> f64 {
    (found.r + 1.0 / n).clamp(0.0, LARGEST)
}

/// The variance of the mean difference over that which the variance of the differences suggests, for an autoregression.
fn larger(r: f64, signs: &[f64], places: &[(usize, usize)]) -> f64 {
    let n = count(places.len());
    if n < 2.0 {
        return 1.0;
    }
    // w'Rw in one pass: what is before a run counts with one more factor of r at each step.
    let (mut before, mut square) = (0.0, 0.0);
    for sign in signs {
        square += sign * (sign + 2.0 * before);
        before = r * (before + sign);
    }
    let of_mean = square / (n * n);
    let of_one = places.iter().map(|(a, b)| 2.0 - 2.0 * r.powf(count(a.abs_diff(*b)))).sum::<f64>() / n;
    // The variance with n - 1 is, on average, that of one difference without that of their mean.
    let estimated = n / (n - 1.0) * (of_one - of_mean);
    if estimated > 0.0 { n * of_mean / estimated } else { 1.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// For A B B A and r = 1/2 in fractions: the covariance of neighbouring differences is r (1 - r)² of 2 (1 - r).
    #[test]
    fn the_order_says_what_differences_have_in_common() {
        // Two rounds A B, B A: the mean is (-x1 + x2 + x3 - x4) / 2; with r = 1/2 its variance is
        // (4 + 2 (-1/2 + 1/2 - 1/2) + 2 (-1/4 - 1/4) + 2 / 8) / 4 = 9/16, that of one difference is 1.
        let signs = [-1.0, 1.0, 1.0, -1.0];
        let found = larger(0.5, &signs, &[(0, 1), (3, 2)]);
        let wanted = 2.0 * (9.0 / 16.0) / (2.0 * (1.0 - 9.0 / 16.0));
        assert!((found - wanted).abs() < 1e-15, "{found}");
        assert_eq!(larger(0.0, &signs, &[(0, 1), (3, 2)]), 1.0);
    }

    #[test]
    fn values_without_variation_do_not_depend() {
        let found = of_pairs(&[1.0; 4], &[2.0; 4], &[1, 4, 5, 8], &[2, 3, 6, 7]).unwrap();
        assert_eq!((found.r, found.larger), (0.0, 1.0));
        assert_eq!(of_pairs(&[1.0], &[], &[1], &[]), Err(Error::Lengths));
    }
}
