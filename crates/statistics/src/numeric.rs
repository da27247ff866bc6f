//! Sums and means in twice the precision of f64, and the checks every function begins with.

use crate::Error;

/// A sum as an unevaluated pair: `high` is what f64 holds of it, `low` is what it does not.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Sum {
    high: f64,
    low: f64,
}

impl Sum {
    pub(crate) fn add(&mut self, value: f64) {
        // Knuth's two-sum: the rounding error of an addition is itself a number of f64.
        let sum = self.high + value;
        let part = sum - self.high;
        let error = (self.high - (sum - part)) + (value - part);
        let low = self.low + error;
        self.high = sum + low;
        self.low = low - (self.high - sum);
    }

    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Sum {
        let mut sum = Sum::default();
        values.into_iter().for_each(|value| sum.add(value));
        sum
    }

    pub(crate) fn value(self) -> f64 {
        self.high + self.low
    }
}

pub(crate) fn sum(values: impl IntoIterator<Item = f64>) -> f64 {
    Sum::of(values).value()
}

/// A mean with more digits than f64 has: those are what is left of it next to a large offset.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mean {
    high: f64,
    low: f64,
}

impl Mean {
    pub(crate) fn of(values: &[f64]) -> Mean {
        let n = count(values.len());
        let sum = Sum::of(values.iter().copied());
        let high = sum.high / n;
        let low = ((-high).mul_add(n, sum.high) + sum.low) / n;
        Mean { high, low }
    }

    pub(crate) fn value(self) -> f64 {
        self.high + self.low
    }

    /// How far `value` is from the mean.
    pub(crate) fn residual(self, value: f64) -> f64 {
        (value - self.high) - self.low
    }

    pub(crate) fn minus(self, other: Mean) -> f64 {
        (self.high - other.high) + (self.low - other.low)
    }
}

/// What tests of means need of a sample.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moments {
    pub(crate) n: f64,
    pub(crate) mean: Mean,
    /// The sum of squared residuals: zero only for a constant sample.
    pub(crate) squares: f64,
}

impl Moments {
    /// Those of at least `least` values.
    pub(crate) fn of(values: &[f64], least: usize) -> Result<Moments, Error> {
        check(values, least)?;
        let mean = Mean::of(values);
        if !mean.value().is_finite() {
            return Err(Error::Range);
        }
        if is_constant(values) {
            return Ok(Moments { n: count(values.len()), mean, squares: 0.0 });
        }
        let squares = sum(values.iter().map(|&value| mean.residual(value).powi(2)));
        Ok(Moments { n: count(values.len()), mean, squares: nonzero(squares)? })
    }

    /// The variance with n - 1.
    pub(crate) fn variance(&self) -> f64 {
        self.squares / (self.n - 1.0)
    }
}

/// That there are at least `least` values (and one), all finite.
pub(crate) fn check(values: &[f64], least: usize) -> Result<(), Error> {
    if values.len() < least.max(1) {
        return Err(Error::TooFew);
    }
    if !values.iter().all(|value| value.is_finite()) {
        return Err(Error::NotFinite);
    }
    Ok(())
}

/// That `x` is a finite positive number; what varies has squares that are zero or infinite only by underflow
/// or overflow.
pub(crate) fn nonzero(x: f64) -> Result<f64, Error> {
    if x.is_finite() && x > 0.0 { Ok(x) } else { Err(Error::Range) }
}

/// That `x` is a number.
pub(crate) fn finite(x: f64) -> Result<f64, Error> {
    if x.is_finite() { Ok(x) } else { Err(Error::Range) }
}

/// That `p` lies strictly between zero and one.
pub(crate) fn check_fraction(p: f64) -> Result<(), Error> {
    if p > 0.0 && p < 1.0 { Ok(()) } else { Err(Error::Parameter) }
}

pub(crate) fn is_constant(values: &[f64]) -> bool {
    values.iter().all(|value| *value == values[0])
}

pub(crate) fn sorted(values: &[f64]) -> Vec<f64> {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values
}

/// B minus A, pair by pair.
pub(crate) fn differences(a: &[f64], b: &[f64]) -> Result<Vec<f64>, Error> {
    if a.len() != b.len() {
        return Err(Error::Lengths);
    }
    check(a, 1)?;
    check(b, 1)?;
    a.iter().zip(b).map(|(a, b)| finite(b - a)).collect()
}

/// The median of sorted values: the mean of the two in the middle where their number is even.
pub(crate) fn median_of_sorted(sorted: &[f64]) -> f64 {
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[middle] } else { midpoint(sorted[middle - 1], sorted[middle]) }
}

/// The values of a sample from its median on, to more digits than the median itself may have.
pub(crate) fn from_median(values: &[f64]) -> Vec<f64> {
    // Of two values in the middle, a large offset leaves no room for the mean: the first of them has one.
    let middle = sorted(values)[(values.len() - 1) / 2];
    let shifted: Vec<f64> = values.iter().map(|value| value - middle).collect();
    let median = median_of_sorted(&sorted(&shifted));
    shifted.iter().map(|value| value - median).collect()
}

/// Halfway between two numbers, without overflow.
pub(crate) fn midpoint(a: f64, b: f64) -> f64 {
    let sum = a + b;
    if sum.is_finite() { sum / 2.0 } else { a / 2.0 + b / 2.0 }
}

/// A number of values as a number to compute with: exact below 2^53.
pub(crate) fn count(n: usize) -> f64 {
    n as f64
}
