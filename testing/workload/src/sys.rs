//! What the kernel says about this machine and this process: page sizes, clocks, /proc/self.

use std::fs;
use std::io;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::Serialize;

use crate::size::round_up;

/// The machine's constants. Never assumed: aarch64 kernels come with pages of 4, 16 and 64 KiB.
#[derive(Debug, Clone, Copy)]
pub struct Machine {
    pub page: usize,
}

impl Machine {
    pub fn read() -> Result<Self> {
        // SAFETY: sysconf takes a plain number and touches no memory of ours.
        let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
        match usize::try_from(page) {
            Ok(page) if page.is_power_of_two() && page >= 4096 => Ok(Self { page }),
            _ => bail!("sysconf(_SC_PAGESIZE) says {page}, which is no page size"),
        }
    }

    /// `bytes` rounded up to whole pages, as a length for mmap.
    pub fn pages_up(&self, bytes: u64) -> Result<usize> {
        round_up(bytes, self.page as u64)
            .and_then(|bytes| usize::try_from(bytes).ok())
            .filter(|bytes| isize::try_from(*bytes).is_ok())
            .with_context(|| format!("{bytes} bytes do not fit into an address space"))
    }

    /// What one last-level page table maps: a page full of 8-byte entries, of one page each
    /// (2 MiB, 32 MiB, 512 MiB with pages of 4, 16, 64 KiB).
    pub fn table_span(&self) -> usize {
        self.page / 8 * self.page
    }

    /// Bytes of last-level page tables which a fully touched range needs; those at its two ends may be shared
    /// with neighbouring mappings.
    pub fn table_bytes(&self, address: usize, len: usize) -> u64 {
        let span = self.table_span();
        let last = address + len.max(1) - 1;
        (last / span - address / span + 1) as u64 * self.page as u64
    }
}

/// The size of a PMD-mapped transparent huge page.
pub fn thp_size() -> Result<usize> {
    const FILE: &str = "/sys/kernel/mm/transparent_hugepage/hpage_pmd_size";
    let text = read_text(FILE)
        .context("--thp and --thp-zero need a kernel with transparent huge pages, and /sys mounted")?;
    let size =
        text.trim().parse::<usize>().with_context(|| format!("{FILE} holds {text:?}, not a number"))?;
    if !size.is_power_of_two() {
        bail!("{FILE} says {size}, not a power of two");
    }
    Ok(size)
}

/// A small kernel file, with its name and errno in the error.
pub fn read_text(path: &str) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {path}"))
}

pub fn clock_ns(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid timespec to write to. The three clocks used here exist in every Linux, so
    // there is no failure to report; one would read as 0.
    unsafe { libc::clock_gettime(clock, &mut time) };
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}

pub fn monotonic_ns() -> u64 {
    clock_ns(libc::CLOCK_MONOTONIC)
}

/// CLOCK_REALTIME minus CLOCK_MONOTONIC. Realtime is read between two reads of the other, and the tightest of
/// some tries taken, so that being scheduled away in between does not show.
pub fn monotonic_to_realtime_offset_ns() -> i64 {
    let mut best = (u64::MAX, 0);
    for _ in 0..5 {
        let before = monotonic_ns();
        let realtime = clock_ns(libc::CLOCK_REALTIME);
        let after = monotonic_ns();
        let gap = after.saturating_sub(before);
        if gap < best.0 {
            best = (gap, realtime.wrapping_sub(before + gap / 2).cast_signed());
        }
    }
    best.1
}

/// This process as the kernel counts it, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct SelfStatus {
    pub rss_anon: u64,
    pub rss_file: u64,
    pub rss_shmem: u64,
    pub hwm: u64,
    pub page_tables: u64,
    pub hugetlb: u64,
    pub threads: u64,
}

impl SelfStatus {
    pub fn read() -> Result<Self> {
        Ok(Self::parse(&read_text("/proc/self/status")?))
    }

    /// Lines a kernel does not have stay 0 (HugetlbPages, say, in one built without them).
    fn parse(text: &str) -> Self {
        let mut status = Self::default();
        for (name, value) in text.lines().filter_map(|line| line.split_once(':')) {
            let (field, unit) = match name {
                "RssAnon" => (&mut status.rss_anon, 1024),
                "RssFile" => (&mut status.rss_file, 1024),
                "RssShmem" => (&mut status.rss_shmem, 1024),
                "VmHWM" => (&mut status.hwm, 1024),
                "VmPTE" => (&mut status.page_tables, 1024),
                "HugetlbPages" => (&mut status.hugetlb, 1024),
                "Threads" => (&mut status.threads, 1),
                _ => continue,
            };
            *field = first_number(value).saturating_mul(unit);
        }
        status
    }
}

/// This process as its page tables are, in bytes. `SelfStatus` is quicker but, depending on the kernel,
/// leaves out what is still in per-CPU counters: some hundred pages either way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct SelfExact {
    pub rss: u64,
    pub pss: u64,
    pub anonymous: u64,
    pub anon_huge: u64,
    pub pss_anon: u64,
    pub pss_file: u64,
    pub pss_shmem: u64,
}

impl SelfExact {
    pub fn read() -> Result<Self> {
        Ok(Self::parse(&read_text("/proc/self/smaps_rollup")?))
    }

