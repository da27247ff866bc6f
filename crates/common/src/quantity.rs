//! Sizes and times as users write them, on command lines and in plans.

use std::{format, string::String, time::Duration};

/// Units of size, with the power of two that each stands for. `MB` is refused: half of its readers take it for 10^6 bytes.
const SIZES: &[(&str, u32)] = &[
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

/// Units of time, in seconds.
const TIMES: &[(&str, f64)] = &[
    ("ns", 1e-9),
    ("us", 1e-6),
    ("ms", 1e-3),
    ("", 1.0),
    ("s", 1.0),
    ("m", 60.0),
    ("min", 60.0),
    ("h", 3600.0),
];

/// `4096`, `64K`, `1M`, `2 GiB`: powers of 1024.
pub fn size(text: &str) -> Result<u64, String> {
    let (number, unit) = split(text);
    let lower = unit.to_ascii_lowercase();
    let shift = SIZES.iter().find(|(name, _)| *name == lower).map(|(_, shift)| *shift).ok_or_else(|| {
        format!("`{unit}` is no unit of size; use K, M, G or T (or KiB, MiB, ...), powers of 1024")
    })?;
    let number: u64 = number.parse().map_err(|_| format!("`{text}` is no size; write for example 64M"))?;
    number.checked_mul(1 << shift).ok_or_else(|| format!("`{text}` is too large"))
}

/// `100ms`, `2s`, `1.5m`, `1h`; a bare number is seconds.
pub fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = split(text);
    let scale = TIMES.iter().find(|(name, _)| *name == unit).map(|(_, scale)| *scale);
    let scale = scale.ok_or_else(|| format!("`{unit}` is no unit of time; use ns, us, ms, s, m or h"))?;
    let number: f64 = number.parse().map_err(|_| format!("`{text}` is no time; write for example 100ms"))?;
    // Times are added and compared in nanoseconds of 64 bits.
    Duration::try_from_secs_f64(number * scale)
        .ok()
        .filter(|time| u64::try_from(time.as_nanos()).is_ok())
        .ok_or_else(|| format!("`{text}` is no time that can be waited for"))
}

/// The number, and the unit after it.
fn split(text: &str) -> (&str, &str) {
    let text = text.trim();
    let (number, unit) = text.split_at(text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len()));
    (number.trim_end(), unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("1b", 1),
            ("1k", 1024),
            ("64K", 64 << 10),
            ("1M", 1 << 20),
            (" 3m ", 3 << 20),
            ("128 mib", 128 << 20),
            ("2GiB", 2 << 30),
            ("2TiB", 2 << 40),
            ("18446744073709551615", u64::MAX),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in ["", "M", "1X", "-1", "1.5M", "1MB", "1Mi", "1MiBiB", "1ib", "12 parsecs", "99999999999G"]
        {
            assert!(size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations() {
        for (text, time) in [
            ("0", Duration::ZERO),
            ("7ns", Duration::from_nanos(7)),
            ("500us", Duration::from_micros(500)),
            ("100ms", Duration::from_millis(100)),
            ("2", Duration::from_secs(2)),
            ("2 s", Duration::from_secs(2)),
            ("1.5m", Duration::from_secs(90)),
            ("1min", Duration::from_secs(60)),
            ("1h", Duration::from_secs(3600)),
        ] {
            assert_eq!(duration(text), Ok(time), "{text}");
        }
        for text in ["", "x", "s", "-1s", "1y", "nan", "inf", "2 weeks", "99999999999999h"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
