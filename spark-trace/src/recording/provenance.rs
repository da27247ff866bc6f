//! Provenance: who took memory, by which path and when, as programs in the kernel counted and told it.
//!
//! Units and absence as in the rest of a recording (`schema.rs`).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::column::Column;
use super::context::{LogLine, ProcessContext, TmpfsUse};
use super::cuda::{CudaAllocs, CudaEvent, CudaFailure, CudaTotal, Query};

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Provenance {
    /// When the kernel-side aggregates were read; `live` vectors have one element per instant.
    pub instants: Vec<Instant>,
    pub page_allocs: Vec<PageAllocs>,
    pub files: Vec<FilePages>,
    /// What was looked at for files that were cached before; absent where nothing was.
    #[serde(default)]
    pub cache_seen: Option<CacheSeen>,
    pub mappings: Vec<Mapping>,
    pub regions: Vec<Region>,
    pub processes: Vec<Process>,
    pub cgroups: Vec<CgroupName>,
    pub charges: Vec<Charge>,
    /// Empty where the hooks on page counters do not attach.
    #[serde(default)]
    pub charge_stacks: Vec<ChargeStack>,
    #[serde(default)]
    pub charge_levels: Vec<ChargeLevel>,
    /// Empty where the NVIDIA modules are not loaded, or hooks on them do not attach.
    #[serde(default)]
    pub driver_allocs: Vec<DriverAllocs>,
    pub cuda_allocs: Vec<CudaAllocs>,
    pub cuda_totals: Vec<CudaTotal>,
    /// Frees of memory whose allocation was not seen: it is older than the trace, or calls were missed.
    #[serde(default)]
    pub cuda_unknown_frees: Option<u64>,
    pub cuda_failures: Vec<CudaFailure>,
    pub cuda_events: Vec<CudaEvent>,
    /// Every time the target was told how much memory there is, in the order of the answers.
    pub queries: Vec<Query>,
    /// What surrounds the target's processes, each set once, in the order they were met.
    #[serde(default)]
    pub contexts: Vec<ProcessContext>,
    /// What the file systems that live in memory held, when the trace began and when it ended.
    #[serde(default)]
    pub tmpfs: Vec<TmpfsUse>,
    /// Lines that the traced command wrote about its memory; empty where its output was not read.
    #[serde(default)]
    pub log_lines: Vec<LogLine>,
    pub stacks: Vec<Stack>,
    pub symbols: Vec<Symbol>,
}

/// Why details are read when the target was told how much memory is free.
pub const QUERY: &str = "query";

/// Why details are read when the target has ended.
pub const END: &str = "end";

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Instant {
    pub at_ns: u64,
    /// `system-peak`, `cgroup-peak`, `driver-peak`, `query` (the target was told how much memory is free) or `end`;
    /// `snapshot` or `now` where one reading is all there is.
    pub why: String,
}

/// Page allocations that are not movable user pages (with profile `deep`: all), by cgroup, kind and kernel stack.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PageAllocs {
    /// Memory cgroup of the allocating task; 0 for all that are not the target's.
    pub cgroup: u64,
    /// The allocation asked to be charged (`__GFP_ACCOUNT`).
    pub charged: bool,
    /// `unmovable`, `reclaimable`, `movable` or `other`: the allocation's migrate type.
    pub mobility: String,
    /// Id in `stacks`; absent where the kernel could not take one.
    pub stack: Option<u32>,
    pub allocs: u64,
    pub frees: u64,
    pub bytes_allocated: u64,
    pub bytes_freed: u64,
    /// Bytes allocated since the trace began and not freed, at each instant; absent where not read then.
    pub live: Column,
}

/// Page cache of one file charged to one cgroup.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct FilePages {
    /// Device as `major:minor`; with the inode number this is the real file below overlays and bind mounts.
    pub device: String,
    pub inode: u64,
    /// Path as the kernel knew it when its first page was added, below the root of its file system; `place` has the mount
    /// point.
    pub path: Option<String>,
    /// Bytes in the page cache when the trace began, as cachestat(2) or mincore(2) told; nobody saw who added them.
    /// Absent where that was not asked.
    #[serde(default)]
    pub before: Option<u64>,
    /// Memory cgroup its pages are charged to; 0 where none.
    pub charged_to: u64,
    pub bytes_added: u64,
    pub bytes_removed: u64,
    /// Added since the trace began less removed, at each instant; negative where older pages went.
    pub live: Column<i64>,
    /// Who added the first page that was seen to be added; absent where none was.
    pub first_touch: Option<FirstTouch>,
    /// Where it is to be found; absent in older recordings, and where no mount of its file system is known.
    #[serde(default)]
    pub place: Option<FilePlace>,
    /// What it contained when the trace ended; absent where that was not to be had.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<FileContent>,
}

/// Files of which it was asked how much of them is cached, among them those that are too small to be listed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CacheSeen {
    pub files: u64,
    /// Cached of all of them.
    pub bytes: u64,
}

/// A file's path with the mount point in front.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FilePlace {
    pub path: String,
    pub state: FileState,
    /// A process in whose mount namespace the path is, where the file system is mounted there and not where
    /// spark-trace runs.
    #[serde(default)]
    pub seen_by: Option<u32>,
    /// Id of the container that this process is in.
    #[serde(default)]
    pub container: Option<String>,
}

/// What is known of a file's path when the trace ends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum FileState {
    /// The path was not tried: another mount namespace, a file system of the network or in user space, or no time.
    #[default]
    Unchecked,
    /// The path leads to this very file.
    Found,
    /// The file was renamed since its first page was added: this is its name at the end.
    Renamed,
    /// Nothing there is this file any more: it was removed, or moved elsewhere.
    Gone,
    /// Another file system is mounted over it.
    Hidden,
    /// It is a block device: blocks of the file system on it, such as directories and inodes.
    BlockDevice,
}

