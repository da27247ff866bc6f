use super::*;
use Figure as F;

/// gpt-oss-120b on a GB10: (119.70 - 113.65 + 0.56) x 0.9 = 5.95.
#[test]
fn a_whole_start() {
    let log = parse_text(
        "[TensorRT-LLM] TensorRT-LLM version: 1.1.0rc3\n\
         [12/20/2025-04:20:21] [TRT-LLM] [I] Use 63.32 GB for model weights.\n\
         [12/20/2025-04:21:10] [TRT-LLM] [W] Both free_gpu_memory_fraction and max_tokens are set (to 0.8999999761581421 and 8224, respectively). The smaller value will be used.\n\
         [TensorRT-LLM][INFO] Number of tokens per block: 32.\n\
         [TensorRT-LLM][INFO] [MemUsageChange] Allocated 0.56 GiB for max tokens in paged KV cache (8224).\n\
         [TensorRT-LLM][WARNING] Attention workspace size is not enough, increase the size from 0 bytes to 100738816 bytes\n\
         [12/20/2025-04:21:50] [TRT-LLM] [I] Memory used after loading model weights (inside torch) in memory usage profiling: 63.52 GiB\n\
         [12/20/2025-04:21:50] [TRT-LLM] [I] Memory used after loading model weights (outside torch) in memory usage profiling: 49.78 GiB\n\
         [12/20/2025-04:21:51] [TRT-LLM] [I] Memory dynamically allocated during inference (inside torch) in memory usage profiling: 0.85 GiB\n\
         [12/20/2025-04:21:51] [TRT-LLM] [I] Memory used outside torch (e.g., NCCL and CUDA graphs) in memory usage profiling: 49.28 GiB\n\
         [12/20/2025-04:21:51] [TRT-LLM] [I] Peak memory during memory usage profiling (torch + non-torch): 113.65 GiB, available KV cache memory when calculating max tokens: 5.95 GiB, fraction is set 0.8999999761581421, kv size is 73728. device total memory 119.70 GiB, , tmp kv_mem 0.56 GiB\n\
         [12/20/2025-04:21:51] [TRT-LLM] [I] Estimated max memory in KV cache : 5.95 GiB\n\
         [TensorRT-LLM][INFO] [MemUsageChange] Allocated 5.95 GiB for max tokens in paged KV cache (86720).\n\
         [12/20/2025-04:21:57] [TRT-LLM] [I] Setting PyTorch memory fraction to 0.5983721838660735 (71.62367630004883 GiB)\n",
    );
    assert_eq!((log.engine, log.version), (Some(Engine::TensorRtLlm), Some(Version(1, 1, 0))));
    assert_figures(
        &log,
        In::GiB,
        &[
            (F::WeightsAnnounced, "", 63.32),
            (F::TokensLimit, "", 8224.0),
            (F::TokensPerBlock, "", 32.0),
            (F::AttentionWorkspace, "", 100_738_816.0 / f64::from(1 << 30)),
            (F::Weights, "", 63.52),
            (F::OutsideAfterWeights, "", 49.78),
            (F::Activations, "", 0.85),
            (F::Outside, "", 49.28),
            (F::Peak, "", 113.65),
            (F::KvBudget, "", 5.95),
            (F::Fraction, "", 0.899_999_976_158_142_1),
            (F::KvPerToken, "", 73_728.0 / f64::from(1 << 30)),
            (F::DeviceTotal, "", 119.70),
            (F::KvTemporary, "", 0.56),
            (F::KvDecided, "", 5.95),
            // The first is of the run with dummy requests.
            (F::KvAllocated, "", 5.95),
            (F::TokensOfCache, "", 86_720.0),
            (F::AllocatorFraction, "", 0.598_372_183_866_073_5),
            (F::AllocatorLimit, "", 71.623_676_300_048_83),
        ],
    );
}

/// The budget's line ends early, and the cache's line is without "in paged KV cache".
#[test]
fn older_and_other_wordings() {
    let log = parse_text(
        "[01/16/2026-06:20:15] [TRT-LLM] [I] Peak memory during memory usage profiling (torch + non-torch): 91.46 GiB, available KV cache memory when calculating max tokens: 41.11 GiB, fraction is set 0.85, kv size is 35136. device total memory 139.81 GiB\n\
         [MemUsageChange] Allocated 41.11 GiB for max tokens (524288)\n",
    );
    assert_eq!(log.engine, Some(Engine::TensorRtLlm));
    assert_figures(
        &log,
        In::GiB,
        &[
            (F::Peak, "", 91.46),
            (F::KvBudget, "", 41.11),
            (F::Fraction, "", 0.85),
            (F::KvPerToken, "", 35_136.0 / f64::from(1 << 30)),
            (F::DeviceTotal, "", 139.81),
            (F::KvAllocated, "", 41.11),
            (F::TokensOfCache, "", 524_288.0),
        ],
    );
    let worded = parse_text(
        "Peak memory during memory usage profiling (torch + non-torch): 20.00 GiB, available KV cache memory when calculating max tokens: 50.00 GiB, fraction is set 0.85, kv size is None. device total memory 79.10 GiB",
    );
    assert_figures(
        &worded,
        In::GiB,
        &[(F::Peak, "", 20.0), (F::KvBudget, "", 50.0), (F::Fraction, "", 0.85), (F::DeviceTotal, "", 79.1)],
    );
}

