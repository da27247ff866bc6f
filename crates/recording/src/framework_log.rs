//! What TensorRT-LLM writes of its memory and its speed, out of the lines of its log. Pure.
//!
//! [`FIELDS`] is the table: a figure is one row. Lines carry whatever the logger puts before them (time, `[I]`,
//! `[RANK 0]`), so that a row names what stands on the line and what stands right before its number.

use std::collections::BTreeMap;

use serde::Serialize;

/// Bytes, unless a name says otherwise. Absent where no line said it: old versions lack some.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct LogFigures {
    /// Of the free memory that the KV cache may take (0 to 1).
    pub fraction: Option<f64>,
    /// What the GPU has in all, by the framework's own query.
    pub total: Option<u64>,
    /// Most that was in use in the dummy run, by the framework and everybody else.
    pub peak: Option<u64>,
    /// What is left for the KV cache by the framework's arithmetic.
    pub available_kv: Option<u64>,
    /// What it decided on.
    pub estimated_kv: Option<u64>,
    pub estimated_tokens: Option<u64>,
    /// What it allocated.
    pub allocated_kv: Option<u64>,
    /// Tokens that the allocated cache holds.
    pub max_tokens: Option<u64>,
    /// Cache of the dummy run, which the peak contains.
    pub temporary_kv: Option<u64>,
    /// Of the cache, for each token.
    pub kv_bytes_per_token: Option<u64>,
    /// In use outside of the framework's own allocator: on unified memory, by the whole machine.
    pub outside: Option<u64>,
    /// After the weights were loaded, in the allocator and outside of it.
    pub inside_weights: Option<u64>,
    pub outside_weights: Option<u64>,
    /// Allocated on top of the weights in the dummy run.
    pub dynamic: Option<u64>,
    /// The C++ runtime's reading before it allocated the cache.
    pub runtime_total: Option<u64>,
    pub runtime_available: Option<u64>,
    /// The limit that was set for the framework's allocator.
    pub allocator_fraction: Option<f64>,
    pub allocator_limit: Option<u64>,
    /// The benchmark's report, by the label of its line: `Total Latency (ms)`, `[TTFT] P99`.
    pub reported: BTreeMap<String, f64>,
}

/// One figure.
struct Field {
    /// Stands on its line.
    line: &'static str,
    /// Stands right before its number, at `line` or after it.
    before: &'static str,
    set: fn(&mut LogFigures, f64),
}

const PEAK: &str = "Peak memory during memory usage profiling (torch + non-torch): ";
const ALLOCATED: &str = "[MemUsageChange] Allocated ";
const RUNTIME: &str = "Memory usage when calculating max tokens in paged kv cache: ";
const LIMIT: &str = "Setting PyTorch memory fraction to ";
const OUTSIDE: &str = "Memory used outside torch";
const DYNAMIC: &str = "Memory dynamically allocated during inference (inside torch)";
const INSIDE_WEIGHTS: &str = "Memory used after loading model weights (inside torch)";
const OUTSIDE_WEIGHTS: &str = "Memory used after loading model weights (outside torch)";
const PROFILING: &str = " in memory usage profiling: ";

const fn field(line: &'static str, before: &'static str, set: fn(&mut LogFigures, f64)) -> Field {
    Field { line, before, set }
}

