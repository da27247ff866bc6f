//! Mappings, and touching their pages.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use anyhow::{Context, Result, bail};

use super::Holding;

/// A mapping of ours; unmapped when dropped.
#[derive(Debug)]
pub struct Mapping {
    address: *mut u8,
    len: usize,
}

impl Mapping {
    /// `len` must be whole pages. The kernel chooses the address.
    pub fn new(len: usize, prot: i32, flags: i32, file: Option<&File>) -> io::Result<Self> {
        let fd = file.map_or(-1, File::as_raw_fd);
        // SAFETY: at an address of the kernel's choice, a new mapping replaces nothing of ours.
        let address = unsafe { libc::mmap(std::ptr::null_mut(), len, prot, flags, fd, 0) };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { address: address.cast(), len })
    }

    pub fn anonymous(len: usize) -> Result<Self> {
        Self::new(len, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, None)
            .with_context(|| {
                format!("mmap of {len} bytes of anonymous memory (ulimit -v? vm.overcommit_memory?)")
            })
    }

    /// Anonymous and kept in base pages, as the figures we promise depend on it.
    pub fn base_pages(len: usize) -> Result<Self> {
        let mapping = Self::anonymous(len)?;
        mapping.no_huge_pages()?;
        Ok(mapping)
    }

    /// Anonymous, page by page at `address`, where nothing may be mapped yet.
    pub fn anonymous_at(address: usize, len: usize) -> io::Result<Self> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE;
        let hint = std::ptr::without_provenance_mut(address);
        // SAFETY: MAP_FIXED_NOREPLACE fails where anything is mapped, so nothing of ours is replaced. (A
        // kernel before 4.17 takes the address as a hint, which replaces nothing either.)
        let got = unsafe { libc::mmap(hint, len, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
        if got == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let mapping = Self { address: got.cast(), len };
        if mapping.address() != address {
            return Err(io::Error::from(io::ErrorKind::AddrInUse));
        }
        Ok(mapping)
    }

    /// Anonymous and starting at a multiple of `align`: maps more, and gives back what is before and after.
    pub fn anonymous_aligned(len: usize, align: usize) -> Result<Self> {
        let room = len.checked_add(align).context("size too large")?;
        let whole = std::mem::ManuallyDrop::new(Self::anonymous(room)?);
        let head = whole.address().next_multiple_of(align) - whole.address();
        for (offset, len) in [(0, head), (head + len, align - head)] {
            // SAFETY: `offset..offset + len` lies within the mapping just made, to which nothing points yet.
            if len > 0 && unsafe { libc::munmap(whole.address.add(offset).cast(), len) } != 0 {
                return Err(io::Error::last_os_error()).context("munmap beside an aligned mapping");
            }
        }
        // SAFETY: head < align, so within the mapping.
        Ok(Self { address: unsafe { whole.address.add(head) }, len })
    }

    pub fn address(&self) -> usize {
        self.address.addr()
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn advise(&self, advice: i32) -> io::Result<()> {
        // SAFETY: the range is our whole mapping. Only advice which keeps contents is ever given (on huge
        // pages, on readahead).
        match unsafe { libc::madvise(self.address.cast(), self.len, advice) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    pub fn no_huge_pages(&self) -> Result<()> {
        match self.advise(libc::MADV_NOHUGEPAGE) {
            // A kernel without transparent huge pages does not know the advice, nor need it.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(()),
            other => other.context("madvise(MADV_NOHUGEPAGE)"),
        }
    }

    pub fn protect(&self, prot: i32) -> io::Result<()> {
        // SAFETY: the range is our whole mapping, and no Rust reference points into it; it is written to only
        // through `write_each`, whose callers know how they left it protected.
        match unsafe { libc::mprotect(self.address.cast(), self.len, prot) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Writes to each page; the mapping must be writable. Every page gets its own content. `TAG` goes into it
    /// too, so that no two of the `touch_*` functions have one body: LLVM would merge them under one name,
    /// and stacks would show the wrong one.
    #[inline(always)]
    pub fn write_each<const TAG: u64>(&mut self, page: usize) {
        for offset in (0..self.len).step_by(page) {
            // SAFETY: `len` is whole pages, so eight bytes at the start of each are in the mapping, which we
            // own mutably; aligned, as pages are. Volatile: nothing reads it, and it must still happen.
            unsafe { self.address.add(offset).cast::<u64>().write_volatile(TAG ^ (offset as u64)) };
        }
    }

    /// Reads from each page; the mapping must be readable.
    #[inline(always)]
    pub fn read_each(&self, page: usize) -> u64 {
        let mut sum = 0;
        for offset in (0..self.len).step_by(page) {
            // SAFETY: `offset` is in our mapping. Volatile, since a file's owner may change it under us.
            sum += u64::from(unsafe { self.address.add(offset).read_volatile() });
        }
        sum
    }

    fn unmap(&mut self) -> io::Result<()> {
        let len = std::mem::take(&mut self.len);
        if len == 0 {
            return Ok(());
        }
        // SAFETY: the range is ours, and only this struct points into it; with `len` now 0 it is not used
        // again.
        match unsafe { libc::munmap(self.address.cast(), len) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // Only on the way out of an error, which is the news then.
        let _ = self.unmap();
    }
}

impl Holding for Mapping {
    fn release(mut self: Box<Self>) -> Result<()> {
        let (address, len) = (self.address(), self.len);
        self.unmap().with_context(|| format!("munmap of {len} bytes at {address:#x}"))
    }
}

impl Holding for Vec<Mapping> {
    fn release(self: Box<Self>) -> Result<()> {
        (*self).into_iter().rev().try_for_each(|mapping| Box::new(mapping).release())
    }
}

/// Finds `len` bytes of free addresses at a multiple of `align`, without keeping them.
pub fn free_range(len: usize, align: usize) -> Result<usize> {
    let Some(room) = len.checked_add(align) else { bail!("{len} bytes do not fit into an address space") };
    // Neither accessible nor counted as committed, so that only addresses can run out.
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    let probe = Mapping::new(room, libc::PROT_NONE, flags, None)
        .with_context(|| format!("no {room} bytes of free addresses (ulimit -v?)"))?;
    Ok(probe.address().next_multiple_of(align))
}
