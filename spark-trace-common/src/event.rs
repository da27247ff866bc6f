//! Records as they lie in kernel-side maps and in the event ring buffer.
//!
//! All are `repr(C)`, 8-byte aligned and without implicit padding, so that every byte of a record is
//! initialised and both sides agree on it; the asserts below hold them to that.

use crate::{
    cuda::{ARGS, OUTS},
    map::{CGROUP_DEPTH, LIVE_FRAMES, USER_STACK_DEPTH},
};

/// First field of every event: which record follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum EventKind {
    Mapping = 1,
    Process = 2,
    Cgroup = 3,
    FileName = 4,
    Call = 5,
    Library = 6,
    Figures = 7,
}

pub const COMM_LEN: usize = 16;
/// Longest cgroup path an event carries.
pub const CGROUP_PATH_LEN: usize = 256;
/// Room for the components of a file name, each terminated by NUL, innermost first.
pub const FILE_NAME_LEN: usize = 1024;

/// What a program did on one CPU.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub struct Run {
    pub hits: u64,
    /// Page it was last called for, where another hook stands in for it; or what it makes numbers of pointers by.
    pub last: u64,
}

/// An address space changed by at least the minimum region.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct MappingEvent {
    pub kind: u32,
    /// A [`MappingOp`].
    pub op: u32,
    pub at_ns: u64,
    pub tgid: u32,
    pub tid: u32,
    pub address: u64,
    /// Bytes; negative for a heap that shrank.
    pub length: i64,
    /// `mmap`: flags; `mremap`: former length; `madvise`: advice.
    pub detail: u64,
    /// `mmap`: protection.
    pub prot: u32,
    /// Frames in `stack`; 0 where there is no user stack.
    pub frames: u32,
    /// Where the system call's stub returns to, if it keeps no frame: top of the user stack (x86-64) or
    /// link register (arm64). The frame-pointer walk leaves this caller out.
    pub caller: u64,
    /// User stack, innermost frame first. In the event and not in a stack map, whose hash buckets hold one
    /// stack each: large regions are rare, and theirs must not be lost to a collision.
    pub stack: [u64; USER_STACK_DEPTH],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum MappingOp {
    Mmap = 1,
    Munmap = 2,
    Mremap = 3,
    Brk = 4,
    Madvise = 5,
}

/// A process of the target began, changed its program or ended.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct ProcessEvent {
    pub kind: u32,
    /// A [`ProcessOp`].
    pub op: u32,
    pub at_ns: u64,
    pub tgid: u32,
    pub parent: u32,
    pub cgroup: u64,
    /// Exit only: as wait(2) reports it.
    pub status: u32,
    /// Exit only, 1 where `rss_peak` was readable.
    pub has_rss: u32,
    /// Exit only: high-water mark of resident pages.
    pub rss_peak_pages: u64,
    pub comm: [u8; COMM_LEN],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum ProcessOp {
    Fork = 1,
    Exec = 2,
    Exit = 3,
}

/// A cgroup of the memory hierarchy came, went, or changed between empty and populated.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct CgroupEvent {
    pub kind: u32,
    /// A [`CgroupOp`].
    pub op: u32,
    pub at_ns: u64,
    pub id: u64,
    pub parent: u64,
    /// 1 where the cgroup was selected as part of the target.
    pub target: u32,
    /// Populated only: 1 populated, 0 empty.
    pub populated: u32,
    /// Pages charged and their high-water mark, read from its page counter at this moment.
    pub usage_pages: u64,
    pub peak_pages: u64,
    /// 1 where the two above were readable.
    pub has_usage: u64,
    pub path: [u8; CGROUP_PATH_LEN],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum CgroupOp {
    Mkdir = 1,
    Rmdir = 2,
    Populated = 3,
}

