//! The taxonomy of memory sources: one row each, in the order every output uses.
//!
//! A source's level is a linear combination of kernel counters, written as [`Term`]s, so the ledger
//! is one fold over this table and `docs/sources.md` is generated from it. Levels are bytes and
//! never negative: a combination that falls below zero (counters are read one after the other, not
//! at one instant) counts as zero.

/// One counter with its sign in a source's level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Term {
    /// Column name as recorded, for example `meminfo.AnonPages` or `stat.anon`.
    pub column: &'static str,
    pub negative: bool,
}

/// Adds `column`.
pub const fn plus(column: &'static str) -> Term {
    Term { column, negative: false }
}

/// Subtracts `column`.
pub const fn minus(column: &'static str) -> Term {
    Term { column, negative: true }
}

/// `column` counts events from the start of the trace instead of being read from a counter: before its first value
/// nothing had happened, so it is zero there and not unknown.
pub fn counts_from_start(column: &str) -> bool {
    FROM_START.iter().any(|prefix| column.starts_with(prefix))
}

const FROM_START: [&str; 2] = ["cuda.", "driver."];

/// Whether a source's pages are charged to a memory cgroup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Charged {
    /// Always, to the cgroup that touched the page first.
    Yes,
    /// Never: these bytes are in no `memory.current`.
    No,
    /// Depends on the allocation (`__GFP_ACCOUNT`); page allocations say what was observed.
    Depends,
}

/// What the kernel can do with a source's pages under pressure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reclaimable {
    Yes,
    /// Only after its dirty pages are written back.
    AfterWriteback,
    /// Only by swapping: no where there is no swap.
    BySwap,
    Partly,
    No,
}

impl Charged {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Yes => "yes",
            Self::No => "no",
            Self::Depends => "depends",
        }
    }
}

impl Reclaimable {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Yes => "yes",
            Self::AfterWriteback => "after writeback",
            Self::BySwap => "by swap",
            Self::Partly => "partly",
            Self::No => "no",
        }
    }
}

/// One row of the taxonomy.
#[derive(Debug, Clone, Copy)]
pub struct Source {
    /// Stable name, used in every output and file.
    pub slug: &'static str,
    /// What it is, in one line.
    pub title: &'static str,
    /// Level on the system plane; empty where no counter gives it.
    pub system: &'static [Term],
    /// Level on the cgroup plane under cgroup v2 (`memory.stat`, hierarchical).
    pub cgroup_v2: &'static [Term],
    /// Level on the cgroup plane under cgroup v1 (`memory.stat` `total_*`, `memory.kmem.*`).
    pub cgroup_v1: &'static [Term],
    /// Level on a device's plane (NVML's readings of one GPU). Rows that have one are on no other plane.
    pub device: &'static [Term],
    pub charged: Charged,
    pub reclaimable: Reclaimable,
    /// Seen as used by cudaMemGetInfo on unified memory (it is MemTotal - MemFree there) and on a discrete GPU.
    pub cuda_used: CudaUsed,
    /// Kernel source a level comes from: file and function.
    pub origin: &'static str,
}

/// Whether cudaMemGetInfo counts a source as used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CudaUsed {
    pub unified: bool,
    pub discrete: bool,
}

/// System memory: used as far as a unified-memory GPU is concerned, invisible to a discrete one.
const SYSTEM_MEMORY: CudaUsed = CudaUsed { unified: true, discrete: false };

/// Memory of the device: on unified memory it is system memory, used there too.
const DEVICE_MEMORY: CudaUsed = CudaUsed { unified: true, discrete: true };

/// Slug of the residual: what the counters of a plane leave unexplained.
pub const UNATTRIBUTED: &str = "unattributed";

