//! How long the parts of a reading take, for the log.

use std::time::{Duration, Instant};

use tracing::debug;

/// Parts that a line lists, longest first.
const MOST_PARTS: usize = 4;

/// Takes the time while there is a log, and costs nothing elsewhere.
pub(crate) struct Stopwatch(Option<Laps>);

struct Laps {
    began: Instant,
    last: Instant,
    parts: Vec<(String, Duration)>,
}

impl Stopwatch {
    pub(crate) fn start() -> Self {
        Self::new(tracing::enabled!(tracing::Level::DEBUG))
    }

    fn new(runs: bool) -> Self {
        let now = Instant::now();
        Self(runs.then(|| Laps { began: now, last: now, parts: Vec::new() }))
    }

    /// The time since the lap before was for this.
    pub(crate) fn lap(&mut self, what: impl FnOnce() -> String) {
        if let Some(Laps { last, parts, .. }) = &mut self.0 {
            let now = Instant::now();
            parts.push((what(), now.duration_since(*last)));
            *last = now;
        }
    }

    /// Logs a reading that took more than half of the interval.
    pub(crate) fn end(self, interval: Duration) {
        if let Some(text) = self.text(interval) {
            debug!("{text}");
        }
    }

    fn text(self, interval: Duration) -> Option<String> {
        let Laps { began, last, mut parts } = self.0?;
        let took = last.duration_since(began);
        if took <= interval / 2 {
            return None;
        }
        parts.sort_by_key(|(_, time)| std::cmp::Reverse(*time));
        parts.truncate(MOST_PARTS);
        let parts: Vec<_> = parts.iter().map(|(what, time)| format!("{what} {time:.1?}")).collect();
        Some(format!(
            "slow reading: {took:.1?} is more than half of the interval of {interval:.1?}; its longest parts: {}",
            parts.join(", ")
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn reading(parts: &[(&str, u32)]) -> Stopwatch {
        let began = Instant::now();
        let parts: Vec<_> = parts.iter().map(|(what, ms)| ((*what).to_owned(), *ms * MS)).collect();
        let took: Duration = parts.iter().map(|(_, time)| *time).sum();
        Stopwatch(Some(Laps { began, last: began + took, parts }))
    }

    #[test]
    fn a_slow_reading_names_its_longest_part_first() {
        let parts = [("a", 1), ("b", 40), ("c", 9), ("d", 2), ("e", 3)];
        let text = reading(&parts).text(100 * MS).unwrap();
        assert!(text.contains("55.0ms is more than half of the interval of 100.0ms"), "{text}");
        assert!(text.ends_with("b 40.0ms, c 9.0ms, e 3.0ms, d 2.0ms"), "{text}");
    }

    #[test]
    fn half_of_the_interval_is_not_slow() {
        assert_eq!(reading(&[("a", 50)]).text(100 * MS), None);
        assert_eq!(Stopwatch::new(false).text(Duration::ZERO), None);
    }

    #[test]
    fn without_a_log_nothing_is_formatted() {
        Stopwatch::new(false).lap(|| unreachable!("nobody reads it"));
    }
}
