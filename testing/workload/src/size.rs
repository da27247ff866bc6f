//! Sizes ("64M", "128MiB", "4096") and durations ("500ms", "2s") as given on the command line.
//!
//! Units are binary throughout: memory comes in pages, and "64M" of it should be a whole number of them.

use std::time::Duration;

/// Suffixes, with the power of two each stands for. `MB` is refused rather than guessed at: half of its
/// readers take it for 10^6 bytes.
const UNITS: &[(&str, u32)] = &[
    ("", 0),
    ("b", 0),
    ("k", 10),
    ("kib", 10),
    ("m", 20),
    ("mib", 20),
    ("g", 30),
    ("gib", 30),
    ("t", 40),
    ("tib", 40),
];

/// A size in bytes, at least 1. Everything the kernel takes as a length or file offset is signed, hence the
/// limit.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let unit = unit.trim_start().to_ascii_lowercase();
    let Some((_, shift)) = UNITS.iter().find(|(name, _)| *name == unit) else {
        return Err(format!(
            "unknown unit {unit:?}: use K, M, G or T (or KiB, MiB, ...), all powers of 1024"
        ));
    };
    let number: u64 =
        number.parse().map_err(|_| "want a whole number, as in 4096, 64M or 2GiB".to_owned())?;
    let bytes = number
        .checked_mul(1 << shift)
        .filter(|bytes| i64::try_from(*bytes).is_ok())
        .ok_or_else(|| "larger than any address space".to_owned())?;
    if bytes == 0 {
        return Err("must be at least one byte (leave the option out for none)".to_owned());
    }
    Ok(bytes)
}

/// A duration with its unit; a bare 0 needs none.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 =
        number.parse().map_err(|_| "want a whole number with a unit, as in 500ms or 2s".to_owned())?;
    let nanos_per_unit = match unit.trim_start() {
        "ns" => 1,
        "us" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" | "min" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        "" if number == 0 => 1,
        other => return Err(format!("unknown unit {other:?}: use ns, us, ms, s, min or h")),
    };
    number.checked_mul(nanos_per_unit).map(Duration::from_nanos).ok_or_else(|| "too long".to_owned())
}

/// Rounds up to a multiple of `unit`, a power of two.
pub fn round_up(bytes: u64, unit: u64) -> Option<u64> {
    bytes.checked_next_multiple_of(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("4096", 4096),
            ("1b", 1),
            ("1k", 1024),
            ("64K", 64 << 10),
            ("64M", 64 << 20),
            ("128MiB", 128 << 20),
            ("128 mib", 128 << 20),
            (" 1G ", 1 << 30),
            ("2TiB", 2 << 40),
            ("9223372036854775807", i64::MAX as u64),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn wrong_sizes() {
        for text in [
            "",
            "M",
            "-1",
            "1.5G",
            "1MB",
            "12 parsecs",
            "0",
            "0M",
            "9223372036854775808",
            "99999999999T",
            "1Mi",
        ] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations() {
        assert_eq!(parse_duration("0"), Ok(Duration::ZERO));
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("2s"), Ok(Duration::from_secs(2)));
        assert_eq!(parse_duration("1min"), Ok(Duration::from_secs(60)));
        for text in ["", "5", "s", "-1s", "1.5s", "2 weeks", "99999999999999h"] {
            assert!(parse_duration(text).is_err(), "{text}");
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
