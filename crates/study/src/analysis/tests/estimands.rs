//! Figures that belong together are of the same runs, and what has no figure has a reason. Figures themselves are compared with those
//! of scipy and statsmodels in `tests/figures.rs`.

use super::*;
use crate::primary::Margin;

/// Rounds of these values in A and in B.
fn rounds(pairs: &[(f64, f64)]) -> Results {
    let mut results = simulated(Truth { sd: 1.0, ..Truth::default() }, 1);
    results.runs.retain(|run| run.iteration as usize <= pairs.len());
    for run in &mut results.runs {
        let (a, b) = pairs[run.iteration as usize - 1];
        let value = if run.environment == "docker" { b } else { a };
        run.metrics = [("output-throughput".to_owned(), value)].into();
    }
    results
}

fn only(results: &Results) -> Comparison {
    let mut report = report(results, Options { resamples: 200, ..Options::default() });
    assert!(report.absent.is_empty(), "{:?}", report.absent);
    report.comparisons.remove(0)
}

#[test]
fn a_difference_lies_within_its_own_interval_where_pairs_are_lost() {
    for seed in 1..=50 {
        let mut results = simulated(Truth { effect: 2.0, sd: 6.0, ..Truth::default() }, seed);
        // B's largest values are lost: the mean of all of A is another one than that of the pairs.
        for run in &mut results.runs {
            if run.environment == "docker" && run.metrics["output-throughput"] > 104.0 {
                run.failure = Some("killed".to_owned());
            }
        }
        let one = only(&results);
        let (low, high) = one.ci.unwrap();
        assert!(low < one.difference && one.difference < high, "{low} {} {high}", one.difference);
        let (n, left) = (one.a.n, one.unpaired);
        assert_eq!((one.b.n, n + left), (n, 30));
        assert!((one.b.mean - one.a.mean - one.difference).abs() < 1e-12);
        let boot = one.bootstrap.unwrap();
        assert_eq!(boot.statistic, spark_trace_statistics::bootstrap::Statistic::MedianOfDifferences);
    }
}

#[test]
fn pairs_that_all_differ_by_the_same_are_tested_as_pairs() {
    let pairs: Vec<(f64, f64)> =
        (0..10).map(|k| (100.0 + f64::from(k * 7 % 10), 103.0 + f64::from(k * 7 % 10))).collect();
    let one = only(&rounds(&pairs));
    assert_eq!((one.difference, one.varies, one.ci), (3.0, false, None));
    // Two of the 1024 ways to sign ten differences.
    assert_eq!((one.test, one.p), ("the signs of equal pairs", Some(2.0 / 1024.0)));
    assert_eq!(one.verdict, Verdict::Different, "{}", one.because);
    // Three pairs could have come so by chance: one in four does.
    let few = only(&rounds(&pairs[..3]));
    assert_eq!((few.p, few.verdict), (Some(0.25), Verdict::Undecided), "{}", few.because);
}

#[test]
fn values_without_spread_use_the_margin() {
    let near = only(&rounds(&[(70.0, 70.0001); 10]));
    assert_eq!(near.verdict, Verdict::Equivalent, "{}", near.because);
    let far = only(&rounds(&[(70.0, 75.0); 10]));
    assert_eq!(far.verdict, Verdict::Different, "{}", far.because);
    let same = only(&rounds(&[(70.0, 70.0); 4]));
    assert_eq!((same.verdict, same.p), (Verdict::Equivalent, Some(1.0)), "{}", same.because);
}

#[test]
fn what_cannot_be_computed_has_a_row_that_says_why() {
    for scale in [1e307, 1e200, 1e-200, 5e-324] {
        let pairs: Vec<(f64, f64)> =
            (1..=8).map(|k| (scale * f64::from(k), scale * f64::from(9 - k))).collect();
        let report = report(&rounds(&pairs), Options { resamples: 0, ..Options::default() });
        let rows: Vec<(Verdict, &str)> =
            (report.comparisons.iter().map(|row| (row.verdict, row.because.as_str())))
                .chain(report.absent.iter().map(|row| (row.verdict, row.because.as_str())))
                .collect();
        let [(verdict, because)] = rows[..] else { panic!("{scale:e}: {rows:?}") };
        assert_eq!(verdict, Verdict::NotComparable, "{scale:e}");
        assert!(because.contains("compute"), "{scale:e}: {because}");
    }
}