    fn parse(text: &str) -> Self {
        let mut exact = Self::default();
        for (name, value) in text.lines().filter_map(|line| line.split_once(':')) {
            let field = match name {
                "Rss" => &mut exact.rss,
                "Pss" => &mut exact.pss,
                "Anonymous" => &mut exact.anonymous,
                "AnonHugePages" => &mut exact.anon_huge,
                "Pss_Anon" => &mut exact.pss_anon,
                "Pss_File" => &mut exact.pss_file,
                "Pss_Shmem" => &mut exact.pss_shmem,
                _ => continue,
            };
            *field = first_number(value).saturating_mul(1024);
        }
        exact
    }
}

fn first_number(text: &str) -> u64 {
    text.split_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// Bytes of `address..address + len` which are mapped by transparent huge pages just now.
pub fn huge_bytes(address: usize, len: usize) -> Result<u64> {
    Ok(huge_bytes_in(&read_text("/proc/self/smaps")?, address, len))
}

fn huge_bytes_in(smaps: &str, address: usize, len: usize) -> u64 {
    let mut inside = false;
    let mut kib = 0;
    for line in smaps.lines() {
        let first = line.split_whitespace().next().unwrap_or_default();
        if let Some((begin, end)) = first.split_once('-') {
            if let (Ok(begin), Ok(end)) = (usize::from_str_radix(begin, 16), usize::from_str_radix(end, 16)) {
                inside = begin < address + len && end > address;
            }
        } else if inside && first == "AnonHugePages:" {
            kib += line.split_once(':').map_or(0, |(_, value)| first_number(value));
        }
    }
    kib * 1024
}

/// The signal which is to stop us, or 0.
static STOP: AtomicI32 = AtomicI32::new(0);

extern "C" fn on_stop(signal: libc::c_int) {
    STOP.store(signal, Ordering::Relaxed);
}

/// Ends the holding early on SIGINT and SIGTERM, so that files in tmpfs do not stay behind. As the first
/// process of a container we would otherwise not see SIGTERM at all: the kernel drops it for a PID 1 without
/// a handler.
pub fn install_stop_handler() -> Result<()> {
    for signal in [libc::SIGINT, libc::SIGTERM] {
        // SAFETY: a zeroed sigaction is a valid one (no flags, empty mask); no SA_RESTART, so that waits are
        // cut.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = on_stop as extern "C" fn(libc::c_int) as usize;
        // SAFETY: the handler only stores to an atomic, which is async-signal-safe; `action` outlives the
        // call.
        if unsafe { libc::sigaction(signal, &action, std::ptr::null_mut()) } != 0 {
            return Err(io::Error::last_os_error())
                .context(format!("cannot install a handler for signal {signal}"));
        }
    }
    Ok(())
}

pub fn stop_signal() -> Option<i32> {
    Some(STOP.load(Ordering::Relaxed)).filter(|signal| *signal != 0)
}

/// Sleeps, or returns early after a signal. In slices: a signal that arrives just before a sleep does not
/// cut it.
pub fn sleep(duration: Duration) {
    let begin = Instant::now();
    while stop_signal().is_none() {
        let Some(left) = duration.checked_sub(begin.elapsed()).filter(|left| !left.is_zero()) else { return };
        std::thread::sleep(left.min(Duration::from_millis(100)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_lines() {
        let text = "Name:\tx\nVmHWM:\t    2048 kB\nRssAnon:\t     116 kB\nRssFile:\t       0 kB\n\
                    RssShmem:\t garbage\nVmPTE:\t      40 kB\nThreads:\t3\n";
        let want = SelfStatus {
            rss_anon: 116 << 10,
            hwm: 2 << 20,
            page_tables: 40 << 10,
            threads: 3,
            ..Default::default()
        };
        assert_eq!(SelfStatus::parse(text), want);
    }

    #[test]
    fn rollup_lines() {
        let text = "1000-2000 ---p 00000000 00:00 0    [rollup]\nRss:    1340 kB\nPss:  1000 kB\n\
                    Pss_Dirty: 3 kB\nAnonymous:           100 kB\nPss_File: 7 kB\n";
        let want = SelfExact {
            rss: 1340 << 10,
            pss: 1000 << 10,
            anonymous: 100 << 10,
            pss_file: 7 << 10,
            ..Default::default()
        };
        assert_eq!(SelfExact::parse(text), want);
    }

    #[test]
    fn huge_pages_of_one_range_only() {
        let smaps = "1000-2000 rw-p 00000000 00:00 0\nAnonHugePages:      2048 kB\n\
                     4000-6000 rw-p 00000000 00:00 0\nAnonHugePages:      4096 kB\nVmFlags: rd wr\n";
        assert_eq!(huge_bytes_in(smaps, 0x4000, 0x2000), 4 << 20);
        assert_eq!(huge_bytes_in(smaps, 0x2000, 0x2000), 0);
        assert_eq!(huge_bytes_in(smaps, 0x1000, 0x5000), 6 << 20);
    }

    #[test]
    fn page_tables_follow_the_page_size() {
        for (page, span) in [(4096, 2 << 20), (16384, 32 << 20), (65536, 512 << 20)] {
            let machine = Machine { page };
            assert_eq!(machine.table_span(), span);
            assert_eq!(machine.table_bytes(span, span), page as u64);
            assert_eq!(machine.table_bytes(span - page, 2 * page), 2 * page as u64);
        }
    }
}
