//! How long a study takes, with the basis of each figure. Pure.

use std::time::Duration;

use serde::Serialize;
use spark_trace_recording::{parse, units};

use super::command::Values;
use super::plan::{Decoding, Environment, Model, Plan};
use super::results::Run;
use super::schedule::Slot;

/// One model's runs that are still to be made.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ModelTime {
    pub model: String,
    pub runs: usize,
    /// Of the environment whose runs take longest; absent where nothing is known.
    pub run_s: Option<f64>,
    pub basis: String,
    pub timeout_s: f64,
    /// All runs with the plan's cooldown, without retries and without waiting for other gates.
    pub all_s: Option<f64>,
}

impl ModelTime {
    pub fn hours(&self) -> Option<f64> {
        self.all_s.map(|seconds| seconds / 3600.0)
    }
}

/// What one run takes, and how that is known.
struct RunTime {
    time: Duration,
    basis: String,
}

/// Of every model that has runs left; an error names what in the plan's estimate is no number.
pub fn of(
    plan: &Plan,
    left: &[Slot],
    done: &[Run],
    values: &dyn Fn(&Environment, &Model) -> Values,
) -> Result<Vec<ModelTime>, String> {
    let mut all = vec![];
    for model in &plan.models {
        let slots: Vec<&Slot> = left.iter().filter(|slot| slot.model == model.name).collect();
        if slots.is_empty() {
            continue;
        }
        let mut total = Some(Duration::ZERO);
        let mut longest: Option<RunTime> = None;
        for environment in &plan.environments {
            let runs = slots.iter().filter(|slot| slot.environment == environment.name).count();
            let runs = u32::try_from(runs).unwrap_or(u32::MAX);
            let one = match measured(model, environment, done) {
                Some(measured) => Some(measured),
                None => stated(plan, &values(environment, model))
                    .map_err(|what| format!("{} in {}: {what}", model.name, environment.name))?,
            };
            total = total.zip(one.as_ref()).map(|(total, one)| {
                total.saturating_add((one.time.saturating_add(plan.gates.cooldown)).saturating_mul(runs))
            });
            if let Some(one) = one
                && longest.as_ref().is_none_or(|longest| longest.time < one.time)
            {
                longest = Some(one);
            }
        }
        all.push(ModelTime {
            model: model.name.clone(),
            runs: slots.len(),
            run_s: longest.as_ref().map(|run| run.time.as_secs_f64()),
            basis: longest.map_or_else(|| UNKNOWN.to_owned(), |run| run.basis),
            timeout_s: plan.timeout_of(model).as_secs_f64(),
            all_s: total.map(|total| total.as_secs_f64()),
        });
    }
    Ok(all)
}

const UNKNOWN: &str = "the plan has no `estimate`, and no run is measured";

/// The mean of the runs that this study has made.
fn measured(model: &Model, environment: &Environment, done: &[Run]) -> Option<RunTime> {
    let here =
        |run: &&Run| run.model == model.name && run.environment == environment.name && run.failure.is_none();
    let times: Vec<f64> =
        done.iter().filter(here).filter_map(|run| Some(run.ended_s? - run.started_s?)).collect();
    if times.is_empty() {
        return None;
    }
    let mean = times.iter().sum::<f64>() / times.len() as f64;
    let time = Duration::try_from_secs_f64(mean).ok()?;
    let runs = units::count(times.len(), "run", "runs");
    Some(RunTime { time, basis: format!("measured: mean of {runs} in {}", environment.name) })
}

fn stated(plan: &Plan, values: &Values) -> Result<Option<RunTime>, String> {
    let Some(estimate) = &plan.estimate else { return Ok(None) };
    let time = |name: &str, text: &String| {
        let text = values.fill(text)?;
        parse::duration(&text).map_err(|what| format!("`estimate.{name}`: {what}"))
    };
    let start = estimate.start.as_ref().map(|text| time("start", text)).transpose()?;
    if let Some(text) = &estimate.run {
        return Ok(Some(RunTime { time: time("run", text)?, basis: "the plan's `estimate.run`".to_owned() }));
    }
    let Some(decoding) = &estimate.decoding else { return Ok(None) };
    let (generation, basis) = generation(decoding, values)?;
    let begun = start.map_or_else(String::new, |start| format!("{} s start + ", start.as_secs()));
    let time = generation.saturating_add(start.unwrap_or_default());
    Ok(Some(RunTime { time, basis: format!("{begun}{basis}") }))
}

fn generation(decoding: &Decoding, values: &Values) -> Result<(Duration, String), String> {
    let positive = |name: &str, value: f64| match value > 0.0 && value.is_finite() {
        true => Ok(value),
        false => Err(format!("`estimate.decoding.{name}` is {value}; it must be above 0")),
    };
    let number = |name: &str, text: &str| {
        let text = values.fill(text)?;
        let value = text.parse().map_err(|_| format!("`estimate.decoding.{name}`: `{text}` is no number"))?;
        positive(name, value)
    };
    let bytes = |name: &str, text: &str| {
        let text = values.fill(text)?;
        let bytes = parse::size(&text).map_err(|what| format!("`estimate.decoding.{name}`: {what}"))?;
        positive(name, bytes as f64)
    };
    let requests = number("requests", &decoding.requests)?;
    let tokens = number("output-tokens", &decoding.output_tokens)?;
    let batch = number("batch", &decoding.batch)?;
    let (weights, bandwidth) =
        (bytes("weights", &decoding.weights)?, bytes("bandwidth", &decoding.bandwidth)?);
    let passes = (requests / batch).ceil() * tokens;
    let time = Duration::try_from_secs_f64(passes * weights / bandwidth)
        .map_err(|_| "`estimate.decoding` is longer than a clock can count".to_owned())?;
    let gib = |bytes: f64| format!("{:.1} GiB", bytes / (1_u64 << 30) as f64);
    let basis = format!(
        "{passes:.0} passes ({requests:.0} requests / batch {batch:.0} x {tokens:.0} tokens) x {} / {} per s",
        gib(weights),
        gib(bandwidth)
    );
    Ok((time, basis))
}
