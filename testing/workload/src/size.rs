//! Sizes as given on the command line, and sizes of mappings.

use spark_trace_common::quantity;

/// A size in bytes, at least 1. Everything the kernel takes as a length or file offset is signed, hence the
/// limit.
pub fn parse_size(text: &str) -> Result<u64, String> {
    match quantity::size(text)? {
        0 => Err("must be at least one byte (leave the option out for none)".to_owned()),
        bytes if i64::try_from(bytes).is_err() => Err("larger than any address space".to_owned()),
        bytes => Ok(bytes),
    }
}

/// Rounds up to a multiple of `unit`, a power of two.
pub fn round_up(bytes: u64, unit: u64) -> Option<u64> {
    bytes.checked_next_multiple_of(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_at_least_a_byte_and_fit_an_address_space() {
        assert_eq!(parse_size("64M"), Ok(64 << 20));
        assert_eq!(parse_size("9223372036854775807"), Ok(i64::MAX as u64));
        for text in ["0", "0M", "9223372036854775808", "99999999999T", "1MB"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn rounding() {
        assert_eq!(round_up(1, 4096), Some(4096));
        assert_eq!(round_up(4096, 4096), Some(4096));
        assert_eq!(round_up(4097, 65536), Some(65536));
        assert_eq!(round_up(u64::MAX, 4096), None);
    }
}
