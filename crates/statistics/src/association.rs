//! How two variables go together.

use crate::{
    Error,
    numeric::{Moments, check, finite, sum},
};
use serde::Serialize;

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
