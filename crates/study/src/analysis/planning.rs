//! What a number of runs can find, whatever they showed; nothing of runs without rounds.

use serde::Serialize;
use spark_trace_statistics::power;

use super::Options;
use super::compare::Comparison;
use crate::plan::Order;
use crate::results::Results;

const POWER: f64 = 0.8;

/// The smallest differences that the paired t test finds, in standard deviations of the pairs' differences.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Detectable {
    /// By the plan, or the most that a comparison has.
    pub pairs: usize,
    pub power: f64,
    /// At the level itself.
    pub alone: f64,
    /// At the level that the smallest p of the primary comparisons must meet.
    pub in_family: f64,
    pub family: usize,
}

pub fn detectable(
    results: &Results,
    comparisons: &[Comparison],
    family: usize,
    options: Options,
) -> Option<Detectable> {
    if results.order == Some(Order::Blocked) {
        return None;
    }
    let most = || comparisons.iter().map(|row| row.a.n.min(row.b.n)).max();
    let pairs = results.planned.map(|planned| planned as usize).or_else(most)?;
    let at = |alpha: f64| power::detectable_paired(pairs, POWER, alpha).ok();
    let family = family.max(1);
    let (alone, in_family) = (at(options.alpha)?, at(options.alpha / family as f64)?);
    Some(Detectable { pairs, power: POWER, alone, in_family, family })
}
