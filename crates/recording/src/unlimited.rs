//! How a cgroup's limit says that there is none.

/// cgroup v1 says "no limit" with the largest multiple of the page size (mm/page_counter.c, PAGE_COUNTER_MAX): a limit of
/// at least so many bytes is none.
pub const V1_NO_LIMIT: u64 = 1 << 62;
/// The same in words.
pub const NO_LIMIT: &str = "no limit";
