//! SGLang. Readings: sglang/srt/utils/common.py (get_available_gpu_memory); lines: model_executor/model_runner.py,
//! mem_cache/memory_pool.py, model_executor/model_runner_components/kv_pool_runtime.py, of the wheels 0.5.1 to 0.5.23. It divides by 2^30 and writes GB.

use crate::engine::{Action, Cause, Check, Engine, Formula, Moment, ParameterName, Signal, Stage};
use crate::figure::Figure as F;
use crate::row::{
    AdviceRow, Edge, EngineRow, LineRow, Parameter, Position, ReadingRow, Sign, Variant, advice, count, gib,
    line, ratio, seconds,
};
use crate::version::{before, from};

const SGLANG: &[Engine] = &[Engine::Sglang];

pub const ROW: EngineRow = EngineRow {
    engine: Engine::Sglang,
    title: "SGLang",
    signs: &[
        // `sglang::scheduler_TP0`, cut after fifteen characters.
        Sign::Comm("sglang::"),
        Sign::ArgumentBegins("sglang."),
        Sign::Argument("sglang"),
        Sign::Module("/sgl_kernel/"),
    ],
    runs: None,
    variants: &[
        Variant {
            versions: before(0, 5, 4),
            unified: Signal::CudaMemGetInfo,
            discrete: Signal::CudaMemGetInfo,
            in_container: None,
            readings: READINGS,
            formula: Formula::AfterMinusRestOfBefore,
            takes_off_graphs: false,
        },
        Variant {
            versions: from(0, 5, 4),
            unified: Signal::MemAvailable,
            discrete: Signal::CudaMemGetInfo,
            in_container: None,
            readings: READINGS,
            formula: Formula::AfterMinusRestOfBefore,
            takes_off_graphs: false,
        },
    ],
    lines: LINES,
    parameters: &[
        Parameter {
            name: ParameterName::Fraction,
            flags: &["--mem-fraction-static"],
            environment: &[],
            figure: Some(F::Fraction),
            // Computed from the GPU's size and the sizes of batches.
            defaults: &[],
        },
        Parameter {
            name: ParameterName::CacheTokens,
            flags: &["--max-total-tokens"],
            environment: &[],
            figure: Some(F::TokensOfCache),
            defaults: &[],
        },
        Parameter {
            name: ParameterName::Context,
            flags: &["--context-length"],
            environment: &[],
            figure: Some(F::Context),
            defaults: &[],
        },
    ],
    advice: ADVICE,
};

const READINGS: &[ReadingRow] = &[
    ReadingRow {
        moment: Moment::Baseline,
        figure: Some(F::FreeBaseline),
        position: Position::LastBefore(Stage::Weights),
    },
    ReadingRow {
        moment: Moment::AfterWeights,
        figure: Some(F::FreeAfterWeights),
        // The line with the size of a cache that is sized after the capture of graphs comes after one more reading.
        position: Position::LastBeforeLine(&[F::TokensOfFullLayers, F::KvAllocated]),
    },
];