/// Of a file's content so much that copies of it can be told from files of the same name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FileContent {
    pub size: u64,
    /// Hashes of [`CONTENT_BLOCKS`] blocks of 4 KiB, evenly spread from the first to the last whole one: FNV-1a of 64
    /// bits, its halves xored, 0 for a block of zeros; `null` for one that was not in the page cache.
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

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct FirstTouch {
    pub at_ns: u64,
    pub pid: u32,
    pub comm: String,
    pub cgroup: u64,
}

/// One change of an address space, at least `tool.min_region` long.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Mapping {
    pub at_ns: u64,
    pub pid: u32,
    /// `mmap`, `munmap`, `mremap`, `brk` or `madvise`.
    pub op: String,
    pub address: u64,
    /// Bytes; for `brk` negative where the heap shrank.
    pub length: i64,
    /// `anon`, `shared-anon`, `file`, `heap`; absent where the operation does not tell.
    pub kind: Option<String>,
    /// Former length for `mremap`, advice for `madvise`, protection for `mmap`.
    pub detail: Option<i64>,
    /// Id in `stacks` of the user stack.
    pub stack: Option<u32>,
    /// Where a `mremap` took the range from; absent of other operations, and in older recordings.
    #[serde(default)]
    pub from: Option<u64>,
}

/// A mapping with what was resident in it, from /proc/PID/smaps.
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
    /// So many mappings, each with less than `tool.min_region` resident, that are one row: the sums of a process's.
    #[serde(default)]
    pub smaller: Option<u32>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Process {
    pub pid: u32,
    pub parent: Option<u32>,
    pub comm: String,
    /// The first 64 arguments, at most 4 KiB of them; less where `serve` or `top` has very many long ones.
    pub argv: Vec<String>,
    /// It had more than that; the last argument that is kept then ends in `…`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub argv_cut: bool,
    pub cgroup: u64,
    pub started_ns: Option<u64>,
    pub exec_ns: Option<u64>,
    pub ended_ns: Option<u64>,
    /// As wait(2) reports it: code << 8, or the signal.
    pub exit_status: Option<u32>,
    /// High-water mark of resident memory.
    pub rss_peak: Option<u64>,
    /// Index in `contexts`; absent where the process was gone before it could be read, and where there is no room for more.
    #[serde(default)]
    pub context: Option<u32>,
    /// Mappings shorter than `tool.min_region`, counted instead of listed.
    pub small_mmap_calls: u64,
    pub small_mmap_bytes: u64,
    pub small_munmap_calls: u64,
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

/// Name of a cgroup id that occurs above, target or not.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CgroupName {
    pub id: u64,
    pub path: String,
    pub target: bool,
}

/// Charges observed by hooks on cgroup accounting (profile `deep`): net change of a counter since the trace began.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Charge {
    pub cgroup: u64,
    /// Kernel name of the counter, for example `NR_ANON_MAPPED`.
    pub item: String,
    /// Bytes at each instant.
    pub net: Column<i64>,
}

/// Pages charged to a target cgroup's memory by one kernel stack. A task is charged some 64 pages at once and draws on
/// them: a row has what was charged when the stack was seen, not what was taken from it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ChargeStack {
    pub cgroup: u64,
    /// Id in `stacks`; absent where the kernel could not take one.
    pub stack: Option<u32>,
    /// Times it charged.
    pub charges: u64,
    pub bytes_charged: u64,
    /// Bytes charged since the trace began, at each instant; absent where not read then.
    pub charged: Column,
}

/// The memory of a target cgroup, with its descendants, as hooks on its page counter count it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ChargeLevel {
    pub cgroup: u64,
    /// What it held when it was first followed, less what had been counted by then: 0 where it was created while tracing;
    /// absent where no reading was found that nothing was charged or uncharged beside.
    pub seed: Option<i64>,
    pub bytes_charged: u64,
    pub bytes_uncharged: u64,
    /// The kernel skipped runs of the programs, and the level was set anew from the file.
    pub reseeds: u64,
    /// Runs skipped by the time of the last of them, of any cgroup.
    pub skipped_runs: u64,
    /// Bytes that setting it anew has changed it by, all together.
    pub corrected: i64,
}

/// What the NVIDIA kernel modules were asked for, by process and kernel stack, where hooks on their functions attach.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DriverAllocs {
    /// `sysmem` (nv_alloc_pages), `pinned` (os_lock_user_pages) or `managed` (uvm_cpu_chunk_alloc).
    pub kind: String,
    /// Memory cgroup and process that asked; 0 for all that are not the target's.
    pub cgroup: u64,
    pub pid: u32,
    /// Id in `stacks`; absent where the kernel could not take one.
    pub stack: Option<u32>,
    pub allocs: u64,
    pub frees: u64,
    pub bytes_allocated: u64,
    pub bytes_freed: u64,
    /// Bytes asked for since the trace began and not given back, at each instant; absent where not read then.
    pub live: Column,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Stack {
    pub id: u32,
    /// `kernel` or `user`.
    pub space: String,
    /// Indices into `symbols`, innermost frame first.
    pub frames: Vec<u32>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Symbol {
    /// Absent where no name was found.
    pub name: Option<String>,
    /// Kernel module, or the file a user frame lies in.
    pub module: Option<String>,
    /// Address (kernel) or offset in the file (user).
    pub address: u64,
    pub build_id: Option<String>,
}
