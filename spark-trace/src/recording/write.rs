//! Writing recordings: a file is there whole or not at all.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::schema::Recording;

/// Recordings hold command lines and file names of other users' processes.
pub(super) const MODE: u32 = 0o600;
/// zstd's own default: recordings are written once, right after a run.
const ZSTD_LEVEL: i32 = 3;
/// NAME_MAX of include/uapi/linux/limits.h.
const LONGEST_NAME: usize = 255;

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
    #[error("{}: is {kind}, which is never replaced; choose another name", path.display())]
    NotAFile { path: PathBuf, kind: &'static str },
    #[error("{}: another recording is being written there; choose another name", path.display())]
    InUse { path: PathBuf },
    #[error(
        "{0}: left by a recording that was interrupted; `spark-trace recover {0}` makes a recording of it, --force \
         drops it",
        path.display()
    )]
    LeftBehind { path: PathBuf },
    #[error("{}: cannot be written ({doing})", path.display())]
    Io { path: PathBuf, doing: &'static str, source: io::Error },
}

/// Refuses early what [`write`] would refuse at the end of a run.
pub fn refuse_existing(path: &Path, options: WriteOptions) -> Result<(), WriteError> {
    refuse_special(path)?;
    // A link counts, even one that leads nowhere: it would be replaced, not followed.
    if !options.force && path.symlink_metadata().is_ok() {
        return Err(WriteError::Exists { path: path.into() });
    }
    Ok(())
}

/// Refuses the name of anything but a regular file: a device or a pipe that a file takes the place of is broken for all
/// who use it, and a link's place is not what its user means.
pub fn refuse_special(path: &Path) -> Result<(), WriteError> {
    // What cannot be looked at cannot be written either, and then says why.
    let Ok(about) = path.symlink_metadata() else { return Ok(()) };
    let of = about.file_type();
    let kinds = [
        (of.is_symlink(), "a symbolic link"),
        (of.is_dir(), "a directory"),
        (of.is_fifo(), "a FIFO"),
        (of.is_socket(), "a socket"),
        (of.is_char_device() || of.is_block_device(), "a device"),
        (!of.is_file(), "not a regular file"),
    ];
    match kinds.into_iter().find(|(is, _)| *is) {
        Some((_, kind)) => Err(WriteError::NotAFile { path: path.into(), kind }),
        None => Ok(()),
    }
}

/// Writes `recording` to `path`, compressed where the name ends in `.zst`.
///
/// The text goes to a new file beside it, which takes the name once it is on the disk.
pub fn write(recording: &Recording, path: &Path, options: WriteOptions) -> Result<(), WriteError> {
    let compressed = path.extension().is_some_and(|e| e == "zst");
    write_with(path, options, |temporary| temporary.fill(recording, compressed))
}

/// Writes what was made of recordings, which holds the same names, in the same way.
pub fn write_bytes(bytes: &[u8], path: &Path, options: WriteOptions) -> Result<(), WriteError> {
    write_with(path, options, |temporary| (&temporary.file).write_all(bytes))
}

fn write_with(
    path: &Path,
    options: WriteOptions,
    fill: impl FnOnce(&Temporary<'_>) -> io::Result<()>,
) -> Result<(), WriteError> {
    refuse_existing(path, options)?;
    let temporary = Temporary::beside(path)?;
    fill(&temporary).map_err(temporary.io("write"))?;
    if let Some((uid, gid)) = options.owner {
        fchown(&temporary.file, Some(uid), Some(gid)).map_err(temporary.io("change owner"))?;
    }
    temporary.file.sync_all().map_err(temporary.io("sync"))?;
    temporary.take_name(options.force)
}

/// The name beside `name` for the time being, no longer than names may be.
fn temporary_name(name: &OsStr) -> OsString {
    let end = format!(".{}.tmp", std::process::id());
    let kept = name.len().min(LONGEST_NAME - end.len());
    let mut temporary = name.as_bytes().get(..kept).unwrap_or_default().to_vec();
    temporary.extend_from_slice(end.as_bytes());
    OsString::from_vec(temporary)
}

/// A file that removes itself unless it has taken its final name.
struct Temporary<'a> {
    path: PathBuf,
    file: File,
    wanted: &'a Path,
}

impl<'a> Temporary<'a> {
    fn beside(wanted: &'a Path) -> Result<Self, WriteError> {
        let error = |source| WriteError::Io { path: wanted.into(), doing: "create", source };
        let name = wanted.file_name().ok_or_else(|| error(io::ErrorKind::IsADirectory.into()))?;
        let path = wanted.with_file_name(temporary_name(name));
        // create_new follows no link that someone may have put there.
        let file = OpenOptions::new().write(true).create_new(true).mode(MODE).open(&path).map_err(error)?;
        Ok(Self { path, file, wanted })
    }

    fn fill(&self, recording: &Recording, compressed: bool) -> io::Result<()> {
        let mut out = BufWriter::new(&self.file);
        if compressed {
            let mut encoder = zstd::Encoder::new(&mut out, ZSTD_LEVEL)?;
            encoder.include_checksum(true)?;
            write_text(recording, &mut encoder)?;
            encoder.finish()?;
        } else {
            write_text(recording, &mut out)?;
        }
        out.flush()
    }

