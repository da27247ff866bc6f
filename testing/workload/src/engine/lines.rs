//! What each engine logs on the way, in its own words and units, with the figures of this run.

use std::ffi::CStr;
use std::io::{self, Write};

use anyhow::{Context as _, Result};

use super::Reading;
use super::arithmetic::{Budget, CELL, Family, Own, Plan};
use crate::cli::engine::Engine;
use crate::llm;

const GIB: f64 = (1_u64 << 30) as f64;
const MIB: f64 = (1_u64 << 20) as f64;
/// Of one token, by which tokens are counted in the logs.
const TOKEN: u64 = 57_344;

/// Where the line of an engine's log begins: the time as strftime(3) writes it.
const fn prefix(family: Family) -> &'static CStr {
    match family {
        Family::Vllm => c"(EngineCore pid=1) INFO %m-%d %H:%M:%S ",
        Family::VllmParts => c"(EngineCore_DP0 pid=1) INFO %m-%d %H:%M:%S ",
        Family::Sglang | Family::SglangPostCapture => c"[%Y-%m-%d %H:%M:%S] ",
        Family::TensorrtLlm => c"[%m/%d/%Y-%H:%M:%S] [TRT-LLM] [I] ",
        Family::TensorrtLlmCpp => c"[TensorRT-LLM][INFO] ",
        Family::LlamaCpp => c"",
        Family::Ollama => c"time=%Y-%m-%dT%H:%M:%S.000Z level=INFO source=sched.go:1 ",
    }
}

/// The time now, in UTC.
fn stamp(format: &CStr) -> String {
    let mut text = [0_u8; 96];
    // SAFETY: time(2) takes no address here; `parts` is all zero or what gmtime_r wrote; strftime writes as much as there is
    // room for.
    let written = unsafe {
        let now = libc::time(std::ptr::null_mut());
        let mut parts: libc::tm = std::mem::zeroed();
        libc::gmtime_r(&now, &mut parts);
        libc::strftime(text.as_mut_ptr().cast(), text.len(), format.as_ptr(), &parts)
    };
    String::from_utf8_lossy(text.get(..written).unwrap_or_default()).into_owned()
}

pub fn print(lines: &[String]) -> Result<()> {
    let mut stdout = io::stdout().lock();
    lines.iter().try_for_each(|line| writeln!(stdout, "{line}"))?;
    stdout.flush().context("cannot write to stdout: has its reader gone?")
}

fn lines(engine: Engine, texts: impl IntoIterator<Item = String>) -> Vec<String> {
    let prefix = stamp(prefix(engine.family()));
    texts.into_iter().map(|text| format!("{prefix}{text}")).collect()
}

fn gib(bytes: u64) -> f64 {
    bytes as f64 / GIB
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / MIB
}

pub fn start(engine: Engine) -> Vec<String> {
    let version = engine.version().unwrap_or_default();
    let text = match engine.family() {
        Family::Vllm | Family::VllmParts => {
            format!("[core.py:120] Initializing a V1 LLM engine (v{version}) with config: model='m'")
        }
        Family::Sglang | Family::SglangPostCapture => "Init torch distributed begin.".to_owned(),
        Family::TensorrtLlmCpp => format!("TensorRT-LLM version: {version}"),
        Family::TensorrtLlm | Family::LlamaCpp | Family::Ollama => return Vec::new(),
    };
    lines(engine, [text])
}

pub fn baseline(engine: Engine, reading: &Reading) -> Vec<String> {
    let free = reading.free();
    let text = match engine.family() {
        Family::Sglang | Family::SglangPostCapture => {
            format!("Load weight begin. avail mem={:.2} GB", gib(free))
        }
        Family::LlamaCpp => format!(
            "llama_prepare_model_devices: using device CUDA0 (simulated (no GPU)) (0000:00:00.0) - {} MiB free",
            free >> 20
        ),
        Family::Ollama => format!(
            "msg=\"inference compute\" id=0 library=CUDA compute=12.1 name=CUDA0 type=iGPU total=\"{:.1} GiB\" \
             available=\"{:.1} GiB\"",
            gib(reading.total),
            gib(free)
        ),
        Family::Vllm | Family::VllmParts | Family::TensorrtLlm | Family::TensorrtLlmCpp => return Vec::new(),
    };
    lines(engine, [text])
}

