//! Whether groups vary by the same amount.

use crate::{
    Error,
    numeric::{Moments, check, count, finite, from_median, sum},
    special::f_sf,
};
use serde::Serialize;

/// The test of Brown and Forsythe.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BrownForsythe {
    /// F: the variation of the groups' mean distances over that within groups.
    pub statistic: f64,
    /// Degrees of freedom of the numerator, k - 1.
    pub df1: f64,
    /// Degrees of freedom of the denominator, n - k.
    pub df2: f64,
    /// One-sided, as F is.
    pub p: f64,
}

/// Levene's test of equal variances with medians (Levene 1960; Brown & Forsythe 1974): a one-way analysis of
/// variance of the distances |x - median of its group|.
///
/// Needs two groups of two values ([`Error::TooFew`]). [`Error::Constant`] where no group has distances that differ,
/// as when all groups have two values.
pub fn brown_forsythe(groups: &[&[f64]]) -> Result<BrownForsythe, Error> {
    if groups.len() < 2 {
        return Err(Error::TooFew);
    }
    let mut distances = vec![];
    let mut largest = 0.0_f64;
    for group in groups {
        check(group, 2)?;
        let group: Vec<f64> = from_median(group).iter().map(|x| x.abs()).collect();
        largest = group.iter().fold(largest, |largest, x| largest.max(*x));
        distances.push(group);
    }
    let all = Moments::of(&distances.concat(), 2)?;
    let groups = distances.iter().map(|group| Moments::of(group, 2)).collect::<Result<Vec<_>, _>>()?;
    let within = sum(groups.iter().map(|group| group.squares));
    // Distances are rounded: those that differ by no more than that are equal.
    if within.sqrt() <= all.n.sqrt() * 2.0 * f64::EPSILON * largest {
        return Err(Error::Constant);
    }
    let between = sum(groups.iter().map(|group| group.n * group.mean.minus(all.mean).powi(2)));
    let df1 = count(groups.len()) - 1.0;
    let df2 = all.n - count(groups.len());
    let statistic = finite(between / within * (df2 / df1))?;
    Ok(BrownForsythe { statistic, df1, df2, p: f_sf(statistic, df1, df2) })
}