/// The formats of 2026, with figures that are made up.
#[test]
fn newer_formats() {
    let rank = "[10/01/2026-10:00:00] [TRT-LLM] [RANK 0] [I] ";
    let cases: &[(&str, &[Stated])] = &[
        (
            "Reserving 1.50 GiB for multimodal encoder memory not materialized by the profiling run.",
            &[(F::ReservedMultimodal, "0", 1.5)],
        ),
        (
            "Peak memory during memory usage profiling (torch + non-torch): 65.82 GiB, available KV cache memory when calculating max tokens: 48.99 GiB, fraction is set 0.9, kv size per token is 57344 bytes. device total memory 119.69 GiB, temporary kv cache memory during profiling 0.56 GiB",
            &[
                (F::Peak, "0", 65.82),
                (F::KvBudget, "0", 48.99),
                (F::Fraction, "0", 0.9),
                (F::KvPerToken, "0", 57_344.0 / f64::from(1 << 30)),
                (F::DeviceTotal, "0", 119.69),
                (F::KvTemporary, "0", 0.56),
            ],
        ),
        (
            "Reserving 0.25 GiB for the context-MLA attention workspace (w=1152 B/token): KV cache budget 48.99 -> 48.74 GiB.",
            &[(F::ReservedWorkspace, "0", 0.25), (F::KvDecided, "0", 48.74)],
        ),
        (
            "max_tokens=200000 is provided. It limits max memory to 10.68 GiB. New max_memory is set to 10.68 GiB",
            &[(F::KvLimitByTokens, "0", 10.68)],
        ),
        (
            "max_gpu_total_bytes=80.00 GiB is provided. New max memory is 10.68 GiB",
            &[(F::KvLimitByBytes, "0", 80.0)],
        ),
        (
            "KV cache manager v2 device quota set to 10.681152343750GiB",
            &[(F::KvAllocated, "0", 10.681_152_343_75)],
        ),
        ("KV cache manager v2 host cache quota set to 10.68GiB", &[(F::KvHost, "0", 10.68)]),
    ];
    for (line, wanted) in cases {
        let log = parse_text(&format!("{rank}{line}"));
        assert_eq!(log.engine, Some(Engine::TensorRtLlm), "{line}");
        assert_figures(&log, In::GiB, wanted);
    }
}

#[test]
fn the_runtime_in_cpp() {
    let log = parse_text(
        "[TensorRT-LLM][INFO] Memory usage when calculating max tokens in paged kv cache: total: 79.10 GiB, available: 70.48 GiB\n\
         [TensorRT-LLM][INFO] Number of blocks in KV cache primary pool: 4060\n\
         [TensorRT-LLM][INFO] Number of blocks in KV cache secondary pool: 0, onboard blocks to primary memory before reuse: true\n\
         [TensorRT-LLM][INFO] Max KV cache pages per sequence: 32\n\
         [TensorRT-LLM][INFO] Number of tokens per block: 64.\n\
         [TensorRT-LLM][INFO] [MemUsageChange] Allocated 63.44 GiB for max tokens in paged KV cache (259840).\n",
    );
    assert_eq!(log.engine, Some(Engine::TensorRtLlmCpp));
    assert_figures(
        &log,
        In::GiB,
        &[
            (F::DeviceTotal, "", 79.1),
            (F::FreeBeforeCache, "", 70.48),
            (F::Blocks, "", 4060.0),
            (F::BlocksOnHost, "", 0.0),
            (F::TokensPerBlock, "", 64.0),
            (F::KvAllocated, "", 63.44),
            (F::TokensOfCache, "", 259_840.0),
        ],
    );
    let larger = parse_text(
        "[TensorRT-LLM][INFO] Memory usage when calculating max tokens in paged kv cache: total: 93.10 GiB, available: 85.57 GiB\n\
         [TensorRT-LLM][INFO] [MemUsageChange] Allocated 77.02 GiB for max tokens in paged KV cache (315488).\n",
    );
    assert_figures(
        &larger,
        In::GiB,
        &[
            (F::DeviceTotal, "", 93.1),
            (F::FreeBeforeCache, "", 85.57),
            (F::KvAllocated, "", 77.02),
            (F::TokensOfCache, "", 315_488.0),
        ],
    );
}

/// Both backends write these lines, and nothing else stands in the log: no guess.
#[test]
fn lines_of_both_backends() {
    let log = parse_text(
        "[TensorRT-LLM] TensorRT LLM version: 1.3.0rc0\n\
         [TensorRT-LLM][INFO] Max KV cache blocks per sequence: 8193 [window size=262112], tokens per block=32, primary blocks=8191, secondary blocks=0\n\
         [TensorRT-LLM][INFO] [MemUsageChange] Allocated 2.25 GiB for max tokens in paged KV cache (262112).\n\
         [TensorRT-LLM][INFO] Max KV cache blocks per sequence: 8193 [window size=262145], tokens per block=32, primary blocks=216616, secondary blocks=7\n\
         [TensorRT-LLM][INFO] [MemUsageChange] Allocated 59.50 GiB for max tokens in paged KV cache (6931712).\n",
    );
    assert_eq!((log.engine, log.version), (None, Some(Version(1, 3, 0))));
    assert_eq!(log.candidates, [Engine::TensorRtLlm, Engine::TensorRtLlmCpp]);
    assert_figures(
        &log,
        In::GiB,
        &[
            (F::Blocks, "", 216_616.0),
            (F::BlocksOnHost, "", 7.0),
            (F::KvAllocated, "", 59.5),
            (F::TokensOfCache, "", 6_931_712.0),
        ],
    );
}
