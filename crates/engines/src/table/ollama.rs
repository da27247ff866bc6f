//! Ollama, which runs llama.cpp. Readings: discover/gpu.go, discover/cpu_linux.go (getCPUMemByCgroups); lines: llm/server.go,
//! server/sched.go, ml/device.go. Sizes are text with one decimal (format.HumanBytes2, powers of 1024).
//!
//! No reading sizes its cache: the context is stated (`-c` of llm/llama_server.go, before 0.30 num_ctx), and free memory of the
//! GPU decides how many layers are on it. The container's counter decides which loaded models are unloaded
//! (server/sched.go, availableMemoryForLoad; before 0.30 llm/server.go, verifyLayout).

use crate::engine::{Action, Cause, Check, Engine, Formula, Moment, ParameterName, Signal, Stage};
use crate::figure::Figure as F;
use crate::row::{
    AdviceRow, Edge, EngineRow, LineRow, LogUnit, Parameter, Position, ReadingRow, Sign, Variant, advice,
    count, field, line, text,
};
use crate::version::{before, between, from};

const OLLAMA: &[Engine] = &[Engine::Ollama];

pub const ROW: EngineRow = EngineRow {
    engine: Engine::Ollama,
    title: "Ollama",
    signs: &[Sign::Comm("ollama"), Sign::Argument("ollama"), Sign::Module("/lib/ollama/")],
    runs: Some(Engine::LlamaCpp),
    variants: &[
        Variant {
            versions: before(0, 12, 6),
            unified: Signal::CudaMemGetInfo,
            discrete: Signal::CudaMemGetInfo,
            in_container: None,
            readings: READINGS,
            formula: Formula::FitLayersWithinFree,
            takes_off_graphs: false,
        },
        // NVML answers NOT_SUPPORTED on a GB10, and MemAvailable takes its place (mem_nvml.cpp).
        Variant {
            versions: between((0, 12, 6), (0, 13, 0)),
            unified: Signal::MemAvailable,
            discrete: Signal::Nvml,
            in_container: None,
            readings: READINGS,
            formula: Formula::FitLayersWithinFree,
            takes_off_graphs: false,
        },
        Variant {
            versions: between((0, 13, 0), (0, 30, 0)),
            unified: Signal::MemAvailable,
            discrete: Signal::Nvml,
            in_container: Some(Signal::CgroupCurrent),
            readings: READINGS,
            formula: Formula::FitLayersWithinFree,
            takes_off_graphs: false,
        },
        // What `llama-server --list-devices` writes.
        Variant {
            versions: from(0, 30, 0),
            unified: Signal::MemAvailable,
            discrete: Signal::CudaMemGetInfo,
            in_container: Some(Signal::CgroupCurrent),
            readings: READINGS,
            formula: Formula::FitLayersWithinFree,
            takes_off_graphs: false,
        },
    ],
    lines: LINES,
    parameters: &[
        // llama-server's own, and before 0.30 the "minimum" of the log's line.
        Parameter {
            name: ParameterName::Margin,
            flags: &["--fit-target", "-fitt"],
            environment: &["LLAMA_ARG_FIT_TARGET"],
            figure: Some(F::Margin),
            defaults: &[(from(0, 30, 0), (1_u64 << 30) as f64)],
        },
        Parameter {
            name: ParameterName::Context,
            flags: &["--ctx-size"],
            environment: &["OLLAMA_CONTEXT_LENGTH"],
            figure: Some(F::Context),
            defaults: &[],
        },
        Parameter {
            name: ParameterName::Overhead,
            flags: &[],
            environment: &["OLLAMA_GPU_OVERHEAD"],
            figure: Some(F::Overhead),
            defaults: &[],
        },
    ],
    advice: ADVICE,
};

const READINGS: &[ReadingRow] = &[ReadingRow {
    moment: Moment::BeforeCache,
    figure: Some(F::FreeBeforeCache),
    position: Position::LastBefore(Stage::Weights),
}];

