//! How much a difference of two groups owes to something that differs between them, too (analysis of covariance, Fisher 1932).

use crate::{
    Error,
    numeric::{Mean, check, count, finite, sum},
    special::t_two_sided,
};
use serde::Serialize;

/// What a covariate has to do with a difference.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Covariate {
    /// How much y rises where x rises by one, within the groups.
    pub slope: f64,
    pub se: f64,
    /// n - 3.
    pub df: f64,
    /// Two-sided, against a slope of zero. Zero where no residual is left.
    pub p: f64,
    /// The part of "mean of B minus mean of A" that the slope and the difference of the means of x make.
    pub shift: f64,
}

/// The least-squares fit of y = a, or b in group B, + slope x. Both groups need a value and all together four
/// ([`Error::TooFew`]); x must vary within a group ([`Error::Constant`]).
pub fn covariate(y: &[f64], in_b: &[bool], x: &[f64]) -> Result<Covariate, Error> {
    if y.len() != in_b.len() || y.len() != x.len() {
        return Err(Error::Lengths);
    }
    check(y, 4)?;
    check(x, 4)?;
    let of = |values: &[f64], group: bool| -> Vec<f64> {
        values.iter().zip(in_b).filter(|(_, in_b)| **in_b == group).map(|(value, _)| *value).collect()
    };
    let groups = [false, true].map(|group| (of(y, group), of(x, group)));
    if groups.iter().any(|(y, _)| y.is_empty()) {
        return Err(Error::TooFew);
    }
    let means = groups.each_ref().map(|(y, x)| (Mean::of(y), Mean::of(x)));
    let residuals: Vec<(f64, f64)> = groups
        .iter()
        .zip(means)
        .flat_map(|((y, x), (mean_y, mean_x))| {
            y.iter().zip(x).map(move |(y, x)| (mean_y.residual(*y), mean_x.residual(*x)))
        })
        .collect();
    let squares = finite(sum(residuals.iter().map(|(_, x)| x * x)))?;
    if squares == 0.0 {
        return Err(Error::Constant);
    }
    let slope = finite(sum(residuals.iter().map(|(y, x)| y * x)) / squares)?;
    let left = finite(sum(residuals.iter().map(|(y, x)| (y - slope * x).powi(2))))?;
    let df = count(y.len()) - 3.0;
    let se = (left / df / squares).sqrt();
    // Without a residual any slope but zero is certain.
    let p = match (se > 0.0, slope == 0.0) {
        (true, _) => t_two_sided(finite(slope / se)?, df),
        (false, true) => 1.0,
        (false, false) => 0.0,
    };
    let shift = finite(slope * means[1].1.minus(means[0].1))?;
    Ok(Covariate { slope, se, df, p, shift })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(found: f64, wanted: f64) {
        assert!((found - wanted).abs() <= 1e-12 * wanted.abs().max(1.0), "{found} against {wanted}");
    }

    /// By numpy.linalg.lstsq of the columns 1, group and x, and scipy's t distribution.
    #[test]
    fn the_fit_is_that_of_least_squares() {
        let y = [10.0, 12.5, 11.0, 14.0, 20.0, 19.5, 23.0, 22.0];
        let x = [1.0, 2.0, 2.5, 4.0, 3.0, 2.0, 6.0, 5.5];
        let in_b = [false, false, false, false, true, true, true, true];
        let found = covariate(&y, &in_b, &x).unwrap();
        near(found.slope, SLOPE);
        near(found.se, SE);
        near(found.p, P);
        near(found.shift, SLOPE * (4.125 - 2.375));
        assert_eq!(found.df, 5.0);
    }
    const SLOPE: f64 = 0.9527559055118147;
    const SE: f64 = 0.19325856953250317;
    const P: f64 = 0.004359774163775754;

    #[test]
    fn what_has_no_fit_is_an_error() {
        let groups = [false, false, true, true];
        let y = [1.0, 2.0, 3.0, 4.0];
        assert_eq!(covariate(&y, &groups, &[1.0, 1.0, 2.0, 2.0]).unwrap_err(), Error::Constant);
        assert_eq!(covariate(&y, &[true; 4], &y).unwrap_err(), Error::TooFew);
        assert_eq!(covariate(&y[..3], &groups[..3], &y[..3]).unwrap_err(), Error::TooFew);
        assert_eq!(covariate(&y, &groups, &y[..3]).unwrap_err(), Error::Lengths);
        assert_eq!(covariate(&[1.0, 2.0, f64::NAN, 4.0], &groups, &y).unwrap_err(), Error::NotFinite);
        // All on two parallel lines.
        let exact = covariate(&[1.0, 2.0, 13.0, 14.0], &groups, &[0.0, 1.0, 2.0, 3.0]).unwrap();
        assert_eq!((exact.slope, exact.p, exact.shift), (1.0, 0.0, 2.0));
    }
}
