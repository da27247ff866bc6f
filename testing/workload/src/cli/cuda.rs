//! Options of the workloads that use CUDA.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use super::{HoldArgs, count};
use crate::cuda::select::Choice;
use crate::size::parse_size;
use spark_trace_common::quantity::duration;

const MEMORY: &str = "Memory";
const COURSE: &str = "Phases";
const OUTPUT: &str = "Output";

pub const ALLOC_EXAMPLES: &str = "\
SIZE may be repeated by xN (64Mx4: four allocations of 64 MiB), and each option given more than once. \
The phases are start, context, one for each requested kind in the order shown here, hold, and release.

Examples:
  spark-trace-workload cuda-alloc --device 256Mx4 --pinned 64M --managed 128M --query --hold 5s
  spark-trace-workload cuda-alloc --oom --driver simulated
  spark-trace-workload cuda-alloc --device 1G --free none --jsonl --driver /usr/lib/x86_64-linux-gnu/libcuda.so.1";

pub const MATMUL_EXAMPLES: &str = "Examples:
  spark-trace-workload matmul --n 4096 --iterations 20
  spark-trace-workload matmul --n 256 --driver simulated";

pub const LLM_EXAMPLES: &str =
    "Writes DIR/model.safetensors if it is missing, maps it, copies it to the device, sizes the KV cache as \
TensorRT-LLM does, and runs requests: matrix products of a model's shapes, without meaning. Log lines come in \
TensorRT-LLM's words, so that one parser reads both; the last line is the report, as JSON.

Examples:
  spark-trace-workload llm --model-dir /data/model --weights-size 14G --batch 8 --prompt 512 --output-length 128
  spark-trace-workload llm --model-dir /tmp/m --weights-size 64M --kv-limit 256M --driver simulated";

#[derive(Debug, Args)]
pub struct DriverArgs {
    /// The CUDA driver: `system` for the installed one, `simulated` for libspark_trace_simulated_cuda.so beside this
    /// program, or the path of a library
    #[arg(long, value_name = "DRIVER", default_value = "system", value_parser = Choice::parse)]
    #[arg(help_heading = "CUDA")]
    pub driver: Choice,
    /// Which GPU
    #[arg(long, value_name = "N", default_value_t = 0, help_heading = "CUDA")]
    pub ordinal: u16,
}

#[derive(Debug, Args)]
pub struct OutputArgs {
    /// Print a line on stdout as each phase is ready
    #[arg(long, help_heading = OUTPUT)]
    pub jsonl: bool,
    /// Write the report there instead of to stdout
    #[arg(long, value_name = "FILE", help_heading = OUTPUT)]
    pub output: Option<PathBuf>,
    /// Ask cuMemGetInfo after each phase
    #[arg(long, help_heading = OUTPUT)]
    pub query: bool,
    /// Take nothing before this file exists
    #[arg(long, value_name = "FILE", help_heading = COURSE)]
    pub wait_go: Option<PathBuf>,
}

/// Some allocations of one size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Amount {
    pub each: u64,
    pub count: u32,
}

