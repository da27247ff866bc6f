//! How the difference between two environments goes with a model's size and architecture.
//!
//! Each pair of runs of one round gives a difference, of logarithms where the metric has a zero: so it is a part of the baseline, and what
//! the runs of a round or of a model share is gone from it. Models differ in it for reasons that no property names, so that a model is one
//! observation of size and architecture, however many runs it has: that is the random effect.

use std::collections::BTreeMap;

use serde::Serialize;
use spark_trace_statistics::mixed::{self, Group, Mixed};
use spark_trace_statistics::{Error, LEVEL};

use super::Comparison;
use super::compare::has_zero;
use super::sample::Sample;
use crate::results::Results;
use crate::traits::Traits;

/// One metric of all models in two environments.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Overhead {
    pub metric: String,
    pub unit: String,
    pub a_name: String,
    pub b_name: String,
    /// Models that have pairs of runs.
    pub models: usize,
    pub pairs: usize,
    pub scale: Scale,
    /// Absent where the data cannot bear it.
    pub fit: Option<Fit>,
    /// Why there is none, or what was left out.
    pub because: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scale {
    /// Of logarithms: B over A.
    Ratio,
    /// B minus A, in the metric's unit.
    Difference,
}

/// Estimates and intervals are ratios or differences by the scale; standard deviations are of the logarithms, or in the unit.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Fit {
    pub terms: Vec<Term>,
    /// Among models, besides the terms.
    pub sd_models: f64,
    /// Of the pairs of one model.
    pub sd_pairs: f64,
    pub df: f64,
    /// Of the intervals: they hold at all looks at the study.
    pub level: f64,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Term {
    pub what: What,
    pub estimate: f64,
    pub ci: (f64, f64),
    pub p: f64,
}

/// What a coefficient is of.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum What {
    /// The environment, for a model of the mean size and this architecture.
    Environment { parameters: Option<f64>, architecture: Option<String> },
    /// How it changes where a model is twice as large.
    Doubling,
    /// How it differs in another architecture.
    Architecture { of: String, against: String },
}

/// Two models of a pair each say nothing of how models differ.
const FEWEST_MODELS: usize = 3;

/// Primary metrics, for every environment but the baseline; nothing of studies of one model.
pub fn of(results: &Results, comparisons: &[Comparison]) -> Vec<Overhead> {
    let mut cells: Vec<(&str, &str)> = vec![];
    for row in comparisons.iter().filter(|row| row.role == super::role::Role::Primary) {
        let cell = (row.subject.name.as_str(), row.b_name.as_str());
        if !cells.contains(&cell) {
            cells.push(cell);
        }
    }
    let of_cell = |(metric, other): (&str, &str)| {
        let rows = comparisons.iter().filter(|row| row.subject.name == metric && row.b_name == other);
        one(&rows.collect::<Vec<_>>(), &results.traits)
    };
    if results.models.len() < 2 { vec![] } else { cells.into_iter().filter_map(of_cell).collect() }
}

/// Pairs of one model.
struct Member<'a> {
    model: &'a str,
    a: Vec<f64>,
    b: Vec<f64>,
}

fn one(rows: &[&Comparison], traits: &BTreeMap<String, Traits>) -> Option<Overhead> {
    let first = rows.first()?;
    let sampled = rows.iter().map(|row| (row.model.as_str(), Sample::of(&row.a_values, &row.b_values)));
    let members: Vec<Member<'_>> = sampled
        .filter(|(_, sample)| sample.paired)
        .map(|(model, Sample { a, b, .. })| Member { model, a, b })
        .collect();
    let positive =
        members.iter().flat_map(|member| member.a.iter().chain(&member.b)).all(|value| *value > 0.0);
    let scale = if has_zero(&first.subject) && positive { Scale::Ratio } else { Scale::Difference };
    let mut found = Overhead {
        metric: first.subject.name.clone(),
        unit: first.subject.unit.clone(),
        a_name: first.a_name.clone(),
        b_name: first.b_name.clone(),
        models: members.len(),
        pairs: members.iter().map(|member| member.a.len()).sum(),
        scale,
        fit: None,
        because: vec![],
    };
    // Models may be at different looks: an interval over all of them is as wide as that of the earliest.
    let alpha = rows.iter().filter(|row| row.at_look).map(|row| row.alpha).reduce(f64::min);
    if alpha == Some(0.0) {
        found.because.push("not all models have come to the first look of the plan".to_owned());
        return Some(found);
    }
    if members.len() < FEWEST_MODELS {
        found.because.push(format!(
            "{} of {} models have pairs of runs, and how models differ takes {FEWEST_MODELS}",
            members.len(),
            rows.len()
        ));
        return Some(found);
    }
    let level = alpha.map_or(LEVEL, |alpha| 1.0 - alpha);
    // What cannot be estimated is left out, the last predictor first.
    let mut predictors = Predictors::of(&members, traits, &mut found.because);
    loop {
        match predictors.fit(&members, scale, level) {
            Ok(fit) => {
                found.fit = Some(fit);
                return Some(found);
            }
            Err(Error::TooFew | Error::Collinear) if predictors.drop_last(&mut found.because) => {}
            Err(error) => {
                found.because.push(format!("no estimate: {error}"));
                return Some(found);
            }
        }
    }
}

