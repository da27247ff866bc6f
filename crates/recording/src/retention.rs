//! The latest part of a recording that goes on for as long as somebody looks.

use std::collections::BTreeSet;

use super::column::Column;
use super::provenance::Process;
use super::schema::{CgroupSeries, DeviceSeries, Recording, Samples, Series};
use super::target::Target;

/// Events of mappings that are kept, the latest: what a process mapped long ago may be mapped still, so they do not go
/// by their age.
const MOST_MAPPINGS: usize = 20_000;
/// The same for memory queries and for single CUDA events: each frame of a view has all of them.
const MOST_EVENTS: usize = 500;
/// Processes that have ended, the latest: a machine may fork thousands a second.
const MOST_ENDED: usize = 2_048;
/// Bytes of all arguments. Any user can start thousands of processes with as long arguments as are kept.
const MOST_ARGUMENT_BYTES: usize = 2 << 20;
/// Names of cgroups that are not followed any more, the latest: rows of older ones are left with their ids.
const MOST_NAMES: usize = 4_096;

/// Drops readings and events from before `before_ns`, and who has ended by then. One reading before it stays for each
/// series: where it starts from.
pub fn forget(recording: &mut Recording, before_ns: u64) {
    let samples = &mut recording.samples;
    cut(&mut samples.system, before_ns);
    cut(&mut samples.cuda, before_ns);
    samples.devices.iter_mut().for_each(|device| cut(&mut device.series, before_ns));
    let ended = |end: Option<u64>| end.is_some_and(|end| end < before_ns);

    let removed: BTreeSet<u64> = recording
        .target
        .cgroups
        .iter()
        .filter(|cgroup| ended(cgroup.removed_ns))
        .map(|cgroup| cgroup.id)
        .collect();
    recording.target.cgroups.retain(|cgroup| !removed.contains(&cgroup.id));
    samples.cgroups.retain(|cgroup| !removed.contains(&cgroup.id));
    samples.cgroups.iter_mut().for_each(|cgroup| cut(&mut cgroup.series, before_ns));

    let provenance = &mut recording.provenance;
    provenance.processes.retain(|process| !ended(process.ended_ns));
    let mut left = provenance.processes.iter().filter(|process| process.ended_ns.is_some()).count();
    provenance.processes.retain(|process| {
        let surplus = process.ended_ns.is_some() && left > MOST_ENDED;
        left -= usize::from(process.ended_ns.is_some());
        !surplus
    });
    shorten_arguments(&mut provenance.processes);
    let alive: BTreeSet<u32> = provenance.processes.iter().map(|process| process.pid).collect();
    samples.processes.retain(|process| alive.contains(&process.pid));
    samples.processes.iter_mut().for_each(|process| cut(&mut process.series, before_ns));
    provenance.mappings.retain(|mapping| alive.contains(&mapping.pid));
    provenance.brief_mappings.retain(|row| row.last_ns >= before_ns && alive.contains(&row.pid));
    provenance.regions.retain(|region| alive.contains(&region.pid));
    last(&mut provenance.mappings, MOST_MAPPINGS);
    last(&mut provenance.brief_mappings, MOST_MAPPINGS);
    provenance.queries.retain(|query| query.at_ns >= before_ns);
    last(&mut provenance.queries, MOST_EVENTS);
    last(&mut provenance.cuda_events, MOST_EVENTS);
    last(&mut provenance.cuda_failures, MOST_EVENTS);
    first_and_last(&mut provenance.log_lines, MOST_EVENTS);
    if provenance.cgroups.len() > 2 * MOST_NAMES {
        let followed: BTreeSet<u64> = recording.target.cgroups.iter().map(|cgroup| cgroup.id).collect();
        let mut surplus = provenance.cgroups.len() - MOST_NAMES;
        provenance.cgroups.retain(|name| {
            let old = surplus > 0;
            surplus = surplus.saturating_sub(1);
            !old || followed.contains(&name.id)
        });
    }
    recording.phases.retain(|phase| phase.at_ns >= before_ns || phase.name == "start");
}

