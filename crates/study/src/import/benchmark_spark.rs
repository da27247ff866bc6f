//! The results file of brandonrc/benchmark-spark: `models` by label, then by environment, then a list of runs.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use crate::results::{Origin, Results, Run, SCHEMA, SCHEMA_VERSION};

/// Its name on the command line.
pub const FORMAT: &str = "benchmark-spark";
/// What the others are compared with.
const BASELINE: &str = "native";

#[derive(Deserialize)]
struct File {
    models: BTreeMap<String, BTreeMap<String, Vec<Record>>>,
}

#[derive(Deserialize)]
pub(super) struct Record {
    /// In the files of single runs.
    pub environment: Option<String>,
    pub model_name: Option<String>,
    model_id: Option<String>,
    iteration: u32,
    /// `20251109_042404`, in a time zone that the file does not name.
    timestamp: String,
    start_temp_celsius: Option<f64>,
    end_temp_celsius: Option<f64>,
    #[serde(default)]
    exit_code: i64,
    /// Requests in a second.
    throughput: Option<f64>,
    /// Tokens in a second.
    output_throughput: Option<f64>,
    latency: Option<f64>,
    /// GiB, both.
    peak_memory: Option<f64>,
    kv_cache: Option<f64>,
}

pub fn read(text: &str) -> Result<Results, String> {
    let file: File = serde_json::from_str(text).map_err(|e| e.to_string())?;
    let mut runs = vec![];
    for (model, by_environment) in file.models {
        for (environment, records) in by_environment {
            for record in records {
                runs.push(run(&model, &environment, record)?);
            }
        }
    }
    of_runs(runs)
}

/// Runs in the order of their times, and what they are of.
pub(super) fn of_runs(mut runs: Vec<Run>) -> Result<Results, String> {
    if runs.is_empty() {
        return Err("there are no runs in it".to_owned());
    }
    runs.sort_by(|a: &Run, b: &Run| {
        a.started_s.partial_cmp(&b.started_s).unwrap_or(std::cmp::Ordering::Equal)
    });
    for (number, run) in (1..).zip(&mut runs) {
        run.number = number;
    }
    let restarted = restarts(&mut runs);
    intervals(&mut runs);
    let names = |name: fn(&Run) -> &String| {
        let mut names: Vec<String> = runs.iter().map(|run| name(run).clone()).collect();
        names.sort_by_key(|name| (name != BASELINE, name.clone()));
        names.dedup();
        names
    };
    let (environments, models) = (names(|run| &run.environment), names(|run| &run.model));
    Ok(Results {
        schema: SCHEMA.to_owned(),
        schema_version: SCHEMA_VERSION,
        name: "benchmark-spark".to_owned(),
        description: description(restarted),
        origin: Origin::Imported { format: FORMAT.to_owned(), file: String::new() },
        environments,
        models,
        alike: vec![],
        order: None,
        primary: vec![],
        planned: None,
        looks: vec![],
        rounds_over: BTreeMap::new(),
        traits: BTreeMap::new(),
        units: BTreeMap::new(),
        machine: BTreeMap::new(),
        runs,
        happenings: vec![],
    })
}

fn description(restarted: usize) -> String {
    let study = "Published study: TensorRT-LLM natively (chroot) and in Docker on a DGX Spark";
    match restarted {
        0 => study.to_owned(),
        _ => format!(
            "{study}. Runs whose iteration was begun again in the same block are not analysed, as warm-ups are not: {restarted}"
        ),
    }
}

/// An iteration that comes again in a block was begun again: the last one counts, or those before it would count twice. How many do not.
fn restarts(runs: &mut [Run]) -> usize {
    let mut many = 0;
    let is_one_block = |a: &Run, b: &Run| a.model == b.model && a.environment == b.environment;
    for block in runs.chunk_by_mut(is_one_block) {
        let mut later = BTreeSet::new();
        for run in block.iter_mut().rev().filter(|run| run.iteration > 0) {
            if !later.insert(run.iteration) {
                run.warmup = true;
                let note = format!("iteration {} was begun again after it", run.iteration);
                run.facts.insert("notes".to_owned(), note);
                many += 1;
            }
        }
    }
    many
}

/// Within a block, from the start of a run to that of the next iteration: all that a run takes, with loading and cooling.
fn intervals(runs: &mut [Run]) {
    for place in 1..runs.len() {
        let (before, after) = runs.split_at_mut(place);
        let (run, next) = (&mut before[place - 1], &after[0]);
        let follows = run.model == next.model
            && run.environment == next.environment
            && !run.warmup
            && next.iteration == run.iteration + 1;
        if let Some((start, end)) = run.started_s.zip(next.started_s).filter(|_| follows) {
            run.metrics.insert("start-interval".to_owned(), end - start);
        }
    }
}