/// "64M" or "64Mx4".
pub fn parse_amount(text: &str) -> Result<Amount, String> {
    let (size, count) = text.rsplit_once(['x', 'X']).unwrap_or((text, "1"));
    let count = count.trim().parse().ok().filter(|count| *count > 0);
    let count = count.ok_or("not SIZE or SIZExN with N at least 1, as in 64Mx4")?;
    Ok(Amount { each: parse_size(size)?, count })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Free {
    /// Each allocation by the function that goes with it
    All,
    /// By ending the context
    Context,
    /// Not at all: by ending the process
    None,
}

#[derive(Debug, Args)]
pub struct CudaAllocArgs {
    /// cuMemAlloc
    #[arg(long, value_name = "SIZE[xN]", value_parser = parse_amount, help_heading = MEMORY)]
    pub device: Vec<Amount>,
    /// cuMemAllocHost
    #[arg(long, value_name = "SIZE[xN]", value_parser = parse_amount, help_heading = MEMORY)]
    pub pinned: Vec<Amount>,
    /// cuMemHostAlloc with --host-alloc-flags
    #[arg(long, value_name = "SIZE[xN]", value_parser = parse_amount, help_heading = MEMORY)]
    pub host_alloc: Vec<Amount>,
    /// Flags for --host-alloc, added up: 1 portable, 2 device-mapped, 4 write-combined
    #[arg(long, value_name = "N", default_value_t = 0, requires = "host_alloc", help_heading = MEMORY)]
    #[arg(value_parser = clap::value_parser!(u32).range(0..8))]
    pub host_alloc_flags: u32,
    /// Anonymous memory, touched, then cuMemHostRegister
    #[arg(long, value_name = "SIZE[xN]", value_parser = parse_amount, help_heading = MEMORY)]
    pub registered: Vec<Amount>,
    /// cuMemAllocManaged, then every page touched on the CPU
    #[arg(long, value_name = "SIZE[xN]", value_parser = parse_amount, help_heading = MEMORY)]
    pub managed: Vec<Amount>,
    /// cuMemAllocAsync from the default pool
    #[arg(long = "async", value_name = "SIZE[xN]", value_parser = parse_amount, help_heading = MEMORY)]
    pub stream: Vec<Amount>,
    /// cuMemCreate, mapped at reserved addresses
    #[arg(long, value_name = "SIZE[xN]", value_parser = parse_amount, help_heading = MEMORY)]
    pub vmm: Vec<Amount>,
    /// Ask cuMemAlloc for more than the device has, which must fail with CUDA_ERROR_OUT_OF_MEMORY
    #[arg(long, help_heading = MEMORY)]
    pub oom: bool,

    /// Further processes that take the same as this one, and hold it as long
    #[arg(long, value_name = "N", default_value_t = 0, help_heading = MEMORY)]
    pub children: u32,

    #[command(flatten)]
    pub holds: HoldArgs,
    /// How memory is given back
    #[arg(long, value_enum, default_value_t = Free::All, help_heading = COURSE)]
    pub free: Free,

    #[command(flatten)]
    pub output: OutputArgs,
    #[command(flatten)]
    pub driver: DriverArgs,
}

/// How a call means a GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Way {
    /// cuCtxSetCurrent before cuMemAlloc
    Set,
    /// cuCtxPushCurrent before it and cuCtxPopCurrent after it
    Push,
    /// cuCtxSetCurrent and cuMemAlloc in a thread of their own
    Thread,
    /// cuMemAllocAsync on the default stream of the current context
    Async,
    /// cuMemAllocAsync on a stream of that GPU, while the context of another is current
    Stream,
    /// cuMemAllocFromPoolAsync from a pool of that GPU, likewise
    Pool,
    /// cuMemCreate
    Vmm,
}

/// So many bytes of one GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OnGpu {
    pub device: u16,
    pub way: Way,
    pub bytes: u64,
}

/// "1:pool:64M".
pub fn parse_on_gpu(text: &str) -> Result<OnGpu, String> {
    let [device, way, size] = text.split(':').collect::<Vec<_>>()[..] else {
        return Err("want DEVICE:WAY:SIZE, as in 1:pool:64M".to_owned());
    };
    let device = device.parse().map_err(|_| format!("{device} is no number of a device"))?;
    Ok(OnGpu { device, way: Way::from_str(way, false)?, bytes: parse_size(size)? })
}

#[derive(Debug, Args)]
pub struct CudaGpusArgs {
    /// Take SIZE of a device, by its number; WAY is set, push, thread, async, stream, pool or vmm
    #[arg(long, value_name = "DEVICE:WAY:SIZE", value_parser = parse_on_gpu, required = true)]
    pub on: Vec<OnGpu>,
    /// Never call cuDeviceGetUuid
    #[arg(long)]
    pub nameless: bool,
    /// Take nothing before this file exists
    #[arg(long, value_name = "FILE")]
    pub wait_go: Option<PathBuf>,
    /// Keep everything until this file exists
    #[arg(long, value_name = "FILE")]
    pub until: Option<PathBuf>,

    #[command(flatten)]
    pub driver: DriverArgs,
}

#[derive(Debug, Args)]
pub struct MatmulArgs {
    /// Rows and columns of the matrices
    #[arg(long, value_name = "N", default_value_t = 1024)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=32768))]
    pub n: u32,
    /// Products that are not timed
    #[arg(long, value_name = "N", default_value_t = 2)]
    pub warmup: u32,
    /// Products that are
    #[arg(long, value_name = "N", value_parser = count(), default_value_t = 10)]
    pub iterations: u32,
    /// How many elements of the result are computed again on the CPU
    #[arg(long, value_name = "N", value_parser = count(), default_value_t = 64)]
    pub samples: u32,
    /// Keep the matrices this long at the end
    #[arg(long, value_name = "DUR", value_parser = duration, default_value = "0ms")]
    pub hold: Duration,

