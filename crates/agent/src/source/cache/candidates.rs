//! Files whose pages may be cached: those that processes have mapped or open, and those below directories.

use std::{
    fs::{self, File},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use crate::mounts::regular::{self, Links};

/// A file by a way to open it and the name to show.
#[derive(Debug)]
pub(super) struct Candidate {
    pub(super) path: String,
    /// The process that has it mapped or open; the path is as that one sees it.
    pub(super) pid: Option<u32>,
    way: PathBuf,
}

impl Candidate {
    /// Opens it, if it is a file.
    pub(super) fn open(&self) -> Option<File> {
        match self.pid {
            Some(pid) => regular::open_of_process(pid, &self.way).ok(),
            None => regular::open(&self.way, Links::Refused).ok(),
        }
    }
}

/// Hands files to `take` until it has enough.
pub(super) fn each(pids: &[u32], directories: &[PathBuf], take: &mut dyn FnMut(Candidate) -> bool) {
    let mut known = std::collections::HashSet::new();
    for pid in pids {
        let mut goes_on = true;
        mapped(*pid, &mut |device, inode, candidate| {
            goes_on = !known.insert((device, inode)) || take(candidate);
            goes_on
        });
        if !goes_on || !open_files(*pid, &mut known, take) {
            return;
        }
    }
    for directory in directories {
        if !below(directory, take) {
            return;
        }
    }
}

/// Files that a process maps, known by /proc/PID/maps and opened by /proc/PID/map_files, which leads to the file itself
/// whatever its mount namespace.
fn mapped(pid: u32, take: &mut dyn FnMut(String, u64, Candidate) -> bool) {
    let Ok(maps) = fs::read(format!("/proc/{pid}/maps")) else { return };
    for line in String::from_utf8_lossy(&maps).lines() {
        let mut fields = line.splitn(6, ' ');
        let (Some(range), Some(device), Some(inode), Some(path)) =
            (fields.next(), fields.nth(2), fields.next(), fields.next())
        else {
            continue;
        };
        let Some(inode) = inode.parse().ok().filter(|inode| *inode != 0u64) else { continue };
        let path = path.trim_start();
        if !path.starts_with('/') || path.starts_with("/memfd:") || path.starts_with("/SYSV") {
            continue;
        }
        let Some(entry) = map_files_entry(range) else { continue };
        let way = PathBuf::from(format!("/proc/{pid}/map_files/{entry}"));
        if !take(device.to_owned(), inode, Candidate { path: path.to_owned(), pid: Some(pid), way }) {
            return;
        }
    }
}

/// The name in map_files of a range as maps has it, which pads low addresses with zeros (a program that is not
/// position-independent begins at 00400000).
pub(crate) fn map_files_entry(range: &str) -> Option<String> {
    let (start, end) = range.split_once('-')?;
    let [start, end] = [start, end].map(|address| u64::from_str_radix(address, 16).ok());
    Some(format!("{:x}-{:x}", start?, end?))
}

/// Files that a process has open and does not map.
fn open_files(
    pid: u32,
    known: &mut std::collections::HashSet<(String, u64)>,
    take: &mut dyn FnMut(Candidate) -> bool,
) -> bool {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else { return true };
    for entry in entries.flatten() {
        let way = entry.path();
        // What it leads to: pipes, sockets and devices are not to be opened.
        let Ok(status) = fs::metadata(&way) else { continue };
        let device = status.dev();
        let name = format!("{:02x}:{:02x}", libc::major(device), libc::minor(device));
        if !status.is_file() || !known.insert((name, status.ino())) {
            continue;
        }
        let path = fs::read_link(&way).unwrap_or_default().display().to_string();
        if !take(Candidate { path, pid: Some(pid), way }) {
            return false;
        }
    }
    true
}

/// Files below a directory, on its own file system; a link is not followed.
fn below(directory: &Path, take: &mut dyn FnMut(Candidate) -> bool) -> bool {
    let Ok(device) = fs::metadata(directory).map(|status| status.dev()) else { return true };
    let mut open = vec![directory.to_owned()];
    while let Some(directory) = open.pop() {
        let Ok(entries) = fs::read_dir(&directory) else { continue };
        for entry in entries.flatten() {
            let Ok(kind) = entry.file_type() else { continue };
            let way = entry.path();
            if kind.is_dir() && fs::symlink_metadata(&way).is_ok_and(|status| status.dev() == device) {
                open.push(way);
            } else if kind.is_file() && !take(Candidate { path: way.display().to_string(), pid: None, way }) {
                return false;
            }
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_of_low_addresses_have_no_zeros_before_them() {
        assert_eq!(map_files_entry("00400000-00627000").as_deref(), Some("400000-627000"));
        assert_eq!(
            map_files_entry("ffff8a000000-ffff8a021000").as_deref(),
            Some("ffff8a000000-ffff8a021000")
        );
        assert_eq!(map_files_entry("no range"), None);
    }
}
