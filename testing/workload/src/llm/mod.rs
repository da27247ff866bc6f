//! `llm`: what inference with a language model does to memory.

pub mod kv;
pub mod lines;
mod model;
mod run;
mod weights;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use serde_json::json;

use crate::cli::cuda::LlmArgs;
use crate::cuda::driver::{Driver, mem_get_info};
use crate::cuda::gemm::Gemm;
use crate::cuda::memory::device_source;
use crate::cuda::phases::Phases;
use crate::files;
use crate::output::SourceRecord;
use crate::sys;
use kv::Profile;
use lines::{Timing, percentile};
use model::Shape;
use run::{Activations, Allocated, Cache, MAX_ROWS, Model, Weights};

const NOW: Duration = Duration::ZERO;

pub fn run(args: &LlmArgs) -> Result<ExitCode> {
    let shape = Shape::of(args.weights_size)?;
    let driver = Driver::load(&args.driver)?;
    let mut course = Phases::new(&args.output, &driver)?;
    lines::print(&format!("driver {}, device {}", driver.info.driver, driver.info.device))?;
    let path = args.model_dir.join("model.safetensors");
    let (placed, written) = course.phase("prepare", NOW, |_| {
        let (placed, written) = weights::ensure(&path, &shape)?;
        if args.cold && !written {
            files::drop_path(&path)?;
        }
        Ok((placed, written))
    })?;
    course.start(NOW)?;
    let (context, gemm) = course.phase("context", NOW, |course| {
        let context = driver.context()?;
        course.context_begins();
        Ok((context, Gemm::load()?))
    })?;

    let mut allocated = Allocated::default();
    let (mapped, weights) = course.phase("load", NOW, |course| {
        let mapped = weights::Mapped::open(&path, course.machine)?;
        let weights = Weights::load(shape, &placed, &mapped, &mut allocated)?;
        Ok((mapped, weights))
    })?;
    let after_loading = allocated.current;
    let (free, total) = free_and_total()?;
    for line in lines::loaded(after_loading, (total - free.min(total)).saturating_sub(after_loading)) {
        lines::print(&line)?;
    }

    let (batch, prompt, output) =
        (u64::from(args.batch), u64::from(args.prompt), u64::from(args.output_length));
    let rows = (batch * prompt).min(MAX_ROWS);
    let per_token = shape.kv_bytes_per_token();
    let (activations, profile) = course.phase("profile", NOW, |_| {
        let activations = Activations::new(&shape, rows, &mut allocated)?;
        let temporary = Cache::new(&shape, rows.next_multiple_of(kv::BLOCK), &mut allocated)?;
        let temporary_kv = temporary.bytes();
        // The longest step that there will be, and one of the others.
        let model = Model { gemm: &gemm, weights: &weights, activations: &activations, cache: &temporary };
        model.answer(1, rows, 1)?;
        let (free, total) = free_and_total()?;
        let Allocated { current, peak } = allocated;
        temporary.free(&mut allocated)?;
        let profile = Profile { free, total, allocated: current, allocated_peak: peak, temporary_kv };
        Ok((activations, profile))
    })?;
    let budget = profile.budget(args.fraction);
    for line in lines::profiled(&profile, &budget, args.fraction, per_token, after_loading) {
        lines::print(&line)?;
    }

    let wanted = budget.available.min(args.kv_limit.unwrap_or(u64::MAX));
    let tokens = kv::tokens(wanted, per_token);
    if tokens == 0 {
        bail!(
            "{wanted} bytes of KV cache hold no block of {} tokens of {per_token} bytes each ({} bytes were available)",
            kv::BLOCK,
            budget.available
        );
    }
    let cache = course.phase("kv-cache", NOW, |_| Cache::new(&shape, tokens, &mut allocated))?;
    lines::print(&lines::allocated(cache.bytes(), tokens))?;
    let source = device_source(&driver);
    course.sources.extend([
        SourceRecord::new(source, "weights", after_loading, json!({ "tensors": placed.len() })),
        SourceRecord::new(
            source,
            "activations",
            rows * 5 * shape.hidden * model::ELEMENT,
            json!({ "rows": rows }),
        ),
        SourceRecord::new(source, "kv-cache", cache.bytes(), json!({ "tokens": tokens })),
        SourceRecord::new(
            "file-clean",
            "weights-file",
            std::fs::metadata(&path)?.len(),
            json!({ "written": written }),
        )
        .of_file(&path)
        .at(mapped.address()),
    ]);

    let model = Model { gemm: &gemm, weights: &weights, activations: &activations, cache: &cache };
    course.phase("warm-up", NOW, |_| {
        (0..args.warmup).try_for_each(|_| model.answer(batch, prompt, output).map(drop))
    })?;
    let latencies = course.phase("iterate", NOW, |_| {
        let mut latencies = Vec::new();
        for _ in 0..args.iterations {
            let begin = Instant::now();
            // One that was cut short was not answered.
            if sys::stop_signal().is_some() || !model.answer(batch, prompt, output)? {
                break;
            }
            latencies.push(begin.elapsed());
        }
        Ok(latencies)
    })?;
    let timing = Timing { batch, prompt, output, latencies };
    timing.lines().iter().try_for_each(|line| lines::print(line))?;
    course.hold(args.hold)?;
    course.phase("release", NOW, |_| {
        cache.free(&mut allocated)?;
        activations.free(&mut allocated)?;
        weights.free(&mut allocated)?;
        drop(mapped);
        Ok(())
    })?;
    course.context_ends();
    context.end()?;

    let sorted = timing.sorted_ms();
    course.report(json!({ "llm": {
        "shape": { "hidden": shape.hidden, "layers": shape.layers, "embedding_rows": shape.embedding_rows },
        "profile": {
            "free": profile.free,
            "total": profile.total,
            "allocated": profile.allocated,
            "allocated_peak": profile.allocated_peak,
            "temporary_kv": profile.temporary_kv,
            "fraction": args.fraction,
            "outside": budget.outside,
            "peak": budget.peak,
            "kv_available": budget.available,
        },
        "kv": { "bytes_per_token": per_token, "tokens": tokens, "limit": args.kv_limit },
        "allocated_peak": allocated.peak,
        "batch": batch,
        "prompt": prompt,
        "output_length": output,
        "iterations": timing.latencies.len(),
        "output_tokens_per_second": timing.output_tokens_per_second(),
        "latency_ms": {
            "p50": percentile(&sorted, 0.50),
            "p95": percentile(&sorted, 0.95),
            "p99": percentile(&sorted, 0.99),
        },
    }}))
}

fn free_and_total() -> Result<(u64, u64)> {
    let (free, total) = mem_get_info()?;
    Ok((free as u64, total as u64))
}