    #[command(flatten)]
    pub output: OutputArgs,
    #[command(flatten)]
    pub driver: DriverArgs,
}

#[derive(Debug, Args)]
pub struct LlmArgs {
    /// Where model.safetensors is, or is to be made
    #[arg(long, value_name = "DIR")]
    pub model_dir: PathBuf,
    /// Bytes of the weights. A file that has another amount is refused
    #[arg(long, value_name = "SIZE", value_parser = parse_size, default_value = "256M")]
    pub weights_size: u64,
    /// Drop the weights from the page cache before they are read
    #[arg(long)]
    pub cold: bool,
    /// The part of what is free that the KV cache is to have
    #[arg(long, value_name = "F", default_value_t = 0.9, value_parser = parse_fraction)]
    pub fraction: f64,
    /// Take no more than this for the KV cache; what it would be without is printed all the same
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub kv_limit: Option<u64>,
    /// Requests at once
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=32), default_value_t = 1)]
    pub batch: u32,
    /// Tokens of each prompt
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(128..=2048))]
    #[arg(default_value_t = 128)]
    pub prompt: u32,
    /// Tokens that each request is answered with
    #[arg(long, value_name = "N", value_parser = count(), default_value_t = 32)]
    pub output_length: u32,
    /// Batches that are not timed
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub warmup: u32,
    /// Batches that are
    #[arg(long, value_name = "N", value_parser = count(), default_value_t = 5)]
    pub iterations: u32,
    /// Keep everything this long at the end
    #[arg(long, value_name = "DUR", value_parser = duration, default_value = "0ms")]
    pub hold: Duration,

    #[command(flatten)]
    pub output: OutputArgs,
    #[command(flatten)]
    pub driver: DriverArgs,
}

pub fn parse_fraction(text: &str) -> Result<f64, String> {
    let fraction = text.parse().ok().filter(|fraction| (0.0..=1.0).contains(fraction) && *fraction > 0.0);
    fraction.ok_or_else(|| "not a number above 0 and up to 1".to_owned())
}

#[derive(Debug, Subcommand)]
pub enum CudaStorm {
    /// cuMemAlloc and cuMemFree; timed in batches
    CudaAlloc {
        #[arg(long, value_name = "SIZE", value_parser = parse_size, default_value = "1M")]
        size: u64,
        #[arg(long, value_name = "N", value_parser = count(), default_value_t = 20_000)]
        rounds: u32,
        /// How many batches the rounds are timed in
        #[arg(long, value_name = "N", value_parser = count(), default_value_t = 20)]
        batches: u32,
        #[command(flatten)]
        driver: DriverArgs,
    },
    /// cuMemAllocManaged, touch every page on the CPU, cuMemFree
    CudaManaged {
        #[arg(long, value_name = "SIZE", value_parser = parse_size, default_value = "64M")]
        size: u64,
        #[arg(long, value_name = "N", value_parser = count(), default_value_t = 20)]
        rounds: u32,
        #[command(flatten)]
        driver: DriverArgs,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts() {
        assert_eq!(parse_amount("64M"), Ok(Amount { each: 64 << 20, count: 1 }));
        assert_eq!(parse_amount("4096x3"), Ok(Amount { each: 4096, count: 3 }));
        for text in ["", "x", "64Mx0", "64Mx", "x4", "64Mx-1", "0x4"] {
            assert!(parse_amount(text).is_err(), "{text}");
        }
    }

    #[test]
    fn places() {
        let pool = OnGpu { device: 1, way: Way::Pool, bytes: 64 << 20 };
        assert_eq!(parse_on_gpu("1:pool:64M"), Ok(pool));
        for text in ["", "1:pool", "x:pool:1M", "1:heap:1M", "1:pool:1M:2"] {
            assert!(parse_on_gpu(text).is_err(), "{text}");
        }
    }

    #[test]
    fn fractions() {
        assert_eq!(parse_fraction("0.5"), Ok(0.5));
        for text in ["", "0", "-0.1", "1.1", "NaN"] {
            assert!(parse_fraction(text).is_err(), "{text}");
        }
    }
}
