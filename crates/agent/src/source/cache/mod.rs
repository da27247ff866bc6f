//! The page cache by file, read file by file: cachestat(2), else mincore(2). No page is read or touched
//! for it, and nothing is traced.

mod candidates;
mod charged;
mod mapped;

pub(crate) use candidates::map_files_entry;
pub(crate) use mapped::Mapped;

use std::{
    fs::File,
    io,
    os::fd::AsRawFd,
    os::unix::fs::MetadataExt,
    path::PathBuf,
    time::{Duration, Instant},
};

use candidates::Candidate;
use charged::Owners;

use crate::{
    mounts::{container_of, namespace},
    page_size,
};
use spark_trace_recording::{CacheSeen, FilePages, FilePlace, FileState};

/// Files looked at in one reading; with that many more, the walk ends and says so.
const MOST_FILES: usize = 1_000_000;

/// What to look at, beside the files that processes have mapped or open.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Directories whose files are looked at, each on its own file system.
    pub directories: Vec<PathBuf>,
    /// Files that are listed, the largest.
    pub most: usize,
    /// Time for all of it.
    pub time: Duration,
}

/// What was found.
#[derive(Debug, Default)]
pub struct Found {
    /// The largest, the most cached first.
    pub files: Vec<FilePages>,
    /// All files that were looked at.
    pub seen: CacheSeen,
    /// Why there may be more than was looked at.
    pub note: Option<String>,
}

/// What the kernel puts behind the path of a file that has no name any more (fs/d_path.c).
const DELETED: &str = " (deleted)";

/// One file with what of it is cached.
struct Cached {
    candidate: Candidate,
    file: File,
    device: u64,
    inode: u64,
    /// It has no name any more.
    removed: bool,
    bytes: u64,
}

/// Looks at the files of `pids` and below the directories that are wanted.
pub fn read(pids: &[u32], wanted: &Wanted) -> Found {
    let until = Instant::now() + wanted.time;
    let mut found = Found::default();
    let mut seen = std::collections::HashSet::new();
    let mut largest: Vec<Cached> = Vec::new();
    let mut over = false;
    candidates::each(pids, &wanted.directories, &mut |candidate| {
        if Instant::now() >= until || seen.len() >= MOST_FILES {
            over = true;
            return false;
        }
        let Some(file) = candidate.open() else { return true };
        let Ok(status) = file.metadata() else { return true };
        if !status.is_file() || status.len() == 0 || !seen.insert((status.dev(), status.ino())) {
            return true;
        }
        let bytes = resident(&file, status.len()).unwrap_or(0);
        found.seen.bytes += bytes;
        if bytes > 0 {
            let (device, inode) = (status.dev(), status.ino());
            let removed = status.nlink() == 0;
            largest.push(Cached { candidate, file, device, inode, removed, bytes });
            // Files are kept open until it is known whether they are among the largest.
            if largest.len() >= 2 * wanted.most.max(64) {
                keep(&mut largest, wanted.most);
            }
        }
        true
    });
    keep(&mut largest, wanted.most);
    found.seen.files = seen.len() as u64;
    found.note = over.then(|| {
        format!(
            "the page cache of {} files was read, then the time limit of {} s was reached",
            seen.len(),
            wanted.time.as_secs_f64()
        )
    });
    let owners = Owners::open();
    let own = namespace("self");
    found.files = largest.into_iter().map(|cached| cached.row(owners.as_ref(), own)).collect();
    found
}

fn keep(largest: &mut Vec<Cached>, most: usize) {
    largest.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.candidate.path.cmp(&b.candidate.path)));
    largest.truncate(most);
}

impl Cached {
    fn row(self, owners: Option<&Owners>, own: Option<u64>) -> FilePages {
        // The path is as the process has it, in its mount namespace and below its root.
        let theirs = self.candidate.pid.filter(|pid| namespace(&pid.to_string()) != own);
        let place = FilePlace {
            path: self.candidate.path.trim_end_matches(DELETED).to_owned(),
            state: match (self.removed, theirs) {
                (true, _) => FileState::Gone,
                (false, Some(_)) => FileState::Unchecked,
                (false, None) => FileState::Found,
            },
            seen_by: theirs,
            container: theirs.and_then(container_of),
        };
        FilePages {
            place: Some(place),
            device: format!("{}:{}", libc::major(self.device), libc::minor(self.device)),
            inode: self.inode,
            charged_to: owners.and_then(|owners| owners.of(&self.file)).unwrap_or(0),
            path: Some(self.candidate.path),
            before: Some(self.bytes),
            ..FilePages::default()
        }
    }
}

