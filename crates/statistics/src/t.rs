//! Tests of means by Student's t, with confidence intervals of the difference.

use crate::{
    Error,
    dependence::Dependence,
    numeric::{Mean, Moments, check, check_fraction, differences, finite, nonzero},
    special::{t_two_sided, t_upper_quantile},
};
use serde::Serialize;

/// A t test of the difference of two means.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TTest {
    /// The difference over its standard error: positive where B is larger.
    pub statistic: f64,
    /// Degrees of freedom.
    pub df: f64,
    /// Two-sided.
    pub p: f64,
    /// Mean of B minus mean of A.
    pub difference: f64,
    /// The standard error of the difference.
    pub se: f64,
    /// The confidence interval of the difference.
    pub ci: (f64, f64),
    /// The confidence level of `ci`.
    pub level: f64,
}

/// Welch's test (Welch 1947): variances may differ.
///
/// t = (mean b - mean a) / se, se² = s²a/na + s²b/nb, with the degrees of freedom of Welch and Satterthwaite. Each
/// sample needs two values ([`Error::TooFew`]), and one of them must vary ([`Error::Constant`]).
pub fn welch(a: &[f64], b: &[f64], level: f64) -> Result<TTest, Error> {
    let difference = welch_difference(a, b)?;
    difference.test(level)
}

/// Student's test (Student 1908; Fisher 1925): both samples have one variance, estimated from both.
///
/// se² = s²p (1/na + 1/nb), df = na + nb - 2. Each sample needs two values ([`Error::TooFew`]), and one of them must
/// vary ([`Error::Constant`]).
pub fn student(a: &[f64], b: &[f64], level: f64) -> Result<TTest, Error> {
    let (a, b) = (Moments::of(a, 2)?, Moments::of(b, 2)?);
    let df = a.n + b.n - 2.0;
    let squares = a.squares + b.squares;
    let se = (squares / df * (1.0 / a.n + 1.0 / b.n)).sqrt();
    Difference::new(b.mean.minus(a.mean), se, squares, df)?.test(level)
}

/// Student's test of the pairs `b[i] - a[i]`.
///
/// se = sd of the differences / √n, df = n - 1. Needs two pairs ([`Error::TooFew`]), equal lengths
/// ([`Error::Lengths`]), and differences that vary ([`Error::Constant`]).
pub fn paired(a: &[f64], b: &[f64], level: f64) -> Result<TTest, Error> {
    let difference = paired_difference(a, b)?;
    difference.test(level)
}

/// Student's test of pairs that have something in common: as [`paired`], with a variance that is `larger` times as large and fewer
/// degrees of freedom. [`Error::Parameter`] where one of them is no positive number.
pub fn paired_dependent(a: &[f64], b: &[f64], dependence: &Dependence, level: f64) -> Result<TTest, Error> {
    dependent_difference(a, b, dependence)?.test(level)
}

/// Mean of B minus mean of A, without the digits that each of the means alone would lose.
pub fn mean_difference(a: &[f64], b: &[f64]) -> Result<f64, Error> {
    check(a, 1)?;
    check(b, 1)?;
    finite(Mean::of(b).minus(Mean::of(a)))
}

/// A difference of means that is known with a standard error.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Difference {
    pub(crate) value: f64,
    pub(crate) se: f64,
    pub(crate) df: f64,
}

impl Difference {
    pub(crate) fn new(value: f64, se: f64, squares: f64, df: f64) -> Result<Difference, Error> {
        if squares == 0.0 {
            return Err(Error::Constant);
        }
        Ok(Difference { value: finite(value)?, se: nonzero(se)?, df: finite(df)? })
    }

    pub(crate) fn ci(&self, level: f64) -> Result<(f64, f64), Error> {
        check_fraction(level)?;
        let t = t_upper_quantile((1.0 - level) / 2.0, self.df).ok_or(Error::Range)?;
        Ok((finite(self.value - t * self.se)?, finite(self.value + t * self.se)?))
    }

    pub(crate) fn test(&self, level: f64) -> Result<TTest, Error> {
        let statistic = finite(self.value / self.se)?;
        Ok(TTest {
            statistic,
            df: self.df,
            p: t_two_sided(statistic, self.df),
            difference: self.value,
            se: self.se,
            ci: self.ci(level)?,
            level,
        })
    }
}

pub(crate) fn welch_difference(a: &[f64], b: &[f64]) -> Result<Difference, Error> {
    let (a, b) = (Moments::of(a, 2)?, Moments::of(b, 2)?);
    let (part_a, part_b) = (a.variance() / a.n, b.variance() / b.n);
    let square = part_a + part_b;
    // In shares of the whole: squares of variances leave the range of f64 early.
    let (share_a, share_b) = (part_a / square, part_b / square);
    let df = 1.0 / (share_a * share_a / (a.n - 1.0) + share_b * share_b / (b.n - 1.0));
    Difference::new(b.mean.minus(a.mean), square.sqrt(), a.squares + b.squares, df)
}

pub(crate) fn paired_difference(a: &[f64], b: &[f64]) -> Result<Difference, Error> {
    let pairs = Moments::of(&differences(a, b)?, 2)?;
    Difference::new(pairs.mean.value(), (pairs.variance() / pairs.n).sqrt(), pairs.squares, pairs.n - 1.0)
}

pub(crate) fn dependent_difference(
    a: &[f64],
    b: &[f64],
    dependence: &Dependence,
) -> Result<Difference, Error> {
    let Dependence { larger, df, .. } = dependence.checked()?;
    let difference = paired_difference(a, b)?;
    Ok(Difference { se: finite(difference.se * larger.sqrt())?, df, ..difference })
}
