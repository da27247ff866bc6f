//! Provenance: who took memory, by which path and when, as eBPF programs counted it.
//!
//! Units and absence as in the rest of a recording (`schema.rs`).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::column::Column;
use super::cuda::{CudaAllocation, CudaAllocs, CudaEvent, CudaFailure, CudaGpuTotal, CudaTotal, MemoryQuery};
use super::kinds::{InstantKind, Mobility, Space, Way};
use super::process_env::{LogLine, OutsideProcess, ProcessContext, TmpfsUse};
use super::word::Word;

/// Who took memory, by which path and when. Each vector `live` has one element for each instant.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Provenance {
    /// When the maps of the kernel side were read.
    pub instants: Vec<Instant>,
    /// Pages of the kernel and of drivers, by cgroup and stack.
    pub page_allocs: Vec<PageAllocs>,
    /// Page cache of the whole machine, by file and owner.
    pub files: Vec<FilePages>,
    /// Files that were checked for pages from before the trace; absent if none were.
    #[serde(default)]
    pub cache_seen: Option<CacheSeen>,
    /// Changes of address spaces, from `tool.min_region` up.
    pub mappings: Vec<Mapping>,
    /// Of these, those that were made and removed again between two readings while there were very many. Absent without such a
    /// storm, and in older recordings.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub brief_mappings: Vec<BriefMappings>,
    /// Resident bytes by mapping, at the last reading of each process.
    pub regions: Vec<Region>,
    /// Processes of the target.
    pub processes: Vec<Process>,
    /// Names of the cgroup ids.
    pub cgroups: Vec<CgroupName>,
    /// Net change by kernel counter (profile `deep`).
    pub charges: Vec<Charge>,
    /// Charges by cgroup and kernel stack; empty if the hooks on page counters do not attach.
    #[serde(default)]
    pub charge_stacks: Vec<ChargeStack>,
    /// Levels by the same hooks.
    #[serde(default)]
    pub charge_levels: Vec<ChargeLevel>,
    /// Requests to the NVIDIA modules; empty if they are not loaded, or if hooks on them do not attach (kprobes are
    /// needed).
    #[serde(default)]
    pub driver_allocs: Vec<DriverAllocs>,
    /// Memory allocated through the CUDA driver, by caller.
    pub cuda_allocs: Vec<CudaAllocs>,
    /// The largest of these allocations one by one, at most 256: those in use before those that were freed. Absent in older
    /// recordings.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cuda_largest: Vec<CudaAllocation>,
    /// Sums of `cuda_allocs`, with exact peaks.
    pub cuda_totals: Vec<CudaTotal>,
    /// The same by GPU. Absent in older recordings.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cuda_by_gpu: Vec<CudaGpuTotal>,
    /// Frees of memory whose allocation was not seen, because it is older than the trace or calls were missed.
    #[serde(default)]
    pub cuda_unknown_frees: Option<u64>,
    /// Allocations that the driver refused.
    pub cuda_failures: Vec<CudaFailure>,
    /// Contexts, modules and pools.
    pub cuda_events: Vec<CudaEvent>,
    /// Memory queries of the target, in the order of their answers.
    pub queries: Vec<MemoryQuery>,
    /// Environments of the target's processes, each distinct one once.
    #[serde(default)]
    pub contexts: Vec<ProcessContext>,
    /// File systems in memory.
    #[serde(default)]
    pub tmpfs: Vec<TmpfsUse>,
    /// The largest processes of the machine outside of the target, at the start and at the end. Empty where the target is the
    /// machine, and in older recordings.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub outside: Vec<OutsideProcess>,
    /// Lines of TensorRT-LLM and vLLM about memory and results, at most 10,000; empty if the output was not read.
    #[serde(default)]
    pub log_lines: Vec<LogLine>,
    /// Call stacks.
    pub stacks: Vec<Stack>,
    /// Names of their frames.
    pub symbols: Vec<Symbol>,
}

