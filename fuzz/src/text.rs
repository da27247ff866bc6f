//! What people and other tools write: plans, results, logs, options.

use std::path::Path;

use spark_trace_analysis::instant_spec;
use spark_trace_engines as engines;
use spark_trace_recording::parse;
use spark_trace_study::analysis::{self, Options};
use spark_trace_study::import::benchmark_spark;
use spark_trace_study::{Results, journal, plan::Plan};

pub fn plan(data: &[u8]) {
    let _ = Plan::parse(&String::from_utf8_lossy(data));
}

pub fn study(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Ok(state) = journal::read(&text) {
        report(&state.results());
    }
    if let Ok(results) = serde_json::from_str::<Results>(&text) {
        report(&results);
    }
}

pub fn import(data: &[u8]) {
    if let Ok(results) = benchmark_spark::read(&String::from_utf8_lossy(data)) {
        report(&results);
    }
}

fn report(results: &Results) {
    // Fewer resamples than a user would take: what they reach is the same.
    let options = Options { resamples: 5, ..Options::default() };
    let _ = serde_json::to_vec(&analysis::report(results, options));
}

pub fn log(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let _ = (engines::parse_text(&text), engines::benchmark::parse(text.lines()));
    for line in text.lines() {
        let _ = (engines::is_known(line), engines::benchmark::is_reported(line));
    }
}

pub fn benchmarks(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let _ = spark_trace_study::benchmarks::read(&[&text]);
}

pub fn options(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let _ = (parse::size(&text), parse::duration(&text), parse::interval(&text));
    let _ = text.parse::<instant_spec::Choice>();
    let _ = parse::directory(&Path::new("/nowhere").join(text.replace('\0', "")).to_string_lossy());
}
