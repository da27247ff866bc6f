//! The benchmarks that are known. A row is a benchmark; one whose report changed has a row for each version of it.
//!
//! Formats are those of vllm/benchmarks/{serve,throughput,latency}.py, sglang/bench_serving.py and sglang/benchmark/
//! {serving,offline_throughput,one_batch}.py, tools/llama-bench and tools/batched-bench of llama.cpp, and
//! tensorrt_llm/bench/{run/run,dataclasses/reporting}.py.

use super::form::{At, Benchmark, Form, Key, Label};
use super::llama;

const fn words(metric: &'static str, words: &'static str) -> Label {
    Label { metric, at: At::Words(words), scale: 1.0 }
}

/// Of a report in seconds.
const fn seconds(metric: &'static str, words: &'static str) -> Label {
    Label { metric, at: At::Words(words), scale: 1000.0 }
}

const fn group(metric: &'static str, regex: &'static str, scale: f64) -> Label {
    Label { metric, at: At::Group(regex), scale }
}

const fn key(metric: &'static str, pointer: &'static str) -> Key {
    Key { metric, pointer, scale: 1.0 }
}

const fn key_s(metric: &'static str, pointer: &'static str) -> Key {
    Key { metric, pointer, scale: 1000.0 }
}

const SERVING: &str = " Serving Benchmark Result ";
const OFFLINE: &str = " Offline Throughput Benchmark Result ";
const OUTPUT: &str = "Output token throughput (tok/s)";
const TRT_OUTPUT: &str = "Total Output Throughput (tokens/sec)";

/// Only SGLang's client names the backend.
const BACKEND: &str = "Backend:";

#[rustfmt::skip]
const SERVING_LABELS: &[Label] = &[
    words("failed-requests", "Failed requests"),
    words("request-throughput", "Request throughput (req/s)"),
    words("output-throughput", OUTPUT),
    words("input-throughput", "Input token throughput (tok/s)"),
    // Three versions of one line.
    words("total-throughput", "Total throughput (tok/s)"),
    words("total-throughput", "Total Token throughput (tok/s)"),
    words("total-throughput", "Total token throughput (tok/s)"),
    seconds("total-latency", "Benchmark duration (s)"),
    words("ttft", "Mean TTFT (ms)"),
    words("ttft-p50", "Median TTFT (ms)"),
    words("ttft-p99", "P99 TTFT (ms)"),
    words("tpot", "Mean TPOT (ms)"),
    words("tpot-p50", "Median TPOT (ms)"),
    words("tpot-p99", "P99 TPOT (ms)"),
    words("itl", "Mean ITL (ms)"),
    words("itl-p50", "Median ITL (ms)"),
    words("itl-p99", "P99 ITL (ms)"),
    words("latency", "Mean E2EL (ms)"),
    words("latency", "Mean E2E Latency (ms)"),
    words("latency-p50", "Median E2EL (ms)"),
    words("latency-p50", "Median E2E Latency (ms)"),
    words("latency-p95", "P95 E2EL (ms)"),
    words("latency-p99", "P99 E2EL (ms)"),
    words("latency-p99", "P99 E2E Latency (ms)"),
];

const OFFLINE_LABELS: &[Label] = &[
    words("request-throughput", "Request throughput (req/s)"),
    words("output-throughput", OUTPUT),
    words("input-throughput", "Input token throughput (tok/s)"),
    words("total-throughput", "Total token throughput (tok/s)"),
    seconds("total-latency", "Benchmark duration (s)"),
];

