//! The files of a file system that anybody may write to: bounded, over no mount and along no link.

use std::{
    collections::HashSet,
    ffi::OsStr,
    fs::{self, File, Metadata, OpenOptions},
    io,
    os::{
        fd::AsRawFd,
        unix::fs::{MetadataExt, OpenOptionsExt},
    },
    path::PathBuf,
    time::Instant,
};

use spark_trace_recording::TmpfsFile;

/// Directories in one another; each is open while those in it are read.
const DEEPEST: u32 = 48;
/// Bytes of a block of stat(2), whatever the file system's own.
const BLOCK: u64 = 512;

/// What walks may still take.
#[derive(Debug)]
pub(super) struct Budget {
    pub(super) entries: u64,
    pub(super) until: Instant,
}

#[derive(Debug, Default)]
pub(super) struct Walked {
    pub(super) files: Vec<TmpfsFile>,
    /// Why some may be missing.
    pub(super) note: Option<String>,
}

/// How large a file is that has no blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Blockless {
    /// It is a hole.
    Nothing,
    /// The file system (a ramfs) counts no blocks: as large as it says.
    Length,
}

/// The files of the file system `device` below `place`, which is at `path`.
pub(super) fn files(
    place: &File,
    path: &str,
    device: u64,
    blockless: Blockless,
    budget: &mut Budget,
) -> Walked {
    let mut walk = Walk { device, blockless, budget, linked: HashSet::new(), found: Walked::default() };
    if let Err(error) = walk.directory(place, OsStr::new("."), path.trim_end_matches('/'), 0) {
        walk.note(format!("cannot be read: {error}"));
    }
    walk.found
}

struct Walk<'a> {
    device: u64,
    blockless: Blockless,
    budget: &'a mut Budget,
    /// Files with several names that were met.
    linked: HashSet<u64>,
    found: Walked,
}

impl Walk<'_> {
    /// `name` in the open directory `parent`. Names are always looked up in what is open: whoever moves directories or
    /// puts links in their place meanwhile leads nowhere else.
    fn directory(&mut self, parent: &File, name: &OsStr, path: &str, depth: u32) -> io::Result<()> {
        let flags = libc::O_DIRECTORY | libc::O_NOFOLLOW;
        let directory = OpenOptions::new().read(true).custom_flags(flags).open(through(parent).join(name))?;
        if directory.metadata()?.dev() != self.device {
            return Ok(());
        }
        for entry in fs::read_dir(through(&directory))? {
            if self.budget.entries == 0 || Instant::now() >= self.budget.until {
                self.note("the walk was cut short: there are many files".to_owned());
                break;
            }
            self.budget.entries -= 1;
            let Ok(entry) = entry else { continue };
            // It may be gone by now.
            let Ok(found) = entry.metadata() else { continue };
            let name = entry.file_name();
            let path = format!("{path}/{}", name.to_string_lossy());
            if found.is_dir() && found.dev() == self.device {
                if depth < DEEPEST {
                    // One that cannot be opened has gone, or become something else.
                    let _ = self.directory(&directory, &name, &path, depth + 1);
                } else {
                    self.note(format!("directories more than {DEEPEST} deep were left out"));
                }
            } else if found.is_file() && found.dev() == self.device {
                self.file(&found, path);
            }
        }
        Ok(())
    }

    fn file(&mut self, found: &Metadata, path: String) {
        if found.nlink() > 1 && !self.linked.insert(found.ino()) {
            return;
        }
        let bytes = match self.blockless {
            Blockless::Length => found.len(),
            Blockless::Nothing => found.blocks().saturating_mul(BLOCK),
        };
        if bytes > 0 {
            self.found.files.push(TmpfsFile { path, bytes });
        }
    }

    fn note(&mut self, note: String) {
        self.found.note.get_or_insert(note);
    }
}

fn through(directory: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd()))
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::symlink, time::Duration};

    use super::*;

    fn walk(directory: &std::path::Path, entries: u64) -> Walked {
        let place = OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(directory).unwrap();
        let device = place.metadata().unwrap().dev();
        let mut budget = Budget { entries, until: Instant::now() + Duration::from_secs(10) };
        files(&place, "/at", device, Blockless::Nothing, &mut budget)
    }

    #[test]
    fn files_once_and_no_links() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        fs::create_dir_all(path("a/b")).unwrap();
        fs::write(path("a/b/file"), vec![1; 64 << 10]).unwrap();
        fs::hard_link(path("a/b/file"), path("again")).unwrap();
        File::create(path("hole")).unwrap().set_len(1 << 30).unwrap();
        // A walk along these would go on for long, or in a circle.
        symlink("/usr", path("elsewhere")).unwrap();
        symlink("..", path("a/up")).unwrap();
        let found = walk(directory.path(), 100);
        assert_eq!((found.files.len(), found.note), (1, None));
        assert!(found.files[0].bytes >= 64 << 10);
        assert!(["/at/a/b/file", "/at/again"].contains(&found.files[0].path.as_str()));
    }

    #[test]
    fn a_walk_is_cut_short_and_says_so() {
        let directory = tempfile::tempdir().unwrap();
        for index in 0..20 {
            fs::write(directory.path().join(index.to_string()), [0; 5000]).unwrap();
        }
        let found = walk(directory.path(), 7);
        assert_eq!(found.files.len(), 7);
        assert!(found.note.unwrap().contains("cut short"));
        assert_eq!(walk(directory.path(), 20).note, None);
        let mut deep = directory.path().join("deep");
        for _ in 0..60 {
            deep.push("d");
        }
        fs::create_dir_all(&deep).unwrap();
        fs::write(deep.join("file"), [1; 5000]).unwrap();
        let found = walk(directory.path(), 1000);
        assert_eq!(found.files.len(), 20);
        assert!(found.note.unwrap().contains("deep"));
    }
}
