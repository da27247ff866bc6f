//! Distribution functions, as tails: each is accurate relative to its own size, however small it is.

mod erfc;

use erfc::erfc;
use statrs::function::{erf::erfc_inv, gamma::ln_gamma};
use std::f64::consts::{PI, SQRT_2};

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

/// The t with P(T > t) = p, for 0 < p <= 1/2. None only where it would be infinite.
pub(crate) fn t_upper_quantile(p: f64, df: f64) -> Option<f64> {
    // Bracketed, then halved on a logarithmic scale until f64 has no number left between: the tail falls steadily,
    // and a quantile is asked for too seldom for its cost to matter.
    let (mut low, mut high) = (0.0, 1.0);
    while t_sf(high, df) > p {
        low = high;
        high *= 2.0;
        if high > 1e300 {
            return None;
        }
    }
    for _ in 0..200 {
        let middle = (low + high) / 2.0;
        if middle <= low || middle >= high {
            break;
        }
        if t_sf(middle, df) > p { low = middle } else { high = middle }
    }
    Some((low + high) / 2.0)
}

/// The regularised incomplete beta function I_x(a, b), with y = 1 - x given so that neither has lost its digits.
pub(crate) fn beta(x: f64, y: f64, a: f64, b: f64) -> f64 {
    if x <= 0.0 {
        0.0
    } else if y <= 0.0 {
        1.0
    } else if x <= (a + 1.0) / (a + b + 2.0) {
        (beta_power(x, y, a, b) / a * beta_fraction(x, a, b)).clamp(0.0, 1.0)
    } else {
        (1.0 - beta_power(y, x, b, a) / b * beta_fraction(y, b, a)).clamp(0.0, 1.0)
    }
}

/// x^a y^b / B(a, b).
fn beta_power(x: f64, y: f64, a: f64, b: f64) -> f64 {
    let log = if a.min(b) >= 10.0 {
        // Relative to the peak at a / (a + b): the logarithms are small where the result is not.
        let n = a + b;
        let peak = a * log_ratio(x, a / n, y, b / n) + b * log_ratio(y, b / n, x, a / n);
        peak + 0.5 * (a * b / n / (2.0 * PI)).ln() + stirling(n) - stirling(a) - stirling(b)
    } else {
        a * log_of(x, y) + b * log_of(y, x) + ln_beta_inverse(a, b)
    };
    log.exp()
}

/// ln x, from 1 - x where x is close to one.
fn log_of(x: f64, y: f64) -> f64 {
    if y < 0.5 { (-y).ln_1p() } else { x.ln() }
}

/// ln(x / x0), where y and y0 are what x and x0 lack to one.
fn log_ratio(x: f64, x0: f64, y: f64, y0: f64) -> f64 {
    // Of x - x0 and y0 - y, which are the same, the one with more digits.
    let step = if x < y { x - x0 } else { y0 - y };
    if step.abs() < 0.5 * x0 { (step / x0).ln_1p() } else { (x / x0).ln() }
}

/// -ln B(a, b) where at least one of them is small.
fn ln_beta_inverse(a: f64, b: f64) -> f64 {
    let (small, large) = if a < b { (a, b) } else { (b, a) };
    ln_gamma_ratio(large, small) - ln_gamma(small)
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

/// The continued fraction of the incomplete beta function, by Lentz's method (Press et al. 2007, 6.4). It takes in
/// the order of the square root of the larger parameter.
fn beta_fraction(x: f64, a: f64, b: f64) -> f64 {
    const TINY: f64 = 1e-300;
    let away = |v: f64| if v.abs() < TINY { TINY } else { v };
    let mut c = 1.0;
    let mut d = 1.0 / away(1.0 - (a + b) * x / (a + 1.0));
    let mut fraction = d;
    for m in 1..1_000_000_u32 {
        let m = f64::from(m);
        let even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        d = 1.0 / away(1.0 + even * d);
        c = away(1.0 + even / c);
        fraction *= c * d;
        let odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        d = 1.0 / away(1.0 + odd * d);
        c = away(1.0 + odd / c);
        let step = c * d;
        fraction *= step;
        if (step - 1.0).abs() < 1e-15 {
            break;
        }
    }
    fraction
}

#[cfg(test)]
mod tests {
    use super::{normal_quantile, normal_sf};

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
