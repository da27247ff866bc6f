//! Records as they lie in kernel-side maps: keys, rows, and what programs keep from one run to the next.
//!
//! As wire records ([`crate::event`]) they are `repr(C)`, 8-byte aligned and without implicit padding.

use crate::{
    capacities::{CGROUP_DEPTH, LIVE_FRAMES},
    cuda::ARGS,
    task::COMM_LEN,
};

/// What a program did on one CPU.
#[derive(Debug, Clone, Copy, Default)]
#[cfg_attr(feature = "zerocopy", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable))]
#[repr(C)]
pub struct Run {
    pub hits: u64,
    /// Page it was last called for, where another hook stands in for it; or what it makes numbers of pointers by.
    pub last: u64,
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

/// Contexts kept of a thread: of a stack that is deeper, the current one is not known.
pub const CONTEXT_DEPTH: usize = 8;

/// The contexts that a thread has pushed, as far as they were seen. The top is current.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub struct ThreadContexts {
    pub depth: u64,
    pub stack: [u64; CONTEXT_DEPTH],
}

/// A library's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "zerocopy", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable))]
#[repr(C)]
pub struct LibraryKey {
    pub inode: u64,
    /// As in [`FileKey::device`].
    pub device: u32,
    pub reserved: u32,
}

/// Key of page allocations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "zerocopy", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable))]
#[repr(C)]
pub struct PageKey {
    /// Memory cgroup of the allocating task if it is of the target, else 0.
    pub cgroup: u64,
    /// Kernel stack id, negative where none could be taken.
    pub stack: i32,
    /// Migrate type in the low byte, [`PAGE_CHARGED`] where the allocation is to be charged, its order from
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
#[cfg_attr(feature = "zerocopy", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable))]
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

/// Where one CPU counted a page last, and what shows that another one belongs there too.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub struct PageCache {
    /// Id of the memory cgroup of the task; 0 where nothing is remembered.
    pub cgroup: u64,
    /// The task itself where it runs no program (kernel threads would share their places); its process where single processes are
    /// the target and their cgroup is not; else 0, for all tasks of the cgroup.
    pub of: u64,
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
#[cfg_attr(feature = "zerocopy", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable))]
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
#[cfg_attr(feature = "zerocopy", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable))]
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
#[cfg_attr(feature = "zerocopy", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable))]
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
#[cfg_attr(feature = "zerocopy", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable))]
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

/// Whom one CPU last found not to be of the target. Programs that interrupt one another may leave it with parts of two such
/// answers: then the seal is that of neither.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub struct Bystander {
    /// The task's memory cgroup.
    pub cgroup: u64,
    /// Its process number, and above it the value of [`crate::config::CONTROL_GENERATION`] that it was found out under.
    pub process: u64,
    /// Of both: see [`Bystander::new`].
    pub seal: u64,
}

impl Bystander {
    pub const fn new(cgroup: u64, tgid: u32, generation: u32) -> Self {
        let process = (generation as u64) << 32 | tgid as u64;
        // Odd numbers without a pattern: what differs in one of the two differs in the seal.
        let seal = cgroup.wrapping_mul(0x9e37_79b9_7f4a_7c15)
            ^ process.wrapping_mul(0xc2b2_ae3d_27d4_eb4f)
            ^ u64::MAX;
        Self { cgroup, process, seal }
    }

    /// Whether it is the same answer, and whole.
    pub const fn is(&self, other: &Self) -> bool {
        self.cgroup == other.cgroup && self.process == other.process && self.seal == other.seal
    }
}

/// End of a process's heap as last seen, and where it was at its last event.
#[derive(Debug, Clone, Copy, Default)]
#[cfg_attr(feature = "zerocopy", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable))]
#[repr(C)]
pub struct Heap {
    pub end: u64,
    pub reported: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "zerocopy", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable))]
#[repr(C)]
pub struct ChargeKey {
    pub cgroup: u64,
    pub item: u32,
    /// 1 for items of the per-node tracepoint, 0 for the others: their numbers overlap.
    pub per_node: u32,
}

/// What a cgroup was charged since it is followed, with its descendants, in pages: as its page counter has it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(feature = "zerocopy", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable))]
#[repr(C)]
pub struct ChargeLevel {
    pub charged: u64,
    pub uncharged: u64,
}

impl ChargeLevel {
    /// What is left of charged pages, in bytes.
    pub const fn net_bytes(self, page_size: u64) -> i64 {
        self.charged.wrapping_sub(self.uncharged) as i64 * page_size as i64
    }
}

/// Key of charged pages by stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "zerocopy", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable))]
#[repr(C)]
pub struct ChargeStackKey {
    /// The nearest selected cgroup at or above the one that was charged.
    pub cgroup: u64,
    /// Kernel stack id, negative where none could be taken.
    pub stack: i32,
    pub reserved: u32,
}

#[derive(Debug, Clone, Copy, Default)]
#[cfg_attr(feature = "zerocopy", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable))]
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

/// What was requested of the NVIDIA driver.
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

/// Key of what was requested of the driver.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "zerocopy", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable))]
#[repr(C)]
pub struct DriverKey {
    /// Memory cgroup and process of the task that called, if it is of the target, else 0.
    pub cgroup: u64,
    pub tgid: u32,
    /// Kernel stack id, negative where none could be taken.
    pub stack: i32,
    /// A [`DriverKind`].
    pub kind: u32,
    pub reserved: u32,
}

#[derive(Debug, Clone, Copy, Default)]
#[cfg_attr(feature = "zerocopy", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable))]
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

/// How often a CPU has done what it may do so many times a second: in this second, and since the trace began.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub struct Rate {
    pub second: u64,
    pub taken: u64,
    pub all: u64,
}

wire! {
    Rate = 24,
    Run = 16,
    CallKey = 8,
    PendingCall = 16 + 8 * ARGS,
    ThreadContexts = 8 + 8 * CONTEXT_DEPTH,
    PageKey = 16,
    PageRow = 32,
    LiveFrames = 2 * LIVE_FRAMES as usize,
    PageCache = 64,
    LibraryKey = 16,
    FileKey = 24,
    FileTotals = 64,
    MappingTotals = 32,
    MappingCache = 56,
    Bystander = 24,
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

#[cfg(test)]
mod tests {
    extern crate std;

    use std::vec::Vec;

    use super::*;

    /// What three interrupted programs may have left behind is no answer to anybody.
    #[test]
    fn parts_of_several_answers_are_none() {
        let answers: Vec<Bystander> = (1..4u64)
            .flat_map(|cgroup| {
                (1..4).flat_map(move |tgid| (1..3).map(move |generation| (cgroup, tgid, generation)))
            })
            .map(|(cgroup, tgid, generation)| Bystander::new(cgroup, tgid, generation))
            .collect();
        let is_one = |parts: &Bystander| answers.iter().any(|answer| parts.is(answer));
        let (mut whole, mut mixed) = (0, 0);
        for cgroup in &answers {
            for process in &answers {
                for seal in &answers {
                    let parts =
                        Bystander { cgroup: cgroup.cgroup, process: process.process, seal: seal.seal };
                    let same = parts.cgroup == seal.cgroup && parts.process == seal.process;
                    assert_eq!(is_one(&parts), same, "{parts:x?}");
                    *if same { &mut whole } else { &mut mixed } += 1;
                }
            }
        }
        assert!(whole > 0 && mixed > whole, "{whole} {mixed}");
        assert!(!is_one(&Bystander::default()));
    }
}
