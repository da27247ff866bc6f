//! The runs that a comparison rests on. All of its figures are of these, and of their pairs.

use serde::Serialize;
use spark_trace_statistics::dependence::{self, Dependence};
use spark_trace_statistics::equivalence::{self, Tost};
use spark_trace_statistics::outliers::{self, Label};
use spark_trace_statistics::ratio::{self, Ratio};
use spark_trace_statistics::t::{self, TTest};
use spark_trace_statistics::{Error, exact};

use crate::results::Run;

/// With fewer rounds that both environments have, all runs are compared without them.
const FEWEST_PAIRS: usize = 3;

/// One run's value.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Point {
    /// Place in the study's order.
    pub number: u32,
    pub round: Option<u32>,
    /// Starts of the machine before it.
    pub boots: u32,
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
    /// What the pairs have in common; absent where there are none.
    pub dependence: Option<Dependence>,
}

/// What the test of a sample says of its difference.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    pub test: &'static str,
    pub difference: f64,
    pub ci: Option<(f64, f64)>,
    pub p: f64,
    /// The values vary, so there is a standard error.
    pub varies: bool,
}

impl Sample {
    pub fn of(a: &[Point], b: &[Point]) -> Self {
        // Runs on either side of a start of the machine have less in common than a pair has.
        let partner = |of: &Point| {
            b.iter().find(|point| of.round.is_some() && point.round == of.round && point.boots == of.boots)
        };
        let pairs: Vec<(&Point, &Point)> =
            a.iter().filter_map(|point| Some((point, partner(point)?))).collect();
        if pairs.len() >= FEWEST_PAIRS {
            let (a, b): (Vec<f64>, Vec<f64>) = pairs.iter().map(|(a, b)| (a.value, b.value)).unzip();
            let (at_a, at_b): (Vec<u32>, Vec<u32>) = pairs.iter().map(|(a, b)| (a.number, b.number)).unzip();
            let dependence = dependence::of_pairs(&a, &b, &at_a, &at_b).ok();
            return Self { a, b, paired: true, dependence };
        }
        let values = |points: &[Point]| points.iter().map(|point| point.value).collect();
        Self { a: values(a), b: values(b), paired: false, dependence: None }
    }

    /// Of pairs; none where it is not known.
    fn allowance(&self) -> Dependence {
        self.dependence.unwrap_or_else(|| Dependence::none(self.a.len()))
    }

    /// B minus A, pair by pair; none where there are no pairs.
    pub fn differences(&self) -> Vec<f64> {
        match self.paired {
            true => self.a.iter().zip(&self.b).map(|(a, b)| b - a).collect(),
            false => vec![],
        }
    }

    /// The test that fits the sample. Where nothing varies p is that of the orders in which the values could have come.
    pub fn outcome(&self, level: f64) -> Result<Outcome, Error> {
        let test = if self.paired { "paired t test" } else { "Welch's t test" };
        match self.test(level) {
            Ok(found) => Ok(Outcome {
                test,
                difference: found.difference,
                ci: Some(found.ci),
                p: found.p,
                varies: true,
            }),
            Err(Error::Constant) => {
                let difference = t::mean_difference(&self.a, &self.b)?;
                let p = match (difference == 0.0, self.paired) {
                    (true, _) => 1.0,
                    (false, true) => exact::equal_pairs(self.a.len())?,
                    (false, false) => exact::equal_groups(self.a.len(), self.b.len())?,
                };
                let test =
                    if self.paired { "the signs of equal pairs" } else { "the orders of equal values" };
                Ok(Outcome { test, difference, ci: None, p, varies: false })
            }
            Err(error) => Err(error),
        }
    }

    pub fn test(&self, level: f64) -> Result<TTest, Error> {
        match self.paired {
            // Neighbouring pairs may have something in common.
            true => t::paired_dependent(&self.a, &self.b, &self.allowance(), level),
            false => t::welch(&self.a, &self.b, level),
        }
    }

    /// B over A, with its interval.
    pub fn ratio(&self, level: f64) -> Result<Ratio, Error> {
        match self.paired {
            true => ratio::paired_dependent(&self.a, &self.b, &self.allowance(), level),
            false => ratio::welch(&self.a, &self.b, level),
        }
    }

    /// Nothing without a margin, and where nothing varies.
    pub fn equivalence(&self, margin: f64, alpha: f64) -> Option<Tost> {
        let within = (-margin, margin);
        match self.paired {
            true => equivalence::tost_dependent(&self.a, &self.b, &self.allowance(), within, alpha).ok(),
            false => equivalence::tost(&self.a, &self.b, -margin, margin, alpha).ok(),
        }
    }
}

pub fn points<'a>(runs: impl Iterator<Item = &'a Run>, value: &impl Fn(&Run) -> Option<f64>) -> Vec<Point> {
    let known = runs.filter_map(|run| Some((run, value(run).filter(|value| value.is_finite())?)));
    let mut points: Vec<Point> = known
        .map(|(run, value)| Point {
            number: run.number,
            round: run.round,
            boots: run.boots,
            value,
            outlier: false,
        })
        .collect();
    let values: Vec<f64> = points.iter().map(|point| point.value).collect();
    if let Ok(tukey) = outliers::tukey(&values) {
        for (point, label) in points.iter_mut().zip(tukey.labels) {
            point.outlier = label != Label::Inside;
        }
    }
    points
}
