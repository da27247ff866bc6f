//! Samples of what cached files contain, so that copies of one file can be distinguished from files that only share a name.
//!
//! Names and files are the traced program's. Nothing here waits for a disk or for a file system in user space: the way to
//! a file is taken from the cache of names (RESOLVE_CACHED), without links and within its file system, only the regular
//! file of the inode that was recorded is opened, and only blocks that are in the page cache are read: mincore(2) says which,
//! for RWF_NOWAIT alone starts to read ahead what is missing (mm/filemap.c filemap_get_pages).

use std::{
    cmp::Reverse,
    collections::BTreeMap,
    ffi::CString,
    fs::{File, OpenOptions},
    io,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::fs::{MetadataExt, OpenOptionsExt},
    },
    time::{Duration, Instant},
};

use super::cache::Mapped;
use crate::mounts::{self, Mount};
use crate::page_size;
use spark_trace_recording::{CONTENT_BLOCKS, FileContent, FilePages, FileState};

const BLOCK: usize = 4096;
/// Files of which less is cached do not matter.
const LEAST: u64 = 1 << 20;
/// How many files are looked at, the largest first, and for how long.
const FILES: usize = 256;
const TIME: Duration = Duration::from_millis(500);

/// Looks at the files of which most is cached.
pub fn read(files: &mut [FilePages]) {
    let until = Instant::now() + TIME;
    let mounts = mounts::of_process("self");
    let mut order: Vec<usize> =
        (0..files.len()).filter(|&index| most_cached(&files[index]) >= LEAST).collect();
    order.sort_by_key(|&index| Reverse(most_cached(&files[index])));
    // One file may be charged to several cgroups.
    let mut known: BTreeMap<(String, u64), Option<FileContent>> = BTreeMap::new();
    for index in order {
        let Some(file) = files.get_mut(index) else { continue };
        let key = (file.device.clone(), file.inode);
        if !known.contains_key(&key) {
            if known.len() >= FILES || Instant::now() > until {
                return;
            }
            known.insert(key.clone(), open(&mounts, file).and_then(|opened| sample(&opened).ok()));
        }
        file.content = known.get(&key).cloned().flatten();
    }
}

/// The most of it that was cached at a time.
fn most_cached(file: &FilePages) -> u64 {
    let since = file.live.known().max().unwrap_or(0);
    file.before.unwrap_or(0).saturating_add_signed(since)
}

/// The path below a mount point of a path below the root of its file system.
fn below<'p>(mount: &Mount, path: &'p str) -> Option<&'p str> {
    let rest = path.strip_prefix(mount.root.trim_end_matches('/'))?;
    rest.strip_prefix('/').filter(|rest| !rest.is_empty())
}

/// The file that was recorded: where it was found when the trace ended, else where it was first seen.
fn open(mounts: &[Mount], file: &FilePages) -> Option<File> {
    let of_device = || mounts.iter().filter(|mount| mount.device == file.device);
    let found = file.place.as_ref().filter(|place| {
        place.seen_by.is_none() && matches!(place.state, FileState::Found | FileState::Renamed)
    });
    let found = of_device().filter_map(|mount| {
        let rest = found?.path.strip_prefix(mount.point.trim_end_matches('/'))?;
        Some((mount.point.as_str(), rest.strip_prefix('/')?))
    });
    let first =
        of_device().filter_map(|mount| Some((mount.point.as_str(), below(mount, file.path.as_deref()?)?)));
    found.chain(first).find_map(|(point, path)| open_below(point, path, file).ok())
}

fn open_below(point: &str, path: &str, recorded: &FilePages) -> io::Result<File> {
    let flags = libc::O_PATH | libc::O_DIRECTORY | libc::O_NOFOLLOW;
    let root = OpenOptions::new().read(true).custom_flags(flags).open(point)?;
    let path = CString::new(path)?;
    // SAFETY: all zeros is a valid open_how.
    let mut how: libc::open_how = unsafe { std::mem::zeroed() };
    // O_PATH opens nothing: a device or a FIFO does not notice.
    how.flags = (libc::O_PATH | libc::O_CLOEXEC | libc::O_NOFOLLOW) as u64;
    how.resolve = libc::RESOLVE_BENEATH
        | libc::RESOLVE_NO_XDEV
        | libc::RESOLVE_NO_SYMLINKS
        | libc::RESOLVE_NO_MAGICLINKS
        | libc::RESOLVE_CACHED;
    // SAFETY: the path is a C string and `how` an open_how of the size given; both outlive the call.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_openat2,
            root.as_raw_fd(),
            path.as_ptr(),
            std::ptr::from_ref(&how),
            size_of::<libc::open_how>(),
        )
    };
    let fd = i32::try_from(fd).ok().filter(|fd| *fd >= 0).ok_or_else(io::Error::last_os_error)?;
    // SAFETY: the call has just given us this descriptor, and nobody else closes it.
    let found = File::from(unsafe { OwnedFd::from_raw_fd(fd) });
    let metadata = found.metadata()?;
    let device = format!("{}:{}", libc::major(metadata.dev()), libc::minor(metadata.dev()));
    if !metadata.is_file() || metadata.ino() != recorded.inode || device != recorded.device {
        return Err(io::Error::other("another file is there"));
    }
    let flags = libc::O_NONBLOCK | libc::O_NOATIME | libc::O_NOCTTY;
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags)
        .open(format!("/proc/self/fd/{}", found.as_raw_fd()))?;
    // A mark for reading ahead on a page that is cached must not bring in the next ones.
    // SAFETY: a plain system call on a descriptor that is open.
    match unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_RANDOM) } {
        0 => Ok(file),
        code => Err(io::Error::from_raw_os_error(code)),
    }
}

