//! Bytes as differences count them.

/// No kernel has so many bytes that this limit counts.
pub fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
