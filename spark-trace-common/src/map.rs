//! Capacities of the kernel-side maps, with the reason for each, and the loss counters.
//!
//! Every map that can be full has a [`LossKind`]: what it could not take is counted, never silent.

/// Frames kept of a kernel stack. Unwinding costs by the frame; allocation sites and the module that
/// asked for the page lie well within this depth.
pub const KERNEL_STACK_DEPTH: usize = 24;

/// Frames kept of a user stack: taken only for large regions, so depth is worth its price.
pub const USER_STACK_DEPTH: usize = 48;

/// Uses of a kernel stack before it is taken anew at the same place.
pub const STACK_USES: u32 = 63;

/// Distinct kernel stacks. A busy machine shows a few thousand allocation sites; the kernel keeps one stack
/// for each hash bucket, so the map is several times larger to keep collisions rare.
pub const KERNEL_STACKS: u32 = 16_384;

/// Rows of page allocations: (cgroup, stack, kind).
pub const PAGE_AGGREGATES: u32 = 16_384;

/// Kernel page allocations alive at once that the trace has seen being made. 131072 entries follow
/// 512 MiB of order-0 pages.
pub const LIVE_PAGES: u32 = 131_072;

/// Files with page cache activity, by (device, inode, owner).
pub const FILES: u32 = 65_536;

/// Cgroups selected at once.
pub const TARGET_CGROUPS: u32 = 4_096;

/// Processes followed by pid because they are not, or may not stay, in a selected cgroup.
pub const TARGET_PIDS: u32 = 16_384;

/// Processes with small mappings being counted.
pub const MAPPING_TOTALS: u32 = 16_384;

/// Processes whose heap is watched.
pub const HEAPS: u32 = 16_384;

/// Calls into watched libraries under way: one for each thread that is inside one. The least recently used goes
/// first, so that what threads leave behind that died inside a call makes room by itself.
pub const PENDING_CALLS: u32 = 8_192;

/// Rows of charges: (cgroup, counter), profile `deep` only.
pub const CHARGES: u32 = 16_384;

/// Default size of the event ring buffer. Events are rare and small (a process, a large mapping, a new
/// file); 4 MiB hold some 10000 of them, many times what arrives between two polls.
pub const RING_BYTES: u32 = 4 << 20;

/// What a loss counter counts; the index in the `LOSSES` map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum LossKind {
    /// Event ring buffer full.
    Events = 0,
    PageAggregates = 1,
    LivePages = 2,
    /// No kernel stack could be taken or stored (the allocation is still counted, without its stack).
    KernelStacks = 3,
    Files = 4,
    TargetCgroups = 5,
    TargetPids = 6,
    MappingTotals = 7,
    Charges = 8,
    /// A library call returned whose entry was not seen or no longer known.
    Calls = 9,
}

impl LossKind {
    pub const ALL: [Self; 10] = [
        Self::Events,
        Self::PageAggregates,
        Self::LivePages,
        Self::KernelStacks,
        Self::Files,
        Self::TargetCgroups,
        Self::TargetPids,
        Self::MappingTotals,
        Self::Charges,
        Self::Calls,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Events => "events",
            Self::PageAggregates => "page_aggregates",
            Self::LivePages => "live_pages",
            Self::KernelStacks => "kernel_stacks",
            Self::Files => "files",
            Self::TargetCgroups => "target_cgroups",
            Self::TargetPids => "target_pids",
            Self::MappingTotals => "mapping_totals",
            Self::Charges => "charges",
            Self::Calls => "calls",
        }
    }
}
