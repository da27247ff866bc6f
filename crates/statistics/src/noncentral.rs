//! The noncentral t distribution: of (Z + ncp) / S, where Z is standard normal and S² is chi-squared over its
//! degrees of freedom.
//!
//! Both tails are integrals of products of positive functions, so neither loses digits to cancellation. The
//! integrands are smooth and fall to nothing at both ends: there the trapezoidal rule converges exponentially
//! (Trefethen & Weideman 2014), and its step follows from how fast the integrand grows off the real axis.

use crate::{
    Error,
    numeric::{finite, sum},
    special::normal_sf,
};
use statrs::function::gamma::{gamma_lr, gamma_ur};
use std::f64::consts::PI;

/// e to minus this is nothing next to what is computed: integrals end there, and their steps are made for it.
const NOTHING: f64 = 80.0;
/// Above this noncentrality, the integral over S takes more steps than the one over Z.
const LARGE: f64 = 50.0;

/// P(T <= t) of the noncentral t distribution with `df` > 0 degrees of freedom and noncentrality `ncp`.
///
/// Accurate to about 1e-12, relative to itself where it is above 1e-15. None where an argument is not finite or `df` is not
/// positive.
pub fn noncentral_t_cdf(t: f64, df: f64, ncp: f64) -> Option<f64> {
    tails(t, df, ncp).map(|tails| tails.below)
}

