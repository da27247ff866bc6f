//! llama.cpp. Readings: ggml/src/ggml-cuda/ggml-cuda.cu (ggml_backend_cuda_device_get_memory); lines: src/llama-model.cpp,
//! llama-context.cpp, llama-kv-cache.cpp, common/fit.cpp. Names of functions before the text change, so patterns are
//! without them.

use crate::engine::{Action, Cause, Check, Engine, Formula, Moment, ParameterName, Signal, Stage};
use crate::figure::Figure as F;
use crate::row::{
    AdviceRow, Edge, EngineRow, LineRow, LogUnit, Parameter, Position, ReadingRow, Sign, Variant, advice,
    count, field, line, mib, seconds,
};
use crate::version::{ALL, before, from};

const LLAMA: &[Engine] = &[Engine::LlamaCpp];

pub const ROW: EngineRow = EngineRow {
    engine: Engine::LlamaCpp,
    title: "llama.cpp",
    signs: &[
        Sign::Comm("llama-"),
        Sign::Module("/libllama.so"),
        Sign::Argument("llama-server"),
        Sign::Argument("llama-cli"),
    ],
    runs: None,
    variants: &[
        Variant {
            versions: before(7108, 0, 0),
            unified: Signal::CudaMemGetInfo,
            discrete: Signal::CudaMemGetInfo,
            in_container: None,
            readings: READINGS,
            formula: Formula::FitWithinFree,
            takes_off_graphs: false,
        },
        // Also where GGML_CUDA_ENABLE_UNIFIED_MEMORY is set.
        Variant {
            versions: from(7108, 0, 0),
            unified: Signal::MemAvailable,
            discrete: Signal::CudaMemGetInfo,
            in_container: None,
            readings: READINGS,
            formula: Formula::FitWithinFree,
            takes_off_graphs: false,
        },
    ],
    lines: LINES,
    parameters: &[
        Parameter {
            name: ParameterName::Margin,
            flags: &["--fit-target", "-fitt"],
            environment: &["LLAMA_ARG_FIT_TARGET"],
            figure: Some(F::Margin),
            defaults: &[(ALL, (1_u64 << 30) as f64)],
        },
        Parameter {
            name: ParameterName::Context,
            flags: &["--ctx-size", "-c"],
            environment: &["LLAMA_ARG_CTX_SIZE"],
            figure: Some(F::Context),
            defaults: &[],
        },
        Parameter {
            name: ParameterName::Layers,
            flags: &["--n-gpu-layers", "--gpu-layers", "-ngl"],
            environment: &["LLAMA_ARG_N_GPU_LAYERS"],
            figure: Some(F::LayersOnDevice),
            defaults: &[],
        },
    ],
    advice: ADVICE,
};

pub(super) const READINGS: &[ReadingRow] = &[ReadingRow {
    moment: Moment::BeforeCache,
    figure: Some(F::FreeBaseline),
    position: Position::LastBefore(Stage::Weights),
}];

