//! Exact p of counts: of failures in two groups, and of groups whose values do not vary.

use crate::{Error, numeric::count};

/// More cases than this take too long to sum.
const MOST_CASES: usize = 1 << 22;
/// Probabilities of tables that are as rare as the one at hand differ by how they were rounded.
const ROUNDING: f64 = 1e-9;

/// Fisher's exact test (Fisher 1934) that `hits_a` of `n_a` and `hits_b` of `n_b` are of one rate: two-sided, the
/// probability of all tables with these margins that are no likelier than this one.
///
/// [`Error::TooFew`] for an empty group, [`Error::Parameter`] for more hits than cases, [`Error::TooMany`] above 2^22.
pub fn fisher(hits_a: usize, n_a: usize, hits_b: usize, n_b: usize) -> Result<f64, Error> {
    if n_a == 0 || n_b == 0 {
        return Err(Error::TooFew);
    }
    if hits_a > n_a || hits_b > n_b {
        return Err(Error::Parameter);
    }
    if n_a.max(n_b) > MOST_CASES {
        return Err(Error::TooMany);
    }
    let hits = hits_a + hits_b;
    let (least, most) = (hits.saturating_sub(n_b), hits.min(n_a));
    // Each table relative to the likeliest: products of neighbours' quotients neither overflow nor lose the tails.
    let quotient = |k: usize| {
        count(n_a - k) * count(hits - k) / (count(k + 1) * count((n_b + k + 1).saturating_sub(hits)))
    };
    let mode = (count(n_a + 1) * count(hits + 1) / count(n_a + n_b + 2)).floor() as usize;
    let mode = mode.clamp(least, most);
    let mut weights = vec![0.0; most - least + 1];
    weights[mode - least] = 1.0;
    for k in mode..most {
        weights[k + 1 - least] = weights[k - least] * quotient(k);
    }
    for k in (least..mode).rev() {
        weights[k - least] = weights[k + 1 - least] / quotient(k);
    }
    let observed = weights[hits_a - least] * (1.0 + ROUNDING);
    let all: f64 = crate::numeric::sum(weights.iter().copied());
    let rare: f64 = crate::numeric::sum(weights.iter().copied().filter(|weight| *weight <= observed));
    Ok((rare / all).min(1.0))
}

/// The two-sided p of `n` pairs that all have the same difference: of all ways to sign them, the two in which all signs
/// are the same (Fisher 1935). [`Error::TooFew`] for none.
pub fn equal_pairs(n: usize) -> Result<f64, Error> {
    if n == 0 {
        return Err(Error::TooFew);
    }
    Ok((1.0 - count(n)).exp2())
}

/// The two-sided p of two groups whose values do not vary within them and differ between them: of all ways to split the values
/// into groups of these sizes, those that split them like this (or, of groups of one size, the other way round).
/// [`Error::TooFew`] for an empty group.
pub fn equal_groups(n_a: usize, n_b: usize) -> Result<f64, Error> {
    if n_a == 0 || n_b == 0 {
        return Err(Error::TooFew);
    }
    let ways = (1..=n_a.min(n_b)).fold(1.0, |ways, k| ways * count(n_a.max(n_b) + k) / count(k));
    Ok((if n_a == n_b { 2.0 } else { 1.0 } / ways).min(1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `scipy.stats.fisher_exact([[hits_a, n_a - hits_a], [hits_b, n_b - hits_b]]).pvalue` of scipy 1.17.1.
    const FISHER: &[(usize, usize, usize, usize, f64)] = &[
        (0, 30, 15, 30, 5.832133695832843e-06),
        (1, 30, 0, 30, 1.0),
        (0, 30, 0, 30, 1.0),
        (30, 30, 0, 30, 1.6911233892144735e-17),
        (3, 10, 4, 7, 0.349958864664747),
        (2, 5, 1, 5, 1.0),
        (5, 8, 2, 9, 0.15343480049362404),
        (1, 1, 0, 1, 1.0),
        (1, 2, 1, 2, 1.0),
        (19, 30, 30, 30, 0.0003188052525640555),
        (0, 3, 3, 3, 0.10000000000000002),
        (0, 10, 6, 10, 0.010835913312693497),
        (120, 1000, 80, 990, 0.0036485994435567545),
        (17, 200, 31, 190, 0.020923057501206883),
        (400, 1000, 800, 1000, 1.1632059119805285e-76),
        (7, 30, 5, 29, 0.7480497930241056),
        (14, 30, 1, 28, 0.00018377848566527812),
    ];

    #[test]
    fn fisher_is_that_of_scipy() {
        for &(hits_a, n_a, hits_b, n_b, wanted) in FISHER {
            let found = fisher(hits_a, n_a, hits_b, n_b).unwrap();
            assert!((found - wanted).abs() <= 1e-9 * wanted, "{hits_a}/{n_a} {hits_b}/{n_b}: {found:e}");
        }
        assert_eq!(fisher(0, 0, 1, 2), Err(Error::TooFew));
        assert_eq!(fisher(3, 2, 1, 2), Err(Error::Parameter));
        assert_eq!(fisher(1, MOST_CASES + 1, 1, 2), Err(Error::TooMany));
    }

    /// Counted by hand: C(6, 3) = 20 and C(5, 2) = 10 ways to split, 2^5 ways to sign.
    #[test]
    fn values_without_spread_have_as_many_orders_as_can_be_counted() {
        let near = |found: Result<f64, Error>, wanted: f64| (found.unwrap() - wanted).abs() < 1e-15;
        assert!(
            near(equal_groups(3, 3), 0.1) && near(equal_groups(3, 2), 0.1) && near(equal_groups(1, 1), 1.0)
        );
        assert!(near(equal_pairs(5), 2.0 / 32.0) && near(equal_pairs(1), 1.0));
        assert_eq!((equal_pairs(0), equal_groups(0, 3)), (Err(Error::TooFew), Err(Error::TooFew)));
    }
}
