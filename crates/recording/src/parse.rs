//! Sizes, times and files as users write them, on command lines and in plans.

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub use spark_trace_common::quantity::{duration, size};

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

/// The smallest size of what is looked at closely, or nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SizeOrOff(pub Option<u64>);

pub fn size_or_off(text: &str) -> Result<SizeOrOff, String> {
    if text == "off" {
        return Ok(SizeOrOff(None));
    }
    size(text).map(|bytes| SizeOrOff(Some(bytes))).map_err(|error| format!("{error}, or `off`"))
}

/// A file that is there, as a path that means the same from everywhere.
pub fn file(text: &str) -> Result<PathBuf, String> {
    std::fs::canonicalize(text).map_err(|e| e.to_string())
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

/// Seconds since 1970 as [`utc_now`] writes them.
pub fn utc(seconds: u64) -> String {
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
    fn intervals_that_are_too_short_are_refused() {
        assert_eq!(interval("1ms"), Ok(SHORTEST_INTERVAL));
        for text in ["0", "1us", "999us", "0s"] {
            assert!(interval(text).is_err_and(|said| said.contains("1ms")), "{text}");
        }
    }

    #[test]
    fn off_is_no_size() {
        assert_eq!(size_or_off("off"), Ok(SizeOrOff(None)));
        assert_eq!(size_or_off("0"), Ok(SizeOrOff(Some(0))));
        assert_eq!(size_or_off("2M"), Ok(SizeOrOff(Some(2 << 20))));
        for text in ["of", "lots"] {
            assert!(size_or_off(text).is_err_and(|error| error.ends_with(", or `off`")), "{text}");
        }
    }

    #[test]
    fn dates() {
        assert_eq!(utc(0), "19700101T000000Z");
        assert_eq!(utc(951_782_400), "20000229T000000Z");
        assert_eq!(utc(1_795_253_400), "20261121T093000Z");
    }
}
