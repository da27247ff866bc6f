//! Engines that are staged, and what costs each of them its cache.

use super::staged::{ACTIVATIONS, Staged, WEIGHTS};
use crate::support::{self, MIB};

/// The cache where nothing is staged, about: room for two causes that cost all of their bytes.
pub const CACHE: i64 = 1024 * MIB;
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// Clean pages of a file.
    PageCache,
    /// Pages of a file that are not written back.
    Dirty,
    /// Another program's anonymous memory.
    Tenant,
    /// Host memory that the engine pins after its baseline.
    Pinned,
    /// The heap of a compiler that the engine started, at the second reading.
    Compiler,
}

use Cause::{Compiler, Dirty, PageCache, Pinned, Tenant};

/// By how much the cache grows with each byte that is free at the baseline and at the last reading, from a run's fraction.
pub type Weights = fn(f64) -> [f64; 2];

pub struct Row {
    /// Each cause is staged alone, too. Not where another row has the same signal and formula: what differs is in the log.
    pub singly: bool,
    pub engine: Staged,
    /// The option that makes the cache about as large as it is to be.
    pub setting: fn() -> String,
    pub weights: Weights,
    pub costs: &'static [Cause],
}

/// vLLM logs its estimate for graphs with two digits of GiB: half of the last one is 5 MiB.
pub const ESTIMATE_DIGITS: i64 = 6 * MIB;

const fn engine(name: &'static str, known_as: &'static str, signal: &'static str) -> Staged {
    Staged { name, known_as, signal, needs_log: false, step: 0 }
}

/// It cuts the context by 256 cells.
const FIT: Staged =
    Staged { needs_log: true, step: 4 * MIB, ..engine("llama-cpp", "llama.cpp", "MemAvailable") };

/// Page cache costs those that go by MemFree, memory that came between two readings those that go by a fall, everything that
/// MemAvailable counts those that go by its level. llama.cpp reads before it takes anything.
pub const ENGINES: &[Row] = &[
    Row {
        singly: true,
        engine: engine("vllm", "vllm", "MemAvailable"),
        setting: of_total,
        weights: fall,
        costs: &[Pinned, Compiler],
    },
    Row {
        singly: false,
        engine: engine("vllm-0.26", "vllm", "MemAvailable"),
        setting: of_total,
        weights: fall,
        costs: &[Pinned, Compiler],
    },
    Row {
        singly: true,
        engine: engine("vllm-0.11.0", "vllm", "MemFree"),
        setting: of_total,
        weights: fall,
        costs: &[Pinned, Compiler],
    },
    Row {
        singly: true,
        engine: engine("sglang", "sglang", "MemAvailable"),
        setting: of_available,
        weights: rest,
        costs: &[Tenant, Pinned, Compiler],
    },
    Row {
        singly: true,
        engine: Staged { needs_log: true, step: ESTIMATE_DIGITS, ..engine("vllm", "vllm", "MemAvailable") },
        setting: of_total_with_graphs,
        weights: fall,
        costs: &[Pinned, Compiler],
    },
    Row {
        singly: true,
        engine: Staged { needs_log: true, ..engine("sglang-post-capture", "sglang", "MemAvailable") },
        setting: of_available_with_graphs,
        weights: rest,
        costs: &[Tenant, Pinned, Compiler],
    },
    Row { singly: true, engine: FIT, setting: margin, weights: |_| [1.0, 0.0], costs: &[Tenant] },
    Row {
        singly: true,
        engine: engine("tensorrt-llm", "tensorrt-llm", "MemFree"),
        setting: of_free,
        weights: |fraction| [0.0, fraction],
        costs: &[PageCache, Dirty, Tenant, Pinned, Compiler],
    },
    Row {
        singly: false,
        engine: engine("tensorrt-llm-cpp", "tensorrt-llm-cpp", "MemFree"),
        setting: of_free,
        weights: |fraction| [0.0, fraction],
        costs: &[PageCache, Dirty, Tenant, Pinned, Compiler],
    },
];

fn fall(_: f64) -> [f64; 2] {
    [-1.0, 1.0]
}

fn rest(fraction: f64) -> [f64; 2] {
    [fraction - 1.0, 1.0]
}

pub fn part(bytes: i64, level: &str) -> f64 {
    bytes as f64 / support::meminfo(level) as f64
}

fn of_total() -> String {
    format!("--gpu-memory-utilization {:.4}", part(CACHE + WEIGHTS + ACTIVATIONS, "MemTotal"))
}

/// vLLM's estimate of them, and SGLang's own, which are there when it sizes its cache.
pub const GRAPHS: i64 = 96 * MIB;

fn of_total_with_graphs() -> String {
    format!(
        "--graphs {GRAPHS} --gpu-memory-utilization {:.4}",
        part(CACHE + WEIGHTS + ACTIVATIONS + GRAPHS, "MemTotal")
    )
}

fn of_available_with_graphs() -> String {
    format!("--graphs {GRAPHS} --mem-fraction-static {:.4}", part(CACHE + WEIGHTS + GRAPHS, "MemAvailable"))
}

fn of_available() -> String {
    format!("--mem-fraction-static {:.4}", part(CACHE + WEIGHTS, "MemAvailable"))
}

fn of_free() -> String {
    format!("--kv_cache_free_gpu_memory_fraction {:.4}", part(CACHE, "MemFree"))
}

fn margin() -> String {
    let left = support::meminfo("MemAvailable") - CACHE - WEIGHTS - ACTIVATIONS;
    format!("--context-size 16G --fit-target {}", left / MIB)
}
