//! Metrics that are functions of others, made of random numbers by hand.

use super::*;

/// A study whose runs have what `more` makes of each run's speed and of numbers of its own.
fn study(rounds: u32, more: impl Fn(f64, &mut Xoshiro256) -> Vec<(&'static str, f64)>) -> Report {
    let mut results = simulated(Truth { effect: 20.0, sd: 3.0, rounds, ..Truth::default() }, 1);
    let mut random = Xoshiro256::new(7);
    for run in &mut results.runs {
        let speed = run.metrics["output-throughput"];
        run.metrics
            .extend(more(speed, &mut random).into_iter().map(|(name, value)| (name.to_owned(), value)));
    }
    report(&results, Options { resamples: 0, ..Options::default() })
}

fn roles(report: &Report) -> Vec<(&str, Role)> {
    report.comparisons.iter().map(|row| (row.subject.name.as_str(), row.role)).collect()
}

#[test]
fn a_function_of_another_metric_is_no_second_result() {
    let report = study(30, |speed, _| vec![("peak-memory", speed), ("kv-cache", 0.9 * (119.708 - speed))]);
    let written: Vec<String> = report.relations.iter().map(Relation::written).collect();
    assert_eq!(
        written,
        [
            "peak-memory = 1.00000 × output-throughput + 0.000",
            "kv-cache = 0.900 × (119.708 − output-throughput)"
        ]
    );
    // All three would be primary by their names.
    assert_eq!(report.families, families::Sizes { primary: 1, exploratory: 0, derived: 2 });
    assert_eq!(report.comparisons[0].p, report.comparisons[0].p_holm);
    let derived = &report.comparisons[2];
    assert_eq!((derived.p_holm, derived.p_bonferroni, derived.ci_simultaneous), (None, None, None));
    assert!(
        derived.because.ends_with("no further evidence: kv-cache = 0.900 × (119.708 − output-throughput)")
    );
    assert!(report.family.contains("the 2 of functions of other metrics"), "{}", report.family);
}

#[test]
fn sums_differences_and_ratios_of_two_are_found() {
    use Role::*;
    let report = study(30, |speed, random| {
        let (other, third) = (50.0 + 5.0 * normal(random), 20.0 + normal(random));
        vec![
            ("a-other", other),
            ("b-sum", speed + other),
            ("c-difference", other - speed),
            ("d-product", 0.001 * speed * other),
            ("e-ratio", 1000.0 * other / speed),
            ("f-inverse", 7.0 / speed),
            ("g-third", third),
            // Not one: a tenth of its range is its own.
            ("h-nearly", speed + other + 0.3 * normal(random)),
        ]
    });
    let wanted = [
        ("output-throughput", Primary),
        ("a-other", Exploratory),
        ("b-sum", Derived),
        ("c-difference", Derived),
        ("d-product", Derived),
        ("e-ratio", Derived),
        ("f-inverse", Derived),
        ("g-third", Exploratory),
        ("h-nearly", Exploratory),
    ];
    assert_eq!(roles(&report), wanted);
    let written: Vec<String> = report.relations.iter().map(Relation::written).collect();
    assert_eq!(
        written,
        [
            "b-sum = output-throughput + a-other",
            "c-difference = a-other − output-throughput",
            "d-product = 0.00100 × output-throughput × a-other",
            "e-ratio = 1000.00000 × a-other / output-throughput",
            "f-inverse = 7.000 / output-throughput"
        ]
    );
}

#[test]
fn what_models_differ_by_hides_no_difference_of_runs() {
    let mut results = simulated(Truth { effect: 2.0, sd: 1.0, ..Truth::default() }, 1);
    let mut random = Xoshiro256::new(3);
    let large = results.runs.iter().map(|run| Run {
        model: "large".to_owned(),
        number: run.number + 60,
        ..run.clone()
    });
    let large: Vec<Run> = large.collect();
    results.runs.extend(large);
    results.models.push("large".to_owned());
    for run in &mut results.runs {
        // 1000 between the models, and 3 between runs that have nothing to do with the speed.
        let of_model = if run.model == "large" { 1000.0 } else { 0.0 };
        let speed = run.metrics["output-throughput"] + of_model;
        run.metrics.insert("output-throughput".to_owned(), speed);
        run.metrics.insert("system-used".to_owned(), speed + 0.5 * normal(&mut random));
    }
    let report = report(&results, Options { resamples: 0, ..Options::default() });
    assert_eq!(report.relations, []);
    assert_eq!(report.families, families::Sizes { primary: 4, exploratory: 0, derived: 0 });
}

#[test]
fn what_metrics_mean_needs_few_runs_and_no_contradiction() {
    let throughput = |rounding: f64| {
        move |speed: f64, random: &mut Xoshiro256| {
            let input = 50.0 + 5.0 * normal(random);
            // As a log rounds it, which is more than a hundredth of the range.
            let total = ((speed + input) / rounding).round() * rounding;
            vec![("input-throughput", input), ("total-throughput", total)]
        }
    };
    let few = study(3, throughput(0.1));
    assert_eq!(few.relations.len(), 1, "{:?}", few.relations);
    assert_eq!((few.relations[0].known, few.relations[0].n), (true, 6));
    assert_eq!(few.relations[0].written(), "total-throughput = output-throughput + input-throughput");
    assert_eq!(study(3, throughput(20.0)).relations, []);
}
