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

impl Engine {
    pub const fn signal(self) -> Signal {
        match self {
            Self::TensorrtLlm => Signal::CudaMemGetInfo,
            Self::Vllm | Self::Vllm026 | Self::Sglang | Self::LlamaCpp | Self::Ollama => Signal::MemAvailable,
        }
    }

    pub const fn reads_once(self) -> bool {
        matches!(self, Self::LlamaCpp | Self::Ollama)
    }

    pub fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }
}

/// llama.cpp's --fit-target (common/common.h, fit_params_target).
const FIT_TARGET: u64 = 1 << 30;

/// What the user set.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// vLLM: of the total. SGLang: of what is available at the start. TensorRT-LLM: of what is free.
    pub fraction: f64,
    /// llama.cpp and Ollama: the cache of the whole context.
    pub context: u64,
}

/// What an engine makes of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Budget {
    /// The cache; nothing is left where it is not above 0.
    pub kv: i64,
    /// The dummy run's peak beyond what stayed.
    pub transient: u64,
}

impl Plan {
    /// Where no fraction was given, the one that makes the cache about `--kv-size`, if nothing happens on the machine.
    pub fn new(args: &EngineArgs, baseline: &Reading) -> Self {
        let wanted = args.kv_size as f64;
        let own = (args.weights + args.activations) as f64;
        let fraction = args.fraction.unwrap_or_else(|| match args.engine {
            Engine::Vllm | Engine::Vllm026 => (wanted + own) / baseline.total as f64,
            Engine::Sglang => (wanted + args.weights as f64) / baseline.free() as f64,
            Engine::TensorrtLlm => wanted / (baseline.free() as f64 - own),
            Engine::LlamaCpp | Engine::Ollama => 1.0,
        });
        Self { fraction, context: args.context_size }
    }

    /// vLLM's requested memory (vllm/v1/worker/utils.py, request_memory).
    pub fn requested(&self, baseline: &Reading) -> u64 {
        (baseline.total as f64 * self.fraction).ceil() as u64
    }

    pub fn budget(
        &self,
        engine: Engine,
        baseline: &Reading,
        after: &Reading,
        weights: u64,
        transient: u64,
    ) -> Budget {
        let signed = |bytes: u64| bytes as i64;
        let part = |bytes: i64, fraction: f64| (bytes as f64 * fraction) as i64;
        let kv = match engine {
            // vllm/v1/worker/gpu_worker.py, determine_available_memory: what went, and the peak of PyTorch's allocator.
            Engine::Vllm => {
                let consumed = signed(baseline.free()) - signed(after.free());
                signed(self.requested(baseline)) - consumed - signed(transient)
            }
            // The same up to 0.26: what others took is what is neither free nor PyTorch's.
            Engine::Vllm026 => {
                let outside = |reading: &Reading, own: u64| {
                    signed(reading.total) - signed(reading.free()) - signed(own)
                };
                let grown = outside(after, weights) - outside(baseline, 0);
                signed(self.requested(baseline)) - grown - signed(transient) - signed(weights)
            }
            // sglang/srt/mem_cache/kv_cache_configurator.py, _profile_available_bytes.
            Engine::Sglang => signed(after.free()) - part(signed(baseline.free()), 1.0 - self.fraction),
            // tensorrt_llm/_torch/pyexecutor/_util.py, KvCacheCreator.
            Engine::TensorrtLlm => {
                let outside = signed(after.total) - signed(after.free()) - signed(weights);
                let peak = signed(weights) + signed(transient) + outside;
                part(signed(after.total) - peak, self.fraction)
            }
            // common/fit.cpp: the context is cut until what is projected leaves the target.
            Engine::LlamaCpp | Engine::Ollama => {
                let room = signed(baseline.free()) - signed(FIT_TARGET) - signed(weights) - signed(transient);
                room.min(signed(self.context))
            }
        };
        Budget { kv, transient }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn reading(free: u64) -> Reading {
        Reading { at_ns: 0, device_free: free, total: 128 * GIB, available: None }
    }

    #[test]
    fn published_figures() {
        // SGLang's log of a start: 36.63 GB before the weights, 35.57 after, 0.86: K and V together 30.42.
        let gib = |value: f64| (value * GIB as f64) as u64;
        let plan = Plan { fraction: 0.86, context: 0 };
        let kv = plan.budget(Engine::Sglang, &reading(gib(36.63)), &reading(gib(35.57)), 0, 0).kv;
        assert!((kv as f64 / GIB as f64 - 30.44).abs() < 0.01, "{kv}");
        // TensorRT-LLM on a GB10: 119.70 in all; the peak is 63.52 of weights, 0.85, and 49.28 outside; 0.9 of the rest.
        let plan = Plan { fraction: 0.9, context: 0 };
        let free = 119.70 - 63.52 - 49.28;
        let after = Reading { total: gib(119.70), ..reading(gib(free)) };
        let kv = plan.budget(Engine::TensorrtLlm, &after, &after, gib(63.52), gib(0.85)).kv;
        assert!((kv as f64 / GIB as f64 - (119.70 - 113.65) * 0.9).abs() < 0.01, "{kv}");
    }

    #[test]
    fn both_of_vllm_take_off_what_others_took_meanwhile() {
        let plan = Plan { fraction: 0.5, context: 0 };
        for engine in [Engine::Vllm, Engine::Vllm026] {
            // 10 GiB of weights, 3 of others, 2 of activations at the peak.
            let budget = plan.budget(engine, &reading(100 * GIB), &reading(87 * GIB), 10 * GIB, 2 * GIB);
            assert_eq!(budget.kv, (64 - 13 - 2) * GIB as i64, "{engine:?}");
        }
    }

    #[test]
    fn a_context_that_fits_is_not_cut() {
        let plan = Plan { fraction: 1.0, context: 8 * GIB };
        let kv = |free| plan.budget(Engine::LlamaCpp, &reading(free), &reading(free), 10 * GIB, GIB).kv;
        assert_eq!((kv(100 * GIB), kv(15 * GIB)), (8 * GIB as i64, 3 * GIB as i64));
    }
}
