//! Verdicts of a study that goes on: a look at its data that could end it costs a part of alpha.
//!
//! Who looks after each round and stops at the first `different` finds a difference where there is none in a fifth of all studies. The
//! looks that a plan states share alpha by a function (Lan and DeMets); between two of them a report stays with the last one.

use std::collections::BTreeMap;

use serde::Serialize;
use spark_trace_statistics::sequential::{self, MOST_LOOKS};

use crate::results::{Results, What, Why};

/// What a report of one model is of.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Look {
    pub model: String,
    /// Rounds that the figures are of.
    pub round: u32,
    pub planned: u32,
    /// From 1; 0 before the first look.
    pub number: usize,
    /// All of them, with that after the last round.
    pub looks: usize,
    /// The plan states its looks. Otherwise one is assumed after each round.
    pub declared: bool,
    /// The level of the tests at this look; 0 before the first.
    pub level: f64,
    /// Why no run of the model came after it.
    pub ended: Option<String>,
}

impl Look {
    /// The rounds of the whole study are over.
    pub const fn is_last(&self) -> bool {
        self.round == self.planned
    }
}

/// The look that every model is at. Nothing of a model whose rounds are over where the plan states no looks, and of studies without a plan.
pub fn of(results: &Results, alpha: f64) -> Vec<Look> {
    let Some(planned) = results.planned else { return vec![] };
    // Levels take an integration, and most models are at the same look.
    let mut known: BTreeMap<u32, Option<Look>> = BTreeMap::new();
    let mut looks = vec![];
    for model in &results.models {
        let Some(over) = results.rounds_over.get(model).map(|over| (*over).min(planned)) else { continue };
        let look = known.entry(over).or_insert_with(|| at(model, over, planned, &results.looks, alpha));
        let ended = ended(results, model);
        looks.extend(look.clone().map(|look| Look { model: model.clone(), ended, ..look }));
    }
    looks
}

fn ended(results: &Results, model: &str) -> Option<String> {
    results.happenings.iter().find_map(|happening| match &happening.what {
        What::LeftOut { why: Why::Decided { model: of, because, .. }, .. } if of == model => {
            Some(because.clone())
        }
        _ => None,
    })
}

fn at(model: &str, over: u32, planned: u32, declared: &[u32], alpha: f64) -> Option<Look> {
    if declared.is_empty() && over >= planned {
        return None;
    }
    let all: Vec<u32> = match declared.is_empty() {
        true => {
            // As many as can be computed, the last one where the study is.
            let step = planned.div_ceil(MOST_LOOKS as u32).max(1) as usize;
            (1..=planned).rev().step_by(step).filter(|round| *round < over).chain([over, planned]).collect()
        }
        false => declared.iter().copied().filter(|round| *round < planned).chain([planned]).collect(),
    };
    let mut all: Vec<u32> = all.into_iter().filter(|round| *round > 0).collect();
    all.sort_unstable();
    all.dedup();
    let reached: Vec<f64> = all
        .iter()
        .filter(|round| **round <= over)
        .map(|round| f64::from(*round) / f64::from(planned))
        .collect();
    let level = match reached.is_empty() {
        true => 0.0,
        // Looks of a file that no plan would have: nothing is decided by them.
        false => sequential::levels(&reached, alpha).ok().and_then(|mut levels| levels.pop()).unwrap_or(0.0),
    };
    let looks = if declared.is_empty() { planned as usize } else { all.len() };
    let number = if declared.is_empty() { over as usize } else { reached.len() };
    // Before the first look there is nothing but the rounds that are over.
    let round = all.iter().copied().filter(|round| *round <= over).max().unwrap_or(over);
    Some(Look {
        model: model.to_owned(),
        round,
        planned,
        number,
        looks,
        declared: !declared.is_empty(),
        level,
        ended: None,
    })
}

/// The runs that looks are of: those of rounds that came later are no part of any figure.
pub fn up_to(results: &Results, looks: &[Look]) -> Results {
    let round = |model: &str| looks.iter().find(|look| look.model == model).map(|look| look.round);
    let mut kept = results.clone();
    kept.runs.retain(|run| match (run.round, round(&run.model)) {
        (Some(of_run), Some(last)) => of_run <= last,
        _ => true,
    });
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn level(over: u32, declared: &[u32]) -> Option<Look> {
        at("m", over, 30, declared, 0.05)
    }

    #[test]
    fn a_report_stays_with_the_last_look_of_the_plan() {
        let before = level(9, &[10, 20]).unwrap();
        assert_eq!((before.number, before.looks, before.round, before.level), (0, 3, 9, 0.0));
        for over in [10, 13, 19] {
            let look = level(over, &[10, 20]).unwrap();
            assert_eq!((look.number, look.looks, look.round), (1, 3, 10));
            // Published limits of three even looks: 3.710, 2.511, 1.993.
            assert!((look.level - 0.000207).abs() < 1e-6, "{}", look.level);
        }
        let second = level(20, &[10, 20]).unwrap();
        assert!((second.level - 0.01204).abs() < 2e-5, "{}", second.level);
        let last = level(30, &[10, 20]).unwrap();
        assert!(last.is_last() && (last.level - 0.04626).abs() < 3e-5, "{}", last.level);
    }

    #[test]
    fn without_looks_in_the_plan_one_is_assumed_after_each_round() {
        assert_eq!(level(30, &[]), None);
        let half = level(15, &[]).unwrap();
        assert_eq!((half.number, half.looks, half.round, half.declared), (15, 30, 15, false));
        assert!(half.level < 0.0031, "a look at the half of a study alone has 0.0031: {}", half.level);
        assert_eq!(level(0, &[]).unwrap().level, 0.0);
        let long = at("m", 500, 1000, &[], 0.05).unwrap();
        assert!(long.level > 0.0 && long.level < 0.0031, "{}", long.level);
    }
}
