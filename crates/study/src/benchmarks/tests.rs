//! Reports as the benchmarks' sources print them (their format strings, filled with figures of our own).

use super::*;
use crate::figures::{METRICS, known};

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

const SGLANG_SERVING: &str = "
============ Serving Benchmark Result ============
Backend:                                 sglang    
Traffic request rate:                    inf       
Max request concurrency:                 16        
Successful requests:                     200       
Benchmark duration (s):                  80.50     
Request throughput (req/s):              2.48      
Input token throughput (tok/s):          1272.05   
Output token throughput (tok/s):         318.01    
Total token throughput (tok/s):          1590.06   
Concurrency:                             15.40     
----------------End-to-End Latency----------------
Mean E2E Latency (ms):                   6198.50   
Median E2E Latency (ms):                 6190.25   
---------------Time to First Token----------------
Mean TTFT (ms):                          320.50    
Median TTFT (ms):                        310.25    
P99 TTFT (ms):                           702.75    
---------------Inter-Token Latency----------------
Mean ITL (ms):                           46.50     
Median ITL (ms):                         45.25     
P95 ITL (ms):                            60.00     
P99 ITL (ms):                            88.75     
Max ITL (ms):                            190.00    
==================================================
";

#[test]
fn sglang_bench_serving() {
    let wanted = [
        ("request-throughput", 2.48),
        ("input-throughput", 1272.05),
        ("output-throughput", 318.01),
        ("total-throughput", 1590.06),
        ("total-latency", 80_500.0),
        ("latency", 6198.5),
        ("latency-p50", 6190.25),
        ("ttft", 320.5),
        ("ttft-p50", 310.25),
        ("ttft-p99", 702.75),
        ("itl", 46.5),
        ("itl-p50", 45.25),
        ("itl-p99", 88.75),
    ];
    check(SGLANG_SERVING, "sglang bench_serving", &wanted);
    let json = r#"{"backend": "sglang", "dataset_name": "random", "request_rate": "inf", "duration": 80.5, "completed": 200,
        "request_throughput": 2.48, "input_throughput": 1272.05, "output_throughput": 318.01, "total_throughput": 1590.06,
        "mean_e2e_latency_ms": 6198.5, "median_e2e_latency_ms": 6190.25, "mean_ttft_ms": 320.5, "median_ttft_ms": 310.25,
        "p99_ttft_ms": 702.75, "mean_itl_ms": 46.5, "median_itl_ms": 45.25, "p99_itl_ms": 88.75, "accept_length": null}"#;
    let one_line: String = json.split_whitespace().collect::<Vec<_>>().join(" ");
    check(&format!("{one_line}\n"), "sglang bench_serving", &wanted);
}

#[test]
fn sglang_bench_offline_throughput() {
    let text = "
====== Offline Throughput Benchmark Result =======
Backend:                                 engine    
Successful requests:                     200       
Benchmark duration (s):                  60.50     
Last generation throughput (tok/s):      120.00    
Request throughput (req/s):              3.31      
Input token throughput (tok/s):          1692.56   
Output token throughput (tok/s):         423.14    
Total token throughput (tok/s):          2115.70   
==================================================
";
    let wanted = [
        ("request-throughput", 3.31),
        ("input-throughput", 1692.56),
        ("output-throughput", 423.14),
        ("total-throughput", 2115.7),
        ("total-latency", 60_500.0),
    ];
    check(text, "sglang bench_offline_throughput", &wanted);
    let json = r#"{"backend": "engine", "successful_requests": 200, "total_latency": 60.5, "total_input_tokens": 102400,
        "total_output_tokens": 25600, "request_throughput": 3.31, "input_throughput": 1692.56, "output_throughput": 423.14,
        "total_throughput": 2115.7}"#;
    check(json, "sglang bench_offline_throughput", &wanted);
}

