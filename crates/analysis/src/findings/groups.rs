//! Sources that hypotheses take together.

/// Sources of files' pages.
pub const CACHE: &[&str] = &["file-clean", "file-dirty"];
/// Pages that the NVIDIA modules hold for somebody.
pub const DRIVER: &[&str] = &["nvidia-sysmem", "nvidia-managed"];
/// What of it a cgroup is charged for.
pub const MANAGED: &[&str] = &["nvidia-managed"];
pub const POOL: &[&str] = &["nvidia-pool"];
/// Memory of processes.
pub const HOST: &[&str] = &[
    "anon",
    "anon-pinned",
    "anon-unmapped",
    "shmem",
    "shmem-pinned",
    "swap-cache",
    "hugetlb",
    "huge-zero-page",
    "zswap",
];
/// Memory of the kernel itself.
pub const KERNEL: &[&str] = &[
    "slab-reclaimable",
    "slab-unreclaimable",
    "kernel-stack",
    "page-tables",
    "percpu",
    "vmalloc",
    "sock",
    "kernel-other",
];
/// Free, and not in MemFree.
pub const FREE_LISTS: &[&str] = &["free-percpu-lists"];
