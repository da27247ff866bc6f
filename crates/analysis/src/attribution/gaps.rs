//! Times without a reading, and peaks that stand beside one.

use super::{PlaneReport, Planes};
use crate::view::{Root, Scope};
use crate::warning::Warning;
use spark_trace_recording::{Aged, Gaps, Health, Recording, Series};

/// Readings further apart than so many intervals are a gap.
const INTERVALS: u64 = 3;

/// What was not read for a time.
pub fn counted(health: &Health) -> impl Iterator<Item = Warning> {
    let counted = [("the memory levels", health.gaps), ("the GPUs", health.device_gaps)];
    counted.into_iter().filter_map(|(what, gaps)| {
        let Gaps { count, longest_ns, total_ns } = gaps.filter(|gaps| gaps.count > 0)?;
        Some(Warning::Gaps { what, count, longest_ns, total_ns })
    })
}

/// What was left out so that the recording stays within its limits, or because it is old.
pub fn reduced(health: &Health) -> impl Iterator<Item = Warning> {
    let reduced = health.reduced.unwrap_or_default();
    let readings = (reduced.readings > 0).then_some(Warning::Thinned {
        readings: reduced.readings,
        levels_ns: reduced.levels_spacing_ns,
        processes_ns: reduced.processes_spacing_ns,
    });
    let aged = reduced.aged.map(|Aged { readings, fine_ns, spacing_ns }| Warning::Aged {
        readings,
        fine_ns,
        spacing_ns,
    });
    let mappings = (reduced.mappings > 0).then_some(Warning::BriefMappings { count: reduced.mappings });
    readings.into_iter().chain(aged).chain(mappings)
}

/// The same, and whose peak that touches.
pub(super) fn warnings(recording: &Recording, planes: &Planes) -> Vec<Warning> {
    let beside = planes.iter().filter_map(|plane| {
        let gap_ns = at_peak(recording, plane)?;
        let plane = plane
            .device
            .as_ref()
            .map_or_else(|| plane.plane.as_str().to_owned(), |device| format!("GPU {}", device.index));
        Some(Warning::GapAtPeak { plane, gap_ns })
    });
    let drift = planes.iter().filter(|plane| plane.plane == Scope::System).filter_map(|plane| {
        let bytes = drift_at(&recording.samples.system, plane.peak_ns)?;
        Some(Warning::Drift { plane: plane.plane.as_str().to_owned(), bytes })
    });
    counted(&recording.health).chain(reduced(&recording.health)).chain(beside).chain(drift).collect()
}

/// By how much each of the machine's counters may be off in the reading that ended at `at_ns`; absent where they are exact.
fn drift_at(system: &Series, at_ns: u64) -> Option<u64> {
    let index = system.end_ns.partition_point(|end| *end < at_ns);
    system.columns.get("zoneinfo.stat_drift")?.get(index)
}

/// For how long a plane was not read just before or after its highest reading, where that is a gap.
fn at_peak(recording: &Recording, plane: &PlaneReport) -> Option<u64> {
    let (tool, health) = (&recording.tool, &recording.health);
    // Where they were not counted, nothing is said of them.
    let counted = if plane.plane == Scope::Device { health.device_gaps } else { health.gaps };
    counted.filter(|gaps| gaps.count > 0)?;
    let samples = &recording.samples;
    let (series, interval_ns) = match plane.plane {
        // A cgroup is read with the system.
        Scope::System | Scope::Cgroup => (&samples.system, tool.interval_ns),
        Scope::Device => {
            let index = plane.device.as_ref()?.index;
            let device = samples.devices.iter().find(|device| device.index == index)?;
            (&device.series, tool.gpu_interval_ns.unwrap_or(tool.interval_ns))
        }
    };
    let interval_ns = recording.health.spacing_ns(interval_ns, age_ns(series, plane.peak_ns));
    around(series, plane.peak_ns, recording.target.started_ns, interval_ns.saturating_mul(INTERVALS))
}

/// For how long the memory levels were not read just before or after a time, where that is a gap.
pub(crate) fn at_time(recording: &Recording, at_ns: u64) -> Option<u64> {
    recording.health.gaps.filter(|gaps| gaps.count > 0)?;
    let series = &recording.samples.system;
    let interval_ns = recording.health.spacing_ns(recording.tool.interval_ns, age_ns(series, at_ns));
    around(series, at_ns, recording.target.started_ns, interval_ns.saturating_mul(INTERVALS))
}

