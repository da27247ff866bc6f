//! Calls of the CUDA driver and NVML, and memory queries of the target.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::column::Column;
use super::verdict::Verdict;
use super::word::Word;

/// A library whose functions are watched, or should be.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LibraryFile {
    /// `libcuda` or `libnvidia-ml`.
    pub library: String,
    /// Path as it was found, on the host or in the mount namespace of the process that mapped it.
    pub path: String,
    /// Device as `major:minor`. With the inode number it identifies the file itself, below overlays and bind mounts.
    pub device: String,
    pub inode: u64,
    pub build_id: Option<String>,
    /// It is the simulated driver, not NVIDIA's.
    pub simulated: bool,
    /// `ok`, `broken` or `not-applicable`.
    pub verdict: Word<Verdict>,
    /// Why the verdict is not `ok`.
    pub reason: Option<String>,
    /// Number of functions with a hook.
    pub attached: u32,
    /// Functions that the file does not have.
    pub missing: Vec<String>,
    /// The first process of the target that mapped it during the trace; absent if none did, or if others had it before.
    pub mapped_by: Option<u32>,
    /// When that process mapped it.
    pub mapped_ns: Option<u64>,
    /// When the last function had its hook. Calls between `mapped_ns` and this time may be missing, unless the process
    /// was paused.
    pub attached_ns: Option<u64>,
    /// How long that process was paused until the hooks were attached, so that no call was missed; absent if it was not
    /// paused or continued before.
    #[serde(default)]
    pub paused_ns: Option<u64>,
    /// Whether a process has it mapped, or mapped it during the trace.
    #[serde(default)]
    pub in_use: Option<bool>,
}

/// Memory that a process took through the CUDA driver: one row for each kind, function and user stack.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CudaAllocs {
    pub pid: u32,
    /// `device`, `async`, `physical`, `physical-host`, `managed`, `pinned`, `registered`, `imported` or `reserved`
    /// (addresses only, no memory).
    pub kind: String,
    /// NVML's index of the GPU whose memory it is; absent if unknown, and for memory that is not a GPU's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<u32>,
    /// Function of libcuda that was called.
    pub function: String,
    /// Id in `stacks` of the user stack.
    pub stack: Option<u32>,
    /// For host memory, by its mapping: `anon`, `shmem`, `driver` (pages of the NVIDIA module) or `file`; absent if
    /// unknown.
    pub backing: Option<String>,
    pub allocs: u64,
    pub frees: u64,
    /// Frees by the end of a context or of the process.
    pub implicit_frees: u64,
    pub failures: u64,
    pub bytes_allocated: u64,
    pub bytes_freed: u64,
    /// Bytes allocated and not freed, at each instant; `null` if not read then.
    pub live: Column,
}

/// One allocation through the CUDA driver.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CudaAllocation {
    pub pid: u32,
    /// As in `cuda_allocs`, except `imported` and `reserved`.
    pub kind: String,
    /// As in `cuda_allocs`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<u32>,
    /// Function of libcuda that was called.
    pub function: String,
    /// Id in `stacks` of the user stack.
    pub stack: Option<u32>,
    pub bytes: u64,
    /// When the call returned.
    pub allocated_ns: u64,
    /// When the call that freed it returned, or its context or process ended; absent if it was in use at the end.
    pub freed_ns: Option<u64>,
}

/// Sums of `cuda_allocs`, with exact peaks.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CudaTotal {
    /// Absent for the whole target.
    pub pid: Option<u32>,
    /// As in `cuda_allocs`; `device-all` is `device`, `async` and `physical` together.
    pub kind: String,
    /// Bytes at the last instant.
    pub live: u64,
    /// Highest number of bytes at any time.
    pub peak: u64,
    /// When that was.
    pub peak_ns: u64,
    pub allocs: u64,
    pub frees: u64,
    pub implicit_frees: u64,
    pub failures: u64,
}

