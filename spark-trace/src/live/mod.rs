//! Everything that needs a kernel to talk to: facts, attaching, draining, sampling, targets.

pub mod aggregates;
mod asked;
pub mod btf;
pub mod bundle;
pub mod cgroup;
pub mod charges;
mod code;
pub mod doctor;
pub mod driver;
pub mod facts;
pub mod frames;
pub mod host;
pub mod kallsyms;
pub mod library;
pub mod look;
mod maps;
pub mod mounts;
mod multi;
pub mod names;
pub mod object;
pub mod offsets;
pub mod output;
pub mod pause;
pub mod session;
pub mod snapshot;
pub mod source;
pub mod statistics;
pub mod symbols;
pub mod target;
pub mod tracer;
mod walks;

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

/// Lets this process open as many files as it may.
pub fn raise_open_files() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: both calls take a pointer to a valid rlimit. Where they fail, the limit is as it was.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) == 0 {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
        }
    }
}

/// Gives memory that is free inside this process back to the system.
pub fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: no pointers involved; it may be called at any time.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Resident memory of this process now; absent where /proc does not tell.
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
