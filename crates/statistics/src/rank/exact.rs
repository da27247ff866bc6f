//! Null distributions of rank sums, counted.

use crate::numeric::count;

/// 2 P(U >= u), at most one, where `u` is not below the middle. None where the counts do not fit.
pub(super) fn mann_whitney(u: f64, na: usize, nb: usize) -> Option<f64> {
    let (small, large) = (na.min(nb), na.max(nb));
    let total = binomial(small + large, small)?;
    let most = small.checked_mul(large)?;
    // The distribution is symmetric: what is above u is what is below this.
    let below = most - (u.ceil() as usize).min(most);
    let tail: u128 = arrangements(small, large, below).iter().sum();
    Some((2.0 * (tail as f64 / total as f64)).min(1.0))
}

/// How many arrangements have each U up to there: the Gaussian binomial coefficient, the product over i of
/// (1 - q^(large + i)) / (1 - q^i). Wrapped arithmetic is exact as long as the result fits.
fn arrangements(small: usize, large: usize, most: usize) -> Vec<u128> {
    let mut ways = vec![0_u128; most + 1];
    ways[0] = 1;
    for i in 1..=small {
        for k in (large + i..=most).rev() {
            ways[k] = ways[k].wrapping_sub(ways[k - large - i]);
        }
        for k in i..=most {
            ways[k] = ways[k].wrapping_add(ways[k - i]);
        }
    }
    ways
}

/// More values than these in one sample take too long to count for each of many comparisons.
const MOST_COUNTED: usize = 200;

/// The largest k with P(U < k) <= tail. None where the counts do not fit.
pub(super) fn mann_whitney_place(tail: f64, na: usize, nb: usize) -> Option<u128> {
    let (small, large) = (na.min(nb), na.max(nb));
    if large > MOST_COUNTED {
        return None;
    }
    let total = binomial(small + large, small)? as f64;
    let ways = arrangements(small, large, small * large / 2);
    Some(places(ways.iter().map(|ways| *ways as f64 / total), tail))
}

/// The largest k with P(W < k) <= tail, of up to 50 ranks without ties.
pub(super) fn signed_rank_place(tail: f64, n: usize) -> u128 {
    let most = n * (n + 1) / 4;
    let mut ways = vec![0_u64; most + 1];
    ways[0] = 1;
    for rank in 1..=n {
        for k in (rank..=most).rev() {
            ways[k] += ways[k - rank];
        }
    }
    let total = 2_f64.powf(count(n));
    places(ways.iter().map(|ways| *ways as f64 / total), tail)
}

fn places(chances: impl Iterator<Item = f64>, tail: f64) -> u128 {
    let mut below = 0.0;
    let up_to = chances.take_while(|chance| {
        below += chance;
        below <= tail
    });
    up_to.count() as u128
}

fn binomial(n: usize, k: usize) -> Option<u128> {
    (1..=k).try_fold(1_u128, |ways, i| Some(ways.checked_mul((n - k + i) as u128)? / i as u128))
}

/// 2 P(W <= w), at most one, over all signs of `ranks`, where `w` is not above the middle. There are at most 50
/// ranks, each a multiple of a half.
pub(super) fn signed_rank(w: f64, ranks: &[f64]) -> f64 {
    let most = (2.0 * w).round() as usize;
    let mut ways = vec![0_u64; most + 1];
    ways[0] = 1;
    for rank in ranks {
        let step = (2.0 * rank).round() as usize;
        for k in (step..=most).rev() {
            ways[k] += ways[k - step];
        }
    }
    let tail: u64 = ways.iter().sum();
    (2.0 * tail as f64 / 2_f64.powf(count(ranks.len()))).min(1.0)
}