/// Sums of `cuda_allocs` for one GPU.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CudaGpuTotal {
    /// NVML's index of the GPU; `null` for allocations whose GPU is unknown.
    pub device: Option<u32>,
    /// As in `cuda_totals`, of `device`, `async`, `physical` and `device-all`.
    #[serde(flatten)]
    pub total: CudaTotal,
}

/// An allocation that the driver refused.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CudaFailure {
    pub at_ns: u64,
    pub pid: u32,
    pub tid: u32,
    pub function: String,
    pub kind: String,
    /// Bytes requested.
    pub size: Option<u64>,
    /// Result code of the call.
    pub result: i32,
    /// Name of the result in cuda.h, if known.
    pub result_name: Option<String>,
    pub stack: Option<u32>,
}

/// A context, module or pool was created or destroyed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CudaEvent {
    pub at_ns: u64,
    /// Duration of the call.
    pub duration_ns: u64,
    pub pid: u32,
    pub tid: u32,
    /// `context-create`, `module-load`, `pool-trim`, ...
    pub event: String,
    pub function: String,
    /// Handle of the object.
    pub object: Option<u64>,
    /// Bytes to keep, for `pool-trim`.
    pub size: Option<u64>,
    pub result: i32,
    pub stack: Option<u32>,
}

/// A process queried how much memory there is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct MemoryQuery {
    /// Time of the answer.
    pub at_ns: u64,
    /// When a library call began. Queries of the same thread in between were made inside it.
    pub began_ns: Option<u64>,
    pub pid: u32,
    pub tid: u32,
    /// Memory cgroup of the querying task.
    pub cgroup: u64,
    /// What was queried: a function (`cuMemGetInfo_v2`), a file (`/proc/meminfo`, `memory.max`) or the system call
    /// (`sysinfo`).
    #[serde(alias = "asked")]
    pub interface: String,
    /// Directory of the file, for files of a cgroup or process.
    pub directory: Option<String>,
    /// Result code of a library call.
    pub result: i32,
    /// Figures of the answer, in bytes. Of a file only those within the first KiB that was read.
    pub values: BTreeMap<String, u64>,
    /// The answer, if it is not a number: `max`.
    pub text: Option<String>,
    /// The machine's memory at that time.
    pub state: Option<MemoryState>,
    /// Id in `stacks` of the user stack.
    pub stack: Option<u32>,
}

/// The machine's memory at a memory answer, in bytes, read in the kernel as the call returned.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct MemoryState {
    /// MemFree: `free`, and memory that this kernel counts as free beyond its page allocator (not yet plugged in), as
    /// read `later.age_ns` later.
    pub mem_free: Option<u64>,
    /// Free pages of the page allocator (nr_free_pages).
    pub free: u64,
    /// All page cache, including shmem, swap cache and buffers.
    pub file: u64,
    pub dirty: u64,
    pub writeback: u64,
    pub shmem: u64,
    pub anon: u64,
    pub slab_reclaimable: u64,
    /// Bytes charged to the memory cgroup of the querying task.
    pub cgroup_usage: u64,
    /// That memory cgroup.
    pub cgroup: u64,
    /// What the kernel side cannot read, read by spark-trace later.
    pub later: Option<LaterState>,
}

/// Counters that spark-trace read after the answer.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LaterState {
    /// Time since the answer.
    pub age_ns: u64,
    pub mem_free: Option<u64>,
    pub mem_available: Option<u64>,
    /// Bytes of NVIDIA module pages that were seen allocated and not freed; absent if not followed.
    pub driver_bytes: Option<u64>,
    /// Bytes that the target allocated through the CUDA driver and did not free, by kind.
    pub cuda_live: BTreeMap<String, u64>,
    /// Device memory of the process that queried; absent where it had allocated none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cuda_own: Option<CudaOwn>,
}

/// Device memory that one process allocated through the CUDA driver, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CudaOwn {
    /// Allocated and not freed at that time.
    pub live: u64,
    /// The most that was, up to that time.
    pub peak: u64,
}
