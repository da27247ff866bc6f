//! How the level of every source went over a run, in no more columns than people can see.

use std::collections::BTreeMap;

use serde::Serialize;
use spark_trace_common::source::UNATTRIBUTED;

use crate::attribution::level_of;
use crate::derived::Derived;
use crate::engine_run;
use crate::view::{Scope, View};
use spark_trace_recording::Recording;

/// What a wide screen can show.
pub const COLUMNS: usize = 400;
/// What a mark names one by one.
const NAMED: usize = 4;

/// One plane over a run. Element i of every vector belongs to time i.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Timeline {
    pub plane: Scope,
    /// Of a device plane: NVML's index of the GPU.
    pub device: Option<u32>,
    pub started_ns: u64,
    /// Readings that there are; those shown are the highest of their column.
    pub readings: usize,
    pub at_ns: Vec<u64>,
    /// Sources that had any bytes in the whole run, in the order of the taxonomy; `unattributed` is the last.
    pub bands: Vec<Band>,
    /// The plane's own counter; absent where it could not be read.
    pub expected: Vec<Option<u64>>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Band {
    pub source: &'static str,
    /// Only the residual may be negative. What is unknown is in no row, and so in the residual.
    pub bytes: Vec<Option<i64>>,
}

/// What happened at an instant, drawn over the levels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Mark {
    pub at_ns: u64,
    pub kind: MarkKind,
    /// May hold names from outside.
    pub what: String,
    /// How many it stands for.
    pub count: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum MarkKind {
    /// The KV-cache reading.
    Kv,
    /// A process queried how much memory there is.
    Query,
    Phase,
    /// A stage of an inference engine begins.
    Stage,
    Exec,
}

/// Every plane that the recording has readings of.
pub fn all(recording: &Recording, columns: usize) -> Vec<Timeline> {
    let planes = [Scope::System, Scope::Cgroup].into_iter().filter_map(|scope| View::new(recording, scope));
    let planes = planes.map(|view| timeline(recording, &view, None, columns));
    let devices = recording.samples.devices.iter().filter_map(|device| {
        let view = View::device(recording, device)?;
        Some(timeline(recording, &view, Some(device.index), columns))
    });
    planes.chain(devices).filter(|timeline| !timeline.at_ns.is_empty()).collect()
}

fn timeline(recording: &Recording, view: &View<'_>, device: Option<u32>, columns: usize) -> Timeline {
    let times = view.times();
    let shown = thin(&times, columns, |at_ns| view.height(at_ns));
    let balances: Vec<_> = shown.iter().map(|&at_ns| view.at(at_ns)).collect();
    let bands = view.plane.sources().map(|source| Band {
        source: source.slug,
        bytes: balances.iter().map(|balance| level_of(balance, source.slug)).collect(),
    });
    let has_any =
        |band: &Band| band.source == UNATTRIBUTED || band.bytes.iter().flatten().any(|&bytes| bytes != 0);
    Timeline {
        plane: view.scope,
        device,
        started_ns: recording.target.started_ns,
        readings: times.len(),
        bands: bands.filter(has_any).collect(),
        expected: balances.iter().map(|balance| balance.expected).collect(),
        at_ns: shown,
    }
}

/// Of each of `columns` equal slices the time that is highest, and the first and last of all: whatever is left out,
/// the peak is not.
fn thin(times: &[u64], columns: usize, height: impl Fn(u64) -> Option<u64>) -> Vec<u64> {
    let (Some(&first), Some(&last)) = (times.first(), times.last()) else { return vec![] };
    if times.len() <= columns {
        return times.to_vec();
    }
    let mut highest: BTreeMap<usize, (Option<u64>, u64)> = BTreeMap::new();
    for &at_ns in times {
        let reached = (height(at_ns), at_ns);
        let slot = highest.entry(slice(at_ns, first, last, columns)).or_insert(reached);
        // The first of equals: a level that stays is shown where it was reached.
        if reached.0 > slot.0 {
            *slot = reached;
        }
    }
    let mut shown: Vec<_> = highest.into_values().map(|(_, at_ns)| at_ns).chain([first, last]).collect();
    shown.sort_unstable();
    shown.dedup();
    shown
}

