//! vLLM. Lines: vllm/v1/worker/gpu_worker.py, gpu_model_runner.py, v1/core/kv_cache_utils.py, v1/worker/utils.py; readings:
//! vllm/utils/mem_utils.py (MemorySnapshot.measure), of the wheels 0.10.2 to 0.33.0.

use crate::engine::{Action, Cause, Check, Engine, Formula, Moment, ParameterName, Signal, Stage};
use crate::figure::Figure as F;
use crate::row::{
    AdviceRow, Edge, EngineRow, LineRow, LogUnit, Parameter, Position, ReadingRow, Sign, Variant, advice,
    count, field, gib, line, ratio, seconds, text,
};
use crate::version::{ALL, before, between, from};

const V1: &[Engine] = &[Engine::Vllm];
const V0: &[Engine] = &[Engine::VllmV0];
const EITHER: &[Engine] = &[Engine::Vllm, Engine::VllmV0];

pub const ROW: EngineRow = EngineRow {
    engine: Engine::Vllm,
    title: "vLLM",
    signs: SIGNS,
    runs: None,
    variants: &[
        Variant {
            versions: before(0, 11, 1),
            unified: Signal::CudaMemGetInfo,
            discrete: Signal::CudaMemGetInfo,
            in_container: None,
            readings: READINGS,
            formula: Formula::RequestedMinusParts,
            takes_off_graphs: false,
        },
        // Orin, Thor and GB10 by their compute capabilities; from 0.20.0 by cudaDeviceProp.integrated.
        Variant {
            versions: between((0, 11, 1), (0, 20, 0)),
            unified: Signal::MemAvailable,
            discrete: Signal::CudaMemGetInfo,
            in_container: None,
            readings: READINGS,
            formula: Formula::RequestedMinusParts,
            takes_off_graphs: false,
        },
        Variant {
            versions: between((0, 20, 0), (0, 27, 0)),
            unified: Signal::MemAvailable,
            discrete: Signal::CudaMemGetInfo,
            in_container: None,
            readings: READINGS,
            formula: Formula::RequestedMinusParts,
            takes_off_graphs: true,
        },
        Variant {
            versions: from(0, 27, 0),
            unified: Signal::MemAvailable,
            discrete: Signal::CudaMemGetInfo,
            in_container: None,
            readings: READINGS,
            formula: Formula::RequestedMinusConsumed,
            takes_off_graphs: true,
        },
    ],
    lines: LINES,
    parameters: PARAMETERS,
    advice: ADVICE,
};

pub const V0_ROW: EngineRow = EngineRow {
    engine: Engine::VllmV0,
    title: "vLLM (V0 engine)",
    // Its processes are called as those of its successor are.
    signs: &[],
    runs: None,
    variants: &[Variant {
        versions: ALL,
        unified: Signal::CudaMemGetInfo,
        discrete: Signal::CudaMemGetInfo,
        in_container: None,
        readings: READINGS,
        formula: Formula::RequestedMinusParts,
        takes_off_graphs: false,
    }],
    lines: V0_LINES,
    parameters: PARAMETERS,
    advice: &[
        advice(Cause::PageCache, Action::DropPageCache, None),
        advice(Cause::Others, Action::EndOthers, None),
        advice(Cause::Fraction, Action::RaiseFraction, Some("--gpu-memory-utilization")),
        advice(Cause::Activations, Action::LowerBatch, Some("--max-num-batched-tokens")),
    ],
};

/// `VLLM::EngineCore` and `VLLM::Worker_TP0`, cut after fifteen characters.
const SIGNS: &[Sign] = &[
    Sign::Comm("VLLM::"),
    Sign::Argument("vllm"),
    Sign::ArgumentBegins("vllm.entrypoints."),
    Sign::Module("/vllm/_C."),
    Sign::Module("/vllm/_C_stable_libtorch."),
    Sign::Module("/vllm/cumem_allocator."),
];

const READINGS: &[ReadingRow] = &[
    ReadingRow {
        moment: Moment::Baseline,
        figure: Some(F::FreeBaseline),
        position: Position::LastBefore(Stage::Weights),
    },
    ReadingRow {
        moment: Moment::AfterProfiling,
        figure: Some(F::FreeAfterProfiling),
        position: Position::LastBeforeLine(&[F::KvBudget]),
    },
];

