//! Sizes, times and files as users write them, on command lines and in plans.

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// `4096`, `64K`, `1M`, `2GiB`: powers of 1024.
pub fn size(text: &str) -> Result<u64, String> {
    let (number, unit) = split(text);
    let shift = match unit.to_ascii_lowercase().trim_end_matches("ib") {
        "" | "b" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        _ => return Err(format!("`{unit}` is no unit of size; use K, M, G or T (powers of 1024)")),
    };
    let number: u64 = number.parse().map_err(|_| format!("`{text}` is no size; write for example 64M"))?;
    number.checked_mul(1 << shift).ok_or_else(|| format!("`{text}` is too large"))
}

/// `100ms`, `2s`, `1.5m`, `1h`; a bare number is seconds.
pub fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = split(text);
    let scale = match unit {
        "us" => 1e-6,
        "ms" => 1e-3,
        "" | "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        _ => return Err(format!("`{unit}` is no unit of time; use us, ms, s, m or h")),
    };
    let number: f64 = number.parse().map_err(|_| format!("`{text}` is no time; write for example 100ms"))?;
    Duration::try_from_secs_f64(number * scale)
        .map_err(|_| format!("`{text}` is no time that can be waited for"))
}

/// Shortest time between two readings: reading takes about as long.
pub const SHORTEST_INTERVAL: Duration = Duration::from_millis(1);

/// A time between two readings.
pub fn interval(text: &str) -> Result<Duration, String> {
    duration(text).and_then(|time| {
        (time >= SHORTEST_INTERVAL)
            .then_some(time)
            .ok_or_else(|| "shorter than 1ms, the shortest interval".to_owned())
    })
}

/// A file that is there, as a path that means the same from everywhere.
pub fn file(text: &str) -> Result<PathBuf, String> {
    std::fs::canonicalize(text).map_err(|e| e.to_string())
}

fn split(text: &str) -> (&str, &str) {
    let text = text.trim();
    text.split_at(text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len()))
}

/// A directory that is there: anything else would be a walk that finds nothing.
pub fn directory(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    match path.metadata() {
        Ok(status) if status.is_dir() => Ok(path),
        Ok(_) => Err("not a directory".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// The time now as `20261121T093000Z`, for file names.
pub fn utc_now() -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    utc(seconds)
}

fn utc(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Days since the epoch to a civil date: the year begins in March, so that leap days come last.
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_index + 2) / 5 + 1;
    let month = if month_index < 10 { month_index + 3 } else { month_index - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year:04}{month:02}{day:02}T{:02}{:02}{:02}Z", rest / 3600, rest / 60 % 60, rest % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, bytes) in
            [("4096", 4096), ("64K", 65536), ("1M", 1 << 20), ("2GiB", 2 << 30), (" 3m ", 3 << 20)]
        {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in ["", "M", "1X", "-1", "1.5M", "99999999999G"] {
            assert!(size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations() {
        assert_eq!(duration("100ms"), Ok(Duration::from_millis(100)));
        assert_eq!(duration("1.5m"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("2"), Ok(Duration::from_secs(2)));
        for text in ["", "x", "-1s", "1y", "nan"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn intervals_that_are_too_short_are_refused() {
        assert_eq!(interval("1ms"), Ok(SHORTEST_INTERVAL));
        for text in ["0", "1us", "999us", "0s"] {
            assert!(interval(text).is_err_and(|said| said.contains("1ms")), "{text}");
        }
    }

    #[test]
    fn dates() {
        assert_eq!(utc(0), "19700101T000000Z");
        assert_eq!(utc(951_782_400), "20000229T000000Z");
        assert_eq!(utc(1_795_253_400), "20261121T093000Z");
    }
}
