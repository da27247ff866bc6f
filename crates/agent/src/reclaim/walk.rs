//! The regular files that a path names: itself, or those below it on its own file system. No link is followed, whatever
//! becomes of the directories meanwhile.

use std::{
    collections::HashSet,
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind},
    os::{
        fd::AsRawFd,
        unix::fs::{MetadataExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
};

use crate::mounts::regular::{self, Links};

/// Directories below one another; deeper ones are left out, and counted.
const DEEPEST: usize = 128;
/// Files of one walk.
pub(super) const MOST_FILES: u64 = 1_000_000;

/// What a walk left out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct LeftOut {
    /// Files and directories that could not be opened.
    pub(super) unreadable: u64,
    /// Whether there were more than [`MOST_FILES`] files.
    pub(super) over: bool,
}

/// A directory that is being read, by a descriptor: its path may lead elsewhere by now.
struct Open {
    directory: File,
    entries: fs::ReadDir,
    path: PathBuf,
}

impl Open {
    fn new(way: &Path, path: PathBuf) -> io::Result<Self> {
        let flags = libc::O_DIRECTORY | libc::O_NOFOLLOW | libc::O_CLOEXEC;
        let directory = OpenOptions::new().read(true).custom_flags(flags).open(way)?;
        let entries = fs::read_dir(by_descriptor(&directory))?;
        Ok(Self { directory, entries, path })
    }
}

fn by_descriptor(directory: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd()))
}

/// Hands each file to `take` once, whatever its names are, opened to be read, with its path.
pub(super) fn files(start: &Path, take: &mut dyn FnMut(&Path, File)) -> io::Result<LeftOut> {
    let mut left_out = LeftOut::default();
    let kind = fs::symlink_metadata(start)?.file_type();
    if kind.is_symlink() {
        return Err(io::Error::new(ErrorKind::InvalidInput, "it is a link: name the file itself"));
    }
    if !kind.is_dir() {
        take(start, regular::open(start, Links::Refused)?);
        return Ok(left_out);
    }
    let first = Open::new(start, start.to_owned())?;
    let device = first.directory.metadata()?.dev();
    let mut open = vec![first];
    let mut seen = 0;
    // Inodes of files with several names.
    let mut linked = HashSet::new();
    while let Some(top) = open.last_mut() {
        let Some(entry) = top.entries.next() else {
            open.pop();
            continue;
        };
        let Ok(entry) = entry else { continue };
        let Ok(kind) = entry.file_type() else { continue };
        let (way, path) =
            (by_descriptor(&top.directory).join(entry.file_name()), top.path.join(entry.file_name()));
        if kind.is_dir() {
            let below =
                if open.len() < DEEPEST { Open::new(&way, path) } else { Err(ErrorKind::Other.into()) };
            match below.and_then(|below| Ok((below.directory.metadata()?.dev(), below))) {
                Ok((found, below)) if found == device => open.push(below),
                // Another file system is mounted there: it was not named.
                Ok(_) => {}
                Err(_) => left_out.unreadable += 1,
            }
        } else if kind.is_file() {
            if seen == MOST_FILES {
                left_out.over = true;
                return Ok(left_out);
            }
            seen += 1;
            match regular::open(&way, Links::Refused) {
                Ok(file) => {
                    let status = file.metadata()?;
                    if status.nlink() == 1 || linked.insert(status.ino()) {
                        take(&path, file);
                    }
                }
                Err(_) => left_out.unreadable += 1,
            }
        }
    }
    Ok(left_out)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn found(start: &Path) -> Vec<String> {
        let mut found = Vec::new();
        files(start, &mut |path, _| found.push(path.strip_prefix(start).unwrap().display().to_string()))
            .unwrap();
        found.sort();
        found
    }

    #[test]
    fn files_below_a_directory_without_what_links_lead_to() {
        let dir = tempfile::tempdir().unwrap();
        let other = tempfile::tempdir().unwrap();
        fs::write(other.path().join("not named"), "x").unwrap();
        fs::create_dir_all(dir.path().join("a/b")).unwrap();
        for name in ["one", "a/two", "a/b/three"] {
            fs::write(dir.path().join(name), "x").unwrap();
        }
        symlink(other.path(), dir.path().join("a/link")).unwrap();
        symlink(other.path().join("not named"), dir.path().join("link")).unwrap();
        assert_eq!(found(dir.path()), ["a/b/three", "a/two", "one"]);
    }

    #[test]
    fn a_file_with_two_names_is_one_file() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("one"), "x").unwrap();
        fs::hard_link(dir.path().join("one"), dir.path().join("two")).unwrap();
        assert_eq!(found(dir.path()).len(), 1);
    }

    #[test]
    fn a_file_is_itself_and_a_link_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "x").unwrap();
        assert_eq!(found(&file), [""]);
        symlink(&file, dir.path().join("link")).unwrap();
        let refused = files(&dir.path().join("link"), &mut |_, _| panic!("a link was followed"));
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::InvalidInput);
    }
}