/// When the maps were read, and why.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Instant {
    pub at_ns: u64,
    /// `system-peak`, `cgroup-peak`, `driver-peak`, `query` (the last answer that a framework sizes itself by) or
    /// `end`; `snapshot` or `now` if there is one reading only.
    pub why: Word<InstantKind>,
}

/// Page allocations other than movable user pages (with profile `deep`: all), by cgroup, kind and kernel stack.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PageAllocs {
    /// Memory cgroup of the allocating task; 0 if it is not the target's.
    pub cgroup: u64,
    /// The allocation has the flag `__GFP_ACCOUNT`.
    pub charged: bool,
    /// Migrate type of the allocation: `unmovable`, `reclaimable`, `movable` or `other`.
    pub mobility: Word<Mobility>,
    /// Id in `stacks`; absent if the kernel could not take a stack.
    pub stack: Option<u32>,
    pub allocs: u64,
    pub frees: u64,
    pub bytes_allocated: u64,
    pub bytes_freed: u64,
    /// Bytes allocated since the trace began and not freed, at each instant; `null` if not read then.
    pub live: Column,
}

/// Page cache of one file, charged to one cgroup.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct FilePages {
    /// Device as `major:minor`. With the inode number it identifies the real file below overlays and bind mounts.
    pub device: String,
    pub inode: u64,
    /// Path below the root of its file system, from the time when the first page was added. `place` has the mount
    /// point.
    pub path: Option<String>,
    /// Bytes in the page cache when the trace began, by cachestat(2) or mincore(2). Who added them is unknown. Absent
    /// if not checked.
    #[serde(default)]
    pub before: Option<u64>,
    /// Memory cgroup to which its pages are charged; 0 if none.
    pub charged_to: u64,
    pub bytes_added: u64,
    pub bytes_removed: u64,
    /// Bytes added since the trace began minus bytes removed, at each instant; negative if older pages were removed.
    pub live: Column<i64>,
    /// The process that added the first page; absent if none was added during the trace.
    pub first_touch: Option<FirstTouch>,
    /// Where the file is; absent in older recordings, and if no mount of its file system is known.
    #[serde(default)]
    pub place: Option<FilePlace>,
    /// Its content when the trace ended; absent if it could not be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<FileContent>,
}

/// Files that were checked for cached pages, including those too small to be listed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CacheSeen {
    /// Number of files.
    pub files: u64,
    /// Their bytes in the page cache.
    pub bytes: u64,
}

/// A file's path with the mount point in front.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FilePlace {
    pub path: String,
    /// What is known of the path at the end of the trace.
    pub state: FileState,
    /// A process in whose mount namespace the path is, if the file system is not mounted where spark-trace runs.
    #[serde(default)]
    pub seen_by: Option<u32>,
    /// Id of this process's container.
    #[serde(default)]
    pub container: Option<String>,
}

/// What is known of a file's path when the trace ends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum FileState {
    /// The path was not tried: another mount namespace, a network or user-space file system, or no time.
    #[default]
    Unchecked,
    /// The path leads to this very file.
    Found,
    /// The file was renamed after its first page was added; the path has the name at the end.
    Renamed,
    /// The path no longer leads to this file: it was removed or moved.
    Gone,
    /// Another file system is mounted over it.
    Hidden,
    /// A block device: blocks of the file system on it, such as directories and inodes.
    BlockDevice,
}

/// Enough of a file's content to distinguish its copies from other files of the same name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FileContent {
    /// Bytes of the file.
    pub size: u64,
    /// Hashes of 64 blocks of 4 KiB, evenly spread from the first to the last whole one: FNV-1a of 64 bits, its halves
    /// xored, 0 for a block of zeros; `null` for a block that was not in the page cache.
    pub blocks: Vec<Option<u32>>,
}

/// How many blocks of a file stand for its content.
pub const CONTENT_BLOCKS: u64 = 64;

/// So many of them must be known of both files, and hold something.
const BLOCKS_TO_DECIDE: usize = 16;