#[rustfmt::skip]
const SERVING_KEYS: &[Key] = &[
    key("failed-requests", "/failed"),
    key("request-throughput", "/request_throughput"),
    key("output-throughput", "/output_throughput"),
    key("input-throughput", "/input_throughput"),
    key("total-throughput", "/total_token_throughput"),
    key("total-throughput", "/total_throughput"),
    key_s("total-latency", "/duration"),
    key("ttft", "/mean_ttft_ms"),
    key("ttft-p50", "/median_ttft_ms"),
    key("ttft-p99", "/p99_ttft_ms"),
    key("tpot", "/mean_tpot_ms"),
    key("tpot-p50", "/median_tpot_ms"),
    key("tpot-p99", "/p99_tpot_ms"),
    key("itl", "/mean_itl_ms"),
    key("itl-p50", "/median_itl_ms"),
    key("itl-p99", "/p99_itl_ms"),
    key("latency", "/mean_e2el_ms"),
    key("latency", "/mean_e2e_latency_ms"),
    key("latency-p50", "/median_e2el_ms"),
    key("latency-p50", "/median_e2e_latency_ms"),
    key("latency-p95", "/p95_e2el_ms"),
    key("latency-p99", "/p99_e2el_ms"),
    key("latency-p99", "/p99_e2e_latency_ms"),
];

#[rustfmt::skip]
const TRT_LABELS: &[Label] = &[
    words("request-throughput", "Request Throughput (req/sec)"),
    words("output-throughput", TRT_OUTPUT),
    words("total-throughput", "Total Token Throughput (tokens/sec)"),
    words("user-throughput", "Per User Output Throughput (tokens/sec/user)"),
    words("user-throughput", "Per User Output Throughput [w/ ctx] (tps/user)"),
    words("total-latency", "Total Latency (ms)"),
    words("latency", "Average request latency (ms)"),
    words("latency-p50", "[Latency] P50"),
    words("latency-p95", "[Latency] P95"),
    words("latency-p99", "[Latency] P99"),
    words("ttft", "Average time-to-first-token [TTFT] (ms)"),
    words("ttft", "[TTFT] AVERAGE"),
    words("ttft-p50", "[TTFT] P50"),
    words("ttft-p99", "[TTFT] P99"),
    words("tpot", "Average time-per-output-token [TPOT] (ms)"),
    words("tpot", "[TPOT] AVERAGE"),
    words("tpot-p50", "[TPOT] P50"),
    words("tpot-p99", "[TPOT] P99"),
];

#[rustfmt::skip]
const TRT_KEYS: &[Key] = &[
    key("request-throughput", "/performance/request_throughput_req_s"),
    key("output-throughput", "/performance/system_output_throughput_tok_s"),
    key("total-throughput", "/performance/system_total_throughput_tok_s"),
    key("user-throughput", "/performance/output_throughput_per_user_tok_s"),
    key("total-latency", "/performance/total_latency_ms"),
    key("latency", "/performance/avg_request_latency_ms"),
    key("latency-p50", "/performance/request_latency_percentiles_ms/p50"),
    key("latency-p95", "/performance/request_latency_percentiles_ms/p95"),
    key("latency-p99", "/performance/request_latency_percentiles_ms/p99"),
    key("ttft", "/streaming_metrics/avg_ttft_ms"),
    key("ttft-p50", "/streaming_metrics/ttft_percentiles/p50"),
    key("ttft-p99", "/streaming_metrics/ttft_percentiles/p99"),
    key("tpot", "/streaming_metrics/avg_tpot_ms"),
    key("tpot-p50", "/streaming_metrics/tpot_percentiles/p50"),
    key("tpot-p99", "/streaming_metrics/tpot_percentiles/p99"),
];