/// For how long a cgroup was not read while its usage rose to the peak that the kernel remembers, where that is a gap.
/// The kernel's own peak is read with the usage: it has risen between the first reading that shows it and the one before.
pub(super) fn at_kernel_peak(
    recording: &Recording,
    root: &Root<'_>,
    columns: &[&str],
    peak: u64,
) -> Option<u64> {
    let series = root.series;
    let column = columns.iter().find_map(|name| series.columns.get(*name))?;
    let shows = column.iter().position(|value| value.is_some_and(|value| value >= peak));
    let (end, begin) = match shows {
        Some(first) => (*series.end_ns.get(first.checked_sub(1)?)?, *series.begin_ns.get(first)?),
        None => (*series.end_ns.last()?, root.cgroup.and_then(|cgroup| cgroup.removed_ns)?),
    };
    let interval_ns = recording.health.spacing_ns(recording.tool.interval_ns, age_ns(series, end));
    Some(begin.saturating_sub(end)).filter(|gap| *gap > interval_ns.saturating_mul(INTERVALS))
}

/// How long before the last reading of a series a time is.
pub(super) fn age_ns(series: &Series, at_ns: u64) -> u64 {
    series.end_ns.last().map_or(0, |last| last.saturating_sub(at_ns))
}

/// The longer of the times without a reading before and after the one at `at_ns`, if it is longer than `limit_ns`. What
/// lies before the target began is none of its.
fn around(series: &Series, at_ns: u64, started_ns: u64, limit_ns: u64) -> Option<u64> {
    let last = series.begin_ns.len().checked_sub(1)?;
    let at = series.end_ns.partition_point(|end| *end < at_ns).min(last);
    let apart = |earlier: usize| {
        let (end, begin) = (*series.end_ns.get(earlier)?, *series.begin_ns.get(earlier + 1)?);
        (end >= started_ns).then(|| begin.saturating_sub(end))
    };
    let before = at.checked_sub(1).and_then(apart);
    before.into_iter().chain(apart(at)).max().filter(|gap| *gap > limit_ns)
}

#[cfg(test)]
mod tests {
    use super::*;
    use spark_trace_recording::Reduced;

    #[test]
    fn what_was_left_out_is_said_and_is_no_gap() {
        let aged = Aged { readings: 9, fine_ns: 600_000_000_000, spacing_ns: 60_000_000_000 };
        let reduced = Reduced {
            readings: 5,
            levels_spacing_ns: 400,
            processes_spacing_ns: 0,
            mappings: 7,
            aged: Some(aged),
        };
        let health = Health { reduced: Some(reduced), ..Health::default() };
        let said: Vec<String> = super::reduced(&health).map(|warning| warning.to_string()).collect();
        assert!(said[0].starts_with("5 readings") && !said[0].contains("processes"), "{said:?}");
        assert!(said[1].starts_with("9 readings older than 600 s") && said[1].contains("minute"), "{said:?}");
        assert!(said[2].starts_with("7 events of mappings"), "{said:?}");
        let by_age = [600, 601, 4200, 4201].map(|seconds| health.spacing_ns(100, seconds * 1_000_000_000));
        assert_eq!(by_age, [400, 1_000_000_000, 1_000_000_000, aged.spacing_ns]);
        let health = Health { reduced: Some(Reduced { aged: None, ..reduced }), ..Health::default() };
        assert_eq!((health.spacing_ns(100, u64::MAX), health.spacing_ns(500, 0)), (400, 500));
        assert_eq!(super::reduced(&Health::default()).count(), 0);
    }

    #[test]
    fn counters_are_off_only_where_a_reading_says_so() {
        let columns = [("zoneinfo.stat_drift".to_owned(), [None, Some(4096), None].into_iter().collect())];
        let end_ns = vec![100, 200, 300];
        let system = Series { columns: columns.into(), end_ns, ..Series::default() };
        assert_eq!(
            [100, 150, 200, 300, 301].map(|at_ns| drift_at(&system, at_ns)),
            [None, Some(4096), Some(4096), None, None]
        );
    }

    #[test]
    fn a_gap_on_either_side_of_a_reading_is_beside_it() {
        let begin_ns = vec![100, 200, 300, 1500, 1600, 1700];
        let end_ns = begin_ns.iter().map(|begin| begin + 10).collect();
        let series = Series { begin_ns, end_ns, ..Series::default() };
        let gap = |at_ns| around(&series, at_ns, 0, 300);
        assert_eq!([110, 205, 305, 1505, 1610].map(gap), [None, None, Some(1190), Some(1190), None]);
        assert_eq!(around(&series, 305, 311, 300), None, "before the target began");
        assert_eq!(around(&Series::default(), 5, 0, 1), None);
    }
}
