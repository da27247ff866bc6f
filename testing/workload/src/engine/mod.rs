//! `engine`: how an inference engine sizes its KV cache, in real calls: readings of free memory, weights, a dummy run's
//! peak, a cache of equal allocations. The arithmetic and the words of the log are the engine's, the figures our own.

pub mod arithmetic;
mod compiler;
mod graphs;
mod lines;
mod range;

use std::fs;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde::Serialize;
use serde_json::json;

use crate::alloc::wait_for;
use crate::cli::engine::EngineArgs;
use crate::cuda::driver::{Buffer, Driver, call, mem_get_info};
use crate::cuda::memory::device_source;
use crate::cuda::phases::Phases;
use crate::output::SourceRecord;
use crate::sys;
use arithmetic::{Family, Own, Plan, Signal};
use range::Ranges;

const NOW: Duration = Duration::ZERO;

/// What the engine read at one moment.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Reading {
    /// CLOCK_MONOTONIC when it was complete.
    pub at_ns: u64,
    /// Of cuMemGetInfo.
    pub device_free: u64,
    pub total: u64,
    /// MemAvailable, where the engine takes that.
    pub available: Option<u64>,
}

impl Reading {
    /// What the engine takes for the free memory.
    pub fn free(&self) -> u64 {
        self.available.unwrap_or(self.device_free)
    }

    /// cuMemGetInfo first, for the total; on a GPU that shares the machine's memory then /proc/meminfo, in this thread.
    #[inline(never)]
    fn take(signal: Signal) -> Result<Self> {
        let (free, total) = mem_get_info()?;
        let available = match signal {
            Signal::CudaMemGetInfo => None,
            Signal::MemAvailable => Some(mem_available()?),
        };
        Ok(Self { at_ns: sys::monotonic_ns(), device_free: free as u64, total: total as u64, available })
    }
}

fn mem_available() -> Result<u64> {
    let text = fs::read_to_string("/proc/meminfo").context("cannot read /proc/meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib: u64 =
        line.and_then(|line| line.split_whitespace().next()).context("no MemAvailable")?.parse()?;
    Ok(kib << 10)
}

/// What Ollama reads of its container (discover/cpu_linux.go, getCPUMemByCgroups). The root of the machine's own hierarchy has
/// no such files, nor has version 1.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Container {
    pub max: Option<u64>,
    pub current: Option<u64>,
}

impl Container {
    fn read() -> Self {
        let number = |name| fs::read_to_string(format!("/sys/fs/cgroup/{name}")).ok()?.trim().parse().ok();
        Self { max: number("memory.max"), current: number("memory.current") }
    }
}

/// Device memory in parts of one size.
fn take(bytes: u64, parts: u32) -> Result<Vec<Buffer>> {
    let each = usize::try_from(bytes / u64::from(parts.max(1)))?;
    (0..parts).map(|_| Ok(Buffer::new(each)?)).collect()
}

fn size(buffers: &[Buffer]) -> u64 {
    buffers.iter().map(|buffer| buffer.bytes as u64).sum()
}

/// Host memory of the driver that stays until the process ends.
fn pin(bytes: u64) -> Result<()> {
    if bytes > 0 {
        let mut address = std::ptr::null_mut();
        // SAFETY: the pointer is good for an address.
        unsafe { call!(cuMemHostAlloc(&mut address, usize::try_from(bytes)?, 0))? };
    }
    Ok(())
}

/// vllm/envs.py: a number, of which 0 is no.
fn graphs_counted() -> bool {
    std::env::var("VLLM_MEMORY_PROFILER_ESTIMATE_CUDAGRAPHS").map_or(true, |text| text.trim() != "0")
}

/// The cache, allocated as the engine does it.
struct Cache {
    buffers: Vec<Buffer>,
    ranges: Option<Ranges>,
}

impl Cache {
    fn new(bytes: u64, layers: u32, ranges: Option<Ranges>) -> Result<Self> {
        match ranges {
            Some(mut ranges) => {
                ranges.back(bytes)?;
                Ok(Self { buffers: Vec::new(), ranges: Some(ranges) })
            }
            None => Ok(Self { buffers: take(bytes, layers)?, ranges: None }),
        }
    }

    fn size(&self) -> u64 {
        self.ranges.as_ref().map_or_else(|| size(&self.buffers), Ranges::backed)
    }

    fn parts(&self) -> usize {
        self.ranges.as_ref().map_or(self.buffers.len(), Ranges::layers)
    }

