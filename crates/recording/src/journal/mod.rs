//! The journal of a run under way: one line for each thing that was read or happened. Most lines are JSON objects; of readings
//! most are [rows of changes](rows). Whoever writes the lines to a file [packs](packed::Packer) them.
//!
//! Recording and recovery are one fold: while tracing, every [`Entry`] is written to `FILE.partial` and
//! folded into a [`Builder`]; at the end the builder's recording is written and the journal removed. What
//! a killed spark-trace leaves behind is folded the same way by `spark-trace recover`.

mod packed;
mod recovery;
mod rows;

use std::io::{self, Write};

use thiserror::Error;

pub use super::builder::Builder;
pub use super::entry::{Aggregates, Begin, Entry, Sample, SeriesId};
use super::{provenance::Process, schema::*, secrets};
pub use packed::Packer;
pub use recovery::{Entries, recover};

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
    #[error("line {line} has changes of a reading that is not there")]
    Row { line: usize },
    #[error("line {line} has more than {} MiB", LONGEST_LINE >> 20)]
    Long { line: usize },
}

/// The most text that a journal may have: a trace may go on for days, and the disk is not its own.
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

/// Entries as lines.
struct Lines<W: Write> {
    out: Bounded<W>,
    rows: rows::Writer,
}

impl<W: Write> Lines<W> {
    fn write(&mut self, entry: &Entry) -> io::Result<()> {
        match entry {
            Entry::Sample(sample) => self.rows.write(&mut self.out, sample)?,
            entry => serde_json::to_writer(&mut self.out, entry)?,
        }
        self.out.write_all(b"\n")
    }
}

/// Writes entries as they come and folds them.
pub struct Journal<W: Write> {
    /// Absent where nothing is to outlive this process.
    out: Option<Lines<W>>,
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
        let mut out = Lines { out: Bounded { out, room }, rows: rows::Writer::default() };
        if arguments == Arguments::Hidden {
            secrets::hide(&mut begin.target.argv);
        }
        out.write(&Entry::Begin(Box::new(begin.clone())))?;
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
        let written = self.out.as_mut().map_or(Ok(()), |out| out.write(&entry));
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
        let written = self.out.as_mut().map_or(Ok(()), |lines| lines.out.flush());
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

/// The longest line that is read: a recording at all of its limits has less in all.
const LONGEST_LINE: u64 = 256 << 20;

#[cfg(test)]
mod tests;
