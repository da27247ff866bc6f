//! Whether a difference is small enough not to matter: two one-sided tests (Schuirmann 1987).

use crate::{
    Error,
    dependence::Dependence,
    numeric::finite,
    special::t_sf,
    t::{Difference, dependent_difference, paired_difference, welch_difference},
};
use serde::Serialize;

/// Two one-sided t tests of `low < mean of B - mean of A < high`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Tost {
    /// The larger of both p: small where the difference is within the bounds.
    pub p: f64,
    /// One-sided p against a difference of `low` or less.
    pub p_low: f64,
    /// One-sided p against a difference of `high` or more.
    pub p_high: f64,
    /// Degrees of freedom.
    pub df: f64,
    /// Mean of B minus mean of A.
    pub difference: f64,
    /// The confidence interval of the difference at level 1 - 2 alpha: it lies within the bounds where the samples
    /// are equivalent.
    pub ci: (f64, f64),
    /// The requested bounds.
    pub bounds: (f64, f64),
    /// The requested level.
    pub alpha: f64,
    /// Whether `p` is below `alpha`.
    pub equivalent: bool,
}

/// Of two samples, each with a variance of its own (Welch). [`Error::Parameter`] unless low < high and
/// 0 < alpha < 1/2; otherwise undefined as [`crate::t::welch`] is.
pub fn tost(a: &[f64], b: &[f64], low: f64, high: f64, alpha: f64) -> Result<Tost, Error> {
    test(welch_difference(a, b)?, (low, high), alpha)
}

/// Of pairs `b[i] - a[i]`. [`Error::Parameter`] unless low < high and 0 < alpha < 1/2; otherwise undefined as
/// [`crate::t::paired`] is.
pub fn tost_paired(a: &[f64], b: &[f64], low: f64, high: f64, alpha: f64) -> Result<Tost, Error> {
    test(paired_difference(a, b)?, (low, high), alpha)
}

/// Of pairs that have something in common, with the standard error of [`crate::t::paired_dependent`].
pub fn tost_dependent(
    a: &[f64],
    b: &[f64],
    dependence: &Dependence,
    (low, high): (f64, f64),
    alpha: f64,
) -> Result<Tost, Error> {
    test(dependent_difference(a, b, dependence)?, (low, high), alpha)
}

fn test(difference: Difference, bounds: (f64, f64), alpha: f64) -> Result<Tost, Error> {
    let Difference { value, se, df } = difference;
    let (low, high) = bounds;
    if !(low < high && low.is_finite() && high.is_finite() && alpha > 0.0 && alpha < 0.5) {
        return Err(Error::Parameter);
    }
    let p_low = t_sf(finite((value - low) / se)?, df);
    let p_high = t_sf(finite((high - value) / se)?, df);
    let p = p_low.max(p_high);
    let ci = difference.ci(1.0 - 2.0 * alpha)?;
    Ok(Tost { p, p_low, p_high, df, difference: value, ci, bounds, alpha, equivalent: p < alpha })
}
