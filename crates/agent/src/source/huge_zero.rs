//! The huge zero page: what anonymous memory in huge mappings shares for as long as it is only read.
//!
//! No counter has its bytes (mm/huge_memory.c get_huge_zero_folio), and they are not few where pages are large: 32 MiB
//! with pages of 16 KiB, 512 MiB with 64 KiB. The flags of its pages show that it is there (fs/proc/page.c
//! stable_page_flags); /proc/vmstat counts how often the kernel took one, so they are looked for only after that.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::FileExt,
};

use procfs::PhysicalPageFlags;

use crate::page_size;

const FLAGS: &str = "/proc/kpageflags";
/// Its size; without transparent huge pages the file is not there, nor is the page.
const SIZE: &str = "/sys/kernel/mm/transparent_hugepage/hpage_pmd_size";
/// How often the kernel took one.
pub const TAKEN: &str = "thp_zero_page_alloc";

/// Knows where the huge zero page is. There is one at most.
#[derive(Debug)]
pub struct HugeZero {
    size: u64,
    /// Its first frame.
    at: Option<u64>,
    /// How many the kernel had taken when memory was last searched.
    searched: u64,
}

impl HugeZero {
    pub fn new() -> Self {
        let size = fs::read_to_string(SIZE).ok().and_then(|text| text.trim().parse().ok());
        Self { size: size.unwrap_or(0), at: None, searched: 0 }
    }

    /// Its bytes now, 0 where there is none, given how many the kernel has taken ever.
    pub fn bytes(&mut self, taken: u64) -> io::Result<u64> {
        if self.size < page_size() || (self.at.is_none() && self.searched == taken) {
            return Ok(0);
        }
        let flags = File::open(FLAGS).map_err(|e| of_file(FLAGS, &e))?;
        if let Some(frame) = self.at
            && is_huge_zero(&flags, frame)?
        {
            return Ok(self.size);
        }
        self.at = None;
        if self.searched != taken {
            self.at = search(&flags, self.size / page_size())?;
            self.searched = taken;
        }
        Ok(self.at.map_or(0, |_| self.size))
    }
}

/// Asks the first frame of each place where a huge page can be: it is aligned to its size.
fn search(flags: &File, frames: u64) -> io::Result<Option<u64>> {
    let ranges = procfs::iomem().map_err(|e| io::Error::other(format!("/proc/iomem: {e}")))?;
    for (_, range) in ranges.iter().filter(|(_, range)| range.name.starts_with("System RAM")) {
        let (first, last) = range.address;
        let end = (last + 1) / page_size();
        let mut frame = (first / page_size()).next_multiple_of(frames);
        while frame + frames <= end {
            if is_huge_zero(flags, frame)? {
                return Ok(Some(frame));
            }
            frame += frames;
        }
    }
    Ok(None)
}

fn is_huge_zero(flags: &File, frame: u64) -> io::Result<bool> {
    let mut word = [0; 8];
    // The file ends with the last frame that the kernel knows.
    if flags.read_at(&mut word, frame * 8).map_err(|e| of_file(FLAGS, &e))? < word.len() {
        return Ok(false);
    }
    // The zero page of ordinary size has the first of the two alone.
    let huge_zero = PhysicalPageFlags::ZERO_PAGE | PhysicalPageFlags::THP;
    Ok(PhysicalPageFlags::from_bits_retain(u64::from_ne_bytes(word)).contains(huge_zero))
}

fn of_file(file: &str, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{file}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_looked_for_where_the_kernel_never_took_one() {
        let mut page = HugeZero { size: 2 << 20, at: None, searched: 0 };
        assert_eq!(page.bytes(0).unwrap(), 0);
        assert_eq!(HugeZero { size: 0, ..page }.bytes(7).unwrap(), 0);
    }
}
