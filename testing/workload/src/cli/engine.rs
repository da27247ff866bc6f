//! Options of the workload that does what an inference engine does.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::count;
use super::cuda::{DriverArgs, OutputArgs, parse_fraction};
use crate::size::parse_size;
use spark_trace_common::quantity::duration;

const MEMORY: &str = "Memory";
const COURSE: &str = "Phases";

pub const EXAMPLES: &str =
    "The readings, allocations and the order of both are those of the engine that is named, its arithmetic and the lines \
that it logs too. The report has the readings and the cache.

Examples:
  spark-trace-workload engine --engine vllm --driver simulated
  spark-trace-workload engine --engine sglang --compiler-heap 256M --driver simulated
  spark-trace-workload engine --engine tensorrt-llm --fraction 0.05 --driver simulated";

/// The engines' own names of their fractions.
const FLAGS: [&str; 3] =
    ["gpu-memory-utilization", "mem-fraction-static", "kv_cache_free_gpu_memory_fraction"];

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Engine {
    /// vLLM from 0.27 on
    Vllm,
    /// vLLM from 0.11.1 to 0.26
    #[value(name = "vllm-0.26")]
    Vllm026,
    /// vLLM up to 0.11.0, which goes by cuMemGetInfo
    #[value(name = "vllm-0.11.0")]
    Vllm0110,
    /// SGLang from 0.5.4 on
    Sglang,
    /// SGLang from 0.5.17 on, with SGLANG_ENABLE_POST_CAPTURE_KV_SIZING
    SglangPostCapture,
    /// TensorRT-LLM's PyTorch backend
    TensorrtLlm,
    /// TensorRT-LLM's engine backend, in C++
    TensorrtLlmCpp,
    /// llama.cpp, which cuts the context to what is free
    LlamaCpp,
    /// Ollama from 0.30 on: the context is stated, and layers that do not fit go to the host
    Ollama,
}

#[derive(Debug, Args)]
pub struct EngineArgs {
    /// Whose arithmetic and whose words
    #[arg(long, value_enum)]
    pub engine: Engine,
    #[arg(long, value_name = "SIZE", value_parser = parse_size, default_value = "128M", help_heading = MEMORY)]
    pub weights: u64,
    /// Taken and given back in the dummy run
    #[arg(long, value_name = "SIZE", value_parser = parse_size, default_value = "64M", help_heading = MEMORY)]
    pub activations: u64,
    /// Host memory pinned before the last reading, until the end
    #[arg(long, value_name = "SIZE", value_parser = parse_size, help_heading = MEMORY)]
    pub pinned: Option<u64>,
    /// Heap of a compiler's process that lives while the last reading is taken
    #[arg(long, value_name = "SIZE", value_parser = parse_size, help_heading = MEMORY)]
    pub compiler_heap: Option<u64>,
    /// vLLM: memory of graphs that are captured for an estimate before the cache is sized. SGLang, sized after the capture: memory
    /// of the graphs
    #[arg(long, value_name = "SIZE", value_parser = parse_size, help_heading = MEMORY)]
    pub graphs: Option<u64>,
    /// vLLM: a file of which the page cache is reclaimed while graphs are captured for the estimate
    #[arg(long, value_name = "FILE", requires = "graphs", help_heading = MEMORY)]
    pub reclaimed: Option<PathBuf>,
    /// The engine's fraction: of the total, of what is free, of what was available, as the engine has it [default: what
    /// makes the cache --kv-size]
    #[arg(long, aliases = FLAGS, value_name = "F", value_parser = parse_fraction, conflicts_with = "kv_size", help_heading = MEMORY)]
    pub fraction: Option<f64>,
    /// About how large the cache is to be, where nothing changes meanwhile
    #[arg(long, value_name = "SIZE", value_parser = parse_size, default_value = "512M", help_heading = MEMORY)]
    pub kv_size: u64,
    /// llama.cpp and Ollama: what they leave free, in MiB
    #[arg(long, value_name = "MIB", default_value_t = 1024, help_heading = MEMORY)]
    pub fit_target: u64,
    /// llama.cpp and Ollama: the cache of the whole context
    #[arg(long, value_name = "SIZE", value_parser = parse_size, default_value = "512M", help_heading = MEMORY)]
    pub context_size: u64,
    /// Equal parts of weights and cache
    #[arg(long, value_name = "N", value_parser = count(), default_value_t = 8, help_heading = MEMORY)]
    pub layers: u32,
    /// Wait so long in the middle of the dummy run, and before a compiler ends
    #[arg(long, value_name = "DUR", value_parser = duration, default_value = "300ms", help_heading = COURSE)]
    pub pause: Duration,
    /// Go on from the middle of the dummy run when there is this file
    #[arg(long, value_name = "FILE", help_heading = COURSE)]
    pub resume: Option<PathBuf>,
    /// Keep everything this long at the end
    #[arg(long, value_name = "DUR", value_parser = duration, default_value = "500ms", help_heading = COURSE)]
    pub hold: Duration,

    #[command(flatten)]
    pub output: OutputArgs,
    #[command(flatten)]
    pub driver: DriverArgs,
}
