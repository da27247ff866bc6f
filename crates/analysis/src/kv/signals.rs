//! Figures that an answer about free memory may agree with.

/// Of the kernel.
pub const FREE: &str = "MemFree";
pub const AVAILABLE: &str = "MemAvailable";
/// What no page cache counts against.
pub const GPU_MEMORY: &str = "the GPU's own memory";