#[test]
fn sglang_bench_one_batch_without_its_warm_up() {
    let report = |prefill: &str, decode: &str| {
        format!(
            "Prefill. latency: 0.12500 s, throughput: {prefill} token/s\n\
             Decode 0. Batch size: 8, latency: 0.05000 s, throughput:    160.00 token/s\n\
             Decode.  median latency: 0.04000 s, median throughput: {decode} token/s\n\
             Total. latency:  2.500 s, throughput:   2048.00 token/s\n"
        )
    };
    let text = format!(
        "Warmup ...\n{}Benchmark ...\n{}",
        report("  1000.00", "   90.00"),
        report(" 32768.00", "   200.00")
    );
    let wanted = [
        ("prompt-throughput", 32_768.0),
        ("generation-throughput", 200.0),
        ("itl-p50", 40.0),
        ("total-throughput", 2048.0),
        ("total-latency", 2500.0),
    ];
    assert!(check(&text, "sglang bench_one_batch", &wanted).notes.is_empty());
    let json = r#"{"run_name": "default", "batch_size": 8, "input_len": 512, "output_len": 64, "prefill_latency": 0.125,
        "prefill_throughput": 32768.0, "median_decode_latency": 0.04, "median_decode_throughput": 200.0, "total_latency": 2.5,
        "overall_throughput": 2048.0}"#;
    check(json, "sglang bench_one_batch", &wanted);
}

const LLAMA_MD: &str = "\
ggml_cuda_init: found 1 CUDA devices:
| model                          |       size |     params | backend    | ngl |            test |                  t/s |
| ------------------------------ | ---------: | ---------: | ---------- | --: | --------------: | -------------------: |
| llama 8B Q4_K - Medium         |   4.58 GiB |     8.03 B | CUDA       |  99 |           pp512 |      3012.25 ± 23.45 |
llama_context: a line of the log
| llama 8B Q4_K - Medium         |   4.58 GiB |     8.03 B | CUDA       |  99 |           tg128 |         38.50 ± 0.59 |

build: 8cf427ff (5163)
";

#[test]
fn llama_bench_in_all_its_formats() {
    let wanted = [("prompt-throughput", 3012.25), ("generation-throughput", 38.5)];
    check(LLAMA_MD, "llama-bench", &wanted);
    check(&LLAMA_MD.replace("pp512", "pp 512").replace("tg128", "tg 128"), "llama-bench", &wanted);
    let object = |prompt: u32, generated: u32, speed: f64| {
        format!(
            "{{\"build_commit\": \"8cf427ff\", \"backends\": \"CUDA\", \"n_prompt\": {prompt}, \"n_gen\": {generated}, \
             \"n_depth\": 0, \"test_time\": \"2025-11-20T09:10:00Z\", \"avg_ns\": 1, \"avg_ts\": {speed}, \"stddev_ts\": 0.5, \
             \"samples_ts\": [ 1.5, 2.5 ]}}"
        )
    };
    let (pp, tg) = (object(512, 0, 3012.25), object(0, 128, 38.5));
    check(&format!("ggml_cuda_init: found 1\n{pp}\nllama: x\n{tg}\n"), "llama-bench", &wanted);
    // The array is written piece by piece, with lines of the log between the objects.
    let indented = |object: &str| {
        object.replace("{\"", "  {\n    \"").replace(", \"", ",\n    \"").replace('}', "\n  }")
    };
    check(&format!("log\n[\n{},\nlog\n{}\n]\nlog\n", indented(&pp), indented(&tg)), "llama-bench", &wanted);
    check(&format!("[\n{},\n{}\n]\n", indented(&pp), indented(&tg)), "llama-bench", &wanted);
    let csv = "build_commit,build_number,model_type,n_prompt,n_gen,n_depth,test_time,avg_ns,stddev_ns,avg_ts,stddev_ts\n\
               \"8cf427ff\",\"5163\",\"llama 8B, \"\"Q4\"\"\",\"512\",\"0\",\"0\",\"2025-11-20T09:10:00Z\",\"1\",\"1\",\"3012.250000\",\"23.4\"\n\
               ggml_cuda_init: a line of the log\n\
               \"8cf427ff\",\"5163\",\"llama 8B, \"\"Q4\"\"\",\"0\",\"128\",\"0\",\"2025-11-20T09:10:00Z\",\"1\",\"1\",\"38.500000\",\"0.5\"\n";
    check(csv, "llama-bench", &wanted);
}

