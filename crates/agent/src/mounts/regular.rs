//! Opening what a process has mapped or open, by the links of /proc: only if it is a regular file, and only where the kernel
//! itself answers for it.
//!
//! To open a device, a FIFO or a socket does something, and may last for ever. So the file is first opened for nothing
//! (O_PATH), which needs nobody, and then anew when it is known what it is.

use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind},
    mem::MaybeUninit,
    os::{fd::AsRawFd, unix::fs::OpenOptionsExt},
    path::{Path, PathBuf},
};

use super::{Mount, of_process, open::local_kinds};

/// Whether a link may be the last part of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Links {
    /// A link of /proc, which leads to an open file and nowhere else.
    Proc,
    Refused,
}

/// Opens a regular file to be read. What others hold a lease on is not waited for.
pub fn open(path: &Path, links: Links) -> io::Result<File> {
    open_if(path, links, |_| true)
}

/// Opens a file that a process has mapped or open, by a link in its directory of /proc.
pub fn open_of_process(pid: u32, link: &Path) -> io::Result<File> {
    open_if(link, Links::Proc, |found| is_answered(pid, found))
}

fn open_if(path: &Path, links: Links, may: impl FnOnce(&Found) -> bool) -> io::Result<File> {
    let no_links = if links == Links::Proc { 0 } else { libc::O_NOFOLLOW };
    let flags = libc::O_PATH | libc::O_CLOEXEC | no_links;
    let found = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    let found = Found::new(found)?;
    if found.kind != libc::S_IFREG {
        return Err(io::Error::new(ErrorKind::InvalidInput, "it is no regular file"));
    }
    if !may(&found) {
        return Err(io::Error::new(
            ErrorKind::Unsupported,
            "its file system is on the network or in user space",
        ));
    }
    let way = PathBuf::from(format!("/proc/self/fd/{}", found.file.as_raw_fd()));
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_CLOEXEC;
    let open = |flags| OpenOptions::new().read(true).custom_flags(flags).open(&way);
    // Without changing its access time, where that is allowed.
    open(flags | libc::O_NOATIME).or_else(|_| open(flags))
}

/// Device and inode of what a link leads to, as stat(2) has them, by what the kernel knows without the server of the
/// file system.
pub fn identity(link: &Path) -> io::Result<(u64, u64)> {
    let found = OpenOptions::new().read(true).custom_flags(libc::O_PATH | libc::O_CLOEXEC).open(link)?;
    let status = known_status(&found, libc::STATX_INO)?;
    Ok((libc::makedev(status.stx_dev_major, status.stx_dev_minor), status.stx_ino))
}

/// Id of the mount that a file was opened in (statx(2), STATX_MNT_ID; Linux 5.8).
pub fn mount_id(file: &File) -> io::Result<u64> {
    Ok(known_status(file, libc::STATX_MNT_ID)?.stx_mnt_id)
}

/// What the kernel knows of a file without the server of its file system (statx(2), AT_STATX_DONT_SYNC).
fn known_status(file: &File, mask: libc::c_uint) -> io::Result<libc::statx> {
    let mut status = MaybeUninit::<libc::statx>::zeroed();
    let flags = libc::AT_EMPTY_PATH | libc::AT_STATX_DONT_SYNC;
    // SAFETY: an empty path with its end, and room for the answer.
    let failed = unsafe { libc::statx(file.as_raw_fd(), c"".as_ptr(), flags, mask, status.as_mut_ptr()) };
    if failed != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: all zeros is valid, and the kernel has filled it in.
    Ok(unsafe { status.assume_init() })
}

/// A file that is open for nothing.
struct Found {
    file: File,
    kind: libc::mode_t,
    /// Its file system has a block device.
    has_device: bool,
}

