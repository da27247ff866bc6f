use super::*;
use Figure as F;

/// "GB" is GiB: 35.57 - 36.63 x (1 - 0.86) = 30.44, and the two pools are 30.42.
#[test]
fn a_whole_start() {
    let log = parse_text(
        "[2026-07-08 16:06:48] Init torch distributed ends. elapsed=0.84 s, mem usage=0.09 GB\n\
         [2026-07-08 16:06:48] Load weight begin. avail mem=36.54 GB\n\
         [2026-07-08 16:06:49] Load weight end. elapsed=0.41 s, type=Qwen2ForCausalLM, avail mem=35.57 GB, mem usage=0.98 GB.\n\
         [2026-07-08 16:06:49] KV Cache is allocated. #tokens: 2658165, K size: 15.21 GB, V size: 15.21 GB\n\
         [2026-07-08 16:06:49] Memory pool end. avail mem=4.55 GB\n\
         [2026-07-08 16:06:50] max_total_num_tokens=2658165, chunked_prefill_size=8192, max_running_requests=4096, context_len=32768, available_gpu_mem=4.46 GB\n",
    );
    assert_eq!(log.engine, Some(Engine::Sglang));
    assert_figures(
        &log,
        In::GiB,
        &[
            (F::DistributedSeconds, "", 0.84),
            (F::Distributed, "", 0.09),
            (F::FreeBaseline, "", 36.54),
            (F::WeightsSeconds, "", 0.41),
            (F::FreeAfterWeights, "", 35.57),
            (F::Weights, "", 0.98),
            (F::TokensOfCache, "", 2_658_165.0),
            (F::KvAllocated, "", 30.42),
            (F::FreeAfterCache, "", 4.55),
            (F::Context, "", 32_768.0),
            (F::FreeAtReady, "", 4.46),
        ],
    );
    let stages: Vec<_> = log.marks.iter().map(|mark| (mark.stage, mark.begins, mark.line)).collect();
    assert_eq!(
        stages,
        [
            (Stage::Weights, true, 1),
            (Stage::Weights, false, 2),
            (Stage::KvAllocation, true, 2),
            (Stage::KvAllocation, false, 4),
        ]
    );
}

#[test]
fn a_pool_that_takes_all_that_is_left() {
    let log = parse_text(
        "[2025-05-02 16:13:42] Init torch distributed ends. mem usage=0.00 GB\n\
         [2025-05-02 16:13:42] Load weight begin. avail mem=3.23 GB\n\
         [2025-05-02 16:14:33] Load weight end. type=Qwen3ForCausalLM, dtype=torch.bfloat16, avail mem=2.03 GB, mem usage=1.20 GB.\n\
         [2025-05-02 16:14:33] KV Cache is allocated. #tokens: 15387, K size: 0.82 GB, V size: 0.82 GB\n\
         [2025-05-02 16:14:33] Memory pool end. avail mem=0.00 GB\n",
    );
    assert_figures(
        &log,
        In::GiB,
        &[
            (F::Distributed, "", 0.0),
            (F::FreeBaseline, "", 3.23),
            (F::FreeAfterWeights, "", 2.03),
            (F::Weights, "", 1.2),
            (F::TokensOfCache, "", 15_387.0),
            (F::KvAllocated, "", 1.64),
            (F::FreeAfterCache, "", 0.0),
        ],
    );
}

#[test]
fn several_ranks() {
    let log = parse_text(
        "[2025-10-16 09:06:09 TP0] Init torch distributed ends. mem usage=1.96 GB\n\
         [2025-10-16 09:06:10 TP5] Load weight begin. avail mem=137.29 GB\n\
         [2025-10-16 09:06:10 TP0] Load weight begin. avail mem=137.34 GB\n",
    );
    assert_figures(
        &log,
        In::GiB,
        &[(F::Distributed, "TP0", 1.96), (F::FreeBaseline, "TP5", 137.29), (F::FreeBaseline, "TP0", 137.34)],
    );
    assert_eq!(log.bytes(F::FreeBaseline), Some(147_414_015_017), "the scarcest rank");
    let graphs = parse_text(
        "[2025-09-11 10:26:00 TP0] Capture cuda graph end. Time elapsed: 17.13 s. mem usage=0.89 GB. avail mem=10.26 GB.\n\
         [2025-09-11 10:26:01 TP0] max_total_num_tokens=903439, chunked_prefill_size=8192, context_len=131072, available_gpu_mem=10.26 GB\n",
    );
    assert_figures(
        &graphs,
        In::GiB,
        &[
            (F::GraphSeconds, "TP0", 17.13),
            (F::GraphsTaken, "TP0", 0.89),
            (F::FreeAfterGraphs, "TP0", 10.26),
            (F::TokensOfCache, "TP0", 903_439.0),
            (F::Context, "TP0", 131_072.0),
            (F::FreeAtReady, "TP0", 10.26),
        ],
    );
    let weights = parse_text(
        "[2025-03-29 18:18:34 TP0] Load weight end. type=Gemma3, dtype=torch.bfloat16, avail mem=3.64 GB, mem usage=18.82 GB.",
    );
    assert_figures(&weights, In::GiB, &[(F::FreeAfterWeights, "TP0", 3.64), (F::Weights, "TP0", 18.82)]);
    let pool = parse_text("KV Cache is allocated. #tokens: 367404, K size: 8.23 GB, V size: 8.23 GB");
    assert_figures(&pool, In::GiB, &[(F::TokensOfCache, "", 367_404.0), (F::KvAllocated, "", 16.46)]);
}

