//! The hypotheses: one row each. `docs/reference/findings.md` is generated from this table.

use super::case::{Case, Judgement};
use super::groups::{CACHE, DRIVER, FREE_LISTS, HOST, KERNEL, MANAGED, POOL};
use super::{accounting, cache, causes, copies, device, memory, surroundings};
use crate::view::Scope;

/// Slug of the most common claim.
pub const DOUBLE_COUNTING: &str = "double-counting";

/// One explanation of a difference.
#[derive(Debug)]
pub struct Hypothesis {
    pub slug: &'static str,
    /// For headlines and tables.
    pub title: &'static str,
    /// The claim in a sentence.
    pub claim: &'static str,
    /// Hooks without which, or with losses of which, it is untestable.
    pub hooks: &'static [&'static str],
    /// It compares: one run alone does not suffice.
    pub of_two: bool,
    /// Planes whose levels decide; empty where it is about the runs, whatever the plane.
    pub planes: &'static [Scope],
    /// Sources whose bytes are this row's own. No source is in two rows of one plane, so that shares add up.
    pub sources: &'static [&'static str],
    pub judge: fn(&Case<'_>) -> Judgement,
    /// How it is judged, for the documentation.
    pub test: &'static str,
    /// The experiment that would decide it, or make sure.
    pub next: &'static str,
}

/// What is charged to the target, and the machine's memory.
const BOTH: &[Scope] = &[Scope::Cgroup, Scope::System];
/// Causes that no cgroup is charged for, and figures that only the machine has.
const MACHINE: &[Scope] = &[Scope::System];
const TARGET: &[Scope] = &[Scope::Cgroup];
const GPUS: &[Scope] = &[Scope::Device];
const RUNS: &[Scope] = &[];

