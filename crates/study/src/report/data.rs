//! The runs as a table for other statistics, and what its columns are.

use std::collections::BTreeMap;

use crate::figures;
use crate::results::{Results, Run};
use spark_trace_render::csv::{self, Field};

/// Facts that are texts of many lines, and in the journal.
const LONG: &[&str] = &["log", "messages"];

type Levels = fn(&Run) -> &BTreeMap<String, f64>;

/// One column of `runs.csv`.
struct Column {
    name: String,
    unit: String,
    meaning: String,
    of: Box<dyn Fn(&Run) -> Field>,
}

fn column(
    name: impl Into<String>,
    unit: impl Into<String>,
    meaning: impl Into<String>,
    of: impl Fn(&Run) -> Field + 'static,
) -> Column {
    Column { name: name.into(), unit: unit.into(), meaning: meaning.into(), of: Box::new(of) }
}

/// Every run, failed ones and warm-ups too: in the order of running.
pub fn runs(results: &Results) -> String {
    let columns = columns(results);
    let header: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
    let rows = results.runs.iter().map(|run| columns.iter().map(|column| (column.of)(run)).collect());
    csv::lines(&header, rows)
}

/// A row for each column of [`runs`].
pub fn dictionary(results: &Results) -> String {
    let rows = columns(results)
        .into_iter()
        .map(|column| vec![Field::Text(column.name), Field::Text(column.unit), Field::Text(column.meaning)]);
    csv::lines(&["column", "unit", "meaning"], rows)
}

fn columns(results: &Results) -> Vec<Column> {
    let count = |value: u32| Field::Ratio(Some(f64::from(value)));
    let yes = |value: bool| Field::Text(if value { "yes" } else { "no" }.to_owned());
    let mut columns = vec![
        column("number", "", "place in the order of running, from 1", move |run| count(run.number)),
        column("attempt", "", "1, or more where a failed or lost run was repeated", move |run| {
            count(run.attempt)
        }),
        column("model", "", "model by its name in the plan", |run| Field::Text(run.model.clone())),
        column("environment", "", "environment by its name in the plan", |run| {
            Field::Text(run.environment.clone())
        }),
        column("iteration", "", "repetition of this model in this environment, from 1", move |run| {
            count(run.iteration)
        }),
        column("round", "", "runs of one round are next to each other and are compared as pairs", |run| {
            Field::Ratio(run.round.map(f64::from))
        }),
        column("warmup", "", "yes: a run before the measured ones", move |run| yes(run.warmup)),
        column("analysed", "", "yes: neither a warm-up nor failed", move |run| yes(run.counts())),
        column("started", "s", "seconds since 1970; of imported runs in the clock of their files", |run| {
            Field::Ratio(run.started_s)
        }),
        column("ended", "s", "seconds since 1970", |run| Field::Ratio(run.ended_s)),
        column("failure", "", "why the run failed; empty of one that succeeded", |run| {
            Field::Text(run.failure.clone().unwrap_or_default())
        }),
    ];
    for name in keys(results, |run| &run.metrics) {
        let known = figures::known(&name);
        let meaning = figures::title(&name).unwrap_or_else(|| "a metric of the plan".to_owned());
        let unit = known
            .map_or_else(|| results.units.get(&name).map_or("", String::as_str), |known| known.unit)
            .to_owned();
        let key = name.clone();
        columns.push(column(name, unit, meaning, move |run| Field::Ratio(run.metrics.get(&key).copied())));
    }
    for name in keys(results, |run| &run.state) {
        let unit = figures::state_unit(&name);
        let meaning = format!("{name} of the machine when the run began");
        columns.push(column(format!("start.{name}"), unit, meaning, move |run| {
            Field::Ratio(run.state.get(&name).copied())
        }));
    }
    let levels: [(&str, &str, Levels); 2] = [
        ("peak", "at the peak of memory in use", |run| &run.sources),
        ("kv", "at the KV-cache reading", |run| &run.kv_sources),
    ];
    for (prefix, when, of) in levels {
        for name in keys(results, of) {
            let title = figures::source_title(&name).unwrap_or(&name);
            let meaning = format!("source of memory: {title}, {when}");
            columns.push(column(format!("{prefix}.{name}"), "bytes", meaning, move |run| {
                Field::Ratio(of(run).get(&name).copied())
            }));
        }
    }
    for name in keys(results, |run| &run.facts).into_iter().filter(|name| !LONG.contains(&name.as_str())) {
        let meaning = "what else is known of the run";
        columns.push(column(format!("fact.{name}"), "", meaning, move |run| {
            Field::Text(run.facts.get(&name).cloned().unwrap_or_default())
        }));
    }
    columns
}

