//! Capacities of the kernel-side maps, with the reason for each, and the loss counters.
//!
//! Every map that can be full has a [`LossKind`]: what it could not take is counted, never silent.

/// Frames kept of a kernel stack. Unwinding costs by the frame; allocation sites and the module that
/// requested the page lie well within this depth.
pub const KERNEL_STACK_DEPTH: usize = 24;

/// Frames kept of a user stack: taken only for large regions, so depth is worth its price.
pub const USER_STACK_DEPTH: usize = 48;

/// Frames kept of a thread of Python's, the innermost. Constructors of models are nested some twenty deep.
pub const PYTHON_DEPTH: usize = 32;

/// Bytes of a user stack that are copied to be unwound, from the stack pointer on. Code of C and C++ that allocates has frames of
/// some hundred bytes each; what lies further out than this is cut off.
pub const STACK_COPY_BYTES: usize = 32 << 10;

/// Read at once. No page is smaller, and none of these lies in two: what cannot be read costs no more than what lies behind it.
pub const STACK_COPY_PIECE: usize = 1 << 10;

/// Stacks that a CPU copies in a second. Each takes some microseconds there, and some hundred in spark-trace.
pub const STACK_COPIES_A_SECOND: u64 = 100;

/// Size of the ring buffer of copies where stacks are unwound: 120 of them.
pub const STACK_COPY_RING_BYTES: u32 = 4 << 20;

/// Steps from one thread state to the next until the calling thread is found: each is two reads of some 30 ns.
pub const PYTHON_THREADS: u32 = 256;

/// Processes whose interpreter is known, or that are known to have none. One that there is no room for gives no frames.
pub const PYTHON_PROCESSES: u32 = 4_096;

/// Calls of which a CPU walks the frames of Python in a second. Each takes some 10 microseconds; more than this are small
/// pieces of memory in a loop, of which a part says as much.
pub const PYTHON_STACKS_A_SECOND: u64 = 1_000;

/// Pages that are counted in one row before the kernel stack is taken anew at the same place. Where it then is
/// the same, the next ones are twice as many, up to the second figure: in a burst of millions of pages stacks
/// hardly cost anything, and what is wrongly taken for the same place is soon separated.
pub const STACK_USES: u32 = 63;
pub const STACK_USES_MOST: u32 = 1023;

/// Places that a CPU remembers the rows of. Bursts come interleaved: a system call allocates in several places,
/// and the next one in others. Many kernels also begin the stack of each system call at one of 64 random
/// distances (RANDOMIZE_KSTACK_OFFSET), which makes as many places of one.
pub const PAGE_PLACES: u32 = 512;
const _: () = assert!(PAGE_PLACES.is_power_of_two());

/// Distinct kernel stacks. A busy machine shows a few thousand allocation sites; the kernel keeps one stack
/// for each hash bucket, so the map is several times larger to keep collisions rare.
pub const KERNEL_STACKS: u32 = 16_384;

/// Rows of page allocations: (cgroup, stack, kind, order). Row 0 means "not followed". Numbers of rows lie in
/// 16 bits.
pub const PAGE_ROWS: u32 = 16_384;
const _: () = assert!(PAGE_ROWS <= 1 << 16);

/// Page frames to an element of `LIVE`, the map with two bytes for each page frame of the machine: an array
/// has elements of whole words, and one of a cache line makes a walk over it short.
pub const LIVE_FRAMES: u32 = 32;

/// Most elements of `LIVE`: 128 MiB, which follow 256 GiB of 4 KiB pages. It has as many as the machine has
/// page frames, and is at work where there are fewer than that.
pub const LIVE: u32 = (128 << 20) / (2 * LIVE_FRAMES);

/// Elements of `LIVE` to a word of `TOUCHED`, a bit for each.
pub const TOUCHED_ELEMENTS: u32 = u64::BITS;

/// Words of `TOUCHED` that one run of the sweep looks into. The kernel does not let go of the CPU meanwhile, and an element
/// of `LIVE` whose frames are all followed takes some microseconds.
pub const SWEEP_WORDS: u32 = 16;

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
/// Threads whose current CUDA context is kept; of the one whose turn is longest past it is forgotten, and not known.
pub const THREAD_CONTEXTS: u32 = 8_192;

/// Library files that are attached to, or need not be. What there is no room for pauses its process once more.
pub const WATCHED_FILES: u32 = 1_024;

/// Spark-traces that run beside one another.
pub const BESIDE: u32 = 64;

/// Processes paused at once. One that there is no room for is not paused.
pub const PAUSED: u32 = 1_024;

/// Rows of charges: (cgroup, counter), profile `deep` only.
pub const CHARGES: u32 = 16_384;

/// Cgroups whose page counter is followed: as many as can be selected.
pub const CHARGE_LEVELS: u32 = TARGET_CGROUPS;