#[rustfmt::skip]
const LINES: &[LineRow] = &[
    line(V1, r"(?:Initializing a V1 LLM engine \(|vLLM API server version |vLLM server version )v?([0-9]\S*?)\)?(?:[ ,]|$)", &[]).version(1),
    line(V1, r"Starting to load model ", &[]).marks(&[(Edge::Begins, Stage::Weights)]),
    line(V1, r"Model loading took ([0-9.]+) (?:GiB|GB)(?: memory)? and ([0-9.]+) s", &[
        gib(1, F::Weights), seconds(2, F::WeightsSeconds),
    ]).marks(&[(Edge::Ends, Stage::Weights), (Edge::Begins, Stage::Profiling)]),
    line(V1, r"Initial free memory: ([0-9.]+) GiB; Requested memory: ([0-9.]+) \(util\), ([0-9.]+) GiB", &[
        gib(1, F::FreeBaseline), ratio(2, F::Fraction), gib(3, F::Requested),
    ]),
    line(V1, r"Free memory after profiling: (-?[0-9.]+) GiB \(total\), (-?[0-9.]+) GiB \(within requested\)", &[
        gib(1, F::FreeAfterProfiling), gib(2, F::LeftOfRequested),
    ]),
    line(V1, r"init memory snapshot: .*?free_memory=([0-9.]+)GiB, total_memory=([0-9.]+)GiB, .*?non_torch_memory=(-?[0-9.]+)GiB", &[
        gib(1, F::FreeBaseline), gib(2, F::DeviceTotal), gib(3, F::Outside),
    ]).versions(from(0, 14, 0)),
    line(V1, r"worker requested memory: ([0-9.]+)GiB", &[gib(1, F::Requested)]).versions(from(0, 14, 0)),
    line(V1, r"Memory profiling takes ([0-9.]+) seconds\. Total non KV cache memory: (-?[0-9.]+) ?GiB; torch peak memory increase: (-?[0-9.]+) ?GiB; (?:non-torch forward increase memory: (-?[0-9.]+) ?GiB|total consumed \(from mem_get_info\): (-?[0-9.]+) ?GiB); weights memory: (-?[0-9.]+) ?GiB", &[
        seconds(1, F::ProfilingSeconds), gib(2, F::NonCache), gib(3, F::Activations), gib(4, F::OutsideGrowth),
        gib(5, F::Consumed), gib(6, F::Weights),
    ]),
    line(V1, r"Initial profiling/warmup run took ([0-9.]+) s", &[seconds(1, F::ProfilingSeconds)]),
    line(V1, r"Available KV cache memory: (-?[0-9.]+) GiB", &[gib(1, F::KvBudget)])
        .marks(&[(Edge::Ends, Stage::Profiling), (Edge::Begins, Stage::KvAllocation)]),
    line(V1, r"\b[A-Z]\w*(?: \+ host)? KV cache size: ([0-9,]+) tokens", &[count(1, F::TokensOfCache)]),
    line(V1, r"Maximum concurrency for ([0-9,]+) tokens per request: ([0-9.]+)x", &[
        count(1, F::Context), ratio(2, F::Concurrency),
    ]),
    line(V1, r"Profiling CUDA graph memory: ", &[]).versions(from(0, 18, 0)),
    line(V1, r"Estimated CUDA graph memory: (-?[0-9.]+) GiB total", &[gib(1, F::GraphsEstimated)]).versions(from(0, 18, 0)),
    line(V1, r"Capturing CUDA graphs ?\(", &[]).marks(&[(Edge::Begins, Stage::GraphCapture)]),
    line(V1, r"Graph capturing finished in ([0-9]+) secs, took (-?[0-9.]+) GiB", &[
        seconds(1, F::GraphSeconds), gib(2, F::GraphsTaken),
    ]).marks(&[(Edge::Ends, Stage::GraphCapture)]),
    line(V1, r"CUDA graph pool memory: (-?[0-9.]+) GiB \(actual\), (-?[0-9.]+) GiB \(estimated\)", &[
        gib(1, F::GraphsPool), gib(2, F::GraphsEstimated),
    ]).versions(from(0, 18, 0)),
    line(V1, r"CUDA graph memory profiling is (enabled|disabled)", &[field(1, F::GraphsCounted, LogUnit::Flag)])
        .versions(from(0, 18, 0)),
    line(V1, r"The current --gpu-memory-utilization=([0-9.]+) is equivalent to --gpu-memory-utilization=(-?[0-9.]+)(?:.*?increase --gpu-memory-utilization to ([0-9.]+[0-9]))?", &[
        ratio(1, F::Fraction), ratio(2, F::FractionEquivalent), ratio(3, F::FractionToKeep),
    ]).versions(from(0, 20, 0)),
    line(V1, r"increase --gpu-memory-utilization from ([0-9.]+) to ([0-9.]+) to maintain", &[
        ratio(1, F::Fraction), ratio(2, F::FractionToKeep),
    ])
        .versions(between((0, 18, 0), (0, 20, 0))),
    // The summary is one line; people post it wrapped, so each of its sentences is a row.
    line(V1, r"Free memory on device \(([0-9.]+)/([0-9.]+) GiB\) on startup\.", &[
        gib(1, F::FreeBaseline), gib(2, F::DeviceTotal),
    ]),
    line(V1, r"Desired GPU memory utilization is \(([0-9.]+), ([0-9.]+) GiB\)", &[
        ratio(1, F::Fraction), gib(2, F::Requested),
    ]),
    line(V1, r"Actual usage is ([0-9.]+) GiB for weight,", &[gib(1, F::Weights)]).versions(before(0, 27, 0)),
    line(V1, r"Actual usage is ([0-9.]+) GiB for consumed memory \(weights \+ non-torch\)", &[gib(1, F::Consumed)])
        .versions(from(0, 27, 0)),
    line(V1, r"([0-9.]+) GiB for peak activation", &[gib(1, F::Activations)]),
    line(V1, r"([0-9.]+) GiB for non-torch memory", &[gib(1, F::OutsideGrowth)]).versions(before(0, 27, 0)),
    line(V1, r"and (-?[0-9.]+) GiB for CUDAGraph memory", &[gib(1, F::GraphsTaken)]),
    line(V1, r"Current kv cache memory in use is ([0-9.]+ (?:bytes|GiB))", &[text(1, F::KvAllocated)]),
    line(V1, r"`--kv-cache-memory=([0-9]+)`(?: \([0-9.]+ GiB\))? to fit into requested memory, or `--kv-cache-memory=([0-9]+)`", &[
        field(1, F::KvSuggested, LogUnit::Bytes), field(2, F::KvSuggestedAtMost, LogUnit::Bytes),
    ]),
    line(V1, r"Initial free memory ([0-9.]+) GiB, reserved ([0-9.]+) GiB memory for KV Cache as specified by kv_cache_memory_bytes", &[
        gib(1, F::FreeBaseline), gib(2, F::KvStated),
    ]).marks(&[(Edge::Ends, Stage::Profiling), (Edge::Begins, Stage::KvAllocation)]),
    line(V1, r"init engine \(profile, create kv cache, warmup model\) took ([0-9.]+) s", &[seconds(1, F::StartSeconds)])
        .marks(&[(Edge::Begins, Stage::Serving)]),
    line(V1, r"Released ([0-9.]+) GiB of checkpoint page cache in ", &[gib(1, F::PageCacheReleased)]).versions(from(0, 31, 0)),
    line(V1, r"Sleep mode freed (-?[0-9.]+) GiB memory, (-?[0-9.]+) GiB memory is still in use", &[
        gib(1, F::SleepFreed), gib(2, F::SleepInUse),
    ]),
    line(V1, r"Free memory on device (?:(\S+) )?\(([0-9.]+)/([0-9.]+) GiB\) on startup is less than desired GPU memory utilization \(([0-9.]+), ([0-9.]+) GiB\)", &[
        gib(2, F::FreeBaseline), gib(3, F::DeviceTotal), ratio(4, F::Fraction), gib(5, F::Requested),
    ]).fails(Check::FreeBelowRequested),
    line(V1, r"Error in memory profiling\. Initial free memory ([0-9.]+) GiB, current free memory ([0-9.]+) GiB", &[
        gib(1, F::FreeBaseline), gib(2, F::FreeAfterProfiling),
    ]).fails(Check::FreeGrewInProfiling),
    line(V1, r"max seq len \(([0-9]+)\), \(?([0-9.]+) GiB KV cache is needed, which is larger than the available KV cache memory \((-?[0-9.]+) GiB\)(?:\. Based on the available memory, the estimated maximum model length is ([0-9]+))?", &[
        count(1, F::Context), gib(2, F::KvNeeded), gib(3, F::KvBudget), count(4, F::ContextPossible),
    ]).fails(Check::CacheBelowOneRequest),
    line(EITHER, r"No available memory for the cache blocks", &[]).fails(Check::NothingLeftForCache),
];