#[test]
fn llama_bench_with_several_tests() {
    let row = |test: &str, speed: &str| {
        format!("| llama 8B | 4.58 GiB | 8.03 B | CUDA | 99 | {test} | {speed} ± 0.50 |\n")
    };
    let header = LLAMA_MD.lines().nth(1).unwrap();
    let text = format!(
        "{header}\n{}{}{}{}",
        row("pp512", "3000.00"),
        row("pp512 @ d4096", "2500.00"),
        row("tg128", "38.50"),
        row("pp2048+tg256", "400.00")
    );
    let wanted = [
        ("prompt-throughput.pp512", 3000.0),
        ("prompt-throughput.pp512-d4096", 2500.0),
        ("generation-throughput", 38.5),
        ("total-throughput", 400.0),
    ];
    check(&text, "llama-bench", &wanted);
    assert_eq!(known("prompt-throughput.pp512-d4096").unwrap().unit, "tokens/s");
    assert_eq!(crate::figures::title("prompt-throughput.pp512").unwrap(), "Prompt processing speed, pp512");
    // Two settings of one test (-ngl 10,99): nothing says which is meant.
    let twice =
        format!("{header}\n{}{}{}", row("pp512", "3000.00"), row("pp512", "900.00"), row("tg128", "38.50"));
    let found = check(&twice, "llama-bench", &[("generation-throughput", 38.5)]);
    assert_eq!(found.notes.len(), 1, "{:?}", found.notes);
    assert!(found.notes[0].contains("2 results of pp512"));
}

#[test]
fn llama_batched_bench() {
    let text = "
|    PP |     TG |    B |   N_KV |   T_PP s | S_PP t/s |   T_TG s | S_TG t/s |      T s |    S t/s |
|-------|--------|------|--------|----------|----------|----------|----------|----------|----------|
|   512 |    128 |    1 |    640 |    0.170 |  3011.76 |    3.325 |    38.50 |    3.495 |   183.12 |
";
    let wanted =
        [("prompt-throughput", 3011.76), ("generation-throughput", 38.5), ("total-throughput", 183.12)];
    check(text, "llama-batched-bench", &wanted);
    let json = |sequences: u32, speed: f64| {
        format!(
            "{{\"n_kv_max\": 8192, \"n_batch\": 2048, \"pp\": 512, \"tg\": 128, \"pl\": {sequences}, \"n_kv\": 640, \
             \"t_pp\": 0.17, \"speed_pp\": 3011.76, \"t_tg\": 3.325, \"speed_tg\": {speed}, \"t\": 3.495, \"speed\": 183.12}}\n"
        )
    };
    check(&json(1, 38.5), "llama-batched-bench", &wanted);
    let found = read(&[&(json(1, 38.5) + &json(8, 200.0))]).metrics;
    assert_eq!(found["generation-throughput.pp512-tg128-b1"], 38.5);
    assert_eq!(found["generation-throughput.pp512-tg128-b8"], 200.0);
    assert!(!found.contains_key("generation-throughput"));
}

const TRT: &str = "\
[11/20/2025-10:11:12] [TRT-LLM] [I] 

===========================================================
= PERFORMANCE OVERVIEW 
===========================================================
Request Throughput (req/sec):                     1.4439
Total Output Throughput (tokens/sec):             184.8192
Total Token Throughput (tokens/sec):              924.0960
Total Latency (ms):                               6925.5000
Average request latency (ms):                     3671.7500
Per User Output Throughput [w/ ctx] (tps/user):   38.2500
Per GPU Output Throughput (tps/gpu):              184.8192
Average time-to-first-token [TTFT] (ms):          425.5000
Average time-per-output-token [TPOT] (ms):        25.2500
Per User Output Speed (tps/user):                 39.5000

-- Per-Request Time-per-Output-Token [TPOT] Breakdown (ms)

[TPOT] MINIMUM: 20.0000
[TPOT] AVERAGE: 25.2500
[TPOT] P50    : 25.0000
[TPOT] P99    : 31.5000

-- Per-Request Time-to-First-Token [TTFT] Breakdown (ms) 

[TTFT] AVERAGE: 425.5000
[TTFT] P50    : 420.2500
[TTFT] P99    : 610.7500

-- Request Latency Breakdown (ms) -----------------------

[Latency] P50    : 3936.2500
[Latency] P90    : 5514.0000
[Latency] P95    : 5514.5000
[Latency] P99    : 5514.7500
[Latency] AVERAGE: 3671.7500
";

