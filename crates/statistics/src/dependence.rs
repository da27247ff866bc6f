//! What pairs of runs that follow one another have in common, and how much less their mean is known for it.

use crate::{
    Error,
    numeric::{Mean, check, count},
    series::{Lag1, lag1},
    special::normal_sf,
};
use serde::Serialize;

/// No autocorrelation is taken to be larger: what is left of a mean's precision would be a division by nothing.
const LARGEST: f64 = 0.9;
/// The runs of the environments depend on each other where chance makes as much in less than this part of all samples of [`ENOUGH`]
/// pairs, and in proportion less of fewer. It is a choice by simulation: a larger part costs more than 5 points of power, a smaller one
/// takes more than 5 % of studies without an effect for different. What few pairs depend on is hardly seen, whatever power it costs.
const CHANCE: f64 = 0.1;
const ENOUGH: f64 = 30.0;
/// Fewer pairs show no autocorrelation of an environment.
const FEWEST: usize = 5;
/// Standard errors above the estimate: an estimate alone is too small in half of all samples.
const ABOVE: f64 = 0.5;

/// Autocorrelation that a test of pairs allows for.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Dependence {
    pub of: Of,
    /// At lag 1, corrected for its bias: of all runs without its noise, otherwise with half a standard error more; 0 where it is not
    /// positive. Of the environments it is the larger one.
    pub r: f64,
    /// How many times as large it makes the variance of the mean difference; 1 where it makes it smaller.
    pub larger: f64,
    /// Degrees of freedom that the differences have with it.
    pub df: f64,
}

/// What the autocorrelation is that of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Of {
    /// Of all runs in their order, each without its environment's mean.
    Runs,
    /// Of each environment's own runs, without what they share with those of the other.
    Environments,
    /// Of the pairs' differences.
    Differences,
}

impl Dependence {
    /// Of so many pairs that have nothing in common.
    pub fn none(pairs: usize) -> Self {
        Self { of: Of::Runs, r: 0.0, larger: 1.0, df: count(pairs) - 1.0 }
    }

    /// [`Error::Parameter`] where a factor or degrees of freedom are none.
    pub(crate) fn checked(&self) -> Result<Self, Error> {
        let Self { larger, df, .. } = *self;
        let fine = larger > 0.0 && larger.is_finite() && df > 0.0 && df.is_finite();
        if fine { Ok(*self) } else { Err(Error::Parameter) }
    }
}

/// The dependence of the pairs `b[i] - a[i]`, in the order of running, of runs whose places in that order are `at_a` and `at_b`.
///
/// If each run has the part r of the deviation of the run before (an autoregression of order 1), then the order says what the
/// differences have in common: of A B B A little, r (1 - r) / 2 at lag 1. All runs say what r is, which the half as many differences
/// cannot; what chance makes is taken from it. The variance of the mean difference is w'Rw, R[i, j] = r^|i - j| over the runs in their order; the test takes it to be
/// that of the differences over n.
///
/// Where an environment changes slowly in its own way, the differences depend on each other more than that. What both share is taken
/// out first (the regression of one on the other, shrunk by its noise): it cancels in the differences. The positive z of both
/// autocorrelations at lag 1 say whether there is more than chance (their squares are chi-bar-squared). If so, the variance of the mean
/// is the sum of both environments', each that of an autoregression of n values, or that by the autocorrelation of the differences if
/// it is larger; and the differences have the degrees of freedom of n / `larger` values.
///
/// Needs a pair ([`Error::TooFew`]) and equal lengths ([`Error::Lengths`]). Without variation r is 0.
pub fn of_pairs(a: &[f64], b: &[f64], at_a: &[u32], at_b: &[u32]) -> Result<Dependence, Error> {
    if a.len() != b.len() || a.len() != at_a.len() || a.len() != at_b.len() {
        return Err(Error::Lengths);
    }
    check(a, 1)?;
    check(b, 1)?;
    let (mean_a, mean_b) = (Mean::of(a), Mean::of(b));
    let left_a: Vec<f64> = a.iter().map(|value| mean_a.residual(*value)).collect();
    let left_b: Vec<f64> = b.iter().map(|value| mean_b.residual(*value)).collect();
    let of_runs = of_runs((&left_a, at_a), (&left_b, at_b));
    let differences: Vec<f64> = a.iter().zip(b).map(|(a, b)| b - a).collect();
    Ok(match of_environments(&left_a, &left_b, &differences) {
        Some((of, r, larger)) => {
            let found =
                if larger > of_runs.larger { Dependence { of, r, larger, ..of_runs } } else { of_runs };
            Dependence { df: (count(a.len()) / found.larger - 1.0).max(1.0), ..found }
        }
        None => of_runs,
    })
}