/// The check before anything is loaded, where it fails.
pub fn refused(engine: Engine, reading: &Reading, plan: &Plan) -> Option<String> {
    let requested = plan.requested(reading);
    let checked = matches!(engine.family(), Family::Vllm | Family::VllmParts);
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
    let text = match engine.family() {
        Family::Vllm | Family::VllmParts => {
            format!(
                "[gpu_model_runner.py:4880] Model loading took {:.2} GiB memory and 0.100000 seconds",
                gib(weights)
            )
        }
        Family::LlamaCpp | Family::Ollama => {
            let line = format!("load_tensors:        CUDA0 model buffer size = {:8.2} MiB", mib(weights));
            // Ollama passes llama.cpp's lines on as they are.
            return vec![line];
        }
        Family::TensorrtLlmCpp => format!("Loaded engine size: {} MiB", weights >> 20),
        Family::Sglang | Family::SglangPostCapture | Family::TensorrtLlm => return Vec::new(),
    };
    lines(engine, [text])
}

fn loaded(baseline: &Reading, after: &Reading) -> String {
    format!(
        "Load weight end. elapsed=0.10 s, type=M, avail mem={:.2} GB, mem usage={:.2} GB.",
        gib(after.free()),
        (baseline.free() as f64 - after.free() as f64) / GIB
    )
}

/// Where the cache is addresses before it is memory.
pub fn planned(engine: Engine, baseline: &Reading, planned: &Reading, upper: u64) -> Vec<String> {
    let texts = [
        loaded(baseline, planned),
        format!(
            "KV Cache VA upper bound. dtype: torch.bfloat16, #tokens: {}, K size: {1:.2} GB, V size: {1:.2} GB",
            upper / TOKEN,
            gib(upper / 2)
        ),
        format!(
            "Capture target decode CUDA graph begin. backend=full, num_tokens_per_req=1, avail mem={:.2} GB",
            gib(planned.free())
        ),
    ];
    lines(engine, texts)
}