/// Makes a recording of its own of what was read from `from_ns` on.
pub fn begin_at(recording: &mut Recording, from_ns: u64) {
    forget(recording, from_ns);
    recording.target.started_ns = recording.target.started_ns.max(from_ns);
    recording.target.ended_ns = recording.samples.system.end_ns.last().copied().unwrap_or(from_ns);
}

/// The levels as they were read last, of what still exists, with all that is said about the trace itself. No process
/// and no provenance: it is small.
pub fn latest(recording: &Recording) -> Recording {
    let cgroups: Vec<_> =
        recording.target.cgroups.iter().filter(|cgroup| cgroup.removed_ns.is_none()).cloned().collect();
    let there: BTreeSet<u64> = cgroups.iter().map(|cgroup| cgroup.id).collect();
    let samples = &recording.samples;
    let of_cgroups = samples.cgroups.iter().filter(|cgroup| there.contains(&cgroup.id)).map(|cgroup| {
        CgroupSeries { id: cgroup.id, path: cgroup.path.clone(), series: last_of(&cgroup.series) }
    });
    let of_devices = samples.devices.iter().map(|device| DeviceSeries {
        index: device.index,
        uuid: device.uuid.clone(),
        series: last_of(&device.series),
    });
    Recording {
        target: Target {
            kind: recording.target.kind.clone(),
            cgroups,
            started_ns: recording.target.started_ns,
            ..Target::default()
        },
        samples: Samples {
            system: last_of(&samples.system),
            cgroups: of_cgroups.collect(),
            devices: of_devices.collect(),
            ..Samples::default()
        },
        ..recording.unread()
    }
}

fn last_of(series: &Series) -> Series {
    let last = |times: &[u64]| times.last().copied().into_iter().collect();
    let columns = series.columns.iter().map(|(name, column)| (name.clone(), Column::from([column.last()])));
    Series {
        begin_ns: last(&series.begin_ns),
        end_ns: last(&series.end_ns),
        columns: columns.collect(),
        absent: Vec::new(),
    }
}

fn cut(series: &mut Series, before_ns: u64) {
    let gone = series.end_ns.partition_point(|end| *end < before_ns).saturating_sub(1);
    if gone == 0 {
        return;
    }
    series.begin_ns.drain(..gone);
    series.end_ns.drain(..gone);
    series.columns.values_mut().for_each(|column| column.drop_first(gone));
    // A process's page tables are summed up seldom; a column without a value says nothing.
    series.columns.retain(|_, column| column.known().next().is_some());
}

fn last<T>(rows: &mut Vec<T>, most: usize) {
    rows.drain(..rows.len().saturating_sub(most));
}

/// An engine's start is among the first lines of its log, and stays what it was however long it serves.
fn first_and_last<T>(rows: &mut Vec<T>, most: usize) {
    let surplus = rows.len().saturating_sub(most);
    let first = most / 2;
    rows.drain(first.min(rows.len())..(first + surplus).min(rows.len()));
}

/// Where all arguments are more than [`MOST_ARGUMENT_BYTES`], every process keeps the same length at most. The longest
/// lose first: a usual command line stays whole.
fn shorten_arguments(processes: &mut [Process]) {
    let mut lengths: Vec<usize> = processes.iter().map(Process::argument_bytes).collect();
    if lengths.iter().sum::<usize>() <= MOST_ARGUMENT_BYTES {
        return;
    }
    lengths.sort_unstable();
    let (mut left, mut sharing) = (MOST_ARGUMENT_BYTES, lengths.len());
    for length in lengths {
        if length > left / sharing {
            break;
        }
        left -= length;
        sharing -= 1;
    }
    // The loop ends before the last length, as they do not fit.
    let most = left / sharing.max(1);
    processes.iter_mut().for_each(|process| process.cut_arguments(most));
}

#[cfg(test)]
mod tests {
    use super::super::testing::{self, START};
    use super::*;
    use crate::{CgroupName, TargetCgroup};

