//! What each engine makes of what it reads. Written from the engines' own sources, named at each; spark-trace computes
//! the same from a trace, by code of its own.

use clap::ValueEnum;

use super::Reading;
use crate::cli::engine::{Engine, EngineArgs};

/// What the engine takes for the free memory of a GPU that shares the machine's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    CudaMemGetInfo,
    MemAvailable,
}

/// Engines that compute alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    Vllm,
    /// vLLM up to 0.26: the parts are summed up.
    VllmParts,
    Sglang,
    /// The cache is sized once more after the capture of graphs.
    SglangPostCapture,
    TensorrtLlm,
    TensorrtLlmCpp,
    LlamaCpp,
    Ollama,
}

/// What is an engine's own.
struct Kind {
    engine: Engine,
    family: Family,
    signal: Signal,
    /// As its log has it.
    version: Option<&'static str>,
}

#[rustfmt::skip]
const KINDS: &[Kind] = &[
    Kind { engine: Engine::Vllm, family: Family::Vllm, signal: Signal::MemAvailable, version: Some("0.29.0") },
    Kind { engine: Engine::Vllm026, family: Family::VllmParts, signal: Signal::MemAvailable, version: Some("0.25.1") },
    Kind { engine: Engine::Vllm0110, family: Family::VllmParts, signal: Signal::CudaMemGetInfo, version: Some("0.11.0") },
    Kind { engine: Engine::Sglang, family: Family::Sglang, signal: Signal::MemAvailable, version: None },
    Kind { engine: Engine::SglangPostCapture, family: Family::SglangPostCapture, signal: Signal::MemAvailable, version: None },
    Kind { engine: Engine::TensorrtLlm, family: Family::TensorrtLlm, signal: Signal::CudaMemGetInfo, version: None },
    Kind { engine: Engine::TensorrtLlmCpp, family: Family::TensorrtLlmCpp, signal: Signal::CudaMemGetInfo, version: Some("0.20.0") },
    Kind { engine: Engine::LlamaCpp, family: Family::LlamaCpp, signal: Signal::MemAvailable, version: None },
    Kind { engine: Engine::Ollama, family: Family::Ollama, signal: Signal::MemAvailable, version: None },
];

impl Engine {
    /// Every engine has a row: a test sees to it.
    fn kind(self) -> &'static Kind {
        KINDS.iter().find(|kind| kind.engine == self).unwrap_or(&KINDS[0])
    }

    pub fn family(self) -> Family {
        self.kind().family
    }

    pub fn signal(self) -> Signal {
        self.kind().signal
    }

    pub fn version(self) -> Option<&'static str> {
        self.kind().version
    }

    /// It reads what is free before its weights, and not again.
    pub fn reads_once(self) -> bool {
        matches!(self.family(), Family::LlamaCpp | Family::Ollama)
    }

    pub fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }
}

/// Of llama.cpp's context: bytes of a cell, the cells by which it is cut, and the fewest (common/fit.cpp,
/// common_params_fit_impl; common/common.h, fit_params_min_ctx).
pub const CELL: u64 = 16 << 10;
const CELLS: i64 = 256;
const LEAST_CELLS: i64 = 4096;

/// What the user set.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// vLLM: of the total. SGLang: of what is available at the start. TensorRT-LLM: of what is free.
    pub fraction: f64,
    /// llama.cpp and Ollama: the cache of the whole context, and what is left free.
    pub context: u64,
    pub margin: u64,
    pub layers: u32,
}

/// What the engine itself has taken, and what it makes of its graphs.
#[derive(Debug, Clone, Copy, Default)]
pub struct Own {
    pub weights: u64,
    /// The dummy run's peak beyond what stayed.
    pub transient: u64,
    /// vLLM's estimate, and whether it is taken off the cache.
    pub graphs_estimated: Option<i64>,
    pub graphs_counted: bool,
    /// Of a cache that is addresses first: what is there of it, and the range.
    pub range: Option<(u64, u64)>,
}

/// What an engine makes of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Budget {
    /// The cache; nothing is left where it is not above 0.
    pub kv: i64,
    /// The dummy run's peak beyond what stayed.
    pub transient: u64,
    /// Layers that went to the host's memory.
    pub host_layers: u32,
}