/// The results as [`crate::load`] reads them, without the logs of failed runs: those may hold what is not for others.
pub fn results(results: &Results) -> Results {
    let mut results = results.clone();
    results.runs.iter_mut().for_each(|run| run.facts.retain(|name, _| !LONG.contains(&name.as_str())));
    results
}

fn keys<T>(results: &Results, of: impl Fn(&Run) -> &BTreeMap<String, T>) -> Vec<String> {
    let all = results.runs.iter().flat_map(|run| of(run).keys());
    figures::in_order(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::{Origin, SCHEMA, SCHEMA_VERSION};

    fn some() -> Results {
        let map =
            |pairs: &[(&str, f64)]| pairs.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
        let run = Run {
            number: 1,
            attempt: 1,
            environment: "native".to_owned(),
            model: "=m,\"x\"".to_owned(),
            iteration: 1,
            round: Some(1),
            started_s: Some(1.5),
            metrics: map(&[("kv-cache", 0.1 + 0.2), ("output-throughput", 120.0), ("own", 1e-9)]),
            state: map(&[("gpu-temperature", 38.0), ("mem-free", 100.0)]),
            sources: map(&[("anon", 4096.0)]),
            facts: [("log".to_owned(), "secret\nlines".to_owned()), ("model-id".to_owned(), "id".to_owned())]
                .into(),
            ..Run::default()
        };
        let failed = Run {
            number: 2,
            failure: Some("exit code 1".to_owned()),
            metrics: BTreeMap::new(),
            ..run.clone()
        };
        Results {
            schema: SCHEMA.to_owned(),
            schema_version: SCHEMA_VERSION,
            name: "s".to_owned(),
            description: String::new(),
            origin: Origin::Simulated,
            environments: vec!["native".to_owned()],
            models: vec!["m".to_owned()],
            alike: vec![],
            planned: None,
            looks: vec![],
            rounds_over: BTreeMap::new(),
            traits: BTreeMap::new(),
            units: BTreeMap::new(),
            primary: Default::default(),
            order: None,
            machine: BTreeMap::new(),
            runs: vec![run, failed],
            happenings: vec![],
        }
    }

    /// Read by another hand.
    #[test]
    fn every_run_is_a_row_and_every_column_is_described() {
        let text = runs(&some());
        let mut reader = ::csv::Reader::from_reader(text.as_bytes());
        let header: Vec<String> = reader.headers().unwrap().iter().map(str::to_owned).collect();
        let rows: Vec<BTreeMap<String, String>> = reader.deserialize().map(Result::unwrap).collect();
        assert_eq!(rows.len(), 2);
        assert_eq!(rows[0]["kv-cache"].parse::<f64>().unwrap(), 0.1 + 0.2);
        assert_eq!((rows[0]["start.mem-free"].as_str(), rows[0]["peak.anon"].as_str()), ("100", "4096"));
        assert_eq!((rows[1]["kv-cache"].as_str(), rows[1]["failure"].as_str()), ("", "exit code 1"));
        assert_eq!((rows[0]["analysed"].as_str(), rows[1]["analysed"].as_str()), ("yes", "no"));
        assert!(!text.contains("secret") && !rows[0]["model"].starts_with('='), "{text}");
        let described = dictionary(&some());
        let mut reader = ::csv::Reader::from_reader(described.as_bytes());
        let described: Vec<(String, String, String)> = reader.deserialize().map(Result::unwrap).collect();
        assert_eq!(described.iter().map(|(name, ..)| name.clone()).collect::<Vec<_>>(), header);
        let unit = |name: &str| described.iter().find(|(column, ..)| column == name).unwrap().1.clone();
        assert_eq!(
            ["output-throughput", "kv-cache", "start.gpu-temperature", "start.mem-free", "peak.anon", "own"]
                .map(unit),
            ["tokens/s", "GiB", "degC", "GiB", "bytes", ""]
        );
    }

    #[test]
    fn results_for_others_have_no_logs() {
        let text = serde_json::to_string(&results(&some())).unwrap();
        assert!(!text.contains("secret") && text.contains("model-id"), "{text}");
    }
}
