//! What each engine logs on the way, in its own words and units, with the figures of this run.

use std::io::{self, Write};

use anyhow::{Context as _, Result};

use super::Reading;
use super::arithmetic::{Budget, Plan};
use crate::cli::engine::Engine;
use crate::llm;

const GIB: f64 = (1_u64 << 30) as f64;
const MIB: f64 = (1_u64 << 20) as f64;
/// Of one token, by which tokens are counted in the logs.
const TOKEN: u64 = 57_344;

/// Where the line of an engine's log begins.
const fn prefix(engine: Engine) -> &'static str {
    match engine {
        Engine::Vllm => "(EngineCore pid=1) INFO 09-10 10:00:00 ",
        Engine::Vllm026 => "(EngineCore_DP0 pid=1) INFO 06-10 10:00:00 ",
        Engine::Sglang => "[2026-09-20 10:00:00] ",
        Engine::TensorrtLlm => "[11/20/2025-10:11:22] [TRT-LLM] [I] ",
        Engine::LlamaCpp => "",
        Engine::Ollama => "time=2026-09-20T10:00:00.000Z level=INFO source=sched.go:1 ",
    }
}

pub fn print(lines: &[String]) -> Result<()> {
    let mut stdout = io::stdout().lock();
    lines.iter().try_for_each(|line| writeln!(stdout, "{line}"))?;
    stdout.flush().context("cannot write to stdout: has its reader gone?")
}

fn lines(engine: Engine, texts: impl IntoIterator<Item = String>) -> Vec<String> {
    texts.into_iter().map(|text| format!("{}{text}", prefix(engine))).collect()
}

fn gib(bytes: u64) -> f64 {
    bytes as f64 / GIB
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / MIB
}

pub fn start(engine: Engine) -> Vec<String> {
    let text = match engine {
        Engine::Vllm => "[core.py:120] Initializing a V1 LLM engine (v0.29.0) with config: model='m'",
        Engine::Vllm026 => "[core.py:114] Initializing a V1 LLM engine (v0.25.1) with config: model='m'",
        Engine::Sglang => "Init torch distributed begin.",
        Engine::TensorrtLlm | Engine::LlamaCpp | Engine::Ollama => return Vec::new(),
    };
    lines(engine, [text.to_owned()])
}

pub fn baseline(engine: Engine, reading: &Reading) -> Vec<String> {
    let free = reading.free();
    let text = match engine {
        Engine::Sglang => format!("Load weight begin. avail mem={:.2} GB", gib(free)),
        Engine::LlamaCpp => format!(
            "llama_prepare_model_devices: using device CUDA0 (simulated (no GPU)) (0000:00:00.0) - {} MiB free",
            free >> 20
        ),
        Engine::Ollama => format!(
            "msg=\"inference compute\" id=0 library=CUDA compute=12.1 name=CUDA0 type=iGPU total=\"{:.1} GiB\" \
             available=\"{:.1} GiB\"",
            gib(reading.total),
            gib(free)
        ),
        Engine::Vllm | Engine::Vllm026 | Engine::TensorrtLlm => return Vec::new(),
    };
    lines(engine, [text])
}

/// The check before anything is loaded, where it fails.
pub fn refused(engine: Engine, reading: &Reading, plan: &Plan) -> Option<String> {
    let requested = plan.requested(reading);
    let checked = matches!(engine, Engine::Vllm | Engine::Vllm026);
    (checked && reading.free() < requested).then(|| {
        format!(
            "ValueError: Free memory on device cuda:0 ({:.2}/{:.2} GiB) on startup is less than desired GPU memory \
             utilization ({}, {:.2} GiB). Decrease GPU memory utilization or reduce GPU memory used by other processes.",
            gib(reading.free()),
            gib(reading.total),
            plan.fraction,
            gib(requested)
        )
    })
}

pub fn weights(engine: Engine, weights: u64) -> Vec<String> {
    let text = match engine {
        Engine::Vllm | Engine::Vllm026 => {
            format!(
                "[gpu_model_runner.py:4880] Model loading took {:.2} GiB memory and 0.100000 seconds",
                gib(weights)
            )
        }
        Engine::LlamaCpp | Engine::Ollama => {
            let line = format!("load_tensors:        CUDA0 model buffer size = {:8.2} MiB", mib(weights));
            // Ollama passes llama.cpp's lines on as they are.
            return vec![line];
        }
        Engine::Sglang | Engine::TensorrtLlm => return Vec::new(),
    };
    lines(engine, [text])
}