/// Bytes of a file in the page cache, in whole pages.
pub fn resident(file: &File, length: u64) -> io::Result<u64> {
    Ok(in_cache(file, length)?.bytes)
}

/// How much of a file is in the page cache.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct InCache {
    /// Bytes of whole pages.
    pub(crate) bytes: u64,
    /// Those of them that the disk does not have yet, or that are on their way there; absent where the kernel does not
    /// count them by file (before Linux 6.5, and on an overlay).
    pub(crate) unwritten: Option<u64>,
}

/// Looks at the cached pages of a file of `length` bytes. No page is read for it.
pub(crate) fn in_cache(file: &File, length: u64) -> io::Result<InCache> {
    let by_mapping = || Ok(InCache { bytes: mapped::resident(file, length)?, unwritten: None });
    match cachestat(file) {
        // The file on top of an overlay has no pages: those of the file below are seen through a mapping.
        Ok(Counts { cached: 0, .. }) if is_overlay(file) => by_mapping(),
        Ok(Counts { cached, dirty, writeback }) => {
            Ok(InCache { bytes: cached * page_size(), unwritten: Some((dirty + writeback) * page_size()) })
        }
        Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => by_mapping(),
        Err(error) => Err(error),
    }
}

/// Number of the call on every architecture since it came with Linux 6.5 (include/uapi/asm-generic/unistd.h).
const CACHESTAT: libc::c_long = 451;

/// Pages of a file, by what the kernel has of them.
#[derive(Debug)]
struct Counts {
    cached: u64,
    dirty: u64,
    writeback: u64,
}

/// Pages of the whole file in the cache (mm/filemap.c cachestat).
fn cachestat(file: &File) -> io::Result<Counts> {
    // cachestat_range: offset and length, and a length of 0 reaches to the end; cachestat: cached, dirty and writeback
    // pages come first.
    let range = [0u64; 2];
    let mut counts = [0u64; 5];
    // SAFETY: both arrays have the size of the structures that the kernel reads and writes, and live through the call.
    let result =
        unsafe { libc::syscall(CACHESTAT, file.as_raw_fd(), range.as_ptr(), counts.as_mut_ptr(), 0u32) };
    let [cached, dirty, writeback, ..] = counts;
    if result == 0 { Ok(Counts { cached, dirty, writeback }) } else { Err(io::Error::last_os_error()) }
}

fn is_overlay(file: &File) -> bool {
    file_system(file).is_ok_and(|kind| kind == libc::OVERLAYFS_SUPER_MAGIC)
}

/// The number of the kind of file system that a file is on (statfs(2)).
pub(crate) fn file_system(file: &File) -> io::Result<libc::__fsword_t> {
    // SAFETY: all zero is a valid statfs, and the pointer is to it; the descriptor is open.
    let (result, found) = unsafe {
        let mut found: libc::statfs = std::mem::zeroed();
        (libc::fstatfs(file.as_raw_fd(), &raw mut found), found)
    };
    if result == 0 { Ok(found.f_type) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_file_just_written_is_cached_and_both_ways_agree() {
        let mut file = tempfile::tempfile_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        file.write_all(&vec![7u8; 3 << 20]).unwrap();
        let length = file.metadata().unwrap().len();
        let bytes = resident(&file, length).unwrap();
        assert_eq!(bytes, 3 << 20);
        assert_eq!(mapped::resident(&file, length).unwrap(), bytes);
    }

    #[test]
    fn the_largest_of_a_directory_come_first() {
        let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        for (name, mib) in [("small", 1), ("large", 4), ("middle", 2)] {
            std::fs::write(dir.path().join(name), vec![1u8; mib << 20]).unwrap();
        }
        let wanted =
            Wanted { directories: vec![dir.path().to_owned()], most: 2, time: Duration::from_secs(20) };
        let found = read(&[], &wanted);
        assert_eq!((found.seen.files, found.seen.bytes, found.note), (3, 7 << 20, None));
        let rows: Vec<_> = found.files.iter().map(|row| (row.before, row.path.clone())).collect();
        let path = |name: &str| Some(dir.path().join(name).display().to_string());
        assert_eq!(rows, [(Some(4 << 20), path("large")), (Some(2 << 20), path("middle"))]);
    }

    #[test]
    fn time_that_is_over_is_reported() {
        let wanted = Wanted { directories: vec!["/".into()], most: 2, time: Duration::ZERO };
        let found = read(&[], &wanted);
        assert!(found.note.is_some() && found.files.is_empty());
    }
}
