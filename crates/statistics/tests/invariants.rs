//! What holds for any input.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use proptest::{collection::vec, prelude::*};
use serde::Serialize;
use serde_json::Value;
use spark_trace_statistics::{
    Error, LEVEL, association, bootstrap, describe, effect, equivalence, multiple, normality, outliers,
    power, rank, series, spread, t,
};

fn close(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-9 * a.abs().max(b.abs()) + 1e-12
}

/// Values that a thousandth is added to or that are doubled without rounding.
fn sample() -> impl Strategy<Value = Vec<f64>> {
    vec((-50_000_i32..50_000).prop_map(|x| f64::from(x) / 64.0), 2..30)
}

/// Anything f64 has, with runs of equal values.
fn anything() -> impl Strategy<Value = Vec<f64>> {
    let value = prop_oneof![
        any::<f64>(),
        Just(0.0),
        Just(-0.0),
        Just(1.0),
        Just(f64::MAX),
        Just(f64::MIN_POSITIVE),
        (-3_i32..3).prop_map(f64::from),
        -1e-300..1e-300,
    ];
    vec(value, 0..12)
}

fn scaled(x: &[f64], factor: f64, shift: f64) -> Vec<f64> {
    x.iter().map(|x| x * factor + shift).collect()
}

/// Fails where a number in a result is none: JSON has no infinity and makes null of it, and of no field that is
/// not an Option.
fn numbers<T: Serialize + std::fmt::Debug>(
    result: Result<T, Error>,
    options: &[&str],
) -> Result<(), TestCaseError> {
    fn walk(value: &Value, key: &str, options: &[&str]) -> bool {
        match value {
            Value::Null => options.contains(&key),
            Value::Array(list) => list.iter().all(|value| walk(value, key, options)),
            Value::Object(fields) => fields.iter().all(|(key, value)| walk(value, key, options)),
            Value::Number(p) if key == "p" => (0.0..=1.0).contains(&p.as_f64().unwrap()),
            _ => true,
        }
    }
    if let Ok(result) = result {
        let value = serde_json::to_value(&result).unwrap();
        prop_assert!(walk(&value, "", options), "{result:?}");
    }
    Ok(())
}