#[rustfmt::skip]
const LINES: &[LineRow] = &[
    line(SGLANG, r"ServerArgs\(.*?mem_fraction_static=([0-9.]+)", &[ratio(1, F::Fraction)]),
    line(SGLANG, r"Init torch distributed ends\. (?:elapsed=([0-9.]+) s, )?mem usage=(-?[0-9.]+)(?: GB)?", &[
        seconds(1, F::DistributedSeconds), gib(2, F::Distributed),
    ]),
    line(SGLANG, r"Memory baseline taken\. mem usage=(-?[0-9.]+) GB", &[gib(1, F::Distributed)]).versions(from(0, 5, 21)),
    line(SGLANG, r"Load weight begin\. avail mem=([0-9.]+) GB", &[gib(1, F::FreeBaseline)])
        .marks(&[(Edge::Begins, Stage::Weights)]),
    line(SGLANG, r"Load weight end\. (?:elapsed=([0-9.]+) s, )?.*?avail mem=([0-9.]+) GB, mem usage=(-?[0-9.]+) GB", &[
        seconds(1, F::WeightsSeconds), gib(2, F::FreeAfterWeights), gib(3, F::Weights),
    ]).marks(&[(Edge::Ends, Stage::Weights), (Edge::Begins, Stage::KvAllocation)]),
    // Models with several pools write a line for each.
    line(SGLANG, r"KV Cache is allocated\. (?:dtype: \S+, )?#tokens: ([0-9]+), K size: ([0-9.]+) GB, V size: ([0-9.]+) GB", &[
        count(1, F::TokensOfCache), gib(2, F::KvAllocated).sum(), gib(3, F::KvAllocated).sum(),
    ]),
    line(SGLANG, r"KV Cache is allocated\. (?:dtype: \S+, )?#tokens: ([0-9]+), KV size: ([0-9.]+) GB", &[
        count(1, F::TokensOfCache), gib(2, F::KvAllocated).sum(),
    ]),
    line(SGLANG, r"KV Cache VA upper bound\. (?:dtype: \S+, )?#tokens: [0-9]+, (?:K size: ([0-9.]+) GB, V size: ([0-9.]+) GB|KV size: ([0-9.]+) GB)", &[
        gib(1, F::KvUpperBound).sum(), gib(2, F::KvUpperBound).sum(), gib(3, F::KvUpperBound).sum(),
    ]).versions(from(0, 5, 17)),
    line(SGLANG, r"Post-capture KV sizing: full_layer_tokens=([0-9]+)", &[count(1, F::TokensOfFullLayers)])
        .versions(from(0, 5, 17)),
    line(SGLANG, r"Post-capture KV sizing: KV cache allocated\. dtype: \S+, #tokens: ([0-9]+), KV size: ([0-9.]+) GB, avail mem=([0-9.]+) GB", &[
        count(1, F::TokensOfCache), gib(2, F::KvAllocated), gib(3, F::FreeAfterCache),
    ]).versions(from(0, 5, 17)),
    line(SGLANG, r"Memory pool end\. avail mem=([0-9.]+) GB", &[gib(1, F::FreeAfterCache)])
        .marks(&[(Edge::Ends, Stage::KvAllocation)]),
    line(SGLANG, r"Capture .*?graph begin\..*?avail mem=([0-9.]+) GB", &[gib(1, F::FreeBeforeGraphs)])
        .marks(&[(Edge::Begins, Stage::GraphCapture)]),
    line(SGLANG, r"Capture .*?graph end\. .*?(?:elapsed=|Time elapsed: )([0-9.]+) s[.,] mem usage=(-?[0-9.]+) GB[.,] avail mem=([0-9.]+) GB", &[
        seconds(1, F::GraphSeconds), gib(2, F::GraphsTaken), gib(3, F::FreeAfterGraphs),
    ]).marks(&[(Edge::Ends, Stage::GraphCapture)]),
    line(SGLANG, r"max_total_num_tokens=([0-9]+), .*?context_len=([0-9]+), available_(?:gpu|cpu)_mem=([0-9.]+) GB", &[
        count(1, F::TokensOfCache), count(2, F::Context), gib(3, F::FreeAtReady),
    ]),
    line(SGLANG, r"The server is fired up and ready to roll!", &[]).marks(&[(Edge::Begins, Stage::Serving)]),
    line(SGLANG, r"Failed to get GPU memory capacity from nvidia-smi", &[]),
    line(SGLANG, r"Not enough memory\. Please try to increase --mem-fraction-static", &[])
        .fails(Check::NothingLeftForCache),
    line(SGLANG, r"Loaded weights leave no GPU memory for the KV cache under --mem-fraction-static=([0-9]+(?:\.[0-9]+)?)(?:.*?minimum viable = 1 - available/pre = ([0-9.]+))?", &[
        ratio(1, F::Fraction), ratio(2, F::FractionLeast),
    ]).fails(Check::NothingLeftForCache),
    line(SGLANG, r"The memory capacity is unbalanced\.(?:.*?pre_model_load_memory=([0-9.]+), local_gpu_memory=([0-9.]+))?", &[
        gib(1, F::FreeBaseline), gib(2, F::FreeOfRank),
    ]).fails(Check::RanksUnbalanced),
];

const ADVICE: &[AdviceRow] = &[
    advice(Cause::PageCache, Action::DropPageCache, None).versions(before(0, 5, 4)),
    advice(Cause::Others, Action::EndOthers, None),
    advice(Cause::Pinned, Action::Unpin, None),
    advice(Cause::Dirty, Action::WriteBack, None),
    advice(Cause::Compiler, Action::CompileBefore, None),
    advice(Cause::Watermark, Action::LowerWatermark, None),
    advice(Cause::Fraction, Action::RaiseFraction, Some("--mem-fraction-static")),
    advice(Cause::Graphs, Action::DisableGraphs, Some("--disable-cuda-graph")),
    advice(Cause::Context, Action::LowerContext, Some("--context-length")),
];
