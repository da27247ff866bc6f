//! Page frames of the machine: which there are, and one whose number is known.

use std::{
    fs::{self, File},
    io,
    os::{
        fd::{AsRawFd, FromRawFd},
        unix::fs::FileExt,
    },
    ptr::NonNull,
};

use spark_trace_common::capacities::{LIVE, LIVE_FRAMES};

use super::page_size;

/// Page frames in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Number of the first.
    pub first: u64,
    pub frames: u32,
}

impl Span {
    /// From the first to the last frame that can be memory, as far as there is room to follow them.
    pub fn of_machine() -> Option<Self> {
        let iomem = fs::read_to_string("/proc/iomem").ok();
        let frames = iomem.and_then(|text| from_iomem(&text, page_size()));
        let frames = frames.or_else(|| from_zoneinfo(&fs::read_to_string("/proc/zoneinfo").ok()?));
        frames.map(|(first, end)| {
            let room = u64::from(LIVE) * u64::from(LIVE_FRAMES);
            Self { first, frames: (end - first).min(room) as u32 }
        })
    }
}

/// First frame and the one after the last, from /proc/iomem: what is memory, and where a hypervisor may plug in
/// more. Without privileges all addresses are 0 there.
fn from_iomem(text: &str, page_size: u64) -> Option<(u64, u64)> {
    let ranges = text.lines().filter_map(|line| {
        let (range, name) = line.split_once(" : ")?;
        // A device of virtio-mem has its whole region at the top level, under its own name.
        let pluggable = !line.starts_with(' ')
            && name
                .strip_prefix("virtio")
                .is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()));
        if !(pluggable || name.starts_with("System RAM")) {
            return None;
        }
        let (start, last) = range.trim_start().split_once('-')?;
        let [start, last] = [start, last].map(|address| u64::from_str_radix(address, 16).ok());
        Some((start? / page_size, last? / page_size + 1)).filter(|_| last != Some(0))
    });
    hull(ranges)
}

/// The same from /proc/zoneinfo, which knows what is there now.
fn from_zoneinfo(text: &str) -> Option<(u64, u64)> {
    let value = |line: &str, name: &str| -> Option<u64> {
        line.trim_start().strip_prefix(name)?.trim_start_matches(':').trim().parse().ok()
    };
    let mut spanned = 0;
    let ranges = text.lines().filter_map(|line| {
        if let Some(pages) = value(line, "spanned") {
            spanned = pages;
        }
        // It comes after the zone's size, and is 0 for a zone that has nothing.
        let start = value(line, "start_pfn")?;
        (spanned > 0).then_some((start, start + spanned))
    });
    hull(ranges)
}

fn hull(ranges: impl Iterator<Item = (u64, u64)>) -> Option<(u64, u64)> {
    ranges.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)))
}

/// A file of one page, in memory.
#[derive(Debug)]
pub struct OnePage {
    file: File,
    address: NonNull<libc::c_void>,
}

impl OnePage {
    pub fn new() -> Result<Self, String> {
        let failed = |e: io::Error| format!("cannot make a file of one page: {e}");
        let length = page_size() as usize;
        // SAFETY: a constant string; a descriptor that is ours alone.
        let file = unsafe {
            let fd = libc::memfd_create(c"spark-trace".as_ptr(), libc::MFD_CLOEXEC);
            if fd < 0 {
                return Err(failed(io::Error::last_os_error()));
            }
            File::from_raw_fd(fd)
        };
        file.set_len(length as u64).map_err(failed)?;
        // SAFETY: a new mapping at an address of the kernel's choice touches nothing of ours. It is one page
        // long, and so is the file.
        let address = unsafe {
            let access = libc::PROT_READ | libc::PROT_WRITE;
            let at = libc::mmap(std::ptr::null_mut(), length, access, libc::MAP_SHARED, file.as_raw_fd(), 0);
            if at == libc::MAP_FAILED {
                return Err(failed(io::Error::last_os_error()));
            }
            // A huge page would be another structure. A kernel without them does not know the advice.
            libc::madvise(at, length, libc::MADV_NOHUGEPAGE);
            at.cast::<u8>().write_volatile(1);
            NonNull::new(at)
        };
        let address = address.ok_or("it was mapped at address 0")?;
        Ok(Self { file, address })
    }

    pub fn fd(&self) -> u32 {
        self.file.as_raw_fd().unsigned_abs()
    }

    /// Number of the frame that the page lies in now.
    pub fn frame(&self) -> Result<u64, String> {
        let mut entry = [0; 8];
        let index = self.address.as_ptr() as u64 / page_size();
        File::open("/proc/self/pagemap")
            .and_then(|map| map.read_exact_at(&mut entry, index * 8))
            .map_err(|e| format!("cannot read /proc/self/pagemap: {e}"))?;
        // Documentation/admin-guide/mm/pagemap.rst: bit 63 present, bits 0 to 54 the frame.
        let entry = u64::from_ne_bytes(entry);
        match entry & ((1 << 55) - 1) {
            frame if entry >> 63 == 1 && frame != 0 => Ok(frame),
            _ => Err("/proc/self/pagemap has no frame numbers: they need CAP_SYS_ADMIN".to_owned()),
        }
    }
}

impl Drop for OnePage {
    fn drop(&mut self) {
        // SAFETY: our own mapping, which nothing refers to any more.
        unsafe { libc::munmap(self.address.as_ptr(), page_size() as usize) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IOMEM: &str = "\
00000000-00000fff : Reserved
00001000-0009fbff : System RAM
00100000-bfffffff : System RAM
  01000000-0220bb07 : Kernel code
100000000-63fffffff : System RAM
4000000000-7fffffffff : PCI Bus 0000:00
  4000000000-400007ffff : 0000:00:01.0
    4000000000-400007ffff : virtio-pci-modern
  4000080000-40000fffff : virtio3
";

    #[test]
    fn memory_is_found_among_devices() {
        assert_eq!(from_iomem(IOMEM, 4096), Some((1, 0x64_0000)));
        assert_eq!(from_iomem(IOMEM, 65536), Some((0, 0x6_4000)));
    }

    #[test]
    fn memory_that_may_be_plugged_in_counts() {
        let plugged = "640000000-83fffffff : virtio1\n  640000000-64fffffff : System RAM (virtio_mem)\n";
        assert_eq!(from_iomem(&format!("{IOMEM}{plugged}"), 4096), Some((1, 0x84_0000)));
        let nothing_yet = "640000000-83fffffff : virtio1\n";
        assert_eq!(from_iomem(&format!("{IOMEM}{nothing_yet}"), 4096), Some((1, 0x84_0000)));
        let kmem = "900000000-9ffffffff : dax0.0\n  900000000-9ffffffff : System RAM (kmem)\n";
        assert_eq!(from_iomem(kmem, 4096), Some((0x90_0000, 0xa0_0000)));
    }

    #[test]
    fn zones_suffice_without_privileges() {
        assert_eq!(from_iomem("00000000-00000000 : System RAM\n", 4096), None);
        let zones = "\
Node 0, zone      DMA
        spanned  4095
        present  3998
  start_pfn:           1
Node 0, zone   Normal
        spanned  5505024
  start_pfn:           1048576
Node 0, zone  Movable
        spanned  0
  start_pfn:           0
";
        assert_eq!(from_zoneinfo(zones), Some((1, 1_048_576 + 5_505_024)));
        assert_eq!(from_zoneinfo(""), None);
    }

    #[test]
    fn the_running_machine_has_frames() {
        assert!(Span::of_machine().unwrap().frames > 1000);
    }
}
