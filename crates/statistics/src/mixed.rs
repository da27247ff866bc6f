//! A linear model of groups: what their properties make of a mean, where groups also differ for reasons of their own.
//!
//! y[i, j] = x[i]'b + u[i] + e[i, j]; u and e normal. Variances are estimated by restricted maximum likelihood (Patterson & Thompson
//! 1971), so that the coefficients do not use them up.

use crate::{
    Error,
    numeric::{check, check_fraction, count, finite, midpoint, sum},
    special::{t_two_sided, t_upper_quantile},
};
use serde::Serialize;

/// Values of one group, and what is known of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Group {
    /// The same number of predictors in all groups; a constant is one of them.
    pub x: Vec<f64>,
    pub y: Vec<f64>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Mixed {
    pub coefficients: Vec<Coefficient>,
    /// Of groups besides their predictors; 0 where the values show none.
    pub sd_groups: f64,
    /// Within a group.
    pub sd_within: f64,
    /// Groups minus coefficients: each coefficient is of what differs between groups.
    pub df: f64,
    pub groups: usize,
    pub values: usize,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Coefficient {
    pub estimate: f64,
    pub se: f64,
    /// Two-sided.
    pub p: f64,
    pub ci: (f64, f64),
}

/// Places at which the likelihood is looked at, before its best one is approached.
const SCAN: usize = 200;
/// A predictor of which the others leave less than this part is one of them.
const COLLINEAR: f64 = 1e-10;

/// [`Error::TooFew`] where there are no more groups than predictors, or no group has two values; [`Error::Lengths`] where predictors differ
/// in number; [`Error::Collinear`] where one is a combination of the others; [`Error::Constant`] where no group varies within.
pub fn random_intercept(groups: &[Group], level: f64) -> Result<Mixed, Error> {
    check_fraction(level)?;
    let width = groups.first().map_or(0, |group| group.x.len());
    for group in groups {
        if group.x.len() != width {
            return Err(Error::Lengths);
        }
        check(&group.y, 1)?;
        check(&group.x, 1)?;
    }
    let values = groups.iter().map(|group| group.y.len()).sum::<usize>();
    if width == 0 || groups.len() <= width || values <= groups.len() {
        return Err(Error::TooFew);
    }
    let data = Data::of(groups, width)?;
    if data.within == 0.0 {
        return Err(Error::Constant);
    }
    let ratio = data.best()?;
    let fit = data.at(ratio)?;
    let variance = finite(fit.squares / data.degrees)?;
    let df = count(groups.len() - width);
    let t = t_upper_quantile((1.0 - level) / 2.0, df).ok_or(Error::Range)?;
    let coefficient = |place: usize| {
        let estimate = finite(fit.coefficients[place])?;
        let se = finite((variance * fit.inverse[place][place]).sqrt())?;
        let p = if se > 0.0 { t_two_sided(estimate / se, df) } else { return Err(Error::Range) };
        Ok(Coefficient { estimate, se, p, ci: (estimate - t * se, estimate + t * se) })
    };
    Ok(Mixed {
        coefficients: (0..width).map(coefficient).collect::<Result<_, Error>>()?,
        sd_groups: (ratio * variance).sqrt(),
        sd_within: variance.sqrt(),
        df,
        groups: groups.len(),
        values,
    })
}

/// What the likelihood needs of the values: a group's number, mean and predictors, and all that is within groups.
struct Data {
    groups: Vec<(f64, f64, Vec<f64>)>,
    /// Sum of squares within groups.
    within: f64,
    /// Values minus coefficients.
    degrees: f64,
    width: usize,
}

/// The best coefficients for a ratio of the groups' variance to that within.
struct Fit {
    coefficients: Vec<f64>,
    /// Of X'V⁻¹X.
    inverse: Vec<Vec<f64>>,
    /// Logarithm of the determinant of X'V⁻¹X.
    determinant: f64,
    squares: f64,
}

impl Data {
    fn of(groups: &[Group], width: usize) -> Result<Self, Error> {
        let mut within = 0.0;
        let mut all = vec![];
        for group in groups {
            let n = count(group.y.len());
            let mean = finite(sum(group.y.iter().copied()) / n)?;
            within += sum(group.y.iter().map(|y| (y - mean).powi(2)));
            all.push((n, mean, group.x.clone()));
        }
        let degrees = all.iter().map(|(n, ..)| n).sum::<f64>() - count(width);
        Ok(Self { groups: all, within: finite(within)?, degrees, width })
    }

    /// A group's weight: of its mean, in units of the variance within.
    fn weight(n: f64, ratio: f64) -> f64 {
        n / (1.0 + n * ratio)
    }

    fn at(&self, ratio: f64) -> Result<Fit, Error> {
        let mut matrix = vec![vec![0.0; self.width]; self.width];
        let mut right = vec![0.0; self.width];
        for (n, mean, x) in &self.groups {
            let weight = Self::weight(*n, ratio);
            for i in 0..self.width {
                right[i] += weight * x[i] * mean;
                for j in 0..self.width {
                    matrix[i][j] += weight * x[i] * x[j];
                }
            }
        }
        let (inverse, determinant) = inverse(&matrix)?;
        let coefficients: Vec<f64> = inverse.iter().map(|row| dot(row, &right)).collect();
        let between = sum(self
            .groups
            .iter()
            .map(|(n, mean, x)| Self::weight(*n, ratio) * (mean - dot(x, &coefficients)).powi(2)));
        Ok(Fit { coefficients, inverse, determinant, squares: finite(self.within + between)? })
    }

    /// -2 log of the restricted likelihood, without its constant.
    fn deviance(&self, ratio: f64) -> Result<f64, Error> {
        let fit = self.at(ratio)?;
        let volumes = sum(self.groups.iter().map(|(n, ..)| (1.0 + n * ratio).ln()));
        Ok(self.degrees * fit.squares.ln() + volumes + fit.determinant)
    }

    /// Its derivative by the ratio. The coefficients are the best ones, so theirs is 0.
    fn slope(&self, ratio: f64) -> Result<f64, Error> {
        let fit = self.at(ratio)?;
        let (mut volumes, mut traces, mut squares) = (0.0, 0.0, 0.0);
        for (n, mean, x) in &self.groups {
            let weight = Self::weight(*n, ratio);
            volumes += weight;
            let leverage: f64 = fit.inverse.iter().zip(x).map(|(row, x_i)| x_i * dot(row, x)).sum();
            traces += weight * weight * leverage;
            squares += (weight * (mean - dot(x, &fit.coefficients))).powi(2);
        }
        Ok(volumes - traces - self.degrees * squares / fit.squares)
    }

    /// The ratio with the largest restricted likelihood: the best of a scan, and from there where the slope is 0.
    fn best(&self) -> Result<f64, Error> {
        // Shares of the groups' variance in a group's mean, from 0 to almost all.
        let smallest = self.groups.iter().map(|(n, ..)| *n).fold(f64::INFINITY, f64::min);
        let ratio = |place: usize| {
            let share = count(place) / count(SCAN);
            share.powi(3) / ((1.0 - share).powi(3) * smallest)
        };
        let mut best = (0, self.deviance(0.0)?);
        for place in 1..SCAN {
            let deviance = self.deviance(ratio(place))?;
            if deviance < best.1 {
                best = (place, deviance);
            }
        }
        let (mut low, mut high) = (ratio(best.0.saturating_sub(1)), ratio((best.0 + 1).min(SCAN - 1)));
        if best.0 == 0 && self.slope(0.0)? >= 0.0 {
            return Ok(0.0);
        }
        while self.slope(high)? < 0.0 {
            high *= 2.0;
            if !high.is_finite() || high > 1e15 {
                return Err(Error::Range);
            }
        }
        while high - low > 1e-14 * high {
            let middle = midpoint(low, high);
            if middle <= low || middle >= high {
                break;
            }
            if self.slope(middle)? < 0.0 { low = middle } else { high = middle }
        }
        Ok(midpoint(low, high))
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    sum(a.iter().zip(b).map(|(a, b)| a * b))
}

/// Of a symmetric positive matrix, with the logarithm of its determinant: Cholesky's way, on columns of length 1.
fn inverse(matrix: &[Vec<f64>]) -> Result<(Vec<Vec<f64>>, f64), Error> {
    let size = matrix.len();
    let scale: Vec<f64> = (0..size).map(|i| matrix[i][i].sqrt()).collect();
    if !scale.iter().all(|scale| scale.is_finite() && *scale > 0.0) {
        return Err(Error::Collinear);
    }
    let mut lower = vec![vec![0.0; size]; size];
    for i in 0..size {
        for j in 0..=i {
            let known = dot(&lower[i][..j], &lower[j][..j]);
            let left = matrix[i][j] / (scale[i] * scale[j]) - known;
            if i == j && left < COLLINEAR {
                return Err(Error::Collinear);
            }
            lower[i][j] = if i == j { left.sqrt() } else { left / lower[j][j] };
        }
    }
    let column = |place: usize| -> Vec<f64> {
        let mut x = vec![0.0; size];
        for i in 0..size {
            let unit = if i == place { 1.0 } else { 0.0 };
            x[i] = (unit - dot(&lower[i][..i], &x[..i])) / lower[i][i];
        }
        for i in (0..size).rev() {
            let known: f64 = (i + 1..size).map(|k| lower[k][i] * x[k]).sum();
            x[i] = (x[i] - known) / lower[i][i];
        }
        x.iter().zip(&scale).map(|(x, of)| x / (of * scale[place])).collect()
    };
    let determinant = 2.0 * (0..size).map(|i| (lower[i][i] * scale[i]).ln()).sum::<f64>();
    Ok(((0..size).map(column).collect(), determinant))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(x: &[f64], y: &[f64]) -> Group {
        Group { x: x.to_vec(), y: y.to_vec() }
    }

    /// `goldens/mixed.py`: mpmath at 40 digits with the whole covariance matrix, which agrees with MixedLM of statsmodels.
    #[test]
    fn figures_are_those_of_statsmodels_and_mpmath() {
        let goldens: serde_json::Value =
            serde_json::from_str(include_str!("../tests/goldens/mixed.json")).unwrap();
        let numbers = |value: &serde_json::Value| -> Vec<f64> {
            value.as_array().unwrap().iter().map(|one| one.as_f64().unwrap()).collect()
        };
        let cases = goldens.as_array().unwrap();
        assert!(cases.len() >= 9);
        for case in cases {
            let groups = case["groups"].as_array().unwrap().iter();
            let groups: Vec<Group> =
                groups.map(|one| group(&numbers(&one["x"]), &numbers(&one["y"]))).collect();
            let found = random_intercept(&groups, 0.95).unwrap();
            let name = &case["name"];
            let close = |what: &str, found: f64, wanted: f64| {
                assert!(
                    (found - wanted).abs() <= 1e-9 * wanted.abs().max(1e-3),
                    "{name} {what}: {found} and {wanted}"
                );
            };
            let of =
                |which: fn(&Coefficient) -> f64| found.coefficients.iter().map(which).collect::<Vec<_>>();
            let columns: [(&str, Vec<f64>, Vec<f64>); 5] = [
                ("estimate", of(|one| one.estimate), numbers(&case["estimate"])),
                ("se", of(|one| one.se), numbers(&case["se"])),
                ("p", of(|one| one.p), numbers(&case["p"])),
                (
                    "low",
                    of(|one| one.ci.0),
                    case["ci"].as_array().unwrap().iter().map(|ci| numbers(ci)[0]).collect(),
                ),
                (
                    "high",
                    of(|one| one.ci.1),
                    case["ci"].as_array().unwrap().iter().map(|ci| numbers(ci)[1]).collect(),
                ),
            ];
            for (what, found, wanted) in &columns {
                assert_eq!(found.len(), wanted.len());
                found.iter().zip(wanted).for_each(|(found, wanted)| close(what, *found, *wanted));
            }
            close("sd of groups", found.sd_groups, case["sd_groups"].as_f64().unwrap());
            close("sd within", found.sd_within, case["sd_within"].as_f64().unwrap());
            assert_eq!(found.df, case["df"].as_f64().unwrap());
        }
    }

    #[test]
    fn what_the_data_cannot_bear_is_refused() {
        let two = [1.0, 2.0];
        assert_eq!(random_intercept(&[], 0.95), Err(Error::TooFew));
        assert_eq!(random_intercept(&[group(&[1.0], &two)], 0.95), Err(Error::TooFew));
        let many = |x: fn(f64) -> Vec<f64>| -> Vec<Group> {
            (0..5)
                .map(|i| Group { x: x(f64::from(i)), y: vec![f64::from(i), f64::from(i * i) + 1.5] })
                .collect()
        };
        assert_eq!(random_intercept(&many(|i| vec![1.0, i, 2.0 * i + 1.0]), 0.95), Err(Error::Collinear));
        assert_eq!(random_intercept(&many(|_| vec![0.0]), 0.95), Err(Error::Collinear));
        let single: Vec<Group> = (0..5).map(|i| group(&[1.0], &[f64::from(i)])).collect();
        assert_eq!(random_intercept(&single, 0.95), Err(Error::TooFew));
        let same: Vec<Group> = (0..5).map(|i| group(&[1.0], &[f64::from(i); 2])).collect();
        assert_eq!(random_intercept(&same, 0.95), Err(Error::Constant));
        assert_eq!(
            random_intercept(&[group(&[1.0], &two), group(&[1.0, 2.0], &two)], 0.95),
            Err(Error::Lengths)
        );
        assert_eq!(random_intercept(&many(|i| vec![1.0, i]), 1.0), Err(Error::Parameter));
        assert!(random_intercept(&many(|i| vec![1.0, i]), 0.95).is_ok());
    }
}
