//! Numbers for people.

const KIB: f64 = 1024.0;
/// What stands for a number that is not known. Never a zero.
pub const UNKNOWN: &str = "-";

/// The largest unit that a size reaches, with its decimals.
const UNITS: &[(f64, &str, usize)] =
    &[(KIB * KIB * KIB, "GiB", 2), (KIB * KIB, "MiB", 1), (KIB, "KiB", 1), (1.0, "B", 0)];
/// Below this a MiB with one decimal says nothing.
const SHOWN_AS_MIB: f64 = KIB * KIB / 10.0;

/// A size: GiB, MiB, and smaller units only where MiB would read 0.0.
pub fn size(bytes: i64) -> String {
    if bytes == 0 {
        return "0".to_owned();
    }
    let amount = bytes.unsigned_abs() as f64;
    let reached =
        |&&(unit, name, _): &&(f64, &str, usize)| amount >= if name == "MiB" { SHOWN_AS_MIB } else { unit };
    let (unit, name, decimals) = UNITS.iter().find(reached).copied().unwrap_or((1.0, "B", 0));
    let sign = if bytes < 0 { "-" } else { "" };
    format!("{sign}{:.decimals$} {name}", amount / unit)
}

/// A difference: a size that always has its sign.
pub fn delta(bytes: i64) -> String {
    if bytes > 0 { format!("+{}", size(bytes)) } else { size(bytes) }
}

/// The most that a part may be above its whole: where others went the other way a little, it still is nearly all of it.
const MOST_PERCENT: f64 = 110.0;

/// A part of a whole, in percent: from 0 to a little over 100, else it is no share. A part with the other sign, or much
/// larger than what it is measured by, says nothing as one.
pub fn share(percent: f64) -> String {
    if (0.0..=MOST_PERCENT).contains(&percent) { self::percent(percent) } else { UNKNOWN.to_owned() }
}

pub fn percent(value: f64) -> String {
    // There is no "-0.0".
    let rounded = (value * 10.0).round() / 10.0 + 0.0;
    format!("{rounded:.1} %")
}

pub fn seconds(ns: u64) -> String {
    format!("{:.1} s", ns as f64 / 1e9)
}

/// `1 process`, `2 processes`.
pub fn count(number: usize, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

/// How long something took: milliseconds where seconds would be small numbers.
pub fn duration(ns: u64) -> String {
    if ns < 10_000_000_000 { format!("{:.1} ms", ns as f64 / 1e6) } else { seconds(ns) }
}

/// A size that cannot be negative.
pub fn unsigned(bytes: u64) -> String {
    size(i64::try_from(bytes).unwrap_or(i64::MAX))
}

/// `format` of a number where it is known.
pub fn known<T>(value: Option<T>, format: impl Fn(T) -> String) -> String {
    value.map_or_else(|| UNKNOWN.to_owned(), format)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_well() {
        for (bytes, text) in [
            (0, "0"),
            (17, "17 B"),
            (4096, "4.0 KiB"),
            (-4096, "-4.0 KiB"),
            (1 << 20, "1.0 MiB"),
            (1 << 19, "0.5 MiB"),
            (1_000_000_000, "953.7 MiB"),
            (-(3 << 30), "-3.00 GiB"),
            (i64::MIN, "-8589934592.00 GiB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn a_number_that_is_no_share_is_not_printed_as_one() {
        for (value, text) in [
            (0.0, "0.0 %"),
            (-0.0, "0.0 %"),
            (99.96, "100.0 %"),
            (100.0, "100.0 %"),
            (100.9, "100.9 %"),
            (-0.01, "-"),
            (-265.6, "-"),
            (367.4, "-"),
            (f64::NAN, "-"),
            (f64::INFINITY, "-"),
        ] {
            assert_eq!(share(value), text);
        }
        assert_eq!((percent(-0.01).as_str(), percent(-1.25).as_str()), ("0.0 %", "-1.3 %"));
    }

    #[test]
    fn differences_have_a_sign_and_unknown_is_not_zero() {
        assert_eq!(
            (delta(1 << 20).as_str(), delta(-(1 << 20)).as_str(), delta(0).as_str()),
            ("+1.0 MiB", "-1.0 MiB", "0")
        );
        assert_eq!(known(None, size), "-");
    }
}