proptest! {
    // Searches over the noncentral t take long in builds that are not optimised.
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn nothing_panics_and_every_number_is_one(a in anything(), b in anything(), d in any::<f64>()) {
        use bootstrap::Statistic::{DifferenceOfMeans, DifferenceOfMedians};
        numbers(describe(&a).ok_or(Error::TooFew), &["sd", "cv"])?;
        for test in [t::welch, t::student, t::paired] {
            numbers(test(&a, &b, LEVEL), &[])?;
        }
        for effect in [effect::cohen_d, effect::hedges_g, effect::cohen_dz] {
            numbers(effect(&a, &b, LEVEL), &[])?;
        }
        numbers(rank::mann_whitney(&a, &b), &[])?;
        numbers(rank::wilcoxon(&a), &[])?;
        numbers(normality::shapiro_wilk(&a), &[])?;
        numbers(spread::brown_forsythe(&[&a, &b]), &[])?;
        numbers(equivalence::tost(&a, &b, -1.0, 1.0, 0.05), &[])?;
        numbers(equivalence::tost_paired(&a, &b, -1.0, d, 0.05), &[])?;
        for statistic in [DifferenceOfMeans, DifferenceOfMedians] {
            numbers(bootstrap::ci(&a, &b, statistic, 20, LEVEL, 1), &["bca"])?;
        }
        numbers(series::lag1(&a), &[])?;
        numbers(series::mann_kendall(&a), &[])?;
        numbers(series::theil_sen(&a), &[])?;
        numbers(outliers::tukey(&a), &[])?;
        numbers(association::linear_fit(&a, &b), &["residual_sd", "r2"])?;
        numbers(multiple::holm(&a), &[])?;
        numbers(multiple::bonferroni(&a), &[])?;
        if d.abs() < 1e6 {
            numbers(power::two_sample(d, 5, 7, 0.05), &[])?;
            numbers(power::n_for(d, 0.8, 0.05), &[])?;
        }
    }

    #[test]
    fn the_other_way_round_signs_change(a in sample(), b in sample()) {
        for test in [t::welch, t::student] {
            if let (Ok(there), Ok(back)) = (test(&a, &b, LEVEL), test(&b, &a, LEVEL)) {
                prop_assert!(close(there.statistic, -back.statistic) && close(there.p, back.p));
                prop_assert!(close(there.ci.0, -back.ci.1) && close(there.df, back.df));
            }
        }
        if let (Ok(there), Ok(back)) = (effect::hedges_g(&a, &b, 0.9), effect::hedges_g(&b, &a, 0.9)) {
            prop_assert!(close(there.value, -back.value) && close(there.ci.0, -back.ci.1));
        }
        if let (Ok(there), Ok(back)) = (rank::mann_whitney(&a, &b), rank::mann_whitney(&b, &a)) {
            prop_assert!(close(there.p, back.p) && close(there.shift, -back.shift));
            prop_assert_eq!(there.u + back.u, (a.len() * b.len()) as f64);
        }
        if let (Ok(there), Ok(back)) = (rank::wilcoxon(&a), rank::wilcoxon(&scaled(&a, -1.0, 0.0))) {
            prop_assert!(close(there.p, back.p) && close(there.shift, -back.shift));
        }
    }

    #[test]
    fn neither_place_nor_scale_matters(a in sample(), b in sample(), shift in -1_000_000_i32..1_000_000) {
        let moved = |x: &[f64]| scaled(x, 4.0, f64::from(shift));
        let (a4, b4) = (moved(&a), moved(&b));
        if let (Ok(one), Ok(other)) = (t::welch(&a, &b, LEVEL), t::welch(&a4, &b4, LEVEL)) {
            prop_assert!(close(one.statistic, other.statistic) && close(one.p, other.p) && close(one.df, other.df));
            prop_assert!(close(one.difference * 4.0, other.difference) && close(one.ci.0 * 4.0, other.ci.0));
        }
        prop_assert_eq!(rank::mann_whitney(&a, &b).map(|test| test.p), rank::mann_whitney(&a4, &b4).map(|test| test.p));
        if let (Ok(one), Ok(other)) = (normality::shapiro_wilk(&a), normality::shapiro_wilk(&a4)) {
            prop_assert!(close(one.w, other.w) && (one.p - other.p).abs() < 1e-9);
        }
        if let (Ok(one), Ok(other)) = (series::lag1(&a), series::lag1(&a4)) {
            prop_assert!(close(one.r, other.r) && close(one.p, other.p));
        }
        prop_assert_eq!(series::mann_kendall(&a), series::mann_kendall(&a4));
        if let (Ok(one), Ok(other)) = (effect::cohen_d(&a, &b, LEVEL), effect::cohen_d(&a4, &b4, LEVEL)) {
            prop_assert!(close(one.value, other.value) && close(one.ci.0, other.ci.0) && close(one.ci.1, other.ci.1));
        }
    }

    #[test]
    fn intervals_hold_what_they_are_of(a in sample(), b in sample(), level in 0.5..0.999) {
        let within = |(low, high): (f64, f64), x: f64| low <= x && x <= high;
        for test in [t::welch, t::student] {
            if let Ok(test) = test(&a, &b, level) {
                prop_assert!(within(test.ci, test.difference), "{:?}", test);
                // The interval leaves zero out exactly where the test rejects.
                prop_assert!(within(test.ci, 0.0) == (test.p > 1.0 - level) || close(test.p, 1.0 - level));
            }
        }
        if let Ok(d) = effect::cohen_d(&a, &b, level) {
            let p = t::student(&a, &b, level).unwrap().p;
            prop_assert!(within(d.ci, d.value) || a.len() + b.len() < 8, "{:?}", d);
            prop_assert!(within(d.ci, 0.0) == (p > 1.0 - level) || (p - 1.0 + level).abs() < 1e-9);
        }
        if let Ok(test) = equivalence::tost(&a, &b, -300.0, 400.0, (1.0 - level) / 2.0) {
            prop_assert_eq!(test.equivalent, test.ci.0 > -300.0 && test.ci.1 < 400.0);
        }
    }

    #[test]
    fn quantiles_are_in_order(a in sample()) {
        let d = describe(&a).unwrap();
        let order = [d.min, d.q1, d.median, d.q3, d.max];
        prop_assert!(order.is_sorted() && d.min <= d.mean && d.mean <= d.max, "{:?}", d);
    }

    #[test]
    fn adjusted_p_keep_their_order(p in vec(0.0..=1.0_f64, 0..30)) {
        let (holm, bonferroni) = (multiple::holm(&p).unwrap(), multiple::bonferroni(&p).unwrap());
        for i in 0..p.len() {
            prop_assert!(p[i] <= holm[i] && holm[i] <= bonferroni[i] && bonferroni[i] <= 1.0);
            for j in 0..p.len() {
                prop_assert!(p[i] > p[j] || holm[i] <= holm[j]);
            }
        }
    }

    #[test]
    fn power_rises(d in 0.05..3.0_f64, n in 2_usize..60, power in 0.3..0.99) {
        let at = |d: f64, n: usize| power::two_sample(d, n, n, 0.05).unwrap();
        prop_assert!(at(d, n) < at(d, n + 1) + 1e-12 && at(d, n) < at(d * 1.1, n) + 1e-12);
        prop_assert!(close(at(d, n), at(-d, n)) && at(d, n) > 0.05);
        let needed = power::n_for(d, power, 0.05).unwrap();
        prop_assert!(at(d, needed) >= power && (needed == 2 || at(d, needed - 1) < power));
    }

    #[test]
    fn a_seed_is_an_answer(a in sample(), b in sample(), seed in any::<u64>()) {
        let means = bootstrap::Statistic::DifferenceOfMeans;
        let once = bootstrap::ci(&a, &b, means, 60, LEVEL, seed).unwrap();
        prop_assert_eq!(&once, &bootstrap::ci(&a, &b, means, 60, LEVEL, seed).unwrap());
        prop_assert!(once.percentile.0 <= once.percentile.1 && once.bca.is_none_or(|(low, high)| low <= high));
    }
}

