//! Studies in which runs fail, with a truth that is known.

use super::*;
use crate::journal::LOST;

/// Which runs fail.
#[derive(Debug, Clone, Copy)]
enum Fails {
    /// Values above this, in the environment: what needs most memory is killed.
    Above(&'static str, f64),
    Below(&'static str, f64),
    /// Values above this in both.
    AboveInBoth(f64),
    /// So many of the environment's, whatever their values.
    Some(&'static str, u32),
}

/// The study with such failures; they keep no value.
fn failing(truth: Truth, fails: Fails, seed: u64) -> Results {
    let mut results = simulated(truth, seed);
    for run in &mut results.runs {
        let value = run.metrics["output-throughput"];
        let is = |environment: &str| run.environment == environment;
        let failed = match fails {
            Fails::Above(environment, limit) => is(environment) && value > limit,
            Fails::Below(environment, limit) => is(environment) && value < limit,
            Fails::AboveInBoth(limit) => value > limit,
            // Every so many rounds: the values are random.
            Fails::Some(environment, count) => is(environment) && run.iteration % (ROUNDS / count) == 1,
        };
        if failed {
            run.failure = Some("killed: out of memory".to_owned());
            run.metrics.clear();
        }
    }
    results
}

fn of_failing(truth: Truth, fails: Fails, seed: u64) -> Report {
    report(&failing(truth, fails, seed), Options { resamples: 0, ..Options::default() })
}

fn verdict(report: &Report) -> (Verdict, f64) {
    match (report.comparisons.first(), report.absent.first()) {
        (Some(comparison), _) => (comparison.verdict, comparison.difference),
        (None, Some(absent)) => (absent.verdict, 0.0),
        (None, None) => panic!("no row"),
    }
}

#[test]
fn failures_are_never_taken_for_a_difference() {
    let studies = studies(60);
    let nominal = 0.05 + 3.0 * (0.05_f64 * 0.95 / f64::from(studies)).sqrt();
    let of = |effect: f64, sd: f64| Truth { effect, sd, ..Truth::default() };
    // The least share of `different`; nothing where nothing differs.
    #[rustfmt::skip]
    let scenarios = [
        ("upper half of B fails", of(0.0, 4.0), Fails::Above("docker", 100.0), None),
        ("lower half of B fails", of(0.0, 4.0), Fails::Below("docker", 100.0), None),
        ("upper third of B fails", of(0.0, 4.0), Fails::Above("docker", 101.7), None),
        ("upper tenth of B fails", of(0.0, 4.0), Fails::Above("docker", 105.1), None),
        ("upper half of both fails", of(0.0, 4.0), Fails::AboveInBoth(100.0), None),
        ("a third of B fails at random", of(0.0, 4.0), Fails::Some("docker", 10), None),
        ("63 % of B fails, effect 5 %", of(5.0, 4.0), Fails::Above("docker", 103.7), Some(0.0)),
        ("91 % of B fails, effect 5 %", of(5.0, 4.0), Fails::Above("docker", 99.6), Some(0.0)),
        ("a tenth of B fails at random, effect 5 %", of(5.0, 2.0), Fails::Some("docker", 3), Some(0.95)),
        ("a third of B fails at random, effect 30 %", of(30.0, 2.0), Fails::Some("docker", 10), Some(0.95)),
    ];
    for (name, truth, fails, found) in scenarios {
        let all: Vec<(Verdict, f64)> =
            (1..=u64::from(studies)).map(|seed| verdict(&of_failing(truth, fails, seed))).collect();
        let share = |which: &dyn Fn(&(Verdict, f64)) -> bool| {
            all.iter().filter(|study| which(study)).count() as f64 / f64::from(studies)
        };
        let different = share(&|(verdict, _)| *verdict == Verdict::Different);
        let equivalent = share(&|(verdict, _)| *verdict == Verdict::Equivalent);
        let wrong_sign = share(&|(verdict, difference)| *verdict == Verdict::Different && *difference < 0.0);
        println!(
            "| {name} | {:.1} | {:.1} | {:.1} |",
            different * 100.0,
            equivalent * 100.0,
            wrong_sign * 100.0
        );
        match found {
            Some(least) => {
                assert!(different >= least && wrong_sign == 0.0, "{name}: {different}, {wrong_sign}");
                assert!(equivalent <= 0.05, "{name}: {equivalent}");
            }
            None => assert!(different <= nominal, "{name}: {different}"),
        }
    }
}

#[test]
fn a_verdict_names_the_runs_that_have_no_result() {
    let truth = Truth { effect: 0.0, sd: 4.0, ..Truth::default() };
    let report = of_failing(truth, Fails::Above("docker", 100.0), 1);
    let one = &report.comparisons[0];
    let runs = &report.attrition[0];
    // Of the killed runs nothing is known but that they were killed: counted in the simulation itself.
    let killed = failing(truth, Fails::Above("docker", 100.0), 1);
    let killed = killed.runs.iter().filter(|run| run.failure.is_some()).count();
    assert_eq!((runs.b.begun, runs.b.failed, runs.b.measured), (30, killed, 30 - killed));
    assert_eq!((runs.a.begun, runs.a.failed), (30, 0));
    assert!(runs.p.unwrap() < 1e-3);
    assert_eq!(one.verdict, Verdict::Undecided, "{}", one.because);
    let said = format!("{killed} of docker have no result");
    assert!(one.because.contains(&said), "{}", one.because);
    let bounds = one.bounds.as_ref().unwrap();
    assert!(bounds.low < 0.0 && bounds.high > 0.0 && bounds.p == 1.0, "{bounds:?}");
}

#[test]
fn a_large_difference_stands_in_spite_of_a_few_failures() {
    let truth = Truth { effect: 30.0, sd: 2.0, ..Truth::default() };
    let report = of_failing(truth, Fails::Some("docker", 3), 1);
    let one = &report.comparisons[0];
    assert_eq!((one.verdict, one.a.n, one.b.n, one.unpaired), (Verdict::Different, 27, 27, 3));
    assert!(one.because.ends_with("whatever the 3 runs without a result would show"), "{}", one.because);
}

#[test]
fn a_retry_that_succeeds_does_not_hide_the_failure() {
    let mut results = simulated(Truth { sd: 0.5, ..Truth::default() }, 1);
    let retried: Vec<Run> = results.runs.iter().filter(|run| run.environment == "docker").cloned().collect();
    // Each failed once, and succeeded when it was tried again.
    for run in retried {
        results.runs.push(Run { failure: Some("exit code 137".to_owned()), metrics: BTreeMap::new(), ..run });
    }
    let report = report(&results, Options { resamples: 0, ..Options::default() });
    assert_eq!((report.attrition[0].b.failed, report.attrition[0].b.measured), (30, 30));
    assert_eq!(report.comparisons[0].verdict, Verdict::Undecided, "{}", report.comparisons[0].because);
}

#[test]
fn a_run_that_was_cut_off_and_repeated_counts_as_any_other() {
    let mut results = simulated(Truth { sd: 0.5, ..Truth::default() }, 1);
    let cut = results.runs[3].clone();
    results.runs.push(Run { failure: Some(LOST.to_owned()), metrics: BTreeMap::new(), ..cut });
    let report = report(&results, Options { resamples: 0, ..Options::default() });
    assert_eq!(report.attrition[0].a.lost + report.attrition[0].b.lost, 1);
    assert_eq!((report.comparisons[0].verdict, &report.comparisons[0].bounds), (Verdict::Equivalent, &None));
}

#[test]
fn a_model_without_survivors_stays_as_a_result() {
    let mut results = simulated(Truth { sd: 1.0, ..Truth::default() }, 1);
    let dead = results.runs.iter().map(|run| Run {
        model: "large".to_owned(),
        number: run.number + 60,
        failure: (run.environment == "docker").then(|| "killed".to_owned()),
        ..run.clone()
    });
    let dead: Vec<Run> = dead.collect();
    results.runs.extend(dead);
    results.models.push("large".to_owned());
    results.planned = Some(ROUNDS);
    let report = report(&results, Options { resamples: 0, ..Options::default() });
    let studied = crate::report::Studied { results, report };
    let report = &studied.report;
    let [absent] = &report.absent[..] else { panic!("{:?}", report.absent) };
    assert_eq!((absent.model.as_str(), absent.verdict), ("large", Verdict::NotComparable));
    assert_eq!(absent.because, "no run of docker has a value");
    assert_eq!(report.counts.planned, Some(120));
    for render in [crate::report::FORMATS[0].render, crate::report::FORMATS[1].render] {
        let text = render(&studied, spark_trace_render::Style::default()).unwrap();
        let text = String::from_utf8(text).unwrap();
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(text.contains("90 of 120 planned measured runs"), "{text}");
        assert!(text.contains("30 of 30 runs of docker failed. No run of docker has a result."), "{text}");
        assert!(text.contains("no run of docker has a value"), "{text}");
    }
}
