//! TensorRT-LLM, both backends. Readings and lines: tensorrt_llm/_torch/pyexecutor/_util.py (KvCacheCreator),
//! resource_manager.py, kv_cache_manager_v2.py, and cpp/tensorrt_llm/batch_manager/kvCacheManager.cpp.

use crate::engine::{Action, Cause, Engine, Formula, Moment, ParameterName, Signal, Stage};
use crate::figure::Figure as F;
use crate::row::{
    AdviceRow, Edge, EngineRow, LineRow, LogUnit, Parameter, Position, ReadingRow, Sign, Variant, advice,
    count, field, gib, line, ratio,
};
use crate::version::{ALL, from};

const TORCH: &[Engine] = &[Engine::TensorRtLlm];
const CPP: &[Engine] = &[Engine::TensorRtLlmCpp];
/// The C++ cache manager serves both.
const EITHER: &[Engine] = &[Engine::TensorRtLlm, Engine::TensorRtLlmCpp];

pub const ROW: EngineRow = EngineRow {
    engine: Engine::TensorRtLlm,
    title: "TensorRT-LLM",
    signs: &[
        Sign::Argument("trtllm-serve"),
        Sign::Argument("trtllm-bench"),
        Sign::Argument("trtllm-eval"),
        Sign::Argument("trtllm-llmapi-launch"),
        Sign::ArgumentBegins("tensorrt_llm."),
        Sign::Comm("trtllm-"),
        Sign::Module("/tensorrt_llm/"),
    ],
    runs: None,
    variants: &[Variant {
        versions: ALL,
        unified: Signal::CudaMemGetInfo,
        discrete: Signal::CudaMemGetInfo,
        in_container: None,
        readings: &[
            ReadingRow {
                moment: Moment::AfterWeights,
                figure: Some(F::OutsideAfterWeights),
                position: Position::FirstAfter(Stage::Weights),
            },
            ReadingRow {
                moment: Moment::AfterProfiling,
                figure: Some(F::Outside),
                position: Position::LastBeforeLine(&[F::KvBudget]),
            },
        ],
        formula: Formula::TotalMinusPeakTimesFraction,
        takes_off_graphs: false,
    }],
    lines: LINES,
    parameters: PARAMETERS,
    advice: ADVICE,
};

pub const CPP_ROW: EngineRow = EngineRow {
    engine: Engine::TensorRtLlmCpp,
    title: "TensorRT-LLM (engine backend)",
    signs: &[Sign::Argument("executorWorker"), Sign::Module("/libtriton_tensorrtllm.so")],
    runs: None,
    variants: &[Variant {
        versions: ALL,
        unified: Signal::CudaMemGetInfo,
        discrete: Signal::CudaMemGetInfo,
        in_container: None,
        readings: &[ReadingRow {
            moment: Moment::BeforeCache,
            figure: Some(F::FreeBeforeCache),
            position: Position::LastBeforeLine(&[F::KvAllocated]),
        }],
        formula: Formula::FreeTimesFraction,
        takes_off_graphs: false,
    }],
    lines: CPP_LINES,
    parameters: PARAMETERS,
    advice: ADVICE,
};

#[rustfmt::skip]
const LINES: &[LineRow] = &[
    line(TORCH, r"Use ([0-9.]+) GB for model weights", &[gib(1, F::WeightsAnnounced)])
        .marks(&[(Edge::Begins, Stage::Weights)]),
    line(TORCH, r"Memory used after loading model weights \(inside torch\) in memory usage profiling: ([0-9.]+) GiB", &[
        gib(1, F::Weights),
    ]).marks(&[(Edge::Ends, Stage::Weights)]),
    line(TORCH, r"Memory used after loading model weights \(outside torch\) in memory usage profiling: (-?[0-9.]+) GiB", &[
        gib(1, F::OutsideAfterWeights),
    ]).marks(&[(Edge::Begins, Stage::Profiling)]),
    line(TORCH, r"Memory dynamically allocated during inference \(inside torch\) .*?: ([0-9.]+) GiB", &[gib(1, F::Activations)]),
    line(TORCH, r"Memory used outside torch(?: \(e\.g\., NCCL and CUDA graphs\))? in memory usage profiling: (-?[0-9.]+) GiB", &[
        gib(1, F::Outside),
    ]),
    // One line. What follows the peak is absent in some versions, or words in place of a number.
    line(TORCH, r"Peak memory during memory usage profiling \(torch \+ non-torch\): ([0-9.]+) GiB", &[gib(1, F::Peak)])
        .marks(&[(Edge::Ends, Stage::Profiling)]),
    line(TORCH, r"available KV cache memory when calculating max tokens: (-?[0-9.]+) GiB", &[gib(1, F::KvBudget)]),
    line(TORCH, r"Peak memory .*?fraction is set ([0-9.]+[0-9])", &[ratio(1, F::Fraction)]),
    line(TORCH, r"Peak memory .*?kv size (?:per token )?is ([0-9]+)", &[field(1, F::KvPerToken, LogUnit::Bytes)]),
    line(TORCH, r"Peak memory .*?device total memory ([0-9.]+) GiB", &[gib(1, F::DeviceTotal)]),
    line(TORCH, r"Peak memory .*?(?:tmp kv_mem|temporary kv cache memory during profiling) ([0-9.]+) GiB", &[gib(1, F::KvTemporary)]),
    line(TORCH, r"Estimated max memory in KV cache : (-?[0-9.]+) GiB", &[gib(1, F::KvDecided)])
        .marks(&[(Edge::Begins, Stage::KvAllocation)]),
    line(TORCH, r"Estimated max tokens in KV cache : ([0-9]+)", &[count(1, F::TokensOfCache)]),
    line(TORCH, r"Reserving ([0-9.]+) GiB for multimodal encoder memory", &[gib(1, F::ReservedMultimodal)]).versions(from(1, 2, 0)),
    line(TORCH, r"Reserving ([0-9.]+) GiB for the context-MLA attention workspace(?:.*?KV cache budget -?[0-9.]+ -> (-?[0-9.]+) GiB)?", &[
        gib(1, F::ReservedWorkspace), gib(2, F::KvDecided),
    ])
        .versions(from(1, 2, 0)),
    line(TORCH, r"max_tokens=[0-9]+ is provided\. It limits max memory to ([0-9.]+) GiB", &[gib(1, F::KvLimitByTokens)]),
    line(TORCH, r"max_gpu_total_bytes=([0-9.]+) GiB is provided", &[gib(1, F::KvLimitByBytes)]),
    line(TORCH, r"Both free_gpu_memory_fraction and max_tokens are set \(to ([0-9.]+) and ([0-9]+), respectively\)", &[
        ratio(1, F::Fraction), count(2, F::TokensLimit),
    ]),
    line(TORCH, r"KV cache manager v2 device quota set to ([0-9.]+) ?GiB", &[gib(1, F::KvAllocated)])
        .marks(&[(Edge::Begins, Stage::KvAllocation)]),
    line(TORCH, r"KV cache manager v2 host cache quota set to ([0-9.]+) ?GiB", &[gib(1, F::KvHost)]),
    line(TORCH, r"Setting PyTorch memory fraction to ([0-9.]+) \(([0-9.]+) GiB\)", &[
        ratio(1, F::AllocatorFraction), gib(2, F::AllocatorLimit),
    ]).marks(&[(Edge::Ends, Stage::KvAllocation)]),
];

