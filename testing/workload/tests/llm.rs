//! `llm` on the simulated driver: the file it writes, the lines it prints, the arithmetic it claims.

// Helpers unwrap as tests do: one that cannot go on should stop.
#![allow(clippy::unwrap_used, clippy::expect_used)]
#![cfg(feature = "cuda")]

#[allow(dead_code, reason = "another suite uses the rest")]
mod harness;

use std::fs;
use std::path::Path;

use harness::*;
use regex::Regex;
use serde_json::Value;

fn library() -> String {
    let directory = Path::new(env!("CARGO_BIN_EXE_spark-trace-workload")).parent().unwrap();
    directory.join("deps/libspark_trace_simulated_cuda.so").display().to_string()
}

fn line(directory: &Path, more: &str) -> String {
    let directory = directory.display();
    format!("llm --model-dir {directory} --weights-size 8M --kv-limit 8M --driver {} {more}", library())
}

/// The log, and the report.
fn inference(directory: &Path, more: &str) -> (String, Value) {
    let output = run(&line(directory, more));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report = last_line(&output);
    (String::from_utf8(output.stdout).unwrap(), report)
}

/// The last match's numbers: what the parser of TensorRT-LLM's logs takes.
fn last(log: &str, pattern: &str) -> Vec<f64> {
    let found = Regex::new(pattern).unwrap();
    let captures = found.captures_iter(log).last().unwrap_or_else(|| panic!("nothing matches {pattern}"));
    let numbers = captures.iter().skip(1).flatten();
    numbers.filter_map(|number| number.as_str().trim_end_matches('.').parse().ok()).collect()
}

#[test]
fn lines_are_those_of_tensorrt_llm() {
    let directory = disk_dir();
    let (log, report) =
        inference(directory.path(), "--iterations 3 --output-length 4 --batch 2 --fraction 0.85");
    for place in ["inside", "outside"] {
        let pattern = format!(
            r"Memory used after loading model weights \({place} torch\) in memory usage profiling: ([\d.]+) GiB"
        );
        assert_eq!(last(&log, &pattern).len(), 1);
    }
    last(&log, r"Memory dynamically allocated during inference \(inside torch\) .*?: ([\d.]+) GiB");
    last(
        &log,
        r"Memory used outside torch(?: \(e\.g\., NCCL and CUDA graphs\))? in memory usage profiling: ([\d.]+) GiB",
    );
    let peak_line = last(
        &log,
        r"Peak memory during memory usage profiling \(torch \+ non-torch\): ([\d.]+) GiB, available KV cache memory when calculating max tokens: ([\d.]+) GiB",
    );
    assert_eq!(last(&log, r"fraction is set ([\d.]+)"), [0.85]);
    let total = last(&log, r"device total memory ([\d.]+) GiB")[0];
    last(&log, r"(?:tmp kv_mem|temporary kv cache memory during profiling) ([\d.]+) GiB");
    last(&log, r"Estimated max (?:memory|tokens) in KV cache : ([\d.]+)");
    let allocated =
        last(&log, r"\[MemUsageChange\] Allocated ([\d.]+) GiB for max tokens in paged KV cache \((\d+)\)");
    let timings = Regex::new(r"(Request Throughput \(req/sec\)|Total Output Throughput \(tokens/sec\)|Total Token Throughput \(tokens/sec\)|Total Latency \(ms\)|Average request latency \(ms\)):\s+([\d.]+)").unwrap();
    assert_eq!(timings.captures_iter(&log).count(), 5);
    let percentiles =
        Regex::new(r"\[(Latency|TTFT|TPOT|GTPS)\] (P50|P90|P95|P99|MINIMUM|MAXIMUM|AVERAGE)\s*: ([\d.]+)");
    assert_eq!(percentiles.unwrap().captures_iter(&log).count(), 7);

    // The lines say what the report says.
    let llm = &report["cuda"]["llm"];
    let gib = |value: &Value| value.as_f64().unwrap() / f64::from(1 << 30);
    assert!((peak_line[0] - gib(&llm["profile"]["peak"])).abs() < 0.006);
    assert!((peak_line[1] - gib(&llm["profile"]["kv_available"])).abs() < 0.006);
    assert!((total - gib(&llm["profile"]["total"])).abs() < 0.006);
    assert_eq!(Some(allocated[1]), llm["kv"]["tokens"].as_f64());
    let tokens = last(&log, r"Total Output Throughput \(tokens/sec\):\s+([\d.]+)")[0];
    assert!((tokens - llm["output_tokens_per_second"].as_f64().unwrap()).abs() < 0.001);
}

