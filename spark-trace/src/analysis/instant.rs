//! The instant a report is about.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};
use thiserror::Error;

use crate::analysis::kv;
use crate::recording::{Instant, Recording};

const NANOSECONDS: f64 = 1e9;

/// Which instant of a run to look at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum At {
    /// Where the plane's own counter was highest.
    #[default]
    Peak,
    End,
    /// The reading that sized the KV cache; where nobody asked for one, the peak.
    Kv,
    /// Nanoseconds after the target started.
    SinceStart(u64),
    /// Nanoseconds of the recording's clock.
    Time(u64),
}

impl At {
    /// The time this names in `recording`, where it names one without looking at readings.
    pub fn time(self, recording: &Recording) -> Option<u64> {
        match self {
            Self::Peak | Self::End => None,
            Self::Kv => kv::instant(recording),
            Self::SinceStart(ns) => Some(recording.target.started_ns.saturating_add(ns)),
            Self::Time(ns) => Some(ns),
        }
    }
}

#[derive(Debug, Error)]
#[error(
    "neither `peak`, `end`, `kv`, seconds since the start (`12.5s`) nor nanoseconds of the recording's clock"
)]
pub struct NoInstant;

impl At {
    /// Which of a run's instants it is, for sentences.
    pub fn of_a_run(self) -> String {
        match self {
            Self::Kv => "reading that sized the KV cache".to_owned(),
            at => at.to_string(),
        }
    }
}

impl FromStr for At {
    type Err = NoInstant;

    fn from_str(text: &str) -> Result<Self, NoInstant> {
        match (text, text.strip_suffix('s')) {
            ("peak", _) => Ok(Self::Peak),
            ("end", _) => Ok(Self::End),
            ("kv", _) => Ok(Self::Kv),
            (_, Some(seconds)) => {
                let seconds: f64 = seconds.parse().map_err(|_| NoInstant)?;
                if !(0.0..f64::MAX).contains(&seconds) {
                    return Err(NoInstant);
                }
                // Saturates: no run is 584 years long.
                Ok(Self::SinceStart((seconds * NANOSECONDS).round() as u64))
            }
            (_, None) => text.parse().map(Self::Time).map_err(|_| NoInstant),
        }
    }
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Peak => f.write_str("peak"),
            Self::End => f.write_str("end"),
            Self::Kv => f.write_str("kv"),
            Self::SinceStart(ns) => write!(f, "{}s", *ns as f64 / NANOSECONDS),
            Self::Time(ns) => write!(f, "{ns}"),
        }
    }
}

impl Serialize for At {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Details of a peak, or of an answer to a query, are read once that has been seen, at the latest this long after.
const DETAILS_FOLLOW_NS: u64 = 500_000_000;

/// Why details are read when the target was told how much memory is free.
pub const QUERY: &str = "query";

/// Index of the instant that tells most of `at_ns`, among those at which `read` says that something was read:
/// the peak that was read soon after it, else the nearest.
pub fn nearest(instants: &[Instant], at_ns: u64, read: impl Fn(usize) -> bool) -> Option<usize> {
    let follows = |instant: &Instant| {
        (instant.why.ends_with("-peak") || instant.why == QUERY)
            && (at_ns..=at_ns.saturating_add(DETAILS_FOLLOW_NS)).contains(&instant.at_ns)
    };
    (0..instants.len())
        .filter(|&index| read(index))
        .min_by_key(|&index| instants.get(index).map(|i| (!follows(i), i.at_ns.abs_diff(at_ns))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_are_parsed_and_printed_alike() {
        for (text, at) in [
            ("peak", At::Peak),
            ("end", At::End),
            ("kv", At::Kv),
            ("12.5s", At::SinceStart(12_500_000_000)),
            ("0s", At::SinceStart(0)),
            ("123456", At::Time(123_456)),
        ] {
            assert_eq!(text.parse::<At>().unwrap(), at);
            assert_eq!(at.to_string(), text);
        }
        for text in ["", "s", "-1s", "nans", "infs", "-3", "12,5s", "later"] {
            assert!(text.parse::<At>().is_err(), "{text}");
        }
    }

    #[test]
    fn only_instants_that_were_read_count() {
        let instants = [10, 20, 30].map(|at_ns| Instant { at_ns, why: String::new() });
        assert_eq!(nearest(&instants, 21, |_| true), Some(1));
        assert_eq!(nearest(&instants, 21, |index| index != 1), Some(2));
        assert_eq!(nearest(&instants, 21, |_| false), None);
        assert_eq!(nearest(&[], 21, |_| true), None);
    }

    #[test]
    fn the_reading_that_a_peak_caused_is_preferred() {
        let instants = [(404, "system-peak"), (596, "cgroup-peak"), (900, "end")]
            .map(|(ms, why)| Instant { at_ns: ms * 1_000_000, why: why.to_owned() });
        assert_eq!(nearest(&instants, 497_000_000, |_| true), Some(1), "the other is from before the peak");
        assert_eq!(nearest(&instants, 880_000_000, |_| true), Some(2));
    }
}