    #[test]
    fn of_those_that_ended_the_latest_stay() {
        let mut recording = testing::empty();
        let process = |pid, ended_ns| Process { pid, ended_ns, ..Process::default() };
        recording.provenance.processes.push(process(1, None));
        recording.provenance.processes.extend((2..20_002).map(|pid| process(pid, Some(START))));
        forget(&mut recording, START);
        let pids: Vec<_> = recording.provenance.processes.iter().map(|process| process.pid).collect();
        assert_eq!((pids.len(), pids[0], pids[1]), (1 + MOST_ENDED, 1, 20_002 - MOST_ENDED as u32));
    }

    #[test]
    fn long_arguments_of_many_do_not_pile_up_and_short_ones_stay() {
        let mut recording = testing::empty();
        let process = |pid, argv: Vec<String>| Process { pid, argv, ..Process::default() };
        let usual = vec!["vllm".to_owned(), "serve".to_owned(), "x".repeat(200)];
        recording.provenance.processes.push(process(1, usual.clone()));
        let long = || vec!["sh".to_owned(), "é".repeat(1000), "A".repeat(2094)];
        recording.provenance.processes.extend((2..5_002).map(|pid| process(pid, long())));
        forget(&mut recording, START);
        let processes = &recording.provenance.processes;
        assert_eq!((processes.len(), &processes[0].argv, processes[0].argv_cut), (5_001, &usual, false));
        let kept: usize = processes.iter().map(Process::argument_bytes).sum();
        let longest = processes.iter().map(Process::argument_bytes).max().unwrap();
        // 2 MiB are 419 bytes for each of 5,000.
        assert!(kept <= MOST_ARGUMENT_BYTES && (410..=419).contains(&longest), "{kept} {longest}");
        let cut = |process: &Process| process.argv_cut && process.argv[1].ends_with("é…");
        assert!(processes[1..].iter().all(cut), "{:?}", processes[1]);
        let once = recording.clone();
        forget(&mut recording, START);
        assert_eq!(recording, once, "what has been cut fits");
    }

    #[test]
    fn names_of_cgroups_that_are_gone_do_not_pile_up() {
        let mut recording = testing::empty();
        let name = |id| CgroupName { id, path: format!("/{id}"), target: false };
        recording.provenance.cgroups.extend((0..10_000).map(name));
        recording.target.cgroups.push(TargetCgroup { id: 3, ..TargetCgroup::default() });
        forget(&mut recording, START);
        let ids: Vec<_> = recording.provenance.cgroups.iter().map(|name| name.id).collect();
        assert_eq!((ids.len(), ids[0], ids[1]), (1 + MOST_NAMES, 3, 10_000 - MOST_NAMES as u64));
    }

    #[test]
    fn of_a_log_the_start_and_the_latest_lines_stay() {
        let mut recording = testing::empty();
        let line = |at_ns| crate::LogLine { at_ns, ..crate::LogLine::default() };
        recording.provenance.log_lines.extend((0..2 * MOST_EVENTS as u64).map(line));
        forget(&mut recording, START);
        let times: Vec<_> = recording.provenance.log_lines.iter().map(|line| line.at_ns).collect();
        let half = MOST_EVENTS as u64 / 2;
        assert_eq!(times, (0..half).chain(3 * half..4 * half).collect::<Vec<_>>());
    }

    #[test]
    fn nothing_is_forgotten_of_what_is_new() {
        let whole = testing::cuda();
        let mut same = whole.clone();
        forget(&mut same, 0);
        assert_eq!(same, whole);
    }

    #[test]
    fn who_has_ended_is_gone_with_all_that_was_theirs() {
        let mut recording = testing::container();
        forget(&mut recording, u64::MAX);
        assert!(recording.provenance.processes.iter().all(|process| process.ended_ns.is_none()));
        let alive: BTreeSet<u32> = recording.provenance.processes.iter().map(|process| process.pid).collect();
        assert!(recording.provenance.regions.iter().all(|region| alive.contains(&region.pid)));
        assert!(recording.samples.system.begin_ns.len() == 1, "the last reading stays");
    }
}
