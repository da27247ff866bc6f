//! The name of a recording that is being made: taken by its journal before anything runs.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::write::{MODE, WriteError, WriteOptions, refuse_existing, refuse_special};

/// Two recordings that replace each other's leftovers at the same time: one of them wins within a few tries.
const TRIES: u32 = 10;

/// A journal of one's own. It stays locked for as long as this lives: so a running recording is told from what a killed
/// one has left behind.
#[derive(Debug, Clone)]
pub struct Claim {
    pub journal: PathBuf,
    pub file: Arc<File>,
}

impl Claim {
    /// Takes the name `output`: neither it nor its journal may belong to another recording.
    pub fn new(output: &Path, options: WriteOptions) -> Result<Self, WriteError> {
        let journal = partial_name(output);
        let error = |source| WriteError::Io { path: journal.clone(), doing: "create", source };
        for _ in 0..TRIES {
            refuse_existing(output, options)?;
            // Follows no link, and opens nothing that is there already.
            match OpenOptions::new().write(true).create_new(true).mode(MODE).open(&journal) {
                Ok(file) => {
                    if !(locks(&file) && is_named(&file, &journal)) {
                        continue;
                    }
                    if let Some((uid, gid)) = options.owner {
                        fchown(&file, Some(uid), Some(gid)).map_err(error)?;
                    }
                    return Ok(Self { journal, file: Arc::new(file) });
                }
                Err(source) if source.kind() == io::ErrorKind::AlreadyExists => {
                    clear_away(&journal, options)?;
                }
                Err(source) => return Err(error(source)),
            }
        }
        Err(WriteError::InUse { path: journal })
    }
}

/// Where the journal of a recording lies while it is made.
fn partial_name(output: &Path) -> PathBuf {
    let mut name = output.file_name().unwrap_or_default().to_os_string();
    name.push(".partial");
    output.with_file_name(name)
}

/// Removes a journal that nobody writes and nobody misses.
fn clear_away(journal: &Path, options: WriteOptions) -> Result<(), WriteError> {
    let error = |source| WriteError::Io { path: journal.into(), doing: "replace", source };
    refuse_special(journal)?;
    // Not waiting: it may be a FIFO by now.
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let file = match OpenOptions::new().read(true).custom_flags(flags).open(journal) {
        Err(gone) if gone.kind() == io::ErrorKind::NotFound => return Ok(()),
        file => file.map_err(error)?,
    };
    if !locks(&file) {
        return Err(WriteError::InUse { path: journal.into() });
    }
    let is_empty = file.metadata().map_err(error)?.len() == 0;
    if !options.force && !is_empty {
        return Err(WriteError::LeftBehind { path: journal.into() });
    }
    if is_named(&file, journal) { fs::remove_file(journal).map_err(error) } else { Ok(()) }
}

/// Whether nobody else has it locked. A file system without locks has no better answer than yes.
fn locks(file: &File) -> bool {
    !matches!(file.try_lock(), Err(TryLockError::WouldBlock))
}

fn is_named(file: &File, path: &Path) -> bool {
    let identity = |about: fs::Metadata| (about.dev(), about.ino());
    match (file.metadata(), path.symlink_metadata()) {
        (Ok(file), Ok(named)) => identity(file) == identity(named),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: WriteOptions = WriteOptions { force: false, owner: None };
    const FORCE: WriteOptions = WriteOptions { force: true, owner: None };

    #[test]
    fn a_name_is_taken_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("run.json");
        let claim = Claim::new(&path, PLAIN).unwrap();
        assert_eq!(claim.journal, directory.path().join("run.json.partial"));
        for options in [PLAIN, FORCE] {
            let error = Claim::new(&path, options).unwrap_err();
            assert!(matches!(error, WriteError::InUse { .. }), "{error}");
        }
        drop(claim);
        // It was empty: nothing is lost with it.
        drop(Claim::new(&path, PLAIN).unwrap());
    }

    #[test]
    fn what_a_killed_recording_has_left_is_kept_unless_forced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("run.json");
        let journal = directory.path().join("run.json.partial");
        fs::write(&journal, "readings").unwrap();
        let error = Claim::new(&path, PLAIN).unwrap_err();
        assert!(error.to_string().contains("spark-trace recover"), "{error}");
        assert_eq!(fs::read(&journal).unwrap(), b"readings");
        let claim = Claim::new(&path, FORCE).unwrap();
        assert_eq!(claim.file.metadata().unwrap().len(), 0);
    }

    #[test]
    fn a_link_in_its_place_is_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let other = directory.path().join("other");
        fs::write(&other, "theirs").unwrap();
        std::os::unix::fs::symlink(&other, directory.path().join("run.json.partial")).unwrap();
        for options in [PLAIN, FORCE] {
            let error = Claim::new(&directory.path().join("run.json"), options).unwrap_err();
            assert!(matches!(error, WriteError::NotAFile { .. }), "{error}");
        }
        assert_eq!(fs::read(&other).unwrap(), b"theirs");
    }

    #[test]
    fn of_many_that_start_at_once_each_has_a_name_of_its_own_or_none() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("run.json");
        let claims: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..16).map(|_| scope.spawn(|| Claim::new(&path, PLAIN))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(claims.iter().filter(|claim| claim.is_ok()).count(), 1);
    }
}
