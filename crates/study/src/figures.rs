//! What a run has yielded: figures of its log and of its recording, by their names in [`METRICS`].

use std::collections::BTreeMap;

use spark_trace_analysis::attribution::{self, PlaneReport};
use spark_trace_analysis::derived::Derived;
use spark_trace_analysis::instant_spec::InstantSpec;
use spark_trace_engines::{EngineLog, Figure};
use spark_trace_recording::Recording;

use super::benchmarks::{self, Found};
use super::plan::Metric;

const GIB: f64 = (1_u64 << 30) as f64;

/// Which way is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Better {
    More,
    Less,
    /// Neither: it says something about the run.
    None,
}

/// A metric that is known without being described in a plan.
#[derive(Debug)]
pub struct Known {
    pub name: &'static str,
    pub title: &'static str,
    pub unit: &'static str,
    pub better: Better,
    read: Read,
}

impl Known {
    /// Whether a benchmark reports it.
    pub fn is_of_benchmarks(&self) -> bool {
        matches!(self.read, Read::Benchmark)
    }
}

#[derive(Debug)]
enum Read {
    /// From the engine's log.
    Log(fn(&EngineLog) -> Option<f64>),
    /// Reported by a benchmark ([`benchmarks::table`]).
    Benchmark,
    /// From the recording.
    Trace(fn(&attribution::Report) -> Option<f64>),
    /// A reading of a GPU.
    Gpu(&'static str, fn(&attribution::Report, &'static str) -> Option<f64>),
    /// Of imported studies and the runner.
    Elsewhere,
}

const fn metric(
    name: &'static str,
    title: &'static str,
    unit: &'static str,
    better: Better,
    read: Read,
) -> Known {
    Known { name, title, unit, better, read }
}

/// A row is a metric.
#[rustfmt::skip]
pub const METRICS: &[Known] = &[
    metric("output-throughput", "Output throughput", "tokens/s", Better::More, Read::Benchmark),
    metric("generation-throughput", "Generation speed", "tokens/s", Better::More, Read::Benchmark),
    metric("prompt-throughput", "Prompt processing speed", "tokens/s", Better::More, Read::Benchmark),
    metric("input-throughput", "Input throughput", "tokens/s", Better::More, Read::Benchmark),
    metric("total-throughput", "Input and output throughput", "tokens/s", Better::More, Read::Benchmark),
    metric("user-throughput", "Output throughput of one request, average", "tokens/s", Better::More, Read::Benchmark),
    metric("request-throughput", "Request throughput", "requests/s", Better::More, Read::Benchmark),
    metric("ttft", "Time to first token, average", "ms", Better::Less, Read::Benchmark),
    metric("ttft-p50", "Time to first token, P50", "ms", Better::Less, Read::Benchmark),
    metric("ttft-p99", "Time to first token, P99", "ms", Better::Less, Read::Benchmark),
    metric("tpot", "Time per output token, average of requests", "ms", Better::Less, Read::Benchmark),
    metric("tpot-p50", "Time per output token, P50 of requests", "ms", Better::Less, Read::Benchmark),
    metric("tpot-p99", "Time per output token, P99 of requests", "ms", Better::Less, Read::Benchmark),
    metric("itl", "Time between tokens, average", "ms", Better::Less, Read::Benchmark),
    metric("itl-p50", "Time between tokens, P50", "ms", Better::Less, Read::Benchmark),
    metric("itl-p99", "Time between tokens, P99", "ms", Better::Less, Read::Benchmark),
    metric("latency", "Average request latency", "ms", Better::Less, Read::Benchmark),
    metric("latency-p50", "Request latency, P50", "ms", Better::Less, Read::Benchmark),
    metric("latency-p95", "Request latency, P95", "ms", Better::Less, Read::Benchmark),
    metric("latency-p99", "Request latency, P99", "ms", Better::Less, Read::Benchmark),
    metric("total-latency", "Total latency", "ms", Better::Less, Read::Benchmark),
    metric("failed-requests", "Failed requests", "requests", Better::Less, Read::Benchmark),
    metric("peak-memory", "Peak memory the engine saw", "GiB", Better::Less, Read::Log(|log| gib(log.size(Figure::Peak)))),
    metric("kv-cache", "KV cache", "GiB", Better::More, Read::Log(|log| gib(log.size(Figure::KvAllocated).or_else(|| log.size(Figure::KvBudget))))),
    metric("kv-tokens", "Tokens that the KV cache holds", "tokens", Better::More, Read::Log(|log| log.count(Figure::TokensOfCache).map(|tokens| tokens as f64))),
    metric("weights", "Weights, as the engine logs them", "GiB", Better::None, Read::Log(|log| gib(log.size(Figure::Weights)))),
    metric("system-used", "Memory in use on the machine at its peak", "GiB", Better::Less, Read::Trace(|report| level(report.planes.system.as_ref()))),
    metric("system-growth", "Growth of memory in use to the peak", "GiB", Better::Less, Read::Trace(|report| growth(report.planes.system.as_ref()))),
    metric("cgroup-used", "Memory charged to the target at its peak", "GiB", Better::Less, Read::Trace(|report| level(report.planes.cgroup.as_ref()))),
    metric("unattributed", "Unattributed of the growth", "GiB", Better::None, Read::Trace(|report| residual(report.planes.system.as_ref()))),
    metric("duration", "Duration of the command", "s", Better::Less, Read::Trace(|report| Some(report.target.ended_ns.checked_sub(report.target.started_ns)? as f64 / 1e9))),
    metric("gpu-utilization", "GPU utilization, median", "%", Better::None, Read::Gpu("utilization.gpu", median)),
    metric("gpu-temperature", "GPU temperature, highest", "degC", Better::None, Read::Gpu("temperature.gpu", highest)),
    metric("gpu-power", "GPU power, median", "mW", Better::Less, Read::Gpu("power.draw", median)),
    metric("start-interval", "From the start to that of the next run", "s", Better::Less, Read::Elsewhere),
    metric("lowest-free", "Lowest MemFree", "GiB", Better::More, Read::Elsewhere),
    metric("lowest-available", "Lowest MemAvailable", "GiB", Better::More, Read::Elsewhere),
    metric("end-temperature", "GPU temperature at the end", "degC", Better::None, Read::Elsewhere),
];