/// By the order of all runs; `left` is what a run has besides its environment's mean.
fn of_runs((left_a, at_a): (&[f64], &[u32]), (left_b, at_b): (&[f64], &[u32])) -> Dependence {
    let side = |left: &[f64], at: &[u32], sign: f64| -> Vec<(u32, f64, f64)> {
        at.iter().zip(left).map(|(at, left)| (*at, *left, sign)).collect()
    };
    let mut runs = side(left_a, at_a, -1.0);
    runs.extend(side(left_b, at_b, 1.0));
    runs.sort_by_key(|(at, ..)| *at);
    let left: Vec<f64> = runs.iter().map(|(_, left, _)| *left).collect();
    let n = count(left.len());
    let r = lag1(&left).map_or(0.0, |found| above_noise(found.r + 1.0 / n, n).min(LARGEST));
    let mut places = vec![(0, 0); left_a.len()];
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
    Dependence { r, larger: larger(r, &signs, &places).max(1.0), ..Dependence::none(left_a.len()) }
}

/// By each environment's own runs, where they depend on each other more than chance makes: what of, r, and how many times as large
/// it makes the variance.
fn of_environments(a: &[f64], b: &[f64], differences: &[f64]) -> Option<(Of, f64, f64)> {
    let n = a.len();
    let largest = a.iter().chain(b).fold(0.0_f64, |largest, left| largest.max(left.abs()));
    if n < FEWEST || largest == 0.0 {
        return None;
    }
    // Squares of the values as they are could leave the range of f64.
    let scaled = |left: &[f64]| left.iter().map(|left| left / largest).collect::<Vec<f64>>();
    let (own_a, own_b) = without_shared(&scaled(a), &scaled(b));
    let found = [lag1(&own_a).ok(), lag1(&own_b).ok()];
    let positive = found.iter().flatten().map(|found| found.z.max(0.0).powi(2)).sum::<f64>();
    // Two independent normal z, of which only the positive count: one is positive in half of the samples, both in a quarter.
    let p = normal_sf(positive.sqrt()) + 0.25 * (-positive / 2.0).exp();
    if positive == 0.0 || p >= CHANCE * (count(n) / ENOUGH).min(1.0) {
        return None;
    }
    let [r_a, r_b] = found.each_ref().map(|found| found.as_ref().map_or(0.0, |found| at_most(found, n)));
    let [of_a, of_b] = [&own_a, &own_b].map(|own| own.iter().map(|left| left * left).sum::<f64>());
    let environments = (of_a * autoregression(r_a, n) + of_b * autoregression(r_b, n)) / (of_a + of_b);
    let r = lag1(differences).map_or(0.0, |found| at_most(&found, n));
    let of_differences = autoregression(r, n);
    Some(match of_differences > environments {
        true => (Of::Differences, r, of_differences),
        false => (Of::Environments, r_a.max(r_b), environments),
    })
}

/// The part of a positive correlation that is above its noise: of n independent values the square is 1/n on average.
fn above_noise(r: f64, n: f64) -> f64 {
    if r > 0.0 { r * (1.0 - (1.0 - r * r) / (n * r * r)).max(0.0) } else { 0.0 }
}

