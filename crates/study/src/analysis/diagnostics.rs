//! Whether something else than the environment could have made the difference.

use serde::Serialize;
use spark_trace_statistics::effect;
use spark_trace_statistics::series::{self, Lag1, MannKendall, Runs};
use spark_trace_statistics::{LEVEL, describe, t};

use super::influence::{self, Cause, Influence, Matter};
use super::{Options, Subject, Verdict};
use crate::results::{Results, Run};

#[derive(Debug, Clone, Serialize)]
pub struct Diagnostics {
    /// Times that the environment changes from one run of the model to the next.
    pub switches: usize,
    /// The same at most, with as many runs.
    pub switches_at_most: usize,
    /// The runs are in blocks: so few switches that a random order hardly has them, or one only.
    pub blocked: bool,
    /// How rare so few switches are.
    pub order: Option<Runs>,
    /// Runs of one round are compared with each other.
    pub paired: bool,
    /// What the order of the runs can have made of the difference.
    pub influences: Vec<Influence>,
    /// What is left of each run when its environment's mean is taken away, in the order of running.
    pub drift: Option<MannKendall>,
    /// Change in one run, by the median of slopes.
    pub drift_per_run: Option<f64>,
    pub lag1: Option<Lag1>,
    /// Within each environment.
    pub within: Vec<Within>,
    /// How the state differed that runs began in.
    pub state: Vec<State>,
    pub problems: Vec<Problem>,
}

#[derive(Debug, Clone, Serialize)]
pub struct Within {
    pub environment: String,
    pub drift: Option<MannKendall>,
    pub per_run: Option<f64>,
    pub lag1: Option<Lag1>,
    /// First and last value.
    pub first: f64,
    pub last: f64,
    /// Largest less smallest.
    pub range: f64,
}

#[derive(Debug, Clone, Serialize)]
pub struct State {
    pub name: String,
    pub a_mean: f64,
    pub b_mean: f64,
    pub hedges_g: Option<f64>,
    pub p: Option<f64>,
    /// The part of the difference that it makes, by its slope within the environments; absent where it does not vary there.
    pub shift: Option<f64>,
    /// Large enough to matter for this metric.
    pub matters: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// What it makes of the comparison.
    pub verdict: Verdict,
    pub what: String,
}

/// A temperature that differs by less makes no difference to clocks, degrees Celsius.
const WARMER: f64 = 3.0;
/// A block whose values range over more than this part of the difference is no constant.
const MOVES: f64 = 0.25;
/// Fewer runs show no course.
const COURSE: usize = 8;

pub fn of(
    results: &Results,
    model: &str,
    (a, b): (&str, &str),
    subject: &Subject,
    value: &impl Fn(&Run) -> Option<f64>,
    (difference, paired): (f64, bool),
    options: Options,
) -> Diagnostics {
    let runs: Vec<(&Run, f64)> = results
        .of_model(model)
        .filter(|run| run.environment == a || run.environment == b)
        .filter_map(|run| Some((run, value(run).filter(|value| value.is_finite())?)))
        .collect();
    let switches = runs.windows(2).filter(|pair| pair[0].0.environment != pair[1].0.environment).count();
    let count = |name: &str| runs.iter().filter(|(run, _)| run.environment == name).count();
    let (in_a, in_b) = (count(a), count(b));
    let order = series::runs(&runs.iter().map(|(run, _)| run.environment == b).collect::<Vec<_>>()).ok();
    let few = order.as_ref().is_some_and(|order| order.p_few < options.diagnostic_alpha);
    let matter = Matter::of(a, &runs, difference, options);
    let left = residuals(&runs, &[a, b]);
    // A figure that is the same in all runs has no course.
    let enough = left.len() >= COURSE;
    let mut found = Diagnostics {
        switches,
        switches_at_most: if in_a == in_b { (2 * in_a).saturating_sub(1) } else { 2 * in_a.min(in_b) },
        // Two runs are too few to say so.
        blocked: few || switches == 1 && in_a > 1 && in_b > 1,
        order,
        paired,
        influences: influence::of_the_order(results, model, b, &runs, matter),
        drift: series::mann_kendall(&left).ok().filter(|_| enough),
        drift_per_run: series::theil_sen(&left).ok().map(|fit| fit.slope),
        lag1: series::lag1(&left).ok().filter(|_| enough),
        within: [a, b].into_iter().filter_map(|name| within(&runs, name)).collect(),
        state: state(results, model, (a, b), subject, &runs, (difference, matter), options),
        problems: vec![],
    };
    found.problems = problems(&found, subject, difference, options);
    found
}

