//! What went through the CUDA driver and NVML, and what the target was told of memory.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::column::Column;

/// A library whose functions are watched, or should have been.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LibraryFile {
    /// `libcuda` or `libnvidia-ml`.
    pub library: String,
    /// Path as it was found: on the host, or in the mount namespace of the process that mapped it.
    pub path: String,
    /// Device as `major:minor` and inode: the file itself, below overlays and bind mounts.
    pub device: String,
    pub inode: u64,
    pub build_id: Option<String>,
    /// The simulated driver, not NVIDIA's.
    pub simulated: bool,
    /// `ok`, `broken` or `not-applicable`, with the reason.
    pub verdict: String,
    pub reason: Option<String>,
    /// Functions attached to, and those the file does not have.
    pub attached: u32,
    pub missing: Vec<String>,
    /// The process of the target that mapped it first after the trace began; absent where none did, or others had before.
    pub mapped_by: Option<u32>,
    pub mapped_ns: Option<u64>,
    /// When the last function was attached to. Calls between `mapped_ns` and this may not have been seen, unless the
    /// process was paused.
    pub attached_ns: Option<u64>,
    /// How long the process that mapped it was paused, until it was attached to: no call was missed. Absent where it
    /// was not paused, or went on before.
    #[serde(default)]
    pub paused_ns: Option<u64>,
    /// Whether a process has it mapped, or mapped it while the trace went on.
    #[serde(default)]
    pub in_use: Option<bool>,
}

/// Memory that a process took through the CUDA driver: one row for each kind, function and user stack.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CudaAllocs {
    pub pid: u32,
    /// `device`, `async`, `physical`, `physical-host`, `managed`, `pinned`, `registered`, `imported` or
    /// `reserved` (addresses, no memory).
    pub kind: String,
    pub function: String,
    /// Id in `stacks` of the caller's user stack.
    pub stack: Option<u32>,
    /// For host memory: `anon`, `shmem`, `driver` (pages of the NVIDIA module) or `file`, as the mapping says
    /// that it lies in; absent where that could not be seen.
    pub backing: Option<String>,
    pub allocs: u64,
    pub frees: u64,
    /// Freed by the end of a context or of the process.
    pub implicit_frees: u64,
    pub failures: u64,
    pub bytes_allocated: u64,
    pub bytes_freed: u64,
    /// Bytes allocated and not freed, at each instant; absent where not read then.
    pub live: Column,
}

/// Sums of [`CudaAllocs`] with their exact peaks.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CudaTotal {
    /// Absent for the target as a whole.
    pub pid: Option<u32>,
    /// As in `cuda_allocs`, or `device-all`: `device`, `async` and `physical` together.
    pub kind: String,
    pub live: u64,
    pub peak: u64,
    pub peak_ns: u64,
    pub allocs: u64,
    pub frees: u64,
    pub implicit_frees: u64,
    pub failures: u64,
}

/// An allocation that the driver refused.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CudaFailure {
    pub at_ns: u64,
    pub pid: u32,
    pub tid: u32,
    pub function: String,
    pub kind: String,
    pub size: Option<u64>,
    pub result: i32,
    /// Name of the result in cuda.h, where it is a known one.
    pub result_name: Option<String>,
    pub stack: Option<u32>,
}

/// A context, module or pool came or went.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CudaEvent {
    pub at_ns: u64,
    /// How long the call took.
    pub duration_ns: u64,
    pub pid: u32,
    pub tid: u32,
    /// `context-create`, `module-load`, `pool-trim`, ...
    pub event: String,
    pub function: String,
    /// Handle.
    pub object: Option<u64>,
    /// Bytes to keep, for `pool-trim`.
    pub size: Option<u64>,
    pub result: i32,
    pub stack: Option<u32>,
}

/// A process asked how much memory there is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Query {
    /// When it had its answer.
    pub at_ns: u64,
    /// When a library call began; a query of the same thread in between was made inside it.
    pub began_ns: Option<u64>,
    pub pid: u32,
    pub tid: u32,
    pub cgroup: u64,
    /// The function (`cuMemGetInfo_v2`), the file (`/proc/meminfo`, `memory.max`) or the system call (`sysinfo`).
    pub asked: String,
    /// For a file of a cgroup or process: the directory it lies in.
    pub directory: Option<String>,
    /// Result code of a library call.
    pub result: i32,
    /// What it was told, in bytes. Of a file only the figures within the first KiB that was read.
    pub values: BTreeMap<String, u64>,
    /// What it was told where that is not a number: `max`.
    pub text: Option<String>,
    pub state: Option<MemoryState>,
    pub stack: Option<u32>,
}

/// The machine's memory as a process was told of it, bytes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct MemoryState {
    /// MemFree: `free`, and what this kernel counts as free beyond what its page allocator has (memory that is not
    /// plugged in yet), as the tracer found it `later.age_ns` after.
    pub mem_free: Option<u64>,
    /// Read in the kernel as the call returned. `free` is what the page allocator has free (nr_free_pages). `file` is all page cache: with shmem, swap cache and buffers.
    pub free: u64,
    pub file: u64,
    pub dirty: u64,
    pub writeback: u64,
    pub shmem: u64,
    pub anon: u64,
    pub slab_reclaimable: u64,
    /// Charge of the asking task's memory cgroup.
    pub cgroup_usage: u64,
    pub cgroup: u64,
    /// What the kernel side cannot tell, read by the tracer `age_ns` after the answer.
    pub later: Option<LaterState>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LaterState {
    pub age_ns: u64,
    pub mem_free: Option<u64>,
    pub mem_available: Option<u64>,
    /// Bytes of the NVIDIA modules' pages seen allocated and not freed; absent where not followed.
    pub driver_bytes: Option<u64>,
    /// Bytes the target holds through the CUDA driver, by kind.
    pub cuda_live: BTreeMap<String, u64>,
}