/// vllm/worker/worker.py: a table in 2024, one sentence after it.
#[rustfmt::skip]
const V0_LINES: &[LineRow] = &[
    line(V0, r"Initializing an LLM engine \(v([0-9]\S*?)\)", &[]).version(1),
    line(V0, r"^duration\s+([0-9.]+) seconds$", &[seconds(1, F::ProfilingSeconds)]),
    line(V0, r"^total_gpu_memory\s+([0-9.]+)GiB", &[gib(1, F::DeviceTotal)]),
    line(V0, r"^gpu_memory_utilization\s+([0-9.]+)$", &[ratio(1, F::Fraction)]),
    line(V0, r"^the current vLLM instance can use\s+([0-9.]+)GiB", &[gib(1, F::Requested)]),
    line(V0, r"^model weights take\s+([0-9.]+)GiB$", &[gib(1, F::Weights)]),
    line(V0, r"^non_torch_memory\s+(-?[0-9.]+)GiB", &[gib(1, F::Outside)]),
    line(V0, r"^PyTorch activation peak memory\s+([0-9.]+)GiB", &[gib(1, F::Activations)]),
    line(V0, r"^available_kv_cache_memory\s+(-?[0-9.]+)GiB", &[gib(1, F::KvBudget)]),
    line(V0, r"total_gpu_memory \(([0-9.]+)GiB\) x gpu_memory_utilization \(([0-9.]+)\) = ([0-9.]+)GiB", &[
        gib(1, F::DeviceTotal), ratio(2, F::Fraction), gib(3, F::Requested),
    ]),
    line(V0, r"model weights take ([0-9.]+)GiB; non_torch_memory takes (-?[0-9.]+)GiB; PyTorch activation peak memory takes ([0-9.]+)GiB; the rest of the memory reserved for KV Cache is (-?[0-9.]+)GiB", &[
        gib(1, F::Weights), gib(2, F::Outside), gib(3, F::Activations), gib(4, F::KvBudget),
    ]).marks(&[(Edge::Ends, Stage::Profiling), (Edge::Begins, Stage::KvAllocation)]),
    line(V0, r"# (?:CUDA|GPU|cuda) blocks: ([0-9]+), # CPU blocks: ([0-9]+)", &[
        count(1, F::Blocks), count(2, F::BlocksOnHost),
    ]),
];

