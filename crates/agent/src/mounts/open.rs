//! Opening by path what others may have prepared: no link is followed, and no file system is used that may never
//! answer.

use std::{
    collections::BTreeSet,
    ffi::CString,
    fs::{self, File, OpenOptions},
    io,
    os::{
        fd::{AsRawFd, FromRawFd},
        unix::fs::OpenOptionsExt,
    },
};

use super::Mount;

/// Kinds of file systems without a block device whose answers come from the kernel itself.
const IN_KERNEL: &[&str] = &["bcachefs", "devtmpfs", "overlay", "ramfs", "tmpfs", "ubifs", "zfs"];
/// A kind with a block device that is served by a program.
const BY_PROGRAM: &[&str] = &["fuseblk"];

/// Where paths may be walked, by the mounts of a namespace.
#[derive(Debug)]
pub struct Paths {
    root: File,
    /// Mount points of file systems that need a program or a server.
    foreign: Vec<String>,
}

impl Paths {
    /// From the root directory of a process, such as `self`.
    pub fn of(pid: &str, mounts: &[Mount]) -> io::Result<Self> {
        let flags = libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC;
        let root = OpenOptions::new().read(true).custom_flags(flags).open(format!("/proc/{pid}/root"))?;
        let local = local_kinds();
        let foreign = mounts.iter().filter(|mount| !local.contains(&mount.kind));
        Ok(Self { root, foreign: foreign.map(|mount| mount.point.clone()).collect() })
    }

    /// Opens a path for nothing but its attributes, or what `flags` say. Where the way leads through a file system
    /// that might not answer, only what the kernel has in its cache of names is found.
    pub fn open(&self, path: &str, flags: libc::c_int) -> io::Result<File> {
        match self.at(path, flags, libc::RESOLVE_CACHED) {
            Err(error) if error.raw_os_error() == Some(libc::EAGAIN) && !self.is_foreign(path) => {
                self.at(path, flags, 0)
            }
            result => result,
        }
    }

    /// Whether a mount above the path, or at it, needs somebody else.
    pub fn is_foreign(&self, path: &str) -> bool {
        self.foreign.iter().any(|point| {
            let rest = path.strip_prefix(point.trim_end_matches('/'));
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        })
    }

    fn at(&self, path: &str, flags: libc::c_int, resolve: u64) -> io::Result<File> {
        let path = CString::new(path).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        // SAFETY: all zero is a valid open_how (openat2(2)).
        let mut how: libc::open_how = unsafe { std::mem::zeroed() };
        // With O_PATH the call refuses any flag that would mean nothing (fs/open.c, O_PATH_FLAGS).
        let careful = if flags & libc::O_PATH == 0 { libc::O_NOCTTY | libc::O_NONBLOCK } else { 0 };
        how.flags = (flags | careful | libc::O_NOFOLLOW | libc::O_CLOEXEC) as u64;
        how.resolve =
            resolve | libc::RESOLVE_IN_ROOT | libc::RESOLVE_NO_SYMLINKS | libc::RESOLVE_NO_MAGICLINKS;
        // SAFETY: the path ends with a NUL and `how` is as large as is said; both live through the call.
        let descriptor = unsafe {
            let size = size_of::<libc::open_how>();
            libc::syscall(libc::SYS_openat2, self.root.as_raw_fd(), path.as_ptr(), &raw const how, size)
        };
        match i32::try_from(descriptor) {
            // SAFETY: a new descriptor that nobody else has.
            Ok(descriptor) if descriptor >= 0 => Ok(unsafe { File::from_raw_fd(descriptor) }),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

/// Kinds of file systems that answer without a program or a server: in /proc/filesystems those that need a block device
/// have no `nodev` before them (fs/filesystems.c filesystems_proc_show).
pub(super) fn local_kinds() -> BTreeSet<String> {
    let text = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    let with_device = text.lines().filter_map(|line| line.strip_prefix('\t'));
    let with_device = with_device.filter(|kind| !BY_PROGRAM.contains(kind));
    with_device.chain(IN_KERNEL.iter().copied()).map(ToOwned::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, symlink};

    use super::*;

    #[test]
    fn files_are_opened_and_links_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().canonicalize().unwrap().join(name).display().to_string();
        fs::create_dir(path("d")).unwrap();
        fs::write(path("d/file"), "x").unwrap();
        symlink("file", path("d/link")).unwrap();
        symlink("d", path("e")).unwrap();
        let paths = Paths::of("self", &[]).unwrap();
        let found = paths.open(&path("d/file"), libc::O_PATH).unwrap().metadata().unwrap();
        assert_eq!(found.ino(), fs::metadata(path("d/file")).unwrap().ino());
        // What is named by the last part may be a link, which is what it is.
        let link = paths.open(&path("d/link"), libc::O_PATH);
        assert!(link.is_err() || link.unwrap().metadata().unwrap().is_symlink());
        let error = paths.open(&path("e/file"), libc::O_PATH).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ELOOP));
        let error = paths.open(&path("d/none"), libc::O_PATH).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOENT));
    }

    #[test]
    fn file_systems_of_programs_are_known_by_their_mounts() {
        let mount = |point: &str, kind: &str| Mount {
            id: 1,
            device: "0:1".into(),
            number: 1,
            root: "/".into(),
            point: point.into(),
            kind: kind.into(),
        };
        let mounts = [mount("/", "tmpfs"), mount("/far", "nfs4"), mount("/u", "fuse.sshfs")];
        let paths = Paths::of("self", &mounts).unwrap();
        for (path, foreign) in
            [("/a", false), ("/far", true), ("/far/b/c", true), ("/farther", false), ("/u/x", true)]
        {
            assert_eq!(paths.is_foreign(path), foreign, "{path}");
        }
    }
}
