//! What a row of the taxonomy is made of.

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
