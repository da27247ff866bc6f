//! Numbers as they stand in logs, with their units.

use serde::Serialize;

use crate::row::LogUnit;

const KIB: f64 = 1024.0;
const MIB: f64 = KIB * 1024.0;
const GIB: f64 = MIB * 1024.0;
/// What a negative number of MiB is too large by, where it was printed without its sign: bytes wrap at 2^64.
const WRAP_MIB: f64 = (1_u64 << 44) as f64;

/// Units of Go's and Rust's helpers, and of vLLM.
#[rustfmt::skip]
const UNITS: &[(&str, f64)] = &[
    ("B", 1.0), ("bytes", 1.0), ("KiB", KIB), ("MiB", MIB), ("GiB", GIB), ("TiB", GIB * 1024.0),
    ("KB", 1e3), ("MB", 1e6), ("GB", 1e9), ("TB", 1e12),
];

/// Bytes and counts are whole, ratios and seconds are not.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Value {
    Whole(i64),
    Real(f64),
}

impl Value {
    pub fn whole(self) -> Option<i64> {
        match self {
            Self::Whole(value) => Some(value),
            Self::Real(_) => None,
        }
    }

    pub fn real(self) -> f64 {
        match self {
            // Below 2^53 there is an f64 for each.
            Self::Whole(value) => value as f64,
            Self::Real(value) => value,
        }
    }

    pub(crate) fn plus(self, other: Self) -> Self {
        match (self, other) {
            (Self::Whole(a), Self::Whole(b)) => Self::Whole(a.saturating_add(b)),
            (a, b) => Self::Real(a.real() + b.real()),
        }
    }

    pub(crate) fn least(self, other: Self) -> Self {
        if other.real() < self.real() { other } else { self }
    }

    pub(crate) fn most(self, other: Self) -> Self {
        if other.real() > self.real() { other } else { self }
    }
}

/// The value of a text. Absent where it is no number, or larger than a size can be.
pub(crate) fn value(text: &str, unit: LogUnit) -> Option<Value> {
    match unit {
        LogUnit::GiB => whole(number(text)? * GIB),
        LogUnit::MiB => whole(number(text)? * MIB),
        LogUnit::WrappedMiB => {
            let mib = number(text)?;
            whole(if mib >= WRAP_MIB / 2.0 { mib - WRAP_MIB } else { mib } * MIB)
        }
        LogUnit::KiB => whole(number(text)? * KIB),
        LogUnit::Bytes => whole(number(text)?),
        LogUnit::Text => {
            let (size, unit) = text.split_once(' ')?;
            let (_, factor) = UNITS.iter().find(|(name, _)| *name == unit)?;
            whole(number(size)? * factor)
        }
        LogUnit::Count => Some(Value::Whole(text.replace(',', "").parse().ok()?)),
        LogUnit::Ratio | LogUnit::Seconds => Some(Value::Real(number(text)?)),
        LogUnit::Percent => Some(Value::Real(number(text)? / 100.0)),
        LogUnit::Flag => Some(Value::Whole(i64::from(matches!(text, "true" | "enabled")))),
    }
}

/// A full stop behind a number ends the sentence.
fn number(text: &str) -> Option<f64> {
    text.trim_end_matches('.').parse().ok().filter(|number: &f64| number.is_finite())
}

fn whole(value: f64) -> Option<Value> {
    // Logs round to a few digits, so nothing is lost by it.
    (value.abs() < i64::MAX as f64).then(|| Value::Whole(value.round() as i64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_what_they_are() {
        for (text, unit, wanted) in [
            ("1", LogUnit::GiB, 1 << 30),
            ("-4.5", LogUnit::GiB, -(9 << 29)),
            ("0.5", LogUnit::MiB, 1 << 19),
            ("17592186036877", LogUnit::WrappedMiB, -7539 << 20),
            ("-51381", LogUnit::WrappedMiB, -51381 << 20),
            ("19687", LogUnit::WrappedMiB, 19687 << 20),
            ("56701456", LogUnit::KiB, 56_701_456 << 10),
            ("121.5 GiB", LogUnit::Text, 243 << 29),
            ("88611000000 bytes", LogUnit::Text, 88_611_000_000),
            ("1.5 GB", LogUnit::Text, 1_500_000_000),
            ("1,253,392", LogUnit::Count, 1_253_392),
            ("true", LogUnit::Flag, 1),
        ] {
            assert_eq!(value(text, unit), Some(Value::Whole(wanted)), "{text} {unit:?}");
        }
        assert_eq!(value("50", LogUnit::Percent), Some(Value::Real(0.5)));
        assert_eq!(value("1.5.", LogUnit::Seconds), Some(Value::Real(1.5)));
        for (text, unit) in [
            ("", LogUnit::GiB),
            ("1.2.3", LogUnit::GiB),
            ("9e999", LogUnit::GiB),
            ("121.7", LogUnit::Text),
            ("3 parsecs", LogUnit::Text),
            ("99999999999999999999", LogUnit::Count),
            ("99999999999999999999", LogUnit::GiB),
        ] {
            assert_eq!(value(text, unit), None, "{text} {unit:?}");
        }
    }
}
