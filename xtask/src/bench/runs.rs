//! Whole runs, alone and under `spark-trace record`, in turn: what a user waits for in the end.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

use super::cuda::{Cuda, last_line};
use super::subject::Subject;
use crate::{process, signals};

/// The one workload that is run so.
pub const NAME: &str = "llm";

const ARGS: &[&str] = &[
    "--weights-size",
    "1G",
    "--kv-limit",
    "2G",
    "--batch",
    "4",
    "--prompt",
    "256",
    "--output-length",
    "32",
    "--iterations",
    "5",
];

/// Quick to simulate: products of matrices on the CPU.
const SIMULATED_ARGS: &[&str] = &["--weights-size", "64M", "--kv-limit", "256M", "--output-length", "8"];

/// How large a run is.
pub fn arguments(cuda: &Cuda) -> &'static [&'static str] {
    if cuda.is_simulated() { SIMULATED_ARGS } else { ARGS }
}

/// What of a run is compared: nanoseconds, by the workload's own report.
pub struct Metric {
    pub subject: Subject,
    of: fn(&Value) -> Option<f64>,
}

pub const METRICS: &[Metric] = &[
    Metric {
        subject: Subject {
            name: NAME,
            what: "inference: time per output token",
            clock: "wall",
            bound: Some(1.02),
        },
        of: |report| Some(1e9 / report["cuda"]["llm"]["output_tokens_per_second"].as_f64()?),
    },
    Metric {
        subject: Subject {
            name: "llm-iterate",
            what: "inference: the timed phase",
            clock: "wall",
            bound: Some(1.02),
        },
        of: |report| between(report, "iterate", "iterate"),
    },
    Metric {
        subject: Subject {
            name: "llm-whole",
            what: "inference: from context to release",
            clock: "wall",
            bound: None,
        },
        of: |report| between(report, "context", "release"),
    },
];

/// From the beginning of one phase until another was done.
fn between(report: &Value, first: &str, last: &str) -> Option<f64> {
    let phases = report["phases"].as_array()?;
    let of = |name: &str| phases.iter().find(|phase| phase["phase"] == name);
    let (begin, end) = (of(first)?["begin_ns"].as_u64()?, of(last)?["ready_ns"].as_u64()?);
    Some(end.checked_sub(begin)? as f64)
}

/// Figures of one run, in the order of [`METRICS`].
type Figures = Vec<f64>;

/// Runs alone and traced, each in the order they were made.
pub struct Runs {
    alone: Vec<Figures>,
    traced: Vec<Figures>,
}

impl Runs {
    /// Ratio of traced to alone of each pair.
    pub fn ratios(&self, metric: usize) -> Vec<f64> {
        self.traced.iter().zip(&self.alone).map(|(traced, alone)| traced[metric] / alone[metric]).collect()
    }

    /// Ratio of each run alone to the one before: the noise of the method.
    pub fn noise(&self, metric: usize) -> Vec<f64> {
        self.alone.windows(2).map(|runs| runs[1][metric] / runs[0][metric]).collect()
    }

    pub fn alone(&self, metric: usize) -> Vec<f64> {
        self.alone.iter().map(|figures| figures[metric]).collect()
    }
}

/// Runs `count` pairs; which of a pair is first alternates, so that drift cancels.
pub fn measure(cuda: &Cuda, spark_trace: &Path, profile: &str, scratch: &Path, count: u32) -> Result<Runs> {
    let mut runs = Runs { alone: Vec::new(), traced: Vec::new() };
    // Not counted: it makes the file of weights.
    run(command(cuda, scratch, None))?;
    for pair in 0..count {
        for traced in if pair % 2 == 0 { [false, true] } else { [true, false] } {
            let tracer = traced.then_some((spark_trace, profile));
            let figures = run(command(cuda, scratch, tracer))?;
            if traced { &mut runs.traced } else { &mut runs.alone }.push(figures);
            signals::check()?;
        }
    }
    Ok(runs)
}

fn command(cuda: &Cuda, scratch: &Path, tracer: Option<(&Path, &str)>) -> Command {
    let mut command = match tracer {
        None => Command::new(&cuda.workload),
        Some((spark_trace, profile)) => {
            let mut command = Command::new(spark_trace);
            // As root under sudo, too: the runs alone are.
            command.args(["record", "--quiet", "--force", "--as-root", "--profile", profile, "--output"]);
            command.arg(scratch.join("bench.json")).arg("--").arg(&cuda.workload);
            command
        }
    };
    command.arg("llm").arg("--model-dir").arg(scratch.join("model")).args(arguments(cuda));
    command.args(["--driver", &cuda.driver]);
    command
}

fn run(mut command: Command) -> Result<Figures> {
    let report = last_line(&process::output(&mut command, "running inference")?)?;
    let figure = |metric: &Metric| (metric.of)(&report).filter(|figure| *figure > 0.0);
    METRICS.iter().map(|metric| figure(metric).context("the workload's report lacks a figure")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_of_a_report() {
        let phase = |name, begin: u64, ready: u64| serde_json::json!({"phase": name, "begin_ns": begin, "ready_ns": ready});
        let report = serde_json::json!({
            "phases": [phase("context", 10, 20), phase("iterate", 30, 45), phase("release", 50, 60)],
            "cuda": {"llm": {"output_tokens_per_second": 4.0}},
        });
        let figures: Vec<_> = METRICS.iter().map(|metric| (metric.of)(&report)).collect();
        assert_eq!(figures, [Some(2.5e8), Some(15.0), Some(50.0)]);
    }

    #[test]
    fn ratios_are_of_pairs() {
        let runs = Runs { alone: vec![vec![2.0], vec![4.0]], traced: vec![vec![3.0], vec![4.0]] };
        assert_eq!((runs.ratios(0), runs.noise(0)), (vec![1.5, 1.0], vec![2.0]));
    }
}
