//! /proc/meminfo, which is all that this driver knows about memory, and what a variable says of the GPU's own.

use std::fs;

use crate::abi::Error;

pub fn page_size() -> usize {
    // SAFETY: sysconf takes a plain number and touches no memory of ours.
    usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096)
}

const FRAMEBUFFER: &str = "SPARK_TRACE_SIMULATED_FRAMEBUFFER";

/// Bytes that a GPU has of its own; absent where it shares the system's memory.
pub fn framebuffer() -> Result<Option<u64>, Error> {
    match std::env::var(FRAMEBUFFER) {
        Ok(bytes) => bytes.parse().map(Some).map_err(|_| Error::INVALID_VALUE),
        Err(_) => Ok(None),
    }
}

/// In bytes.
#[derive(Debug, Clone, Copy)]
pub struct MemInfo {
    pub total: u64,
    pub free: u64,
    /// 0 where the kernel has none.
    pub huge_page: u64,
}

impl MemInfo {
    /// Read anew on each call: so does the driver of a GPU that shares the system's memory.
    pub fn read() -> Result<Self, Error> {
        let text = fs::read_to_string("/proc/meminfo").map_err(|_| Error::NOT_SUPPORTED)?;
        Self::parse(&text).ok_or(Error::NOT_SUPPORTED)
    }

    fn parse(text: &str) -> Option<Self> {
        let bytes = |name: &str| -> Option<u64> {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
            line.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
        };
        Some(Self {
            total: bytes("MemTotal")?,
            free: bytes("MemFree")?,
            huge_page: bytes("Hugepagesize").unwrap_or(0),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let info = MemInfo::parse(
            "MemTotal:  100 kB\nMemFree:    7 kB\nMemAvailable:   50 kB\nHugepagesize:  2048 kB\n",
        )
        .unwrap();
        assert_eq!((info.total, info.free, info.huge_page), (100 << 10, 7 << 10, 2 << 20));
        assert!(MemInfo::parse("MemTotal: 1 kB\n").is_none());
    }
}
