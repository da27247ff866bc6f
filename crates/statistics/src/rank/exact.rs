//! Null distributions of rank sums, counted.

use crate::numeric::count;

/// 2 P(U >= u), at most one, where `u` is not below the middle. None where the counts do not fit.
pub(super) fn mann_whitney(u: f64, na: usize, nb: usize) -> Option<f64> {
    let (small, large) = (na.min(nb), na.max(nb));
    let total = binomial(small + large, small)?;
    let most = small.checked_mul(large)?;
    // The distribution is symmetric: what is above u is what is below this.
    let below = most - (u.ceil() as usize).min(most);
    // How many arrangements have each U up to there: the Gaussian binomial coefficient, the product over i of
    // (1 - q^(large + i)) / (1 - q^i). Wrapped arithmetic is exact as long as the result fits.
    let mut ways = vec![0_u128; below + 1];
    ways[0] = 1;
    for i in 1..=small {
        for k in (large + i..=below).rev() {
            ways[k] = ways[k].wrapping_sub(ways[k - large - i]);
        }
        for k in i..=below {
            ways[k] = ways[k].wrapping_add(ways[k - i]);
        }
    }
    let tail: u128 = ways.iter().sum();
    Some((2.0 * (tail as f64 / total as f64)).min(1.0))
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