const PARAMETERS: &[Parameter] = &[
    Parameter {
        name: ParameterName::Fraction,
        flags: &["--gpu-memory-utilization"],
        environment: &[],
        figure: Some(F::Fraction),
        defaults: &[(before(0, 20, 0), 0.9), (from(0, 20, 0), 0.92)],
    },
    Parameter {
        name: ParameterName::CacheBytes,
        flags: &["--kv-cache-memory-bytes", "--kv-cache-memory"],
        environment: &[],
        figure: Some(F::KvStated),
        defaults: &[],
    },
    // vllm/envs.py: a number, of which 0 is no.
    Parameter {
        name: ParameterName::GraphEstimate,
        flags: &[],
        environment: &["VLLM_MEMORY_PROFILER_ESTIMATE_CUDAGRAPHS"],
        figure: Some(F::GraphsCounted),
        // The variants have it.
        defaults: &[],
    },
    Parameter {
        name: ParameterName::Context,
        flags: &["--max-model-len"],
        environment: &[],
        figure: Some(F::Context),
        defaults: &[],
    },
];

const ADVICE: &[AdviceRow] = &[
    advice(Cause::PageCache, Action::DropPageCache, None).versions(before(0, 11, 1)),
    advice(Cause::Others, Action::EndOthers, None),
    advice(Cause::Pinned, Action::Unpin, None),
    advice(Cause::Dirty, Action::WriteBack, None),
    advice(Cause::Watermark, Action::LowerWatermark, None),
    advice(Cause::Compiler, Action::CompileBefore, None),
    advice(Cause::Fraction, Action::RaiseFraction, Some("--gpu-memory-utilization")),
    advice(Cause::Fraction, Action::StateCacheSize, Some("--kv-cache-memory-bytes")),
    advice(Cause::Activations, Action::LowerBatch, Some("--max-num-batched-tokens")),
    advice(Cause::Graphs, Action::DisableGraphs, Some("--enforce-eager")),
    advice(Cause::Graphs, Action::DisableGraphEstimate, Some("VLLM_MEMORY_PROFILER_ESTIMATE_CUDAGRAPHS=0"))
        .versions(from(0, 18, 0)),
    advice(Cause::Context, Action::LowerContext, Some("--max-model-len")),
];