fn sample(file: &File) -> io::Result<FileContent> {
    let size = file.metadata()?.len();
    let last = (size / BLOCK as u64).saturating_sub(1);
    let blocks = (0..CONTENT_BLOCKS).map(|index| {
        let number = last * index / (CONTENT_BLOCKS - 1);
        let mut block = [0; BLOCK];
        read_cached(file, &mut block, number * BLOCK as u64).ok().map(|()| hash(&block))
    });
    Ok(FileContent { size, blocks: blocks.collect() })
}

/// Reads what is in the page cache; an error where not all of it is.
fn read_cached(file: &File, block: &mut [u8; BLOCK], at: u64) -> io::Result<()> {
    // A page has at least the size of a block, and a block lies in one page.
    let page = page_size();
    let cached = Mapped::new(file, at / page * page, page)?.cached()?;
    if cached.first() != Some(&true) {
        return Err(io::ErrorKind::WouldBlock.into());
    }
    let part = libc::iovec { iov_base: block.as_mut_ptr().cast(), iov_len: BLOCK };
    // The kernel puts the position together from two halves of a long each (fs/read_write.c pos_from_hilo).
    let (low, high) = (at as libc::c_ulong, 0 as libc::c_ulong);
    // SAFETY: `part` is one buffer that is valid for its length, and both outlive the call.
    let read = unsafe {
        libc::syscall(
            libc::SYS_preadv2,
            file.as_raw_fd(),
            std::ptr::from_ref(&part),
            1 as libc::c_ulong,
            low,
            high,
            libc::RWF_NOWAIT,
        )
    };
    match usize::try_from(read) {
        Ok(BLOCK) => Ok(()),
        Ok(_) => Err(io::ErrorKind::UnexpectedEof.into()),
        Err(_) => Err(io::Error::last_os_error()),
    }
}

/// FNV-1a, 64 bits folded to 32; 0 is kept for a block of zeros, which says nothing of a file.
fn hash(block: &[u8; BLOCK]) -> u32 {
    if block.iter().all(|byte| *byte == 0) {
        return 0;
    }
    let hash = block.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    ((hash >> 32) as u32 ^ hash as u32).max(1)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use super::*;

    fn recorded(path: &Path) -> FilePages {
        let metadata = path.metadata().unwrap();
        FilePages {
            device: format!("{}:{}", libc::major(metadata.dev()), libc::minor(metadata.dev())),
            inode: metadata.ino(),
            ..FilePages::default()
        }
    }

    fn write(path: &Path, seed: u8) {
        let mut file = File::create(path).unwrap();
        let bytes: Vec<u8> = (0..2 << 20).map(|at: u32| (at / 4096) as u8 ^ seed | 1).collect();
        file.write_all(&bytes).unwrap();
    }

    #[test]
    fn copies_are_equal_and_others_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let content = |name: &str, seed: u8| {
            let path = dir.path().join(name);
            write(&path, seed);
            let point = dir.path().to_str().unwrap();
            sample(&open_below(point, name, &recorded(&path)).unwrap()).unwrap()
        };
        let (one, copy, other) = (content("one", 6), content("copy", 6), content("other", 9));
        assert_eq!(one.size, 2 << 20);
        assert_eq!(one.blocks.len() as u64, CONTENT_BLOCKS);
        // Where the file system reads nothing without waiting there is nothing to compare.
        if one.blocks.iter().any(Option::is_some) {
            assert_eq!(one.blocks, copy.blocks);
            assert_ne!(one.blocks, other.blocks);
        }
    }

    #[test]
    fn links_other_files_and_what_is_no_file_are_not_opened() {
        let dir = tempfile::tempdir().unwrap();
        let point = dir.path().to_str().unwrap();
        let real = dir.path().join("real");
        write(&real, 1);
        symlink(&real, dir.path().join("link")).unwrap();
        std::fs::create_dir(dir.path().join("folder")).unwrap();
        let file = recorded(&real);
        assert!(open_below(point, "real", &file).is_ok());
        assert!(open_below(point, "link", &file).is_err());
        assert!(open_below(point, "../real", &file).is_err());
        assert!(open_below(point, "folder", &recorded(&dir.path().join("folder"))).is_err());
        assert!(open_below(point, "real", &FilePages { inode: file.inode + 1, ..file }).is_err());
    }

    #[test]
    fn a_path_is_put_below_the_mount_point() {
        let text = "36 35 98:0 /data /mnt/models rw,noatime master:1 - ext4 /dev/root rw\n\
                    36 35 98:0 / /mnt/a\\040b rw - ext4 /dev/root rw";
        let [part, whole] = &mounts::parse(text)[..] else { panic!("two mounts") };
        assert_eq!(below(part, "/data/a/b"), Some("a/b"));
        assert_eq!(below(part, "/database/a"), None);
        assert_eq!((below(whole, "/data/a/b"), whole.point.as_str()), (Some("data/a/b"), "/mnt/a b"));
    }
}
