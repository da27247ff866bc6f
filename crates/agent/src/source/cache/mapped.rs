//! Looking at a file's pages through a mapping: which are cached, without touching any.

use std::{fs::File, io, os::fd::AsRawFd};

use crate::page_size;

/// Mapped at a time: mincore(2) has a byte for each page.
const WINDOW: u64 = 1 << 30;

/// A part of a file in the address space, never touched unless on request.
pub(crate) struct Mapped {
    address: *mut libc::c_void,
    length: usize,
}

impl Mapped {
    /// Maps `length` bytes from `offset`, which is a multiple of the page size.
    pub(crate) fn new(file: &File, offset: u64, length: u64) -> io::Result<Self> {
        let too_large = |_| io::Error::from(io::ErrorKind::InvalidInput);
        let (length, offset) =
            (usize::try_from(length).map_err(too_large)?, i64::try_from(offset).map_err(too_large)?);
        // SAFETY: a new mapping at an address of the kernel's choice touches nothing of ours.
        let address = unsafe {
            let (protection, flags) = (libc::PROT_READ, libc::MAP_SHARED);
            libc::mmap(std::ptr::null_mut(), length, protection, flags, file.as_raw_fd(), offset)
        };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let mapped = Self { address, length };
        // A cached page can have a mark to read ahead: mapping it in would bring in the next ones, charged to us
        // (mm/filemap.c do_async_mmap_readahead).
        // SAFETY: the range is the mapping just made; the advice changes nothing of what is in it.
        match unsafe { libc::madvise(mapped.address, length, libc::MADV_RANDOM) } {
            0 => Ok(mapped),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// For each page whether it is in the page cache.
    pub(crate) fn cached(&self) -> io::Result<Vec<bool>> {
        let mut pages = vec![0u8; self.length.div_ceil(page_size() as usize)];
        // SAFETY: the range is this mapping, and `pages` has a byte for each of its pages.
        if unsafe { libc::mincore(self.address, self.length, pages.as_mut_ptr()) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(pages.into_iter().map(|page| page & 1 != 0).collect())
    }

    /// Maps in the page at `index`, which is cached; where it is no longer the call fails, and nothing else does.
    pub(super) fn populate(&self, index: usize) -> io::Result<usize> {
        let page = page_size() as usize;
        let address = self.address as usize + index * page;
        // SAFETY: the page is part of this mapping; the kernel reports what cannot be mapped in.
        let result = unsafe { libc::madvise(address as *mut _, page, libc::MADV_POPULATE_READ) };
        if result == 0 { Ok(address) } else { Err(io::Error::last_os_error()) }
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: unmaps what `new` mapped; nothing points into it.
        unsafe { libc::munmap(self.address, self.length) };
    }
}

/// Bytes of a file in the page cache, in whole pages.
pub(super) fn resident(file: &File, length: u64) -> io::Result<u64> {
    let mut pages = 0;
    let mut offset = 0;
    while offset < length {
        let cached = Mapped::new(file, offset, WINDOW.min(length - offset))?.cached()?;
        pages += cached.into_iter().filter(|cached| *cached).count() as u64;
        offset += WINDOW;
    }
    Ok(pages * page_size())
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    #[test]
    fn mapping_in_what_is_cached_reads_nothing_ahead() {
        // On a disk: what is in memory is not read ahead.
        let mut file = tempfile::tempfile_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        file.write_all(&vec![1; 32 << 20]).unwrap();
        file.sync_all().unwrap();
        // SAFETY: a plain system call on a descriptor that is open.
        assert_eq!(unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) }, 0);
        io::Seek::rewind(&mut file).unwrap();
        file.read_exact(&mut [0; 4096]).unwrap();
        let mapped = Mapped::new(&file, 0, 32 << 20).unwrap();
        let before = mapped.cached().unwrap();
        for index in (0..before.len()).filter(|&index| before[index]) {
            mapped.populate(index).unwrap();
        }
        let count = |pages: &[bool]| pages.iter().filter(|cached| **cached).count();
        assert!(count(&before) > 0);
        assert!(count(&mapped.cached().unwrap()) <= count(&before), "{} before", count(&before));
    }
}
