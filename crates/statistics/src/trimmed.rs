//! Tests of trimmed means: what the wildest values of a sample say counts for no more than that they are large.

use crate::{
    Error,
    numeric::{Mean, Moments, check, check_fraction, count, differences, finite, sorted},
    t::{Difference, TTest},
};

/// The part of a sample that is left out at either end, unless something else is said.
pub const TRIM: f64 = 0.2;

/// Yuen's test (Yuen 1974) of the difference of two trimmed means: of each sample the floor(trim n) smallest and largest values are left
/// out, and the variance is that of the sample with these values replaced by the next ones (winsorised).
///
/// Two values must be left of each ([`Error::TooFew`]), and the winsorised values must vary ([`Error::Constant`]).
pub fn yuen(a: &[f64], b: &[f64], trim: f64, level: f64) -> Result<TTest, Error> {
    let (a, b) = (Trimmed::of(a, trim)?, Trimmed::of(b, trim)?);
    let (part_a, part_b) = (a.square(), b.square());
    let square = part_a + part_b;
    let (share_a, share_b) = (part_a / square, part_b / square);
    let df = 1.0 / (share_a * share_a / (a.left - 1.0) + share_b * share_b / (b.left - 1.0));
    Difference::new(b.mean.minus(a.mean), square.sqrt(), a.squares + b.squares, df)?.test(level)
}

/// The same of pairs: the trimmed mean of `b[i] - a[i]` against zero (Tukey & McLaughlin 1963).
pub fn yuen_of_pairs(a: &[f64], b: &[f64], trim: f64, level: f64) -> Result<TTest, Error> {
    let pairs = Trimmed::of(&differences(a, b)?, trim)?;
    let se = pairs.square().sqrt();
    Difference::new(pairs.mean.value(), se, pairs.squares, pairs.left - 1.0)?.test(level)
}

struct Trimmed {
    mean: Mean,
    /// How many values are left.
    left: f64,
    /// The winsorised sum of squares.
    squares: f64,
}

impl Trimmed {
    fn of(values: &[f64], trim: f64) -> Result<Trimmed, Error> {
        check(values, 2)?;
        check_fraction(2.0 * trim)?;
        let mut sorted = sorted(values);
        let out = (trim * count(sorted.len())).floor() as usize;
        let (first, last) = (out, sorted.len() - out - 1);
        if last <= first {
            return Err(Error::TooFew);
        }
        let mean = Mean::of(&sorted[first..=last]);
        finite(mean.value())?;
        let ends = (sorted[first], sorted[last]);
        sorted[..first].fill(ends.0);
        sorted[last + 1..].fill(ends.1);
        Ok(Trimmed { mean, left: count(last - first + 1), squares: Moments::of(&sorted, 2)?.squares })
    }

    /// The square of the mean's standard error.
    fn square(&self) -> f64 {
        self.squares / (self.left * (self.left - 1.0))
    }
}
