//! The folder of a report: what is in it, and whether it can be gone on with.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::Context;

use spark_trace_host::invoker;
use spark_trace_host::output_file::{Place, WriteOptions, make_directories};
use spark_trace_study::journal::State;
use spark_trace_study::plan::Plan;
use spark_trace_study::{JOURNAL, read_journal};

use super::plan::Step;

/// What is to be given to others.
pub const SEND: &str = "send";
/// In it.
pub const PAGE: &str = "page.md";
pub const BUNDLE_BEFORE: &str = "before.tar.zst";
pub const BUNDLE_AFTER: &str = "after.tar.zst";
/// The machine before the first run and after the last, with names.
pub const BEFORE: &str = "before.json.zst";
pub const AFTER: &str = "after.json.zst";

/// Command lines can have passwords in them: nobody else is to read what is in the folder.
const MODE: u32 = 0o700;
/// linux/magic.h.
const TMPFS_MAGIC: libc::c_long = 0x0102_1994;
const RAMFS_MAGIC: libc::c_long = 0x8584_58f6_u32 as libc::c_long;

pub struct Folder {
    /// Absolute.
    dir: PathBuf,
}

/// A study in it that has begun.
pub struct Begun {
    pub dir: PathBuf,
    pub state: State,
}

pub fn write_options() -> WriteOptions {
    WriteOptions { force: false, owner: invoker::owner() }
}

impl Folder {
    /// Looks whether the folder is new, empty, or of these very plans. Makes nothing.
    pub fn look(dir: &Path, plans: &[(Step, Plan)]) -> anyhow::Result<Self> {
        let dir = std::path::absolute(dir).with_context(|| format!("{}: no name", dir.display()))?;
        let folder = Self { dir };
        let name = folder.dir.display();
        folder.refuse_memory()?;
        let entries = match fs::read_dir(&folder.dir) {
            Ok(entries) => entries.collect::<io::Result<Vec<_>>>().with_context(|| name.to_string())?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(folder),
            Err(error) => return Err(error).with_context(|| format!("{name}: cannot be used as a folder")),
        };
        let begun = folder.begun(Step::AsFound)?;
        anyhow::ensure!(
            entries.is_empty() || begun.is_some() || folder.has_only_ours(&entries),
            "{name} has something in it that is no report: name a new folder with --output"
        );
        for (step, plan) in plans {
            folder.begun_with(*step, plan)?;
        }
        Ok(folder)
    }

    /// Whether a step was begun. Fails where that is another plan: what a run writes there while it lasts is never run.
    pub fn begun_with(&self, step: Step, plan: &Plan) -> anyhow::Result<bool> {
        let begun = self.begun(step)?;
        anyhow::ensure!(
            begun.as_ref().is_none_or(|begun| begun.state.plan == *plan),
            "{} has a report of other commands or another time limit: give the same ones to go on with it, or name a new folder \
             with --output",
            self.dir.display()
        );
        Ok(begun.is_some())
    }

    /// Nothing that was begun: what a report is begun with was written, and no run.
    fn has_only_ours(&self, entries: &[fs::DirEntry]) -> bool {
        let ours = [SEND, BEFORE, AFTER, Step::AsFound.folder(), Step::Dropped.folder()];
        entries.iter().all(|entry| entry.file_name().to_str().is_some_and(|name| ours.contains(&name)))
    }

    /// What is written into memory would be in every reading.
    fn refuse_memory(&self) -> anyhow::Result<()> {
        let Some(there) = self.dir.ancestors().find(|dir| dir.exists()) else { return Ok(()) };
        let path = std::ffi::CString::new(there.as_os_str().as_bytes())?;
        let mut about = std::mem::MaybeUninit::<libc::statfs>::zeroed();
        // SAFETY: the path ends with a zero byte and the place is ours.
        if unsafe { libc::statfs(path.as_ptr(), about.as_mut_ptr()) } != 0 {
            return Ok(());
        }
        // SAFETY: the call has succeeded and filled it in.
        let kind = unsafe { about.assume_init() }.f_type;
        #[allow(clippy::unnecessary_cast, reason = "its type differs between C libraries")]
        let kind = kind as libc::c_long;
        anyhow::ensure!(
            kind != TMPFS_MAGIC && kind != RAMFS_MAGIC,
            "{} is in memory (tmpfs): what is written there would be a part of the memory that is compared; name a folder on a disk with \
             --output",
            self.dir.display()
        );
        Ok(())
    }

    pub fn path(&self) -> &Path {
        &self.dir
    }

    pub fn of_step(&self, step: Step) -> PathBuf {
        self.dir.join(step.folder())
    }

    /// A step as far as it has come; absent where it has not begun.
    pub fn begun(&self, step: Step) -> anyhow::Result<Option<Begun>> {
        let dir = self.of_step(step);
        let journal = dir.join(JOURNAL);
        if !journal.is_file() {
            return Ok(None);
        }
        let state = read_journal(&journal)?;
        Ok(Some(Begun { dir, state }))
    }

    /// Makes it, and what is in it, where it is not there.
    pub fn make(&self) -> anyhow::Result<()> {
        let options = write_options();
        if let Some(parent) = self.dir.parent() {
            make_directories(parent, options).with_context(|| parent.display().to_string())?;
        }
        for dir in [self.dir.clone(), self.dir.join(SEND)] {
            match Place::new(&dir)?.make_directory(MODE, options) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                made => drop(made.with_context(|| dir.display().to_string())?),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spark_report::{commands, plan};
    use std::time::Duration;

    fn plans(word: &str) -> Vec<(Step, Plan)> {
        let native = format!("sh -c {word}");
        let pair = commands::read(&native, "docker run --rm image", Path::new("/")).unwrap();
        Step::ALL.map(|step| (step, plan::plan(&pair, step, Duration::from_secs(60)))).into()
    }

    /// On a disk: a report in memory is refused.
    fn disk() -> tempfile::TempDir {
        tempfile::tempdir_in(std::env::current_exe().unwrap().parent().unwrap()).unwrap()
    }

    #[test]
    fn a_folder_is_new_or_empty_or_of_the_same_commands() {
        let parent = disk();
        let dir = parent.path().join("deep/report");
        let look = |word: &str| Folder::look(&dir, &plans(word)).map(drop).map_err(|error| error.to_string());
        assert_eq!(look("a"), Ok(()));
        Folder::look(&dir, &plans("a")).unwrap().make().unwrap();
        assert_eq!(look("a"), Ok(()), "what is there was made for it");
        let (step, plan) = plans("a").remove(0);
        spark_trace_study::run::create(&dir.join(step.folder()), &plan, Path::new("/bin/true")).unwrap();
        assert_eq!(look("a"), Ok(()), "the same commands go on");
        assert!(look("b").unwrap_err().contains("other commands"));
        let other = parent.path().join("other");
        fs::create_dir(&other).unwrap();
        fs::write(other.join("thesis.tex"), "").unwrap();
        let error = Folder::look(&other, &plans("a")).map(drop).unwrap_err().to_string();
        assert!(error.contains("no report"), "{error}");
    }

    #[test]
    fn what_is_in_the_folder_is_private() {
        use std::os::unix::fs::PermissionsExt;
        let parent = disk();
        let folder = Folder::look(&parent.path().join("report"), &plans("a")).unwrap();
        folder.make().unwrap();
        let mode = fs::metadata(folder.path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{mode:o}");
    }
}
