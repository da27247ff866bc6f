//! Another process's memory. It says what it likes and changes while it is read.

use std::mem::size_of;

/// Fills `room` from `address`; nothing where not all of it can be read.
pub fn fill(pid: u32, address: u64, room: &mut [u8]) -> Option<()> {
    let local = libc::iovec { iov_base: room.as_mut_ptr().cast(), iov_len: room.len() };
    let remote = libc::iovec { iov_base: address as *mut libc::c_void, iov_len: room.len() };
    let pid = libc::pid_t::try_from(pid).ok()?;
    // SAFETY: one place to write, which has the length that it says; the other process's address is checked by the kernel.
    let read = unsafe { libc::process_vm_readv(pid, &raw const local, 1, &raw const remote, 1, 0) };
    (usize::try_from(read) == Ok(room.len())).then_some(())
}

pub fn words<const N: usize>(pid: u32, address: u64) -> Option<[u64; N]> {
    let mut bytes = vec![0; N * size_of::<u64>()];
    fill(pid, address, &mut bytes)?;
    let mut words = [0; N];
    for (word, bytes) in words.iter_mut().zip(bytes.as_chunks().0) {
        *word = u64::from_ne_bytes(*bytes);
    }
    Some(words)
}

pub fn word(pid: u32, address: u64) -> Option<u64> {
    words::<1>(pid, address).map(|[word]| word)
}