/// Builds have numbers: `build: 7166 (9f1a2b3c4)`, `b7166-9f1a2b3c4`.
#[rustfmt::skip]
const LINES: &[LineRow] = &[
    line(LLAMA, r"^build(?:_info)?: b?([0-9]+)[ -]", &[]).version(1),
    line(LLAMA, r"ggml_cuda_init: found [0-9]+ (?:CUDA|ROCm) devices(?: \(Total VRAM: ([0-9]+) MiB\))?", &[mib(1, F::DevicesTotal)]),
    line(LLAMA, r"^\s*Device ([0-9]+): .+?, compute capability [0-9.]+, VMM: \w+(?:, VRAM: ([0-9]+) MiB)?", &[mib(2, F::DeviceTotal)])
        .subject(1),
    line(LLAMA, r"using device (\S+) \(.+?\)(?: \([^)]*\))? - ([0-9]+) MiB free", &[mib(2, F::FreeBaseline)]).subject(1),
    line(LLAMA, r"^\s*(\w+): .+? \(([0-9]+) MiB, ([0-9]+) MiB free\)", &[mib(2, F::DeviceTotal), mib(3, F::FreeBaseline)])
        .subject(1),
    line(LLAMA, r"get_available_uma_memory: final available_memory_kb: ([0-9]+)", &[field(1, F::SystemFree, LogUnit::KiB)]),
    line(LLAMA, r"llama_model_loader: loaded meta data with ", &[]).marks(&[(Edge::Begins, Stage::Weights)]),
    // A model in several files has a buffer for each; a run that only fits parameters writes 0.00 first.
    line(LLAMA, r"(\S+)\s+model buffer size =\s*([0-9.]+) MiB", &[mib(2, F::Weights).on_host(F::WeightsOnHost).sum()]).subject(1).buffer(),
    line(LLAMA, r"llama_context: constructing llama_context", &[])
        .marks(&[(Edge::Ends, Stage::Weights), (Edge::Begins, Stage::KvAllocation)]),
    line(LLAMA, r"llama_context: n_ctx\s+= ([0-9]+)", &[count(1, F::Context)]),
    // Models with a sliding window have two caches.
    line(LLAMA, r"(\S+)\s+KV buffer size =\s*([0-9.]+) MiB", &[mib(2, F::KvAllocated).on_host(F::KvOnHost).sum()]).subject(1).buffer(),
    line(LLAMA, r"(\S+)\s+RS buffer size =\s*([0-9.]+) MiB", &[mib(2, F::RecurrentState).sum()]).subject(1).buffer(),
    line(LLAMA, r"(\S+)\s+compute buffer size =\s*([0-9.]+) MiB", &[mib(2, F::Compute).on_host(F::ComputeOnHost)]).subject(1).buffer()
        .marks(&[(Edge::Ends, Stage::KvAllocation)]),
    line(LLAMA, r"(\S+)\s+output buffer size =\s*([0-9.]+) MiB", &[mib(2, F::Output)]).subject(1),
    line(LLAMA, r"size =\s*[0-9.]+ MiB \(\s*([0-9]+) cells,\s*([0-9]+) layers", &[count(1, F::CacheCells), count(2, F::CacheLayers)]),
    line(LLAMA, r"offloaded ([0-9]+)/([0-9]+) layers to GPU", &[count(1, F::LayersOnDevice), count(2, F::Layers)]),
    line(LLAMA, r"projected to use ([0-9]+) MiB of device memory vs\. ([0-9]+) MiB of free device memory", &[
        mib(1, F::Projected), mib(2, F::FreeBaseline),
    ]),
    line(LLAMA, r"fit\w*: +- (\S+) \([^)]*\): +([0-9]+) total, +([0-9]+) used, +(-?[0-9]+) free vs\. target", &[
        mib(2, F::DeviceTotal), mib(3, F::Projected), mib(4, F::FreeProjected),
    ]).subject(1),
    line(LLAMA, r"context size reduced from ([0-9]+) to ([0-9]+)(?: -> need ([0-9]+) MiB less memory)?", &[
        count(1, F::ContextWished), count(2, F::Context), mib(3, F::SavedByContext),
    ]),
    line(LLAMA, r"failed to fit params to free device memory", &[]).fails(Check::DoesNotFit),
    line(LLAMA, r"fitting params to free memory took ([0-9.]+) seconds", &[seconds(1, F::FitSeconds)]),
    line(LLAMA, r"\|\s+- (\S+) \([^|]*\)\s*\|\s*([0-9]+) =\s*(-?[0-9]+) \+ \(\s*([0-9]+) =\s*([0-9]+) \+\s*([0-9]+) \+\s*([0-9]+)\) \+\s*(-?[0-9]+) \|", &[
        mib(2, F::DeviceTotal), mib(3, F::FreeAtBreakdown), mib(4, F::Own), mib(5, F::OwnWeights), mib(6, F::OwnContext),
        mib(7, F::OwnCompute), field(8, F::Unaccounted, LogUnit::WrappedMiB),
    ]).subject(1),
    line(LLAMA, r"\|\s+- Host\s*\|\s*([0-9]+) =\s*([0-9]+) \+\s*([0-9]+) \+\s*([0-9]+)\s*\|", &[
        mib(1, F::OwnOnHost), mib(2, F::OwnWeightsOnHost), mib(3, F::OwnContextOnHost), mib(4, F::OwnComputeOnHost),
    ]),
    line(LLAMA, r"server is listening on ", &[]).marks(&[(Edge::Begins, Stage::Serving)]),
    line(LLAMA, r"allocating ([0-9.]+) MiB on device ([0-9]+): cudaMalloc failed", &[mib(1, F::Failed)])
        .subject(2).fails(Check::AllocationFailed),
    line(LLAMA, r"failed to allocate (\S+) buffer of size ([0-9]+)", &[field(2, F::Failed, LogUnit::Bytes)])
        .subject(1).fails(Check::AllocationFailed),
];

const ADVICE: &[AdviceRow] = &[
    advice(Cause::PageCache, Action::DropPageCache, None).versions(before(7108, 0, 0)),
    advice(Cause::Others, Action::EndOthers, None),
    advice(Cause::Pinned, Action::Unpin, None),
    advice(Cause::Dirty, Action::WriteBack, None),
    advice(Cause::Watermark, Action::LowerWatermark, None),
    advice(Cause::Context, Action::LowerContext, Some("--ctx-size")),
    advice(Cause::Activations, Action::LowerBatch, Some("--ubatch-size")),
];