#[test]
fn many_values_take_no_long_time() {
    let x: Vec<f64> = (0..20_000).map(|i| f64::from(i * 7919 % 10_007)).collect();
    let y = scaled(&x, 1.0, 3.5);
    assert_eq!(rank::mann_whitney(&x, &y).unwrap().shift, 3.5);
    assert!(rank::wilcoxon(&y).unwrap().p < 1e-300);
    assert!(series::mann_kendall(&x).is_ok());
    assert_eq!(series::theil_sen(&x), Err(Error::TooMany));
    assert!(rank::mann_whitney(&x[..8], &scaled(&x[..10_000], 1.0, 0.5)).unwrap().exact);
    // 2 ((1.96 + 0.84) / d)².
    assert!((15_690_000..15_710_000).contains(&power::n_for(0.001, 0.8, 0.05).unwrap()));
    assert!(effect::cohen_d(&[4096.0, 4096.0, 4096.5], &[1e12, 1e12, 1e12 + 1.0], LEVEL).is_ok());
}

#[test]
fn a_ratio_without_degrees_of_freedom_is_out_of_range() {
    use spark_trace_statistics::{Error, ratio};
    // Nothing of B varies, and nothing is all that it has: Welch's degrees of freedom are 0 / 0.
    assert_eq!(ratio::welch(&[1.0, 2.0, 3.0], &[0.0, 0.0, 0.0], 0.95), Err(Error::Range));
    // Squares that f64 cannot carry.
    assert!(ratio::welch(&[1e-200, 2e-200, 3e-200], &[1e-200, 2e-200, 4e-200], 0.95).is_err());
}