/// The machine's memory at one moment, as the kernel's own counters have it.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub struct MemoryState {
    /// Pages: free, page cache (with shmem and block device buffers), dirty, under writeback, shmem, anonymous.
    pub free: i64,
    pub file: i64,
    pub dirty: i64,
    pub writeback: i64,
    pub shmem: i64,
    pub anon: i64,
    pub slab_reclaimable: i64,
    /// Pages charged to the task's memory cgroup.
    pub cgroup_usage: i64,
    pub cgroup: u64,
    /// 1 where the above were readable.
    pub has: u64,
}

/// A call of a watched library function has returned. `stack` travels only where the row wants it.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct CallEvent {
    pub kind: u32,
    /// Index in [`crate::cuda::FUNCTIONS`].
    pub function: u32,
    pub begin_ns: u64,
    pub end_ns: u64,
    pub tgid: u32,
    pub tid: u32,
    pub result: i32,
    /// Frames in `stack`.
    pub frames: u32,
    pub cgroup: u64,
    pub args: [u64; ARGS],
    pub outs: [u64; OUTS],
    /// Bit i is set where `outs[i]` was readable.
    pub outs_read: u64,
    pub state: MemoryState,
}

/// [`CallEvent`] with the user stack, innermost frame (the caller) first.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct CallStackEvent {
    pub call: CallEvent,
    pub stack: [u64; USER_STACK_DEPTH],
}

/// A call under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct CallKey {
    pub tid: u32,
    pub function: u32,
}

#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub struct PendingCall {
    pub begin_ns: u64,
    pub cgroup: u64,
    pub args: [u64; ARGS],
}

/// Longest file name that a library event and a figures event carry.
pub const NAME_LEN: usize = 48;

/// A process mapped a library that is watched.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct LibraryEvent {
    pub kind: u32,
    pub tgid: u32,
    pub at_ns: u64,
    pub inode: u64,
    pub name: [u8; NAME_LEN],
}

/// Bytes kept of what a program read.
pub const FIGURES_LEN: usize = 1024;

/// A process read a file that tells how much memory there is, or asked by sysinfo(2).
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct FiguresEvent {
    pub kind: u32,
    /// A [`FiguresOp`].
    pub op: u32,
    pub at_ns: u64,
    pub tgid: u32,
    pub tid: u32,
    pub cgroup: u64,
    /// Where in the file the read began.
    pub position: u64,
    pub caller: u64,
    pub frames: u32,
    /// Bytes in `content`.
    pub length: u32,
    /// File name, and that of the directory it lies in.
    pub name: [u8; NAME_LEN],
    pub parent: [u8; NAME_LEN],
    pub state: MemoryState,
    pub stack: [u64; USER_STACK_DEPTH],
    pub content: [u8; FIGURES_LEN],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum FiguresOp {
    ReadProc = 1,
    ReadCgroup = 2,
    Sysinfo = 3,
}

/// Name of a file whose first page entered the page cache; only `length` bytes of `names` travel.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct FileNameEvent {
    pub kind: u32,
    pub device: u32,
    pub inode: u64,
    /// Bytes used in `names`.
    pub length: u32,
    /// 1 where the path has more components than fit.
    pub truncated: u32,
    pub names: [u8; FILE_NAME_LEN],
}

/// Key of page allocations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct PageKey {
    /// Memory cgroup of the allocating task if it is of the target, else 0.
    pub cgroup: u64,
    /// Kernel stack id, negative where none could be taken.
    pub stack: i32,
    /// Migrate type in the low byte, [`PAGE_CHARGED`] where the allocation asked to be charged, its order from
    /// [`PAGE_ORDER_SHIFT`] on.
    pub class: u32,
}

/// Bit of [`PageKey::class`].
pub const PAGE_CHARGED: u32 = 1 << 8;
pub const PAGE_ORDER_SHIFT: u32 = 16;

impl PageKey {
    /// Two to this power are the pages of each allocation.
    pub const fn order(&self) -> u32 {
        self.class >> PAGE_ORDER_SHIFT
    }
}

/// Allocations of one key. Those of a row are all of one size, so that counting them is enough.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct PageRow {
    pub key: PageKey,
    pub allocs: u64,
    pub frees: u64,
}