/// Rows of charged pages: (cgroup, stack). A cgroup shows some hundred paths that charge it.
pub const CHARGE_STACKS: u32 = 8_192;

/// Page counters that a CPU remembers for each of the programs on them. Each task charges one cgroup, and its
/// swap, hugetlb and other counters pass by the same functions.
pub const CHARGE_PLACES: u32 = 16;
const _: () = assert!(CHARGE_PLACES.is_power_of_two());

/// Ancestors of a cgroup that are looked at. The kernel allows more; systemd and container engines nest some ten.
pub const CGROUP_DEPTH: usize = 16;

/// Charges under way, where entry and return are seen apart: one for each task and interrupt that is inside one.
pub const PENDING_CHARGES: u32 = 2_048;

/// Rows of the NVIDIA driver's allocations: (kind, cgroup, process, stack).
pub const DRIVER_ROWS: u32 = 2_048;

/// Allocations of the NVIDIA driver that live. One of hundreds of megabytes is one entry, but a chunk of managed memory
/// may be a page. Only where one of its modules is loaded: user space makes it a single entry elsewhere.
pub const DRIVER_ALLOCS: u32 = 65_536;

/// Calls of the driver whose pages are counted together, found by thread number. Where two calls at once meet in one
/// place, the pages of the second are counted one by one, which costs time only.
pub const BURSTS: u32 = 64;
const _: () = assert!(BURSTS.is_power_of_two());

/// Pages of a call that are left to its return at most. The kernel does not let go of the CPU while they are marked, some
/// milliseconds for so many; those after them are counted one by one.
pub const BURST_PAGES: u64 = 1 << 18;

/// Default size of the event ring buffer. Most events are rare (a process, a large mapping, a new file) and take half
/// a kilobyte, one on memory figures that were read two: 4 MiB hold 2000 to 8000. Calls of the CUDA driver come tens of
/// thousands of times a second at most; the reader is woken when a quarter is full.
pub const RING_BYTES: u32 = 4 << 20;

/// Time between two wake-ups of the reader for events that nobody waits for. Processes that bring user stacks live longer
/// than this, for the most part, and their stacks are named while they live.
pub const WAKE_EVERY_NS: u64 = 4_000_000;

/// The same while the buffer is more than a quarter full.
pub const WAKE_FULL_EVERY_NS: u64 = 1_000_000;

/// What a loss counter counts; the index in the `LOSSES` map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum LossKind {
    /// Event ring buffer full.
    Events = 0,
    PageAggregates = 1,
    /// Page outside of the frames that are followed (its allocation is counted, its free is not seen).
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
    /// No room for a cgroup's level, or it lies too deep to find out whose it is.
    ChargeLevels = 10,
    /// No room for a row of charges by stack (the level has the charge).
    ChargeStacks = 11,
    /// An allocation of the NVIDIA driver that there was no room for, or that was not to be found at its return.
    DriverAllocs = 12,
    /// A CPU had walked the frames of as many calls in this second as it may; the call is recorded without them.
    PythonStacks = 13,
    /// A CPU had copied as many user stacks in this second as it may, or their buffer was full; the stack by frame pointers
    /// is recorded.
    StackCopies = 14,
}

impl LossKind {
    pub const ALL: [Self; 15] = [
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
        Self::ChargeLevels,
        Self::ChargeStacks,
        Self::DriverAllocs,
        Self::PythonStacks,
        Self::StackCopies,
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
            Self::ChargeLevels => "charge_levels",
            Self::ChargeStacks => "charge_stacks",
            Self::DriverAllocs => "driver_allocs",
            Self::PythonStacks => "python_stacks",
            Self::StackCopies => "stack_copies",
        }
    }

    /// What happened, for the log.
    pub const fn why(self) -> &'static str {
        match self {
            Self::Events => "the event buffer is full",
            Self::PageAggregates => "the map of page rows is full",
            Self::LivePages => "the page lies outside of the frames that are followed",
            Self::KernelStacks => "the kernel took no stack, or the map of stacks is full",
            Self::Files => "the map of files is full",
            Self::TargetCgroups => "the map of selected cgroups is full",
            Self::TargetPids => "the map of selected processes is full",
            Self::MappingTotals => "the map of small mappings is full",
            Self::Charges => "the map of charges is full",
            Self::Calls => "a call returned whose entry is not known, or the map of calls is full",
            Self::ChargeLevels => "the map of charged cgroups is full, or the cgroup lies too deep",
            Self::ChargeStacks => "the map of charges by stack is full",
            Self::DriverAllocs => "the map of driver allocations is full, or the allocation is not known",
            Self::PythonStacks => {
                "a CPU walks the frames of Python for so many calls in a second and no more"
            }
            Self::StackCopies => {
                "a CPU copies so many stacks in a second and no more, or the buffer of copies is full"
            }
        }
    }
}
