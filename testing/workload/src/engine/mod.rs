//! `engine`: how an inference engine sizes its KV cache, in real calls: readings of free memory, weights, a dummy run's
//! peak, a cache of equal allocations. The arithmetic and the words of the log are the engine's, the figures our own.

pub mod arithmetic;
mod compiler;
mod lines;

use std::fs;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde::Serialize;
use serde_json::json;

use crate::cli::engine::EngineArgs;
use crate::cuda::driver::{Buffer, Driver, call, mem_get_info};
use crate::cuda::memory::device_source;
use crate::cuda::phases::Phases;
use crate::output::SourceRecord;
use crate::sys;
use arithmetic::{Family, Plan, Signal};

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

    let (compiler, after) = course.phase("profile", NOW, |_| {
        pin(args.pinned.unwrap_or(0))?;
        let compiler = args.compiler_heap.map(compiler::start).transpose()?;
        let activations = take(args.activations, 1)?;
        sys::sleep(args.pause);
        for buffer in activations {
            buffer.free()?;
        }
        // One that cuts the context to what is free has read that before its weights.
        let after = if engine.reads_once() { baseline } else { Reading::take(engine.signal())? };
        Ok((compiler, after))
    })?;
    let budget = plan.budget(engine, &baseline, &after, size(&weights), args.activations);
    lines::print(&lines::profiled(engine, &plan, &baseline, &after, &budget, size(&weights)))?;
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
    let cache = course.phase("kv-cache", NOW, |_| take(budget.kv.unsigned_abs(), args.layers))?;
    lines::print(&lines::allocated(engine, &plan, &baseline, &after, size(&cache), &budget))?;
    let source = device_source(&driver);
    course.sources.extend([
        SourceRecord::new(source, "weights", size(&weights), json!({ "parts": weights.len() })),
        SourceRecord::new(source, "kv-cache", size(&cache), json!({ "parts": cache.len() })),
    ]);
    course.hold(args.hold)?;
    drop((cache, weights));
    course.context_ends();
    context.end()?;
    course.report(json!({ "engine": {
        "engine": engine.name(),
        "fraction": plan.fraction,
        "baseline": baseline,
        "after": after,
        "container": container,
        "kv": budget.kv,
        "activations": args.activations,
        "pinned": args.pinned,
        "compiler_heap": args.compiler_heap,
        "compiler_pid": compiler_pid,
    }}))
}
