//! Tests by ranks, with the shift that goes with them (Hodges & Lehmann 1963).

mod exact;
mod shift;

use crate::{
    Error,
    numeric::{check, check_fraction, count, finite, is_constant},
    special::{normal_quantile, normal_two_sided},
};
use serde::Serialize;
use shift::Pairs;

/// Above this many values in the smaller sample, U is taken as normal: the rule of scipy.stats.mannwhitneyu.
const EXACT_UP_TO: usize = 8;
/// Above this many differences, the signed-rank sum is taken as normal: the rule of scipy.stats.wilcoxon.
const SIGNED_EXACT_UP_TO: usize = 50;
/// The same where there are ties or zeros.
const TIED_EXACT_UP_TO: usize = 13;

/// The test of Mann and Whitney.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MannWhitney {
    /// U of A: how many of all pairs have the larger value in A, ties counted half.
    pub u: f64,
    /// Two-sided.
    pub p: f64,
    /// Whether `p` is exact; otherwise it is from the normal approximation.
    pub exact: bool,
    /// The median of all differences `b[j] - a[i]`.
    pub shift: f64,
}

/// Tests whether values of one sample tend to be larger than those of the other (Mann & Whitney 1947).
///
/// p is exact where there are no ties and the smaller sample has at most 8 values (and the counts fit 128 bits, as
/// they do below 100000 values in the larger one); otherwise it is from the normal approximation with corrections for
/// ties and continuity. An empty sample gives [`Error::TooFew`], values that are all one give [`Error::Constant`].
pub fn mann_whitney(a: &[f64], b: &[f64]) -> Result<MannWhitney, Error> {
    check(a, 1)?;
    check(b, 1)?;
    let all: Vec<f64> = a.iter().chain(b).copied().collect();
    if is_constant(&all) {
        return Err(Error::Constant);
    }
    let Ranks { ranks, ties } = rank(&all);
    let (na, nb) = (count(a.len()), count(b.len()));
    let u = ranks[..a.len()].iter().sum::<f64>() - na * (na + 1.0) / 2.0;
    let larger = u.max(na * nb - u);
    let few = a.len().min(b.len()) <= EXACT_UP_TO && ties == 0.0;
    let exact = if few { exact::mann_whitney(larger, a.len(), b.len()) } else { None };
    let p = exact.unwrap_or_else(|| {
        let n = na + nb;
        let variance = na * nb / 12.0 * ((n + 1.0) - ties / (n * (n - 1.0)));
        let z = (larger - na * nb / 2.0 - 0.5) / variance.sqrt();
        // Half below the middle is the whole: there is no evidence to either side.
        if z <= 0.0 { 1.0 } else { normal_two_sided(z) }
    });
    Ok(MannWhitney { u, p, exact: exact.is_some(), shift: Pairs::between(a, b).median()? })
}

/// Wilcoxon's signed-rank test.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Wilcoxon {
    /// The smaller of the two rank sums.
    pub statistic: f64,
    /// The ranks of the positive differences, summed.
    pub positive: f64,
    /// The ranks of the negative differences, summed.
    pub negative: f64,
    /// How many differences are not zero: these alone are ranked.
    pub n: usize,
    /// Two-sided.
    pub p: f64,
    /// Whether `p` is exact; otherwise it is from the normal approximation.
    pub exact: bool,
    /// The median of the means of all pairs of differences, each with itself too, zeros included.
    pub shift: f64,
}

/// Tests whether differences are symmetric about zero (Wilcoxon 1945). Zeros are left out.
///
/// p is exact up to 50 differences without ties and zeros, and up to 13 with them (then over all signs of the ranks
/// at hand); otherwise it is from the normal approximation with the correction for ties and none for continuity.
/// No differences give [`Error::TooFew`], differences that are all zero give [`Error::Constant`].
pub fn wilcoxon(differences: &[f64]) -> Result<Wilcoxon, Error> {
    check(differences, 1)?;
    let nonzero: Vec<f64> = differences.iter().copied().filter(|d| *d != 0.0).collect();
    if nonzero.is_empty() {
        return Err(Error::Constant);
    }
    let Ranks { ranks, ties } = rank(&nonzero.iter().map(|d| d.abs()).collect::<Vec<_>>());
    let n = count(nonzero.len());
    let positive: f64 = nonzero.iter().zip(&ranks).filter(|(d, _)| **d > 0.0).map(|(_, rank)| rank).sum();
    let negative = n * (n + 1.0) / 2.0 - positive;
    let statistic = positive.min(negative);
    let plain = ties == 0.0 && nonzero.len() == differences.len();
    let exact = differences.len() <= if plain { SIGNED_EXACT_UP_TO } else { TIED_EXACT_UP_TO };
    let p = if exact {
        exact::signed_rank(statistic, &ranks)
    } else {
        let variance = (n * (n + 1.0) * (2.0 * n + 1.0) - ties / 2.0) / 24.0;
        normal_two_sided((positive - n * (n + 1.0) / 4.0) / variance.sqrt())
    };
    let shift = Pairs::within(differences).median()?;
    Ok(Wilcoxon { statistic, positive, negative, n: nonzero.len(), p, exact, shift })
}

