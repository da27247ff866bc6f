//! The progress line of a recording.

use std::{
    collections::BTreeMap,
    io::stderr,
    sync::Arc,
    time::{Duration, Instant},
};

use terminal_size::terminal_size_of;

use spark_trace_agent::{output::screen::Screen, session::Progress};
use spark_trace_recording::ledger::{self, Facts, Plane};
use spark_trace_recording::units::unsigned;
use spark_trace_recording::{Recording, Series};

const EVERY: Duration = Duration::from_millis(500);
/// Where the terminal does not say.
const WIDTH: usize = 80;

/// One line on standard error, drawn again and again.
pub struct Line {
    enabled: bool,
    screen: Arc<Screen>,
    last: Option<Instant>,
    /// Which counter, and how high it was at most.
    peak: Option<(Level, u64)>,
}

/// Whose counter is shown: a peak of one is none of another.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Level {
    /// The machine's, until the target's cgroup is known.
    Used,
    /// The sum over these cgroups.
    Charged(Vec<u64>),
}

impl Level {
    const fn name(&self) -> &'static str {
        match self {
            Self::Used => "used on the machine",
            Self::Charged(_) => "charged",
        }
    }
}

impl Line {
    pub const fn new(enabled: bool, screen: Arc<Screen>) -> Self {
        Self { enabled, screen, last: None, peak: None }
    }

    pub fn show(&mut self, progress: &Progress<'_>) {
        if !self.enabled || self.last.is_some_and(|last| last.elapsed() < EVERY) {
            return;
        }
        self.last = Some(Instant::now());
        let Some(reading) = Reading::last(progress.recording) else { return };
        let text = self.text(progress.elapsed, progress.lost, reading);
        let width = terminal_size_of(stderr()).map_or(WIDTH, |(width, _)| usize::from(width.0));
        // The last column stays free: some terminals wrap when it is written.
        let text: String = text.chars().take(width.saturating_sub(1)).collect();
        self.screen.draw(&mut stderr(), &text);
    }

    fn text(&mut self, elapsed: Duration, lost: u64, reading: Reading) -> String {
        let Reading { level, bytes, sources } = reading;
        let peak = match self.peak.take() {
            Some((known, peak)) if known == level => peak.max(bytes),
            _ => bytes,
        };
        let sources: Vec<_> =
            sources.iter().map(|(slug, bytes)| format!("{slug} {}", unsigned(*bytes))).collect();
        let lost = if lost > 0 { format!("  {lost} events lost") } else { String::new() };
        let text = format!(
            "{:>6.1}s  {} {} (peak {}){lost}  {}",
            elapsed.as_secs_f64(),
            level.name(),
            unsigned(bytes),
            unsigned(peak),
            sources.join(", ")
        );
        self.peak = Some((level, peak));
        text
    }

    pub fn clear(&mut self) {
        if self.enabled {
            self.screen.erase(&mut stderr());
        }
    }
}

/// What the last reading says.
struct Reading {
    level: Level,
    bytes: u64,
    /// The three largest.
    sources: Vec<(&'static str, u64)>,
}

impl Reading {
    /// Of the target's cgroups, together; of the machine where there is none.
    fn last(recording: &Recording) -> Option<Self> {
        let roots: Vec<u64> = recording.target.cgroups.iter().filter(|c| c.root).map(|c| c.id).collect();
        let series = recording.samples.cgroups.iter().filter(|cgroup| roots.contains(&cgroup.id));
        let planes: Vec<_> =
            series.filter_map(|cgroup| Some((Plane::of_cgroup(&cgroup.series)?, &cgroup.series))).collect();
        if planes.is_empty() {
            return Self::sum(Level::Used, &[(Plane::System, &recording.samples.system)], recording);
        }
        Self::sum(Level::Charged(roots), &planes, recording)
    }

    fn sum(level: Level, planes: &[(Plane, &Series)], recording: &Recording) -> Option<Self> {
        let facts = Facts { vmap_stack: recording.host.vmap_stack, ..Facts::default() };
        let (mut total, mut sources) = (None, BTreeMap::new());
        for (plane, series) in planes {
            let Some(last) = series.begin_ns.len().checked_sub(1) else { continue };
            let Some(balance) = ledger::balance(*plane, facts, series, last) else { continue };
            let Some(expected) = balance.expected else { continue };
            total = Some(total.unwrap_or(0) + expected);
            for row in &balance.rows {
                *sources.entry(row.source.slug).or_insert(0) += row.bytes.unwrap_or(0);
            }
        }
        let mut sources: Vec<_> = sources.into_iter().filter(|(_, bytes)| *bytes > 0).collect();
        sources.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
        sources.truncate(3);
        Some(Self { level, bytes: total?, sources })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peak_is_of_the_counter_that_is_shown() {
        let mut line = Line::new(true, Arc::default());
        let mut text = |level: Level, mib: u64| {
            let sources = vec![("anon", mib << 20)];
            line.text(Duration::from_millis(700), 0, Reading { level, bytes: mib << 20, sources })
        };
        let used = text(Level::Used, 13_000);
        assert!(used.contains("used on the machine") && used.contains("(peak 12.70 GiB)"), "{used}");
        let charged = || Level::Charged(vec![7]);
        assert!(text(charged(), 5).contains("charged 5.0 MiB (peak 5.0 MiB)  anon 5.0 MiB"));
        assert!(text(charged(), 9).contains("(peak 9.0 MiB)"));
        assert!(text(charged(), 2).contains("charged 2.0 MiB (peak 9.0 MiB)"));
        // One root less is another sum.
        assert!(text(Level::Charged(vec![7, 8]), 3).contains("(peak 3.0 MiB)"));
    }
}