/// Page frames in a row, each with the number of the row that the allocation it begins was counted in; 0
/// where it is not followed.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(8))]
pub struct LiveFrames {
    pub rows: [u16; LIVE_FRAMES as usize],
}

/// Where one CPU counted a page last, and what tells that another one belongs there too.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub struct PageCache {
    pub task: u64,
    /// The task's `css_set`: another one means that it changed cgroups.
    pub css_set: u64,
    /// How far down the kernel stack the tracepoint's arguments lay: how deep the call was.
    pub depth: u64,
    /// User instruction and system call that the task entered the kernel by.
    pub user_ip: u64,
    pub system_call: u32,
    pub gfp: u32,
    pub order: u32,
    /// Value of [`crate::config::CONTROL_GENERATION`] it was found out under.
    pub generation: u32,
    pub row: u32,
    /// Times it may be used yet, and how many those were when the stack was taken.
    pub left: u32,
    pub uses: u32,
    pub reserved: u32,
}

/// Key of page cache activity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct FileKey {
    pub inode: u64,
    /// Serial number of the memory cgroup the pages are charged to, 0 for none. Unlike an address or an
    /// id it is never used again.
    pub owner_serial: u64,
    /// `dev_t` as the kernel keeps it (12 bits major, 20 bits minor).
    pub device: u32,
    pub reserved: u32,
}

#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub struct FileTotals {
    pub bytes_added: u64,
    pub bytes_removed: u64,
    /// Id of the memory cgroup the pages are charged to.
    pub owner: u64,
    pub first_ns: u64,
    pub first_cgroup: u64,
    pub first_tgid: u32,
    pub reserved: u32,
    pub first_comm: [u8; COMM_LEN],
}

/// Mappings below the minimum region, by process.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub struct MappingTotals {
    pub mmap_calls: u64,
    pub mmap_bytes: u64,
    pub munmap_calls: u64,
    pub munmap_bytes: u64,
}

/// What one CPU last found out about the task in front of it, and what it has counted for that task's process
/// since: mapping calls come in runs of one process, and this spares each the look-ups.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub struct MappingCache {
    /// The task's `css_set`: another one means that it changed cgroups.
    pub css_set: u64,
    pub tgid: u32,
    /// 1 where it is of the target.
    pub target: u32,
    /// Value of [`crate::config::CONTROL_GENERATION`] it was found out under.
    pub generation: u32,
    pub reserved: u32,
    /// Not yet in `MAPPING_TOTALS`.
    pub counted: MappingTotals,
}

/// End of a process's heap as last seen, and where it was when an event last told of it.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub struct Heap {
    pub end: u64,
    pub told: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct ChargeKey {
    pub cgroup: u64,
    pub item: u32,
    /// 1 for items of the per-node tracepoint, 0 for the others: their numbers overlap.
    pub per_node: u32,
}

/// What a cgroup was charged since it is followed, with its descendants, in pages: as its page counter has it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(C)]
pub struct ChargeLevel {
    pub charged: u64,
    pub uncharged: u64,
}

/// Key of charged pages by stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct ChargeStackKey {
    /// The nearest selected cgroup at or above the one that was charged.
    pub cgroup: u64,
    /// Kernel stack id, negative where none could be taken.
    pub stack: i32,
    pub reserved: u32,
}

#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub struct ChargeStack {
    pub pages: u64,
    pub charges: u64,
}

/// What one CPU found out about a page counter.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub struct ChargePlace {
    pub counter: u64,
    /// Serial number of its cgroup, which is never used again: the counter's address may be.
    pub serial: u64,
    /// The nearest selected cgroup at or above it; 0 where there is none, or it does not count memory.
    pub cgroup: u64,
    /// Value of [`crate::config::CONTROL_GENERATION`] it was found out under.
    pub generation: u32,
    /// Cgroups from its own up to the root.
    pub depth: u32,
    /// The selected ones among these, each in its place; 0 for the others.
    pub levels: [u64; CGROUP_DEPTH],
}

/// A charge under way, where entry and return are seen apart.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub struct PendingCharge {
    pub counter: u64,
    pub pages: u64,
    pub stack: i32,
    pub reserved: u32,
}

