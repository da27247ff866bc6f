//! Whether values that follow one another drift, or depend on the one before.

use crate::{
    Error,
    numeric::{Moments, check, count, finite, is_constant, median_of_sorted, midpoint, sorted, sum},
    special::normal_two_sided,
};
use serde::Serialize;

/// Above this many values, all slopes between two of them take too much memory.
const MOST_SLOPES_OF: usize = 5000;

/// The autocorrelation at lag one.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Lag1 {
    /// `r1 = Σ (x[t] - m)(x[t+1] - m) / Σ (x[t] - m)²`, m the mean.
    pub r: f64,
    /// (r1 - mean) / sd under independence.
    pub z: f64,
    /// Two-sided, with z taken as normal: an approximation, rough below some 10 values.
    pub p: f64,
}

/// The first autocorrelation (Box & Jenkins 1976) of three values or more ([`Error::TooFew`]) that vary
/// ([`Error::Constant`]).
///
/// For independent normal values, r1 has the mean -1/n and the variance (n - 2)² / (n² (n - 1)) (Dufour & Roy 1985).
pub fn lag1(x: &[f64]) -> Result<Lag1, Error> {
    let Moments { n, mean, squares } = Moments::of(x, 3)?;
    if squares == 0.0 {
        return Err(Error::Constant);
    }
    let products = sum(x.windows(2).map(|pair| mean.residual(pair[0]) * mean.residual(pair[1])));
    let r = finite(products / squares)?;
    let z = (r + 1.0 / n) / ((n - 2.0) / (n * (n - 1.0).sqrt()));
    Ok(Lag1 { r, z, p: normal_two_sided(z) })
}

/// The test of Mann and Kendall.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MannKendall {
    /// How many pairs rise, less how many fall.
    pub s: i64,
    /// Kendall's tau-b of the values and their order.
    pub tau: f64,
    /// The variance of `s` without a trend, ties corrected for.
    pub variance: f64,
    /// (s - sign of s) / √variance, zero where s is.
    pub z: f64,
    /// Two-sided, with z taken as normal.
    pub p: f64,
}

/// Tests for a monotonic trend (Mann 1945; Kendall 1975) in three values or more ([`Error::TooFew`]) that vary
/// ([`Error::Constant`]).
///
/// var s = (n (n - 1)(2n + 5) - Σ t (t - 1)(2t + 5)) / 18 over the sets of t equal values;
/// tau-b = s / √(m (m - Σ t (t - 1) / 2)), m = n (n - 1) / 2.
pub fn mann_kendall(x: &[f64]) -> Result<MannKendall, Error> {
    check(x, 3)?;
    if is_constant(x) {
        return Err(Error::Constant);
    }
    let values = sorted(x);
    let n = count(x.len());
    let term = |t: f64| t * (t - 1.0) * (2.0 * t + 5.0);
    let (mut tied_terms, mut tied_pairs) = (0.0, 0.0);
    for equal in values.chunk_by(|a, b| a == b) {
        let t = count(equal.len());
        tied_terms += term(t);
        tied_pairs += t * (t - 1.0) / 2.0;
    }
    let s = rises(x, &values);
    let pairs = n * (n - 1.0) / 2.0;
    let tau = s as f64 / (pairs.sqrt() * (pairs - tied_pairs).sqrt());
    let variance = (term(n) - tied_terms) / 18.0;
    let z = (s - s.signum()) as f64 / variance.sqrt();
    Ok(MannKendall { s, tau: tau.clamp(-1.0, 1.0), variance, z, p: normal_two_sided(z) })
}

/// Pairs that rise less pairs that fall, by counts of what came before each value (Fenwick 1994).
fn rises(x: &[f64], sorted: &[f64]) -> i64 {
    let mut tree = vec![0_i64; sorted.len() + 1];
    let before = |tree: &[i64], mut place: usize| {
        let mut sum = 0;
        while place > 0 {
            sum += tree[place];
            place &= place - 1;
        }
        sum
    };
    let (mut s, mut seen) = (0, 0);
    for x in x {
        let below = sorted.partition_point(|y| y < x);
        let up_to = sorted.partition_point(|y| y <= x);
        s += before(&tree, below) - (seen - before(&tree, up_to));
        let mut place = up_to;
        while place <= sorted.len() {
            tree[place] += 1;
            place += place & place.wrapping_neg();
        }
        seen += 1;
    }
    s
}

/// How often a sequence of two kinds changes from one to the other.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Runs {
    /// Stretches of one kind.
    pub runs: usize,
    /// As many as on average in a random order.
    pub expected: f64,
    /// Probability of so few or fewer in a random order.
    pub p_few: f64,
}

