//! Bind mounts of a `chroot`, in a mount namespace of its own: they end with the command.
//!
//! The tree is an image's: a link in it may point anywhere. Targets are found by openat2(2) with RESOLVE_IN_ROOT, which takes
//! the tree for the root directory.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

/// One mount: `SOURCE:TARGET` or `SOURCE:TARGET:ro`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    pub source: PathBuf,
    pub target: PathBuf,
    pub read_only: bool,
}

impl std::str::FromStr for Mount {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let form =
            || format!("`{text}` is no mount; write SOURCE:TARGET or SOURCE:TARGET:ro with whole paths");
        let mut parts = text.split(':');
        let (source, target) = parts.next().zip(parts.next()).ok_or_else(form)?;
        let read_only = match (parts.next(), parts.next()) {
            (None, None) => false,
            (Some("ro"), None) => true,
            (Some("rw"), None) => false,
            _ => return Err(form()),
        };
        let (source, target) = (PathBuf::from(source), PathBuf::from(target));
        let plain = target.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
        if !source.is_absolute() || !target.is_absolute() || !plain || target == Path::new("/") {
            return Err(form());
        }
        Ok(Self { source, target, read_only })
    }
}

/// Mounts all of them in `tree`, for this process and its children alone.
pub fn make(tree: &Path, mounts: &[Mount]) -> Result<(), (PathBuf, io::Error)> {
    if mounts.is_empty() {
        return Ok(());
    }
    let at_tree = |error| (tree.to_owned(), error);
    // SAFETY: no pointers.
    succeeded(unsafe { libc::unshare(libc::CLONE_NEWNS) }).map_err(at_tree)?;
    // What is mounted from here on is not seen outside.
    mount(c"none", c"/", libc::MS_REC | libc::MS_PRIVATE).map_err(at_tree)?;
    let tree_fd = open(libc::AT_FDCWD, tree, libc::O_DIRECTORY, 0).map_err(at_tree)?;
    for each in mounts {
        let source = open(libc::AT_FDCWD, &each.source, 0, 0).map_err(|e| (each.source.clone(), e))?;
        let at = |error| (each.target.clone(), error);
        let is_dir = each.source.is_dir();
        let target = made(&tree_fd, &each.target, is_dir).map_err(at)?;
        mount(&link(&source), &link(&target), libc::MS_BIND | libc::MS_REC).map_err(at)?;
        if each.read_only {
            // The place again, which is the mount by now.
            let target = inside(&tree_fd, &each.target).map_err(at)?;
            let flags = libc::MS_BIND | libc::MS_REMOUNT | libc::MS_RDONLY;
            mount(c"none", &link(&target), flags).map_err(at)?;
        }
    }
    Ok(())
}

/// The place in the tree, made where it is not there.
fn made(tree: &OwnedFd, target: &Path, is_dir: bool) -> io::Result<OwnedFd> {
    let parts: Vec<_> = target.components().filter(|part| *part != Component::RootDir).collect();
    let mut path = PathBuf::new();
    for (place, part) in parts.iter().enumerate() {
        let parent = path.clone();
        path.push(part);
        match inside(tree, &path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            found => {
                found?;
                continue;
            }
        }
        let parent = inside(tree, &parent)?;
        let name = CString::new(part.as_os_str().as_bytes())?;
        if is_dir || place + 1 < parts.len() {
            // SAFETY: a name that ends with a zero byte, below a directory that is open.
            succeeded(unsafe { libc::mkdirat(parent.as_raw_fd(), name.as_ptr(), 0o755) })?;
        } else {
            let flags = libc::O_CREAT | libc::O_EXCL | libc::O_WRONLY | libc::O_CLOEXEC;
            // SAFETY: the same.
            let file = unsafe { libc::openat(parent.as_raw_fd(), name.as_ptr(), flags, 0o644) };
            succeeded(file)?;
            // SAFETY: it was opened here, and nobody else has it.
            drop(unsafe { OwnedFd::from_raw_fd(file) });
        }
    }
    inside(tree, target)
}

fn inside(tree: &OwnedFd, path: &Path) -> io::Result<OwnedFd> {
    let path = path.strip_prefix("/").unwrap_or(path);
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    open(tree.as_raw_fd(), path, 0, libc::RESOLVE_IN_ROOT)
}

/// A place, to be mounted or mounted on.
fn open(dir: libc::c_int, path: &Path, flags: libc::c_int, resolve: u64) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: all of its fields are numbers.
    let mut how: libc::open_how = unsafe { std::mem::zeroed() };
    how.flags = u64::from((libc::O_PATH | libc::O_CLOEXEC | flags).cast_unsigned());
    how.resolve = resolve;
    // SAFETY: the path ends with a zero byte, and the size is that of the structure.
    let opened =
        unsafe { libc::syscall(libc::SYS_openat2, dir, path.as_ptr(), &raw const how, size_of_val(&how)) };
    let opened = i32::try_from(opened).map_err(io::Error::other)?;
    succeeded(opened)?;
    // SAFETY: it was opened here, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(opened) })
}

/// The name under which an open place can be mounted.
fn link(place: &OwnedFd) -> CString {
    CString::new(format!("/proc/self/fd/{}", place.as_raw_fd())).unwrap_or_default()
}

fn mount(source: &CStr, target: &CStr, flags: libc::c_ulong) -> io::Result<()> {
    let none = std::ptr::null();
    // SAFETY: both names end with a zero byte; a bind mount takes no type and no data.
    succeeded(unsafe { libc::mount(source.as_ptr(), target.as_ptr(), none, flags, none.cast()) })
}

fn succeeded(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_has_two_whole_paths() {
        let mount: Mount = "/a/b:/c:ro".parse().unwrap();
        assert_eq!(mount, Mount { source: "/a/b".into(), target: "/c".into(), read_only: true });
        for wrong in ["", "/a", "a:/b", "/a:b", "/a:/", "/a:/b/../c", "/a:/b:rx", "/a:/b:ro:x"] {
            assert!(wrong.parse::<Mount>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_place_is_made_in_the_tree_and_never_outside() {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree");
        std::fs::create_dir(&tree).unwrap();
        std::fs::create_dir(dir.path().join("outside")).unwrap();
        std::os::unix::fs::symlink(dir.path().join("outside"), tree.join("whole")).unwrap();
        std::os::unix::fs::symlink("../outside", tree.join("relative")).unwrap();
        let fd = open(libc::AT_FDCWD, &tree, libc::O_DIRECTORY, 0).unwrap();
        made(&fd, Path::new("/data/models"), true).unwrap();
        made(&fd, Path::new("/lib/libcuda.so.1"), false).unwrap();
        assert!(tree.join("data/models").is_dir() && tree.join("lib/libcuda.so.1").is_file());
        // In the tree the links lead nowhere, and a name that is there already is not made.
        for link in ["/whole/x", "/relative/x"] {
            assert!(made(&fd, Path::new(link), true).is_err(), "{link}");
        }
        assert_eq!(std::fs::read_dir(dir.path().join("outside")).unwrap().count(), 0);
    }
}
