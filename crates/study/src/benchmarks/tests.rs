//! Reports as the benchmarks' sources print them (their format strings, filled with figures of our own).

use super::*;
use crate::figures::{METRICS, known};

mod llama;
mod sglang;
mod trtllm;

fn check(text: &str, benchmark: &str, wanted: &[(&str, f64)]) -> Found {
    let found = read(&[text]);
    assert_eq!(found.benchmarks, [benchmark], "{found:?}");
    let metrics: Vec<(&str, f64)> =
        found.metrics.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    let mut wanted = wanted.to_vec();
    wanted.sort_by_key(|(name, _)| *name);
    assert_eq!(metrics, wanted);
    found
}

const VLLM_SERVE: &str = "\
Traffic request rate: inf
============ Serving Benchmark Result ============
Successful requests:                     200       
Failed requests:                         3         
Maximum request concurrency:             16        
Benchmark duration (s):                  81.25     
Total input tokens:                      102400    
Total generated tokens:                  25600     
Request throughput (req/s):              2.46      
Output token throughput (tok/s):         315.08    
Peak output token throughput (tok/s):    352.00    
Peak concurrent requests:                19.00     
Total token throughput (tok/s):          1575.38   
---------------Time to First Token----------------
Mean TTFT (ms):                          412.50    
Median TTFT (ms):                        398.25    
P99 TTFT (ms):                           901.75    
-----Time per Output Token (excl. 1st token)------
Mean TPOT (ms):                          48.50     
Median TPOT (ms):                        48.25     
P99 TPOT (ms):                           55.75     
---------------Inter-token Latency----------------
Mean ITL (ms):                           47.50     
Median ITL (ms):                         46.25     
P99 ITL (ms):                            96.75     
==================================================
";

const SERVED: &[(&str, f64)] = &[
    ("failed-requests", 3.0),
    ("request-throughput", 2.46),
    ("output-throughput", 315.08),
    ("total-throughput", 1575.38),
    ("total-latency", 81_250.0),
    ("ttft", 412.5),
    ("ttft-p50", 398.25),
    ("ttft-p99", 901.75),
    ("tpot", 48.5),
    ("tpot-p50", 48.25),
    ("tpot-p99", 55.75),
    ("itl", 47.5),
    ("itl-p50", 46.25),
    ("itl-p99", 96.75),
];

#[test]
fn vllm_bench_serve_in_text() {
    check(VLLM_SERVE, "vllm bench serve", SERVED);
    // Before 0.10 or so another spelling, no failed requests; through docker compose.
    let old = VLLM_SERVE
        .replace("Total token throughput", "Total Token throughput")
        .replace("Failed requests:", "x");
    let old: String = old.lines().map(|line| format!("bench-1  | {line}\n")).collect();
    check(&old, "vllm bench serve", &SERVED[1..]);
}

#[test]
fn of_several_reports_the_last_counts_and_none_is_mixed() {
    let second = VLLM_SERVE.replace("315.08", "300.00");
    let cut = &second[..second.find("-----Time per Output").unwrap()];
    let found = read(&[&format!("{VLLM_SERVE}{cut}")]);
    assert_eq!(found.metrics["output-throughput"], 300.0);
    assert!(!found.metrics.contains_key("itl"), "the first report's");
    assert_eq!(found.notes, ["2 reports of vllm bench serve: the last counts"]);
}

#[test]
fn what_was_not_measured_is_not_zero() {
    // Requests without streaming.
    let text = VLLM_SERVE
        .replace("412.50", "0.00")
        .replace("48.50", "nan")
        .replace("47.50", "-0.00")
        .replace(" 3  ", " 0  ");
    let found = read(&[&text]).metrics;
    for lacking in ["ttft", "tpot", "itl"] {
        assert!(!found.contains_key(lacking), "{lacking}");
    }
    assert_eq!((found["ttft-p50"], found["failed-requests"]), (398.25, 0.0));
}

