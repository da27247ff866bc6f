use super::*;
use Figure as F;

/// A container on a GB10, behind docker compose. Free memory grew between the two readings of the estimate.
#[test]
fn a_negative_estimate_of_graphs() {
    let log = parse_text(
        "vllm_server  | (EngineCore pid=194) INFO 04-29 12:00:58 [monitor.py:81] Initial profiling/warmup run took 2.55 s\n\
         vllm_server  | (EngineCore pid=194) WARNING 04-29 12:01:03 [kv_cache_utils.py:1140] Add 3 padding layers, may waste at most 10.00% KV cache memory\n\
         vllm_server  | (EngineCore pid=194) INFO 04-29 12:01:03 [gpu_model_runner.py:5963] Profiling CUDA graph memory: PIECEWISE=51\n\
         vllm_server  | (EngineCore pid=194) INFO 04-29 12:01:06 [gpu_model_runner.py:6042] Estimated CUDA graph memory: -4.74 GiB total\n\
         vllm_server  | (EngineCore pid=194) INFO 04-29 12:01:07 [gpu_worker.py:440] Available KV cache memory: 52.66 GiB\n\
         vllm_server  | (EngineCore pid=194) INFO 04-29 12:01:07 [kv_cache_utils.py:1713] GPU KV cache size: 1,253,392 tokens\n",
    );
    assert_eq!(log.engine, Some(Engine::Vllm));
    assert_figures(
        &log,
        In::GiB,
        &[
            (F::ProfilingSeconds, "", 2.55),
            (F::GraphsEstimated, "", -4.74),
            (F::KvBudget, "", 52.66),
            (F::TokensOfCache, "", 1_253_392.0),
        ],
    );
    assert_eq!(log.bytes(F::GraphsEstimated), Some(-5_089_536_246));
    assert_eq!(log.line_of(F::KvBudget), Some(4));
    assert_eq!(log.version, None, "no line has it");
    let formulas: Vec<_> = log.variants().iter().map(|variant| variant.formula).collect();
    assert_eq!(
        formulas,
        [Formula::RequestedMinusParts, Formula::RequestedMinusParts, Formula::RequestedMinusConsumed]
    );
}

/// The scarcest rank decides.
#[test]
fn several_workers() {
    let log = parse_text(
        "(Worker_TP1 pid=448) INFO 08-14 14:07:22 [gpu_model_runner.py:6806] Estimated CUDA graph memory: 0.36 GiB total\n\
         (Worker_TP1 pid=448) INFO 08-14 14:07:22 [gpu_worker.py:578] CUDA graph memory profiling is enabled (default since v0.21.0). The current --gpu-memory-utilization=0.8200 is equivalent to --gpu-memory-utilization=0.8048 without CUDA graph memory profiling. To maintain the same effective KV cache size as before, increase --gpu-memory-utilization to 0.8352. To disable, set X=0.\n\
         (Worker_TP0 pid=447) INFO 08-14 14:07:22 [gpu_model_runner.py:6806] Estimated CUDA graph memory: 0.36 GiB total\n\
         (Worker_TP0 pid=447) INFO 08-14 14:07:22 [gpu_worker.py:563] Available KV cache memory: 6.87 GiB\n\
         (Worker_TP1 pid=448) INFO 08-14 14:07:22 [gpu_worker.py:563] Available KV cache memory: 6.5 GiB\n",
    );
    assert_figures(
        &log,
        In::GiB,
        &[
            (F::GraphsEstimated, "TP1", 0.36),
            (F::GraphsEstimated, "TP0", 0.36),
            (F::Fraction, "TP1", 0.82),
            (F::GraphsCounted, "TP1", 1.0),
            (F::FractionEquivalent, "TP1", 0.8048),
            (F::FractionToKeep, "TP1", 0.8352),
            (F::KvBudget, "TP0", 6.87),
            (F::KvBudget, "TP1", 6.5),
        ],
    );
    assert_eq!(log.bytes(F::KvBudget), Some(6_979_321_856));
}

