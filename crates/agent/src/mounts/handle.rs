//! A file of ext4 by its inode number alone: where it is now, however often it was moved.

use std::{
    fs::{self, File},
    io,
    os::fd::{AsRawFd, FromRawFd},
};

use spark_trace_recording::FilePages;

/// `FILEID_INO32_GEN` (include/linux/exportfs.h): the number of an inode and its generation, of which 0 stands for any
/// (fs/ext4/super.c ext4_nfs_get_inode).
const INO32_GEN: libc::c_int = 1;

#[repr(C)]
struct Handle {
    bytes: libc::c_uint,
    kind: libc::c_int,
    inode: u32,
    generation: u32,
}

const _: () = assert!(size_of::<Handle>() == 16);

/// The path by which the kernel knows the file, seen through the open directory `mount` on its file system. Nothing where
/// it has no name in the kernel's cache of them.
pub(super) fn path_of(mount: &File, file: &FilePages) -> io::Result<String> {
    let inode = u32::try_from(file.inode).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let mut handle = Handle { bytes: 8, kind: INO32_GEN, inode, generation: 0 };
    // SAFETY: a file_handle with as many bytes behind it as it says, which lives through the call.
    let descriptor = unsafe {
        let flags = libc::O_PATH | libc::O_CLOEXEC | libc::O_NOFOLLOW;
        libc::syscall(libc::SYS_open_by_handle_at, mount.as_raw_fd(), &raw mut handle, flags)
    };
    let descriptor = i32::try_from(descriptor).ok().filter(|descriptor| *descriptor >= 0);
    let Some(descriptor) = descriptor else { return Err(io::Error::last_os_error()) };
    // SAFETY: a new descriptor that nobody else has.
    let opened = unsafe { File::from_raw_fd(descriptor) };
    let path = fs::read_link(format!("/proc/self/fd/{}", opened.as_raw_fd()))?;
    Ok(path.display().to_string())
}