/// Which of `columns` slices of `first..=last` a time is in.
fn slice(at_ns: u64, first: u64, last: u64, columns: usize) -> usize {
    let part = at_ns.saturating_sub(first) as f64 / last.saturating_sub(first).max(1) as f64;
    ((part * columns as f64) as usize).min(columns.saturating_sub(1))
}

impl Timeline {
    /// The highest point of what is shown: of the counter, or of the rows where they reach beyond it.
    pub fn highest(&self) -> u64 {
        let rows = (0..self.at_ns.len()).map(|index| self.stacked(index));
        let counters = self.expected.iter().flatten().copied();
        counters.chain(rows).max().unwrap_or(0)
    }

    /// All rows at time `index`, one on the other.
    fn stacked(&self, index: usize) -> u64 {
        let rows = self.bands.iter().filter_map(|band| band.bytes.get(index).copied().flatten());
        rows.map(|bytes| u64::try_from(bytes).unwrap_or(0)).fold(0, u64::saturating_add)
    }

    /// Seconds after the target's start.
    pub fn seconds(&self, at_ns: u64) -> f64 {
        seconds_between(self.started_ns, at_ns)
    }

    /// The same with at most `most` bands: the largest stay, the others become one, `unattributed` is last still.
    pub fn folded(&self, most: usize) -> (Vec<Band>, Option<Band>) {
        let mut largest: Vec<_> = self.bands.iter().collect();
        largest.sort_by_key(|band| std::cmp::Reverse((band.source == UNATTRIBUTED, band.highest())));
        if largest.len() <= most {
            return (self.bands.clone(), None);
        }
        let kept: Vec<_> = largest.iter().take(most.saturating_sub(1)).map(|band| band.source).collect();
        let (shown, others): (Vec<_>, Vec<_>) =
            self.bands.iter().cloned().partition(|band| kept.contains(&band.source));
        let sum = |index: usize| {
            let rows = others.iter().filter_map(|band| band.bytes.get(index).copied().flatten());
            Some(rows.fold(0, i64::saturating_add))
        };
        (shown, Some(Band { source: OTHERS, bytes: (0..self.at_ns.len()).map(sum).collect() }))
    }
}

/// Stands for the sources that are too small to be drawn.
pub const OTHERS: &str = "others";

impl Band {
    pub fn highest(&self) -> i64 {
        self.bytes.iter().flatten().copied().max().unwrap_or(0)
    }
}

/// Signed: readings begin before the target does.
pub fn seconds_between(from_ns: u64, to_ns: u64) -> f64 {
    (i128::from(to_ns) - i128::from(from_ns)) as f64 / 1e9
}

/// Queries, phases, the first programs of processes and the KV-cache reading, between two times; of
/// one kind in one column one mark.
pub fn marks<'a>(run: impl Into<Derived<'a>>, (first, last): (u64, u64), columns: usize) -> Vec<Mark> {
    let run = run.into();
    let recording = run.recording;
    let kv = run.kv_instant().map(|at_ns| (at_ns, MarkKind::Kv, "KV-cache reading".to_owned()));
    let queries = run.queries().into_iter().flat_map(|queries| &queries.rows);
    let queries =
        queries.map(|row| (row.at_ns, MarkKind::Query, format!("{} by {}", row.interface, row.comm)));
    let phases = recording.phases.iter().map(|phase| (phase.at_ns, MarkKind::Phase, phase.name.clone()));
    let stages = engine_run::stages_of(&run).into_iter();
    let stages = stages.map(|row| (row.span.begin_ns, MarkKind::Stage, row.stage.as_str().to_owned()));
    let processes = recording.provenance.processes.iter();
    let execs =
        processes.filter_map(|process| Some((process.exec_ns?, MarkKind::Exec, process.comm.clone())));
    let all = kv.into_iter().chain(queries).chain(phases).chain(stages).chain(execs);

    let mut grouped: BTreeMap<(usize, MarkKind), (u64, BTreeMap<String, u64>)> = BTreeMap::new();
    for (at_ns, kind, what) in all.filter(|(at_ns, ..)| (first..=last).contains(at_ns)) {
        let (earliest, names) =
            grouped.entry((slice(at_ns, first, last, columns), kind)).or_insert((at_ns, BTreeMap::new()));
        *earliest = at_ns.min(*earliest);
        *names.entry(what).or_default() += 1;
    }
    let marks = grouped.into_iter().map(|((_, kind), (at_ns, names))| Mark {
        at_ns,
        kind,
        count: names.values().sum(),
        what: named(&names),
    });
    let mut marks: Vec<_> = marks.collect();
    marks.sort_by_key(|mark| (mark.at_ns, mark.kind));
    marks
}