/// As people post it: one line in four, without the logger's fields.
#[test]
fn a_summary_that_was_wrapped() {
    let log = parse_text(
        "Free memory on device (110.34/121.69 GiB) on startup.\n\
         Desired GPU memory utilization is (0.87, 105.87 GiB).\n\
         Actual usage is 86.93 GiB for consumed memory (weights + non-torch),\n\
         3.6 GiB for peak activation, and 0.26 GiB for CUDAGraph memory.\n",
    );
    assert_eq!(log.engine, Some(Engine::Vllm));
    assert_figures(
        &log,
        In::GiB,
        &[
            (F::FreeBaseline, "", 110.34),
            (F::DeviceTotal, "", 121.69),
            (F::Fraction, "", 0.87),
            (F::Requested, "", 105.87),
            (F::Consumed, "", 86.93),
            (F::Activations, "", 3.6),
            (F::GraphsTaken, "", 0.26),
        ],
    );
    let variants = log.variants();
    assert_eq!(variants.len(), 1, "the wording is of 0.27 and later");
    assert_eq!(variants[0].formula, Formula::RequestedMinusConsumed);
}

#[test]
fn the_first_engine() {
    let table = "INFO 12-13 19:54:18 worker.py:243] duration     0.75 seconds\n\
         INFO 12-13 19:54:18 worker.py:243] total_gpu_memory     79.22GiB\n\
         INFO 12-13 19:54:18 worker.py:243] gpu_memory_utilization       0.90\n\
         INFO 12-13 19:54:18 worker.py:243] the current vLLM instance can use    71.29GiB\n\
         INFO 12-13 19:54:18 worker.py:243] model weights take   14.96GiB\n\
         INFO 12-13 19:54:18 worker.py:243] non_torch_memory     1.79GiB\n\
         INFO 12-13 19:54:18 worker.py:243] PyTorch activation peak memory       1.26GiB\n\
         INFO 12-13 19:54:18 worker.py:243] available_kv_cache_memory    53.29GiB\n";
    let log = parse_text(table);
    assert_eq!(log.engine, Some(Engine::VllmV0));
    assert_figures(
        &log,
        In::GiB,
        &[
            (F::ProfilingSeconds, "", 0.75),
            (F::DeviceTotal, "", 79.22),
            (F::Fraction, "", 0.9),
            (F::Requested, "", 71.29),
            (F::Weights, "", 14.96),
            (F::Outside, "", 1.79),
            (F::Activations, "", 1.26),
            (F::KvBudget, "", 53.29),
        ],
    );
    let sentence = parse_text(
        "INFO 01-16 09:40:00 worker.py:238] the current vLLM instance can use total_gpu_memory (79.22GiB) x gpu_memory_utilization (0.90) = 71.29GiB\n\
         INFO 01-16 09:40:00 worker.py:238] model weights take 19.86GiB; non_torch_memory takes 0.16GiB; PyTorch activation peak memory takes 36.63GiB; the rest of the memory reserved for KV Cache is 14.65GiB.\n\
         INFO 01-16 09:40:00 executor_base.py:95] # CUDA blocks: 6001, # CPU blocks: 1638\n",
    );
    assert_eq!(sentence.engine, Some(Engine::VllmV0));
    assert_figures(
        &sentence,
        In::GiB,
        &[
            (F::DeviceTotal, "", 79.22),
            (F::Fraction, "", 0.9),
            (F::Requested, "", 71.29),
            (F::Weights, "", 19.86),
            (F::Outside, "", 0.16),
            (F::Activations, "", 36.63),
            (F::KvBudget, "", 14.65),
            (F::Blocks, "", 6001.0),
            (F::BlocksOnHost, "", 1638.0),
        ],
    );
}

#[test]
fn an_estimate_that_is_not_applied_yet() {
    let log = parse_text(
        "(EngineCore pid=12) INFO 04-13 19:51:23 [gpu_model_runner.py:5993] Estimated CUDA graph memory: 1.62 GiB total\n\
         (EngineCore pid=12) INFO 04-13 19:51:24 [gpu_worker.py:436] Available KV cache memory: 6.9 GiB\n\
         (EngineCore pid=12) INFO 04-13 19:51:24 [gpu_worker.py:470] In v0.19, CUDA graph memory profiling will be enabled by default. To try it now, increase --gpu-memory-utilization from 0.9000 to 0.9690 to maintain the same effective KV cache size.\n\
         (EngineCore pid=12) INFO 04-13 19:51:24 [kv_cache_utils.py:1319] GPU KV cache size: 89,760 tokens\n\
         (EngineCore pid=12) INFO 04-13 19:51:24 [kv_cache_utils.py:1324] Maximum concurrency for 262,144 tokens per request: 1.36x\n",
    );
    assert_figures(
        &log,
        In::GiB,
        &[
            (F::GraphsEstimated, "", 1.62),
            (F::KvBudget, "", 6.9),
            (F::Fraction, "", 0.9),
            (F::FractionToKeep, "", 0.969),
            (F::TokensOfCache, "", 89_760.0),
            (F::Context, "", 262_144.0),
            (F::Concurrency, "", 1.36),
        ],
    );
    assert!(log.variants().iter().all(|variant| !variant.takes_off_graphs), "{:?}", log.variants());
}

