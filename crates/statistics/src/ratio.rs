//! The ratio of two means with its interval (Fieller 1954): the ratios that the t test of `b - ratio a` does not reject.

use crate::{
    Error,
    dependence::Dependence,
    numeric::{Moments, check_fraction, count, finite, sum},
    special::t_upper_quantile,
};
use serde::Serialize;

/// Mean of B over mean of A.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Ratio {
    pub value: f64,
    pub ci: (f64, f64),
    pub level: f64,
}

/// Steps of the search for degrees of freedom that belong to their own end of the interval.
const STEPS: usize = 100;

/// Of two samples, each with a variance of its own; the degrees of freedom are those of Welch and Satterthwaite at each end.
///
/// Each sample needs two values ([`Error::TooFew`]). [`Error::Range`] where the mean of A is not different from 0 at this level: the
/// interval has no ends then. [`Error::Constant`] where neither varies.
pub fn welch(a: &[f64], b: &[f64], level: f64) -> Result<Ratio, Error> {
    let (a, b) = (Moments::of(a, 2)?, Moments::of(b, 2)?);
    let parts = Parts {
        means: (a.mean.value(), b.mean.value()),
        squares: (a.variance() / a.n, b.variance() / b.n),
        product: 0.0,
    };
    let df = |ratio: f64| {
        let (part_a, part_b) = (ratio * ratio * parts.squares.0, parts.squares.1);
        let (share_a, share_b) = (part_a / (part_a + part_b), part_b / (part_a + part_b));
        1.0 / (share_a * share_a / (a.n - 1.0) + share_b * share_b / (b.n - 1.0))
    };
    let at_ends = [0, 1].map(|end| -> Result<f64, Error> {
        let mut ratio = parts.ratio()?;
        for _ in 0..STEPS {
            let ci = parts.interval(df(ratio), level)?;
            let next = if end == 0 { ci.0 } else { ci.1 };
            if next == ratio {
                break;
            }
            ratio = next;
        }
        Ok(ratio)
    });
    let [low, high] = at_ends;
    Ok(Ratio { value: parts.ratio()?, ci: (low?, high?), level })
}

/// Of pairs that have something in common, with the variance of [`crate::t::paired_dependent`]. Undefined as [`welch`] is, and where the
/// lengths differ ([`Error::Lengths`]) or what `dependence` has is no positive number ([`Error::Parameter`]).
pub fn paired_dependent(a: &[f64], b: &[f64], dependence: &Dependence, level: f64) -> Result<Ratio, Error> {
    if a.len() != b.len() {
        return Err(Error::Lengths);
    }
    let Dependence { larger, df, .. } = dependence.checked()?;
    let (of_a, of_b) = (Moments::of(a, 2)?, Moments::of(b, 2)?);
    let n = count(a.len());
    let each = larger / (n * (n - 1.0));
    let products = a.iter().zip(b).map(|(a, b)| of_a.mean.residual(*a) * of_b.mean.residual(*b));
    let parts = Parts {
        means: (of_a.mean.value(), of_b.mean.value()),
        squares: (of_a.squares * each, of_b.squares * each),
        product: finite(sum(products))? * each,
    };
    let ci = parts.interval(df, level)?;
    Ok(Ratio { value: parts.ratio()?, ci, level })
}

/// Two means with the squares of their standard errors, and their covariance.
struct Parts {
    means: (f64, f64),
    squares: (f64, f64),
    product: f64,
}

impl Parts {
    fn ratio(&self) -> Result<f64, Error> {
        finite(self.means.1 / self.means.0)
    }

    fn interval(&self, df: f64, level: f64) -> Result<(f64, f64), Error> {
        check_fraction(level)?;
        let Parts { means: (mean, _), squares: (aa, bb), product: ab } = *self;
        if aa == 0.0 && bb == 0.0 {
            return Err(Error::Constant);
        }
        let ratio = self.ratio()?;
        let t = t_upper_quantile((1.0 - level) / 2.0, df).ok_or(Error::Range)? / mean;
        let left = 1.0 - t * t * aa;
        // The quadratic's roots, in the form that keeps its digits where the spread is small.
        let square = (bb - 2.0 * ratio * ab + ratio * ratio * aa) - t * t * (aa * bb - ab * ab);
        if left <= 0.0 || square < 0.0 {
            return Err(Error::Range);
        }
        let (middle, half) = (ratio - t * t * ab, t.abs() * square.sqrt());
        Ok((finite((middle - half) / left)?, finite((middle + half) / left)?))
    }
}
