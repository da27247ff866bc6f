//! Models that cannot be distinguished.

use serde::Serialize;
use spark_trace_statistics::{describe, equivalence};

use super::Options;
use crate::results::Results;

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

/// What a model's size shows in.
const SPEED: &[&str] = &["output-throughput", "request-throughput"];

pub fn of(results: &Results, options: Options) -> Vec<Indistinct> {
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
