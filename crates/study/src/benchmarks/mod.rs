//! What benchmarks of inference engines report: speeds and latencies, out of a run's log and the files that it leaves.
//!
//! [`table::BENCHMARKS`] is the table. Metrics have the names and units of [`crate::figures::METRICS`].

pub mod form;
mod json;
mod llama;
pub mod table;

use std::collections::{BTreeMap, BTreeSet};

use regex::Regex;
use serde_json::Value;

use form::{At, Benchmark, Form, Key, Label, Row};
use table::BENCHMARKS;

/// Counts; of anything else 0 means that nothing was measured.
const MAY_BE_ZERO: &[&str] = &["failed-requests"];

/// What the benchmarks of a run report.
#[derive(Debug, Default, PartialEq)]
pub struct Found {
    /// By name. A benchmark of several tests has a metric for each: `prompt-throughput.pp512`.
    pub metrics: BTreeMap<String, f64>,
    pub benchmarks: Vec<&'static str>,
    /// What was left out, and which of several reports counts.
    pub notes: Vec<String>,
}

type Figures = BTreeMap<String, f64>;

/// Reads files of results and logs. Of what stands in several, the first counts.
pub fn read(texts: &[&str]) -> Found {
    let parsed: Vec<(&str, Vec<Value>)> = texts.iter().map(|text| (*text, json::objects(text))).collect();
    let mut found = Found::default();
    let mut whose: BTreeMap<String, &'static str> = BTreeMap::new();
    for benchmark in BENCHMARKS {
        let figures = of(benchmark, &parsed, &mut found.notes);
        if figures.is_empty() {
            continue;
        }
        found.benchmarks.push(benchmark.name);
        for (metric, value) in figures {
            let other = whose.get(&metric).filter(|_| found.metrics.get(&metric) != Some(&value)).copied();
            match other {
                Some(other) => {
                    found.metrics.remove(&metric);
                    found.notes.push(format!(
                        "{metric} is left out: {other} and {} report different values",
                        benchmark.name
                    ));
                }
                None => {
                    whose.insert(metric.clone(), benchmark.name);
                    found.metrics.insert(metric, value);
                }
            }
        }
    }
    found
}

/// The figures of one benchmark: of its forms the first is the most exact, and of the texts the first counts.
fn of(benchmark: &Benchmark, texts: &[(&str, Vec<Value>)], notes: &mut Vec<String>) -> Figures {
    let mut figures = Figures::new();
    for form in benchmark.forms {
        for (text, objects) in texts {
            let (reports, usual, found) = match form {
                Form::Text { .. } => of_text(form, text),
                Form::Json { with, without, keys } => {
                    let has = |object: &Value, pointer: &str| object.pointer(pointer).is_some();
                    let fits = |object: &&Value| {
                        with.iter().all(|key| has(object, key)) && !without.iter().any(|key| has(object, key))
                    };
                    let fitting: Vec<&Value> = objects.iter().filter(fits).collect();
                    (
                        fitting.len(),
                        1,
                        fitting.last().map_or_else(Figures::new, |object| of_object(object, keys)),
                    )
                }
                Form::Objects(read) => {
                    (1, 1, of_rows(objects.iter().flat_map(read).collect(), benchmark, notes))
                }
                Form::Table { read, .. } => (1, 1, of_rows(read(text), benchmark, notes)),
            };
            if reports > usual && !found.is_empty() {
                notes.push(format!("{} reports of {}: the last counts", reports, benchmark.name));
            }
            for (metric, value) in found {
                figures.entry(metric).or_insert(value);
            }
        }
    }
    figures
}

fn is_measured(metric: &str, value: f64) -> bool {
    value.is_finite() && (value > 0.0 || value == 0.0 && MAY_BE_ZERO.contains(&metric))
}

fn of_object(object: &Value, keys: &[Key]) -> Figures {
    let figures = keys.iter().filter_map(|key| {
        let value = object.pointer(key.pointer)?.as_f64()? * key.scale;
        is_measured(key.metric, value).then(|| (key.metric.to_owned(), value))
    });
    figures.collect()
}

/// The last report in a text, how many there are, and how many are usual.
fn of_text(form: &Form, text: &str) -> (usize, usize, Figures) {
    let Form::Text { begins, usual, with, without, labels } = form else { return (0, 0, Figures::new()) };
    let lines: Vec<&str> = text.lines().collect();
    let starts: Vec<usize> =
        lines.iter().enumerate().filter(|(_, line)| line.contains(begins)).map(|(place, _)| place).collect();
    // A log that was cut may lack the heading.
    let report = &lines[starts.last().copied().unwrap_or(0)..];
    let has = |words: &&str| report.iter().any(|line| place(line, words).is_some());
    if !with.iter().all(&has) || without.iter().any(has) {
        return (0, *usual, Figures::new());
    }
    let mut figures = Figures::new();
    for Label { metric, at, scale } in *labels {
        let mut values = match at {
            At::Words(words) => report.iter().filter_map(|line| behind(line, words)).collect::<Vec<f64>>(),
            // An expression of the table compiles: its tests read every row.
            At::Group(regex) => Regex::new(regex).map_or_else(
                |_| vec![],
                |regex| report.iter().filter_map(|line| grouped(&regex, line)).collect(),
            ),
        };
        values.retain(|value| is_measured(metric, *value));
        if let Some(value) = values.first() {
            figures.entry((*metric).to_owned()).or_insert(value * scale);
        }
    }
    (starts.len(), *usual, figures)
}

/// Where words stand on a line, with nothing of the same sentence before them: `Total Token Throughput` is not
/// `Token Throughput`.
fn place(line: &str, words: &str) -> Option<usize> {
    let at = line.find(words)?;
    let before = line[..at].trim_end();
    let ends = before.chars().next_back();
    ends.is_none_or(|last| "|])>:=#-".contains(last)).then_some(at)
}

/// The number behind words and a colon.
fn behind(line: &str, words: &str) -> Option<f64> {
    let rest = &line[place(line, words)? + words.len()..];
    let number = rest.trim_start().strip_prefix(':')?;
    number.split_whitespace().next()?.parse().ok()
}

fn grouped(regex: &Regex, line: &str) -> Option<f64> {
    // What a container engine's log puts before a line ends with a bar.
    let line = line.rsplit_once(" | ").map_or(line, |(_, rest)| rest).trim();
    regex.captures(line)?.get(1)?.as_str().parse().ok()
}

/// A metric with one test has its plain name; with several each has a name of its own. A test that has more than one
/// result is left out: nothing says which is meant.
fn of_rows(rows: Vec<Row>, benchmark: &Benchmark, notes: &mut Vec<String>) -> Figures {
    let mut figures = Figures::new();
    let metrics: BTreeSet<&str> = rows.iter().map(|row| row.metric).collect();
    for metric in metrics {
        let mut tests: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
        for row in rows.iter().filter(|row| row.metric == metric && is_measured(metric, row.value)) {
            tests.entry(&row.test).or_default().push(row.value);
        }
        let alone = tests.len() == 1;
        for (test, values) in tests {
            match values.as_slice() {
                [value] => {
                    let name = if alone { metric.to_owned() } else { format!("{metric}.{test}") };
                    figures.insert(name, *value);
                }
                several => {
                    notes.push(format!(
                        "{metric} is left out: {} has {} results of {test}; let each model of the plan run one",
                        benchmark.name,
                        several.len()
                    ));
                }
            }
        }
    }
    figures
}

#[cfg(test)]
mod manual;
#[cfg(test)]
mod tests;
