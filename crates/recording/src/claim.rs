//! The name of a recording that is being made: taken by its journal before anything runs.

use std::fs::{File, TryLockError};
use std::io::{self, BufReader, Seek};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::journal;
use super::schema::Recording;
use super::write::{Packing, WriteError, WriteOptions, write_at, write_packed_at};
use spark_trace_host::output_file::Place;

/// Two recordings that replace each other's leftovers at the same time: one of them wins within a few tries.
const TRIES: u32 = 10;

/// A journal of one's own. It stays locked for as long as this lives: so a running recording is distinguished from what a killed
/// one has left behind.
#[derive(Debug, Clone)]
pub struct Claim {
    pub journal: PathBuf,
    pub file: Arc<File>,
    /// Where the journal of an earlier recording is now, which lay here.
    pub moved: Option<PathBuf>,
    /// In the directory as it was at the start: the traced program may have put another one in its place by the end.
    output: Place,
    partial: Place,
}

impl Claim {
    /// Takes the name `output`: neither it nor its journal may belong to another recording.
    pub fn new(output: &Path, options: WriteOptions) -> Result<Self, WriteError> {
        let output = Place::new(output)?;
        let partial = output.beside(partial_name(&output));
        let journal = partial.path().to_owned();
        let error = |source| WriteError::Io { path: journal.clone(), doing: "create", source };
        let mut moved = None;
        for _ in 0..TRIES {
            output.refuse_existing(options)?;
            match partial.create_new(0, options) {
                Ok(file) => {
                    if !(locks(&file) && partial.is(&file)) {
                        continue;
                    }
                    return Ok(Self { journal, file: Arc::new(file), moved, output, partial });
                }
                Err(source) if source.kind() == io::ErrorKind::AlreadyExists => {
                    moved = clear_away(&partial, options)?.or(moved);
                }
                Err(source) => return Err(error(source)),
            }
        }
        Err(WriteError::InUse { path: journal })
    }

    /// Writes the recording under its name.
    pub fn write(&self, recording: &Recording, options: WriteOptions) -> Result<(), WriteError> {
        write_at(recording, &self.output, options)
    }

    /// The same under another name in the same directory, packed in a way.
    pub fn write_beside(
        &self,
        path: &Path,
        recording: &Recording,
        options: WriteOptions,
        packing: Packing,
    ) -> Result<(), WriteError> {
        let place = self.output.beside(path.file_name().unwrap_or_default());
        write_packed_at(recording, &place, options, packing)
    }

    /// Whether the journal has its name still, and anything in it.
    pub fn has_content(&self) -> bool {
        self.is_there() && self.file.metadata().is_ok_and(|about| about.len() > 0)
    }

    /// Removes the journal, if its name is still that of this one.
    pub fn remove(&self) {
        if self.is_there() {
            // Nothing is left to do where it cannot be removed.
            let _ = self.partial.remove();
        }
    }

    /// Whether the journal has its name still.
    pub fn is_there(&self) -> bool {
        self.partial.is(&self.file)
    }

    /// Whether the journal has no reading: nothing is lost with it. For when it is written no more.
    pub fn is_empty(&self) -> bool {
        let read = || -> io::Result<bool> {
            let mut file = self.file.try_clone()?;
            if file.metadata()?.len() == 0 {
                return Ok(true);
            }
            file.rewind()?;
            let recovered = journal::recover(BufReader::new(file));
            Ok(recovered.is_ok_and(|recording| recording.samples.system.begin_ns.is_empty()))
        };
        read().unwrap_or(false)
    }
}

/// What the journal of a recording is called while it is made.
fn partial_name(output: &Place) -> std::ffi::OsString {
    let mut name = output.name().to_os_string();
    name.push(".partial");
    name
}

/// Makes room for a journal: what nobody writes and nobody misses is removed, and what an interrupted recording has left
/// is renamed where that is wanted. Says what it is called now.
fn clear_away(partial: &Place, options: WriteOptions) -> Result<Option<PathBuf>, WriteError> {
    let path = || partial.path().to_owned();
    let error = |doing| move |source| WriteError::Io { path: partial.path().into(), doing, source };
    partial.refuse_special()?;
    // Not waiting: it may be a FIFO by now.
    let file = match partial.open(libc::O_RDONLY | libc::O_NONBLOCK) {
        Err(gone) if gone.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file.map_err(error("open what is there"))?,
    };
    if !locks(&file) {
        return Err(WriteError::InUse { path: path() });
    }
    if !partial.is(&file) {
        return Ok(None);
    }
    if file.metadata().map_err(error("open what is there"))?.len() == 0 {
        partial.remove().map_err(error("remove what is there")).map(|()| None)
    } else if options.force {
        partial.rename_away().map_err(error("rename what is there")).map(Some)
    } else {
        Err(WriteError::LeftBehind { path: path() })
    }
}

/// Whether nobody else has it locked. A file system without locks has no better answer than yes.
fn locks(file: &File) -> bool {
    !matches!(file.try_lock(), Err(TryLockError::WouldBlock))
}

#[cfg(test)]
mod tests {
    use std::fs;

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
    fn what_a_killed_recording_has_left_is_never_lost() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("run.json");
        let journal = directory.path().join("run.json.partial");
        fs::write(&journal, "readings").unwrap();
        let error = Claim::new(&path, PLAIN).unwrap_err();
        assert!(error.to_string().contains("spark-trace recover"), "{error}");
        assert_eq!(fs::read(&journal).unwrap(), b"readings");
        let claim = Claim::new(&path, FORCE).unwrap();
        assert_eq!(claim.file.metadata().unwrap().len(), 0);
        let moved = directory.path().join("run.json.partial.1");
        assert_eq!(claim.moved.as_deref(), Some(moved.as_path()));
        assert_eq!(fs::read(moved).unwrap(), b"readings");
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

    #[test]
    fn what_has_taken_the_journals_name_is_not_removed() {
        let directory = tempfile::tempdir().unwrap();
        let claim = Claim::new(&directory.path().join("run.json"), PLAIN).unwrap();
        assert!(claim.is_there() && claim.is_empty());
        fs::remove_file(&claim.journal).unwrap();
        fs::write(&claim.journal, "theirs").unwrap();
        assert!(!claim.is_there());
        claim.remove();
        assert_eq!(fs::read(&claim.journal).unwrap(), b"theirs");
    }

    #[test]
    fn a_recording_lies_where_its_journal_does() {
        let top = tempfile::tempdir().unwrap();
        let inside = |name: &str| top.path().join(name);
        fs::create_dir(inside("out")).unwrap();
        fs::create_dir(inside("private")).unwrap();
        let claim = Claim::new(&inside("out/run.json"), FORCE).unwrap();
        fs::rename(inside("out"), inside("moved")).unwrap();
        std::os::unix::fs::symlink(inside("private"), inside("out")).unwrap();
        claim.write(&crate::testing::container(), FORCE).unwrap();
        claim.remove();
        assert_eq!(fs::read_dir(inside("private")).unwrap().count(), 0);
        let names: Vec<_> = fs::read_dir(inside("moved")).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names, ["run.json"]);
    }
}
