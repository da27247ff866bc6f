//! The one way to create a file: in a directory that is opened once, under a name that nobody else has, whole or not at
//! all.
//!
//! spark-trace writes as root into directories that others may change. So a directory is looked up once, when the user
//! names it, and everything after that is relative to its descriptor: a link that takes the directory's place later
//! leads nowhere. No link is followed, and what is not a regular file is never replaced.

use std::ffi::{CString, OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::fchown;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use thiserror::Error;

/// Recordings hold command lines and file names of other users' processes.
pub const PRIVATE: u32 = 0o600;
/// What is to be read by others, such as a web server.
pub const PUBLIC: u32 = 0o644;
/// NAME_MAX of include/uapi/linux/limits.h.
const LONGEST_NAME: usize = 255;
/// Files that are renamed away under one name.
const MOST_KEPT: u32 = 10_000;

#[derive(Debug, Clone, Copy, Default)]
pub struct WriteOptions {
    /// Replace an existing file.
    pub force: bool,
    /// Give the file to this user and group: the one who called sudo.
    pub owner: Option<(u32, u32)>,
}

#[derive(Debug, Error)]
pub enum WriteError {
    #[error("{}: exists; choose another name or use --force", path.display())]
    Exists { path: PathBuf },
    #[error("{}: is {kind} which is never replaced; choose another name", path.display())]
    NotAFile { path: PathBuf, kind: &'static str },
    #[error("{}: another recording is being written there; choose another name", path.display())]
    InUse { path: PathBuf },
    #[error(
        "{0}: left by a recording that was interrupted; `spark-trace recover {0}` makes a recording of it, --force \
         renames it",
        path.display()
    )]
    LeftBehind { path: PathBuf },
    #[error("{}: cannot be written ({doing})", path.display())]
    Io { path: PathBuf, doing: &'static str, source: io::Error },
}

/// What kind of file has a name: `st_mode & S_IFMT` (inode(7)).
const KINDS: &[(libc::mode_t, &str)] = &[
    (libc::S_IFLNK, "a symbolic link"),
    (libc::S_IFDIR, "a directory"),
    (libc::S_IFIFO, "a FIFO"),
    (libc::S_IFSOCK, "a socket"),
    (libc::S_IFCHR, "a device"),
    (libc::S_IFBLK, "a device"),
];

/// A name in a directory that is open.
#[derive(Debug, Clone)]
pub struct Place {
    directory: Arc<File>,
    name: OsString,
    /// For messages.
    path: PathBuf,
}

impl Place {
    /// Opens the directory that `path` is in.
    pub fn new(path: &Path) -> Result<Self, WriteError> {
        let error = |source| WriteError::Io { path: path.into(), doing: "open its directory", source };
        let name = path.file_name().ok_or_else(|| error(io::ErrorKind::IsADirectory.into()))?;
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let directory = open_directory(parent.unwrap_or(Path::new("."))).map_err(error)?;
        Ok(Self { directory: Arc::new(directory), name: name.to_owned(), path: path.into() })
    }

    /// A name in a directory that is open already; `path` is for messages.
    pub fn inside(directory: &Arc<File>, path: &Path) -> Result<Self, WriteError> {
        let error = || WriteError::Io {
            path: path.into(),
            doing: "open",
            source: io::ErrorKind::IsADirectory.into(),
        };
        let name = path.file_name().ok_or_else(error)?.to_owned();
        Ok(Self { directory: Arc::clone(directory), name, path: path.into() })
    }

    /// Another name in the same directory.
    pub fn beside(&self, name: impl Into<OsString>) -> Self {
        let name = name.into();
        Self { directory: Arc::clone(&self.directory), path: self.path.with_file_name(&name), name }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn name(&self) -> &OsStr {
        &self.name
    }

    /// Refuses early what [`Place::write`] would refuse at the end of a run.
    pub fn refuse_existing(&self, options: WriteOptions) -> Result<(), WriteError> {
        self.refuse_special()?;
        // A link counts, even one that leads nowhere: it would be replaced, not followed.
        if !options.force && self.stat().is_ok() {
            return Err(WriteError::Exists { path: self.path.clone() });
        }
        Ok(())
    }

    /// Refuses the name of anything but a regular file: a device or a pipe that a file takes the place of is broken for
    /// all who use it, and a link's place is not what its user means.
    pub fn refuse_special(&self) -> Result<(), WriteError> {
        // What cannot be looked at cannot be written either, and then says why.
        let Ok(about) = self.stat() else { return Ok(()) };
        let of = about.st_mode & libc::S_IFMT;
        if of == libc::S_IFREG {
            return Ok(());
        }
        let kind = KINDS.iter().find(|(kind, _)| *kind == of).map_or("not a regular file", |(_, name)| name);
        Err(WriteError::NotAFile { path: self.path.clone(), kind })
    }

    /// Whether it is a FIFO. One of another user is refused: in a directory that others may write to, anybody can put one
    /// where a file was meant to be, and read what is written.
    pub fn is_fifo(&self, options: WriteOptions) -> Result<bool, WriteError> {
        let about = self.stat().ok().filter(|about| about.st_mode & libc::S_IFMT == libc::S_IFIFO);
        match about {
            None => Ok(false),
            Some(about) if is_ours(about.st_uid, options) => Ok(true),
            Some(_) => Err(WriteError::NotAFile { path: self.path.clone(), kind: "a FIFO of another user" }),
        }
    }

    /// Opens a FIFO to write to, once somebody reads from it. What has taken its place meanwhile is let be.
    pub fn open_fifo(&self, options: WriteOptions) -> io::Result<File> {
        use std::os::unix::fs::{FileTypeExt, MetadataExt};
        let file = self.open(libc::O_WRONLY)?;
        let about = file.metadata()?;
        if about.file_type().is_fifo() && is_ours(about.uid(), options) {
            Ok(file)
        } else {
            Err(io::Error::other("it is no longer the FIFO that was there"))
        }
    }

    /// Opens what has the name; follows no link.
    pub fn open(&self, flags: i32) -> io::Result<File> {
        self.open_as(&self.name, flags | libc::O_NOFOLLOW, 0)
    }

    /// Makes a new file, to be read and written; follows no link, and opens nothing that is there already.
    pub fn create_new(&self, flags: i32, options: WriteOptions) -> io::Result<File> {
        let flags = flags | libc::O_RDWR | libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW;
        let file = self.open_as(&self.name, flags, PRIVATE)?;
        give(&file, options)?;
        Ok(file)
    }

    /// Whether the name is that of this file.
    pub fn is(&self, file: &File) -> bool {
        use std::os::unix::fs::MetadataExt;
        match (file.metadata(), self.stat()) {
            (Ok(file), Ok(named)) => (file.dev(), file.ino()) == (named.st_dev, named.st_ino),
            _ => false,
        }
    }

    pub fn remove(&self) -> io::Result<()> {
        self.unlink(0)
    }

    pub fn remove_directory(&self) -> io::Result<()> {
        self.unlink(libc::AT_REMOVEDIR)
    }

    fn unlink(&self, flags: i32) -> io::Result<()> {
        let name = c_string(&self.name)?;
        // SAFETY: the name ends with a zero byte and lives until the call is over.
        done(unsafe { libc::unlinkat(self.fd(), name.as_ptr(), flags) })
    }

    /// Makes a directory, which belongs to the options' owner, and opens it.
    pub fn make_directory(&self, mode: u32, options: WriteOptions) -> io::Result<File> {
        use std::os::unix::fs::MetadataExt;
        let name = c_string(&self.name)?;
        // SAFETY: the name ends with a zero byte and lives until the call is over.
        done(unsafe { libc::mkdirat(self.fd(), name.as_ptr(), mode) })?;
        let made = self.open(libc::O_RDONLY | libc::O_DIRECTORY)?;
        // SAFETY: cannot fail.
        if made.metadata()?.uid() != unsafe { libc::geteuid() } {
            return Err(io::Error::other("another program has put another directory in its place"));
        }
        give(&made, options)?;
        Ok(made)
    }

    /// Gives what has the name the first free name of `NAME.1`, `NAME.2`, ...
    pub fn rename_away(&self) -> io::Result<PathBuf> {
        for number in 1..=MOST_KEPT {
            let mut name = self.name.clone();
            name.push(format!(".{number}"));
            match self.rename(&self.name, &name, libc::RENAME_NOREPLACE) {
                Err(taken) if taken.kind() == io::ErrorKind::AlreadyExists => {}
                renamed => return renamed.map(|()| self.path.with_file_name(&name)),
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }

    /// Writes a file: it takes the name once it is on the disk.
    pub fn write(
        &self,
        options: WriteOptions,
        mode: u32,
        fill: impl FnOnce(&File) -> io::Result<()>,
    ) -> Result<(), WriteError> {
        self.refuse_existing(options)?;
        let temporary = Temporary::new(self, mode).map_err(self.io("create"))?;
        fill(&temporary.file).map_err(self.io("write"))?;
        give(&temporary.file, options).map_err(self.io("change its owner"))?;
        temporary.file.sync_all().map_err(self.io("sync"))?;
        temporary.take_name(options)?;
        self.sync_directory().map_err(self.io("sync its directory"))
    }

    fn sync_directory(&self) -> io::Result<()> {
        match self.directory.sync_all() {
            // A directory that may be written but not read is open by its path alone (O_PATH).
            Err(error) if error.raw_os_error() == Some(libc::EBADF) => Ok(()),
            synced => synced,
        }
    }

    fn io(&self, doing: &'static str) -> impl FnOnce(io::Error) -> WriteError {
        let path = self.path.clone();
        move |source| WriteError::Io { path, doing, source }
    }

    fn fd(&self) -> RawFd {
        self.directory.as_raw_fd()
    }

    fn stat(&self) -> io::Result<libc::stat> {
        let name = c_string(&self.name)?;
        // SAFETY: all-zero bytes are a valid stat: numbers.
        let mut about: libc::stat = unsafe { std::mem::zeroed() };
        // SAFETY: both pointers are to memory that lives until the call is over.
        let status =
            unsafe { libc::fstatat(self.fd(), name.as_ptr(), &raw mut about, libc::AT_SYMLINK_NOFOLLOW) };
        done(status).map(|()| about)
    }

    fn open_as(&self, name: &OsStr, flags: i32, mode: u32) -> io::Result<File> {
        let name = c_string(name)?;
        // SAFETY: the name ends with a zero byte and lives until the call is over.
        let fd = unsafe { libc::openat(self.fd(), name.as_ptr(), flags | libc::O_CLOEXEC, mode) };
        done(fd)?;
        // SAFETY: the call has just opened it, and nobody else has it.
        Ok(unsafe { File::from_raw_fd(fd) })
    }

    fn rename(&self, from: &OsStr, to: &OsStr, flags: libc::c_uint) -> io::Result<()> {
        let (from, to) = (c_string(from)?, c_string(to)?);
        // SAFETY: both names end with a zero byte and live until the call is over.
        done(unsafe { libc::renameat2(self.fd(), from.as_ptr(), self.fd(), to.as_ptr(), flags) })
    }

    /// A second name for what is at `from`, which is a path or a name in this directory. Never replaces anything.
    fn link(&self, from: &OsStr, to: &OsStr, flags: i32) -> io::Result<()> {
        let (from, to) = (c_string(from)?, c_string(to)?);
        // SAFETY: both names end with a zero byte and live until the call is over.
        done(unsafe { libc::linkat(self.fd(), from.as_ptr(), self.fd(), to.as_ptr(), flags) })
    }
}

/// A file without a name, or where the file system has none of those (O_TMPFILE of open(2)), with one beside the final
/// one, which is removed again.
struct Temporary<'a> {
    place: &'a Place,
    file: File,
    name: Option<OsString>,
}

impl<'a> Temporary<'a> {
    fn new(place: &'a Place, mode: u32) -> io::Result<Self> {
        match place.open_as(OsStr::new("."), libc::O_TMPFILE | libc::O_RDWR, mode) {
            Ok(file) => Ok(Self { place, file, name: None }),
            Err(_) => Self::named(place, mode),
        }
    }

    fn named(place: &'a Place, mode: u32) -> io::Result<Self> {
        let name = temporary_name(&place.name);
        let flags = libc::O_RDWR | libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW;
        let open = || place.open_as(&name, flags, mode);
        let file = match open() {
            // Left by a process of the same number that was killed while it wrote: this one has just begun.
            Err(taken) if taken.kind() == io::ErrorKind::AlreadyExists => {
                let left = place.beside(&name);
                left.refuse_special().map_err(io::Error::other)?;
                left.remove()?;
                open()?
            }
            file => file?,
        };
        Ok(Self { place, file, name: Some(name) })
    }

    fn take_name(mut self, options: WriteOptions) -> Result<(), WriteError> {
        let (place, wanted) = (self.place, &self.place.name);
        let linked = match &self.name {
            Some(name) => place.link(name, wanted, 0),
            None => self.link_unnamed(wanted),
        };
        let failed = match linked {
            Ok(()) => return Ok(()),
            Err(failed) => failed,
        };
        let exists = failed.kind() == io::ErrorKind::AlreadyExists;
        if exists && !options.force {
            return Err(WriteError::Exists { path: place.path.clone() });
        }
        if self.name.is_none() {
            if !exists {
                return Err(place.io("give it its name")(failed));
            }
            let name = temporary_name(wanted);
            self.link_unnamed(&name).map_err(place.io("give it a name"))?;
            self.name = Some(name);
        }
        // Looked at again: what is replaced may have changed since the beginning.
        place.refuse_special()?;
        let Some(name) = &self.name else { return Ok(()) };
        if !options.force {
            // Some file systems have no links.
            return place.rename(name, wanted, libc::RENAME_NOREPLACE).map_err(|error| match error.kind() {
                io::ErrorKind::AlreadyExists => WriteError::Exists { path: place.path.clone() },
                _ => place.io("rename")(error),
            });
        }
        place.rename(name, wanted, 0).map_err(place.io("rename"))
    }

    /// open(2), O_TMPFILE: the way that needs no capability.
    fn link_unnamed(&self, to: &OsStr) -> io::Result<()> {
        let from = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        self.place.link(OsStr::new(&from), to, libc::AT_SYMLINK_FOLLOW)
    }
}

impl Drop for Temporary<'_> {
    fn drop(&mut self) {
        if let Some(name) = &self.name {
            // Gone already where it was renamed; nothing is left to do where it cannot be removed.
            let _ = self.place.beside(name).remove();
        }
    }
}

/// Opens a directory for names in it.
pub fn open_directory(path: &Path) -> io::Result<File> {
    let path = c_string(path.as_os_str())?;
    let open = |flags: i32| {
        // SAFETY: the path ends with a zero byte and lives until the call is over.
        let fd = unsafe { libc::open(path.as_ptr(), flags | libc::O_DIRECTORY | libc::O_CLOEXEC) };
        // SAFETY: the call has just opened it, and nobody else has it.
        done(fd).map(|()| unsafe { File::from_raw_fd(fd) })
    };
    match open(libc::O_RDONLY) {
        // Who may not list a directory may still write into it.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => open(libc::O_PATH),
        opened => opened,
    }
}

/// Makes a directory, and those above it that are missing; what is made belongs to `owner`.
pub fn make_directories(path: &Path, options: WriteOptions) -> io::Result<()> {
    match path.symlink_metadata() {
        Err(missing) if missing.kind() == io::ErrorKind::NotFound => {}
        // A link to a directory is the user's own way to it.
        _ => return open_directory(path).map(drop),
    }
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    make_directories(parent, options)?;
    let place = Place::new(path).map_err(io::Error::other)?;
    place.make_directory(0o777, options).map(drop)
}

fn give(file: &File, options: WriteOptions) -> io::Result<()> {
    match options.owner {
        Some((uid, gid)) => fchown(file, Some(uid), Some(gid)),
        None => Ok(()),
    }
}

/// The name beside `name` for the time being, no longer than names may be.
fn temporary_name(name: &OsStr) -> OsString {
    let end = format!(".{}.tmp", std::process::id());
    let kept = name.len().min(LONGEST_NAME - end.len());
    let mut temporary = name.as_bytes().get(..kept).unwrap_or_default().to_vec();
    temporary.extend_from_slice(end.as_bytes());
    OsString::from_vec(temporary)
}

/// Root's, this process's, or of the user whom files are given to.
fn is_ours(uid: u32, options: WriteOptions) -> bool {
    // SAFETY: cannot fail.
    let own = unsafe { libc::geteuid() };
    uid == 0 || uid == own || options.owner.is_some_and(|(owner, _)| owner == uid)
}

fn c_string(name: &OsStr) -> io::Result<CString> {
    CString::new(name.as_bytes()).map_err(io::Error::other)
}

fn done(status: i32) -> io::Result<()> {
    if status < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests;