#[test]
fn vllm_bench_serve_in_json() {
    let json = r#"{"date": "20251120-101500", "endpoint_type": "openai", "backend": "vllm", "model_id": "m",
        "num_prompts": 200, "request_rate": "inf", "duration": 81.25, "completed": 200, "failed": 3,
        "total_input_tokens": 102400, "total_output_tokens": 25600, "request_throughput": 2.46,
        "request_goodput": null, "output_throughput": 315.08, "total_token_throughput": 1575.38,
        "mean_ttft_ms": 412.5, "median_ttft_ms": 398.25, "std_ttft_ms": 9.0, "p99_ttft_ms": 901.75,
        "mean_tpot_ms": 48.5, "median_tpot_ms": 48.25, "p99_tpot_ms": 55.75,
        "mean_itl_ms": 47.5, "median_itl_ms": 46.25, "p99_itl_ms": 96.75}"#;
    check(json, "vllm bench serve", SERVED);
    // More digits than the text has: the file counts.
    let exact = json.replace("315.08,", "315.0769,");
    let found = read(&[&exact, VLLM_SERVE]);
    assert_eq!((found.metrics["output-throughput"], found.notes.len()), (315.0769, 0));
    // --append-result: one object after the other.
    let found = read(&[&format!("{json}\n{}\n", json.replace("315.08,", "299.5,"))]);
    assert_eq!(found.metrics["output-throughput"], 299.5);
    assert_eq!(found.notes, ["2 reports of vllm bench serve: the last counts"]);
}

#[test]
fn vllm_bench_throughput_and_latency() {
    let throughput = "Throughput: 3.25 requests/s, 1664.50 total tokens/s, 416.25 output tokens/s\n\
                      Total num prompt tokens:  102400\n";
    let wanted = [("request-throughput", 3.25), ("total-throughput", 1664.5), ("output-throughput", 416.25)];
    check(throughput, "vllm bench throughput", &wanted);
    check("Throughput: 3.25 requests/s, 1664.50 tokens/s\n", "vllm bench throughput", &wanted[..2]);
    check(
        r#"{"elapsed_time": 61.5, "num_requests": 200, "total_num_tokens": 102400, "requests_per_second": 3.25,
            "tokens_per_second": 1664.5}"#,
        "vllm bench throughput",
        &[("request-throughput", 3.25), ("total-throughput", 1664.5), ("total-latency", 61_500.0)],
    );
    let latency = "Avg latency: 2.125 seconds\n10% percentile latency: 2.0 seconds\n50% percentile latency: 2.25 seconds\n\
                   99% percentile latency: 2.5 seconds\n";
    let wanted = [("latency", 2125.0), ("latency-p50", 2250.0), ("latency-p99", 2500.0)];
    check(latency, "vllm bench latency", &wanted);
    let json = r#"{"avg_latency": 2.125, "latencies": [2.0, 2.25], "percentiles": {"10": 2.0, "50": 2.25, "99": 2.5}}"#;
    check(json, "vllm bench latency", &wanted);
}

#[test]
fn text_from_outside_is_harmless() {
    let long = "{\"a\":".repeat(500);
    for text in [
        "",
        "{",
        "[",
        "|",
        "||||",
        "\"",
        "Output token throughput (tok/s):",
        " Serving Benchmark Result ",
        "build_commit,avg_ts\n\"",
        "Throughput: 1.2.3 requests/s, 1 tokens/s",
        "{\"n_prompt\": -1, \"n_gen\": 1e99, \"avg_ts\": \"x\"}",
        "{\"n_prompt\": 18446744073709551615, \"n_gen\": 0, \"avg_ts\": 1e999}",
        "ä Serving Benchmark Result ö\nRequest throughput (req/s): ö\nOutput token throughput (tok/s): 1e999",
        &long,
    ] {
        assert_eq!(read(&[text]), Found::default(), "{text}");
    }
}

#[test]
fn every_row_of_the_table_names_known_metrics_and_compiles() {
    for benchmark in BENCHMARKS {
        for form in benchmark.forms {
            let (metrics, patterns): (Vec<&str>, Vec<&str>) = match form {
                Form::Text { labels, .. } => (
                    labels.iter().map(|label| label.metric).collect(),
                    labels
                        .iter()
                        .filter_map(|label| match label.at {
                            At::Group(regex) => Some(regex),
                            At::Words(_) => None,
                        })
                        .collect(),
                ),
                Form::Json { keys, .. } => (keys.iter().map(|key| key.metric).collect(), vec![]),
                Form::Objects(_) | Form::Table { .. } => (vec![], vec![]),
            };
            for metric in metrics {
                assert!(METRICS.iter().any(|known| known.name == metric), "{}: {metric}", benchmark.name);
            }
            for pattern in patterns {
                assert_eq!(Regex::new(pattern).unwrap().captures_len(), 2, "{pattern}");
            }
        }
    }
}
