//! How likely a t test is to find an effect, and how many runs that takes.

use crate::{
    Error,
    noncentral::tails,
    numeric::{check_fraction, count, finite, midpoint},
    special::t_upper_quantile,
};

/// How close, relative to it, a search comes to an effect.
const CLOSE: f64 = 1e-10;
/// No search for a number of values goes beyond this.
const MOST: usize = 1 << 30;

/// The power of the two-sided two-sample t test with pooled variance at level `alpha`, where the true difference is
/// `d` standard deviations.
///
/// P(|T| > t_(1 - alpha/2)) of the noncentral t with na + nb - 2 degrees of freedom and noncentrality
/// d √(na nb / (na + nb)) (Cohen 1988). Each sample needs two values ([`Error::TooFew`]).
pub fn two_sample(d: f64, n_a: usize, n_b: usize, alpha: f64) -> Result<f64, Error> {
    if n_a.min(n_b) < 2 {
        return Err(Error::TooFew);
    }
    let (a, b) = (count(n_a), count(n_b));
    power(d * (a * b / (a + b)).sqrt(), a + b - 2.0, alpha)
}

/// The power of the two-sided paired (or one-sample) t test with `n` pairs at level `alpha`, where the true mean
/// difference is `d` standard deviations of the differences: noncentrality d √n, df = n - 1. Needs two pairs
/// ([`Error::TooFew`]).
pub fn paired(d: f64, n: usize, alpha: f64) -> Result<f64, Error> {
    if n < 2 {
        return Err(Error::TooFew);
    }
    power(d * count(n).sqrt(), count(n) - 1.0, alpha)
}

/// The fewest values in each of two samples of one size with which [`two_sample`] reaches `power`.
///
/// [`Error::Parameter`] where `d` is zero or not finite; [`Error::Range`] where more than 2^30 are needed.
pub fn n_for(d: f64, power: f64, alpha: f64) -> Result<usize, Error> {
    fewest(d, power, |n| two_sample(d, n, n, alpha))
}

/// The fewest pairs with which [`paired`] reaches `power`. Undefined as [`n_for`] is.
pub fn n_for_paired(d: f64, power: f64, alpha: f64) -> Result<usize, Error> {
    fewest(d, power, |n| paired(d, n, alpha))
}

/// The smallest `d` that [`paired`] finds with this power.
///
/// Needs two pairs ([`Error::TooFew`]); [`Error::Parameter`] unless alpha < power.
pub fn detectable_paired(n: usize, power: f64, alpha: f64) -> Result<f64, Error> {
    check_fraction(power)?;
    if n < 2 {
        return Err(Error::TooFew);
    }
    if power <= alpha {
        return Err(Error::Parameter);
    }
    let (mut low, mut high) = (0.0, 1.0);
    while paired(high, n, alpha)? < power {
        (low, high) = (high, 2.0 * high);
    }
    while high - low > high * CLOSE {
        let middle = midpoint(low, high);
        if paired(middle, n, alpha)? < power { low = middle } else { high = middle }
    }
    Ok(midpoint(low, high))
}

fn power(ncp: f64, df: f64, alpha: f64) -> Result<f64, Error> {
    check_fraction(alpha)?;
    if !ncp.is_finite() {
        return Err(Error::Parameter);
    }
    let critical = t_upper_quantile(alpha / 2.0, df).ok_or(Error::Range)?;
    let above = tails(critical, df, ncp).ok_or(Error::Range)?.above;
    let below = tails(-critical, df, ncp).ok_or(Error::Range)?.below;
    finite((above + below).min(1.0))
}

fn fewest(d: f64, power: f64, at: impl Fn(usize) -> Result<f64, Error>) -> Result<usize, Error> {
    check_fraction(power)?;
    if d == 0.0 || !d.is_finite() {
        return Err(Error::Parameter);
    }
    let (mut few, mut enough) = (1, 2);
    while at(enough)? < power {
        few = enough;
        enough *= 2;
        if enough > MOST {
            return Err(Error::Range);
        }
    }
    while enough - few > 1 {
        let middle = few + (enough - few) / 2;
        if at(middle)? < power { few = middle } else { enough = middle }
    }
    Ok(enough)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `statsmodels.stats.power.TTestPower().solve_power(nobs=n, power=power, alpha=alpha)` of statsmodels 0.15.0.
    #[test]
    fn the_smallest_effect_that_is_found_is_that_of_statsmodels() {
        for (n, power, alpha, wanted) in [
            (30, 0.8, 0.05, 0.5292357045238948),
            (30, 0.8, 0.016666666666666666, 0.621797171943131),
            (30, 0.8, 0.0016666666666666668, 0.795980052162845),
            (10, 0.8, 0.05, 0.9960019107624178),
            (3, 0.8, 0.05, 3.264043552819638),
            (100, 0.95, 0.01, 0.42930977645629265),
            (30, 0.8, 0.0003333333333333334, 0.9100642190376445),
        ] {
            let found = detectable_paired(n, power, alpha).unwrap();
            assert!((found - wanted).abs() < 1e-6 * wanted, "{n} {power} {alpha}: {found}");
        }
        assert_eq!(detectable_paired(1, 0.8, 0.05), Err(Error::TooFew));
        assert_eq!(detectable_paired(9, 0.05, 0.05), Err(Error::Parameter));
    }
}
