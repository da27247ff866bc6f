//! Runs without a result, and what they could have done to a difference.
//!
//! Runs that fail are seldom a random choice: those that need the most memory are killed. So a difference of the others can be
//! made by the failures alone. Nothing is assumed of what they would have shown, but that it is within what was seen.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use spark_trace_statistics::{LEVEL, exact};

use super::sample::{Point, Sample};
use crate::journal::LOST;
use crate::results::{Results, Run};

/// How the measured runs of one model went in two environments.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Attrition {
    pub model: String,
    pub a_name: String,
    pub b_name: String,
    pub a: Course,
    pub b: Course,
    /// Fisher's exact test that runs fail, or are cut off, equally often in both.
    pub p: Option<f64>,
}

/// Of one model's measured runs in one environment, repetitions of one run counted once.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Course {
    /// By the plan; absent where there is none.
    pub planned: Option<u32>,
    pub begun: usize,
    pub measured: usize,
    /// Runs that failed, whether a retry succeeded or not: a retry that succeeds is chosen by its success.
    pub failed: usize,
    /// Runs that were cut off with the study, and did not fail.
    pub lost: usize,
}

/// What is known of a difference where some runs have no value.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Bounds {
    /// Runs of A and of B without a value that counts: they failed, or it is not in their results.
    pub a_missing: usize,
    pub b_missing: usize,
    /// The least and the largest value of the others; either is given to all that have none.
    pub least: f64,
    pub most: f64,
    /// The difference where the runs without a value had those that make it the smallest and the largest.
    pub low: f64,
    pub high: f64,
    /// The larger p of both; 1 where the differences are on different sides of 0.
    pub p: f64,
    /// The larger p of equivalence of both.
    pub equivalence_p: Option<f64>,
    /// Of [`Attrition`].
    pub failures_p: Option<f64>,
}

/// A run of the plan: its number, or that of its file.
#[derive(Debug, Default)]
struct Slot {
    round: Option<u32>,
    boots: u32,
    failed: bool,
    lost: bool,
    measured: bool,
}

fn slots(results: &Results, model: &str, environment: &str) -> BTreeMap<u32, Slot> {
    let mut slots: BTreeMap<u32, Slot> = BTreeMap::new();
    let of = |run: &&Run| !run.warmup && run.model == model && run.environment == environment;
    for run in results.runs.iter().filter(of) {
        let slot = slots.entry(run.number).or_default();
        (slot.round, slot.boots) = (run.round, run.boots);
        match run.failure.as_deref() {
            None => slot.measured = true,
            Some(LOST) => slot.lost = true,
            Some(_) => slot.failed = true,
        }
    }
    slots
}

pub fn course(results: &Results, model: &str, environment: &str) -> Course {
    let slots = slots(results, model, environment);
    let count = |which: fn(&Slot) -> bool| slots.values().filter(|slot| which(slot)).count();
    Course {
        planned: results.planned,
        begun: slots.len(),
        measured: count(|slot| slot.measured),
        failed: count(|slot| slot.failed),
        lost: count(|slot| slot.lost && !slot.failed),
    }
}

impl Course {
    /// Runs that ended without a result at least once.
    pub const fn disturbed(&self) -> usize {
        self.failed + self.lost
    }
}

pub fn of(results: &Results, model: &str, (a_name, b_name): (&str, &str)) -> Attrition {
    let (a, b) = (course(results, model, a_name), course(results, model, b_name));
    Attrition {
        model: model.to_owned(),
        a_name: a_name.to_owned(),
        b_name: b_name.to_owned(),
        p: exact::fisher(a.disturbed(), a.begun, b.disturbed(), b.begun).ok(),
        a,
        b,
    }
}

/// Rounds of the runs whose value is not known, or is chosen by a retry.
fn missing(
    slots: &BTreeMap<u32, Slot>,
    known: &[Point],
    lost_too: bool,
) -> (BTreeSet<u32>, Vec<(Option<u32>, u32)>) {
    let with: BTreeSet<u32> = known.iter().map(|point| point.number).collect();
    let has = |number: &u32| with.contains(number);
    let missing = |(number, slot): &(&u32, &Slot)| slot.failed || !has(number) || slot.lost && lost_too;
    let missing = slots.iter().filter(missing).map(|(number, slot)| (*number, (slot.round, slot.boots)));
    missing.unzip()
}

/// Nothing where every run that began has its value. A run that was cut off with the study and repeated counts as any other,
/// unless such runs are more frequent in one environment.
pub fn bounds(
    results: &Results,
    attrition: &Attrition,
    (a, b): (&[Point], &[Point]),
    margin: Option<f64>,
    alpha: f64,
) -> Option<Bounds> {
    let lopsided = attrition.p.is_some_and(|p| p < alpha);
    let of = |environment: &str, known: &[Point]| {
        missing(&slots(results, &attrition.model, environment), known, lopsided)
    };
    let (without_a, rounds_a) = of(&attrition.a_name, a);
    let (without_b, rounds_b) = of(&attrition.b_name, b);
    if rounds_a.is_empty() && rounds_b.is_empty() {
        return None;
    }
    let all = || a.iter().chain(b).map(|point| point.value);
    let (least, most) = (all().reduce(f64::min)?, all().reduce(f64::max)?);
    let complete = |known: &[Point], without: &BTreeSet<u32>, rounds: &[(Option<u32>, u32)], value: f64| {
        let kept = known.iter().filter(|point| !without.contains(&point.number)).copied();
        let given = rounds.iter().zip(without);
        kept.chain(given.map(|((round, boots), number)| Point {
            round: *round,
            boots: *boots,
            value,
            number: *number,
            outlier: false,
        }))
        .collect::<Vec<Point>>()
    };
    let extreme = |for_a: f64, for_b: f64| {
        let mut sides =
            [complete(a, &without_a, &rounds_a, for_a), complete(b, &without_b, &rounds_b, for_b)];
        sides.iter_mut().for_each(|side| side.sort_by_key(|point| point.number));
        let sample = Sample::of(&sides[0], &sides[1]);
        let outcome = sample.outcome(LEVEL).ok()?;
        let within = margin.and_then(|margin| match outcome.varies {
            true => sample.equivalence(margin, alpha).map(|tost| tost.p),
            false => Some(if outcome.difference.abs() <= margin { 0.0 } else { 1.0 }),
        });
        Some((outcome, within))
    };
    let (low, low_within) = extreme(most, least)?;
    let (high, high_within) = extreme(least, most)?;
    let one_side = low.difference > 0.0 || high.difference < 0.0;
    Some(Bounds {
        a_missing: rounds_a.len(),
        b_missing: rounds_b.len(),
        least,
        most,
        low: low.difference,
        high: high.difference,
        p: if one_side { low.p.max(high.p) } else { 1.0 },
        equivalence_p: low_within.zip(high_within).map(|(low, high)| low.max(high)),
        failures_p: attrition.p,
    })
}