/// A metric of the table. A benchmark of several tests has a metric for each: `prompt-throughput.pp512`.
pub fn known(name: &str) -> Option<&'static Known> {
    let named = |name: &str| METRICS.iter().find(|metric| metric.name == name);
    let of_a_test = || {
        let (metric, _) = name.split_once('.')?;
        named(metric).filter(|metric| metric.is_of_benchmarks())
    };
    named(name).or_else(of_a_test)
}

/// The title of a metric, with the test that it is of.
pub fn title(name: &str) -> Option<String> {
    let known = known(name)?;
    let test = name.strip_prefix(known.name)?.strip_prefix('.');
    Some(test.map_or_else(|| known.title.to_owned(), |test| format!("{}, {test}", known.title)))
}

/// Names once each, in the table's order; what a plan describes comes after.
pub fn in_order<'a>(all: impl Iterator<Item = &'a String>) -> Vec<String> {
    let mut names: Vec<String> = all.cloned().collect();
    let place = |name: &str| {
        let known = known(name)?;
        METRICS.iter().position(|metric| metric.name == known.name)
    };
    names.sort_by_key(|name| (place(name).unwrap_or(usize::MAX), name.clone()));
    names.dedup();
    names
}

/// Unit of what is read of the machine when a run begins; empty where it is not known.
pub fn state_unit(name: &str) -> &'static str {
    match name {
        "gpu-temperature" => "degC",
        "mem-free" | "mem-available" | "cached" | "dirty" | "shmem" => "GiB",
        _ => "",
    }
}

/// Whether neither a log nor a recording has it.
pub fn is_elsewhere(name: &str) -> bool {
    known(name).is_some_and(|metric| matches!(metric.read, Read::Elsewhere))
}

fn gib(bytes: Option<u64>) -> Option<f64> {
    bytes.map(|bytes| bytes as f64 / GIB)
}

fn signed(bytes: Option<i64>) -> Option<f64> {
    bytes.map(|bytes| bytes as f64 / GIB)
}

fn level(plane: Option<&PlaneReport>) -> Option<f64> {
    signed(plane?.level.expected)
}

fn growth(plane: Option<&PlaneReport>) -> Option<f64> {
    signed(plane?.growth.expected)
}

fn residual(plane: Option<&PlaneReport>) -> Option<f64> {
    signed(plane?.growth.residual)
}

fn ranges<'a>(report: &'a attribution::Report, column: &'a str) -> impl Iterator<Item = (u64, u64)> + 'a {
    let devices = report.planes.devices.iter().filter_map(|plane| plane.device.as_ref());
    let ranges = devices.flat_map(|device| &device.readings).filter(move |range| range.column == column);
    ranges.map(|range| (range.median, range.max))
}

/// Of several GPUs the largest.
fn median(report: &attribution::Report, column: &'static str) -> Option<f64> {
    ranges(report, column).map(|(median, _)| median as f64).reduce(f64::max)
}

fn highest(report: &attribution::Report, column: &'static str) -> Option<f64> {
    ranges(report, column).map(|(_, max)| max as f64).reduce(f64::max)
}

/// What one run has yielded.
#[derive(Debug, Default)]
pub struct Yield {
    pub metrics: BTreeMap<String, f64>,
    /// Levels of the system plane at its peak.
    pub sources: BTreeMap<String, f64>,
    /// The same at the KV-cache reading; empty where the run has none.
    pub kv_sources: BTreeMap<String, f64>,
    /// Required figures that are nowhere.
    pub missing: Vec<String>,
    /// The engine and its version, where its log states it.
    pub application: Option<String>,
    /// Benchmarks that reported them.
    pub benchmarks: Vec<&'static str>,
    /// What was left out of their reports, and why.
    pub notes: Vec<String>,
}

