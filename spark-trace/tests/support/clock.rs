//! The clock of recordings.

/// The recording's clock.
pub fn monotonic_ns() -> i64 {
    // SAFETY: an all-zero timespec is valid, and the pointer is to it.
    let now = unsafe {
        let mut now: libc::timespec = std::mem::zeroed();
        libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now);
        now
    };
    now.tv_sec * 1_000_000_000 + now.tv_nsec
}