#[rustfmt::skip]
const LINES: &[LineRow] = &[
    line(OLLAMA, r#"Listening on \S+ \(version ([0-9]\S*?)\)"#, &[]).version(1),
    line(OLLAMA, r#"inference compute"?\s.*?library=\S+.*? name=(\S+).*? total="([0-9.]+ \w+)"(?: available="([0-9.]+ \w+)")?"#, &[
        text(2, F::DeviceTotal).on_host(F::SystemTotal), text(3, F::FreeBaseline).on_host(F::SystemFree),
    ]).subject(1),
    line(OLLAMA, r#"msg="vram-based default context" total_vram="([0-9.]+ \w+)" default_num_ctx=([0-9]+)"#, &[
        text(1, F::DevicesTotal), count(2, F::Context),
    ]),
    line(OLLAMA, r#"msg="(?:starting runner|starting llama server|starting llama-server)""#, &[]).restarts()
        .marks(&[(Edge::Begins, Stage::Weights)]),
    line(OLLAMA, r#"msg="system memory" total="([0-9.]+ \w+)" free="([0-9.]+ \w+)"(?: free_swap="([0-9.]+ \w+)")?"#, &[
        text(1, F::SystemTotal), text(2, F::SystemFree), text(3, F::SystemSwapFree),
    ]),
    line(OLLAMA, r#"msg="gpu memory" id=(\S+) library=\S+ available="([0-9.]+ \w+)" free="([0-9.]+ \w+)" minimum="([0-9.]+ \w+)" overhead="([0-9.]+ \w+)""#, &[
        text(2, F::Usable), text(3, F::FreeBeforeCache), text(4, F::Margin), text(5, F::Overhead),
    ]).subject(1),
    line(OLLAMA, r#"msg="model weights" device=(\S+) size="([0-9.]+ \w+)""#, &[text(2, F::Weights).on_host(F::WeightsOnHost)]).subject(1),
    line(OLLAMA, r#"msg="kv cache" device=(\S+) size="([0-9.]+ \w+)""#, &[text(2, F::KvAllocated).on_host(F::KvOnHost)]).subject(1),
    line(OLLAMA, r#"msg="compute graph" device=(\S+) size="([0-9.]+ \w+)""#, &[text(2, F::Compute).on_host(F::ComputeOnHost)]).subject(1),
    line(OLLAMA, r#"msg="total memory" size="([0-9.]+ \w+)""#, &[text(1, F::Own)]),
    line(OLLAMA, r#"msg="llama-server model (?:fits alongside existing models|predicted to exceed available memory, evicting)" predicted="([0-9.]+ \w+)" predicted_num_ctx=([0-9]+) .*?available="([0-9.]+ \w+)" gpu_free="([0-9.]+ \w+)" system_free="([0-9.]+ \w+)" system_limited=(true|false)"#, &[
        text(1, F::Projected), count(2, F::Context), text(3, F::Usable), text(4, F::FreeBeforeCache), text(5, F::SystemFree),
        field(6, F::SystemLimited, LogUnit::Flag),
    ]),
    line(OLLAMA, r#"model requires more system memory \(([0-9.]+ \w+)\) than is available \(([0-9.]+ \w+)\)"#, &[
        text(1, F::SystemNeeded), text(2, F::SystemFree),
    ]).fails(Check::ModelAboveSystemMemory),
    line(OLLAMA, r#"NVML not supported for memory query, using system memory \(total=([0-9]+), available=([0-9]+)\)"#, &[
        field(1, F::SystemTotal, LogUnit::Bytes), field(2, F::SystemFree, LogUnit::Bytes),
    ]).versions(between((0, 12, 6), (0, 30, 0))),
    line(OLLAMA, r#"dropping integrated GPU; to enable, set OLLAMA_IGPU_ENABLE=1"#, &[]).versions(from(0, 30, 0)),
    line(OLLAMA, r#"llama runner started in ([0-9.]+) seconds"#, &[field(1, F::StartSeconds, LogUnit::Seconds)])
        .marks(&[(Edge::Ends, Stage::KvAllocation), (Edge::Begins, Stage::Serving)]),
];

const ADVICE: &[AdviceRow] = &[
    advice(Cause::PageCache, Action::DropPageCache, None).versions(before(0, 12, 6)),
    advice(Cause::ContainerCharge, Action::DropPageCache, None).versions(from(0, 13, 0)),
    advice(Cause::ContainerCharge, Action::ReadDirectly, None).versions(from(0, 32, 6)),
    advice(Cause::Others, Action::EndOthers, None),
    advice(Cause::Pinned, Action::Unpin, None),
    advice(Cause::Dirty, Action::WriteBack, None),
    advice(Cause::Watermark, Action::LowerWatermark, None),
    advice(Cause::Context, Action::LowerContext, Some("OLLAMA_CONTEXT_LENGTH")),
];
