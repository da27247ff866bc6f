//! Files and their page cache: making them, dropping them from the cache, counting how much of them is in it.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::Serialize;

use crate::sys::Machine;

/// The one buffer size for reading and writing: small beside what is measured, large enough to be quick.
pub const BUFFER: usize = 64 << 10;

const TMPFS_MAGIC: u64 = 0x0102_1994;
const RAMFS_MAGIC: u64 = 0x8584_58f6;
const OVERLAYFS_MAGIC: u64 = 0x794c_7630;

/// How much of a file is in the page cache.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Residency {
    pub resident: u64,
    /// Null where only mincore worked.
    pub dirty: Option<u64>,
    pub writeback: Option<u64>,
    pub method: &'static str,
}

/// Pseudo-random bytes (xorshift64*): nothing that compresses, or that two pages have in common.
pub struct Noise(u64);

impl Noise {
    pub fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    pub fn fill(&mut self, buffer: &mut [u8]) {
        for chunk in buffer.chunks_mut(8) {
            self.0 ^= self.0 >> 12;
            self.0 ^= self.0 << 25;
            self.0 ^= self.0 >> 27;
            let bytes = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes();
            chunk.copy_from_slice(&bytes[..chunk.len()]);
        }
    }
}

/// Writes `size` pseudo-random bytes through the page cache.
pub fn write_noise(file: &mut File, size: u64, seed: u64) -> io::Result<()> {
    let mut noise = Noise::new(seed);
    let mut buffer = vec![0; BUFFER];
    let mut left = size;
    while left > 0 {
        let len = usize::try_from(left).unwrap_or(BUFFER).min(BUFFER);
        noise.fill(&mut buffer[..len]);
        file.write_all(&buffer[..len])?;
        left -= len as u64;
    }
    Ok(())
}

/// A new file, never an overwritten one: what is there may be somebody's data.
pub fn create_new(path: &Path) -> Result<File> {
    let created = OpenOptions::new().read(true).write(true).create_new(true).open(path);
    created.map_err(|error| {
        let hint = match error.kind() {
            io::ErrorKind::AlreadyExists => " (files are never overwritten: remove the old one first)",
            io::ErrorKind::NotFound => " (there is no such directory)",
            _ => "",
        };
        anyhow::Error::new(error).context(format!("cannot create {}{hint}", path.display()))
    })
}

/// Makes `path` of `size` bytes, on disk and out of the page cache.
pub fn create(path: &Path, size: u64) -> Result<()> {
    let mut file = create_new(path)?;
    let written = write_noise(&mut file, size, size).and_then(|()| file.sync_all());
    if let Err(error) = written {
        // Half a file would pass for a whole one next time; that it cannot be removed is the lesser news.
        let _ = std::fs::remove_file(path);
        return Err(error).with_context(|| format!("cannot write {size} bytes to {}", path.display()));
    }
    drop_cache(&file).with_context(|| format!("cannot drop {} from the page cache", path.display()))
}

/// Makes `path` if it is missing. A file that is too short is an error: we did not make it, or not for this.
pub fn ensure(path: &Path, size: u64) -> Result<()> {
    match std::fs::metadata(path) {
        Ok(meta) if meta.len() >= size => Ok(()),
        Ok(meta) => bail!(
            "{} exists and has {} bytes, fewer than the {size} wanted: remove it or name another",
            path.display(),
            meta.len()
        ),
        Err(error) if error.kind() == io::ErrorKind::NotFound => create(path, size),
        Err(error) => Err(error).with_context(|| format!("cannot look at {}", path.display())),
    }
}

pub fn drop_path(path: &Path) -> Result<()> {
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    drop_cache(&file).with_context(|| format!("cannot drop {} from the page cache", path.display()))
}

/// Writes out what is dirty, since only clean pages can be dropped, and drops the file from the page cache.
/// Pages that somebody has mapped stay.
pub fn drop_cache(file: &File) -> Result<()> {
    file.sync_data().context("fdatasync")?;
    // SAFETY: the descriptor is open while `file` is borrowed; no memory is passed.
    match unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) } {
        0 => Ok(()),
        // posix_fadvise returns its error, it does not set errno.
        errno => Err(io::Error::from_raw_os_error(errno)).context("posix_fadvise(POSIX_FADV_DONTNEED)"),
    }
}

/// Has reads bring in what they request and no more. (Readahead may go on for many MiB, depending on the
/// disk.)
pub fn no_readahead(file: &File) -> Result<()> {
    // SAFETY: the descriptor is open while `file` is borrowed; no memory is passed.
    match unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_RANDOM) } {
        0 => Ok(()),
        errno => Err(io::Error::from_raw_os_error(errno)).context("posix_fadvise(POSIX_FADV_RANDOM)"),
    }
}

fn filesystem(file: &File) -> Result<u64> {
    // SAFETY: a zeroed statfs is plain numbers.
    let mut stat: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: `stat` is ours to write to and the descriptor is open.
    if unsafe { libc::fstatfs(file.as_raw_fd(), &mut stat) } != 0 {
        return Err(io::Error::last_os_error()).context("fstatfs");
    }
    Ok(u64::from_ne_bytes(stat.f_type.to_ne_bytes()))
}