/// P(T > t), as [`noncentral_t_cdf`].
pub fn noncentral_t_sf(t: f64, df: f64, ncp: f64) -> Option<f64> {
    tails(t, df, ncp).map(|tails| tails.above)
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Tails {
    pub(crate) below: f64,
    pub(crate) above: f64,
}

pub(crate) fn tails(t: f64, df: f64, ncp: f64) -> Option<Tails> {
    if !(t.is_finite() && df.is_finite() && ncp.is_finite() && df > 0.0) {
        return None;
    }
    Some(if t == 0.0 {
        Tails { below: normal_sf(ncp), above: normal_sf(-ncp) }
    } else if t < 0.0 {
        // -T has the noncentrality -ncp.
        let mirrored = right_of_zero(-t, df, -ncp);
        Tails { below: mirrored.above, above: mirrored.below }
    } else {
        right_of_zero(t, df, ncp)
    })
}

fn right_of_zero(t: f64, df: f64, ncp: f64) -> Tails {
    if ncp < -LARGE {
        // P(Z > 50) is nothing in f64.
        Tails { below: 1.0, above: 0.0 }
    } else if ncp > LARGE {
        over_normal(t, df, ncp)
    } else {
        over_scale(t, df, ncp)
    }
}

/// P(T <= t) = E Φ(t S - ncp), over u = ln S: its density is that of e^(df (u - e^(2u) / 2)), up to a factor.
fn over_scale(t: f64, df: f64, ncp: f64) -> Tails {
    // Zero at its highest point, u = 0. Of u > 0 and u < 0, each side has one place where it has fallen to nothing.
    let log_density = |u: f64| df * (u - (2.0 * u).exp_m1() / 2.0);
    let end = |outside: f64| {
        let (mut inside, mut outside) = (0.0, outside);
        for _ in 0..60 {
            let middle = (inside + outside) / 2.0;
            if log_density(middle) > -NOTHING { inside = middle } else { outside = middle }
        }
        outside
    };
    let (low, high) =
        (end(-NOTHING / df - 1.0 - (2.0 * NOTHING / df).sqrt()), end(1.0 + (NOTHING / df).sqrt()));
    // At u + iy, the density grows by e^(df y²), and Φ, where it still changes, by e^((|ncp| + 9)² y² / 2).
    let step = PI / (NOTHING * (df + (ncp.abs() + 9.0).powi(2) / 2.0)).sqrt();
    let steps = ((high - low) / step).ceil() as usize;
    let node = |i: usize| low + step * i as f64;
    integrate(steps, |i| {
        let weight = log_density(node(i)).exp();
        let z = t * node(i).exp() - ncp;
        (weight, weight * normal_sf(-z), weight * normal_sf(z))
    })
}

/// P(T <= t) = E P(S >= (Z + ncp) / t), over Z, where Z + ncp < 0 is out of the question.
fn over_normal(t: f64, df: f64, ncp: f64) -> Tails {
    const END: f64 = 12.0;
    let step = PI / (NOTHING * (0.5 + df / (ncp - END).powi(2))).sqrt();
    let steps = (2.0 * END / step).ceil() as usize;
    integrate(steps, |i| {
        let z = step * i as f64 - END;
        let weight = (-z * z / 2.0).exp();
        let chi = df / 2.0 * ((z + ncp) / t).powi(2);
        let (below, above) = if chi == 0.0 {
            (1.0, 0.0)
        } else if chi > 1e6 + 1e3 * df {
            (0.0, 1.0)
        } else {
            (gamma_ur(df / 2.0, chi), gamma_lr(df / 2.0, chi))
        };
        (weight, weight * below, weight * above)
    })
}

/// Sums a weight and what it weighs; the sum of the weights is what makes them probabilities.
fn integrate(steps: usize, at: impl Fn(usize) -> (f64, f64, f64)) -> Tails {
    let (mut whole, mut below, mut above) = (vec![], vec![], vec![]);
    for i in 0..=steps {
        let (weight, b, a) = at(i);
        whole.push(weight);
        below.push(b);
        above.push(a);
    }
    let whole = sum(whole);
    Tails { below: (sum(below) / whole).min(1.0), above: (sum(above) / whole).min(1.0) }
}

/// The noncentralities at which `t` is the upper and the lower `(1 - level) / 2` point: the confidence interval of
/// the noncentrality that gave `t` (Steiger & Fouladi 1997).
pub(crate) fn interval(t: f64, df: f64, level: f64) -> Result<(f64, f64), Error> {
    let tail = (1.0 - level) / 2.0;
    let lower = solve(t, df, 1.0, |ncp| Some((tails(t, df, ncp)?.above / tail).ln()))?;
    let upper = solve(t, df, -1.0, |ncp| Some(-(tails(t, df, ncp)?.below / tail).ln()))?;
    Ok((lower, upper))
}

/// The root of a rising function; `away` is the side of `t` it lies on, reversed.
fn solve(t: f64, df: f64, away: f64, f: impl Fn(f64) -> Option<f64>) -> Result<f64, Error> {
    // Zero probabilities are below any; what is above all has no logarithm worth having.
    let f = |x: f64| f(x).map(|y| y.clamp(-1e3, 1e3)).ok_or(Error::Range);
    let spread = (1.0 + t * t / (2.0 * df)).sqrt();
    let (mut low, mut high) = (t - spread * (1.0 + away), t + spread * (1.0 - away));
    let mut width = spread;
    let (mut at_low, mut at_high) = (f(low)?, f(high)?);
    while at_low > 0.0 {
        (high, at_high) = (low, at_low);
        low -= width;
        width *= 2.0;
        at_low = f(finite(low)?)?;
    }
    while at_high < 0.0 {
        (low, at_low) = (high, at_high);
        high += width;
        width *= 2.0;
        at_high = f(finite(high)?)?;
    }
    // False position with the end that stays weakened (Illinois; Dowell & Jarratt 1971), halved where it creeps.
    for i in 0..200 {
        let middle =
            if i % 8 == 7 { (low + high) / 2.0 } else { high - at_high * (high - low) / (at_high - at_low) };
        let middle = if middle > low && middle < high { middle } else { (low + high) / 2.0 };
        if middle <= low || middle >= high || high - low <= 1e-15 * (low.abs() + high.abs()) {
            break;
        }
        let at = f(middle)?;
        if at == 0.0 {
            return Ok(middle);
        }
        if at < 0.0 {
            (low, at_low) = (middle, at);
            at_high /= 2.0;
        } else {
            (high, at_high) = (middle, at);
            at_low /= 2.0;
        }
    }
    Ok(low + (high - low) / 2.0)
}
