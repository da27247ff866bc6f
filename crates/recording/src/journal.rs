//! The journal of a run under way: one JSON line for each thing that was read or happened.
//!
//! Recording and recovery are one fold: while tracing, every [`Entry`] is written to `FILE.partial` and
//! folded into a [`Builder`]; at the end the builder's recording is written and the journal removed. What
//! a killed spark-trace leaves behind is folded the same way by `spark-trace recover`.

use std::io::{self, BufRead, Write};

use thiserror::Error;

pub use super::builder::Builder;
pub use super::entry::{Aggregates, Begin, Entry, Sample, SeriesId};
use super::{provenance::Process, schema::*, secrets};

/// Value of [`Begin::schema`].
pub const JOURNAL_SCHEMA: &str = "spark-trace/journal";

#[derive(Debug, Error)]
pub enum JournalError {
    #[error("cannot read the journal: {0}")]
    Io(#[from] io::Error),
    #[error(
        "the journal is empty: spark-trace was ended before its first line was written, and nothing can be recovered"
    )]
    Empty,
    #[error("the journal is inconsistent: {0}")]
    Inconsistent(String),
    #[error("not a spark-trace journal; `recover` takes the .partial file that an interrupted record leaves")]
    NotAJournal,
    #[error("written by a newer spark-trace, schema {found}; this one reads up to {SCHEMA_VERSION}")]
    TooNew { found: u32 },
    #[error("line {line} is not a journal entry: {cause}")]
    Entry { line: usize, cause: serde_json::Error },
    #[error("line {line} has more than {} MiB", LONGEST_LINE >> 20)]
    Long { line: usize },
}

/// The most that a journal may have: a trace may go on for days, and the disk is not its own.
pub const LONGEST_JOURNAL: u64 = 8 << 30;

/// What is written, up to a length.
struct Bounded<W> {
    out: W,
    room: u64,
}

impl<W: Write> Write for Bounded<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = bytes.len() as u64;
        let Some(room) = self.room.checked_sub(length) else {
            let most = LONGEST_JOURNAL >> 30;
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                format!("it may have {most} GiB at most"),
            ));
        };
        let written = self.out.write(bytes)?;
        self.room = room + (length - written as u64);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Writes entries as they come and folds them.
pub struct Journal<W: Write> {
    /// Absent where nothing is to outlive this process.
    out: Option<Bounded<W>>,
    builder: Builder,
    /// Why nothing is written any more.
    failure: Option<io::Error>,
    arguments: Arguments,
}

/// What becomes of values in command lines that look like secrets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Arguments {
    #[default]
    Hidden,
    Kept,
}

impl<W: Write> Journal<W> {
    pub fn begin(out: W, begin: Begin) -> io::Result<Self> {
        Self::begin_with(out, begin, Arguments::Hidden)
    }

    pub fn begin_with(out: W, begin: Begin, arguments: Arguments) -> io::Result<Self> {
        Self::begin_within(out, begin, arguments, LONGEST_JOURNAL)
    }

    /// The same with so many bytes at most.
    fn begin_within(out: W, mut begin: Begin, arguments: Arguments, room: u64) -> io::Result<Self> {
        let mut out = Bounded { out, room };
        if arguments == Arguments::Hidden {
            secrets::hide(&mut begin.target.argv);
        }
        write_line(&mut out, &Entry::Begin(Box::new(begin.clone())))?;
        Ok(Self { out: Some(out), builder: Builder::new(begin), failure: None, arguments })
    }

    /// Folds entries and writes none.
    pub fn unwritten(mut begin: Begin, arguments: Arguments) -> Self {
        if arguments == Arguments::Hidden {
            secrets::hide(&mut begin.target.argv);
        }
        Self { out: None, builder: Builder::new(begin), failure: None, arguments }
    }

    /// Where it cannot be written any more, as on a full disk, entries are folded all the same: what is in memory is the
    /// recording.
    pub fn add(&mut self, mut entry: Entry) -> io::Result<()> {
        if self.arguments == Arguments::Hidden {
            secrets::hide_in(&mut entry);
        }
        let written = self.out.as_mut().map_or(Ok(()), |out| write_line(out, &entry));
        self.note(written);
        self.builder.apply(entry);
        Ok(())
    }

    fn note(&mut self, written: io::Result<()>) {
        if let Err(error) = written {
            // What is left of it is read up to its last whole line.
            self.out = None;
            self.failure = Some(error);
        }
    }

    /// Why the journal is not written any more, if it is not.
    pub const fn failure(&self) -> Option<&io::Error> {
        self.failure.as_ref()
    }

    /// Drops what is older than `before_ns` from what is folded; what was written stays.
    pub fn forget(&mut self, before_ns: u64) {
        self.builder.forget(before_ns);
    }

    /// Hands what was written to the kernel, so that it outlives this process.
    pub fn flush(&mut self) -> io::Result<()> {
        let written = self.out.as_mut().map_or(Ok(()), Write::flush);
        self.note(written);
        Ok(())
    }

    /// The latest life of a pid.
    pub fn latest(&self, pid: u32) -> Option<&Process> {
        self.builder.latest(pid)
    }

    pub const fn recording(&self) -> &Recording {
        self.builder.recording()
    }

    pub fn finish(mut self, at_ns: u64) -> io::Result<Recording> {
        self.add(Entry::End { at_ns })?;
        self.flush()?;
        Ok(self.builder.finish())
    }
}

fn write_line(out: &mut impl Write, entry: &Entry) -> io::Result<()> {
    serde_json::to_writer(&mut *out, entry)?;
    out.write_all(b"\n")
}

/// The longest line that is read: a recording at all of its limits has less in all.
const LONGEST_LINE: u64 = 256 << 20;

/// Reads a line; `false` where there is none.
fn read_line(input: &mut impl BufRead, number: usize, line: &mut Vec<u8>) -> Result<bool, JournalError> {
    line.clear();
    let read = io::Read::take(&mut *input, LONGEST_LINE).read_until(b'\n', line)?;
    if read as u64 == LONGEST_LINE { Err(JournalError::Long { line: number }) } else { Ok(read > 0) }
}

/// Folds a journal that was cut anywhere. Its last line may be incomplete; any other must be whole.
pub fn recover(mut input: impl BufRead) -> Result<Recording, JournalError> {
    let mut line = Vec::new();
    if !read_line(&mut input, 1, &mut line)? {
        return Err(JournalError::Empty);
    }
    let begin = match serde_json::from_slice(&line) {
        Ok(Entry::Begin(begin)) if begin.schema == JOURNAL_SCHEMA => *begin,
        _ => return Err(JournalError::NotAJournal),
    };
    if begin.schema_version > SCHEMA_VERSION {
        return Err(JournalError::TooNew { found: begin.schema_version });
    }
    let mut builder = Builder::new(begin);
    for number in 2.. {
        if !read_line(&mut input, number, &mut line)? {
            break;
        }
        match serde_json::from_slice::<Entry>(&line) {
            Ok(entry) => builder.apply(entry),
            // Cut in the middle of being written.
            Err(_) if line.last() != Some(&b'\n') => break,
            Err(cause) => return Err(JournalError::Entry { line: number, cause }),
        }
    }
    let mut recording = builder.finish();
    // The line that says what surrounds a process may be among those that were cut off.
    let contexts = recording.provenance.contexts.len();
    for process in &mut recording.provenance.processes {
        process.context = process.context.filter(|context| (*context as usize) < contexts);
    }
    super::validate::check(&recording).map_err(JournalError::Inconsistent)?;
    Ok(recording)
}

#[cfg(test)]
mod tests {
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
}
