//! Distribution functions, as tails: each is accurate relative to its own size, however small it is.

mod erfc;

use erfc::erfc;
use statrs::function::{beta::beta_reg, erf::erfc_inv, gamma::ln_gamma};
use std::f64::consts::SQRT_2;

/// P(Z > z) of the standard normal.
pub(crate) fn normal_sf(z: f64) -> f64 {
    0.5 * erfc(z / SQRT_2)
}

/// P(|Z| > |z|), at most one.
pub(crate) fn normal_two_sided(z: f64) -> f64 {
    erfc(z.abs() / SQRT_2).min(1.0)
}

/// The z with P(Z <= z) = p, for 0 < p < 1.
pub(crate) fn normal_quantile(p: f64) -> f64 {
    -SQRT_2 * erfc_inv(2.0 * p)
}

/// P(T > t) of Student's t.
pub(crate) fn t_sf(t: f64, df: f64) -> f64 {
    let half = t_two_sided(t, df) / 2.0;
    if t < 0.0 { 1.0 - half } else { half }
}

/// P(|T| > |t|) of Student's t: the regularised incomplete beta function at df / (df + t²).
pub(crate) fn t_two_sided(t: f64, df: f64) -> f64 {
    if t.is_infinite() {
        return 0.0;
    }
    // Through the quotient: t² itself may overflow.
    let q = t.abs() / df.sqrt();
    let (x, y) = if q <= 1.0 {
        let q2 = q * q;
        (1.0 / (1.0 + q2), q2 / (1.0 + q2))
    } else {
        let r2 = (1.0 / q).powi(2);
        (r2 / (1.0 + r2), 1.0 / (1.0 + r2))
    };
    beta(x, y, df / 2.0, 0.5)
}

/// P(F > f) of the F distribution.
pub(crate) fn f_sf(f: f64, df1: f64, df2: f64) -> f64 {
    let q = df1 * f / df2;
    beta(1.0 / (1.0 + q), q / (1.0 + q), df2 / 2.0, df1 / 2.0)
}

/// The t with P(T > t) = p, for 0 < p <= 1/2. None where it would be infinite, and where the degrees of freedom are no
/// positive number: they are quotients, which f64 may not carry.
pub(crate) fn t_upper_quantile(p: f64, df: f64) -> Option<f64> {
    if df.is_nan() || df <= 0.0 {
        return None;
    }
    let (mut low, mut high) = (0.0, 1.0);
    while t_sf(high, df) > p {
        low = high;
        high *= 2.0;
        if high > 1e300 {
            return None;
        }
    }
    // The tail's logarithm is nearly a line between two points that are a factor of two apart: regula falsi with the
    // Illinois rule (Dowell & Jarratt 1971) needs some ten steps, halving a hundred.
    let target = p.ln();
    let above = |t: f64| t_sf(t, df).ln() - target;
    let (mut at_low, mut at_high) = (above(low), above(high));
    // Which end stayed at the last step.
    let mut stayed = None;
    for _ in 0..200 {
        let secant = low + (high - low) * (at_low / (at_low - at_high));
        // Halved where a tail that f64 cannot carry has no logarithm.
        let inside = |t: f64| t > low && t < high;
        let middle = if inside(secant) { secant } else { (low + high) / 2.0 };
        if !inside(middle) {
            break;
        }
        let at_middle = above(middle);
        if at_middle.abs() <= f64::EPSILON * (1.0 - target) {
            return Some(middle);
        }
        let end = at_middle > 0.0;
        if end {
            (low, at_low) = (middle, at_middle);
            if stayed == Some(true) {
                at_high /= 2.0;
            }
        } else {
            (high, at_high) = (middle, at_middle);
            if stayed == Some(false) {
                at_low /= 2.0;
            }
        }
        stayed = Some(end);
    }
    Some((low + high) / 2.0)
}

fn beta(x: f64, y: f64, a: f64, b: f64) -> f64 {
    if x <= (a + 1.0) / (a + b + 2.0) { beta_reg(a, b, x) } else { 1.0 - beta_reg(b, a, y) }
}

/// ln(Γ(x + d) / Γ(x)): the two have most of their digits in common where x is large.
pub(crate) fn ln_gamma_ratio(x: f64, d: f64) -> f64 {
    if x < 10.0 {
        return ln_gamma(x + d) - ln_gamma(x);
    }
    d * (x + d).ln() + (x - 0.5) * (d / x).ln_1p() - d + stirling(x + d) - stirling(x)
}

/// What ln Γ(x) is more than (x - 1/2) ln x - x + ln(2π) / 2 (Abramowitz & Stegun 1964, 6.1.41); x >= 10.
fn stirling(x: f64) -> f64 {
    const TERMS: [f64; 8] = [
        1.0 / 12.0,
        -1.0 / 360.0,
        1.0 / 1260.0,
        -1.0 / 1680.0,
        1.0 / 1188.0,
        -691.0 / 360_360.0,
        1.0 / 156.0,
        -3617.0 / 122_400.0,
    ];
    let square = 1.0 / (x * x);
    TERMS.iter().rev().fold(0.0, |sum, term| sum * square + term) / x
}

#[cfg(test)]
mod tests {
    use super::{normal_quantile, normal_sf, t_sf, t_upper_quantile};

    #[test]
    fn a_quantile_has_its_tail_above_it() {
        for df in [0.3, 1.0, 2.5, 7.0, 29.0, 58.3, 1e4] {
            for p in [0.5, 0.4999, 0.25, 0.05, 0.025, 1e-3, 1e-6, 1e-12, 1e-40] {
                let t = t_upper_quantile(p, df).unwrap();
                let tail = t_sf(t, df);
                // The tail itself has eleven digits where there are many degrees of freedom.
                assert!(
                    (tail / p - 1.0).abs() < 1e-11 || df >= 1e4 && (tail / p - 1.0).abs() < 1e-9,
                    "{df} {p}: {t} {tail}"
                );
            }
        }
        assert_eq!([f64::NAN, 0.0, -1.0].map(|df| t_upper_quantile(0.025, df)), [None; 3]);
    }

    /// By scipy.stats.norm.sf.
    #[test]
    fn tails_of_the_normal_have_all_their_digits() {
        for (z, p) in [
            (-6.0, 0.999_999_999_013_412_3),
            (0.3, 0.382_088_577_811_047_4),
            (1.0, 0.158_655_253_931_457_07),
            (3.0, 0.001_349_898_031_630_093_3),
            (5.0, 2.866_515_718_791_933e-7),
            (8.0, 6.220_960_574_271_74e-16),
            (12.0, 1.776_482_112_077_653e-33),
            (20.0, 2.753_624_118_606_155_6e-89),
            (30.0, 4.906_713_927_147_908e-198),
            (37.0, 5.725_571_222_523_926_6e-300),
        ] {
            assert!((normal_sf(z) / p - 1.0).abs() < 1e-12, "{z}: {:e}", normal_sf(z) / p - 1.0);
            assert!(z < 0.0 || (normal_quantile(p) + z).abs() < 1e-13 * z.abs(), "{z}");
        }
        assert_eq!(normal_sf(50.0), 0.0);
    }
}
