//! Everything that needs a kernel to talk to: facts, attaching, draining, sampling, targets.

pub mod aggregates;
pub mod attach_plan;
mod backing;
pub mod bpf;
pub mod btf;
pub mod bug_report;
pub mod cgroup;
pub mod charges;
mod code;
pub mod cuda;
pub mod decode;
pub mod doctor;
pub mod driver;
mod driver_allocs;
pub mod elf;
pub mod facts;
pub mod host;
mod journal_file;
pub mod kallsyms;
pub mod library;
mod mapped;
pub mod maps;
pub mod memory_answer;
mod messages;
pub mod monitor;
pub mod mounts;
pub mod names;
mod neighbours;
pub mod offsets;
pub mod output;
pub mod page_frames;
pub mod pause;
mod priority;
mod program_stats;
mod python;
pub mod reclaim;
pub mod session;
pub mod snapshot;
pub mod source;
pub mod statistics;
mod stopwatch;
pub mod subject;
pub mod symbols;
pub mod tracer;
pub mod unprivileged;
pub mod unwind;
mod uprobe_multi;
mod walks;

use std::sync::{
    OnceLock,
    atomic::{AtomicU64, Ordering},
};

/// The kernel's page size: read, never assumed.
pub fn page_size() -> u64 {
    // SAFETY: no pointers involved.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    u64::try_from(size).ok().filter(|s| s.is_power_of_two()).unwrap_or(4096)
}

/// CLOCK_MONOTONIC in nanoseconds: the clock of every time in a recording, and of bpf_ktime_get_ns.
pub fn now_ns() -> u64 {
    clock_ns(libc::CLOCK_MONOTONIC)
}

/// Nanoseconds to add to [`now_ns`] to get nanoseconds since the epoch.
pub fn realtime_offset_ns() -> i64 {
    clock_ns(libc::CLOCK_REALTIME) as i64 - now_ns() as i64
}

fn clock_ns(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a valid pointer; these clocks exist on every Linux.
    unsafe { libc::clock_gettime(clock, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// CPU time and peak resident memory of this process.
fn own_usage() -> (u64, u64) {
    // SAFETY: all zero is a valid rusage, and the pointer is to it.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &raw mut usage);
        usage
    };
    let ns = |t: libc::timeval| t.tv_sec as u64 * 1_000_000_000 + t.tv_usec as u64 * 1000;
    (ns(usage.ru_utime) + ns(usage.ru_stime), usage.ru_maxrss as u64 * 1024)
}

/// The limit of open files that this process was started with: what it starts has the same.
static OPEN_FILES: OnceLock<libc::rlimit> = OnceLock::new();
/// Files that could not be opened because too many were open.
static NOT_OPENED: AtomicU64 = AtomicU64::new(0);

/// Lets this process open as many files as it may.
pub fn raise_open_files() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: both calls take a pointer to a valid rlimit. Where they fail, the limit is as it was.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) == 0 {
            OPEN_FILES.get_or_init(|| limit);
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
        }
    }
}

/// The limit before it was raised, if it was.
pub fn open_files_at_start() -> Option<libc::rlimit> {
    OPEN_FILES.get().copied()
}

/// Counts an error of opening a file, if it is that too many are open.
pub fn note_not_opened(error: &std::io::Error) {
    if matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)) {
        NOT_OPENED.fetch_add(1, Ordering::Relaxed);
    }
}

/// Files that could not be opened because too many were open.
pub fn not_opened() -> u64 {
    NOT_OPENED.load(Ordering::Relaxed)
}

/// Gives memory that is free inside this process back to the system.
pub fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: no pointers involved; it may be called at any time.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Resident memory of this process now; absent where /proc does not say.
pub fn own_resident() -> Option<u64> {
    let pages = std::fs::read_to_string("/proc/self/statm").ok()?;
    Some(pages.split_whitespace().nth(1)?.parse::<u64>().ok()? * page_size())
}

/// CPU time of this process so far, in nanoseconds.
pub fn own_cpu_ns() -> u64 {
    own_usage().0
}

/// Whether this process may load programs and read what only root may.
pub fn is_root() -> bool {
    // SAFETY: no arguments, cannot fail.
    unsafe { libc::geteuid() == 0 }
}