/// What `a` and `b` have without each other, pair by pair: without their regression, to the part that is above its noise.
fn without_shared(a: &[f64], b: &[f64]) -> (Vec<f64>, Vec<f64>) {
    let products = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(x, y)| x * y).sum::<f64>();
    let (aa, bb, ab) = (products(a, a), products(b, b), products(a, b));
    let both = (aa * bb).sqrt();
    let part = if both > 0.0 { above_noise(ab / both, count(a.len())) * both } else { 0.0 };
    let less = |x: &[f64], y: &[f64], square: f64| {
        x.iter().zip(y).map(|(x, y)| if part > 0.0 { x - part / square * y } else { *x }).collect()
    };
    (less(a, b, bb), less(b, a, aa))
}

/// An autocorrelation without its bias of -(1 + 4r)/n (Marriott & Pope 1954; Kendall 1954), and somewhat more, as it may be.
fn at_most(found: &Lag1, n: usize) -> f64 {
    let n = count(n);
    let error = ((1.0 - found.r * found.r).max(0.0) / n).sqrt();
    ((found.r + 1.0 / n) / (1.0 - 4.0 / n) + ABOVE * error).clamp(0.0, LARGEST)
}

/// The variance of the mean of n values over that which their own variance suggests, for an autoregression.
fn autoregression(r: f64, n: usize) -> f64 {
    let length = count(n);
    let (mut power, mut of_mean) = (1.0, 1.0);
    for lag in 1..n {
        power *= r;
        of_mean += 2.0 * (1.0 - count(lag) / length) * power;
    }
    of_mean * (length - 1.0) / (length - of_mean)
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

    /// Of three values with r = 1/2 the mean's variance is (3 + 2 (1/2 + 1/2 + 1/4)) / 9 = 11/18; that of the values, less it, is 7/18
    /// with n, 7/12 with n - 1.
    #[test]
    fn an_autoregression_says_how_well_its_mean_is_known() {
        let wanted = (11.0 / 18.0) / (7.0 / 12.0 / 3.0);
        assert!((autoregression(0.5, 3) - wanted).abs() < 1e-15);
        assert!((autoregression(0.0, 30) - 1.0).abs() < 1e-15);
        // (1 + r) / (1 - r) of many.
        assert!((autoregression(0.5, 100_000) - 3.0).abs() < 1e-3);
    }

    /// B's own runs go up and down in waves of ten; A's have no order.
    #[test]
    fn what_one_environment_alone_depends_on_is_allowed_for_and_what_both_share_is_not() {
        let waves = |i: u32| f64::from(i % 10).mul_add(-1.0, 4.5).abs();
        let no_order = |i: u32| f64::from(i * 17 % 31) / 10.0;
        let at = |in_b: u32| (0..30).map(|i| 2 * i + (i + in_b) % 2).collect::<Vec<u32>>();
        let side = |value: &dyn Fn(u32) -> f64| (0..30).map(value).collect::<Vec<f64>>();
        let found = |a: Vec<f64>, b: Vec<f64>| of_pairs(&a, &b, &at(0), &at(1)).unwrap();
        let alone = found(side(&no_order), side(&waves));
        assert!(alone.of != Of::Runs && alone.larger > 2.0 && alone.df < 14.0, "{alone:?}");
        let noise = |i: u32| f64::from(i * 11 % 29) / 100.0;
        let both = found(
            side(&|i| 9.0 * waves(i) + no_order(i)),
            side(&|i| 9.0 * waves(i) + noise(i) + no_order(i + 7)),
        );
        assert_eq!((both.of, both.df), (Of::Runs, 29.0), "{both:?}");
        // Squares of these are not in the range of f64.
        for scale in [1e200, 1e-200] {
            let scaled = |value: &dyn Fn(u32) -> f64| side(&|i| scale * value(i));
            let same = found(scaled(&no_order), scaled(&waves));
            assert!(same.of == alone.of && (same.larger / alone.larger - 1.0).abs() < 1e-9, "{same:?}");
        }
    }

    #[test]
    fn values_without_variation_do_not_depend() {
        let found = of_pairs(&[1.0; 4], &[2.0; 4], &[1, 4, 5, 8], &[2, 3, 6, 7]).unwrap();
        assert_eq!(found, Dependence::none(4));
        assert_eq!(of_pairs(&[1.0], &[], &[1], &[]), Err(Error::Lengths));
    }
}
