//! The progress line of a recording.

use std::{
    io::Write,
    time::{Duration, Instant},
};

use crate::{
    ledger::{self, Facts, Plane},
    live::session::Progress,
    recording::Recording,
    render::units,
};

const EVERY: Duration = Duration::from_millis(500);

/// One line on standard error, rewritten in place; nothing where that is not a terminal.
pub struct Line {
    enabled: bool,
    shown: bool,
    last: Option<Instant>,
    peak: u64,
}

impl Line {
    pub const fn new(enabled: bool) -> Self {
        Self { enabled, shown: false, last: None, peak: 0 }
    }

    pub fn show(&mut self, progress: &Progress<'_>) {
        if !self.enabled || self.last.is_some_and(|last| last.elapsed() < EVERY) {
            return;
        }
        self.last = Some(Instant::now());
        let Some((plane, now, top)) = levels(progress.recording) else { return };
        self.peak = self.peak.max(now);
        let top: Vec<_> =
            top.iter().map(|(slug, bytes)| format!("{slug} {}", units::size(*bytes as i64))).collect();
        let lost = if progress.lost > 0 { format!("  LOST {}", progress.lost) } else { String::new() };
        let text = format!(
            "{:>6.1}s  {plane} {} (peak {})  {}{lost}",
            progress.elapsed.as_secs_f64(),
            units::size(now as i64),
            units::size(self.peak as i64),
            top.join(", ")
        );
        // \r and "erase to the end of the line"; a failure to draw is no reason to stop a trace.
        let _ = write!(std::io::stderr(), "\r{text}\x1b[K");
        self.shown = true;
    }

    pub fn clear(&mut self) {
        if self.shown {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
            self.shown = false;
        }
    }
}

/// A source and its bytes.
type Level = (&'static str, u64);

/// The target's plane (the system's where it has no cgroup), its counter and its three largest sources.
fn levels(recording: &Recording) -> Option<(&'static str, u64, Vec<Level>)> {
    let root = recording.target.cgroups.iter().find(|c| c.root);
    let cgroup =
        root.and_then(|c| recording.samples.cgroups.iter().find(|s| s.id == c.id)).map(|s| &s.series);
    let (name, plane, series) = match cgroup.and_then(|s| Some((Plane::of_cgroup(s)?, s))) {
        Some((plane, series)) => ("charged", plane, series),
        None => ("used", Plane::System, &recording.samples.system),
    };
    let last = series.begin_ns.len().checked_sub(1)?;
    let facts = Facts { vmap_stack: recording.host.vmap_stack, ..Facts::default() };
    let balance = ledger::balance(plane, facts, series, last)?;
    let mut rows: Vec<_> = balance.rows.iter().filter_map(|r| Some((r.source.slug, r.bytes?))).collect();
    rows.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
    rows.truncate(3);
    rows.retain(|(_, bytes)| *bytes > 0);
    Some((name, balance.expected?, rows))
}
