//! Lines that begin with their time, as engines of containers write them (RFC 3339).

const DAY: i64 = 86_400;

/// The time of a line in nanoseconds since the epoch, and its text.
pub(super) fn dated(line: &str) -> Option<(i64, &str)> {
    let (stamp, text) = line.split_once(' ').unwrap_or((line, ""));
    Some((time(stamp)?, text))
}

/// `2026-11-30T12:51:22.123456789Z`, with or without a fraction, or with `+01:00` for the `Z`.
fn time(stamp: &str) -> Option<i64> {
    let (date, rest) = stamp.split_once('T')?;
    let (clock, east_seconds) = match rest.strip_suffix('Z') {
        Some(clock) => (clock, 0),
        None => {
            let at = rest.rfind(['+', '-'])?;
            let (clock, offset) = rest.split_at_checked(at)?;
            let (sign, offset) = offset.split_at_checked(1)?;
            let [hours, minutes] = numbers(offset, ':')?;
            let seconds = bounded(hours, 0, 23)? * 3600 + bounded(minutes, 0, 59)? * 60;
            (clock, if sign == "-" { -seconds } else { seconds })
        }
    };
    let [year, month, day] = numbers(date, '-')?;
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
    let [hours, minutes, seconds] = numbers(clock, ':')?;
    let of_day = bounded(hours, 0, 23)? * 3600 + bounded(minutes, 0, 59)? * 60 + bounded(seconds, 0, 60)?;
    let days = days(bounded(year, 1970, 2200)?, bounded(month, 1, 12)?, bounded(day, 1, 31)?);
    let digits = fraction.len();
    let fraction: i64 = numbers::<1>(fraction, '.').filter(|_| digits <= 9)?[0];
    let nanoseconds = fraction * 10_i64.pow(9 - u32::try_from(digits).ok()?);
    (days * DAY + of_day - east_seconds).checked_mul(1_000_000_000)?.checked_add(nanoseconds)
}

fn numbers<const N: usize>(text: &str, between: char) -> Option<[i64; N]> {
    let number = |part: &str| {
        let digits = !part.is_empty() && part.len() <= 9 && part.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| part.parse().ok()).flatten()
    };
    text.split(between).map(number).collect::<Option<Vec<i64>>>()?.try_into().ok()
}

fn bounded(value: i64, least: i64, most: i64) -> Option<i64> {
    (least..=most).contains(&value).then_some(value)
}

/// Days since the epoch, of the Gregorian calendar: whole years count from March, so that a leap day ends one.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let before_epoch = 719_468;
    year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + day - 1 - before_epoch
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Times by date(1): `date -d STAMP +%s`.
    #[test]
    fn times_are_those_of_the_calendar() {
        for (line, seconds, ns, text) in [
            ("2026-11-30T12:51:22.123456789Z a b", 1_796_043_082, 123_456_789, "a b"),
            ("2026-11-30T13:51:22+01:00 a", 1_796_043_082, 0, "a"),
            ("2026-11-30T07:21:22.5-05:30 ", 1_796_043_082, 500_000_000, ""),
            ("2024-02-29T23:59:59Z", 1_709_251_199, 0, ""),
            ("2024-03-01T00:00:00Z x", 1_709_251_200, 0, "x"),
            ("1970-01-01T00:00:00Z x", 0, 0, "x"),
        ] {
            assert_eq!(dated(line), Some((seconds * 1_000_000_000 + ns, text)), "{line}");
        }
    }

    #[test]
    fn what_is_no_time_has_none() {
        for line in [
            "",
            "INFO a",
            "2026-11-30 12:51:22 a",
            "2026-13-30T12:51:22Z a",
            "2026-11-30T12:51:22 a",
            "2026-11-30T12:51:22.1234567890Z a",
            "2026-11-30T12:51Z a",
            "T+ a",
            "2026-11-30T12:51:22+ a",
        ] {
            assert_eq!(dated(line), None, "{line}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_taken(line in ".{0,40}") {
            let _ = dated(&line);
        }
    }
}