/// Formats of the wheels 0.5.13 to 0.5.23, with figures that are made up.
#[test]
fn newer_formats() {
    let cases: &[(&str, &[Stated])] = &[
        ("Memory baseline taken. mem usage=0.12 GB", &[(F::Distributed, "", 0.12)]),
        ("Load weight begin. avail mem=104.31 GB", &[(F::FreeBaseline, "", 104.31)]),
        ("Memory pool end. avail mem=48.02 GB", &[(F::FreeAfterCache, "", 48.02)]),
        (
            "Post-capture KV sizing: full_layer_tokens=1100000, swa_layer_tokens=0",
            &[(F::TokensOfFullLayers, "", 1_100_000.0)],
        ),
        (
            "Load weight end. elapsed=291.00 s, type=Qwen3, quant=modelopt_fp4, avail mem=85.11 GB, mem usage=-19.20 GB.",
            &[(F::WeightsSeconds, "", 291.0), (F::FreeAfterWeights, "", 85.11), (F::Weights, "", -19.2)],
        ),
        (
            "KV Cache is allocated. dtype: torch.float8_e4m3fn, #tokens: 1200000, K size: 18.31 GB, V size: 18.31 GB",
            &[(F::TokensOfCache, "", 1_200_000.0), (F::KvAllocated, "", 36.62)],
        ),
        (
            "KV Cache VA upper bound. dtype: torch.bfloat16, #tokens: 1200000, KV size: 36.62 GB",
            &[(F::KvUpperBound, "", 36.62)],
        ),
        (
            "Capture target decode CUDA graph begin. backend=full, num_tokens_per_req=1, avail mem=47.90 GB",
            &[(F::FreeBeforeGraphs, "", 47.9)],
        ),
        (
            "Capture target decode CUDA graph end. bs=[1, 2], elapsed=28.00 s, mem usage=0.80 GB, avail mem=47.10 GB.",
            &[(F::GraphSeconds, "", 28.0), (F::GraphsTaken, "", 0.8), (F::FreeAfterGraphs, "", 47.1)],
        ),
        (
            "Post-capture KV sizing: KV cache allocated. dtype: torch.bfloat16, #tokens: 1100000, KV size: 33.57 GB, avail mem=12.70 GB",
            &[
                (F::TokensOfCache, "", 1_100_000.0),
                (F::KvAllocated, "", 33.57),
                (F::FreeAfterCache, "", 12.7),
            ],
        ),
        (
            "server_args=ServerArgs(model_path='m', mem_fraction_static=0.86, tp_size=1)",
            &[(F::Fraction, "", 0.86)],
        ),
    ];
    for (line, wanted) in cases {
        let log = parse_text(&format!("[2026-09-20 10:00:00] {line}"));
        assert_eq!(log.engine, Some(Engine::Sglang), "{line}");
        assert_figures(&log, In::GiB, wanted);
    }
    // Models with two pools write two lines.
    let pools = parse_text(
        "KV Cache is allocated. #tokens: 100, KV size: 2.00 GB\nKV Cache is allocated. #tokens: 50, KV size: 1.50 GB",
    );
    assert_eq!(pools.bytes(F::KvAllocated), Some(7 << 29));
}

#[test]
fn checks_that_ended_it() {
    let none = parse_text(
        "ValueError: Loaded weights leave no GPU memory for the KV cache under --mem-fraction-static=0.5. Raise --mem-fraction-static above 0.612 (minimum viable = 1 - available/pre = 0.6113). If",
    );
    assert_eq!(checks(&none), [Check::NothingLeftForCache]);
    assert_figures(&none, In::GiB, &[(F::Fraction, "", 0.5), (F::FractionLeast, "", 0.6113)]);
    let ranks = parse_text(
        "RuntimeError: The memory capacity is unbalanced. Some GPUs may be occupied by other processes. pre_model_load_memory=85.2, local_gpu_memory=117.9, local_gpu_memory * 0.9=106.11",
    );
    assert_eq!(checks(&ranks), [Check::RanksUnbalanced]);
    assert_figures(&ranks, In::GiB, &[(F::FreeBaseline, "", 85.2), (F::FreeOfRank, "", 117.9)]);
    // As it was posted: cut.
    let cut = parse_text(
        "WARNING common.py: Failed to get GPU memory capacity from nvidia-smi, falling back to torch.cuda.mem_get_info().\n\
         RuntimeError: The memory capacity is unbalanced. Some GPUs may be occupied by other processes. pre_model",
    );
    assert_eq!((checks(&cut), cut.engine), (vec![Check::RanksUnbalanced], Some(Engine::Sglang)));
    assert_figures(&cut, In::GiB, &[]);
}
