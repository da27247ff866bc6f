//! The instant a report is about.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};
use thiserror::Error;

use spark_trace_recording::parse;

const NANOSECONDS: f64 = 1e9;
/// What a time of the recording's clock begins with.
const CLOCK: char = '@';

/// An instant of one run that can be looked at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum InstantSpec {
    /// Where the plane stood highest: its own counter, of the machine what is in use of it.
    #[default]
    Peak,
    End,
    /// The KV-cache reading, which is at this time of the recording's clock.
    Kv(u64),
    /// Nanoseconds after the target started.
    SinceStart(u64),
    /// Nanoseconds of the recording's clock.
    Time(u64),
}

/// An instant as a user names it: which time it is in a recording, only that recording says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// The same in every recording.
    Fixed(InstantSpec),
    /// The KV-cache reading.
    Kv,
}

#[derive(Debug, Error)]
#[error(
    "neither `peak`, `end`, `kv`, a time since the start (`12.5`, `12.5s`, `465ms`) nor `@` and nanoseconds of the \
     recording's clock"
)]
pub struct NoInstant;

/// Which of a run's instants the KV-cache reading is, for sentences.
const KV: &str = "KV-cache reading";

impl InstantSpec {
    /// The time this names in a run that started at `started_ns`, where it names one without looking at readings.
    pub const fn time(self, started_ns: u64) -> Option<u64> {
        match self {
            Self::Peak | Self::End => None,
            Self::SinceStart(ns) => Some(started_ns.saturating_add(ns)),
            Self::Kv(ns) | Self::Time(ns) => Some(ns),
        }
    }

    /// The time of the query that it is of.
    pub const fn answered(self) -> Option<u64> {
        match self {
            Self::Kv(ns) => Some(ns),
            Self::Peak | Self::End | Self::SinceStart(_) | Self::Time(_) => None,
        }
    }

    /// Which of a run's instants it is, for sentences.
    pub fn of_a_run(self) -> String {
        match self {
            Self::Kv(_) => KV.to_owned(),
            Self::Time(ns) => format!("instant {ns} of the recording's clock"),
            at => at.to_string(),
        }
    }
}

impl Default for Choice {
    fn default() -> Self {
        Self::Fixed(InstantSpec::default())
    }
}

impl FromStr for Choice {
    type Err = NoInstant;

    fn from_str(text: &str) -> Result<Self, NoInstant> {
        let at = match (text, text.strip_prefix(CLOCK)) {
            ("peak", _) => InstantSpec::Peak,
            ("end", _) => InstantSpec::End,
            ("kv", _) => return Ok(Self::Kv),
            (_, Some(clock)) => clock.parse().map(InstantSpec::Time).map_err(|_| NoInstant)?,
            // A number alone is seconds, as for every other time.
            (_, None) => {
                let since = parse::duration(text).map_err(|_| NoInstant)?;
                // Saturates: no run is 584 years long.
                InstantSpec::SinceStart(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
            }
        };
        Ok(Self::Fixed(at))
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(at) => at.fmt(f),
            Self::Kv => f.write_str("kv"),
        }
    }
}

impl fmt::Display for InstantSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Peak => f.write_str("peak"),
            Self::End => f.write_str("end"),
            Self::Kv(_) => f.write_str("kv"),
            Self::SinceStart(ns) => write!(f, "{}s", *ns as f64 / NANOSECONDS),
            Self::Time(ns) => write!(f, "{CLOCK}{ns}"),
        }
    }
}

impl Serialize for InstantSpec {
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
            ("peak", Choice::Fixed(InstantSpec::Peak)),
            ("end", Choice::Fixed(InstantSpec::End)),
            ("kv", Choice::Kv),
            ("12.5s", Choice::Fixed(InstantSpec::SinceStart(12_500_000_000))),
            ("0s", Choice::Fixed(InstantSpec::SinceStart(0))),
            ("@123456", Choice::Fixed(InstantSpec::Time(123_456))),
        ] {
            assert_eq!(text.parse::<Choice>().unwrap(), at);
            assert_eq!(at.to_string(), text);
        }
        for (text, ms) in [("465ms", 465), ("0.465s", 465), ("0.465", 465), ("3", 3000), ("1.5m", 90_000)] {
            let at = Choice::Fixed(InstantSpec::SinceStart(ms * 1_000_000));
            assert_eq!(text.parse::<Choice>().unwrap(), at, "{text}: as `record --interval` reads it");
        }
        for text in ["", "s", "-1s", "nans", "infs", "-3", "12,5s", "later", "@", "@-1", "@1.5", "@3s"] {
            assert!(text.parse::<Choice>().is_err(), "{text}");
        }
    }
}
