//! llama-bench and llama-batched-bench.

use super::*;

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
