//! The instant a report is about.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};
use thiserror::Error;

use crate::analysis::kv;
use crate::recording::Recording;

const NANOSECONDS: f64 = 1e9;

/// Which instant of a run to look at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum At {
    /// Where the plane stood highest: its own counter, of the machine what is in use of it.
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
}
