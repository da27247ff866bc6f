//! Records as they lie in the event ring buffer.
//!
//! All are `repr(C)`, 8-byte aligned and without implicit padding, so that every byte of a record is
//! initialised and both sides agree on it; the asserts below hold them to that.

use crate::{
    capacities::USER_STACK_DEPTH,
    cuda::{ARGS, OUTS},
    map_records::LibraryKey,
    python::PythonStack,
    task::COMM_LEN,
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
    MemoryAnswer = 7,
}

/// Longest cgroup path an event carries.
pub const CGROUP_PATH_LEN: usize = 256;
/// Room for the components of a file name, each terminated by NUL, innermost first.
pub const FILE_NAME_LEN: usize = 1024;

/// An address space changed by at least the minimum region.
#[derive(Debug, Clone, Copy)]
#[cfg_attr(feature = "zerocopy", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable))]
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
    /// `mremap`: where the range was.
    pub from: u64,
    /// Number of the copy of its user stack; 0 where none was made.
    pub copy: u64,
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
#[cfg_attr(feature = "zerocopy", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable))]
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
#[cfg_attr(feature = "zerocopy", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable))]
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
    /// Processes that the kernel had killed in it for want of memory, by this moment; of the second hierarchy version
    /// also those below it.
    pub oom_kills: u64,
    /// 1 where that was readable.
    pub has_oom_kills: u64,
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
#[cfg_attr(feature = "zerocopy", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable))]
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
#[cfg_attr(feature = "zerocopy", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable))]
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
    /// The thread's current context; 0 where it is not known.
    pub context: u64,
    /// Number of the copy of its user stack; 0 where none was made.
    pub copy: u64,
    pub state: MemoryState,
}

/// [`CallEvent`] with the user stack, innermost frame (the caller) first.
#[derive(Debug, Clone, Copy)]
#[cfg_attr(feature = "zerocopy", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable))]
#[repr(C)]
pub struct CallStackEvent {
    pub call: CallEvent,
    pub stack: [u64; USER_STACK_DEPTH],
}

/// [`CallStackEvent`] with the frames of Python that made the call.
#[derive(Debug, Clone, Copy)]
#[cfg_attr(feature = "zerocopy", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable))]
#[repr(C)]
pub struct CallPythonEvent {
    pub call: CallStackEvent,
    pub python: PythonStack,
}

/// Longest file name that a library event and a figures event carry.
pub const NAME_LEN: usize = 48;

/// A process mapped a library that is watched.
#[derive(Debug, Clone, Copy)]
#[cfg_attr(feature = "zerocopy", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable))]
#[repr(C)]
pub struct LibraryEvent {
    pub kind: u32,
    pub tgid: u32,
    pub at_ns: u64,
    pub file: LibraryKey,
    /// 1 where the process was paused: whoever reads this lets it go on.
    pub paused: u32,
    pub pad: u32,
    pub name: [u8; NAME_LEN],
}

/// Bytes kept of what a program read.
pub const ANSWER_LEN: usize = 1024;

/// A process read a file that says how much memory there is, or called sysinfo(2).
#[derive(Debug, Clone, Copy)]
#[cfg_attr(feature = "zerocopy", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable))]
#[repr(C)]
pub struct MemoryAnswerEvent {
    pub kind: u32,
    /// A [`AnswerSource`].
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
    pub content: [u8; ANSWER_LEN],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum AnswerSource {
    ReadProc = 1,
    ReadCgroup = 2,
    Sysinfo = 3,
}

/// Name of a file whose first page entered the page cache; only `length` bytes of `names` travel.
#[derive(Debug, Clone, Copy)]
#[cfg_attr(feature = "zerocopy", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable))]
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

wire! {
    MappingEvent = 80 + 8 * USER_STACK_DEPTH,
    ProcessEvent = 64,
    CgroupEvent = 80 + CGROUP_PATH_LEN,
    FileNameEvent = 24 + FILE_NAME_LEN,
    MemoryState = 80,
    CallEvent = 48 + 8 * ARGS + 8 * OUTS + 24 + 80,
    CallStackEvent = 48 + 8 * ARGS + 8 * OUTS + 24 + 80 + 8 * USER_STACK_DEPTH,
    CallPythonEvent = size_of::<CallStackEvent>() + size_of::<PythonStack>(),
    LibraryEvent = 40 + NAME_LEN,
    MemoryAnswerEvent = 56 + 2 * NAME_LEN + 80 + 8 * USER_STACK_DEPTH + ANSWER_LEN,
}
