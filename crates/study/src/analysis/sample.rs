//! The runs that a comparison rests on. All of its figures are of these, and of their pairs.

use serde::Serialize;
use spark_trace_statistics::equivalence::{self, Tost};
use spark_trace_statistics::outliers::{self, Label};
use spark_trace_statistics::t::{self, TTest};
use spark_trace_statistics::{Error, LEVEL, exact};

use crate::results::Run;

/// With fewer rounds that both environments have, all runs are compared without them.
const FEWEST_PAIRS: usize = 3;

/// One run's value.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Point {
    /// Place in the study's order.
    pub number: u32,
    pub round: Option<u32>,
    pub value: f64,
    /// By Tukey's fences within its environment: named, and kept.
    pub outlier: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    pub a: Vec<f64>,
    pub b: Vec<f64>,
    /// The values with the same index are of one round.
    pub paired: bool,
}

/// What the test of a sample says of its difference.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    pub test: &'static str,
    pub difference: f64,
    pub ci: Option<(f64, f64)>,
    pub p: f64,
    /// Autocorrelation of the pairs' differences that is allowed for.
    pub dependence: Option<f64>,
    /// The values vary, so there is a standard error.
    pub varies: bool,
}

impl Sample {
    pub fn of(a: &[Point], b: &[Point]) -> Self {
        let of_round = |round: u32| b.iter().find(|point| point.round == Some(round));
        let pairs: (Vec<f64>, Vec<f64>) =
            a.iter().filter_map(|point| Some((point.value, of_round(point.round?)?.value))).unzip();
        if pairs.0.len() >= FEWEST_PAIRS {
            return Self { a: pairs.0, b: pairs.1, paired: true };
        }
        let values = |points: &[Point]| points.iter().map(|point| point.value).collect();
        Self { a: values(a), b: values(b), paired: false }
    }

    /// B minus A, pair by pair; none where there are no pairs.
    pub fn differences(&self) -> Vec<f64> {
        match self.paired {
            true => self.a.iter().zip(&self.b).map(|(a, b)| b - a).collect(),
            false => vec![],
        }
    }

    /// The test that fits the sample. Where nothing varies p is that of the orders in which the values could have come.
    pub fn outcome(&self) -> Result<Outcome, Error> {
        let of = |test: &'static str, found: TTest, dependence: Option<f64>| Outcome {
            test,
            difference: found.difference,
            ci: Some(found.ci),
            p: found.p,
            dependence,
            varies: true,
        };
        match self.test(LEVEL) {
            Ok((found, dependence)) if self.paired => Ok(of("paired t test", found, dependence)),
            Ok((found, _)) => Ok(of("Welch's t test", found, None)),
            Err(Error::Constant) => {
                let difference = t::mean_difference(&self.a, &self.b)?;
                let p = match (difference == 0.0, self.paired) {
                    (true, _) => 1.0,
                    (false, true) => exact::equal_pairs(self.a.len())?,
                    (false, false) => exact::equal_groups(self.a.len(), self.b.len())?,
                };
                let test =
                    if self.paired { "the signs of equal pairs" } else { "the orders of equal values" };
                Ok(Outcome { test, difference, ci: None, p, dependence: None, varies: false })
            }
            Err(error) => Err(error),
        }
    }

    /// At another level, as for simultaneous intervals.
    pub fn test(&self, level: f64) -> Result<(TTest, Option<f64>), Error> {
        match self.paired {
            // Neighbouring pairs may have something in common.
            true => t::paired_in_order(&self.a, &self.b, level).map(|(test, r)| (test, Some(r))),
            false => t::welch(&self.a, &self.b, level).map(|test| (test, None)),
        }
    }

    /// Nothing without a margin, and where nothing varies.
    pub fn equivalence(&self, margin: f64, alpha: f64) -> Option<Tost> {
        match self.paired {
            true => equivalence::tost_paired_in_order(&self.a, &self.b, -margin, margin, alpha).ok(),
            false => equivalence::tost(&self.a, &self.b, -margin, margin, alpha).ok(),
        }
    }
}

pub fn points<'a>(runs: impl Iterator<Item = &'a Run>, value: &impl Fn(&Run) -> Option<f64>) -> Vec<Point> {
    let known = runs.filter_map(|run| Some((run, value(run).filter(|value| value.is_finite())?)));
    let mut points: Vec<Point> = known
        .map(|(run, value)| Point { number: run.number, round: run.round, value, outlier: false })
        .collect();
    let values: Vec<f64> = points.iter().map(|point| point.value).collect();
    if let Ok(tukey) = outliers::tukey(&values) {
        for (point, label) in points.iter_mut().zip(tukey.labels) {
            point.outlier = label != Label::Inside;
        }
    }
    points
}