#[test]
fn a_temperature_has_no_margin_but_one_in_its_unit() {
    let mut results = simulated(Truth { sd: 0.3, ..Truth::default() }, 1);
    for run in &mut results.runs {
        let value = run.metrics["output-throughput"];
        run.metrics = [("gpu-temperature".to_owned(), value - 55.0)].into();
    }
    let one = only(&results);
    assert_eq!((one.margin, &one.ratio, one.relative), (None, &None, None));
    assert_eq!(one.verdict, Verdict::Undecided, "{}", one.because);
    let margin = Some(Margin::Within(1.0));
    results.primary = vec![Primary { metric: "gpu-temperature".to_owned(), hypothesis: None, margin }];
    let one = only(&results);
    assert_eq!((one.margin, one.verdict), (Some(1.0), Verdict::Equivalent), "{}", one.because);
    assert!(one.because.contains("the same within 1 degC"), "{}", one.because);
}

#[test]
fn primary_metrics_are_adjusted_among_themselves() {
    let mut results = simulated(Truth { effect: 5.0, sd: 8.0, ..Truth::default() }, 2);
    let mut random = Xoshiro256::new(7);
    for run in &mut results.runs {
        for k in 0..40 {
            run.metrics.insert(format!("noise-{k}"), 100.0 + normal(&mut random));
        }
    }
    let report = report(&results, Options { resamples: 0, ..Options::default() });
    assert_eq!(report.families, families::Sizes { primary: 1, exploratory: 40, derived: 0 });
    let one = &report.comparisons[0];
    // Forty other metrics cost it nothing.
    assert_eq!((one.role, one.p_holm, one.p_fdr), (Role::Primary, one.p, None));
    let other = &report.comparisons[1];
    assert!(other.p_holm.is_none() && other.p_fdr.unwrap() >= other.p.unwrap());
    assert_eq!(one.ci_simultaneous, one.ci);
}

#[test]
fn intervals_that_all_hold_at_once_belong_to_bonferroni() {
    let mut results = simulated(Truth { effect: 4.0, sd: 8.0, ..Truth::default() }, 3);
    let metrics = ["output-throughput", "peak-memory", "kv-cache"];
    let mut random = Xoshiro256::new(9);
    for run in &mut results.runs {
        let value = run.metrics["output-throughput"];
        run.metrics =
            metrics.iter().map(|name| ((*name).to_owned(), value + 8.0 * normal(&mut random))).collect();
    }
    let report = report(&results, Options { resamples: 0, ..Options::default() });
    for row in &report.comparisons {
        let (low, high) = row.ci_simultaneous.unwrap();
        assert_eq!(low > 0.0 || high < 0.0, row.p_bonferroni.unwrap() < 0.05, "{row:?}");
        assert!(low < row.ci.unwrap().0 && high > row.ci.unwrap().1);
    }
}

#[test]
fn a_wild_run_that_decides_is_named() {
    let mut results = simulated(Truth { effect: 3.0, sd: 1.0, ..Truth::default() }, 1);
    let wild =
        results.runs.iter_mut().find(|run| run.iteration == 12 && run.environment == "docker").unwrap();
    wild.metrics.insert("output-throughput".to_owned(), 20.0);
    let one = only(&results);
    assert_eq!(one.verdict, Verdict::Undecided, "{}", one.because);
    assert!(one.because.contains("a few runs hide what the others show"), "{}", one.because);
    // The effect is 3: neither the shift nor the trimmed means are far from it.
    let (shift, trimmed) = (one.shift.unwrap(), one.trimmed.unwrap());
    assert!((shift.estimate - 3.0).abs() < 0.7 && (trimmed.difference - 3.0).abs() < 0.7);
}