/// Whether the estimate is taken off is the log's own word.
#[test]
fn an_estimate_that_is_only_logged() {
    let log = |word: &str| {
        parse_text(&format!(
            "(Worker_TP0 pid=79) INFO 07-05 08:55:49 [gpu_model_runner.py:6654] Estimated CUDA graph memory: 0.30 GiB total\n\
             (Worker_TP0 pid=79) INFO 07-05 08:55:49 [gpu_worker.py:466] Available KV cache memory: 20.36 GiB\n\
             (Worker_TP0 pid=79) WARNING 07-05 08:55:49 [gpu_worker.py:498] CUDA graph memory profiling is {word}"
        ))
    };
    let off = log(
        "disabled (VLLM_MEMORY_PROFILER_ESTIMATE_CUDAGRAPHS=0). Without it, CUDA graph memory is not accounted for",
    );
    assert_eq!((off.count(F::GraphsCounted), off.bytes(F::GraphsEstimated)), (Some(0), Some(322_122_547)));
    assert_eq!(log("enabled (default since v0.21.0). The current").count(F::GraphsCounted), Some(1));
}

#[test]
fn checks_that_ended_it() {
    let requested = "ValueError: Free memory on device cuda:0 (55.87/119.56 GiB) on startup is less than desired GPU memory utilization (0.5, 59.78 GiB). Decrease";
    let log = parse_text(requested);
    assert_eq!(checks(&log), [Check::FreeBelowRequested]);
    assert_figures(
        &log,
        In::GiB,
        &[
            (F::FreeBaseline, "", 55.87),
            (F::DeviceTotal, "", 119.56),
            (F::Fraction, "", 0.5),
            (F::Requested, "", 59.78),
        ],
    );
    for (line, free, total, fraction, wanted) in [
        (
            "(74.9/142.5 GiB) on startup is less than desired GPU memory utilization (0.9, 128.25 GiB)",
            74.9,
            142.5,
            0.9,
            128.25,
        ),
        (
            "(34.34/121.63 GiB) on startup is less than desired GPU memory utilization (0.8, 97.3 GiB)",
            34.34,
            121.63,
            0.8,
            97.3,
        ),
    ] {
        // The device is named from 0.14.
        let log = parse_text(&format!("ValueError: Free memory on device {line}."));
        assert_figures(
            &log,
            In::GiB,
            &[
                (F::FreeBaseline, "", free),
                (F::DeviceTotal, "", total),
                (F::Fraction, "", fraction),
                (F::Requested, "", wanted),
            ],
        );
    }
    let grew = parse_text(
        "AssertionError: Error in memory profiling. Initial free memory 82.94 GiB, current free memory 90.17 GiB. This happens when",
    );
    assert_eq!(checks(&grew), [Check::FreeGrewInProfiling]);
    assert_figures(&grew, In::GiB, &[(F::FreeBaseline, "", 82.94), (F::FreeAfterProfiling, "", 90.17)]);
    let small = parse_text(
        "Available KV cache memory: 22.5 GiB\n\
         ValueError: To serve at least one request with the model's max seq len (196608), 23.25 GiB KV cache is needed, which is larger than the available KV cache memory (22.5 GiB). Based on the available memory, the estimated maximum model length is 190272.",
    );
    assert_eq!(checks(&small), [Check::CacheBelowOneRequest]);
    assert_figures(
        &small,
        In::GiB,
        &[
            (F::KvBudget, "", 22.5),
            (F::KvNeeded, "", 23.25),
            (F::Context, "", 196_608.0),
            (F::ContextPossible, "", 190_272.0),
        ],
    );
    let none = parse_text(
        "(Worker_DP1_TP1_EP3 pid=35) INFO 08-19 05:56:57 [gpu_model_runner.py:6936] Estimated CUDA graph memory: 118.65 GiB total\n\
         (EngineCore_DP0 pid=34) ERROR 08-19 05:56:57 [core.py:1346] ValueError: No available memory for the cache blocks. Try",
    );
    assert_eq!((checks(&none), none.engine), (vec![Check::NothingLeftForCache], Some(Engine::Vllm)));
    assert_figures(&none, In::GiB, &[(F::GraphsEstimated, "DP1_TP1_EP3", 118.65)]);
}

