use std::collections::BTreeSet;

use super::*;
use crate::builder::Builder;
use crate::journal::{self, Arguments, Begin, Entry, Journal, Sample, SeriesId};
use crate::{Clock, Host, Target, Tool};

const MS: u64 = 1_000_000;
const MIB: u64 = 1 << 20;

const SMALL: Limits =
    Limits { values: 2000, mappings: 400, processes: 40, regions: 50, events: 10, cgroups: 5, tmpfs: 4 };

fn begin() -> Begin {
    Begin {
        schema: journal::JOURNAL_SCHEMA.to_owned(),
        schema_version: crate::SCHEMA_VERSION,
        tool: Tool { interval_ns: 10 * MS, ..Tool::default() },
        host: Host::default(),
        clock: Clock::default(),
        target: Target::default(),
    }
}

fn small() -> Builder {
    Builder::with_limits(begin(), SMALL)
}

fn sample(series: SeriesId, at_ns: u64, values: &[(&str, u64)]) -> Entry {
    let values = values.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
    Entry::Sample(Sample { series, begin_ns: at_ns, end_ns: at_ns + MS, values, absent: Vec::new() })
}

fn system(at_ns: u64) -> Entry {
    sample(SeriesId::System, at_ns, &[("meminfo.MemFree", 1)])
}

/// A process's mapping event.
fn event(at_ns: u64, pid: u32, op: &str, address: u64, length: u64) -> Entry {
    Entry::Mapping(Mapping {
        at_ns,
        pid,
        op: op.to_owned(),
        address,
        length: length as i64,
        kind: (op == "mmap").then(|| "anon".to_owned()),
        ..Mapping::default()
    })
}

fn lost(recording: &Recording, what: &str) -> u64 {
    recording.health.losses.iter().filter(|loss| loss.what == what).map(|loss| loss.count).sum()
}

/// What a counter said at a reading: a slow wave with one high and one low reading.
fn level(reading: u64) -> u64 {
    match reading {
        1777 => 9_000_000,
        3333 => 3,
        _ => 1000 + reading % 97,
    }
}

#[test]
fn a_long_series_is_thinned_evenly_and_its_extremes_stay() {
    const READINGS: u64 = 5000;
    let mut builder = small();
    for reading in 0..READINGS {
        let values = [("meminfo.MemFree", level(reading)), ("meminfo.Flat", 7)];
        builder.apply(sample(SeriesId::System, reading * 10 * MS, &values));
        let now = &builder.recording().samples.system;
        assert!(values_of(now) <= SMALL.values + 10, "{} values", values_of(now));
    }
    let recording = builder.finish();
    let series = &recording.samples.system;
    let kept: Vec<u64> = series.begin_ns.iter().map(|begin| begin / 10 / MS).collect();
    // Each is the reading that was made then.
    let column = &series.columns["meminfo.MemFree"];
    assert!(kept.iter().zip(column.iter()).all(|(reading, value)| value == Some(level(*reading))));
    assert!(series.columns["meminfo.Flat"].iter().all(|value| value == Some(7)));
    assert_eq!(series.end_ns.len(), kept.len());
    for reading in [0, 1777, 3333, READINGS - 1] {
        assert!(kept.contains(&reading), "{reading}");
    }
    let reduced = recording.health.reduced.unwrap();
    assert_eq!(reduced.readings + kept.len() as u64, READINGS);
    let longest = series.begin_ns.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap();
    assert!(longest < 2 * reduced.levels_spacing_ns, "{longest} of {reduced:?}");
    assert!(kept.len() > SMALL.values / 16, "more than is needed is gone: {}", kept.len());
    assert_eq!(reduced.processes_spacing_ns, 0);
}

fn values_of(series: &Series) -> usize {
    series.begin_ns.len() * (series.columns.len() + 2)
}

#[test]
fn what_has_most_values_is_thinned() {
    let mut builder = small();
    for reading in 0..100 {
        builder.apply(system(reading * 10 * MS));
        for pid in 1..=20 {
            builder.apply(sample(SeriesId::Process(pid), reading * 10 * MS, &[("rss_anon", 1)]));
        }
    }
    let recording = builder.finish();
    assert_eq!(recording.samples.system.begin_ns.len(), 100);
    let reduced = recording.health.reduced.unwrap();
    assert!(reduced.processes_spacing_ns > 0 && reduced.levels_spacing_ns == 0, "{reduced:?}");
}

