//! Windows in which the kernel counts the programs' run time.
//!
//! Its statistics cost two clock reads a run, more than most of our programs take. So they are on for a
//! small part of the time, and run times are put up to the whole: by the runs that the programs count themselves, where those
//! are most of all runs, else by that part.

use std::{
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use aya::sys::Stats;

use super::program_stats::{Counted, ProgramStats};

/// One tick in so many has the statistics on. What itself is done every so many ticks must not be done in each of these
/// windows, or in none: the two numbers have no common divisor.
pub const EVERY: u64 = 21;

/// Time with the statistics on, of a time.
#[derive(Debug, Clone, Copy, Default)]
struct Part {
    on: Duration,
    of: Duration,
}

impl Part {
    fn share(self) -> Option<f64> {
        let share = self.on.as_secs_f64() / self.of.as_secs_f64();
        (share > 0.0).then_some(share.min(1.0))
    }
}

/// What is known of each hook, in their order.
type ByHook = Vec<Option<Counted>>;

#[derive(Debug)]
pub struct Statistics {
    /// Present while they are on.
    on: Option<Window>,
    was_on: Duration,
    begun: Instant,
    start: Option<Start>,
    /// What was counted in the windows since the start that are closed.
    in_windows: ByHook,
}

/// A time with the statistics on: the kernel turns them off when the descriptor is closed, unless others have them on. What it
/// counts for others outside of this time says nothing of how much is done.
#[derive(Debug)]
struct Window {
    _on: OwnedFd,
    since: Instant,
    before: ByHook,
}

/// What was counted until the first tick. It was all counted, and much is done in that time: it says nothing of the rest.
#[derive(Debug)]
struct Start {
    ended: Instant,
    was_on: Duration,
    counted: ByHook,
}

impl Statistics {
    /// Begins with them on, so that even a short trace has run times.
    pub fn begin() -> Self {
        let begun = Instant::now();
        let on = enable().map(|on| Window { _on: on, since: begun, before: Vec::new() });
        Self { on, was_on: Duration::ZERO, begun, start: None, in_windows: Vec::new() }
    }

    /// Whether the kernel lets us.
    pub const fn available(&self) -> bool {
        self.on.is_some() || !self.was_on.is_zero()
    }

    /// Turns them on or off for the time to the next tick. `counted`: by hook, up to now.
    pub fn tick(&mut self, tick: u64, counted: impl Fn() -> ByHook) {
        let window = self.on.take();
        if self.start.is_none() {
            let counted = counted();
            self.was_on += window.map_or(Duration::ZERO, |window| window.since.elapsed());
            self.start = Some(Start { ended: Instant::now(), was_on: self.was_on, counted });
        } else if let Some(window) = window {
            let now = counted();
            self.was_on += window.since.elapsed();
            self.add(&window.before, &now);
        }
        if tick.is_multiple_of(EVERY) {
            self.on = enable().map(|on| Window { _on: on, before: counted(), since: Instant::now() });
        }
    }

    /// Adds what was counted in a window.
    fn add(&mut self, before: &[Option<Counted>], now: &[Option<Counted>]) {
        self.in_windows.resize(now.len(), None);
        for (hook, (sum, now)) in self.in_windows.iter_mut().zip(now).enumerate() {
            let Some(now) = now else { continue };
            let before = before.get(hook).copied().flatten().unwrap_or_default();
            *sum = Some(sum.unwrap_or_default().plus(now.since(before)));
        }
    }

    /// The whole of what a hook's programs have done, of which `now` was counted. Absent where they were never on.
    pub fn whole(&self, hook: usize, now: Counted) -> Option<ProgramStats> {
        let of = |counted: &ByHook| counted.get(hook).copied().flatten().unwrap_or_default();
        let is_on = self.on.as_ref().map_or(Duration::ZERO, |window| window.since.elapsed());
        let all = Part { on: self.was_on + is_on, of: self.begun.elapsed() };
        let later = self.start.as_ref().and_then(|start| {
            let part = Part { on: all.on.saturating_sub(start.was_on), of: start.ended.elapsed() };
            Some((part.share()?, of(&start.counted)))
        });
        match later {
            Some((share, before)) => {
                let open = self.on.as_ref().map_or_else(Counted::default, |on| now.since(of(&on.before)));
                let windows = of(&self.in_windows).plus(open);
                let share = share_by_hits(windows, now.since(before)).unwrap_or(share);
                let whole = before.stats.plus(windows.stats.put_up(share));
                Some(ProgramStats { recursion_misses: now.stats.recursion_misses, ..whole })
            }
            // A trace that is as short as this has nothing else to go by.
            None => all.share().map(|share| now.stats.put_up(share)),
        }
    }
}

/// What part of the runs since the start the windows had. A run that counts itself takes ten times as long as one that leaves at
/// once: where at least half of all runs do, their number says more than the time, in which a storm may come and go.
fn share_by_hits(windows: Counted, since_start: Counted) -> Option<f64> {
    let most = windows.hits > 0 && windows.hits >= windows.stats.runs / 2;
    (most && since_start.hits >= windows.hits).then(|| windows.hits as f64 / since_start.hits as f64)
}

fn enable() -> Option<OwnedFd> {
    aya::sys::enable_stats(Stats::RunTime).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(runs: u64) -> Counted {
        Counted { stats: ProgramStats { runs, run_time_ns: 10 * runs, recursion_misses: 3 }, hits: 0 }
    }

    #[test]
    fn what_was_counted_at_the_start_is_not_put_up() {
        let ago = |ms| Instant::now() - Duration::from_millis(ms);
        let start = Start {
            ended: ago(10_000),
            was_on: Duration::from_millis(500),
            counted: vec![Some(counted(1000)), None],
        };
        let mut statistics = Statistics {
            on: None,
            was_on: Duration::from_millis(1500),
            begun: ago(10_500),
            start: Some(start),
            in_windows: vec![Some(counted(100)), Some(counted(100))],
        };
        // On for 1 s of the 10 s since. What the kernel has counted besides, it has counted for others.
        let runs = |statistics: &Statistics, hook, runs| statistics.whole(hook, counted(runs)).unwrap().runs;
        for all in [1100, 50_000] {
            assert!((1998..=2002).contains(&runs(&statistics, 0, all)), "{}", runs(&statistics, 0, all));
            assert!((998..=1002).contains(&runs(&statistics, 1, all)));
        }
        assert_eq!(statistics.whole(1, counted(7)).unwrap().recursion_misses, 3, "counted always");
        // Before the first window after it.
        statistics.start = None;
        assert!((6990..=7010).contains(&runs(&statistics, 0, 1000)));
        statistics.was_on = Duration::ZERO;
        assert!(statistics.whole(0, counted(5)).is_none());
    }

    #[test]
    fn what_programs_count_themselves_says_what_part_the_windows_had() {
        let of = |runs, hits| Counted { hits, ..counted(runs) };
        // A quarter of the runs, whatever part of the time it was.
        assert_eq!(share_by_hits(of(100, 90), of(0, 360)), Some(0.25));
        // Most leave at once: what those take is not counted.
        assert_eq!(share_by_hits(of(100, 40), of(0, 360)), None);
        assert_eq!(share_by_hits(of(0, 0), of(0, 360)), None, "no run in a window");
        assert_eq!(share_by_hits(of(100, 90), of(0, 80)), None, "no part of what was counted");
    }

    #[test]
    fn windows_are_added_up() {
        let start = Start { ended: Instant::now(), was_on: Duration::ZERO, counted: vec![None, None] };
        let mut statistics = Statistics {
            on: None,
            was_on: Duration::ZERO,
            begun: Instant::now(),
            start: Some(start),
            in_windows: Vec::new(),
        };
        statistics.add(&[Some(counted(10)), None], &[Some(counted(15)), None]);
        // A hook that is attached later has no figures before.
        statistics.add(&[Some(counted(70)), None], &[Some(counted(90)), Some(counted(4))]);
        let runs: Vec<_> = statistics.in_windows.iter().map(|sum| sum.map(|sum| sum.stats.runs)).collect();
        assert_eq!(runs, [Some(25), Some(4)]);
    }
}