/// What the NVIDIA driver was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum DriverKind {
    /// System memory (`nv_alloc_pages`).
    Sysmem = 1,
    /// User pages to pin (`os_lock_user_pages`).
    Pinned = 2,
    /// Managed memory in system memory (`uvm_cpu_chunk_alloc`).
    Managed = 3,
}

/// Key of what the driver was asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct DriverKey {
    /// Memory cgroup and process of the task that asked, if it is of the target, else 0.
    pub cgroup: u64,
    pub tgid: u32,
    /// Kernel stack id, negative where none could be taken.
    pub stack: i32,
    /// A [`DriverKind`].
    pub kind: u32,
    pub reserved: u32,
}

#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub struct DriverRow {
    pub allocs: u64,
    pub frees: u64,
    pub bytes_allocated: u64,
    pub bytes_freed: u64,
}

/// An allocation by what the driver knows it by, which differs between kinds only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct DriverObject {
    pub address: u64,
    pub kind: u64,
}

/// An allocation that lives.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub struct DriverAlloc {
    pub key: DriverKey,
    pub bytes: u64,
}

/// An allocation under way.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub struct PendingAlloc {
    pub alloc: DriverAlloc,
    /// Where the driver will write what it knows it by.
    pub out: u64,
    /// Where it will write the physical addresses of pages, and of how many.
    pub list: u64,
    pub listed: u64,
}

/// A call of the driver that takes many pages, one by one: they are counted together, at its return.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub struct Burst {
    /// Thread group and thread that is in it; 0 where nobody is.
    pub task: u64,
    /// Frame of its first page, among those that are followed.
    pub first: u64,
    /// Pages after the first that were passed over, and are to be marked yet.
    pub passed: u64,
    /// Of those that were marked: pages whose earlier free from the same row nobody has noticed.
    pub again: u64,
    /// Row of its pages, 0 until the first has come; and the flags that they are allocated with.
    pub row: u32,
    pub gfp: u32,
    /// Whether it is where it takes them.
    pub open: u32,
    /// Whether the walk over its list has met the first page.
    pub met: u32,
}

macro_rules! wire {
    ($($record:ty = $size:expr),+ $(,)?) => {
        $(const _: () = {
            assert!(size_of::<$record>() == $size, "size of a wire record changed");
            assert!(size_of::<$record>() % 8 == 0, "a wire record must fill whole words");
            assert!(align_of::<$record>() <= 8, "a wire record must be at most 8-byte aligned");
        };)+
    };
}

wire! {
    Run = 16,
    MappingEvent = 64 + 8 * USER_STACK_DEPTH,
    ProcessEvent = 64,
    CgroupEvent = 64 + CGROUP_PATH_LEN,
    FileNameEvent = 24 + FILE_NAME_LEN,
    MemoryState = 80,
    CallEvent = 48 + 8 * ARGS + 8 * OUTS + 8 + 80,
    CallStackEvent = 48 + 8 * ARGS + 8 * OUTS + 8 + 80 + 8 * USER_STACK_DEPTH,
    CallKey = 8,
    PendingCall = 16 + 8 * ARGS,
    LibraryEvent = 24 + NAME_LEN,
    FiguresEvent = 56 + 2 * NAME_LEN + 80 + 8 * USER_STACK_DEPTH + FIGURES_LEN,
    PageKey = 16,
    PageRow = 32,
    LiveFrames = 2 * LIVE_FRAMES as usize,
    PageCache = 64,
    FileKey = 24,
    FileTotals = 64,
    MappingTotals = 32,
    MappingCache = 56,
    Heap = 16,
    ChargeKey = 16,
    ChargeLevel = 16,
    ChargeStackKey = 16,
    ChargeStack = 16,
    ChargePlace = 32 + 8 * CGROUP_DEPTH,
    PendingCharge = 24,
    DriverKey = 24,
    DriverRow = 32,
    DriverObject = 16,
    DriverAlloc = 32,
    PendingAlloc = 56,
    Burst = 48,
}