#[test]
fn readings_beside_what_a_report_looks_at_stay() {
    let mut builder = small();
    let at_ns = 2345 * MS;
    for reading in 0..3000 {
        builder.apply(system(reading * 10 * MS));
        if reading == 236 {
            builder.apply(Entry::Phase(crate::Phase { name: "exec".to_owned(), at_ns }));
        }
    }
    let recording = builder.finish();
    let series = &recording.samples.system;
    assert!(recording.health.reduced.unwrap().levels_spacing_ns > 40 * MS);
    let after = series.end_ns.partition_point(|end| *end < at_ns);
    assert_eq!((series.begin_ns[after - 1], series.begin_ns[after]), (2340 * MS, 2350 * MS));
}

/// What is mapped, as the events say one by one: each MiB of each process.
#[derive(Default)]
struct Truth {
    mapped: BTreeSet<(u32, u64)>,
    at_readings: Vec<(u64, u64)>,
}

impl Truth {
    fn see(&mut self, entry: &Entry) {
        match entry {
            Entry::Mapping(event) => {
                let first = event.address / MIB;
                for part in first..first + event.length as u64 / MIB {
                    match event.op.as_str() {
                        "mmap" => self.mapped.insert((event.pid, part)),
                        _ => self.mapped.remove(&(event.pid, part)),
                    };
                }
            }
            Entry::Sample(sample) => self.at_readings.push((sample.end_ns, self.bytes())),
            _ => {}
        }
    }

    fn bytes(&self) -> u64 {
        self.mapped.len() as u64 * MIB
    }
}

fn mapped_at(recording: &Recording, at_ns: u64) -> u64 {
    let mut events: Vec<_> =
        recording.provenance.mappings.iter().filter(|event| event.at_ns <= at_ns).collect();
    events.sort_by_key(|event| event.at_ns);
    let mut kept = Truth::default();
    events.into_iter().for_each(|event| kept.see(&Entry::Mapping(event.clone())));
    kept.bytes()
}

#[test]
fn mappings_that_no_reading_shows_make_room_and_no_reading_changes() {
    let (mut builder, mut truth) = (small(), Truth::default());
    let mut add = |entry: Entry| {
        truth.see(&entry);
        builder.apply(entry);
        assert!(builder.recording().provenance.mappings.len() <= SMALL.mappings);
    };
    for reading in 0..200 {
        let at = reading * 10 * MS;
        add(system(at));
        for pair in 0..20 {
            let from = at + 2 * MS + pair * 1000;
            add(event(from, 1, "mmap", 0x1000_0000, 2 * MIB));
            add(event(from + 500, 1, "munmap", 0x1000_0000, 2 * MIB));
        }
        // One that stays for five readings, and one for ever.
        if reading % 10 == 0 {
            add(event(at + 3 * MS, 1, "mmap", 0x2000_0000, 64 * MIB));
        } else if reading % 10 == 5 {
            add(event(at + 3 * MS, 1, "munmap", 0x2000_0000, 64 * MIB));
        } else if reading == 7 {
            add(event(at + 3 * MS, 2, "mmap", 0x1000_0000, 128 * MIB));
        }
    }
    let recording = builder.finish();
    let reduced = recording.health.reduced.unwrap();
    assert_eq!(lost(&recording, "mappings"), 0);
    // All but those that are kept.
    let events = 200 * 40 + 20 + 20 + 1;
    assert_eq!(reduced.mappings + recording.provenance.mappings.len() as u64, events);
    for (at_ns, mapped) in truth.at_readings {
        assert_eq!(mapped_at(&recording, at_ns), mapped, "at {} ms", at_ns / MS);
    }
}

