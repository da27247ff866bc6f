//! trtllm-bench.

use super::*;

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
