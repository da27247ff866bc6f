//! How far something that differs between the environments, besides themselves, moves their difference.
//!
//! The question is not whether there is a drift. It is how much of *this* difference a drift can have made in *this* order: in
//! the order A B B A the answer is nothing, however large it is.

use serde::Serialize;
use spark_trace_statistics::covariate::{Covariate, covariate};
use spark_trace_statistics::describe;

use super::Options;
use crate::results::{Results, Run};

/// What moves a difference by more than this part of it (or of the margin, where that is larger) can be what made it.
const PART: f64 = 0.25;

/// How far something that came with the order of the runs moves the difference.
#[derive(Debug, Clone, Serialize)]
pub struct Influence {
    pub what: Cause,
    /// The part of the difference that it makes, in the metric's unit.
    pub shift: f64,
    /// Of its slope within the environments.
    pub p: f64,
    /// Certain, and too large a part of the difference or the margin.
    pub matters: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// The place in the order: a drift.
    Place,
    /// The run before was of this environment.
    After(String),
}

/// From which shift on something matters, and how certain it must be.
#[derive(Debug, Clone, Copy)]
pub struct Matter {
    least: f64,
    alpha: f64,
}

impl Matter {
    pub fn of(baseline: &str, runs: &[(&Run, f64)], difference: f64, options: Options) -> Self {
        let values: Vec<f64> =
            runs.iter().filter(|(run, _)| run.environment == baseline).map(|(_, value)| *value).collect();
        let margin = describe(&values).map_or(0.0, |described| (described.mean * options.margin).abs());
        Self { least: PART * difference.abs().max(margin), alpha: options.diagnostic_alpha }
    }

    pub fn is_met(self, shift: f64, p: f64) -> bool {
        p < self.alpha && shift.abs() > self.least
    }
}

pub fn of_the_order(
    results: &Results,
    model: &str,
    b: &str,
    runs: &[(&Run, f64)],
    matter: Matter,
) -> Vec<Influence> {
    // What ran before it, whether it counts or not.
    let before = |run: &Run| {
        let earlier = results.runs.iter().filter(|other| other.model == model && other.number < run.number);
        earlier.max_by_key(|other| (other.number, other.attempt)).map(|other| other.environment.as_str())
    };
    let place = |run: &Run| Some(f64::from(run.number));
    let mut found = vec![one(Cause::Place, runs, b, &place, matter)];
    // Of two environments one says it all: a run that is not after the one is after the other.
    let skipped = usize::from(results.environments.len() == 2);
    let matter = Matter { alpha: matter.alpha / results.environments.len().max(1) as f64, ..matter };
    for environment in results.environments.iter().skip(skipped) {
        let follows = |run: &Run| Some(f64::from(u8::from(before(run)? == environment)));
        found.push(one(Cause::After(environment.clone()), runs, b, &follows, matter));
    }
    found.into_iter().flatten().collect()
}

/// Nothing where it does not vary within the environments.
fn one(
    what: Cause,
    runs: &[(&Run, f64)],
    b: &str,
    of: &impl Fn(&Run) -> Option<f64>,
    matter: Matter,
) -> Option<Influence> {
    let Covariate { shift, p, .. } = adjusted(runs, b, of)?;
    Some(Influence { what, shift, p, matters: matter.is_met(shift, p) })
}

/// The fit of the values by the environment and something else that is known of the runs.
pub fn adjusted(runs: &[(&Run, f64)], b: &str, of: &impl Fn(&Run) -> Option<f64>) -> Option<Covariate> {
    let known: Vec<(f64, bool, f64)> =
        runs.iter().filter_map(|(run, value)| Some((*value, run.environment == b, of(run)?))).collect();
    let values: Vec<f64> = known.iter().map(|(value, ..)| *value).collect();
    let in_b: Vec<bool> = known.iter().map(|(_, in_b, _)| *in_b).collect();
    let x: Vec<f64> = known.iter().map(|(.., x)| *x).collect();
    covariate(&values, &in_b, &x).ok()
}