    /// Memory that is mapped is shared memory with the simulated driver.
    fn source(&self, of_buffers: &'static str) -> &'static str {
        if self.ranges.is_some() && of_buffers == "anon" { "shmem" } else { of_buffers }
    }
}

pub fn run(args: &EngineArgs) -> Result<ExitCode> {
    let engine = args.engine;
    let driver = Driver::load(&args.driver)?;
    let mut course = Phases::new(&args.output, &driver)?;
    course.start(NOW)?;
    lines::print(&lines::start(engine))?;
    let context = course.phase("context", NOW, |course| {
        let context = driver.context()?;
        course.context_begins();
        Ok(context)
    })?;

    let baseline = course.phase("baseline", NOW, |_| Reading::take(engine.signal()))?;
    lines::print(&lines::baseline(engine, &baseline))?;
    let container = (engine.family() == Family::Ollama).then(Container::read);
    let plan = Plan::new(args, &baseline);
    if let Some(line) = lines::refused(engine, &baseline, &plan) {
        // As engines do: an error, and the end.
        lines::print(std::slice::from_ref(&line))?;
        bail!("{line}");
    }
    let weights = course.phase("weights", NOW, |_| take(args.weights, args.layers))?;
    lines::print(&lines::weights(engine, size(&weights)))?;

    let mut own = Own { weights: size(&weights), transient: args.activations, ..Own::default() };
    // Sized after the capture, the cache has a range of addresses before it.
    let ranges = if engine.family() == Family::SglangPostCapture {
        let planned = Reading::take(engine.signal())?;
        let upper = plan.budget(engine, &baseline, &planned, &own).kv.max(0).unsigned_abs();
        let ranges = course.phase("range", NOW, |_| Ranges::new(&driver, upper, args.layers))?;
        lines::print(&lines::planned(engine, &baseline, &planned, upper))?;
        own.range = Some((ranges.backed(), upper));
        Some(ranges)
    } else {
        None
    };
    if matches!(engine.family(), Family::Vllm | Family::VllmParts) {
        // vllm/utils/mem_utils.py, memory_profiling: only what the log's debug level has is computed from this one.
        Reading::take(engine.signal())?;
    }
    let mut graphs = Vec::new();
    let (compiler, after) = course.phase("profile", NOW, |_| {
        pin(args.pinned.unwrap_or(0))?;
        let compiler = args.compiler_heap.map(compiler::start).transpose()?;
        let activations = take(args.activations, 1)?;
        args.resume.as_deref().map(wait_for).transpose()?;
        sys::sleep(args.pause);
        for buffer in activations {
            buffer.free()?;
        }
        match (args.graphs, &ranges) {
            (Some(bytes), Some(_)) => graphs = take(bytes, 1)?,
            (Some(bytes), None) => {
                own.graphs_estimated = Some(graphs::estimate(bytes, args.reclaimed.as_deref())?);
                own.graphs_counted = graphs_counted();
            }
            (None, _) => {}
        }
        // One that cuts the context to what is free has read that before its weights.
        let after = if engine.reads_once() { baseline } else { Reading::take(engine.signal())? };
        Ok((compiler, after))
    })?;
    let budget = plan.budget(engine, &baseline, &after, &own);
    lines::print(&lines::profiled(engine, &plan, &baseline, &after, &budget, &own))?;
    // The compiler ends when it has compiled; the engine has long taken the reading.
    if compiler.is_some() {
        sys::sleep(args.pause);
    }
    let compiler_pid = compiler.map(compiler::Running::stop).transpose()?;
    if budget.kv <= 0 {
        let line = lines::nothing_left(engine);
        lines::print(&[line.to_owned()])?;
        bail!("{line}");
    }
    let kv = budget.kv.unsigned_abs();
    let cache = course.phase("kv-cache", NOW, |_| Cache::new(kv, args.layers, ranges))?;
    // SGLang states what is free then, too.
    let left = cache.ranges.as_ref().map(|_| Reading::take(engine.signal())).transpose()?;
    let last = left.unwrap_or(after);
    lines::print(&lines::allocated(engine, &plan, &baseline, &last, cache.size(), &budget))?;
    let source = device_source(&driver);
    course.sources.extend([
        SourceRecord::new(source, "weights", size(&weights), json!({ "parts": weights.len() })),
        SourceRecord::new(cache.source(source), "kv-cache", cache.size(), json!({ "parts": cache.parts() })),
    ]);
    let allocated = cache.size();
    course.hold(args.hold)?;
    drop((cache, graphs, weights));
    course.context_ends();
    context.end()?;
    course.report(json!({ "engine": {
        "engine": engine.name(),
        "fraction": plan.fraction,
        "baseline": baseline,
        "after": after,
        "container": container,
        "kv": budget.kv,
        // A cache that is backed later is made of whole pages in each layer.
        "kv_allocated": allocated,
        "activations": args.activations,
        "pinned": args.pinned,
        "graphs": own.graphs_estimated,
        "compiler_heap": args.compiler_heap,
        "compiler_pid": compiler_pid,
    }}))
}