/// As TensorRT-LLM writes them (`_torch/pyexecutor/_util.py`, `resource_manager.py`, `model_engine.py`, and the C++
/// runtime's `kvCacheManager.cpp`). Of two rows for one figure one is another version's.
#[rustfmt::skip]
const FIELDS: &[Field] = &[
    field(INSIDE_WEIGHTS, PROFILING, |f, v| f.inside_weights = gib(v)),
    field(OUTSIDE_WEIGHTS, PROFILING, |f, v| f.outside_weights = gib(v)),
    field(DYNAMIC, ": ", |f, v| f.dynamic = gib(v)),
    field(OUTSIDE, PROFILING, |f, v| f.outside = gib(v)),
    field(PEAK, PEAK, |f, v| f.peak = gib(v)),
    field(PEAK, "available KV cache memory when calculating max tokens: ", |f, v| f.available_kv = gib(v)),
    field(PEAK, "fraction is set ", |f, v| f.fraction = part(v).or(f.fraction)),
    field(PEAK, "kv size is ", |f, v| f.kv_bytes_per_token = whole(v)),
    field(PEAK, "device total memory ", |f, v| f.total = gib(v)),
    field(PEAK, "tmp kv_mem ", |f, v| f.temporary_kv = gib(v)),
    field(PEAK, "temporary kv cache memory during profiling ", |f, v| f.temporary_kv = gib(v)),
    field("Estimated max memory in KV cache", " : ", |f, v| f.estimated_kv = gib(v)),
    field("Estimated max tokens in KV cache", " : ", |f, v| f.estimated_tokens = whole(v)),
    field(ALLOCATED, ALLOCATED, |f, v| f.allocated_kv = gib(v)),
    field(ALLOCATED, "for max tokens in paged KV cache (", |f, v| f.max_tokens = whole(v)),
    field(RUNTIME, "total: ", |f, v| f.runtime_total = gib(v)),
    field(RUNTIME, "available: ", |f, v| f.runtime_available = gib(v)),
    field(LIMIT, LIMIT, |f, v| f.allocator_fraction = part(v).or(f.allocator_fraction)),
    field(LIMIT, " (", |f, v| f.allocator_limit = gib(v)),
];

/// Lines of the benchmark's report with one number.
const REPORTED: &[&str] = &[
    "Request Throughput (req/sec)",
    "Total Output Throughput (tokens/sec)",
    "Total Token Throughput (tokens/sec)",
    "Total Latency (ms)",
    "Average request latency (ms)",
];

/// Lines of its distributions: one of these, then one of [`STATISTICS`].
const DISTRIBUTIONS: &[&str] = &["[Latency]", "[TTFT]", "[TPOT]", "[GTPS]"];
const STATISTICS: &[&str] = &["P50", "P90", "P95", "P99", "MINIMUM", "MAXIMUM", "AVERAGE"];

/// Whether a line is one of those that are read here, with a number in it or without.
pub fn is_known(line: &str) -> bool {
    FIELDS.iter().any(|field| line.contains(field.line)) || reported(line).is_some()
}

/// Whether a line is the one with the budget of the KV cache.
pub fn is_budget(line: &str) -> bool {
    line.contains(PEAK)
}

/// What a whole log says.
pub fn parse_text(text: &str) -> LogFigures {
    parse(text.lines())
}

/// What the lines say. Of a figure that is printed more than once the last counts: the framework profiles again after it
/// has set up its cache.
pub fn parse<'a>(lines: impl Iterator<Item = &'a str>) -> LogFigures {
    let mut figures = LogFigures::default();
    for line in lines {
        for field in FIELDS {
            if let Some(value) = field.value(line) {
                (field.set)(&mut figures, value);
            }
        }
        if let Some((label, Some(value))) = reported(line) {
            figures.reported.insert(label, value);
        }
    }
    figures
}

impl Field {
    fn value(&self, line: &str) -> Option<f64> {
        let rest = line.get(line.find(self.line)?..)?;
        number(after(rest, self.before)?)
    }
}

fn after<'a>(text: &'a str, what: &str) -> Option<&'a str> {
    text.split_once(what).map(|(_, rest)| rest)
}

/// Label and number of a line of the benchmark's report.
fn reported(line: &str) -> Option<(String, Option<f64>)> {
    for label in REPORTED {
        if let Some(rest) = after(line, label).and_then(|rest| rest.strip_prefix(':')) {
            return Some(((*label).to_owned(), number(rest.trim_start())));
        }
    }
    DISTRIBUTIONS.iter().find_map(|distribution| {
        let (name, rest) = after(line, distribution)?.split_once(':')?;
        let statistic = STATISTICS.iter().find(|statistic| name.trim() == **statistic)?;
        Some((format!("{distribution} {statistic}"), number(rest.trim_start())))
    })
}

