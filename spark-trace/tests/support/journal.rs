//! The journal of a recording under way, as far as it has come. What a test waits for is read here; what it compares is not.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use spark_trace_recording::journal::{Entries, Entry, SeriesId};

/// Its entries after the first, where there is a first.
pub fn entries(journal: &Path) -> Option<impl Iterator<Item = Entry>> {
    let (_, entries) = Entries::new(BufReader::new(File::open(journal).ok()?)).ok()?;
    Some(entries.map_while(Result::ok))
}

/// Whether there is anything to recover.
pub fn has_begun(journal: &Path) -> bool {
    entries(journal).is_some()
}

/// When each reading of the system began.
pub fn readings(journal: &Path) -> Option<impl Iterator<Item = u64>> {
    let begin = |entry| match entry {
        Entry::Sample(sample) if sample.series == SeriesId::System => Some(sample.begin_ns),
        _ => None,
    };
    Some(entries(journal)?.filter_map(begin))
}
