//! bench_serving, bench_offline_throughput and bench_one_batch of SGLang.

use super::*;

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