pub fn profiled(
    engine: Engine,
    plan: &Plan,
    baseline: &Reading,
    after: &Reading,
    budget: &Budget,
    own: &Own,
) -> Vec<String> {
    let weights = own.weights;
    match engine.family() {
        Family::Vllm | Family::VllmParts => {
            let kv =
                format!("[gpu_worker.py:441] Available KV cache memory: {:.2} GiB", budget.kv as f64 / GIB);
            let [estimate, counted] = graphs(own);
            lines(engine, estimate.into_iter().chain([kv]).chain(counted))
        }
        Family::Sglang => lines(engine, [loaded(baseline, after)]),
        Family::SglangPostCapture => lines(
            engine,
            [format!(
                "Capture target decode CUDA graph end. bs=[1, 2], elapsed=0.10 s, mem usage=0.00 GB, avail mem={:.2} GB.",
                gib(after.free())
            )],
        ),
        Family::TensorrtLlm => {
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
        Family::TensorrtLlmCpp => lines(
            engine,
            [format!(
                "Memory usage when calculating max tokens in paged kv cache: total: {:.2} GiB, available: {:.2} GiB",
                gib(after.total),
                gib(after.free())
            )],
        ),
        Family::LlamaCpp | Family::Ollama => fitted(plan, baseline, budget, weights),
    }
}

/// vllm/v1/worker/gpu_model_runner.py (profile_cudagraph_memory) and gpu_worker.py, which says nothing of an estimate that is not
/// above zero.
fn graphs(own: &Own) -> [Option<String>; 2] {
    let Some(bytes) = own.graphs_estimated else { return [None, None] };
    let estimate = format!(
        "[gpu_model_runner.py:6042] Estimated CUDA graph memory: {:.2} GiB total",
        bytes as f64 / GIB
    );
    let counted = if own.graphs_counted {
        "enabled (default since v0.21.0)."
    } else {
        "disabled (VLLM_MEMORY_PROFILER_ESTIMATE_CUDAGRAPHS=0). Without it, CUDA graph memory is not accounted for during KV cache \
         allocation."
    };
    let counted =
        (bytes > 0).then(|| format!("[gpu_worker.py:481] CUDA graph memory profiling is {counted}"));
    [Some(estimate), counted]
}

/// Of common/fit.cpp, for one device.
fn fitted(plan: &Plan, baseline: &Reading, budget: &Budget, weights: u64) -> Vec<String> {
    let projected = weights + plan.context + budget.transient;
    let mut lines = vec![format!(
        "common_params_fit_impl: projected to use {} MiB of device memory vs. {} MiB of free device memory",
        projected >> 20,
        baseline.free() >> 20
    )];
    let cells = plan.context / CELL;
    match budget.kv.unsigned_abs() / CELL {
        fitting if budget.host_layers == 0 && fitting < cells => lines.push(format!(
            "common_params_fit_impl: context size reduced from {cells} to {fitting} -> need {} MiB less memory in total",
            ((cells - fitting) * CELL) >> 20
        )),
        _ if budget.host_layers > 0 => {
            lines.push(format!("common_params_fit_impl: context size set by user to {cells} -> no change"));
        }
        _ => {}
    }
    lines
}

pub fn nothing_left(engine: Engine) -> &'static str {
    match engine.family() {
        Family::Vllm | Family::VllmParts => {
            "ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization` when \
             initializing the engine."
        }
        Family::Sglang | Family::SglangPostCapture => {
            "RuntimeError: Not enough memory. Please try to increase --mem-fraction-static."
        }
        Family::TensorrtLlm | Family::TensorrtLlmCpp | Family::LlamaCpp | Family::Ollama => {
            "failed to fit params to free device memory"
        }
    }
}

fn arguments(plan: &Plan) -> String {
    format!("server_args=ServerArgs(model_path='m', mem_fraction_static={}, tp_size=1)", plan.fraction)
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
    let texts = match engine.family() {
        Family::Vllm => vec![
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
        Family::VllmParts => vec![format!("[kv_cache_utils.py:1708] GPU KV cache size: {tokens} tokens")],
        Family::Sglang => vec![
            format!(
                "KV Cache is allocated. dtype: torch.bfloat16, #tokens: {tokens}, K size: {0:.2} GB, V size: {0:.2} GB",
                gib(cache / 2)
            ),
            arguments(plan),
        ],
        Family::SglangPostCapture => vec![
            format!("Post-capture KV sizing: full_layer_tokens={tokens}, swa_layer_tokens=0"),
            format!(
                "Post-capture KV sizing: KV cache allocated. dtype: torch.bfloat16, #tokens: {tokens}, KV size: {:.2} GB, \
                 avail mem={:.2} GB",
                gib(cache),
                gib(after.free())
            ),
            arguments(plan),
        ],
        Family::TensorrtLlm | Family::TensorrtLlmCpp => vec![llm::lines::allocated(cache, tokens)],
        Family::LlamaCpp | Family::Ollama => {
            let on_host = plan.context / u64::from(plan.layers.max(1)) * u64::from(budget.host_layers);
            let all = plan.layers;
            let mut lines = vec![
                format!("load_tensors: offloaded {}/{all} layers to GPU", all - budget.host_layers),
                format!("llama_kv_cache:      CUDA0 KV buffer size = {:8.2} MiB", mib(cache)),
                format!("sched_reserve:      CUDA0 compute buffer size = {:8.2} MiB", mib(budget.transient)),
            ];
            if on_host > 0 {
                lines.push(format!("llama_kv_cache:        CPU KV buffer size = {:8.2} MiB", mib(on_host)));
            }
            return lines;
        }
    };
    lines(engine, texts)
}
