//! Readings are left out so that those that stay lie evenly: of each stretch of time the first, and of every column the
//! lowest and the highest. With each thinning a stretch is twice as long as before.

use std::collections::BTreeSet;

use super::super::schema::{Recording, Series};
use super::{Group, moments, values};

/// Series with fewer readings stay as they are.
const FEWEST: usize = 16;

/// Thins the series of a group until a quarter of their values is gone, if it can be. `spacing_ns` is the length of a
/// stretch: 0 before the first time. Says how many readings were left out.
pub fn group(recording: &mut Recording, group: Group, spacing_ns: &mut u64) -> u64 {
    let moments = moments(recording);
    let interval_ns = recording.tool.interval_ns.max(1);
    let samples = &mut recording.samples;
    let mut series: Vec<&mut Series> = match group {
        Group::Levels => {
            let cgroups = samples.cgroups.iter_mut().map(|cgroup| &mut cgroup.series);
            let devices = samples.devices.iter_mut().map(|device| &mut device.series);
            [&mut samples.system, &mut samples.cuda].into_iter().chain(cgroups).chain(devices).collect()
        }
        Group::Processes => samples.processes.iter_mut().map(|process| &mut process.series).collect(),
    };
    let count = |series: &[&mut Series]| series.iter().map(|series| values(series)).sum::<usize>();
    let longest = series.iter().filter_map(|series| Some(series.end_ns.last()? - series.begin_ns.first()?));
    let longest = longest.max().unwrap_or(0);
    let before = count(&series);
    let mut left_out = 0;
    while count(&series) > before / 4 * 3 && *spacing_ns < longest {
        *spacing_ns = (*spacing_ns).max(interval_ns).saturating_mul(2);
        left_out += series.iter_mut().map(|series| one(series, *spacing_ns, &moments)).sum::<u64>();
    }
    left_out
}

/// Thins one series.
fn one(series: &mut Series, spacing_ns: u64, moments: &[u64]) -> u64 {
    let count = series.begin_ns.len();
    if count < FEWEST {
        return 0;
    }
    let mut kept: BTreeSet<usize> = [0, count - 1].into();
    for column in series.columns.values() {
        let known = || column.iter().enumerate().filter_map(|(index, value)| Some((value?, index)));
        // Of equal ones the first.
        kept.extend(known().min().map(|(_, index)| index));
        kept.extend(
            known().max_by_key(|(value, index)| (*value, std::cmp::Reverse(*index))).map(|(_, index)| index),
        );
    }
    kept.extend(beside(series, moments));
    let mut last = None;
    let keeps: Vec<bool> = series
        .begin_ns
        .iter()
        .enumerate()
        .map(|(index, begin)| {
            let stretch = Some(begin / spacing_ns);
            let is_first = stretch != last;
            last = stretch;
            is_first || kept.contains(&index)
        })
        .collect();
    keep(series, &keeps)
}

/// The readings on both sides of what a report looks at.
pub(super) fn beside(series: &Series, moments: &[u64]) -> impl Iterator<Item = usize> {
    let count = series.begin_ns.len();
    moments.iter().flat_map(move |moment| {
        let after = series.end_ns.partition_point(|end| end < moment);
        [after.saturating_sub(1), after].into_iter().filter(move |index| *index < count)
    })
}

/// Keeps the readings that are chosen. Says how many are gone.
pub(super) fn keep(series: &mut Series, keeps: &[bool]) -> u64 {
    let left_out = keeps.iter().filter(|keep| !**keep).count();
    if left_out == 0 {
        return 0;
    }
    let times = |times: &mut Vec<u64>| {
        let mut keep = keeps.iter();
        times.retain(|_| keep.next() == Some(&true));
        times.shrink_to_fit();
    };
    times(&mut series.begin_ns);
    times(&mut series.end_ns);
    series.columns.values_mut().for_each(|column| column.keep(keeps));
    left_out as u64
}
