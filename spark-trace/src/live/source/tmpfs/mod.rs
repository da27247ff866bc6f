//! What lives in file systems that are memory, and in System V segments: a file there holds memory for as long as it
//! exists, whether its maker lives or not.

mod mounts;
mod walk;

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::{
        fd::AsRawFd,
        unix::fs::{MetadataExt, OpenOptionsExt},
    },
    time::{Duration, Instant},
};

use mounts::Mount;

use crate::{
    live::now_ns,
    recording::{TmpfsFile, TmpfsUse},
};

/// Files that are named of each.
const NAMED: usize = 10;
/// Bounds of all walks of one reading together.
const MOST_ENTRIES: u64 = 20_000;
const LONGEST_WALK: Duration = Duration::from_millis(200);

/// What System V segments are listed as.
const SYSTEM_V: &str = "(System V shared memory)";

/// Every file system in memory that is mounted where this process sees it, and the segments of its IPC namespace.
pub fn read() -> Vec<TmpfsUse> {
    let at_ns = now_ns();
    let mut budget = walk::Budget { entries: MOST_ENTRIES, until: Instant::now() + LONGEST_WALK };
    let mounts = fs::read("/proc/self/mountinfo").unwrap_or_default();
    let mounts = mounts::in_memory(&String::from_utf8_lossy(&mounts));
    let mut opened: Vec<_> = mounts.iter().filter_map(Opened::of).collect();
    // The fullest first: the walks may not come to the end.
    opened.sort_by_key(|opened| std::cmp::Reverse(opened.used));
    let mut found: Vec<_> = opened.into_iter().map(|opened| opened.read(at_ns, &mut budget)).collect();
    let segments = fs::read_to_string("/proc/sysvipc/shm").unwrap_or_default();
    found.extend(system_v(at_ns, &segments));
    found
}

/// A mounted file system that can be read.
struct Opened<'a> {
    mount: &'a Mount,
    point: &'a str,
    /// A descriptor of its place alone: opening it does nothing to what is there.
    place: File,
    is_dir: bool,
    /// Absent where the file system does not count (a ramfs; a tmpfs without a limit).
    used: Option<u64>,
}

impl<'a> Opened<'a> {
    /// By the first of its mount points that nothing else is mounted upon.
    fn of(mount: &'a Mount) -> Option<Self> {
        mount.points.iter().find_map(|point| {
            let mut options = OpenOptions::new();
            let place = options.read(true).custom_flags(libc::O_PATH | libc::O_NOFOLLOW).open(point).ok()?;
            let found = place.metadata().ok()?;
            let used = used(&place).ok()?;
            (found.dev() == mount.device).then(|| Self { mount, point, place, is_dir: found.is_dir(), used })
        })
    }

    fn read(self, at_ns: u64, budget: &mut walk::Budget) -> TmpfsUse {
        let blockless = match self.mount.kind.as_str() {
            "ramfs" => walk::Blockless::Length,
            _ => walk::Blockless::Nothing,
        };
        let walked = (self.is_dir && self.used != Some(0))
            .then(|| walk::files(&self.place, self.point, self.mount.device, blockless, budget));
        let mut walked = walked.unwrap_or_default();
        let used = self.used.unwrap_or_else(|| walked.files.iter().map(|file| file.bytes).sum());
        largest(&mut walked.files);
        TmpfsUse {
            at_ns,
            mount_point: self.point.to_owned(),
            kind: self.mount.kind.clone(),
            used,
            files: walked.files,
            note: walked.note,
        }
    }
}

/// Bytes that a file system counts as used.
fn used(place: &File) -> io::Result<Option<u64>> {
    // SAFETY: all zero is a valid statvfs, and the pointer is to it; the descriptor is open.
    let found = unsafe {
        let mut found: libc::statvfs = std::mem::zeroed();
        if libc::fstatvfs(place.as_raw_fd(), &raw mut found) != 0 {
            return Err(io::Error::last_os_error());
        }
        found
    };
    let used = found.f_blocks.saturating_sub(found.f_bfree).saturating_mul(found.f_frsize);
    Ok((found.f_blocks > 0).then_some(used))
}

fn largest(files: &mut Vec<TmpfsFile>) {
    files.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.path.cmp(&b.path)));
    files.truncate(NAMED);
}

/// /proc/sysvipc/shm; absent where there are no segments.
fn system_v(at_ns: u64, text: &str) -> Option<TmpfsUse> {
    let mut lines = text.lines();
    let titles: Vec<_> = lines.next()?.split_whitespace().collect();
    let column = |title: &str| titles.iter().position(|found| *found == title);
    let [key, id, maker, attached, rss] =
        [column("key")?, column("shmid")?, column("cpid")?, column("nattch")?, column("rss")?];
    let segment = |line: &str| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let field = |index: usize| fields.get(index).copied();
        let key: i32 = field(key)?.parse().ok()?;
        Some(TmpfsFile {
            path: format!(
                "segment {}, key {key:#x}, made by process {}, attached {} times",
                field(id)?,
                field(maker)?,
                field(attached)?
            ),
            bytes: field(rss)?.parse().ok()?,
        })
    };
    let mut files: Vec<_> = lines.filter_map(segment).collect();
    let used = files.iter().map(|file| file.bytes).sum();
    largest(&mut files);
    (!files.is_empty()).then(|| TmpfsUse {
        at_ns,
        mount_point: SYSTEM_V.to_owned(),
        kind: "sysv".to_owned(),
        used,
        files,
        note: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_by_the_kernels_titles() {
        let text = "       key      shmid perms                  size  cpid  lpid nattch   uid   gid  cuid  cgid      atime      dtime      ctime                   rss                  swap
1234567890          0   600               4194304   100   101      2     0     0     0     0          0          0 1700000000               1048576                     0
-559038737         32   600               8388608   200     0      0     0     0     0     0          0          0 1700000000               8388608                     0
";
        let found = system_v(7, text).unwrap();
        assert_eq!((found.used, found.files.len()), (9 << 20, 2));
        assert_eq!(found.files[0].path, "segment 32, key 0xdeadbeef, made by process 200, attached 0 times");
        assert_eq!(system_v(7, text.lines().next().unwrap()), None);
        assert_eq!(system_v(7, ""), None);
        assert_eq!(system_v(7, "nothing\nknown"), None);
    }

    #[test]
    fn what_is_mounted_here_is_read() {
        let all = read();
        let mut points: Vec<_> = all.iter().map(|found| &found.mount_point).collect();
        let count = points.len();
        points.sort();
        points.dedup();
        assert_eq!(points.len(), count, "each once: {points:?}");
        assert!(all.iter().all(|found| found.files.len() <= NAMED && found.at_ns == all[0].at_ns));
    }
}