/// The number that `text` begins with. A full stop after it ends the sentence.
fn number(text: &str) -> Option<f64> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    text.get(..end)?.trim_end_matches('.').parse().ok()
}

/// GiB in bytes. Logs round to two digits or four, so nothing is lost by it.
/// A part of a whole. Anything else is no fraction, whatever the line calls it.
fn part(value: f64) -> Option<f64> {
    (value > 0.0 && value <= 1.0).then_some(value)
}

fn gib(value: f64) -> Option<u64> {
    whole(value * (1_u64 << 30) as f64)
}

fn whole(value: f64) -> Option<u64> {
    // What is larger is no size of anything.
    (value < u64::MAX as f64).then(|| value.round() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(text: &str) -> LogFigures {
        parse(text.lines())
    }

    fn bytes(gib: f64) -> Option<u64> {
        Some((gib * f64::from(1 << 30)).round() as u64)
    }

    const GB10: &str = "\
[11/20/2025-10:11:12] [TRT-LLM] [RANK 0] [I] Memory used after loading model weights (inside torch) in memory usage profiling: 14.19 GiB
[11/20/2025-10:11:12] [TRT-LLM] [RANK 0] [I] Memory used after loading model weights (outside torch) in memory usage profiling: 48.79 GiB
[11/20/2025-10:11:22] [TRT-LLM] [I] Memory dynamically allocated during inference (inside torch) in memory usage profiling: 50.18 GiB
[11/20/2025-10:11:22] [TRT-LLM] [I] Memory used outside torch (e.g., NCCL and CUDA graphs) in memory usage profiling: 49.28 GiB
[11/20/2025-10:11:22] [TRT-LLM] [I] Peak memory during memory usage profiling (torch + non-torch): 113.65 GiB, available KV cache memory when calculating max tokens: 5.95 GiB, fraction is set 0.9, kv size is 57344. device total memory 119.64 GiB, , tmp kv_mem 0.56 GiB
[11/20/2025-10:11:22] [TRT-LLM] [I] Estimated max memory in KV cache : 5.95 GiB
[TensorRT-LLM][INFO] [MemUsageChange] Allocated 5.95 GiB for max tokens in paged KV cache (111392).
";

    #[test]
    fn a_whole_log() {
        let found = figures(GB10);
        let wanted = LogFigures {
            fraction: Some(0.9),
            total: bytes(119.64),
            peak: bytes(113.65),
            available_kv: bytes(5.95),
            estimated_kv: bytes(5.95),
            allocated_kv: bytes(5.95),
            max_tokens: Some(111_392),
            temporary_kv: bytes(0.56),
            kv_bytes_per_token: Some(57_344),
            outside: bytes(49.28),
            inside_weights: bytes(14.19),
            outside_weights: bytes(48.79),
            dynamic: bytes(50.18),
            ..LogFigures::default()
        };
        assert_eq!(found, wanted);
        assert!(GB10.lines().all(is_known));
    }

    #[test]
    fn other_versions() {
        // Without the fields behind it; with words in place of a size.
        let old = "Peak memory during memory usage profiling (torch + non-torch): 20.00 GiB, available KV cache memory when \
                   calculating max tokens: 50.00 GiB";
        let found = figures(old);
        assert_eq!((found.peak, found.available_kv), (bytes(20.0), bytes(50.0)));
        assert_eq!((found.fraction, found.total, found.temporary_kv), (None, None, None));
        let worded = format!(
            "{old}, fraction is set 0.85, kv size is None. device total memory 79.10 GiB, temporary kv cache memory \
             during profiling 1.25 GiB"
        );
        let found = figures(&worded);
        assert_eq!((found.fraction, found.kv_bytes_per_token), (Some(0.85), None));
        assert_eq!((found.total, found.temporary_kv), (bytes(79.1), bytes(1.25)));
        let found = figures(
            "Memory used outside torch in memory usage profiling: 1.5 GiB\n\
             [TRT-LLM] [I] Estimated max tokens in KV cache : 4096\n\
             [TensorRT-LLM][INFO] Memory usage when calculating max tokens in paged kv cache: total: 79.10 GiB, available: 61.33 GiB\n\
             Setting PyTorch memory fraction to 0.5 (39.55 GiB)",
        );
        assert_eq!((found.outside, found.estimated_tokens), (bytes(1.5), Some(4096)));
        assert_eq!((found.runtime_total, found.runtime_available), (bytes(79.1), bytes(61.33)));
        assert_eq!((found.allocator_fraction, found.allocator_limit), (Some(0.5), bytes(39.55)));
    }

    #[test]
    fn the_last_counts() {
        let found = figures(
            "[MemUsageChange] Allocated 0.56 GiB for max tokens in paged KV cache (8192).\n\
             [RANK 3] [MemUsageChange] Allocated 5.95 GiB for max tokens in paged KV cache (111392).\n\
             [MemUsageChange] Allocated",
        );
        assert_eq!((found.allocated_kv, found.max_tokens), (bytes(5.95), Some(111_392)));
    }

    #[test]
    fn the_benchmark_s_report() {
        let text = "\
Request Throughput (req/sec):                     1.2500
Total Output Throughput (tokens/sec):             160.0000
Average request latency (ms):                     799.1234
[Latency] P50    : 790.5000
[Latency] MINIMUM: 700.0000
[TTFT] AVERAGE: 12.5
[Latency] P42: 1.0
[GTPS] P99: nan
";
        let found = figures(text);
        let wanted = [
            ("Average request latency (ms)", 799.1234),
            ("Request Throughput (req/sec)", 1.25),
            ("Total Output Throughput (tokens/sec)", 160.0),
            ("[Latency] MINIMUM", 700.0),
            ("[Latency] P50", 790.5),
            ("[TTFT] AVERAGE", 12.5),
        ];
        let found: Vec<_> = found.reported.iter().map(|(label, value)| (label.as_str(), *value)).collect();
        assert_eq!(found, wanted);
        let known: Vec<_> = text.lines().map(is_known).collect();
        assert_eq!(known, [true, true, true, true, true, true, false, true]);
    }

    #[test]
    fn the_workload_s_own_lines() {
        let found = figures(
            "[spark-trace-workload] [I] Memory dynamically allocated during inference (inside torch) in memory usage profiling: 0.03 GiB\n\
             [spark-trace-workload] [I] Estimated max memory in KV cache : 0.1250 GiB\n\
             [spark-trace-workload] [I] [MemUsageChange] Allocated 0.12 GiB for max tokens in paged KV cache (4096).",
        );
        assert_eq!((found.dynamic, found.estimated_kv), (bytes(0.03), Some(1 << 27)));
        assert_eq!((found.allocated_kv, found.max_tokens), (bytes(0.12), Some(4096)));
    }

    #[test]
    fn text_from_outside_is_harmless() {
        for line in [
            "",
            "Estimated max memory in KV cache : ",
            "Estimated max memory in KV cache : -1.5 GiB",
            "Estimated max memory in KV cache : ... GiB",
            "Estimated max memory in KV cache : 1.2.3 GiB",
            &format!("Estimated max memory in KV cache : {}", "9".repeat(400)),
            "[Latency]",
            "ä[Latency]ö: 1",
        ] {
            assert_eq!(figures(line), LogFigures::default(), "{line}");
        }
    }

    #[test]
    fn a_fraction_is_a_part_of_a_whole() {
        let line = |fraction: &str| format!("{PEAK}1.0 GiB, fraction is set {fraction}, kv size is 1");
        let limit = |fraction: &str| format!("{LIMIT}{fraction} (1.0 GiB)");
        let found = |fraction: &str| {
            let figures = parse_text(&format!("{}\n{}", line(fraction), limit(fraction)));
            (figures.fraction, figures.allocator_fraction)
        };
        assert_eq!(found("1"), (Some(1.0), Some(1.0)));
        for wrong in ["1.5", "0", "-0.5", "nan", &"9".repeat(400)] {
            assert_eq!(found(wrong), (None, None), "{wrong}");
        }
        let twice = parse_text(&format!("{}\n{}", line("0.9"), line("90")));
        assert_eq!(twice.fraction, Some(0.9), "the last that is one");
    }
}