pub const HYPOTHESES: &[Hypothesis] = &[
    Hypothesis {
        slug: DOUBLE_COUNTING,
        title: "double counting",
        claim: "The kernel counts the same memory twice when it is used in a cgroup.",
        hooks: &[],
        of_two: false,
        planes: MACHINE,
        sources: &[],
        judge: accounting::double_counting,
        test: "Four tests. The sources add up to more than MemTotal - MemFree. Pages of the NVIDIA driver that are charged to no cgroup are also in the charge of one. MemFree has fallen by more than all sources have grown, free pages that \
               were being reported to a hypervisor left out. cuMemGetInfo returns another value than MemFree in one run only. One positive test supports the claim; it is refuted if none is and the third is decided to within 2 %.",
        next: "Run A and B in turn (ABBA) with `sync; echo 3 > /proc/sys/vm/drop_caches` before each: a double count \
               would stay, page cache would not",
    },
    Hypothesis {
        slug: "page-cache",
        title: "page cache",
        claim: "The difference is page cache: reclaimable, but counted as used.",
        hooks: &[],
        of_two: false,
        planes: BOTH,
        sources: CACHE,
        judge: cache::page_cache,
        test: "Difference of Cached + Buffers - Shmem; the files, from the hooks on the page cache; page cache from before the run; files that A left cached if B began later on the same boot.",
        next: "`sync; echo 3 > /proc/sys/vm/drop_caches` before the reading that matters, and record both again",
    },
    Hypothesis {
        slug: "duplicate-files",
        title: "files cached twice",
        claim: "The same file is in the page cache under several inodes: an image's copy and the host's.",
        hooks: &["file-add", "file-remove"],
        of_two: false,
        planes: BOTH,
        sources: &[],
        judge: copies::duplicates,
        test: "Files with different inodes, equal sizes and equal contents, within one run or between what A left cached and \
               what B has cached. Contents are compared by up to 64 blocks of 4 KiB of each file, read from the page cache \
               when the trace ends; 16 must be known of both and not zero. Files of one name with unknown contents make it inconclusive, and so does more page cache from before B than from before A. Its bytes are part of page cache.",
        next: "Mount the directory into the container (`-v`) instead of copying it into the image, and record again",
    },
    Hypothesis {
        slug: "dirty-files",
        title: "files not written back",
        claim: "The difference is files that are not yet written back: dropping caches does not free them.",
        hooks: &[],
        of_two: false,
        planes: BOTH,
        sources: &[],
        judge: cache::dirty,
        test: "Difference of Dirty + Writeback. Its bytes are part of page cache.",
        next: "`sync` before the reading that matters, and record both again",
    },
    Hypothesis {
        slug: "leftovers",
        title: "leftovers of earlier processes",
        claim: "The difference is memory that earlier processes left behind: files in tmpfs, shared memory.",
        hooks: &[],
        of_two: false,
        planes: MACHINE,
        sources: &[],
        judge: surroundings::leftovers,
        test: "Difference of Shmem at the start of the runs, and the files in memory file systems at that time.",
        next: "Remove what is in /dev/shm and /tmp of earlier runs (`ls -la /dev/shm; ipcs -m`), and record again",
    },
    Hypothesis {
        slug: "driver-memory",
        title: "memory of the NVIDIA driver",
        claim: "The NVIDIA driver itself uses more system memory: cudaMalloc on unified memory, managed memory, tables.",
        hooks: &["page-alloc"],
        of_two: false,
        planes: MACHINE,
        sources: DRIVER,
        judge: memory::driver,
        test: "Difference of the pages that stacks through the nvidia modules have allocated and not freed.",
        next: "Compare the CUDA calls (`spark-trace diff`, CUDA section): with equal calls, more pages are the driver's own",
    },
    Hypothesis {
        slug: "managed-memory",
        title: "CUDA managed memory",
        claim: "The difference is managed memory that the GPU's driver has in system memory and charges to the target.",
        hooks: &["page-alloc"],
        of_two: false,
        planes: TARGET,
        sources: MANAGED,
        judge: memory::managed,
        test: "Difference of the pages that stacks through nvidia-uvm have allocated and not freed.",
        next: "Compare the CUDA calls (`spark-trace diff`, CUDA section)",
    },
    Hypothesis {
        slug: "gpu-allocations",
        title: "memory allocated through CUDA",
        claim: "The difference is device memory that the target allocated through CUDA.",
        hooks: &[],
        of_two: false,
        planes: GPUS,
        sources: device::ALLOCATED,
        judge: device::allocated,
        test: "Difference of allocated minus freed bytes of libcuda calls.",
        next: "`spark-trace diff` lists the calls, `show` the stacks (CUDA section)",
    },
    Hypothesis {
        slug: "gpu-contexts",
        title: "contexts and modules on the GPU",
        claim: "The difference is device memory of the target's processes beyond their allocations.",
        hooks: &[],
        of_two: false,
        planes: GPUS,
        sources: device::CONTEXTS,
        judge: device::contexts,
        test: "Difference of NVML's bytes of the target's processes minus their CUDA allocations. If calls were not followed, allocations are in it.",
        next: "`spark-trace doctor` says whether CUDA calls are watched; CUDA_MODULE_LOADING=LAZY loads fewer modules",
    },
    Hypothesis {
        slug: "gpu-others",
        title: "other processes on the GPU",
        claim: "The difference is device memory of processes outside the target.",
        hooks: &[],
        of_two: false,
        planes: GPUS,
        sources: device::OTHERS,
        judge: device::others,
        test: "Difference of NVML's bytes of other processes, and of the reserved part.",
        next: "`nvidia-smi` names them; end them and record again",
    },
    Hypothesis {
        slug: "driver-pool",
        title: "pages the NVIDIA driver keeps",
        claim: "The NVIDIA driver (590 and later) keeps freed pages in pools that are charged to no cgroup.",
        hooks: &["page-alloc"],
        of_two: false,
        planes: MACHINE,
        sources: POOL,
        judge: memory::pool,
        test: "Difference of the pages that the driver's shrinkers count; where the kernel does not show shrinkers, the pages \
               that the driver uses beyond the requested ones (kprobes).",
        next: "`echo 2 > /proc/sys/vm/drop_caches` shrinks the pools; or load the module with \
               NVreg_EnableSystemMemoryPools=0 and record again",
    },
    Hypothesis {
        slug: "host-memory",
        title: "memory of processes",
        claim: "The difference is memory of the processes: heaps, pinned buffers, huge pages, shared memory.",
        hooks: &[],
        of_two: false,
        planes: BOTH,
        sources: HOST,
        judge: memory::host,
        test: "Difference of anonymous, shared and pinned memory, on the system plane minus leftovers of earlier processes.",
        next: "`spark-trace diff --plane cgroup` names the mappings and stacks; compare MALLOC_ARENA_MAX, thread counts and \
               transparent huge pages",
    },
    Hypothesis {
        slug: "huge-page-rest",
        title: "huge pages that are mapped in part",
        claim: "Parts of huge pages were freed and the kernel keeps the pages whole: memory that no process maps and that stays charged.",
        hooks: &[],
        of_two: false,
        planes: BOTH,
        sources: &[],
        judge: causes::huge_page_rest,
        test: "Difference of the LRU lists minus mapped anonymous memory, page cache and swap cache. It is attributed to huge pages if the kernel counts some that are mapped in part (nr_anon_partially_mapped) or has queued some for \
               splitting (thp_deferred_split_page). Its bytes are part of memory of processes.",
        next: "Free memory by whole huge pages (2 MiB, aligned), or run the program without transparent huge pages \
               (MADV_NOHUGEPAGE, `prctl PR_SET_THP_DISABLE`, or `madvise` or `never` in \
               /sys/kernel/mm/transparent_hugepage/enabled); a write to the cgroup's memory.reclaim makes the kernel split them",
    },
    Hypothesis {
        slug: "kernel-memory",
        title: "kernel memory",
        claim: "The difference is memory of the kernel: slab, page tables, kernel stacks, vmalloc.",
        hooks: &[],
        of_two: false,
        planes: BOTH,
        sources: KERNEL,
        judge: memory::kernel,
        test: "Difference of SReclaimable, SUnreclaim, PageTables, KernelStack, Percpu and VmallocUsed.",
        next: "`spark-trace show FILE kernel` lists the kernel stacks of the pages",
    },
    Hypothesis {
        slug: "sockets",
        title: "data in sockets",
        claim: "Data that was sent and not yet read waits in socket buffers.",
        hooks: &[],
        of_two: false,
        planes: BOTH,
        sources: &[],
        judge: causes::sockets,
        test: "Growth of TCP and UDP socket memory (/proc/net/sockstat; of a cgroup `sock` of memory.stat, kmem.tcp.usage under v1), or of pages by kernel stacks through socket buffers, whichever is larger: other sockets are in no counter. Its bytes are part of kernel memory, or unattributed.",
        next: "`ss -tmpn` and `ss -xp` list the queues (Recv-Q, Send-Q) and their processes; read faster, or limit the queue \
               (SO_RCVBUF, SO_SNDBUF, net.ipv4.tcp_rmem)",
    },
    Hypothesis {
        slug: "file-names",
        title: "cached names and inodes of files",
        claim: "Names and inodes of files that were looked at stay in the kernel's caches, those of missing files as well.",
        hooks: &["page-alloc"],
        of_two: false,
        planes: BOTH,
        sources: &[],
        judge: causes::names,
        test: "Slab pages by kernel stacks through dentries and inodes (d_alloc, alloc_inode). Its bytes are part of \
               kernel memory.",
        next: "`echo 2 > /proc/sys/vm/drop_caches` frees unused ones; look for programs that walk large trees, or look up files that do not exist (`strace -e trace=%file`)",
    },
    Hypothesis {
        slug: "ebpf-maps",
        title: "eBPF maps",
        claim: "The difference is maps of eBPF programs: most kinds allocate all entries when they are created.",
        hooks: &["page-alloc"],
        of_two: false,
        planes: BOTH,
        sources: &[],
        judge: causes::bpf_maps,
        test: "Pages by kernel stacks through the creation of maps (array_map_alloc, htab_map_alloc). Its bytes are \
               part of kernel memory.",
        next: "`bpftool map` lists the maps with their sizes; use fewer entries (max_entries), or BPF_F_NO_PREALLOC for hash \
               maps",
    },
    Hypothesis {
        slug: "free-lists",
        title: "free pages at the CPUs",
        claim: "The difference is free pages on per-CPU lists, which MemFree does not count.",
        hooks: &[],
        of_two: false,
        planes: MACHINE,
        sources: FREE_LISTS,
        judge: memory::free_lists,
        test: "Difference of the pages on per-CPU lists (count of each pageset in /proc/zoneinfo; mm/page_alloc.c \
               free_frozen_page_commit).",
        next: "repeat both runs: per-CPU lists change from run to run, and the kernel drains them when memory is short (mm/page_alloc.c drain_all_pages)",
    },
    Hypothesis {
        slug: "environment",
        title: "another environment",
        claim: "The runs did not use the same CUDA library, environment, privileges or limits.",
        hooks: &[],
        of_two: true,
        planes: RUNS,
        sources: &[],
        judge: surroundings::environment,
        test: "Path and build id of libcuda and libnvidia-ml as they were mapped; environment variables that GPU libraries \
               and allocators read; capabilities; limits.",
        next: "Give both runs the same library and environment (`--env`, `--ulimit`, `--cap-add`), and record again",
    },
    Hypothesis {
        slug: "memory-limit",
        title: "a memory limit that was read",
        claim: "A library read a cgroup's memory limit and sized itself by it.",
        hooks: &["mapping"],
        of_two: false,
        planes: RUNS,
        sources: &[],
        judge: surroundings::memory_limit,
        test: "Answered reads of memory.max, memory.high or memory.limit_in_bytes by the target's processes whose value is \
               a limit below the machine's memory.",
        next: "Run the container without `--memory`, or with one above the machine's memory, and record again",
    },
    Hypothesis {
        slug: "limit-reclaim",
        title: "reclaim under the target's limit",
        claim: "The target's cgroup is at its memory limit: the kernel takes pages of files from it, and it reads them again.",
        hooks: &[],
        of_two: false,
        planes: RUNS,
        sources: &[],
        judge: causes::limit,
        test: "The limit of the target's cgroup (memory.max, memory.high, memory.limit_in_bytes), how often it was reached \
               (memory.events, memory.failcnt), and the growth of workingset_refault_file of the cgroup.",
        next: "Raise the limit (`--memory`, memory.max) above what the target maps and reads, and record again",
    },
    Hypothesis {
        slug: "reclaim",
        title: "reclaim",
        claim: "The machine was short of memory during the run: the level depends on earlier programs.",
        hooks: &[],
        of_two: false,
        planes: MACHINE,
        sources: &[],
        judge: surroundings::reclaim,
        test: "Growth of pgsteal, workingset_refault_file and pswpout of the machine over the run. Refaults of the target's cgroups at their own limit are left out.",
        next: "Drop caches before each run, so that each begins with memory free, and record again",
    },
    Hypothesis {
        slug: "pin-leak",
        title: "a leak of pinned pages",
        claim: "Pages stay pinned after the process that pinned them has ended.",
        hooks: &[],
        of_two: false,
        planes: MACHINE,
        sources: &[],
        judge: surroundings::pin_leak,
        test: "nr_foll_pin_acquired minus nr_foll_pin_released, after the target's end against before its start.",
        next: "Watch `grep foll_pin /proc/vmstat` over several runs; a leak grows with each",
    },
];
