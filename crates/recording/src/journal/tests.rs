//! What is written is recovered, however it was cut.

use std::collections::BTreeMap;

use super::*;
use crate::*;

fn begin() -> Begin {
    Begin {
        schema: JOURNAL_SCHEMA.to_owned(),
        schema_version: SCHEMA_VERSION,
        tool: Tool::default(),
        host: Host::default(),
        clock: Clock::default(),
        target: Target::default(),
    }
}

fn sample(at: u64, values: &[(&str, u64)]) -> Entry {
    Entry::Sample(Sample {
        series: SeriesId::System,
        begin_ns: at,
        end_ns: at + 1,
        values: values.iter().map(|(k, v)| ((*k).to_owned(), *v)).collect(),
        absent: vec![("meminfo.Gone".to_owned(), "not in this kernel".to_owned())],
    })
}

fn journal() -> Vec<u8> {
    let mut out = Vec::new();
    let mut journal = Journal::begin(&mut out, begin()).unwrap();
    journal.add(sample(10, &[("meminfo.MemFree", 5)])).unwrap();
    journal.add(sample(20, &[("meminfo.MemFree", 6), ("meminfo.New", 1)])).unwrap();
    journal.add(sample(30, &[("meminfo.New", 2)])).unwrap();
    journal.finish(40).unwrap();
    out
}

/// A disk with room for so many bytes.
struct Small(usize);

