//! Reading a journal: its entries, and the recording that they are.

use std::io::{self, BufRead};

use super::super::schema::{Recording, SCHEMA_VERSION};
use super::rows::{self, Fault};
use super::{Begin, Builder, Entry, JOURNAL_SCHEMA, JournalError, LONGEST_LINE, packed};

/// The entries of a journal that was cut anywhere. Its last line may be incomplete; any other must be whole. Nothing comes
/// after an error.
pub struct Entries<'a> {
    input: Box<dyn BufRead + 'a>,
    rows: rows::Reader,
    line: Vec<u8>,
    number: usize,
    is_over: bool,
}

impl<'a> Entries<'a> {
    /// `input` may be compressed. An error where nothing can be read of it, or it is no journal.
    pub fn new(input: impl BufRead + 'a) -> Result<(Begin, Self), JournalError> {
        let input = packed::unpacked(input)?;
        let mut entries =
            Self { input, rows: rows::Reader::default(), line: Vec::new(), number: 0, is_over: false };
        if !entries.read_line()? {
            return Err(JournalError::Empty);
        }
        let begin = match serde_json::from_slice(&entries.line) {
            Ok(Entry::Begin(begin)) if begin.schema == JOURNAL_SCHEMA => *begin,
            _ => return Err(JournalError::NotAJournal),
        };
        if begin.schema_version > SCHEMA_VERSION {
            return Err(JournalError::TooNew { found: begin.schema_version });
        }
        Ok((begin, entries))
    }

    /// `false` where there is no other line.
    fn read_line(&mut self) -> Result<bool, JournalError> {
        self.line.clear();
        self.number += 1;
        let mut most = io::Read::take(&mut self.input, LONGEST_LINE);
        let read = most.read_until(b'\n', &mut self.line)?;
        if read as u64 == LONGEST_LINE { Err(JournalError::Long { line: self.number }) } else { Ok(read > 0) }
    }

    fn read(&mut self) -> Result<Option<Entry>, JournalError> {
        if !self.read_line()? {
            return Ok(None);
        }
        match self.entry() {
            Ok(entry) => Ok(Some(entry)),
            // Cut in the middle of being written.
            Err(_) if self.line.last() != Some(&b'\n') => Ok(None),
            Err(Fault::Json(cause)) => Err(JournalError::Entry { line: self.number, cause }),
            Err(Fault::Unknown) => Err(JournalError::Row { line: self.number }),
        }
    }

    fn entry(&mut self) -> Result<Entry, Fault> {
        if rows::is_changes(&self.line) {
            return self.rows.read(&self.line).map(Entry::Sample);
        }
        let entry = serde_json::from_slice(&self.line).map_err(Fault::Json)?;
        if let Entry::Sample(sample) = &entry {
            self.rows.note(&self.line, sample)?;
        }
        Ok(entry)
    }
}

impl Iterator for Entries<'_> {
    type Item = Result<Entry, JournalError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_over {
            return None;
        }
        let read = self.read();
        self.is_over = !matches!(read, Ok(Some(_)));
        read.transpose()
    }
}

/// Folds a journal that was cut anywhere, see [`Entries`].
pub fn recover(input: impl BufRead) -> Result<Recording, JournalError> {
    let (begin, entries) = Entries::new(input)?;
    let mut builder = Builder::new(begin);
    for entry in entries {
        builder.apply(entry?);
    }
    let mut recording = builder.finish();
    // The line that says what surrounds a process may be among those that were cut off.
    let contexts = recording.provenance.contexts.len();
    for process in &mut recording.provenance.processes {
        process.context = process.context.filter(|context| (*context as usize) < contexts);
    }
    super::super::validate::check(&recording).map_err(JournalError::Inconsistent)?;
    Ok(recording)
}
