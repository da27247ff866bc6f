//! How two variables go together.

use crate::{
    Error,
    numeric::{Moments, check, finite, sum},
    special::beta,
};
use serde::Serialize;

/// Pearson's correlation.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Pearson {
    /// The correlation.
    pub r: f64,
    /// Two-sided, under normality: that of t = r √((n - 2) / (1 - r²)) with n - 2 degrees of freedom.
    pub p: f64,
    /// The number of pairs.
    pub n: usize,
}

/// The product-moment correlation (Pearson 1895) of three pairs or more ([`Error::TooFew`]), of equal lengths
/// ([`Error::Lengths`]), both of which vary ([`Error::Constant`]).
pub fn pearson(x: &[f64], y: &[f64]) -> Result<Pearson, Error> {
    let (mx, my) = moments(x, y, 3)?;
    if mx.squares == 0.0 || my.squares == 0.0 {
        return Err(Error::Constant);
    }
    let (sx, sy) = (mx.squares.sqrt(), my.squares.sqrt());
    let scaled = |i: usize| (mx.mean.residual(x[i]) / sx, my.mean.residual(y[i]) / sy);
    let r = sum((0..x.len()).map(|i| scaled(i).0 * scaled(i).1)).clamp(-1.0, 1.0);
    // 1 - |r| is half the squared distance of the scaled values, which keeps its digits where r is close to one.
    let sign = r.signum();
    let lack = sum((0..x.len()).map(|i| (scaled(i).0 - sign * scaled(i).1).powi(2))) / 2.0;
    let p = beta(lack * (2.0 - lack), r * r, (mx.n - 2.0) / 2.0, 0.5);
    Ok(Pearson { r, p, n: x.len() })
}

/// A straight line through points.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LinearFit {
    /// How much y rises where x rises by one.
    pub slope: f64,
    /// y where x is zero.
    pub intercept: f64,
    /// The standard deviation of the residuals with n - 2. None for two points.
    pub residual_sd: Option<f64>,
    /// The largest distance of a point from the line, along y.
    pub max_residual: f64,
    /// The share of the variance of y that the line explains. None where y is constant.
    pub r2: Option<f64>,
    /// The number of points.
    pub n: usize,
}

/// Ordinary least squares (Legendre 1805): y = intercept + slope x. Needs two points ([`Error::TooFew`]), equal
/// lengths ([`Error::Lengths`]), and x that varies ([`Error::Constant`]).
pub fn linear_fit(x: &[f64], y: &[f64]) -> Result<LinearFit, Error> {
    let (mx, my) = moments(x, y, 2)?;
    if mx.squares == 0.0 {
        return Err(Error::Constant);
    }
    let products = sum(x.iter().zip(y).map(|(x, y)| mx.mean.residual(*x) * my.mean.residual(*y)));
    let slope = finite(products / mx.squares)?;
    let residuals: Vec<f64> =
        x.iter().zip(y).map(|(x, y)| my.mean.residual(*y) - slope * mx.mean.residual(*x)).collect();
    let squares = finite(sum(residuals.iter().map(|residual| residual * residual)))?;
    Ok(LinearFit {
        slope,
        intercept: finite(slope.mul_add(-mx.mean.value(), my.mean.value()))?,
        residual_sd: (x.len() > 2).then(|| (squares / (mx.n - 2.0)).sqrt()),
        max_residual: residuals.iter().fold(0.0, |most, residual| residual.abs().max(most)),
        r2: (my.squares > 0.0)
            .then(|| (products / mx.squares.sqrt() / my.squares.sqrt()).powi(2).min(1.0))
            .filter(|r2| r2.is_finite()),
        n: x.len(),
    })
}

fn moments(x: &[f64], y: &[f64], least: usize) -> Result<(Moments, Moments), Error> {
    if x.len() != y.len() {
        return Err(Error::Lengths);
    }
    check(x, least)?;
    Ok((Moments::of(x, least)?, Moments::of(y, least)?))
}
