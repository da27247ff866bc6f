//! One frame of the live view: every plane at one time, with what has changed.
//!
//! A frame is made of a recording, finished or still growing, by the same fold as `show`: at the time of a reading both
//! say the same to the byte.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::attribution::{Reconciliation, bytes, difference, level_of};
use crate::derived::Derived;
use crate::engine_now::{self, EngineNow};
use crate::losses;
use crate::memory_use::{self, MemoryUse};
use crate::view::{Scope, View};
use spark_trace_recording::Recording;
use spark_trace_recording::ledger::Balance;
use spark_trace_recording::verdict::Verdict;

pub const SCHEMA: &str = "spark-trace/frame";
pub const SCHEMA_VERSION: u32 = 1;

/// Rates are over at least this long: shorter ones jump.
const RATE_NS: u64 = 1_000_000_000;
/// Queries that a frame lists, the latest.
const QUERIES: usize = 8;

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Frame {
    pub schema: &'static str,
    pub schema_version: u32,
    /// Of the recording's clock.
    pub at_ns: u64,
    /// Since the trace began.
    pub elapsed_ns: u64,
    pub planes: Vec<PlaneFrame>,
    /// Absent where no GPU was read.
    pub memory_use: Option<MemoryUse>,
    /// Where the inference engine is; absent where none is known.
    pub engine: Option<EngineNow>,
    /// The latest answers to the question how much memory there is, the latest last.
    pub queries: Vec<LatestQuery>,
    pub hooks: Hooks,
    /// Events and rows that did not find room, and runs of hooks that the kernel skipped.
    pub lost: u64,
    /// Of those the events and rows, and what most of them were for.
    pub entries_lost: u64,
    pub most_lost: Option<String>,
    pub agent_cpu_ns: u64,
    pub agent_rss_peak: u64,
    /// Absent where the kernel does not count it.
    pub programs_ns: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PlaneFrame {
    pub plane: Scope,
    /// NVML's index of the GPU of a device plane.
    pub device: Option<u32>,
    /// Time of the plane's own reading.
    pub at_ns: u64,
    #[serde(flatten)]
    pub level: Reconciliation,
    pub sources: Vec<SourceFrame>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SourceFrame {
    pub source: &'static str,
    /// Only `unattributed` may be negative.
    pub bytes: Option<i64>,
    /// Bytes per second.
    pub rate: Option<i64>,
    /// Since the mark.
    pub delta: Option<i64>,
    pub charged: &'static str,
    pub reclaimable: &'static str,
    /// Levels of the latest readings, this one last.
    #[serde(skip)]
    pub history: Vec<Option<i64>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LatestQuery {
    pub at_ns: u64,
    pub pid: u32,
    pub comm: String,
    pub interface: String,
    /// Where the answer was a word.
    pub text: Option<String>,
    pub values: BTreeMap<String, u64>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Hooks {
    pub ok: usize,
    /// Those that the profile wants, or the user.
    pub wanted: usize,
}

/// What a level is compared with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mark {
    pub at_ns: u64,
    levels: BTreeMap<Key, i64>,
}

/// Plane, device and source.
type Key = (&'static str, Option<u32>, &'static str);

impl Frame {
    /// The frame at `at_ns`, with this many readings of history.
    pub fn new(recording: &Recording, at_ns: u64, mark: Option<&Mark>, history: usize) -> Self {
        let planes = [Scope::System, Scope::Cgroup]
            .into_iter()
            .filter_map(|scope| Some(plane(&View::new(recording, scope)?, None, at_ns, mark, history)));
        let devices = recording.samples.devices.iter().filter_map(|device| {
            let view = View::device(recording, device)?;
            Some(plane(&view, Some(device.index), at_ns, mark, history))
        });
        let health = &recording.health;
        let run = Derived::from(recording);
        let wanted = health
            .hooks
            .iter()
            .filter(|hook| !matches!(hook.verdict.known(), Some(Verdict::Off | Verdict::NotApplicable)));
        Self {
            schema: SCHEMA,
            schema_version: SCHEMA_VERSION,
            at_ns,
            elapsed_ns: at_ns.saturating_sub(recording.target.started_ns),
            planes: planes.chain(devices).collect(),
            memory_use: memory_use::at(recording, at_ns),
            engine: engine_now::at(&run, at_ns),
            queries: queries(&run, at_ns),
            hooks: Hooks {
                ok: wanted.clone().filter(|hook| hook.verdict == Verdict::Ok).count(),
                wanted: wanted.count(),
            },
            lost: health.lost_total,
            entries_lost: losses::entries(health),
            most_lost: losses::most(health).map(|loss| loss.what.clone()),
            agent_cpu_ns: recording.cost.agent_cpu_ns,
            agent_rss_peak: recording.cost.agent_rss_peak,
            programs_ns: recording.cost.bpf_run_time_ns,
        }
    }

    /// What later frames are compared with.
    pub fn mark(&self) -> Mark {
        let rows = self.planes.iter().flat_map(|plane| {
            let key = |row: &SourceFrame| (plane.plane.as_str(), plane.device, row.source);
            plane.sources.iter().filter_map(move |row| Some((key(row), row.bytes?)))
        });
        Mark { at_ns: self.at_ns, levels: rows.collect() }
    }
}

fn plane(
    view: &View<'_>,
    device: Option<u32>,
    at_ns: u64,
    mark: Option<&Mark>,
    history: usize,
) -> PlaneFrame {
    let now = view.at(at_ns);
    let mut times = view.times();
    times.retain(|&time| time <= now.at_ns);
    let shown = times.len().saturating_sub(history);
    let balances: Vec<Balance> = times[shown..].iter().map(|&time| view.at(time)).collect();
    let earlier = times.iter().rev().find(|&&time| time + RATE_NS <= now.at_ns).or(times.first());
    let earlier = earlier.map(|&time| view.at(time));
    let row = |source: &'static spark_trace_common::source::Source| {
        let level = level_of(&now, source.slug);
        let marked =
            mark.and_then(|mark| mark.levels.get(&(view.scope.as_str(), device, source.slug)).copied());
        SourceFrame {
            source: source.slug,
            bytes: level,
            rate: earlier.as_ref().and_then(|earlier| {
                let seconds = now.at_ns.checked_sub(earlier.at_ns).filter(|&ns| ns > 0)? as f64 / 1e9;
                Some((difference(level, level_of(earlier, source.slug))? as f64 / seconds).round() as i64)
            }),
            delta: difference(level, marked),
            charged: source.charged.as_str(),
            reclaimable: source.reclaimable.as_str(),
            history: balances.iter().map(|balance| level_of(balance, source.slug)).collect(),
        }
    };
    PlaneFrame {
        plane: view.scope,
        device,
        at_ns: now.at_ns,
        level: Reconciliation::new(bytes(now.expected), bytes(Some(now.attributed)).unwrap_or(0)),
        sources: view.plane.sources().map(row).collect(),
    }
}

fn queries(run: &Derived<'_>, at_ns: u64) -> Vec<LatestQuery> {
    let Some(all) = run.queries() else { return Vec::new() };
    // What spark-trace reads for its own levels is no news.
    let own = |pid: u32| run.recording.tool.pid == Some(pid);
    let until: Vec<_> = all.rows.iter().filter(|row| row.at_ns <= at_ns && !own(row.pid)).collect();
    let skipped = until.len().saturating_sub(QUERIES);
    let latest = until.into_iter().skip(skipped);
    latest
        .map(|row| LatestQuery {
            at_ns: row.at_ns,
            pid: row.pid,
            comm: row.comm.clone(),
            interface: row.interface.clone(),
            text: row.text.clone(),
            values: row.values.clone(),
        })
        .collect()
}

/// Every time at which a plane was read, in order: the frames there are.
pub fn times(recording: &Recording) -> Vec<u64> {
    let views = Scope::ALL.into_iter().filter_map(|scope| View::new(recording, scope));
    let mut times: Vec<u64> = views.flat_map(|view| view.times()).collect();
    times.sort_unstable();
    times.dedup();
    times
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attribution;
    use crate::instant_spec::InstantSpec;
    use spark_trace_testing as testing;
    use spark_trace_testing::{MIB, SECOND, START};

    #[test]
    fn a_frame_says_what_show_says_at_every_reading() {
        for recording in [testing::native(), testing::container(), testing::cuda(), testing::gpus()] {
            for at_ns in times(&recording) {
                let frame = Frame::new(&recording, at_ns, None, 4);
                let report = attribution::report(&recording, InstantSpec::Time(at_ns));
                assert_eq!(frame.planes.len(), report.planes.iter().count());
                for (plane, shown) in frame.planes.iter().zip(report.planes.iter()) {
                    assert_eq!((plane.at_ns, plane.level), (shown.at_ns, shown.level));
                    let levels: Vec<_> = plane.sources.iter().map(|row| (row.source, row.bytes)).collect();
                    let wanted: Vec<_> = shown.sources.iter().map(|row| (row.source, row.bytes)).collect();
                    assert_eq!(levels, wanted);
                }
            }
        }
    }

    #[test]
    fn growth_is_since_the_mark_and_rates_are_per_second() {
        let recording = testing::container();
        let first = Frame::new(&recording, START, None, 8);
        let mark = first.mark();
        let peak = Frame::new(&recording, START + 5 * SECOND, Some(&mark), 8);
        let anon =
            |frame: &Frame| frame.planes[0].sources.iter().find(|row| row.source == "anon").unwrap().clone();
        let (before, after) = (anon(&first), anon(&peak));
        assert_eq!(before.delta, None);
        assert_eq!(after.delta, difference(after.bytes, before.bytes));
        assert!(after.delta.unwrap() > 100 * MIB as i64);
        let rate = after.rate.unwrap();
        assert!(rate > 0 && rate <= after.delta.unwrap());
        assert_eq!(after.history.last().copied().flatten(), after.bytes);
    }

    #[test]
    fn the_latest_queries_are_shown() {
        let recording = testing::cuda();
        let frame = Frame::new(&recording, u64::MAX, None, 0);
        assert!(!frame.queries.is_empty() && frame.queries.len() <= QUERIES);
        assert!(frame.queries.is_sorted_by_key(|query| query.at_ns));
        assert!(Frame::new(&recording, START - SECOND, None, 0).queries.is_empty());
    }
}