pub const BENCHMARKS: &[Benchmark] = &[
    Benchmark {
        name: "vllm bench serve",
        engine: "vLLM",
        versions: "benchmark_serving.py of 0.6 to vllm bench of 0.33; trtllm-serve's client too",
        forms: &[
            Form::Json {
                with: &["/request_throughput", "/output_throughput", "/total_token_throughput"],
                without: &["/input_throughput"],
                keys: SERVING_KEYS,
            },
            Form::Text {
                begins: SERVING,
                usual: 1,
                with: &[SERVING, "Request throughput (req/s):", OUTPUT],
                without: &[BACKEND],
                labels: SERVING_LABELS,
            },
        ],
    },
    Benchmark {
        name: "vllm bench throughput",
        engine: "vLLM",
        versions: "benchmark_throughput.py of 0.2 to vllm bench of 0.33",
        forms: &[
            Form::Json {
                with: &["/elapsed_time", "/requests_per_second", "/tokens_per_second"],
                without: &[],
                keys: &[
                    key("request-throughput", "/requests_per_second"),
                    key("total-throughput", "/tokens_per_second"),
                    key_s("total-latency", "/elapsed_time"),
                ],
            },
            Form::Text {
                begins: "Throughput: ",
                usual: 1,
                with: &["Throughput: "],
                without: &[],
                labels: &[
                    group("request-throughput", r"^Throughput: (\d+\.\d+) requests/s, ", 1.0),
                    // Without `total` until 0.6.
                    group(
                        "total-throughput",
                        r"^Throughput: \d+\.\d+ requests/s, (\d+\.\d+) (?:total )?tokens/s",
                        1.0,
                    ),
                    group("output-throughput", r"^Throughput: .*, (\d+\.\d+) output tokens/s", 1.0),
                ],
            },
        ],
    },
    Benchmark {
        name: "vllm bench latency",
        engine: "vLLM",
        versions: "benchmark_latency.py of 0.4 to vllm bench of 0.33",
        forms: &[
            Form::Json {
                with: &["/avg_latency"],
                without: &[],
                keys: &[
                    key_s("latency", "/avg_latency"),
                    key_s("latency-p50", "/percentiles/50"),
                    key_s("latency-p99", "/percentiles/99"),
                ],
            },
            Form::Text {
                begins: "Avg latency: ",
                usual: 1,
                with: &["Avg latency: "],
                without: &[],
                labels: &[
                    group("latency", r"^Avg latency: (\S+) seconds", 1000.0),
                    group("latency-p50", r"^50% percentile latency: (\S+) seconds", 1000.0),
                    group("latency-p99", r"^99% percentile latency: (\S+) seconds", 1000.0),
                ],
            },
        ],
    },
    Benchmark {
        name: "sglang bench_serving",
        engine: "SGLang",
        versions: "0.3 to 0.5.23",
        forms: &[
            Form::Json {
                with: &["/input_throughput", "/output_throughput", "/median_ttft_ms"],
                without: &[],
                keys: SERVING_KEYS,
            },
            Form::Text {
                begins: SERVING,
                usual: 1,
                with: &[SERVING, BACKEND, OUTPUT],
                without: &[],
                labels: SERVING_LABELS,
            },
        ],
    },
    Benchmark {
        name: "sglang bench_offline_throughput",
        engine: "SGLang",
        versions: "0.4 to 0.5.23",
        forms: &[
            Form::Json {
                with: &["/successful_requests", "/total_latency", "/total_throughput"],
                without: &[],
                keys: &[
                    key("request-throughput", "/request_throughput"),
                    key("output-throughput", "/output_throughput"),
                    key("input-throughput", "/input_throughput"),
                    key("total-throughput", "/total_throughput"),
                    key_s("total-latency", "/total_latency"),
                ],
            },
            Form::Text {
                begins: OFFLINE,
                usual: 1,
                with: &[OFFLINE, OUTPUT],
                without: &[],
                labels: OFFLINE_LABELS,
            },
        ],
    },
    Benchmark {
        name: "sglang bench_one_batch",
        engine: "SGLang",
        versions: "0.3 to 0.5.23",
        forms: &[
            Form::Json {
                with: &["/prefill_throughput", "/overall_throughput"],
                without: &[],
                keys: &[
                    key("prompt-throughput", "/prefill_throughput"),
                    key("generation-throughput", "/median_decode_throughput"),
                    key("total-throughput", "/overall_throughput"),
                    key_s("itl-p50", "/median_decode_latency"),
                    key_s("total-latency", "/total_latency"),
                ],
            },
            Form::Text {
                begins: "Prefill. latency:",
                // The first is its warm-up.
                usual: 2,
                with: &["Prefill. latency:", "Total. latency:"],
                without: &[],
                labels: &[
                    group("prompt-throughput", r"^Prefill\. latency: .* throughput: +(\S+) token/s", 1.0),
                    group("generation-throughput", r"^Decode\. +median .* throughput: +(\S+) token/s", 1.0),
                    group("itl-p50", r"^Decode\. +median latency: +(\S+) s,", 1000.0),
                    group("total-throughput", r"^Total\. latency: .* throughput: +(\S+) token/s", 1.0),
                    group("total-latency", r"^Total\. latency: +(\S+) s,", 1000.0),
                ],
            },
        ],
    },
    Benchmark {
        name: "llama-bench",
        engine: "llama.cpp",
        versions: "b1500 to ggml 0.26",
        forms: &[
            Form::Objects(llama::bench_object),
            Form::Table { form: "CSV", read: llama::bench_csv },
            Form::Table { form: "Markdown", read: llama::bench_table },
        ],
    },
    Benchmark {
        name: "llama-batched-bench",
        engine: "llama.cpp",
        versions: "b1500 to ggml 0.26",
        forms: &[
            Form::Objects(llama::batched_object),
            Form::Table { form: "Markdown", read: llama::batched_table },
        ],
    },
    Benchmark {
        name: "trtllm-bench",
        engine: "TensorRT-LLM",
        versions: "0.15 to 1.3",
        forms: &[
            Form::Json { with: &["/performance/request_throughput_req_s"], without: &[], keys: TRT_KEYS },
            Form::Text {
                begins: "= PERFORMANCE OVERVIEW",
                usual: 1,
                with: &[TRT_OUTPUT],
                without: &[],
                labels: TRT_LABELS,
            },
        ],
    },
    Benchmark {
        name: "trtllm-bench throughput",
        engine: "TensorRT-LLM",
        versions: "0.12 to 0.14",
        forms: &[Form::Text {
            begins: "Number of requests:",
            usual: 1,
            with: &["Token Throughput (tokens/sec):", "Request Throughput (req/sec):"],
            without: &[TRT_OUTPUT, LATENCY_OVERVIEW],
            labels: &[
                words("request-throughput", "Request Throughput (req/sec)"),
                // total_output_tokens over the time.
                words("output-throughput", "Token Throughput (tokens/sec)"),
                seconds("total-latency", "Total Latency (seconds)"),
                words("total-latency", "Total Latency (ms)"),
                words("latency", "Average request latency (ms)"),
                words("ttft", "Average time-to-first-token (ms)"),
                words("itl", "Average inter-token latency (ms)"),
            ],
        }],
    },
    Benchmark {
        name: "trtllm-bench latency",
        engine: "TensorRT-LLM",
        versions: "0.13 to 0.16",
        // What it calls P90 is the median, so its percentiles are left out.
        forms: &[Form::Text {
            begins: "Number of requests:",
            usual: 1,
            with: &[LATENCY_OVERVIEW, "Generation Token Throughput (tokens/sec):"],
            without: &[TRT_OUTPUT],
            labels: &[
                words("request-throughput", "Request Throughput (req/sec)"),
                // Here, and only here, `Total Token Throughput` is total_output_tokens over the time.
                words("output-throughput", "Total Token Throughput (tokens/sec)"),
                words("generation-throughput", "Generation Token Throughput (tokens/sec)"),
                words("total-latency", "Total Latency (ms)"),
                words("latency", "Average request latency (ms)"),
                words("ttft", "Average time-to-first-token (ms)"),
                words("itl", "Average inter-token latency (ms)"),
            ],
        }],
    },
];

const LATENCY_OVERVIEW: &str = "= LATENCY OVERVIEW";