    fn take_name(&self, force: bool) -> Result<(), WriteError> {
        if !force {
            // Unlike rename, link never replaces a file that appeared in the meantime.
            match fs::hard_link(&self.path, self.wanted) {
                Ok(()) => return self.sync_directory(),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    return Err(WriteError::Exists { path: self.wanted.into() });
                }
                // Some file systems have no links: rename is the best there is.
                Err(_) => {}
            }
        }
        fs::rename(&self.path, self.wanted).map_err(self.io("rename"))?;
        self.sync_directory()
    }

    fn sync_directory(&self) -> Result<(), WriteError> {
        let parent = self.wanted.parent().filter(|parent| !parent.as_os_str().is_empty());
        File::open(parent.unwrap_or(Path::new(".")))
            .and_then(|directory| directory.sync_all())
            .map_err(self.io("sync directory"))
    }

    fn io(&self, doing: &'static str) -> impl FnOnce(io::Error) -> WriteError {
        let path = self.wanted.into();
        move |source| WriteError::Io { path, doing, source }
    }
}

impl Drop for Temporary<'_> {
    fn drop(&mut self) {
        // Gone already where it was renamed; nothing is left to do where it cannot be removed.
        let _ = fs::remove_file(&self.path);
    }
}

/// Writes `recording` as text.
pub fn write_text(recording: &Recording, mut out: impl Write) -> io::Result<()> {
    serde_json::to_writer(&mut out, recording)?;
    out.write_all(b"\n")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::super::{read, testing};
    use super::*;

    const FORCE: WriteOptions = WriteOptions { force: true, owner: None };

    fn entries(directory: &Path) -> usize {
        fs::read_dir(directory).unwrap().count()
    }

    #[test]
    fn what_is_written_is_read_back() {
        let directory = tempfile::tempdir().unwrap();
        let recording = testing::container();
        for name in ["run.json", "run.json.zst"] {
            let path = directory.path().join(name);
            write(&recording, &path, WriteOptions::default()).unwrap();
            assert_eq!(read(&path).unwrap(), recording);
            assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, MODE);
        }
        assert_eq!(entries(directory.path()), 2, "no temporary file stays");
        let size = |name| directory.path().join(name).metadata().unwrap().len();
        assert!(size("run.json.zst") < size("run.json"));
    }

    #[test]
    fn other_files_are_written_alike() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("report.html");
        write_bytes(b"one", &path, WriteOptions::default()).unwrap();
        let error = write_bytes(b"two", &path, WriteOptions::default()).unwrap_err();
        assert!(matches!(error, WriteError::Exists { .. }));
        write_bytes(b"three", &path, FORCE).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"three");
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, MODE);
        assert_eq!(entries(directory.path()), 1);
    }

    #[test]
    fn an_existing_file_stays_unless_forced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("run.json");
        fs::write(&path, "mine").unwrap();
        let error = write(&testing::container(), &path, WriteOptions::default()).unwrap_err();
        assert!(matches!(error, WriteError::Exists { .. }));
        assert_eq!(fs::read(&path).unwrap(), b"mine");
        write(&testing::container(), &path, FORCE).unwrap();
        read(&path).unwrap();
    }

    #[test]
    fn what_is_no_file_is_never_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let inside = |name: &str| directory.path().join(name);
        fs::write(inside("other"), "theirs").unwrap();
        std::os::unix::fs::symlink(inside("other"), inside("link")).unwrap();
        std::os::unix::fs::symlink(inside("none"), inside("dangling")).unwrap();
        fs::create_dir(inside("directory")).unwrap();
        let made = std::process::Command::new("mkfifo").arg(inside("fifo")).status().unwrap();
        assert!(made.success());
        let _socket = std::os::unix::net::UnixListener::bind(inside("socket")).unwrap();
        let names = [
            ("link", "link"),
            ("dangling", "link"),
            ("directory", "directory"),
            ("fifo", "FIFO"),
            ("socket", "socket"),
        ];
        let paths = names.map(|(name, kind)| (inside(name), kind));
        for (path, kind) in paths
            .iter()
            .map(|(path, kind)| (path.as_path(), *kind))
            .chain([(Path::new("/dev/null"), "device"), (Path::new("/dev/stdout"), "link")])
        {
            let before = path.symlink_metadata().unwrap().file_type();
            for options in [WriteOptions::default(), FORCE] {
                for written in [write(&testing::container(), path, options), write_bytes(b"x", path, options)]
                {
                    let said = written.unwrap_err().to_string();
                    assert!(said.contains(kind), "{}: {said}", path.display());
                }
            }
            assert_eq!(path.symlink_metadata().unwrap().file_type(), before);
        }
        assert_eq!(fs::read(inside("other")).unwrap(), b"theirs");
        assert_eq!(entries(directory.path()), names.len() + 1);
    }

    #[test]
    fn a_name_may_be_as_long_as_names_are() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x".repeat(LONGEST_NAME));
        write_bytes(b"x", &path, WriteOptions::default()).unwrap();
        assert_eq!(entries(directory.path()), 1);
    }

    #[test]
    fn the_owner_can_be_given() {
        use std::os::unix::fs::MetadataExt;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("run.json");
        let me = directory.path().metadata().unwrap();
        let owner = Some((me.uid(), me.gid()));
        write(&testing::container(), &path, WriteOptions { force: false, owner }).unwrap();
        assert_eq!(path.metadata().unwrap().uid(), me.uid());
    }

    #[test]
    fn a_missing_directory_is_an_error_with_the_path() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("none/run.json");
        let error = write(&testing::container(), &path, WriteOptions::default()).unwrap_err();
        assert!(error.to_string().contains("none/run.json"));
    }
}