impl FileContent {
    /// Whether two files are copies; nothing where too little of them is known.
    pub fn equals(&self, other: &Self) -> Option<bool> {
        if self.size != other.size {
            return Some(false);
        }
        let both = self.blocks.iter().zip(&other.blocks).filter_map(|(a, b)| (*a).zip(*b));
        let (mut equal, mut differing) = (0, 0);
        for (a, b) in both {
            match (a == b, a) {
                (false, _) => differing += 1,
                (true, 0) => {}
                (true, _) => equal += 1,
            }
        }
        if differing > 0 {
            return Some(false);
        }
        (equal >= BLOCKS_TO_DECIDE).then_some(true)
    }
}

/// The process that brought the first page into the page cache.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct FirstTouch {
    pub at_ns: u64,
    pub pid: u32,
    pub comm: String,
    pub cgroup: u64,
}

/// One change of an address space, of at least `tool.min_region` bytes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Mapping {
    pub at_ns: u64,
    pub pid: u32,
    /// `mmap`, `munmap`, `mremap`, `brk` or `madvise`.
    pub op: String,
    pub address: u64,
    /// Bytes; negative if `brk` made the heap smaller.
    pub length: i64,
    /// `anon`, `shared-anon`, `file` or `heap`; absent if the call does not show it.
    pub kind: Option<String>,
    /// Former length for `mremap`, advice for `madvise`, protection for `mmap`.
    pub detail: Option<i64>,
    /// Id in `stacks` of the user stack.
    pub stack: Option<u32>,
    /// Former address, of `mremap` only; absent in older recordings.
    #[serde(default)]
    pub from: Option<u64>,
}

/// Mappings of one length from one place that no reading shows: each was removed as a whole before the next one. Rows of one
/// place are apart by a second.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BriefMappings {
    pub pid: u32,
    /// As in `mappings`.
    pub kind: Option<String>,
    /// Id in `stacks` of the user stack that mapped.
    pub stack: Option<u32>,
    /// Bytes of each.
    pub length: u64,
    pub calls: u64,
    /// The most that were mapped at once.
    pub most: u64,
    /// When the first was made, and the last removed.
    pub first_ns: u64,
    pub last_ns: u64,
}

/// A mapping and what is resident in it, from /proc/PID/smaps.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Region {
    pub at_ns: u64,
    pub pid: u32,
    pub address: u64,
    pub length: u64,
    pub name: String,
    pub rss: u64,
    pub pss: u64,
    pub anonymous: u64,
    pub swap: u64,
    /// Number of mappings in this row. One row has the sums of all mappings of a process with less than
    /// `tool.min_region` resident.
    #[serde(default)]
    pub smaller: Option<u32>,
}

/// One process.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Process {
    pub pid: u32,
    pub parent: Option<u32>,
    pub comm: String,
    /// The first 64 arguments, at most 4 KiB of them; `serve` and `top` keep 2 MiB of arguments in all.
    pub argv: Vec<String>,
    /// It had more arguments; the last one here ends in `…`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub argv_cut: bool,
    /// Its memory cgroup.
    pub cgroup: u64,
    pub started_ns: Option<u64>,
    pub exec_ns: Option<u64>,
    pub ended_ns: Option<u64>,
    /// As wait(2) reports it: code << 8, or the signal.
    pub exit_status: Option<u32>,
    /// Peak of its resident memory.
    pub rss_peak: Option<u64>,
    /// Index in `contexts`; absent if the process had ended before it could be read, or if there was no room for more.
    #[serde(default)]
    pub context: Option<u32>,
    /// Calls that mapped less than `tool.min_region`, counted and not listed.
    pub small_mmap_calls: u64,
    /// Their bytes.
    pub small_mmap_bytes: u64,
    /// Calls that unmapped less.
    pub small_munmap_calls: u64,
    /// Their bytes.
    pub small_munmap_bytes: u64,
}

impl Process {
    /// What the last argument that is kept ends in where more was there.
    pub const CUT: char = '…';

    pub fn argument_bytes(&self) -> usize {
        self.argv.iter().map(String::len).sum()
    }

