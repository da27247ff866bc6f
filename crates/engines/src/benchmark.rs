//! The report that trtllm-bench writes at its end (tensorrt_llm/bench/dataclasses/reporting.py): lines with one number.

use std::collections::BTreeMap;

use crate::prefix::clean;

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

/// Whether a line is one of the report, with a number in it or without.
pub fn is_reported(line: &str) -> bool {
    reported(&clean(line).text).is_some()
}

/// The figures of the report, by the labels of their lines. The last counts.
pub fn parse<'a>(lines: impl Iterator<Item = &'a str>) -> BTreeMap<String, f64> {
    lines
        .filter_map(|line| match reported(&clean(line).text)? {
            (label, Some(value)) => Some((label, value)),
            (_, None) => None,
        })
        .collect()
}

/// Label and number of a line.
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

fn after<'a>(text: &'a str, what: &str) -> Option<&'a str> {
    text.split_once(what).map(|(_, rest)| rest)
}

/// The number that `text` begins with. A full stop after it ends the sentence.
fn number(text: &str) -> Option<f64> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    text.get(..end)?.trim_end_matches('.').parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_and_their_numbers() {
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
        let wanted = [
            ("Average request latency (ms)", 799.1234),
            ("Request Throughput (req/sec)", 1.25),
            ("Total Output Throughput (tokens/sec)", 160.0),
            ("[Latency] MINIMUM", 700.0),
            ("[Latency] P50", 790.5),
            ("[TTFT] AVERAGE", 12.5),
        ];
        let found = parse(text.lines());
        let found: Vec<_> = found.iter().map(|(label, value)| (label.as_str(), *value)).collect();
        assert_eq!(found, wanted);
        let known: Vec<_> = text.lines().map(is_reported).collect();
        assert_eq!(known, [true, true, true, true, true, true, false, true]);
        assert!(!is_reported("[Latency]") && !is_reported("ä[Latency]ö: 1"));
    }
}
