//! Page cache of one file, counted by the test with mincore(2): which pages are there, without touching any.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;

use super::oracle::page_size;

/// Bytes of a file in the page cache, in whole pages.
pub fn resident(path: &str) -> i64 {
    let file = File::open(path).unwrap_or_else(|e| panic!("{path}: {e}"));
    let page = usize::try_from(page_size()).unwrap();
    let length = usize::try_from(file.metadata().unwrap().len()).unwrap().next_multiple_of(page);
    let mut pages = vec![0u8; length / page];
    // SAFETY: a new mapping at an address of the kernel's choice touches nothing of ours.
    let address = unsafe {
        libc::mmap(std::ptr::null_mut(), length, libc::PROT_READ, libc::MAP_SHARED, file.as_raw_fd(), 0)
    };
    assert_ne!(address, libc::MAP_FAILED, "mmap of {path}: {}", io::Error::last_os_error());
    // SAFETY: the range is the mapping just made, and `pages` has a byte for each of its pages.
    let result = unsafe { libc::mincore(address, length, pages.as_mut_ptr()) };
    assert_eq!(result, 0, "mincore of {path}: {}", io::Error::last_os_error());
    // SAFETY: unmaps what was mapped above; nothing points into it.
    unsafe { libc::munmap(address, length) };
    let there = pages.iter().filter(|page| **page & 1 != 0).count();
    i64::try_from(there * page).unwrap()
}

/// Drops what the whole machine has cached and nobody uses. A kernel that pages such pages out on its own (DAMON)
/// does it at any time, tens of MiB a second, and without a counter: between two runs that are to be compared.
pub fn drop_unused() {
    // SAFETY: no arguments, no memory.
    unsafe { libc::sync() };
    fs::write("/proc/sys/vm/drop_caches", "1").unwrap();
}