#[test]
fn the_cache_has_the_size_of_the_formula() {
    let directory = disk_dir();
    let (_, report) = inference(directory.path(), "--iterations 1 --output-length 1 --fraction 0.5");
    let llm = &report["cuda"]["llm"];
    let profile = |name: &str| llm["profile"][name].as_f64().unwrap();
    let outside = (profile("total") - profile("free") - profile("allocated")).max(0.0);
    let peak = profile("allocated_peak") + outside;
    let available = (profile("total") - peak + profile("temporary_kv")) * 0.5;
    assert!((available - profile("kv_available")).abs() < 2.0);
    assert_eq!(peak, profile("peak"));

    // Two values of f32 for each layer and each element of its width; in blocks of 32 tokens.
    let shape = |name: &str| llm["shape"][name].as_u64().unwrap();
    let per_token = 2 * 4 * shape("layers") * shape("hidden");
    assert_eq!(llm["kv"]["bytes_per_token"], per_token);
    let tokens = 8 * MIB / per_token / 32 * 32;
    assert_eq!(llm["kv"]["tokens"], tokens);
    assert_eq!(source(&report, "kv-cache")["bytes"], tokens * per_token);
    assert_eq!(source(&report, "weights")["bytes"], 8 * MIB);
}

#[test]
fn memory_is_what_the_report_says() {
    let directory = disk_dir();
    // Prompts longer than one step takes, and a cache that is filled more than once.
    let line = line(directory.path(), "--iterations 1 --batch 3 --prompt 512 --output-length 2 --hold 60s");
    let running = Running::start_until(&line, "hold");
    let status = running.status();
    let before = running.before;
    let report = running.stop();
    let bytes = |kind: &str| source(&report, kind)["bytes"].as_u64().unwrap();
    assert_grew(
        before.rss_anon,
        status.rss_anon,
        bytes("weights") + bytes("activations") + bytes("kv-cache"),
    );
    // The whole file is mapped and was read.
    assert_grew(before.rss_file, status.rss_file, bytes("weights-file"));
}

#[test]
fn others_can_read_the_weights() {
    let directory = disk_dir();
    let (_, report) = inference(directory.path(), "--iterations 1 --output-length 1");
    assert_eq!(source(&report, "weights-file")["detail"]["written"], true);
    let path = directory.path().join("model.safetensors");
    let bytes = fs::read(&path).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let total: usize = tensors.tensors().iter().map(|(_, tensor)| tensor.data().len()).sum();
    assert_eq!(total as u64, 8 * MIB);
    let hidden = usize::try_from(report["cuda"]["llm"]["shape"]["hidden"].as_u64().unwrap()).unwrap();
    let qkv = tensors.tensor("layers.1.attention.qkv.weight").unwrap();
    assert_eq!((qkv.dtype(), qkv.shape()), (safetensors::Dtype::F32, &[hidden, 3 * hidden][..]));
    let values: Vec<f32> =
        qkv.data().chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect();
    let mean = values.iter().sum::<f32>() / values.len() as f32;
    assert!(values.iter().all(|value| value.is_finite() && value.abs() < 1.0) && mean.abs() < 0.01);

    // It is written once, and another model's is not touched.
    let (_, again) = inference(directory.path(), "--iterations 1 --output-length 1 --cold");
    assert_eq!(source(&again, "weights-file")["detail"]["written"], false);
    let other = line(directory.path(), "").replace("--weights-size 8M", "--weights-size 9M");
    let (code, error) = fails(&other);
    assert!(code == Some(1) && error.contains("not the model"), "{error}");
    assert_eq!(fs::read(&path).unwrap(), bytes);
}

#[test]
fn impossible_lines() {
    let directory = disk_dir();
    for more in ["--batch 33", "--batch 0", "--prompt 100", "--fraction 1.5", "--iterations 0"] {
        assert_eq!(fails(&line(directory.path(), more)).0, Some(2), "{more}");
    }
    let small = line(directory.path(), "").replace("--kv-limit 8M", "--kv-limit 1K");
    let (code, error) = fails(&small);
    assert!(code == Some(1) && error.contains("no block"), "{error}");
}