/// Reads a run's recording, its log and the files of results that its benchmark left. Metrics are at the peak, and so are
/// the sources; where the run has a KV-cache reading, they are read at that time as well.
pub fn of(recording: Option<&Recording>, log: &str, results: &[String], described: &[Metric]) -> Yield {
    let texts: Vec<&str> = results.iter().map(String::as_str).chain([log]).collect();
    let Found { metrics, benchmarks, notes } = benchmarks::read(&texts);
    let mut found = Yield { metrics, benchmarks, notes, ..Yield::default() };
    let run = recording.map(Derived::from);
    let report = run.as_ref().map(|run| attribution::report(run, InstantSpec::Peak));
    let figures = spark_trace_engines::parse_text(log);
    found.application = figures.version.map(|version| match figures.row() {
        Some(row) => format!("{} {version}", row.title),
        None => version.to_string(),
    });
    for metric in METRICS {
        let value = match &metric.read {
            Read::Log(read) => read(&figures),
            Read::Trace(read) => report.as_ref().and_then(read),
            Read::Gpu(column, read) => report.as_ref().and_then(|report| read(report, column)),
            Read::Benchmark | Read::Elsewhere => None,
        };
        found.metrics.extend(value.map(|value| (metric.name.to_owned(), value)));
    }
    for metric in described {
        // A plan that was read has only expressions that compile.
        let regex = metric.regex.as_deref().and_then(|regex| regex::Regex::new(regex).ok());
        let value = regex.and_then(|regex| last_match(&regex, log));
        found.metrics.extend(value.map(|value| (metric.name.clone(), value)));
        if metric.required && !found.metrics.contains_key(&metric.name) {
            found.missing.push(metric.name.clone());
        }
    }
    found.sources = report.as_ref().map(sources).unwrap_or_default();
    let at_reading = run
        .as_ref()
        .and_then(|run| Some(sources(&attribution::report(run, InstantSpec::Kv(run.kv_instant()?)))));
    found.kv_sources = at_reading.unwrap_or_default();
    found
}

fn sources(report: &attribution::Report) -> BTreeMap<String, f64> {
    let rows = report.planes.system.iter().flat_map(|plane| &plane.sources);
    rows.filter_map(|row| Some((row.source.to_owned(), row.bytes? as f64))).collect()
}

fn last_match(regex: &regex::Regex, log: &str) -> Option<f64> {
    let mut numbers = log.lines().filter_map(|line| {
        let text = regex.captures(line)?.get(1)?.as_str();
        text.replace(',', "").parse().ok()
    });
    numbers.rfind(|number: &f64| number.is_finite())
}

/// What a source of the ledger is called.
pub fn source_title(slug: &str) -> Option<&'static str> {
    spark_trace_common::source::SOURCES.iter().find(|source| source.slug == slug).map(|source| source.title)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_has_the_figures_of_the_engine_and_of_its_benchmark() {
        let log = "\
INFO 04-29 12:00:06 [gpu_model_runner.py:4820] Model loading took 14.25 GiB memory and 31.5 seconds
(EngineCore_DP0 pid=77) INFO 04-29 12:01:07 [gpu_worker.py:440] Available KV cache memory: 52.5 GiB
(EngineCore_DP0 pid=77) INFO 04-29 12:01:07 [kv_cache_utils.py:1713] GPU KV cache size: 1,253,392 tokens
Throughput: 3.25 requests/s, 1664.50 total tokens/s, 416.25 output tokens/s
";
        let mine = Metric {
            name: "loading".to_owned(),
            regex: Some(r"and ([\d.]+) seconds".to_owned()),
            unit: "s".to_owned(),
            required: true,
        };
        let lacking = Metric { name: "ttft".to_owned(), regex: None, unit: String::new(), required: true };
        let found = of(None, log, &[], &[mine, lacking]);
        let metrics: Vec<(&str, f64)> =
            found.metrics.iter().map(|(name, value)| (name.as_str(), *value)).collect();
        let wanted = [
            ("kv-cache", 52.5),
            ("kv-tokens", 1_253_392.0),
            ("loading", 31.5),
            ("output-throughput", 416.25),
            ("request-throughput", 3.25),
            ("total-throughput", 1664.5),
            ("weights", 14.25),
        ];
        assert_eq!(metrics, wanted);
        assert_eq!(
            (found.missing, found.benchmarks),
            (vec!["ttft".to_owned()], vec!["vllm bench throughput"])
        );
        // The file of results has more digits, and counts.
        let file = r#"{"elapsed_time": 61.5, "requests_per_second": 3.2517, "tokens_per_second": 1664.5}"#;
        assert_eq!(of(None, log, &[file.to_owned()], &[]).metrics["request-throughput"], 3.2517);
    }
}