/// A shift of Hodges and Lehmann with its interval: a single wild value moves neither far.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Shift {
    pub estimate: f64,
    /// From the test by ranks: the shifts that it does not reject.
    pub ci: (f64, f64),
    pub level: f64,
}

/// The shift of pairs: the median of the means of all pairs of differences, and the k-th of these means from either end
/// (Hollander & Wolfe 1999, 3.3), k by the exact distribution of the signed-rank sum up to 50 differences (without regard to
/// ties) and by the normal one above.
///
/// [`Error::TooFew`] where so few differences have no interval of this level.
pub fn shift_of_pairs(differences: &[f64], level: f64) -> Result<Shift, Error> {
    check(differences, 1)?;
    let n = count(differences.len());
    let k = place(level, |tail| match differences.len() <= SIGNED_EXACT_UP_TO {
        true => Some(exact::signed_rank_place(tail, differences.len())),
        false => normal_place(tail, n * (n + 1.0) / 4.0, n * (n + 1.0) * (2.0 * n + 1.0) / 24.0),
    })?;
    shift(&Pairs::within(differences), k, level)
}

/// The shift of two samples: the median of all differences `b[j] - a[i]`, and the k-th of them from either end (Hollander &
/// Wolfe 1999, 4.3), k by the exact distribution of U (without regard to ties) where it can be counted and by the normal one
/// otherwise.
///
/// [`Error::TooFew`] where so few values have no interval of this level.
pub fn shift_of_samples(a: &[f64], b: &[f64], level: f64) -> Result<Shift, Error> {
    check(a, 1)?;
    check(b, 1)?;
    let (na, nb) = (count(a.len()), count(b.len()));
    let k = place(level, |tail| {
        exact::mann_whitney_place(tail, a.len(), b.len())
            .or_else(|| normal_place(tail, na * nb / 2.0, na * nb * (na + nb + 1.0) / 12.0))
    })?;
    shift(&Pairs::between(a, b), k, level)
}

fn place(level: f64, of: impl Fn(f64) -> Option<u128>) -> Result<u128, Error> {
    check_fraction(level)?;
    of((1.0 - level) / 2.0).filter(|k| *k > 0).ok_or(Error::TooFew)
}

/// The largest k with P(sum < k) <= tail, corrected for continuity.
fn normal_place(tail: f64, mean: f64, variance: f64) -> Option<u128> {
    let k = (mean + 0.5 + normal_quantile(tail) * variance.sqrt()).floor();
    (k >= 1.0).then_some(k as u128)
}

fn shift(pairs: &Pairs, k: u128, level: f64) -> Result<Shift, Error> {
    let ci = (finite(pairs.at(k))?, finite(pairs.at(pairs.count + 1 - k))?);
    Ok(Shift { estimate: pairs.median()?, ci, level })
}

struct Ranks {
    /// Of each value, from one: equal values share the mean of theirs.
    ranks: Vec<f64>,
    /// The sum of t³ - t over the sets of t equal values.
    ties: f64,
}

fn rank(values: &[f64]) -> Ranks {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|i, j| values[*i].total_cmp(&values[*j]));
    let mut ranks = vec![0.0; values.len()];
    let (mut ties, mut before) = (0.0, 0);
    for equal in order.chunk_by(|i, j| values[*i] == values[*j]) {
        let t = count(equal.len());
        equal.iter().for_each(|i| ranks[*i] = count(before) + (t + 1.0) / 2.0);
        ties += t * t * t - t;
        before += equal.len();
    }
    Ranks { ranks, ties }
}
