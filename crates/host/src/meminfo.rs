//! /proc/meminfo.

/// Its lines. `Name:   123 kB` is bytes here; a line without a unit (HugePages_Total) is a count and stays as it is.
pub fn lines(text: &str) -> impl Iterator<Item = (&str, u64)> {
    text.lines().filter_map(|line| {
        let (name, value) = line.split_once(':')?;
        let mut words = value.split_whitespace();
        let number: u64 = words.next()?.parse().ok()?;
        let scale = if words.next() == Some("kB") { 1024 } else { 1 };
        Some((name, number.checked_mul(scale)?))
    })
}

/// One of them.
pub fn field(text: &str, name: &str) -> Option<u64> {
    lines(text).find(|(found, _)| *found == name).map(|(_, value)| value)
}

/// One of them, as the kernel has it now.
pub fn read(name: &str) -> Option<u64> {
    field(&std::fs::read_to_string("/proc/meminfo").ok()?, name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_bytes_and_counts_are_counts() {
        let text =
            "MemTotal:       16384 kB\nMemFree:          512 kB\nHugePages_Total:       3\nodd\nBad: x kB\n";
        let expected = [("MemTotal", 16384 << 10), ("MemFree", 512 << 10), ("HugePages_Total", 3)];
        assert_eq!(lines(text).collect::<Vec<_>>(), expected);
        assert_eq!(field(text, "MemFree"), Some(512 << 10));
        assert_eq!((field(text, "Mem"), field(text, "Bad")), (None, None));
    }

    /// By sysinfo(2), which the kernel fills without text.
    #[test]
    fn the_kernels_own_is_read() {
        // SAFETY: an all-zero `sysinfo` is a valid one, and the call only writes to it.
        let info = unsafe {
            let mut info: libc::sysinfo = std::mem::zeroed();
            assert_eq!(libc::sysinfo(&raw mut info), 0);
            info
        };
        assert_eq!(read("MemTotal"), Some(info.totalram * u64::from(info.mem_unit)));
    }
}