#[test]
fn where_readings_show_all_of_them_the_oldest_that_are_mapped_no_more_go_and_count_as_lost() {
    // No reading is left out here.
    let mut builder = Builder::with_limits(begin(), Limits { values: 1_000_000, ..SMALL });
    builder.apply(event(0, 1, "mmap", 0x2000_0000, 64 * MIB));
    for reading in 0..1000 {
        let at = 10 * MS * (reading + 1);
        builder.apply(event(at, 1, "mmap", 0x1000_0000, 2 * MIB));
        builder.apply(system(at + MS));
        builder.apply(event(at + 5 * MS, 1, "munmap", 0x1000_0000, 2 * MIB));
    }
    let recording = builder.finish();
    let kept = &recording.provenance.mappings;
    assert_eq!(lost(&recording, "mappings") + kept.len() as u64, 2001);
    assert!(kept.len() <= SMALL.mappings && kept.len() > SMALL.mappings / 2, "{}", kept.len());
    assert_eq!(recording.health.lost_total, lost(&recording, "mappings"));
    // What stays mapped is known, and so is the end.
    assert_eq!(mapped_at(&recording, u64::MAX), 64 * MIB);
    assert!(kept.iter().any(|event| event.at_ns == 10 * MS * 1000));
}

#[test]
fn what_is_given_back_is_kept_where_there_is_no_room_for_more() {
    let mut builder = small();
    let count = SMALL.mappings as u64;
    for number in 0..2 * count {
        builder.apply(event(number, 1, "mmap", number * MIB, MIB));
    }
    assert_eq!(mapped_at(builder.recording(), u64::MAX), count * MIB);
    for number in 0..count {
        builder.apply(event(2 * count + number, 1, "munmap", number * MIB, MIB));
    }
    let recording = builder.finish();
    assert_eq!(mapped_at(&recording, u64::MAX), 0, "nothing seems to be mapped that is not");
    assert_eq!(lost(&recording, "mappings") % count, 0);
}

#[test]
fn a_mapping_of_which_a_part_went_is_no_pair() {
    let mut builder = small();
    for number in 0..190 {
        let at = number * 1000;
        builder.apply(event(at, 1, "mmap", 0x1000_0000, 4 * MIB));
        builder.apply(event(at + 1, 1, "munmap", 0x1000_0000, MIB));
    }
    for number in 0..10 {
        builder.apply(event(MS + number * 2, 1, "mmap", 0x3000_0000, MIB));
        builder.apply(event(MS + number * 2 + 1, 1, "munmap", 0x3000_0000, MIB));
    }
    builder.apply(system(2 * MS));
    builder.apply(event(5 * MS, 1, "mmap", 0x5000_0000, MIB));
    let recording = builder.finish();
    assert_eq!(mapped_at(&recording, u64::MAX), 4 * MIB);
    assert_eq!((recording.health.reduced.unwrap().mappings, lost(&recording, "mappings")), (20, 0));
}

fn process(pid: u32, started_ns: u64, ended: Option<(u64, u32)>, rss_peak: u64) -> Entry {
    Entry::Process(Process {
        pid,
        started_ns: Some(started_ns),
        ended_ns: ended.map(|(at, _)| at),
        exit_status: ended.map(|(_, status)| status),
        rss_peak: Some(rss_peak),
        ..Process::default()
    })
}

#[test]
fn of_processes_that_ended_the_largest_and_the_killed_stay() {
    let mut builder = small();
    builder.apply(process(7, 1, None, 1));
    builder.apply(process(8, 1, Some((5, 9)), 0));
    builder.apply(process(9, 1, Some((5, 0)), 1 << 40));
    builder.apply(sample(SeriesId::Process(7), 2, &[("rss_anon", 1)]));
    for number in 0..1000 {
        let pid = 100 + number;
        builder.apply(sample(SeriesId::Process(pid), u64::from(number), &[("rss_anon", 1)]));
        builder.apply(event(u64::from(number), pid, "mmap", 0x1000_0000, MIB));
        builder.apply(process(pid, 10, Some((u64::from(number), 0)), u64::from(number)));
        assert!(builder.recording().provenance.processes.len() <= SMALL.processes);
    }
    let recording = builder.finish();
    let pids: Vec<u32> = recording.provenance.processes.iter().map(|process| process.pid).collect();
    assert!([7, 8, 9, 1099].iter().all(|pid| pids.contains(pid)), "{pids:?}");
    assert_eq!(lost(&recording, "processes") + pids.len() as u64, 1003);
    let known = |pid: u32| pids.contains(&pid);
    assert!(recording.samples.processes.iter().all(|series| known(series.pid)));
    assert!(recording.provenance.mappings.iter().all(|event| known(event.pid)));
    assert!(super::super::validate::check(&recording).is_ok());
}

