//! Differences in units of standard deviations, with exact confidence intervals under normality.

use crate::{
    Error, noncentral,
    numeric::{Moments, check_fraction, differences, finite, nonzero},
    special::ln_gamma_ratio,
};
use serde::Serialize;

/// A standardised difference: positive where B is larger.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct EffectSize {
    /// The estimate.
    pub value: f64,
    /// Its confidence interval, from the noncentralities at which the t of the data is the upper and the lower
    /// `(1 - level) / 2` point (Steiger & Fouladi 1997; Cumming & Finch 2001).
    pub ci: (f64, f64),
    /// The confidence level of `ci`.
    pub level: f64,
}

/// Cohen's d (Cohen 1988): (mean b - mean a) over the pooled standard deviation.
///
/// Each sample needs two values ([`Error::TooFew`]), and one of them must vary ([`Error::Constant`]).
pub fn cohen_d(a: &[f64], b: &[f64], level: f64) -> Result<EffectSize, Error> {
    let (a, b) = (Moments::of(a, 2)?, Moments::of(b, 2)?);
    let df = a.n + b.n - 2.0;
    let sd = ((a.squares + b.squares) / df).sqrt();
    standardised(b.mean.minus(a.mean), sd, a.n * b.n / (a.n + b.n), df, level)
}

/// Hedges' g (Hedges 1981): Cohen's d times J = Γ(m / 2) / (√(m / 2) Γ((m - 1) / 2)), m = na + nb - 2, which takes
/// its bias away. The interval is that of d times J. Undefined as [`cohen_d`] is.
pub fn hedges_g(a: &[f64], b: &[f64], level: f64) -> Result<EffectSize, Error> {
    let d = cohen_d(a, b, level)?;
    let m = (a.len() + b.len() - 2) as f64;
    let j = (ln_gamma_ratio((m - 1.0) / 2.0, 0.5) - 0.5 * (m / 2.0).ln()).exp();
    Ok(EffectSize { value: d.value * j, ci: (d.ci.0 * j, d.ci.1 * j), level })
}

/// Cohen's d of pairs, d_z (Cohen 1988): the mean of `b[i] - a[i]` over their standard deviation.
///
/// Needs two pairs ([`Error::TooFew`]), equal lengths ([`Error::Lengths`]), and differences that vary
/// ([`Error::Constant`]).
pub fn cohen_dz(a: &[f64], b: &[f64], level: f64) -> Result<EffectSize, Error> {
    let pairs = Moments::of(&differences(a, b)?, 2)?;
    standardised(pairs.mean.value(), pairs.variance().sqrt(), pairs.n, pairs.n - 1.0, level)
}

/// `difference / sd`, where that times √n is noncentral t.
fn standardised(difference: f64, sd: f64, n: f64, df: f64, level: f64) -> Result<EffectSize, Error> {
    check_fraction(level)?;
    if sd == 0.0 {
        return Err(Error::Constant);
    }
    let value = finite(difference / nonzero(sd)?)?;
    let (low, high) = noncentral::interval(value * n.sqrt(), df, level)?;
    Ok(EffectSize { value, ci: (finite(low / n.sqrt())?, finite(high / n.sqrt())?), level })
}