#[rustfmt::skip]
const CPP_LINES: &[LineRow] = &[
    line(EITHER, r"TensorRT[- ]LLM version: v?([0-9]\S*)", &[]).version(1),
    // The first is of the run with dummy requests.
    line(EITHER, r"\[MemUsageChange\] Allocated ([0-9.]+) GiB for max tokens (?:in paged KV cache )?\(([0-9]+)\)", &[
        gib(1, F::KvAllocated), count(2, F::TokensOfCache),
    ]).marks(&[(Edge::Ends, Stage::KvAllocation)]),
    line(EITHER, r"Memory usage when calculating max tokens in paged kv cache: total: ([0-9.]+) GiB, available: ([0-9.]+) GiB", &[
        gib(1, F::DeviceTotal), gib(2, F::FreeBeforeCache),
    ]).marks(&[(Edge::Begins, Stage::KvAllocation)]),
    line(EITHER, r"primary blocks=([0-9]+), secondary blocks=([0-9]+)", &[count(1, F::Blocks), count(2, F::BlocksOnHost)]),
    line(EITHER, r"Number of blocks in KV cache primary pool: ([0-9]+)", &[count(1, F::Blocks)]),
    line(EITHER, r"Number of blocks in KV cache secondary pool: ([0-9]+)", &[count(1, F::BlocksOnHost)]),
    line(EITHER, r"Number of tokens per block: ([0-9]+)", &[count(1, F::TokensPerBlock)]),
    line(EITHER, r"Attention workspace size is not enough, increase the size from [0-9]+ bytes to ([0-9]+) bytes", &[
        field(1, F::AttentionWorkspace, LogUnit::Bytes),
    ]),
    // A file with an engine is loaded: no PyTorch.
    line(CPP, r"\[MemUsageChange\] TensorRT-managed allocation in ", &[]),
    line(CPP, r"Loaded engine size: ([0-9]+) MiB", &[field(1, F::WeightsAnnounced, LogUnit::MiB)])
        .marks(&[(Edge::Begins, Stage::Weights)]),
    line(CPP, r"Max KV cache pages per sequence: ", &[]),
];

const PARAMETERS: &[Parameter] = &[
    Parameter {
        name: ParameterName::Fraction,
        flags: &[
            "--kv_cache_free_gpu_memory_fraction",
            "--kv_cache_free_gpu_mem_fraction",
            "--free_gpu_memory_fraction",
        ],
        environment: &[],
        figure: Some(F::Fraction),
        // KvCacheConfig.free_gpu_memory_fraction (tensorrt_llm/llmapi/llm_args.py).
        defaults: &[(ALL, 0.9)],
    },
    Parameter {
        name: ParameterName::CacheTokens,
        flags: &[],
        environment: &[],
        figure: Some(F::TokensOfCache),
        defaults: &[],
    },
    Parameter {
        name: ParameterName::Context,
        flags: &["--max_seq_len"],
        environment: &[],
        figure: Some(F::Context),
        defaults: &[],
    },
];

const ADVICE: &[AdviceRow] = &[
    advice(Cause::PageCache, Action::DropPageCache, None),
    advice(Cause::Others, Action::EndOthers, None),
    advice(Cause::Compiler, Action::CompileBefore, None),
    advice(Cause::Pinned, Action::Unpin, None),
    advice(Cause::Dirty, Action::WriteBack, None),
    advice(Cause::Fraction, Action::RaiseFraction, Some("kv_cache_config.free_gpu_memory_fraction")),
    advice(Cause::Fraction, Action::StateCacheSize, Some("kv_cache_config.max_gpu_total_bytes")),
    advice(Cause::Activations, Action::LowerBatch, Some("--max_num_tokens")),
    advice(Cause::HostTier, Action::DisableHostTier, Some("kv_cache_config.host_cache_size: 0")),
    advice(Cause::Context, Action::LowerContext, Some("--max_seq_len")),
];