impl Found {
    fn new(file: File) -> io::Result<Self> {
        let status = known_status(&file, libc::STATX_TYPE)?;
        let kind = libc::mode_t::from(status.stx_mode) & libc::S_IFMT;
        Ok(Self { file, kind, has_device: status.stx_dev_major != 0 })
    }

    /// Id of the mount that it was found in (fs/proc/fd.c seq_show).
    fn mount(&self) -> Option<u64> {
        let text = fs::read_to_string(format!("/proc/self/fdinfo/{}", self.file.as_raw_fd())).ok()?;
        text.lines().find_map(|line| line.strip_prefix("mnt_id:"))?.trim().parse().ok()
    }
}

/// Whether the kernel answers for a file by itself, as far as the process's mounts say. A mount in none of them is the
/// kernel's own (shared memory), or was taken away; one that a user has made of a program's is closed to others
/// (fs/fuse/dir.c fuse_allow_current_process).
fn is_answered(pid: u32, found: &Found) -> bool {
    if found.has_device {
        return true;
    }
    let Some(id) = found.mount() else { return true };
    kind_is_local(id, &of_process(&pid.to_string()), &local_kinds())
}

fn kind_is_local(id: u64, mounts: &[Mount], local: &BTreeSet<String>) -> bool {
    mounts.iter().find(|mount| mount.id == id).is_none_or(|mount| local.contains(&mount.kind))
}

#[cfg(test)]
mod tests {
    use std::{
        ffi::CString,
        io::Read,
        os::unix::{ffi::OsStrExt, fs::symlink, net::UnixListener},
        time::Instant,
    };

    use super::*;

    fn fifo(path: &Path) {
        let path = CString::new(path.as_os_str().as_bytes()).unwrap();
        // SAFETY: a path that ends with a NUL.
        assert_eq!(unsafe { libc::mkfifo(path.as_ptr(), 0o600) }, 0);
    }

    #[test]
    fn regular_files_only_and_nothing_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::write(path("file"), "content").unwrap();
        symlink("file", path("link")).unwrap();
        fifo(&path("fifo"));
        let _socket = UnixListener::bind(path("socket")).unwrap();
        let begun = Instant::now();
        for name in ["fifo", "socket", "link", "."] {
            assert!(open(&path(name), Links::Refused).is_err(), "{name}");
        }
        assert!(open(Path::new("/dev/zero"), Links::Refused).is_err());
        // Nobody writes to the FIFO, so whoever waited for that would still do.
        assert!(begun.elapsed().as_secs() < 60);
        let mut content = String::new();
        open(&path("file"), Links::Refused).unwrap().read_to_string(&mut content).unwrap();
        assert_eq!(content, "content");
    }

    #[test]
    fn links_of_proc_lead_to_open_files() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("file"), "content").unwrap();
        let file = File::open(dir.path().join("file")).unwrap();
        fs::remove_file(dir.path().join("file")).unwrap();
        let link = |fd: i32| PathBuf::from(format!("/proc/self/fd/{fd}"));
        let mut content = String::new();
        let mut opened = open_of_process(std::process::id(), &link(file.as_raw_fd())).unwrap();
        opened.read_to_string(&mut content).unwrap();
        assert_eq!(content, "content");
        let null = File::open("/dev/null").unwrap();
        let error = open_of_process(std::process::id(), &link(null.as_raw_fd())).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    }

    #[test]
    fn file_systems_of_programs_and_servers_are_known_by_their_mount() {
        let mount = |id, kind: &str| Mount {
            id,
            device: "0:1".into(),
            number: 1,
            root: "/".into(),
            point: "/".into(),
            kind: kind.into(),
        };
        let mounts = [mount(1, "overlay"), mount(2, "fuse.sshfs"), mount(3, "nfs4")];
        let local = BTreeSet::from(["overlay".to_owned()]);
        let local_ones: Vec<_> = (1..=4).map(|id| kind_is_local(id, &mounts, &local)).collect();
        assert_eq!(local_ones, [true, false, false, true]);
    }
}