/// Formats of the wheels, with figures that are made up: a line, and what it states.
#[test]
fn formats_of_all_wheels() {
    let core = "(EngineCore pid=1) INFO 06-10 10:00:00 [gpu_worker.py:1] ";
    let cases: &[(&str, &[Stated])] = &[
        (
            "Model loading took 14.2717 GiB and 52.123456 seconds",
            &[(F::Weights, "", 14.2717), (F::WeightsSeconds, "", 52.123456)],
        ),
        (
            "Model loading took 14.27 GiB memory and 52.1 seconds",
            &[(F::Weights, "", 14.27), (F::WeightsSeconds, "", 52.1)],
        ),
        (
            "Initial free memory: 105.12 GiB; Requested memory: 0.850000 (util), 101.66 GiB",
            &[(F::FreeBaseline, "", 105.12), (F::Fraction, "", 0.85), (F::Requested, "", 101.66)],
        ),
        (
            "Free memory after profiling: 80.01 GiB (total), -76.55 GiB (within requested)",
            &[(F::FreeAfterProfiling, "", 80.01), (F::LeftOfRequested, "", -76.55)],
        ),
        (
            "Memory profiling takes 4.20 seconds. Total non KV cache memory: 25.11GiB; torch peak memory increase: 5.62GiB; non-torch forward increase memory: 5.22GiB; weights memory: 14.27GiB.",
            &[
                (F::ProfilingSeconds, "", 4.2),
                (F::NonCache, "", 25.11),
                (F::Activations, "", 5.62),
                (F::OutsideGrowth, "", 5.22),
                (F::Weights, "", 14.27),
            ],
        ),
        (
            "Memory profiling takes 4.20 seconds. Total non KV cache memory: 25.11GiB; torch peak memory increase: 5.62GiB; total consumed (from mem_get_info): 19.49GiB; weights memory: 14.27GiB.",
            &[
                (F::ProfilingSeconds, "", 4.2),
                (F::NonCache, "", 25.11),
                (F::Activations, "", 5.62),
                (F::Consumed, "", 19.49),
                (F::Weights, "", 14.27),
            ],
        ),
        (
            "worker init memory snapshot: torch_peak=0.0GiB, torch_allocated=0.0GiB, free_memory=105.12GiB, total_memory=119.6GiB, NVIDIA GB10_memory=14.48GiB, torch_memory=0.0GiB, non_torch_memory=14.48GiB, timestamp=1.0",
            &[(F::FreeBaseline, "", 105.12), (F::DeviceTotal, "", 119.6), (F::Outside, "", 14.48)],
        ),
        ("worker requested memory: 101.66GiB", &[(F::Requested, "", 101.66)]),
        (
            "GPU KV cache size: 1,433,312 tokens, Maximum concurrency for 131,072 tokens per request: 10.94x",
            &[(F::TokensOfCache, "", 1_433_312.0), (F::Context, "", 131_072.0), (F::Concurrency, "", 10.94)],
        ),
        ("GPU + host KV cache size: 1,433,312 tokens", &[(F::TokensOfCache, "", 1_433_312.0)]),
        (
            "Graph capturing finished in 6 secs, took -0.61 GiB",
            &[(F::GraphSeconds, "", 6.0), (F::GraphsTaken, "", -0.61)],
        ),
        (
            "CUDA graph pool memory: 0.61 GiB (actual), 0.73 GiB (estimated), difference: 0.12 GiB (19.7%).",
            &[(F::GraphsPool, "", 0.61), (F::GraphsEstimated, "", 0.73)],
        ),
        (
            "Free memory on device (105.12/119.6 GiB) on startup. Desired GPU memory utilization is (0.9, 107.64 GiB). Actual usage is 14.27 GiB for weight, 5.62 GiB for peak activation, 5.22 GiB for non-torch memory, and 0.61 GiB for CUDAGraph memory. Replace gpu_memory_utilization config with `--kv-cache-memory=87873000000` to fit into requested memory, or `--kv-cache-memory=85167000000` to fully utilize gpu memory. Current kv cache memory in use is 88611000000 bytes.",
            &[
                (F::FreeBaseline, "", 105.12),
                (F::DeviceTotal, "", 119.6),
                (F::Fraction, "", 0.9),
                (F::Requested, "", 107.64),
                (F::Weights, "", 14.27),
                (F::Activations, "", 5.62),
                (F::OutsideGrowth, "", 5.22),
                (F::GraphsTaken, "", 0.61),
                (F::KvSuggested, "", 87_873_000_000.0 / GIB),
                (F::KvSuggestedAtMost, "", 85_167_000_000.0 / GIB),
                (F::KvAllocated, "", 88_611_000_000.0 / GIB),
            ],
        ),
        (
            "Free memory on device (105.12/119.6 GiB) on startup. Desired GPU memory utilization is (0.85, 101.66 GiB). Actual usage is 19.49 GiB for consumed memory (weights + non-torch), 5.62 GiB for peak activation, and 0.61 GiB for CUDAGraph memory. Replace gpu_memory_utilization config with `--kv-cache-memory=81000000000` (75.44 GiB) to fit into requested memory, or `--kv-cache-memory=84700000000` (78.88 GiB) to fully utilize gpu memory. Current kv cache memory in use is 76.55 GiB.",
            &[
                (F::FreeBaseline, "", 105.12),
                (F::DeviceTotal, "", 119.6),
                (F::Fraction, "", 0.85),
                (F::Requested, "", 101.66),
                (F::Consumed, "", 19.49),
                (F::Activations, "", 5.62),
                (F::GraphsTaken, "", 0.61),
                (F::KvSuggested, "", 81_000_000_000.0 / GIB),
                (F::KvSuggestedAtMost, "", 84_700_000_000.0 / GIB),
                (F::KvAllocated, "", 76.55),
            ],
        ),
        (
            "Initial free memory 105.12 GiB, reserved 36.0 GiB memory for KV Cache as specified by kv_cache_memory_bytes config",
            &[(F::FreeBaseline, "", 105.12), (F::KvStated, "", 36.0)],
        ),
        ("Released 14.20 GiB of checkpoint page cache in /models/m", &[(F::PageCacheReleased, "", 14.2)]),
        (
            "Sleep mode freed 90.12 GiB memory, 14.90 GiB memory is still in use.",
            &[(F::SleepFreed, "", 90.12), (F::SleepInUse, "", 14.9)],
        ),
        (
            "init engine (profile, create kv cache, warmup model) took 21.50 seconds",
            &[(F::StartSeconds, "", 21.5)],
        ),
        ("Initializing a V1 LLM engine (v0.25.1) with config: model='m'", &[]),
    ];
    for (line, wanted) in cases {
        let log = parse_text(&format!("{core}{line}"));
        assert_eq!(log.engine, Some(Engine::Vllm), "{line}");
        assert_figures(&log, In::GiB, wanted);
    }
}

const GIB: f64 = (1_u64 << 30) as f64;

#[test]
fn the_version_decides_the_formula() {
    let formula = |version: &str| {
        let log = parse_text(&format!(
            "INFO 06-10 10:00:00 [core.py:1] Initializing a V1 LLM engine (v{version}) with config: x"
        ));
        assert_eq!(log.version, Version::parse(version));
        let variants = log.variants();
        assert_eq!(variants.len(), 1, "{version}");
        (variants[0].unified, variants[0].formula, variants[0].takes_off_graphs)
    };
    assert_eq!(formula("0.11.0"), (Signal::CudaMemGetInfo, Formula::RequestedMinusParts, false));
    assert_eq!(formula("0.19.1"), (Signal::MemAvailable, Formula::RequestedMinusParts, false));
    assert_eq!(formula("0.25.1"), (Signal::MemAvailable, Formula::RequestedMinusParts, true));
    assert_eq!(formula("0.29.1rc1"), (Signal::MemAvailable, Formula::RequestedMinusConsumed, true));
    let served =
        parse_text("(APIServer pid=1) INFO 06-10 10:00:00 [utils.py:1] vLLM API server version 0.25.1");
    assert_eq!(served.version, Some(Version(0, 25, 1)));
}