/// The runs test (Wald & Wolfowitz 1940), exact. Both kinds must be there ([`Error::TooFew`]).
pub fn runs(kinds: &[bool]) -> Result<Runs, Error> {
    let of_b = kinds.iter().filter(|kind| **kind).count();
    let of_a = kinds.len() - of_b;
    if of_a == 0 || of_b == 0 {
        return Err(Error::TooFew);
    }
    let runs = 1 + kinds.windows(2).filter(|pair| pair[0] != pair[1]).count();
    // ln of factorials.
    let mut factorials = vec![0.0; kinds.len() + 1];
    for n in 1..=kinds.len() {
        factorials[n] = factorials[n - 1] + count(n).ln();
    }
    let choose = |n: usize, k: usize| {
        if k > n { f64::NEG_INFINITY } else { factorials[n] - factorials[k] - factorials[n - k] }
    };
    let all = choose(kinds.len(), of_a);
    let of = |runs: usize| {
        // Stretches of A and of B: as many, or one more of either.
        let parts = |a: usize, b: usize| match (a, b) {
            (0, _) | (_, 0) => 0.0,
            _ => (choose(of_a - 1, a - 1) + choose(of_b - 1, b - 1) - all).exp(),
        };
        let half = runs / 2;
        if runs.is_multiple_of(2) {
            2.0 * parts(half, half)
        } else {
            parts(half, half + 1) + parts(half + 1, half)
        }
    };
    let p_few = sum((2..=runs).map(of)).min(1.0);
    let (a, b) = (count(of_a), count(of_b));
    Ok(Runs { runs, expected: 1.0 + 2.0 * a * b / (a + b), p_few })
}

/// A line through values at 0, 1, 2, ...
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TheilSen {
    /// The median of the slopes between any two values, per step.
    pub slope: f64,
    /// The median of the values less the slope times the median of their places.
    pub intercept: f64,
}

/// The estimate of Theil (1950) and Sen (1968) for values one step apart. Takes time and memory in the order of n²:
/// [`Error::TooMany`] above 5000 values, [`Error::TooFew`] below two.
pub fn theil_sen(x: &[f64]) -> Result<TheilSen, Error> {
    check(x, 2)?;
    if x.len() > MOST_SLOPES_OF {
        return Err(Error::TooMany);
    }
    let mut slopes = Vec::with_capacity(x.len() * (x.len() - 1) / 2);
    for (i, from) in x.iter().enumerate() {
        slopes.extend(x[i + 1..].iter().enumerate().map(|(k, to)| (to - from) / count(k + 1)));
    }
    let middle = slopes.len() / 2;
    let even = slopes.len() % 2 == 0;
    let (below, high, _) = slopes.select_nth_unstable_by(middle, f64::total_cmp);
    let high = *high;
    let low = if even { below.iter().copied().fold(f64::NEG_INFINITY, f64::max) } else { high };
    let slope = finite(midpoint(low, high))?;
    let place = count(x.len() - 1) / 2.0;
    let intercept = finite(slope.mul_add(-place, median_of_sorted(&sorted(x))))?;
    Ok(TheilSen { slope, intercept })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against all sequences of that many of each kind, counted.
    #[test]
    fn the_runs_test_is_exact() {
        for (length, of_b) in [(2, 1), (5, 2), (8, 4), (9, 1), (10, 5)] {
            let all = (0_u32..1 << length).filter(|bits| bits.count_ones() == of_b);
            let kinds = |bits: u32| (0..length).map(|place| bits >> place & 1 == 1).collect::<Vec<bool>>();
            let counted = |bits: u32| 1 + kinds(bits).windows(2).filter(|pair| pair[0] != pair[1]).count();
            let total = all.clone().count() as f64;
            let mean = all.clone().map(|bits| counted(bits) as f64).sum::<f64>() / total;
            for bits in all.clone() {
                let found = runs(&kinds(bits)).unwrap();
                let few = all.clone().filter(|other| counted(*other) <= found.runs).count() as f64 / total;
                assert_eq!(found.runs, counted(bits));
                assert!(
                    (found.p_few - few).abs() < 1e-12 && (found.expected - mean).abs() < 1e-12,
                    "{found:?}"
                );
            }
        }
        assert_eq!(runs(&[true, true]).unwrap_err(), Error::TooFew);
        // A B B A A B: as many as in a random order.
        let abba: Vec<bool> = (0..60).map(|place| (place + 1) / 2 % 2 == 1).collect();
        let found = runs(&abba).unwrap();
        assert_eq!((found.runs as f64, found.expected), (31.0, 31.0));
    }
}