pub fn profiled(
    engine: Engine,
    plan: &Plan,
    baseline: &Reading,
    after: &Reading,
    budget: &Budget,
    weights: u64,
) -> Vec<String> {
    match engine {
        Engine::Vllm | Engine::Vllm026 => lines(
            engine,
            [format!("[gpu_worker.py:441] Available KV cache memory: {:.2} GiB", budget.kv as f64 / GIB)],
        ),
        Engine::Sglang => lines(
            engine,
            [format!(
                "Load weight end. elapsed=0.10 s, type=M, avail mem={:.2} GB, mem usage={:.2} GB.",
                gib(after.free()),
                (baseline.free() as f64 - after.free() as f64) / GIB
            )],
        ),
        Engine::TensorrtLlm => {
            let profile = llm::kv::Profile {
                free: after.free(),
                total: after.total,
                allocated: weights,
                allocated_peak: weights + budget.transient,
                temporary_kv: 0,
            };
            let own = profile.budget(plan.fraction);
            lines(engine, llm::lines::profiled(&profile, &own, plan.fraction, TOKEN, weights))
        }
        Engine::LlamaCpp | Engine::Ollama => {
            let projected = weights + plan.context + budget.transient;
            vec![format!(
                "common_fit_params: projected to use {} MiB of device memory vs. {} MiB of free device memory",
                projected >> 20,
                baseline.free() >> 20
            )]
        }
    }
}

pub const fn nothing_left(engine: Engine) -> &'static str {
    match engine {
        Engine::Vllm | Engine::Vllm026 => {
            "ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization` when \
             initializing the engine."
        }
        Engine::Sglang => "RuntimeError: Not enough memory. Please try to increase --mem-fraction-static.",
        Engine::TensorrtLlm | Engine::LlamaCpp | Engine::Ollama => {
            "failed to fit params to free device memory"
        }
    }
}

pub fn allocated(
    engine: Engine,
    plan: &Plan,
    baseline: &Reading,
    after: &Reading,
    cache: u64,
    budget: &Budget,
) -> Vec<String> {
    let tokens = cache / TOKEN;
    let texts = match engine {
        Engine::Vllm => vec![
            format!(
                "[kv_cache_utils.py:1870] GPU KV cache size: {tokens} tokens, Maximum concurrency for 2,048 tokens per request: 1.00x"
            ),
            format!(
                "[gpu_worker.py:1062] Free memory on device ({:.2}/{:.2} GiB) on startup. Desired GPU memory utilization is ({}, {:.2} GiB). \
                 Actual usage is {:.2} GiB for consumed memory (weights + non-torch), {:.2} GiB for peak activation, and 0.0 GiB for \
                 CUDAGraph memory. Current kv cache memory in use is {:.2} GiB.",
                gib(baseline.free()),
                gib(baseline.total),
                plan.fraction,
                gib(plan.requested(baseline)),
                (baseline.free() as f64 - after.free() as f64) / GIB,
                gib(budget.transient),
                gib(cache)
            ),
        ],
        Engine::Vllm026 => vec![format!("[kv_cache_utils.py:1708] GPU KV cache size: {tokens} tokens")],
        Engine::Sglang => vec![
            format!(
                "KV Cache is allocated. dtype: torch.bfloat16, #tokens: {tokens}, K size: {0:.2} GB, V size: {0:.2} GB",
                gib(cache / 2)
            ),
            format!(
                "server_args=ServerArgs(model_path='m', mem_fraction_static={}, tp_size=1)",
                plan.fraction
            ),
        ],
        Engine::TensorrtLlm => vec![llm::lines::allocated(cache, tokens)],
        Engine::LlamaCpp | Engine::Ollama => {
            return vec![
                format!("llama_kv_cache:      CUDA0 KV buffer size = {:8.2} MiB", mib(cache)),
                format!("sched_reserve:      CUDA0 compute buffer size = {:8.2} MiB", mib(budget.transient)),
            ];
        }
    };
    lines(engine, texts)
}
