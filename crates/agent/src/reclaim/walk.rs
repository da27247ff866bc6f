//! The regular files that a path names: itself, or those below it in the same mount. No link below it is followed, whatever
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
pub(super) const DEEPEST: usize = 128;
/// Files of one walk.
pub(super) const MOST_FILES: u64 = 1_000_000;

/// Files by device and inode.
pub(super) type Seen = HashSet<(u64, u64)>;

/// What a walk left out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct LeftOut {
    /// Files and directories that could not be opened.
    pub(super) unreadable: u64,
    /// Files and directories that are another mount.
    pub(super) elsewhere: u64,
    /// Directories below [`DEEPEST`] others.
    pub(super) too_deep: u64,
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
        let open = |flags| OpenOptions::new().read(true).custom_flags(flags).open(way);
        // Without changing its access time, where that is allowed.
        let directory = open(flags | libc::O_NOATIME).or_else(|_| open(flags))?;
        let entries = fs::read_dir(by_descriptor(&directory))?;
        Ok(Self { directory, entries, path })
    }
}

fn by_descriptor(directory: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd()))
}

/// Hands each file that is not in `seen` to `take`, opened to be read, with its path.
pub(super) fn files(start: &Path, seen: &mut Seen, take: &mut dyn FnMut(&Path, File)) -> io::Result<LeftOut> {
    let mut left_out = LeftOut::default();
    // A slash at the end would follow a link.
    let start: PathBuf = start.components().collect();
    let kind = fs::symlink_metadata(&start)?.file_type();
    if kind.is_symlink() {
        return Err(io::Error::new(ErrorKind::InvalidInput, "it is a link: name the file itself"));
    }
    let mut take_new = |path: &Path, file: File| {
        let status = file.metadata()?;
        if seen.insert((status.dev(), status.ino())) {
            take(path, file);
        }
        io::Result::Ok(())
    };
    if !kind.is_dir() {
        take_new(&start, regular::open(&start, Links::Refused)?)?;
        return Ok(left_out);
    }
    let first = Open::new(&start, start.clone())?;
    let mount = regular::mount_id(&first.directory)?;
    let mut open = vec![first];
    let mut count = 0;
    while let Some(top) = open.last_mut() {
        let Some(entry) = top.entries.next() else {
            open.pop();
            continue;
        };
        let Ok((kind, entry)) = entry.and_then(|entry| Ok((entry.file_type()?, entry))) else {
            left_out.unreadable += 1;
            continue;
        };
        let (way, path) =
            (by_descriptor(&top.directory).join(entry.file_name()), top.path.join(entry.file_name()));
        if kind.is_dir() && open.len() == DEEPEST {
            left_out.too_deep += 1;
        } else if kind.is_dir() {
            match Open::new(&way, path).and_then(|below| Ok((regular::mount_id(&below.directory)?, below))) {
                Ok((found, below)) if found == mount => open.push(below),
                // It was not named.
                Ok(_) => left_out.elsewhere += 1,
                Err(error) => left_out.unreadable += u64::from(!is_gone(&error)),
            }
        } else if kind.is_file() {
            if count == MOST_FILES {
                left_out.over = true;
                return Ok(left_out);
            }
            count += 1;
            match regular::open(&way, Links::Refused).and_then(|file| Ok((regular::mount_id(&file)?, file))) {
                Ok((found, file)) if found == mount => take_new(&path, file)?,
                Ok(_) => left_out.elsewhere += 1,
                Err(error) => left_out.unreadable += u64::from(!is_gone(&error)),
            }
        }
    }
    Ok(left_out)
}

fn is_gone(error: &io::Error) -> bool {
    error.kind() == ErrorKind::NotFound
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn found(start: &Path) -> Vec<String> {
        let mut found = Vec::new();
        files(start, &mut Seen::new(), &mut |path, _| {
            found.push(path.strip_prefix(start).unwrap().display().to_string())
        })
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
    fn what_was_seen_before_is_left_out() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("one"), "x").unwrap();
        let (mut seen, mut count) = (Seen::new(), 0);
        for _ in 0..2 {
            files(dir.path(), &mut seen, &mut |_, _| count += 1).unwrap();
        }
        assert_eq!(count, 1);
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
        for name in ["link", "link/", "link/."] {
            let refused =
                files(&dir.path().join(name), &mut Seen::new(), &mut |_, _| panic!("a link was followed"));
            assert_eq!(refused.unwrap_err().kind(), ErrorKind::InvalidInput, "{name}");
        }
    }
}