impl Write for Small {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = self.0.min(bytes.len());
        self.0 -= room;
        if room == 0 { Err(io::ErrorKind::StorageFull.into()) } else { Ok(room) }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_full_disk_ends_the_journal_and_not_the_recording() {
    let mut journal = Journal::begin(Small(2000), begin()).unwrap();
    for at in 1..=100 {
        journal.add(sample(at * 10, &[("meminfo.MemFree", at)])).unwrap();
        journal.flush().unwrap();
    }
    assert_eq!(journal.failure().unwrap().kind(), io::ErrorKind::StorageFull);
    let recording = journal.finish(5000).unwrap();
    assert_eq!(recording.samples.system.columns["meminfo.MemFree"].len(), 100);
    assert!(recording.health.complete);
}

#[test]
fn a_journal_has_a_longest_size_and_the_recording_goes_on() {
    let mut out = Vec::new();
    let mut journal = Journal::begin_within(&mut out, begin(), Arguments::Hidden, 2000).unwrap();
    for at in 1..=100 {
        journal.add(sample(at * 10, &[("meminfo.MemFree", at)])).unwrap();
    }
    assert_eq!(journal.failure().unwrap().kind(), io::ErrorKind::FileTooLarge);
    assert_eq!(journal.finish(5000).unwrap().samples.system.begin_ns.len(), 100);
    assert!(out.len() <= 2000);
    // What was written up to there is read.
    assert!(recover(out.as_slice()).unwrap().samples.system.begin_ns.len() > 5);
}

#[test]
fn columns_stay_of_one_length() {
    let recording = recover(journal().as_slice()).unwrap();
    let system = &recording.samples.system;
    assert_eq!(system.columns["meminfo.MemFree"], [Some(5), Some(6), None]);
    assert_eq!(system.columns["meminfo.New"], [None, Some(1), Some(2)]);
    assert_eq!(system.absent.len(), 1, "a reason is told once");
    assert!(recording.health.complete);
    assert_eq!(recording.target.ended_ns, 40);
}

#[test]
fn a_device_is_named_as_the_host_names_it() {
    let mut begin = begin();
    begin.host.gpus = vec![Gpu { index: 1, uuid: Some("GPU-1".to_owned()), ..Gpu::default() }];
    let mut builder = Builder::new(begin);
    for (index, at) in [(1, 10), (0, 11), (1, 20)] {
        builder.apply(Entry::Sample(Sample {
            series: SeriesId::Device(index),
            begin_ns: at,
            end_ns: at + 1,
            values: BTreeMap::from([("memory.free".to_owned(), at)]),
            absent: Vec::new(),
        }));
    }
    let devices = builder.finish().samples.devices;
    let named: Vec<_> = devices.iter().map(|d| (d.index, d.uuid.as_deref())).collect();
    assert_eq!(named, [(1, Some("GPU-1")), (0, None)]);
    assert_eq!(devices[0].series.columns["memory.free"], [Some(10), Some(20)]);
}

#[test]
fn surroundings_and_lines_are_kept_in_their_order() {
    let mut out = Vec::new();
    let mut journal = Journal::begin(&mut out, begin()).unwrap();
    let context = |pid| ProcessContext {
        pid,
        environment: BTreeMap::from([("LD_PRELOAD".to_owned(), "x.so".to_owned())]),
        limits: BTreeMap::from([("Max locked memory".to_owned(), None)]),
        ..ProcessContext::default()
    };
    let tmpfs = |at_ns| TmpfsUse { at_ns, mount_point: "/dev/shm".to_owned(), ..TmpfsUse::default() };
    let line = |text: &str| LogLine { at_ns: 3, stream: "stderr".to_owned(), text: text.to_owned() };
    journal.add(Entry::Tmpfs { file_systems: vec![tmpfs(1)] }).unwrap();
    for pid in [7, 8] {
        journal.add(Entry::Context(Box::new(context(pid)))).unwrap();
    }
    journal.add(Entry::LogLine(line("first"))).unwrap();
    journal.add(Entry::LogLine(line("second"))).unwrap();
    journal.add(Entry::Tmpfs { file_systems: vec![tmpfs(2)] }).unwrap();
    journal.flush().unwrap();
    let found = recover(out.as_slice()).unwrap().provenance;
    assert_eq!(found.contexts, [context(7), context(8)]);
    assert_eq!(found.tmpfs, [tmpfs(1), tmpfs(2)]);
    assert_eq!(found.log_lines, [line("first"), line("second")]);
}

#[test]
fn a_journal_cut_anywhere_recovers_what_was_whole() {
    let whole = journal();
    let first = whole.iter().position(|b| *b == b'\n').unwrap() + 1;
    for cut in 0..whole.len() {
        let result = recover(&whole[..cut]);
        if cut == 0 {
            assert!(matches!(result, Err(JournalError::Empty)));
            continue;
        }
        if cut < first - 1 {
            assert!(matches!(result, Err(JournalError::NotAJournal)), "{cut} bytes");
            continue;
        }
        let recording = result.unwrap();
        let lines = whole[first.min(cut)..cut].iter().filter(|b| **b == b'\n').count();
        assert!(recording.samples.system.begin_ns.len() >= lines.min(3), "{cut} bytes");
    }
}

#[test]
fn damage_in_the_middle_is_reported() {
    let mut damaged = journal();
    let second = damaged.iter().position(|b| *b == b'\n').unwrap() + 3;
    damaged[second] = b'!';
    assert!(matches!(recover(damaged.as_slice()), Err(JournalError::Entry { line: 2, .. })));
    assert!(matches!(recover(&b"{}"[..]), Err(JournalError::NotAJournal)));
}

#[test]
fn what_is_recovered_can_be_shown() {
    let with = |entry: Entry| {
        let mut out = Vec::new();
        let mut journal = Journal::begin(&mut out, begin()).unwrap();
        journal.add(sample(10, &[("meminfo.MemFree", 5)])).unwrap();
        journal.add(entry).unwrap();
        journal.flush().unwrap();
        drop(journal);
        recover(out.as_slice())
    };
    let process = Process { pid: 7, context: Some(0), ..Process::default() };
    let recording = with(Entry::Process(process)).unwrap();
    assert_eq!(recording.provenance.processes[0].context, None);
    let text = serde_json::to_vec(&recording).unwrap();
    read::parse(std::path::Path::new("recovered"), &text).unwrap();
    let stacks = vec![Stack { id: 1, space: "user".into(), frames: vec![5], way: None }];
    let aggregates = Aggregates { stacks, ..Aggregates::default() };
    let error = with(Entry::Aggregates(Box::new(aggregates))).unwrap_err();
    assert!(matches!(error, JournalError::Inconsistent(_)), "{error}");
}

#[test]
fn secrets_in_command_lines_are_not_written() {
    let words = || vec!["run".to_owned(), "--token".to_owned(), "S3CRET".to_owned()];
    let written = |arguments| {
        let mut out = Vec::new();
        let target = Target { argv: words(), ..Target::default() };
        let begin = Begin { target: target.clone(), ..begin() };
        let mut journal = Journal::begin_with(&mut out, begin, arguments).unwrap();
        journal.add(Entry::Target(target)).unwrap();
        journal.add(Entry::Process(Process { argv: words(), ..Process::default() })).unwrap();
        let recording = journal.finish(40).unwrap();
        String::from_utf8(out).unwrap() + &serde_json::to_string(&recording).unwrap()
    };
    assert!(!written(Arguments::Hidden).contains("S3CRET"));
    assert_eq!(written(Arguments::Kept).matches("S3CRET").count(), 5);
}

/// A journal of readings and other entries, with what was written of each after it.
fn packed() -> (Vec<u8>, Vec<usize>) {
    let written = Shared::default();
    let mut journal = Journal::begin(Packer::new(written.clone()).unwrap(), begin()).unwrap();
    let mut ends = Vec::new();
    for at in 1..=50 {
        journal.add(sample(at * 10, &[("meminfo.MemFree", at / 3), ("meminfo.Cached", 7)])).unwrap();
        journal.add(Entry::Phase(Phase { name: format!("phase {at}"), at_ns: at * 10 })).unwrap();
        journal.flush().unwrap();
        ends.push(written.0.borrow().len());
    }
    let bytes = written.0.borrow().clone();
    (bytes, ends)
}

#[derive(Clone, Default)]
struct Shared(std::rc::Rc<std::cell::RefCell<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn of_a_packed_journal_that_is_cut_all_that_was_flushed_is_recovered() {
    let (whole, ends) = packed();
    for cut in ends[0]..=whole.len() {
        let flushed = ends.iter().filter(|end| **end <= cut).count();
        let recording = recover(&whole[..cut]).unwrap();
        let (readings, phases) = (recording.samples.system.begin_ns.len(), recording.phases.len());
        assert!(readings >= flushed && phases >= flushed, "{cut} bytes: {readings}, {phases}, not {flushed}");
    }
    let system = recover(whole.as_slice()).unwrap().samples.system;
    let free: Vec<_> = system.columns["meminfo.MemFree"].known().collect();
    assert_eq!(free, (1..=50).map(|at| at / 3).collect::<Vec<u64>>());
    assert_eq!(system.columns["meminfo.Cached"].known().sum::<u64>(), 350);
    assert_eq!(system.begin_ns, (1..=50).map(|at| at * 10).collect::<Vec<u64>>());
}

#[test]
fn a_packed_journal_that_is_damaged_is_reported() {
    let (whole, ends) = packed();
    let mut damaged = whole.clone();
    // A block of a type that there is not (RFC 8878, 3.1.1.2.2).
    damaged[ends[10]] |= 0b110;
    assert!(recover(damaged.as_slice()).is_err());
}

#[test]
fn journals_of_before_rows_had_numbers_are_read() {
    let lines = [
        serde_json::to_string(&Entry::Begin(Box::new(begin()))).unwrap(),
        serde_json::to_string(&sample(10, &[("meminfo.MemFree", 5)])).unwrap(),
        serde_json::to_string(&sample(20, &[("meminfo.MemFree", 6), ("meminfo.New", 1)])).unwrap(),
    ];
    let system = recover((lines.join("\n") + "\n").as_bytes()).unwrap().samples.system;
    assert_eq!(system.columns["meminfo.MemFree"], [Some(5), Some(6)]);
    assert_eq!(system.columns["meminfo.New"], [None, Some(1)]);
}

#[test]
fn changes_of_a_reading_that_is_not_there_are_reported() {
    let mut text = journal();
    text.extend_from_slice(b"[7,1,1,[],[]]\n");
    assert!(matches!(recover(text.as_slice()), Err(JournalError::Row { line: 6 })));
}
