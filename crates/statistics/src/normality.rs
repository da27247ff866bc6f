//! Whether a sample could be from a normal distribution.

use crate::{
    Error,
    numeric::{check, count, sorted},
    special::normal_sf,
};
use serde::Serialize;

/// The test of Shapiro and Wilk.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ShapiroWilk {
    /// W, at most one: how straight the normal plot is.
    pub w: f64,
    /// Small where the sample is not normal. An approximation, except for three values.
    pub p: f64,
}

/// Polynomials of Royston (1995, AS R94), lowest power first.
const FIRST: [f64; 6] = [0.0, 0.221_157, -0.147_981, -2.071_190, 4.434_685, -2.706_056];
const SECOND: [f64; 6] = [0.0, 0.042_981, -0.293_762, -1.752_461, 5.682_633, -3.582_633];
const FEW_MEAN: [f64; 4] = [0.5440, -0.399_78, 0.025_054, -0.000_671_4];
const FEW_LOG_SD: [f64; 4] = [1.3822, -0.778_57, 0.062_767, -0.002_032_2];
const FEW_LIMIT: [f64; 2] = [-2.273, 0.459];
const MANY_MEAN: [f64; 4] = [-1.5861, -0.310_82, -0.083_751, 0.003_891_5];
const MANY_LOG_SD: [f64; 3] = [-0.4803, -0.082_676, 0.003_030_2];

/// The test of Shapiro & Wilk (1965) by Royston's approximation (1995, AS R94), for 3 to 5000 values
/// ([`Error::TooFew`], [`Error::TooMany`]) that vary ([`Error::Constant`]).
pub fn shapiro_wilk(x: &[f64]) -> Result<ShapiroWilk, Error> {
    check(x, 3)?;
    if x.len() > 5000 {
        return Err(Error::TooMany);
    }
    let x = sorted(x);
    // Neither place nor scale matters to W; both would cost digits.
    let (middle, range) = (x[x.len() / 2], x[x.len() - 1] - x[0]);
    if range == 0.0 {
        return Err(Error::Constant);
    }
    if !(range.is_normal()) {
        return Err(Error::Range);
    }
    let x: Vec<f64> = x.iter().map(|x| (x - middle) / range).collect();
    let n = count(x.len());
    let mean = x.iter().sum::<f64>() / n;
    let half = weights(x.len());
    let weight = |i: usize| match (i + 1).cmp(&(x.len() - i)) {
        std::cmp::Ordering::Less => -half[i],
        std::cmp::Ordering::Equal => 0.0,
        std::cmp::Ordering::Greater => half[x.len() - 1 - i],
    };
    let (mut weights, mut squares, mut products) = (0.0, 0.0, 0.0);
    for (i, x) in x.iter().enumerate() {
        weights += weight(i) * weight(i);
        squares += (x - mean) * (x - mean);
        products += weight(i) * (x - mean);
    }
    let product = (weights * squares).sqrt();
    // What W lacks to one, from the difference of squares.
    let lack = ((product - products) * (product + products) / (weights * squares)).clamp(0.0, 1.0);
    let w = 1.0 - lack;
    Ok(if x.len() == 3 {
        let w = w.max(0.75);
        let p = 1.0 - 6.0 / std::f64::consts::PI * w.sqrt().acos();
        ShapiroWilk { w, p: p.clamp(0.0, 1.0) }
    } else {
        ShapiroWilk { w, p: significance(lack, n) }
    })
}

/// What W lacks to one is taken as log-normal.
fn significance(lack: f64, n: f64) -> f64 {
    let y = lack.ln();
    let (y, mean, sd) = if n <= 11.0 {
        let limit = polynomial(&FEW_LIMIT, n);
        if y >= limit {
            return 0.0;
        }
        (-(limit - y).ln(), polynomial(&FEW_MEAN, n), polynomial(&FEW_LOG_SD, n).exp())
    } else {
        (y, polynomial(&MANY_MEAN, n.ln()), polynomial(&MANY_LOG_SD, n.ln()).exp())
    };
    normal_sf((y - mean) / sd).min(1.0)
}

/// The weights of the upper half of the values, largest first.
fn weights(n: usize) -> Vec<f64> {
    if n == 3 {
        return vec![0.5_f64.sqrt()];
    }
    let scores: Vec<f64> =
        (1..=n / 2).map(|i| normal_score((count(i) - 0.375) / (count(n) + 0.25))).collect();
    let squares = 2.0 * scores.iter().map(|m| m * m).sum::<f64>();
    let root = 1.0 / count(n).sqrt();
    let mut ends = vec![polynomial(&FIRST, root) - scores[0] / squares.sqrt()];
    if n > 5 {
        ends.push(polynomial(&SECOND, root) - scores[1] / squares.sqrt());
    }
    let left = squares - 2.0 * scores[..ends.len()].iter().map(|m| m * m).sum::<f64>();
    let scale = (left / (1.0 - 2.0 * ends.iter().map(|a| a * a).sum::<f64>())).sqrt();
    let rest = scores[ends.len()..].iter().map(|m| -m / scale);
    ends.iter().copied().chain(rest).collect()
}

/// The normal quantile to seven digits by Beasley & Springer (1977, AS 111). R94's polynomials were fitted to
/// scores of about that accuracy, and scipy has it: better quantiles would only move W away from both.
fn normal_score(p: f64) -> f64 {
    const A: [f64; 4] = [2.506_628_238_84, -18.615_000_625_29, 41.391_197_735_34, -25.441_060_496_37];
    const B: [f64; 5] = [1.0, -8.473_510_930_90, 23.083_367_437_43, -21.062_241_018_26, 3.130_829_098_33];
    const C: [f64; 4] = [-2.787_189_311_38, -2.297_964_791_34, 4.850_141_271_35, 2.321_212_768_58];
    const D: [f64; 3] = [1.0, 3.543_889_247_62, 1.637_067_818_97];
    let q = p - 0.5;
    if q.abs() <= 0.42 {
        return q * polynomial(&A, q * q) / polynomial(&B, q * q);
    }
    let r = (-(p.min(1.0 - p)).ln()).sqrt();
    q.signum() * polynomial(&C, r) / polynomial(&D, r)
}

fn polynomial(terms: &[f64], x: f64) -> f64 {
    terms.iter().rev().fold(0.0, |sum, term| sum * x + term)
}
