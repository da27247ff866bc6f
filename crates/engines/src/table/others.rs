//! LMDeploy (both engines), xinfer and ComfyUI: cudaMemGetInfo on every GPU.

use crate::engine::{Action, Cause, Engine, Formula, Moment, ParameterName, Signal};
use crate::figure::Figure as F;
use crate::row::{
    AdviceRow, EngineRow, LogUnit, Parameter, Position, ReadingRow, Sign, Variant, advice, count, field, gib,
    line, mib, ratio,
};
use crate::version::ALL;

/// lmdeploy/pytorch/utils.py (get_gpu_memory), engine/executor/base.py. It logs none of its figures.
pub const LMDEPLOY_PYTORCH: EngineRow = EngineRow {
    engine: Engine::LmDeployPytorch,
    title: "LMDeploy (PyTorch)",
    signs: LMDEPLOY,
    runs: None,
    variants: FREE_TIMES_FRACTION,
    lines: &[],
    parameters: CACHE_MAX_ENTRY_COUNT,
    advice: LMDEPLOY_ADVICE,
};

/// src/turbomind/turbomind.cc.
pub const LMDEPLOY_TURBOMIND: EngineRow = EngineRow {
    engine: Engine::LmDeployTurboMind,
    title: "LMDeploy (TurboMind)",
    signs: &[
        Sign::Argument("lmdeploy"),
        Sign::ArgumentBegins("lmdeploy."),
        Sign::Module("/lmdeploy/lib/_turbomind"),
    ],
    runs: None,
    variants: FREE_TIMES_FRACTION,
    lines: &[line(
        &[Engine::LmDeployTurboMind],
        r"Object cache budget: ([0-9.]+) MB from free ([0-9.]+) MB and ratio ([0-9.]+[0-9])",
        &[mib(1, F::KvBudget), mib(2, F::FreeBeforeCache), ratio(3, F::Fraction)],
    )],
    parameters: CACHE_MAX_ENTRY_COUNT,
    advice: LMDEPLOY_ADVICE,
};

/// src/utils/kvcache_allocator.rs; it divides by 2^30 and writes GB.
pub const XINFER: EngineRow = EngineRow {
    engine: Engine::Xinfer,
    title: "xinfer",
    signs: &[Sign::Comm("xinfer"), Sign::Argument("xinfer")],
    runs: None,
    variants: FREE_TIMES_FRACTION,
    lines: &[
        line(
            &[Engine::Xinfer],
            r"GPU ([0-9]+): total ([0-9.]+) GB, free ([0-9.]+) GB, kv_fraction ([0-9.]+)%, Max usable cache budget ([0-9.]+) GB",
            &[
                gib(2, F::DeviceTotal),
                gib(3, F::FreeBeforeCache),
                field(4, F::Fraction, LogUnit::Percent),
                gib(5, F::KvBudget),
            ],
        )
        .subject(1),
        line(
            &[Engine::Xinfer],
            r"KVCache Allocation: ([0-9]+) GPU blocks \(([0-9.]+) GB x [0-9]+\), max usable kvcache tokens ([0-9]+)",
            &[count(1, F::Blocks), gib(2, F::KvAllocated), count(3, F::TokensOfCache)],
        ),
    ],
    parameters: &[Parameter {
        name: ParameterName::Fraction,
        flags: &["--kv-fraction"],
        environment: &[],
        figure: Some(F::Fraction),
        defaults: &[],
    }],
    advice: &[
        advice(Cause::PageCache, Action::DropPageCache, None),
        advice(Cause::Others, Action::EndOthers, None),
        advice(Cause::Fraction, Action::RaiseFraction, Some("--kv-fraction")),
    ],
};

/// comfy/model_management.py (get_total_memory, get_free_memory). On unified memory both totals are the same memory.
pub const COMFYUI: EngineRow = EngineRow {
    engine: Engine::ComfyUi,
    title: "ComfyUI",
    signs: &[Sign::Argument("comfyui"), Sign::Argument("comfy"), Sign::Module("/ComfyUI/")],
    runs: None,
    variants: &[Variant {
        versions: ALL,
        unified: Signal::CudaMemGetInfo,
        discrete: Signal::CudaMemGetInfo,
        in_container: None,
        readings: &[],
        formula: Formula::OnDemand,
        takes_off_graphs: false,
    }],
    lines: &[
        line(
            &[Engine::ComfyUi],
            r"Total VRAM ([0-9]+) MB, total RAM ([0-9]+) MB",
            &[mib(1, F::DeviceTotal), mib(2, F::SystemTotal)],
        ),
        line(&[Engine::ComfyUi], r"ComfyUI version: v?([0-9]\S*)", &[]).version(1),
    ],
    parameters: &[],
    advice: &[
        advice(Cause::PageCache, Action::DropPageCache, None),
        advice(Cause::Others, Action::EndOthers, None),
    ],
};

const LMDEPLOY: &[Sign] = &[Sign::Argument("lmdeploy"), Sign::ArgumentBegins("lmdeploy.")];

const FREE_TIMES_FRACTION: &[Variant] = &[Variant {
    versions: ALL,
    unified: Signal::CudaMemGetInfo,
    discrete: Signal::CudaMemGetInfo,
    in_container: None,
    readings: &[ReadingRow {
        moment: Moment::BeforeCache,
        figure: Some(F::FreeBeforeCache),
        position: Position::LastBeforeLine(&[F::KvBudget]),
    }],
    formula: Formula::FreeTimesFraction,
    takes_off_graphs: false,
}];

const CACHE_MAX_ENTRY_COUNT: &[Parameter] = &[Parameter {
    name: ParameterName::Fraction,
    flags: &["--cache-max-entry-count"],
    environment: &[],
    figure: Some(F::Fraction),
    defaults: &[(ALL, 0.8)],
}];

const LMDEPLOY_ADVICE: &[AdviceRow] = &[
    advice(Cause::PageCache, Action::DropPageCache, None),
    advice(Cause::Others, Action::EndOthers, None),
    advice(Cause::Fraction, Action::RaiseFraction, Some("--cache-max-entry-count")),
];