/// Pages of a file there count as shmem (tmpfs), or are never clean (ramfs).
pub fn is_in_memory(file: &File) -> Result<bool> {
    Ok(matches!(filesystem(file)?, TMPFS_MAGIC | RAMFS_MAGIC))
}

pub fn is_tmpfs(file: &File) -> Result<bool> {
    Ok(filesystem(file)? == TMPFS_MAGIC)
}

/// What of the file is in the page cache, without bringing anything in.
pub fn residency(file: &File, machine: Machine) -> Result<Residency> {
    // On overlayfs (a container's root) cachestat looks at the overlay's own inode, which caches nothing; a
    // mapping is of the real file below.
    if filesystem(file)? != OVERLAYFS_MAGIC {
        match cachestat(file, machine) {
            // Not in this kernel (before 6.5), or forbidden by a seccomp filter that does not know it.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) => {}
            other => return other.context("cachestat"),
        }
    }
    mincore(file, machine)
}

fn cachestat(file: &File, machine: Machine) -> io::Result<Residency> {
    // The same number on every architecture that got it; libc has no name for it on all of them.
    const SYS_CACHESTAT: libc::c_long = 451;
    #[repr(C)]
    struct Range {
        offset: u64,
        len: u64,
    }
    #[repr(C)]
    #[derive(Default)]
    struct Cachestat {
        cache: u64,
        dirty: u64,
        writeback: u64,
        evicted: u64,
        recently_evicted: u64,
    }
    // A length of 0 means up to the end.
    let range = Range { offset: 0, len: 0 };
    let mut stat = Cachestat::default();
    // SAFETY: both structures have the kernel's layout (uapi/linux/mman.h) and outlive the call, which reads
    // the first and writes the second.
    let rc = unsafe { libc::syscall(SYS_CACHESTAT, file.as_raw_fd(), &raw const range, &raw mut stat, 0) };
    if rc != 0 {
        return Err(io::Error::last_os_error());
    }
    let page = machine.page as u64;
    Ok(Residency {
        resident: stat.cache * page,
        dirty: Some(stat.dirty * page),
        writeback: Some(stat.writeback * page),
        method: "cachestat",
    })
}

fn mincore(file: &File, machine: Machine) -> Result<Residency> {
    /// Bounds the vector mincore fills, one byte a page.
    const WINDOW: u64 = 1 << 30;
    let len = file.metadata().context("fstat")?.len();
    let mut resident = 0;
    let mut offset = 0;
    while offset < len {
        let window = machine.pages_up((len - offset).min(WINDOW))?;
        resident += resident_pages(file, offset, window, machine.page)?;
        offset += window as u64;
    }
    Ok(Residency {
        resident: resident * machine.page as u64,
        dirty: None,
        writeback: None,
        method: "mincore",
    })
}

fn resident_pages(file: &File, offset: u64, len: usize, page: usize) -> Result<u64> {
    let offset = libc::off_t::try_from(offset).context("file offset")?;
    let mut pages = vec![0_u8; len / page];
    // SAFETY: a new mapping at an address of the kernel's choice touches nothing of ours.
    let address = unsafe {
        libc::mmap(std::ptr::null_mut(), len, libc::PROT_READ, libc::MAP_SHARED, file.as_raw_fd(), offset)
    };
    if address == libc::MAP_FAILED {
        return Err(io::Error::last_os_error()).context("mmap for mincore");
    }
    // SAFETY: the range is the mapping just made, and `pages` has one byte for each of its pages.
    let rc = unsafe { libc::mincore(address, len, pages.as_mut_ptr()) };
    let error = io::Error::last_os_error();
    // SAFETY: unmaps what was mapped above; nothing points into it.
    unsafe { libc::munmap(address, len) };
    if rc != 0 {
        return Err(error).context("mincore");
    }
    Ok(pages.iter().filter(|page| **page & 1 != 0).count() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_fills_odd_ends() {
        let mut buffer = [0; 21];
        Noise::new(7).fill(&mut buffer);
        assert!(buffer[16..].iter().any(|byte| *byte != 0));
        let mut again = [0; 21];
        Noise::new(7).fill(&mut again);
        assert_eq!(buffer, again);
    }

    #[test]
    fn a_short_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        ensure(&path, 1000).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 1000);
        ensure(&path, 10).unwrap();
        assert!(ensure(&path, 1001).unwrap_err().to_string().contains("1000 bytes"));
        assert!(create_new(&path).is_err());
    }

    #[test]
    fn both_ways_see_the_same_residency() {
        let machine = Machine::read().unwrap();
        let mut file = tempfile::tempfile().unwrap();
        write_noise(&mut file, 100_000, 1).unwrap();
        let want = machine.pages_up(100_000).unwrap() as u64;
        assert_eq!(mincore(&file, machine).unwrap().resident, want);
        assert_eq!(residency(&file, machine).unwrap().resident, want);
    }
}