/// What the models differ by.
struct Predictors {
    /// Logarithm to base 2 of each model's parameters, minus the mean; and the size that the mean is.
    sizes: Option<(Vec<f64>, f64)>,
    /// Each model's architecture, and all of them: the first is what the others are compared with.
    architectures: Option<(Vec<String>, Vec<String>)>,
}

impl Predictors {
    fn of(members: &[Member<'_>], traits: &BTreeMap<String, Traits>, notes: &mut Vec<String>) -> Self {
        let all = |of: &dyn Fn(&Traits) -> bool, what: &str, notes: &mut Vec<String>| {
            let without: Vec<&str> = members
                .iter()
                .map(|member| member.model)
                .filter(|model| !traits.get(*model).is_some_and(of))
                .collect();
            if !without.is_empty() {
                notes.push(format!("the plan does not state `{what}` of {}", without.join(", ")));
            }
            without.is_empty()
        };
        let known = members.iter().filter_map(|member| traits.get(member.model));
        let mut sizes = None;
        if all(&|traits| traits.parameters.is_some_and(|size| size > 0.0), "parameters", notes) {
            let logs: Vec<f64> =
                known.clone().filter_map(|traits| traits.parameters).map(f64::log2).collect();
            let mean = logs.iter().sum::<f64>() / logs.len() as f64;
            match logs.iter().all(|log| *log == logs[0]) {
                true => notes.push("all models have the same size".to_owned()),
                false => sizes = Some((logs.iter().map(|log| log - mean).collect(), mean.exp2())),
            }
        }
        let mut architectures = None;
        if all(&|traits| traits.architecture.is_some(), "architecture", notes) {
            let names: Vec<String> = known.filter_map(|traits| traits.architecture.clone()).collect();
            let mut distinct: Vec<String> = vec![];
            for name in &names {
                if !distinct.contains(name) {
                    distinct.push(name.clone());
                }
            }
            match distinct.len() {
                1 => notes.push("all models have the same architecture".to_owned()),
                _ => architectures = Some((names, distinct)),
            }
        }
        Self { sizes, architectures }
    }

    fn drop_last(&mut self, notes: &mut Vec<String>) -> bool {
        if self.architectures.take().is_some() {
            notes.push("architecture is left out: these models do not separate it from the rest".to_owned());
        } else if self.sizes.take().is_some() {
            notes.push("size is left out: the models are too few".to_owned());
        } else {
            return false;
        }
        true
    }

    fn fit(&self, members: &[Member<'_>], scale: Scale, level: f64) -> Result<Fit, Error> {
        let mut terms = vec![What::Environment {
            parameters: self.sizes.as_ref().map(|(_, mean)| *mean),
            architecture: self.architectures.as_ref().map(|(_, distinct)| distinct[0].clone()),
        }];
        let mut rows: Vec<Vec<f64>> = vec![vec![1.0]; members.len()];
        if let Some((sizes, _)) = &self.sizes {
            terms.push(What::Doubling);
            rows.iter_mut().zip(sizes).for_each(|(row, size)| row.push(*size));
        }
        if let Some((names, distinct)) = &self.architectures {
            for other in &distinct[1..] {
                terms.push(What::Architecture { of: other.clone(), against: distinct[0].clone() });
                rows.iter_mut()
                    .zip(names)
                    .for_each(|(row, name)| row.push(f64::from(u8::from(name == other))));
            }
        }
        let difference = |(a, b): (&f64, &f64)| match scale {
            Scale::Ratio => (b / a).ln(),
            Scale::Difference => b - a,
        };
        let groups: Vec<Group> = members
            .iter()
            .zip(rows)
            .map(|(member, x)| Group { x, y: member.a.iter().zip(&member.b).map(difference).collect() })
            .collect();
        let Mixed { coefficients, sd_groups, sd_within, df, .. } = mixed::random_intercept(&groups, level)?;
        let back = |value: f64| if scale == Scale::Ratio { value.exp() } else { value };
        let term = |(what, found): (What, mixed::Coefficient)| Term {
            what,
            estimate: back(found.estimate),
            ci: (back(found.ci.0), back(found.ci.1)),
            p: found.p,
        };
        Ok(Fit {
            terms: terms.into_iter().zip(coefficients).map(term).collect(),
            sd_models: sd_groups,
            sd_pairs: sd_within,
            df,
            level,
        })
    }
}