impl Plan {
    /// Where no fraction was given, the one that makes the cache about `--kv-size`, if nothing happens on the machine.
    pub fn new(args: &EngineArgs, baseline: &Reading) -> Self {
        let wanted = args.kv_size as f64;
        let own = (args.weights + args.activations) as f64;
        let fraction = args.fraction.unwrap_or_else(|| match args.engine.family() {
            Family::Vllm | Family::VllmParts => (wanted + own) / baseline.total as f64,
            Family::Sglang | Family::SglangPostCapture => {
                (wanted + (args.weights + args.graphs.unwrap_or(0)) as f64) / baseline.free() as f64
            }
            Family::TensorrtLlm | Family::TensorrtLlmCpp => wanted / (baseline.free() as f64 - own),
            Family::LlamaCpp | Family::Ollama => 1.0,
        });
        Self { fraction, context: args.context_size, margin: args.fit_target << 20, layers: args.layers }
    }

    /// vLLM's requested memory (vllm/v1/worker/utils.py, request_memory).
    pub fn requested(&self, baseline: &Reading) -> u64 {
        (baseline.total as f64 * self.fraction).ceil() as u64
    }

    pub fn budget(&self, engine: Engine, baseline: &Reading, after: &Reading, own: &Own) -> Budget {
        let Own { weights, transient, .. } = *own;
        // vllm/v1/worker/gpu_worker.py: the estimate may be below zero, and is taken off as it is.
        let graphs = own.graphs_estimated.filter(|_| own.graphs_counted).unwrap_or(0);
        let signed = |bytes: u64| bytes as i64;
        let part = |bytes: i64, fraction: f64| (bytes as f64 * fraction) as i64;
        let mut host_layers = 0;
        let kv = match engine.family() {
            // vllm/v1/worker/gpu_worker.py, determine_available_memory: what went, and the peak of PyTorch's allocator.
            Family::Vllm => {
                let consumed = signed(baseline.free()) - signed(after.free());
                signed(self.requested(baseline)) - consumed - signed(transient) - graphs
            }
            // The same up to 0.26: what others took is what is neither free nor PyTorch's.
            Family::VllmParts => {
                let outside = |reading: &Reading, own: u64| {
                    signed(reading.total) - signed(reading.free()) - signed(own)
                };
                let grown = outside(after, weights) - outside(baseline, 0);
                signed(self.requested(baseline)) - grown - signed(transient) - signed(weights) - graphs
            }
            // sglang/srt/mem_cache/kv_cache_configurator.py, _profile_available_bytes.
            Family::Sglang => signed(after.free()) - part(signed(baseline.free()), 1.0 - self.fraction),
            // The first time the same; then sglang/srt/model_executor/model_runner_components/kv_pool_runtime.py,
            // compute_post_capture_kv_resize.
            Family::SglangPostCapture => {
                let left = signed(after.free()) - part(signed(baseline.free()), 1.0 - self.fraction);
                own.range.map_or(left, |(backed, upper)| (left.max(0) + signed(backed)).min(signed(upper)))
            }
            // tensorrt_llm/_torch/pyexecutor/_util.py, KvCacheCreator.
            Family::TensorrtLlm => {
                let outside = signed(after.total) - signed(after.free()) - signed(weights);
                let peak = signed(weights) + signed(transient) + outside;
                part(signed(after.total) - peak, self.fraction)
            }
            // cpp/tensorrt_llm/batch_manager/kvCacheManager.cpp: of what is free, whoever has the rest.
            Family::TensorrtLlmCpp => part(signed(after.free()), self.fraction),
            // common/fit.cpp: a context that nobody stated is cut until what is projected leaves the target.
            Family::LlamaCpp => {
                let room =
                    signed(baseline.free()) - signed(self.margin) - signed(weights) - signed(transient);
                let cells = room / signed(CELL);
                match room {
                    room if room >= signed(self.context) => signed(self.context),
                    _ if cells < LEAST_CELLS => -1,
                    _ => (cells - cells % CELLS) * signed(CELL),
                }
            }
            // A stated context stays as it is (`-c` of llm/llama_server.go): layers go to the host until the rest fits.
            Family::Ollama => {
                let all = i64::from(self.layers);
                let layer = (signed(weights) + signed(self.context)) / all;
                let room = signed(baseline.free()) - signed(self.margin) - signed(transient);
                let there = (room / layer.max(1)).clamp(0, all);
                host_layers = u32::try_from(all - there).unwrap_or(0);
                signed(self.context) / all * there
            }
        };
        Budget { kv, transient, host_layers }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn reading(free: u64) -> Reading {
        Reading { at_ns: 0, device_free: free, total: 128 * GIB, available: None }
    }

    fn own(weights: u64, transient: u64) -> Own {
        Own { weights, transient, ..Own::default() }
    }

    fn with_fraction(fraction: f64) -> Plan {
        Plan { fraction, context: 8 * GIB, margin: GIB, layers: 8 }
    }

    #[test]
    fn every_engine_has_a_row() {
        for engine in Engine::value_variants() {
            assert_eq!(engine.kind().engine, *engine);
        }
    }

    #[test]
    fn published_figures() {
        // SGLang's log of a start: 36.63 GB before the weights, 35.57 after, 0.86: K and V together 30.42.
        let gib = |value: f64| (value * GIB as f64) as u64;
        let plan = with_fraction(0.86);
        let kv = plan.budget(Engine::Sglang, &reading(gib(36.63)), &reading(gib(35.57)), &Own::default()).kv;
        assert!((kv as f64 / GIB as f64 - 30.44).abs() < 0.01, "{kv}");
        // TensorRT-LLM on a GB10: 119.70 in all; the peak is 63.52 of weights, 0.85, and 49.28 outside; 0.9 of the rest.
        let plan = with_fraction(0.9);
        let free = 119.70 - 63.52 - 49.28;
        let after = Reading { total: gib(119.70), ..reading(gib(free)) };
        let kv = plan.budget(Engine::TensorrtLlm, &after, &after, &own(gib(63.52), gib(0.85))).kv;
        assert!((kv as f64 / GIB as f64 - (119.70 - 113.65) * 0.9).abs() < 0.01, "{kv}");
    }

    #[test]
    fn both_of_vllm_take_off_what_others_took_meanwhile() {
        let plan = with_fraction(0.5);
        for engine in [Engine::Vllm, Engine::Vllm026] {
            // 10 GiB of weights, 3 of others, 2 of activations at the peak.
            let budget =
                plan.budget(engine, &reading(100 * GIB), &reading(87 * GIB), &own(10 * GIB, 2 * GIB));
            assert_eq!(budget.kv, (64 - 13 - 2) * GIB as i64, "{engine:?}");
        }
    }

    #[test]
    fn an_estimate_for_graphs_is_taken_off_where_it_counts() {
        let plan = with_fraction(0.5);
        let kv = |estimate: i64, counted| {
            let own =
                Own { graphs_estimated: Some(estimate), graphs_counted: counted, ..own(10 * GIB, 2 * GIB) };
            plan.budget(Engine::Vllm026, &reading(100 * GIB), &reading(90 * GIB), &own).kv
        };
        let gib = GIB as i64;
        assert_eq!([kv(gib, true), kv(-gib, true), kv(gib, false)], [51 * gib, 53 * gib, 52 * gib]);
    }

    #[test]
    fn what_is_sized_after_the_capture_fits_its_range() {
        let plan = with_fraction(0.5);
        let kv = |after: u64| {
            let own = Own { range: Some((GIB, 40 * GIB)), ..own(10 * GIB, 0) };
            plan.budget(Engine::SglangPostCapture, &reading(100 * GIB), &reading(after), &own).kv / GIB as i64
        };
        assert_eq!([kv(85 * GIB), kv(99 * GIB)], [36, 40]);
    }

    #[test]
    fn a_context_that_fits_is_not_cut() {
        let plan = with_fraction(1.0);
        let kv = |free| plan.budget(Engine::LlamaCpp, &reading(free), &reading(free), &own(10 * GIB, GIB)).kv;
        assert_eq!((kv(100 * GIB), kv(15 * GIB)), (8 * GIB as i64, 3 * GIB as i64));
        assert_eq!(kv(15 * GIB + 3 * (1 << 20)), 3 * GIB as i64, "256 cells are 4 MiB");
        assert!(kv(12 * GIB) <= 0, "not even the least context");
    }

    #[test]
    fn a_context_that_is_stated_is_not_cut_and_layers_are() {
        let plan = with_fraction(1.0);
        let budget = |free| plan.budget(Engine::Ollama, &reading(free), &reading(free), &own(8 * GIB, GIB));
        assert_eq!((budget(18 * GIB).kv, budget(18 * GIB).host_layers), (8 * GIB as i64, 0));
        assert_eq!((budget(17 * GIB).kv, budget(17 * GIB).host_layers), (7 * GIB as i64, 1));
    }
}
