//! Graphs: an estimate of their memory before the cache is sized, or the capture itself.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::Path;

use anyhow::{Context as _, Result, bail};

use super::take;
use crate::cuda::driver::mem_get_info;

/// vLLM captures two graphs of each kind, and takes all that follow for as large as the second
/// (vllm/v1/worker/gpu_model_runner.py, profile_cudagraph_memory).
const GRAPHS: i64 = 4;
const LEAST_OF_ONE: i64 = 1 << 20;

/// What vLLM estimates: falls of what cuMemGetInfo has as free, of which nobody knows who took it. All of what was captured is
/// given back. Pages of `reclaimed` go while the first graph is captured, as the kernel takes them for somebody's memory.
pub fn estimate(bytes: u64, reclaimed: Option<&Path>) -> Result<i64> {
    let second = bytes / (2 * (GRAPHS - 1).unsigned_abs());
    let before = free()?;
    let first_taken = take(bytes / 2, 1)?;
    if let Some(path) = reclaimed {
        drop_pages(path)?;
    }
    let between = free()?;
    let second_taken = take(second, 1)?;
    let after = free()?;
    for buffer in first_taken.into_iter().chain(second_taken) {
        buffer.free()?;
    }
    Ok(before - between + (GRAPHS - 1) * (between - after).max(LEAST_OF_ONE))
}

fn free() -> Result<i64> {
    Ok(i64::try_from(mem_get_info()?.0)?)
}

fn drop_pages(path: &Path) -> Result<()> {
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    // SAFETY: the descriptor is open; the call takes numbers.
    match unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) } {
        0 => Ok(()),
        error => bail!("posix_fadvise of {}: error {error}", path.display()),
    }
}