    /// Leaves at most so many bytes of the arguments, the mark of the cut included.
    pub fn cut_arguments(&mut self, most: usize) {
        if self.argument_bytes() <= most {
            return;
        }
        let mut left = most.saturating_sub(Self::CUT.len_utf8());
        let mut kept = 0;
        for argument in &mut self.argv {
            kept += 1;
            if argument.len() >= left {
                argument.truncate(argument.floor_char_boundary(left));
                argument.push(Self::CUT);
                argument.shrink_to_fit();
                break;
            }
            left -= argument.len();
        }
        self.argv.truncate(kept);
        self.argv.shrink_to_fit();
        self.argv_cut = true;
    }
}

/// Name of a cgroup id that appears above.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CgroupName {
    pub id: u64,
    pub path: String,
    /// Whether it is the target's.
    pub target: bool,
}

/// Charges seen by hooks on cgroup accounting (profile `deep`).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Charge {
    pub cgroup: u64,
    /// Kernel name of the counter, for example `NR_ANON_MAPPED`.
    pub item: String,
    /// Net change in bytes since the trace began, at each instant.
    pub net: Column<i64>,
}

/// Pages charged to a cgroup of the target by one kernel stack. The kernel charges a task some 64 pages at once, and
/// the task uses them up later: a row has what was charged when the stack was seen.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ChargeStack {
    pub cgroup: u64,
    /// Id in `stacks`; absent if the kernel could not take a stack.
    pub stack: Option<u32>,
    /// Number of charges.
    pub charges: u64,
    pub bytes_charged: u64,
    /// Bytes charged since the trace began, at each instant; `null` if not read then.
    pub charged: Column,
}

/// The memory of a target cgroup and its descendants, by the hooks on its page counter.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ChargeLevel {
    pub cgroup: u64,
    /// Its level when it was first followed, minus what was counted by then: 0 if it was created while tracing; absent
    /// if charges disturbed every reading.
    pub seed: Option<i64>,
    pub bytes_charged: u64,
    pub bytes_uncharged: u64,
    /// Number of times the level was read from the file again, because the kernel had skipped runs of the programs.
    pub reseeds: u64,
    /// Skipped runs, of any cgroup, by the last of these times.
    pub skipped_runs: u64,
    /// Sum of the bytes by which these readings changed the level.
    pub corrected: i64,
}

/// Memory requested of the NVIDIA kernel modules, by process and kernel stack.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DriverAllocs {
    /// `sysmem` (nv_alloc_pages), `pinned` (os_lock_user_pages) or `managed` (uvm_cpu_chunk_alloc).
    pub kind: String,
    /// Memory cgroup of the requesting process; 0 if it is not the target's.
    pub cgroup: u64,
    /// The requesting process; 0 if it is not the target's.
    pub pid: u32,
    /// Id in `stacks`; absent if the kernel could not take a stack.
    pub stack: Option<u32>,
    pub allocs: u64,
    pub frees: u64,
    pub bytes_allocated: u64,
    pub bytes_freed: u64,
    /// Bytes requested since the trace began and not freed, at each instant; `null` if not read then.
    pub live: Column,
}

/// One call stack.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Stack {
    pub id: u32,
    /// `kernel` or `user`.
    pub space: Word<Space>,
    /// Indices into `symbols`, innermost frame first.
    pub frames: Vec<u32>,
    /// How its frames of C and C++ were found, of a user stack: `frame-pointers` or `eh-frame`; the first way, if both gave the same
    /// frames.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub way: Option<Word<Way>>,
}

/// The name of a frame.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Symbol {
    /// Absent where no name was found.
    pub name: Option<String>,
    /// Kernel module, or the file of a user frame: of a frame of Python its source.
    pub module: Option<String>,
    /// Address (kernel) or offset in the file (user); 0 of a frame of Python.
    pub address: u64,
    pub build_id: Option<String>,
    /// The line in the source; absent where it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// It is a frame of Python: `name` is a function with what it is in, `module` its source.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub python: bool,
}
