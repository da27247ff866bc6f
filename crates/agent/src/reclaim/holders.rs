//! Which processes have a file mapped.

use std::{
    collections::{BTreeSet, HashMap},
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt,
    path::Path,
    time::{Duration, Instant},
};

use crate::{
    mounts::regular,
    source::{cache::map_files_entry, process},
};

/// Mappings of all processes.
#[derive(Debug)]
pub(super) struct Holders {
    /// By the number of the file's inode.
    mappings: HashMap<u64, Vec<Mapping>>,
    /// Processes whose mappings could not be read.
    pub(super) unread: usize,
    read_at: Instant,
    took: Duration,
}

/// Mappings are read anew before a file when they are older: an engine may have started meanwhile.
const OLD: Duration = Duration::from_millis(100);
/// ... but reading them takes no more than a fifth of the time.
const PART: u32 = 4;
/// Inodes of the first namespaces of processes and of users (include/linux/proc_ns.h PROC_PID_INIT_INO,
/// PROC_USER_INIT_INO).
const FIRST: [(&str, u64); 2] = [("pid", 0xEFFF_FFFC), ("user", 0xEFFF_FFFD)];

#[derive(Debug)]
struct Mapping {
    pid: u32,
    /// Its name in /proc/PID/map_files.
    range: String,
}

impl Holders {
    /// Why not all processes of the machine are seen here; absent where they are.
    pub(super) fn blind() -> Option<String> {
        let is_first = |(name, inode): &(&str, u64)| {
            fs::metadata(format!("/proc/self/ns/{name}")).is_ok_and(|found| found.ino() == *inode)
        };
        let other = FIRST.iter().find(|namespace| !is_first(namespace))?;
        Some(format!(
            "this is not the machine's first {} namespace, so processes that map these files may be out of sight; run \
             it outside of containers, or give --mapped",
            other.0
        ))
    }

    /// Whether it is time to read them anew.
    pub(super) fn are_old(&self) -> bool {
        self.read_at.elapsed() > OLD.max(self.took * PART)
    }

    pub(super) fn read() -> Self {
        let begun = Instant::now();
        let mut unread = 0;
        let mut all: HashMap<u64, Vec<Mapping>> = HashMap::new();
        for pid in process::all() {
            let maps = match fs::read(format!("/proc/{pid}/maps")) {
                Ok(maps) => maps,
                // It has ended.
                Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH)) => continue,
                Err(_) => {
                    unread += 1;
                    continue;
                }
            };
            for line in String::from_utf8_lossy(&maps).lines() {
                let mut fields = line.split(' ');
                let (Some(range), Some(inode)) = (fields.next(), fields.nth(3)) else { continue };
                let Some(inode) = inode.parse().ok().filter(|&inode| inode != 0) else { continue };
                let Some(range) = map_files_entry(range) else { continue };
                all.entry(inode).or_default().push(Mapping { pid, range });
            }
        }
        let read_at = Instant::now();
        Self { mappings: all, unread, read_at, took: read_at - begun }
    }

    /// Processes that map `file`. The numbers of devices in maps are not those of stat(2) on every file system (btrfs), so
    /// the file behind a mapping is compared. One that cannot be looked at counts as a mapping of this file: mappings are split
    /// and merged at any time, and their entries with them.
    pub(super) fn of(&self, file: &File) -> io::Result<BTreeSet<u32>> {
        let status = file.metadata()?;
        let wanted = (status.dev(), status.ino());
        let is_same = |mapping: &&Mapping| {
            let way = format!("/proc/{}/map_files/{}", mapping.pid, mapping.range);
            regular::identity(Path::new(&way)).map_or(true, |behind| behind == wanted)
        };
        let mappings = self.mappings.get(&wanted.1).into_iter().flatten();
        Ok(mappings.filter(is_same).map(|mapping| mapping.pid).collect())
    }
}