/// The taxonomy. Every byte of MemTotal - MemFree lies in exactly one row of the system plane, and every byte of
/// a GPU's own memory that is not free in exactly one row of that device's plane.
pub const SOURCES: &[Source] = &[
    Source {
        slug: "anon",
        title: "anonymous pages mapped by processes (heap, stacks, private mappings)",
        system: &[plus("meminfo.AnonPages"), minus("cuda.pinned_anon"), plus("derived.pinned_unmapped")],
        cgroup_v2: &[plus("stat.anon"), minus("cuda.pinned_anon"), plus("derived.pinned_unmapped")],
        cgroup_v1: &[plus("stat.total_rss"), minus("cuda.pinned_anon"), plus("derived.pinned_unmapped")],
        device: &[],
        charged: Charged::Yes,
        reclaimable: Reclaimable::BySwap,
        cuda_used: SYSTEM_MEMORY,
        origin: "fs/proc/meminfo.c meminfo_proc_show: NR_ANON_MAPPED; mm/memcontrol.c memory_stats",
    },
    Source {
        slug: "anon-pinned",
        title: "anonymous pages that the CUDA driver pinned for the target",
        system: &[plus("cuda.pinned_anon")],
        cgroup_v2: &[plus("cuda.pinned_anon")],
        cgroup_v1: &[plus("cuda.pinned_anon")],
        device: &[],
        charged: Charged::Yes,
        reclaimable: Reclaimable::No,
        cuda_used: SYSTEM_MEMORY,
        origin: "mm/gup.c pin_user_pages; kernel-open/nvidia/os-mlock.c os_lock_user_pages",
    },
    Source {
        slug: "anon-unmapped",
        title: "pages that no process maps and no file has, still held: the rest of huge pages of which parts were \
                unmapped, pages that only a pin or a pipe keeps",
        system: &[plus("derived.anon_unmapped")],
        cgroup_v2: &[plus("derived.anon_unmapped")],
        cgroup_v1: &[plus("derived.anon_unmapped")],
        device: &[],
        charged: Charged::Yes,
        reclaimable: Reclaimable::Partly,
        cuda_used: SYSTEM_MEMORY,
        origin: "the LRU lists beyond NR_ANON_MAPPED, file pages and swap cache; mm/rmap.c __folio_remove_rmap and \
                 mm/huge_memory.c deferred_split_folio: a huge page stays whole until memory is short",
    },
    Source {
        slug: "shmem",
        title: "shared memory and tmpfs pages (memfd, /dev/shm, SysV, shared anonymous)",
        system: &[plus("meminfo.Shmem"), minus("cuda.pinned_shmem")],
        cgroup_v2: &[plus("stat.shmem"), minus("cuda.pinned_shmem")],
        cgroup_v1: &[plus("stat.total_shmem"), minus("cuda.pinned_shmem")],
        device: &[],
        charged: Charged::Yes,
        reclaimable: Reclaimable::BySwap,
        cuda_used: SYSTEM_MEMORY,
        origin: "fs/proc/meminfo.c meminfo_proc_show: NR_SHMEM",
    },
    Source {
        slug: "shmem-pinned",
        title: "shared memory that the CUDA driver pinned for the target",
        system: &[plus("cuda.pinned_shmem")],
        cgroup_v2: &[plus("cuda.pinned_shmem")],
        cgroup_v1: &[plus("cuda.pinned_shmem")],
        device: &[],
        charged: Charged::Yes,
        reclaimable: Reclaimable::No,
        cuda_used: SYSTEM_MEMORY,
        origin: "mm/gup.c pin_user_pages; kernel-open/nvidia/os-mlock.c os_lock_user_pages",
    },
    Source {
        slug: "file-clean",
        title: "page cache of files, clean (with block device buffers)",
        system: &[
            plus("meminfo.Cached"),
            plus("meminfo.Buffers"),
            minus("meminfo.Shmem"),
            minus("meminfo.Dirty"),
            minus("meminfo.Writeback"),
        ],
        cgroup_v2: &[
            plus("stat.file"),
            minus("stat.shmem"),
            minus("stat.file_dirty"),
            minus("stat.file_writeback"),
            minus("stat.swapcached"),
        ],
        cgroup_v1: &[
            plus("stat.total_cache"),
            minus("stat.total_shmem"),
            minus("stat.total_dirty"),
            minus("stat.total_writeback"),
            minus("stat.total_swapcached"),
        ],
        device: &[],
        charged: Charged::Yes,
        reclaimable: Reclaimable::Yes,
        cuda_used: SYSTEM_MEMORY,
        origin: "fs/proc/meminfo.c meminfo_proc_show: NR_FILE_PAGES - swap cache - buffers",
    },
    Source {
        slug: "file-dirty",
        title: "page cache of files, dirty or under writeback",
        system: &[plus("meminfo.Dirty"), plus("meminfo.Writeback")],
        cgroup_v2: &[plus("stat.file_dirty"), plus("stat.file_writeback")],
        cgroup_v1: &[plus("stat.total_dirty"), plus("stat.total_writeback")],
        device: &[],
        charged: Charged::Yes,
        reclaimable: Reclaimable::AfterWriteback,
        cuda_used: SYSTEM_MEMORY,
        origin: "fs/proc/meminfo.c meminfo_proc_show: NR_FILE_DIRTY, NR_WRITEBACK",
    },
    Source {
        slug: "swap-cache",
        title: "swap cache pages that no process maps",
        system: &[plus("derived.swap_cache_unmapped")],
        cgroup_v2: &[plus("derived.swap_cache_unmapped")],
        cgroup_v1: &[plus("derived.swap_cache_unmapped")],
        device: &[],
        charged: Charged::Yes,
        reclaimable: Reclaimable::Yes,
        cuda_used: SYSTEM_MEMORY,
        origin: "mm/swap_state.c __add_to_swap_cache: NR_SWAPCACHE, less the part still in NR_ANON_MAPPED",
    },
    Source {
        slug: "slab-reclaimable",
        title: "slab caches with a shrinker (dentries, inodes)",
        system: &[plus("meminfo.SReclaimable")],
        cgroup_v2: &[plus("stat.slab_reclaimable")],
        cgroup_v1: &[],
        device: &[],
        charged: Charged::Depends,
        reclaimable: Reclaimable::Partly,
        cuda_used: SYSTEM_MEMORY,
        origin: "mm/slub.c account_slab: NR_SLAB_RECLAIMABLE_B",
    },
    Source {
        slug: "slab-unreclaimable",
        title: "slab caches without a shrinker (kmalloc and kernel objects)",
        system: &[plus("meminfo.SUnreclaim")],
        cgroup_v2: &[plus("stat.slab_unreclaimable")],
        cgroup_v1: &[],
        device: &[],
        charged: Charged::Depends,
        reclaimable: Reclaimable::No,
        cuda_used: SYSTEM_MEMORY,
        origin: "mm/slub.c account_slab: NR_SLAB_UNRECLAIMABLE_B",
    },
    Source {
        slug: "kernel-stack",
        title: "kernel stacks of threads",
        system: &[plus("meminfo.KernelStack"), plus("meminfo.ShadowCallStack")],
        cgroup_v2: &[plus("stat.kernel_stack")],
        cgroup_v1: &[],
        device: &[],
        charged: Charged::Yes,
        reclaimable: Reclaimable::No,
        cuda_used: SYSTEM_MEMORY,
        origin: "kernel/fork.c account_kernel_stack: NR_KERNEL_STACK_KB",
    },
    Source {
        slug: "page-tables",
        title: "page tables, of processes and of devices (secondary)",
        system: &[plus("meminfo.PageTables"), plus("meminfo.SecPageTables")],
        cgroup_v2: &[plus("stat.pagetables"), plus("stat.sec_pagetables")],
        cgroup_v1: &[],
        device: &[],
        charged: Charged::Yes,
        reclaimable: Reclaimable::No,
        cuda_used: SYSTEM_MEMORY,
        origin: "include/linux/mm.h pagetable_pte_ctor: NR_PAGETABLE; NR_SECONDARY_PAGETABLE",
    },
    Source {
        slug: "percpu",
        title: "per-CPU allocations",
        system: &[plus("meminfo.Percpu")],
        cgroup_v2: &[plus("stat.percpu")],
        cgroup_v1: &[],
        device: &[],
        charged: Charged::Depends,
        reclaimable: Reclaimable::No,
        cuda_used: SYSTEM_MEMORY,
        origin: "mm/percpu.c pcpu_nr_pages",
    },
    Source {
        slug: "vmalloc",
        title: "vmalloc areas, kernel stacks excluded",
        system: &[plus("derived.vmalloc_without_stacks")],
        cgroup_v2: &[plus("stat.vmalloc")],
        cgroup_v1: &[],
        device: &[],
        charged: Charged::Depends,
        reclaimable: Reclaimable::No,
        cuda_used: SYSTEM_MEMORY,
        origin: "mm/vmalloc.c vmalloc_nr_pages; CONFIG_VMAP_STACK puts kernel stacks in it",
    },
    Source {
        slug: "sock",
        title: "socket buffers charged to a cgroup (on the system plane they lie in slab and unattributed)",
        system: &[],
        cgroup_v2: &[plus("stat.sock")],
        cgroup_v1: &[],
        device: &[],
        charged: Charged::Yes,
        reclaimable: Reclaimable::No,
        cuda_used: SYSTEM_MEMORY,
        origin: "mm/memcontrol.c mem_cgroup_charge_skmem: MEMCG_SOCK",
    },
    Source {
        slug: "hugetlb",
        title: "HugeTLB pool, used and free",
        system: &[plus("meminfo.Hugetlb")],
        cgroup_v2: &[plus("stat.hugetlb")],
        cgroup_v1: &[],
        device: &[],
        charged: Charged::Depends,
        reclaimable: Reclaimable::No,
        cuda_used: SYSTEM_MEMORY,
        origin: "mm/hugetlb.c hugetlb_report_meminfo; charged only under memory_hugetlb_accounting",
    },
    Source {
        slug: "huge-zero-page",
        title: "the huge zero page: one for all anonymous memory in huge mappings that was only read",
        system: &[plus("kpageflags.huge_zero_page")],
        cgroup_v2: &[],
        cgroup_v1: &[],
        device: &[],
        charged: Charged::No,
        reclaimable: Reclaimable::Partly,
        cuda_used: SYSTEM_MEMORY,
        origin: "mm/huge_memory.c get_huge_zero_folio: in no counter; its flags, fs/proc/page.c stable_page_flags. \
                 Freed by a shrinker once no process has it",
    },
    Source {
        slug: "zswap",
        title: "compressed swap pages held in memory",
        system: &[plus("meminfo.Zswap")],
        cgroup_v2: &[plus("stat.zswap")],
        cgroup_v1: &[],
        device: &[],
        charged: Charged::Yes,
        reclaimable: Reclaimable::AfterWriteback,
        cuda_used: SYSTEM_MEMORY,
        origin: "mm/zswap.c zswap_total_pages",
    },
    Source {
        slug: "kernel-other",
        title: "kernel pages of no class above (pipe buffers, driver pages charged to a cgroup); under cgroup v1 all charged kernel memory",
        system: &[plus("meminfo.KReclaimable"), minus("meminfo.SReclaimable"), plus("meminfo.Bounce")],
        cgroup_v2: &[
            plus("stat.kernel"),
            minus("stat.slab_reclaimable"),
            minus("stat.slab_unreclaimable"),
            minus("stat.kernel_stack"),
            minus("stat.pagetables"),
            minus("stat.sec_pagetables"),
            minus("stat.percpu"),
            minus("stat.vmalloc"),
            minus("driver.nvidia_managed"),
        ],
        cgroup_v1: &[plus("memory.kmem.usage_in_bytes")],
        device: &[],
        charged: Charged::Depends,
        reclaimable: Reclaimable::Partly,
        cuda_used: SYSTEM_MEMORY,
        origin: "mm/memcontrol.c memory_stats: MEMCG_KMEM; mm/vmstat.c NR_KERNEL_MISC_RECLAIMABLE",
    },
    Source {
        slug: "nvidia-sysmem",
        title: "NVIDIA driver system memory (RM sysmem: cudaMalloc on unified memory, cudaMallocHost); what was held before the trace is an estimate",
        system: &[plus("driver.nvidia_sysmem"), plus("driver.nvidia_before")],
        cgroup_v2: &[],
        cgroup_v1: &[],
        device: &[],
        charged: Charged::No,
        reclaimable: Reclaimable::No,
        cuda_used: SYSTEM_MEMORY,
        origin: "kernel-open/nvidia/nv-vm.c nv_alloc_system_pages",
    },
    Source {
        slug: "nvidia-managed",
        title: "NVIDIA managed memory resident in system memory (UVM chunks and tables)",
        system: &[plus("driver.nvidia_managed")],
        cgroup_v2: &[plus("driver.nvidia_managed")],
        cgroup_v1: &[],
        device: &[],
        charged: Charged::Depends,
        reclaimable: Reclaimable::No,
        cuda_used: SYSTEM_MEMORY,
        origin: "kernel-open/nvidia-uvm/uvm_pmm_sysmem.c uvm_cpu_chunk_alloc",
    },
    Source {
        slug: "nvidia-pool",
        title: "pages the NVIDIA driver keeps after freeing (driver 590 and later)",
        system: &[plus("driver.nvidia_pool")],
        cgroup_v2: &[],
        cgroup_v1: &[],
        device: &[],
        charged: Charged::No,
        reclaimable: Reclaimable::Yes,
        cuda_used: SYSTEM_MEMORY,
        origin: "kernel-open/nvidia/nv-vm.c sysmem_page_pools and its shrinkers",
    },
    Source {
        slug: "free-percpu-lists",
        title: "free pages on per-CPU lists: not in MemFree, in nobody's use",
        system: &[plus("zoneinfo.pcp_count")],
        cgroup_v2: &[],
        cgroup_v1: &[],
        device: &[],
        charged: Charged::No,
        reclaimable: Reclaimable::Yes,
        cuda_used: SYSTEM_MEMORY,
        origin: "mm/vmstat.c zoneinfo_show_print: per_cpu_pages.count; mm/page_alloc.c drain_pages",
    },
    Source {
        slug: "gpu-allocated",
        title: "device memory that the target allocated through CUDA and has not freed",
        system: &[],
        cgroup_v2: &[],
        cgroup_v1: &[],
        device: &[plus("cuda.live")],
        charged: Charged::No,
        reclaimable: Reclaimable::No,
        cuda_used: DEVICE_MEMORY,
        origin: "calls of libcuda (cuMemAlloc_v2 and its kin), bytes returned less bytes freed",
    },
    Source {
        slug: "gpu-shared-process",
        title: "what processes of the target that use several GPUs hold on this one, allocations and contexts together: \
                calls do not say which GPU they are for",
        system: &[],
        cgroup_v2: &[],
        cgroup_v1: &[],
        device: &[plus("cuda.mixed")],
        charged: Charged::No,
        reclaimable: Reclaimable::No,
        cuda_used: DEVICE_MEMORY,
        origin: "NVML nvmlDeviceGetComputeRunningProcesses_v3, usedGpuMemory of processes that are on several devices",
    },
    Source {
        slug: "gpu-before",
        title: "what the target's processes held on the device before the trace began and still hold: allocations and \
                contexts together",
        system: &[],
        cgroup_v2: &[],
        cgroup_v1: &[],
        device: &[plus("derived.gpu_before")],
        charged: Charged::No,
        reclaimable: Reclaimable::No,
        cuda_used: DEVICE_MEMORY,
        origin: "NVML nvmlDeviceGetComputeRunningProcesses_v3 at the first reading, usedGpuMemory; later no more than a \
                 process holds beyond its calls",
    },
    Source {
        slug: "gpu-context",
        title: "what the target's processes hold on the device beyond that (contexts, modules, the driver's share); \
                all they took since the trace began where CUDA calls are not followed",
        system: &[],
        cgroup_v2: &[],
        cgroup_v1: &[],
        device: &[
            plus("derived.gpu_target"),
            minus("cuda.live"),
            minus("cuda.mixed"),
            minus("derived.gpu_before"),
        ],
        charged: Charged::No,
        reclaimable: Reclaimable::No,
        cuda_used: DEVICE_MEMORY,
        origin: "NVML nvmlDeviceGetComputeRunningProcesses_v3, usedGpuMemory of the target's processes",
    },
    Source {
        slug: "gpu-other-processes",
        title: "what processes that are not the target's hold on the device",
        system: &[],
        cgroup_v2: &[],
        cgroup_v1: &[],
        device: &[plus("derived.gpu_others")],
        charged: Charged::No,
        reclaimable: Reclaimable::No,
        cuda_used: DEVICE_MEMORY,
        origin: "NVML nvmlDeviceGetComputeRunningProcesses_v3, usedGpuMemory of the other processes",
    },
    Source {
        slug: "gpu-reserved",
        title: "device memory that driver and firmware set aside",
        system: &[],
        cgroup_v2: &[],
        cgroup_v1: &[],
        device: &[plus("memory.reserved")],
        charged: Charged::No,
        reclaimable: Reclaimable::No,
        cuda_used: CudaUsed { unified: false, discrete: false },
        origin: "NVML nvmlDeviceGetMemoryInfo_v2, reserved: no part of used there",
    },
    Source {
        slug: UNATTRIBUTED,
        title: "what the counters of the plane leave unexplained",
        system: &[],
        cgroup_v2: &[],
        cgroup_v1: &[],
        device: &[],
        charged: Charged::Depends,
        reclaimable: Reclaimable::No,
        cuda_used: SYSTEM_MEMORY,
        origin: "the plane's counter less the rows above: driver pages, early boot allocations, charge stock",
    },
];

/// The row of `slug`.
pub fn by_slug(slug: &str) -> Option<&'static Source> {
    SOURCES.iter().find(|s| s.slug == slug)
}

pub mod expected;