fn problems(found: &Diagnostics, subject: &Subject, difference: f64, options: Options) -> Vec<Problem> {
    let mut problems = vec![];
    let confounded = |what: String| Problem { verdict: Verdict::Confounded, what };
    if found.blocked && found.switches == 1 {
        problems.push(confounded(
            "all runs of one environment came before all of the other, so changes over time are part of the difference"
                .to_owned(),
        ));
    } else if found.blocked {
        problems.push(confounded(format!(
            "the runs came in blocks ({} switches, a random order has {:.0}), so changes over time are part of the difference",
            found.switches,
            found.order.as_ref().map_or(0.0, |order| order.expected - 1.0)
        )));
    }
    let unit = &subject.unit;
    let drifts =
        |drift: &Option<MannKendall>| drift.as_ref().is_some_and(|drift| drift.p < options.diagnostic_alpha);
    let depends = |lag1: &Option<Lag1>| lag1.as_ref().is_some_and(|lag1| lag1.p < options.diagnostic_alpha);
    for influence in found.influences.iter().filter(|influence| influence.matters) {
        let by = format!("{:+.3} {unit} of the difference", influence.shift);
        problems.push(confounded(match &influence.what {
            Cause::Place => format!("a drift over the runs makes {by} in this order"),
            Cause::After(environment) => {
                format!("runs after one of {environment} differ, which makes {by} in this order")
            }
        }));
    }
    // Pairs take what neighbours share out of their difference; others do not.
    if !found.paired && depends(&found.lag1) {
        let r = found.lag1.as_ref().map_or(0.0, |lag1| lag1.r);
        problems.push(confounded(format!("a run's value depends on that of the run before (r = {r:.2})")));
    }
    for within in &found.within {
        let by = difference.abs();
        let moves = by > within.range && within.range > by * MOVES;
        let course = drifts(&within.drift) || depends(&within.lag1);
        if found.blocked && (moves || course) {
            let what = format!(
                "within {} values go from {:.2} to {:.2} {unit} and range over {:.2}, while the environments differ by \
                 {difference:+.2}",
                within.environment, within.first, within.last, within.range
            );
            problems.push(confounded(if moves {
                format!("{what}: nothing constant does that")
            } else {
                what
            }));
        }
    }
    for state in found.state.iter().filter(|state| state.matters) {
        problems.push(Problem {
            verdict: Verdict::NotComparable,
            what: format!("{} at the start was {:.2} and {:.2}", state.name, state.a_mean, state.b_mean),
        });
    }
    problems
}

/// A drift of values that follow one another, or their dependence on each other, where it is certain: in words.
pub fn course(values: &[f64], alpha: f64) -> Option<String> {
    if values.len() < COURSE {
        return None;
    }
    let drift = series::mann_kendall(values).ok().filter(|drift| drift.p < alpha);
    let lag1 = series::lag1(values).ok().filter(|lag1| lag1.p < alpha);
    match (drift, lag1) {
        (Some(_), _) => Some("the values drift".to_owned()),
        (None, Some(lag1)) => {
            Some(format!("a run's value depends on that of the run before (r = {:.2})", lag1.r))
        }
        (None, None) => None,
    }
}

/// What each run has besides its environment's mean.
fn residuals(runs: &[(&Run, f64)], environments: &[&str]) -> Vec<f64> {
    let mean = |name: &str| {
        let values: Vec<f64> =
            runs.iter().filter(|(run, _)| run.environment == name).map(|(_, value)| *value).collect();
        describe(&values).map_or(0.0, |described| described.mean)
    };
    let means: Vec<(&str, f64)> = environments.iter().map(|name| (*name, mean(name))).collect();
    let of = |name: &str| means.iter().find(|(known, _)| *known == name).map_or(0.0, |(_, mean)| *mean);
    runs.iter().map(|(run, value)| value - of(&run.environment)).collect()
}

fn within(runs: &[(&Run, f64)], environment: &str) -> Option<Within> {
    let values: Vec<f64> =
        runs.iter().filter(|(run, _)| run.environment == environment).map(|(_, value)| *value).collect();
    let (&first, &last) = (values.first()?, values.last()?);
    let enough = values.len() >= COURSE;
    Some(Within {
        environment: environment.to_owned(),
        drift: series::mann_kendall(&values).ok().filter(|_| enough),
        per_run: series::theil_sen(&values).ok().map(|fit| fit.slope),
        lag1: series::lag1(&values).ok().filter(|_| enough),
        range: describe(&values).map_or(0.0, |described| described.max - described.min),
        first,
        last,
    })
}

fn state(
    results: &Results,
    model: &str,
    (a, b): (&str, &str),
    subject: &Subject,
    runs: &[(&Run, f64)],
    (difference, matter): (f64, Matter),
    options: Options,
) -> Vec<State> {
    let mut names: Vec<&String> = results.of_model(model).flat_map(|run| run.state.keys()).collect();
    names.sort();
    names.dedup();
    let many = names.len().max(1) as f64;
    let values = |environment: &str, name: &str| -> Vec<f64> {
        results.cell(model, environment).filter_map(|run| run.state.get(name).copied()).collect()
    };
    let state = |name: &String| {
        let (in_a, in_b) = (values(a, name), values(b, name));
        let (a_mean, b_mean) = (describe(&in_a)?.mean, describe(&in_b)?.mean);
        let p = t::welch(&in_a, &in_b, LEVEL).ok().map(|test| test.p);
        let certain = p.is_some_and(|p| p * many < options.diagnostic_alpha);
        let by = (b_mean - a_mean).abs();
        // Memory that was taken before a run can be half of a difference in memory; a warmer GPU is slower.
        let large = match (name.as_str(), subject.unit.as_str()) {
            ("gpu-temperature", _) => by > WARMER,
            (_, "GiB") => by > difference.abs() / 2.0 && starts_with_memory(&subject.name),
            _ => false,
        };
        let hedges_g = effect::hedges_g(&in_a, &in_b, LEVEL).ok().map(|effect| effect.value);
        let slope = influence::adjusted(runs, b, &|run: &Run| run.state.get(name).copied());
        let moves = slope.as_ref().is_some_and(|slope| matter.is_met(slope.shift, slope.p));
        let shift = slope.map(|slope| slope.shift);
        let matters = certain && (large || moves);
        Some(State { name: name.clone(), a_mean, b_mean, hedges_g, p, shift, matters })
    };
    names.into_iter().filter_map(state).collect()
}

/// Metrics that contain what was in memory before the run.
fn starts_with_memory(metric: &str) -> bool {
    ["peak-memory", "kv-cache", "system-used", "lowest-free", "lowest-available", "cgroup-used"]
        .contains(&metric)
}