#[test]
fn trtllm_bench_from_0_15_on() {
    let wanted = [
        ("request-throughput", 1.4439),
        ("output-throughput", 184.8192),
        ("total-throughput", 924.096),
        ("user-throughput", 38.25),
        ("total-latency", 6925.5),
        ("latency", 3671.75),
        ("latency-p50", 3936.25),
        ("latency-p95", 5514.5),
        ("latency-p99", 5514.75),
        ("ttft", 425.5),
        ("ttft-p50", 420.25),
        ("ttft-p99", 610.75),
        ("tpot", 25.25),
        ("tpot-p50", 25.0),
        ("tpot-p99", 31.5),
    ];
    check(TRT, "trtllm-bench", &wanted);
    let json = r#"{"engine": {"model": "m", "version": "1.1.0rc3", "backend": "Pytorch"}, "world_info": {"tp_size": 1},
        "performance": {"total_latency_ms": 6925.5, "avg_request_latency_ms": 3671.75, "request_throughput_req_s": 1.4439,
        "system_output_throughput_tok_s": 184.8192, "system_total_throughput_tok_s": 924.096,
        "output_throughput_per_user_tok_s": 38.25, "output_throughput_per_gpu_tok_s": 184.8192,
        "request_latency_percentiles_ms": {"p50": 3936.25, "p90": 5514.0, "p95": 5514.5, "p99": 5514.75}},
        "streaming_metrics": {"token_output_speed_tok_s": 39.5, "avg_ttft_ms": 425.5, "avg_tpot_ms": 25.25,
        "tpot_percentiles": {"p50": 25.0, "p99": 31.5}, "ttft_percentiles": {"p50": 420.25, "p99": 610.75}}}"#;
    check(json, "trtllm-bench", &wanted);
    // 0.17 to 0.21 named the figure for each user otherwise, and had no streaming.
    let (start, end) = (TRT.find("Average time-to").unwrap(), TRT.find("-- Request Latency").unwrap());
    let old = format!("{}{}", &TRT[..start], &TRT[end..]).replace("[w/ ctx] (tps/user)", "(tokens/sec/user)");
    check(&old, "trtllm-bench", &wanted[..9]);
    // A line alone, as the scripts of an older study keep it.
    check("Total Output Throughput (tokens/sec): 120.5\n", "trtllm-bench", &[("output-throughput", 120.5)]);
}

#[test]
fn trtllm_bench_of_0_12_to_0_14() {
    let text = "[TRT-LLM] [I] \n= STATISTICS\nNumber of requests:\t\t3000\nAverage Input Length (tokens):\t128.0\n\
                Token Throughput (tokens/sec):\t23405.925\nRequest Throughput (req/sec):\t182.85\nTotal Latency (seconds):\t16.5\n";
    let wanted =
        [("output-throughput", 23_405.925), ("request-throughput", 182.85), ("total-latency", 16_500.0)];
    check(text, "trtllm-bench throughput", &wanted);
    let streaming = text.replace("(seconds):\t16.5", "(ms):\t\t16500.0000")
        + "= STREAMING STATISTICS \nAverage request latency (ms):\t\t250.5000\nAverage time-to-first-token (ms):\t40.2500\n\
           Average inter-token latency (ms):\t8.7500\n";
    let more = [("latency", 250.5), ("ttft", 40.25), ("itl", 8.75)];
    check(&streaming, "trtllm-bench throughput", &[&wanted[..], &more[..]].concat());
}

#[test]
fn trtllm_bench_latency_calls_output_total() {
    let text = "= GENERAL OVERVIEW \nNumber of requests:\t\t10\nAverage request latency (ms):\t1520.5000\n\
                = THROUGHPUT OVERVIEW \nRequest Throughput (req/sec):\t\t  0.6577\nTotal Token Throughput (tokens/sec):\t  84.1860\n\
                Generation Token Throughput (tokens/sec): 85.5000\n= LATENCY OVERVIEW \nTotal Latency (ms):\t\t  15205.0000\n\
                Average time-to-first-token (ms): 35.2500\nAverage inter-token latency (ms): 11.7500\n\
                = GENERATION LATENCY BREAKDOWN \nP90 (ms): 1480.0000\n";
    let wanted = [
        ("latency", 1520.5),
        ("request-throughput", 0.6577),
        ("output-throughput", 84.186),
        ("generation-throughput", 85.5),
        ("total-latency", 15_205.0),
        ("ttft", 35.25),
        ("itl", 11.75),
    ];
    check(text, "trtllm-bench latency", &wanted);
}

#[test]
fn two_benchmarks_that_contradict_each_other_decide_nothing() {
    let found = read(&[&format!("{VLLM_SERVE}{TRT}")]);
    assert_eq!(found.benchmarks, ["vllm bench serve", "trtllm-bench"]);
    assert!(!found.metrics.contains_key("ttft"));
    assert_eq!(found.metrics["itl"], 47.5, "only one has it");
    assert!(
        found.notes.iter().any(|note| note.contains("ttft is left out: vllm bench serve and trtllm-bench"))
    );
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
