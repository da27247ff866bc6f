//! Studies: many runs by a plan, and what they show. What runs them needs a kernel; everything else is pure.

pub mod analysis;
pub mod benchmarks;
pub mod check;
pub mod command;
pub mod cores;
pub mod estimate;
pub mod figures;
pub mod files;
pub mod import;
pub mod journal;
pub mod plan;
pub mod primary;
pub mod report;
pub mod results;
pub mod rootfs;
pub mod run;
pub mod schedule;
pub mod templates;
pub mod traits;
pub mod ulimit;
mod validate;

use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use thiserror::Error;

pub use analysis::across::Stored;
pub use results::Results;

/// In the folder of a study that is run here.
pub const JOURNAL: &str = "journal.jsonl";
/// In the folder of a study that was imported.
pub const RESULTS: &str = "results.json";

#[derive(Debug, Error)]
pub enum StudyError {
    #[error("{}: cannot be used", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("{}: no study: there is neither {JOURNAL} nor {RESULTS} in it", dir.display())]
    NoStudy { dir: PathBuf },
    #[error("{}: no plan", path.display())]
    Plan { path: PathBuf, source: plan::PlanError },
    #[error("{}: no journal of a study", path.display())]
    Journal { path: PathBuf, source: journal::JournalError },
    #[error("{}: not the results of a study", path.display())]
    Results { path: PathBuf, source: serde_json::Error },
    #[error("{}: written by a newer spark-trace (version {version}); update spark-trace", path.display())]
    TooNew { path: PathBuf, version: u32 },
    #[error("{}: more than {} MiB; no file of a study is that large", path.display(), LONGEST_TEXT >> 20)]
    TooLarge { path: PathBuf },
    #[error("{}: not in the format {format}: {what}", path.display())]
    Import { path: PathBuf, format: &'static str, what: String },
}

impl StudyError {
    pub fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { path, source }
    }
}

/// The results in a study's folder, as far as it has come.
pub fn load(dir: &Path) -> Result<Results, StudyError> {
    let journal = dir.join(JOURNAL);
    if journal.is_file() {
        return Ok(read_journal(&journal)?.results());
    }
    let path = dir.join(RESULTS);
    if path.symlink_metadata().is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
        return Err(StudyError::NoStudy { dir: dir.to_owned() });
    }
    let text = read_text(&path)?;
    let results: Results =
        serde_json::from_str(&text).map_err(|source| StudyError::Results { path: path.clone(), source })?;
    if results.schema_version > results::SCHEMA_VERSION {
        return Err(StudyError::TooNew { path, version: results.schema_version });
    }
    Ok(results)
}

/// The same with the study's plan, where it was run here.
pub fn stored(dir: &Path) -> Result<Stored, StudyError> {
    let journal = dir.join(JOURNAL);
    if journal.is_file() {
        let state = read_journal(&journal)?;
        return Ok(Stored { results: state.results(), plan: Some(state.plan) });
    }
    Ok(Stored { results: load(dir)?, plan: None })
}

/// More than the files of any study have: whoever made them chose how large they are.
const LONGEST_TEXT: u64 = 64 << 20;

/// Reads a file of a study. Nothing but a regular file: another could be without end.
pub fn read_bytes(path: &Path) -> Result<Vec<u8>, StudyError> {
    read_opened(path, libc::O_NONBLOCK)
}

/// Reads a file that a measured program wrote, and nothing that it links to.
pub fn read_theirs(path: &Path) -> Result<Vec<u8>, StudyError> {
    read_opened(path, libc::O_NONBLOCK | libc::O_NOFOLLOW)
}

fn read_opened(path: &Path, flags: libc::c_int) -> Result<Vec<u8>, StudyError> {
    let mut options = std::fs::OpenOptions::new();
    let file = options.read(true).custom_flags(flags).open(path).map_err(StudyError::io(path))?;
    let about = file.metadata().map_err(StudyError::io(path))?;
    if !about.is_file() {
        return Err(StudyError::io(path)(io::Error::other("not a file")));
    }
    let mut bytes = Vec::new();
    file.take(LONGEST_TEXT + 1).read_to_end(&mut bytes).map_err(StudyError::io(path))?;
    if bytes.len() as u64 > LONGEST_TEXT {
        return Err(StudyError::TooLarge { path: path.to_owned() });
    }
    Ok(bytes)
}

/// As `sha256sum` writes it.
pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

pub fn read_text(path: &Path) -> Result<String, StudyError> {
    String::from_utf8(read_bytes(path)?)
        .map_err(|error| StudyError::io(path)(io::Error::new(io::ErrorKind::InvalidData, error)))
}

pub fn read_journal(path: &Path) -> Result<journal::State, StudyError> {
    let bytes = read_bytes(path)?;
    // A line that was cut off may end within a character.
    let text = String::from_utf8_lossy(&bytes);
    journal::read(&text).map_err(|source| StudyError::Journal { path: path.to_owned(), source })
}