#[test]
fn a_process_is_found_again_after_others_went() {
    let mut builder = small();
    for number in 0..200 {
        builder.apply(process(100 + number, 10, Some((20, 0)), 5));
    }
    builder.apply(process(7, 30, None, 1));
    for number in 0..200 {
        builder.apply(process(1000 + number, 40, Some((50, 0)), 5));
    }
    builder.apply(sample(SeriesId::Process(7), 55, &[("rss_anon", 1)]));
    builder.apply(process(7, 30, Some((60, 0)), 1));
    let recording = builder.finish();
    let lives: Vec<_> = recording.provenance.processes.iter().filter(|process| process.pid == 7).collect();
    assert_eq!(lives.len(), 1);
    assert_eq!(lives[0].ended_ns, Some(60));
}

#[test]
fn whatever_comes_one_by_one_has_a_limit_and_is_counted() {
    let mut builder = small();
    for number in 0..100u32 {
        builder.apply(Entry::CudaEvent(CudaEvent::default()));
        builder.apply(Entry::CudaFailure(CudaFailure::default()));
        let name = CgroupName { id: u64::from(number), path: format!("/{number}"), target: false };
        builder.apply(Entry::Cgroup(name));
        builder.apply(sample(SeriesId::Cgroup(u64::from(number)), 1, &[("memory.current", 1)]));
        let regions = vec![Region { pid: number, ..Region::default() }];
        builder.apply(Entry::Regions { pid: number, regions });
    }
    let recording = builder.finish();
    let provenance = &recording.provenance;
    assert_eq!((provenance.cuda_events.len(), provenance.cuda_failures.len()), (10, 10));
    assert_eq!((provenance.cgroups.len(), recording.samples.cgroups.len()), (5, 5));
    assert_eq!(provenance.regions.len(), 50);
    let found = ["cuda_events", "cgroups", "regions"].map(|what| lost(&recording, what));
    assert_eq!(found, [180, 190, 50]);
    assert_eq!(recording.health.lost_total, 420);
}

#[test]
fn a_short_recording_is_whole() {
    let mut out = Vec::new();
    let mut journal = Journal::begin_with(&mut out, begin(), Arguments::Hidden).unwrap();
    for reading in 0..500 {
        journal.add(system(reading * 10 * MS)).unwrap();
        journal.add(event(reading * 10 * MS, 1, "mmap", 0x1000_0000, MIB)).unwrap();
    }
    let recording = journal.finish(9).unwrap();
    assert_eq!(recording.health.reduced, None);
    assert_eq!((recording.samples.system.begin_ns.len(), recording.provenance.mappings.len()), (500, 500));
    // What a journal says is folded the same way.
    assert_eq!(journal::recover(out.as_slice()).unwrap(), recording);
}

#[test]
fn of_file_systems_in_memory_the_highest_peak_of_each_is_kept() {
    let row = |device: &str, used, moment| TmpfsUse {
        device: Some(device.to_owned()),
        used,
        moment: Some(moment),
        ..TmpfsUse::default()
    };
    let mut builder = small();
    let mut add = |rows: &[TmpfsUse]| builder.apply(Entry::Tmpfs { file_systems: rows.to_vec() });
    use crate::Moment::{End, Peak, Start};
    add(&[row("0:1", 5, Start)]);
    // Thousands of peaks of which the second is the highest.
    for used in [30, 90].into_iter().chain((0..2000).map(|number| number % 80)) {
        add(&[row("0:1", used, Peak), row("0:2", used, Peak)]);
    }
    add(&[row("0:1", 1, End)]);
    add(&[row("0:3", 1, Peak), row("0:1", 95, Peak)]);
    let recording = builder.finish();
    let kept: Vec<_> = recording.provenance.tmpfs.iter().map(|row| (row.moment, row.used)).collect();
    assert_eq!(kept, [(Some(Start), 5), (Some(Peak), 95), (Some(Peak), 90), (Some(End), 1)]);
    assert_eq!(lost(&recording, "tmpfs"), 1, "0:3");
}
