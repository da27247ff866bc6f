//! Metrics that say the same as others, and models that cannot be distinguished.

use serde::Serialize;
use spark_trace_statistics::association::linear_fit;
use spark_trace_statistics::{describe, equivalence};

use super::Options;
use crate::results::Results;

/// `of` is a linear function of `from` in all runs: a second metric, and no second result.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Relation {
    pub of: String,
    pub from: String,
    pub slope: f64,
    pub intercept: f64,
    pub r2: f64,
    /// Largest distance of a run from it.
    pub max_residual: f64,
    pub n: usize,
}

/// Models whose baseline has the same speed, within the margin, in all pairs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Indistinct {
    pub metric: String,
    pub models: Vec<String>,
    pub means: Vec<f64>,
    /// Largest relative difference of two means.
    pub largest: f64,
    pub margin: f64,
}

/// A function leaves no more than this part of the range to chance.
const LEFT: f64 = 0.01;
const FEWEST: usize = 8;
/// What a model's size shows in.
const SPEED: &[&str] = &["output-throughput", "request-throughput"];

pub fn find(results: &Results, metrics: &[String]) -> Vec<Relation> {
    let mut relations = vec![];
    for (place, from) in metrics.iter().enumerate() {
        for of in &metrics[place + 1..] {
            // Each once, and from a metric that is none itself.
            let known = |name: &str| relations.iter().any(|relation: &Relation| relation.of == name);
            if !known(from) && !known(of) {
                relations.extend(relation(results, from, of));
            }
        }
    }
    relations
}

fn relation(results: &Results, from: &str, of: &str) -> Option<Relation> {
    let runs = results.runs.iter().filter(|run| run.counts());
    let (x, y): (Vec<f64>, Vec<f64>) =
        runs.filter_map(|run| Some((*run.metrics.get(from)?, *run.metrics.get(of)?))).unzip();
    if x.len() < FEWEST {
        return None;
    }
    let fit = linear_fit(&x, &y).ok()?;
    let described = describe(&y)?;
    let range = described.max - described.min;
    let function = fit.max_residual <= range * LEFT && fit.slope != 0.0;
    function.then(|| Relation {
        of: of.to_owned(),
        from: from.to_owned(),
        slope: fit.slope,
        intercept: fit.intercept,
        r2: fit.r2.unwrap_or(1.0),
        max_residual: fit.max_residual,
        n: fit.n,
    })
}

impl Relation {
    /// As people write it: a factor of a difference where the line falls.
    pub fn written(&self) -> String {
        let Self { of, from, slope, intercept, .. } = self;
        if *slope < 0.0 {
            format!("{of} = {:.3} × ({:.3} − {from})", -slope, intercept / -slope)
        } else {
            format!(
                "{of} = {slope:.5} × {from} {} {:.3}",
                if *intercept < 0.0 { "−" } else { "+" },
                intercept.abs()
            )
        }
    }
}

pub fn indistinct(results: &Results, options: Options) -> Vec<Indistinct> {
    let Some(baseline) = results.environments.first() else { return vec![] };
    let mut found = vec![];
    for metric in SPEED {
        let cells: Vec<(&String, Vec<f64>)> = results
            .models
            .iter()
            .map(|model| {
                let values =
                    results.cell(model, baseline).filter_map(|run| run.metrics.get(*metric).copied());
                (model, values.collect::<Vec<_>>())
            })
            .filter(|(_, values)| values.len() > 1)
            .collect();
        let means: Vec<f64> = cells.iter().filter_map(|(_, values)| Some(describe(values)?.mean)).collect();
        // Figures so large that they have no mean say nothing of models that are alike.
        if means.len() != cells.len() || !means.iter().all(|mean| mean.is_finite()) {
            continue;
        }
        let same = |a: &[f64], b: &[f64], mean: f64| {
            let margin = (mean * options.margin).abs();
            equivalence::tost(a, b, -margin, margin, options.alpha).is_ok_and(|tost| tost.equivalent)
        };
        let pairs = (0..cells.len()).flat_map(|a| (a + 1..cells.len()).map(move |b| (a, b)));
        let all = pairs.clone().all(|(a, b)| same(&cells[a].1, &cells[b].1, means[a]));
        if cells.len() > 1 && all {
            let largest = pairs.map(|(a, b)| ((means[b] - means[a]) / means[a]).abs()).fold(0.0, f64::max);
            found.push(Indistinct {
                metric: (*metric).to_owned(),
                models: cells.iter().map(|(model, _)| (*model).clone()).collect(),
                means,
                largest,
                margin: options.margin,
            });
        }
    }
    found
}