pub(super) fn run(model: &str, environment: &str, record: Record) -> Result<Run, String> {
    let metrics = [
        ("request-throughput", record.throughput),
        ("output-throughput", record.output_throughput),
        ("latency", record.latency),
        ("peak-memory", record.peak_memory),
        ("kv-cache", record.kv_cache),
        ("end-temperature", record.end_temp_celsius),
    ];
    let known = |(name, value): (&str, Option<f64>)| Some((name.to_owned(), value?));
    Ok(Run {
        attempt: 1,
        environment: environment.to_owned(),
        model: model.to_owned(),
        iteration: record.iteration,
        started_s: Some(seconds(&record.timestamp)?),
        failure: (record.exit_code != 0).then(|| format!("exit code {}", record.exit_code)),
        metrics: metrics.into_iter().filter_map(known).collect(),
        state: [("gpu-temperature", record.start_temp_celsius)].into_iter().filter_map(known).collect(),
        facts: record.model_id.map(|id| ("model-id".to_owned(), id)).into_iter().collect(),
        ..Run::default()
    })
}

/// Seconds since 1970 of `YYYYMMDD_HHMMSS`, taken for UTC: only differences matter.
pub(super) fn seconds(timestamp: &str) -> Result<f64, String> {
    let wrong = || format!("`{timestamp}` is no time of the form YYYYMMDD_HHMMSS");
    let (date, time) = timestamp.split_once('_').ok_or_else(wrong)?;
    let part = |text: &str, from: usize, length: usize| {
        text.get(from..from + length).and_then(|part| part.parse::<i64>().ok()).ok_or_else(wrong)
    };
    let (year, month, day) = (part(date, 0, 4)?, part(date, 4, 2)?, part(date, 6, 2)?);
    let clock = part(time, 0, 2)? * 3600 + part(time, 2, 2)? * 60 + part(time, 4, 2)?;
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || date.len() != 8 || time.len() != 6 {
        return Err(wrong());
    }
    // Days since the epoch, with years that begin in March: leap days come last.
    let (shifted_year, shifted_month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let era = shifted_year.div_euclid(400);
    let of_era = shifted_year.rem_euclid(400);
    let of_year = (153 * shifted_month + 2) / 5 + day - 1;
    let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468;
    Ok((days * 86_400 + clock) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"{"models": {"m": {
        "native": [
            {"iteration": 2, "timestamp": "20251109_042404", "exit_code": 0, "peak_memory": 70.0, "kv_cache": 44.0},
            {"iteration": 1, "timestamp": "20251109_022626", "exit_code": 0, "output_throughput": 120.5}],
        "container": [{"iteration": 1, "timestamp": "20251109_050000", "exit_code": 1, "latency": null}]}}}"#;

    #[test]
    fn runs_come_in_the_order_of_their_times() {
        let results = read(FILE).unwrap();
        assert_eq!(results.environments, ["native", "container"]);
        let order: Vec<_> = results.runs.iter().map(|run| (run.number, run.iteration)).collect();
        assert_eq!(order, [(1, 1), (2, 2), (3, 1)]);
        assert_eq!(results.runs[0].metrics["output-throughput"], 120.5);
        assert_eq!(results.runs[1].started_s.unwrap() - results.runs[0].started_s.unwrap(), 7058.0);
        assert_eq!(results.runs[2].failure.as_deref(), Some("exit code 1"));
    }

    /// As the published file has it: one block natively whose first iteration is there twice.
    #[test]
    fn an_iteration_that_was_begun_again_does_not_count_twice_and_intervals_are_within_blocks() {
        let run = |iteration: u32, time: &str| {
            format!("{{\"iteration\": {iteration}, \"timestamp\": \"20251109_{time}\"}}")
        };
        let text = format!(
            "{{\"models\": {{\"m\": {{\"native\": [{}, {}, {}, {}], \"container\": [{}, {}]}}}}}}",
            run(1, "000000"),
            run(1, "003000"),
            run(2, "004300"),
            run(3, "005600"),
            run(1, "010900"),
            run(2, "012400")
        );
        let results = read(&text).unwrap();
        let warmups: Vec<bool> = results.runs.iter().map(|run| run.warmup).collect();
        assert_eq!(warmups, [true, false, false, false, false, false]);
        assert_eq!(results.runs[0].facts["notes"], "iteration 1 was begun again after it");
        assert!(results.description.ends_with(": 1"), "{}", results.description);
        let intervals: Vec<Option<f64>> =
            results.runs.iter().map(|run| run.metrics.get("start-interval").copied()).collect();
        assert_eq!(intervals, [None, Some(780.0), Some(780.0), None, Some(900.0), None]);
    }

    #[test]
    fn times_are_those_of_the_calendar() {
        assert_eq!(seconds("19700101_000000"), Ok(0.0));
        assert_eq!(seconds("20000229_000000"), Ok(951_782_400.0));
        for text in ["", "2025", "20251309_000000", "20251109-000000", "20251109_0000é0"] {
            assert!(seconds(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_no_such_file_is_refused() {
        for text in
            ["", "{}", "[]", r#"{"models": {}}"#, r#"{"models": {"m": {"native": [{"iteration": 1}]}}}"#]
        {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