fn named(names: &BTreeMap<String, u64>) -> String {
    let first = names.iter().take(NAMED);
    let first =
        first.map(|(name, &count)| if count > 1 { format!("{name} ({count})") } else { name.clone() });
    let others = names.len().saturating_sub(NAMED);
    let others = (others > 0).then(|| format!("and {others} others"));
    first.chain(others).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use spark_trace_testing as testing;
    use spark_trace_testing::{MIB, SECOND, START};

    #[test]
    fn every_plane_has_its_sources_and_its_peak() {
        let timelines = all(&testing::gpus(), COLUMNS);
        let planes: Vec<_> = timelines.iter().map(|timeline| (timeline.plane, timeline.device)).collect();
        assert_eq!(
            planes,
            [
                (Scope::System, None),
                (Scope::Cgroup, None),
                (Scope::Device, Some(0)),
                (Scope::Device, Some(1))
            ]
        );
        let cgroup = &timelines[1];
        assert_eq!((cgroup.readings, cgroup.at_ns.len()), (2, 2));
        assert_eq!(cgroup.highest(), (810 + 990 + 20 + 8 + 1) * MIB);
        assert_eq!(cgroup.bands.last().unwrap().source, UNATTRIBUTED);
        assert!(cgroup.bands.iter().all(|band| band.source != "shmem"), "it never held anything");
        assert!((cgroup.seconds(cgroup.at_ns[0]) - 5.0).abs() < 0.01);
        assert!(all(&testing::empty(), COLUMNS).is_empty());
    }

    #[test]
    fn thinning_keeps_the_maxima() {
        let times: Vec<u64> = (0..100_000).collect();
        let height = |at_ns: u64| Some(if at_ns == 77_777 { 9 } else { at_ns % 2 });
        let shown = thin(&times, COLUMNS, height);
        assert!(shown.len() <= COLUMNS + 2, "{}", shown.len());
        assert!(shown.contains(&77_777) && shown.contains(&0) && shown.contains(&99_999));
        assert!(shown.is_sorted());
        assert_eq!(thin(&times[..3], COLUMNS, height), [0, 1, 2]);
        assert!(thin(&[], COLUMNS, height).is_empty());
        assert_eq!(thin(&[0, u64::MAX], 1, height), [0, u64::MAX]);
    }

    #[test]
    fn small_bands_become_one_and_nothing_is_lost() {
        let timeline = &all(&testing::container(), COLUMNS)[0];
        let (shown, others) = timeline.folded(4);
        let others = others.unwrap();
        assert_eq!(shown.len(), 3);
        assert!(shown.iter().any(|band| band.source == UNATTRIBUTED));
        for index in 0..timeline.at_ns.len() {
            let sum = |bands: &[Band]| {
                bands.iter().filter_map(|band| band.bytes[index]).map(i128::from).sum::<i128>()
            };
            assert_eq!(sum(&shown) + i128::from(others.bytes[index].unwrap()), sum(&timeline.bands));
        }
        assert!(timeline.folded(99).1.is_none());
    }

    #[test]
    fn marks_of_one_column_are_one() {
        let recording = testing::cuda();
        let axis = (START, START + 10 * SECOND);
        let marks = |columns| marks(&recording, axis, columns);
        let count = |marks: &[Mark], kind| {
            marks.iter().filter(|mark| mark.kind == kind).map(|mark| mark.count).sum::<u64>()
        };
        let (many, few) = (marks(COLUMNS), marks(1));
        assert_eq!(count(&many, MarkKind::Query), 8);
        assert_eq!(count(&many, MarkKind::Query), count(&few, MarkKind::Query));
        assert_eq!(few.iter().filter(|mark| mark.kind == MarkKind::Query).count(), 1);
        let one = few.iter().find(|mark| mark.kind == MarkKind::Query).unwrap();
        assert!(one.what.contains("cuMemGetInfo_v2 by python3 (3)"), "{}", one.what);
        assert_eq!(count(&many, MarkKind::Phase), 2);
    }
}
