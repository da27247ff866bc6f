//! What lives in file systems that are memory, and in System V segments: a file there holds memory for as long as it
//! exists, whether its maker lives or not.

mod mounts;
mod segments;
mod walk;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io,
    os::{fd::AsRawFd, unix::fs::MetadataExt},
    time::{Duration, Instant},
};

use mounts::InMemory;

use crate::{
    mounts::{Mount, container_of, namespace, of_process, open::Paths},
    now_ns,
};
use spark_trace_recording::{Moment, TmpfsFile, TmpfsUse};

/// Files that are named of each.
const NAMED: usize = 10;
/// Mount namespaces that are looked into.
const MOST_NAMESPACES: usize = 64;

/// Bounds of all walks of one reading together. At a peak the target runs, and waits for whoever looks.
const fn budget(moment: Moment) -> (u64, Duration) {
    match moment {
        Moment::Start | Moment::End => (20_000, Duration::from_millis(200)),
        Moment::Peak => (2_000, Duration::from_millis(30)),
    }
}

/// One mount namespace with a process that is in it.
struct Namespace {
    pid: u32,
    mounts: Vec<Mount>,
}

/// File systems in memory that are mounted where this process sees it, and those of the mount namespaces of `pids`, which
/// are the target's where it is not the whole machine; and the segments of their IPC namespaces.
pub fn read(pids: &[u32], moment: Moment) -> Vec<TmpfsUse> {
    let own = of_process("self");
    let (others, in_own) = namespaces(pids);
    // Where no process of the target is known, nor is what it has mounted.
    let targets: Option<BTreeSet<u64>> = (!pids.is_empty()).then(|| {
        let of_own = own.iter().filter(|_| in_own);
        of_own.chain(others.iter().flat_map(|other| &other.mounts)).map(|mount| mount.number).collect()
    });
    let mut walks = Walks::new(moment);
    let mut found = walks.of("self", &own, &BTreeSet::new(), moment);
    for row in &mut found {
        let device =
            mounts::in_memory(&own).into_iter().find(|known| Some(&known.device) == row.device.as_ref());
        row.target_has_it =
            device.zip(targets.as_ref()).map(|(device, targets)| targets.contains(&device.number));
    }
    found.extend(segments::own(walks.at_ns, moment));
    found.extend(of_namespaces(&own, &others, &mut walks, moment));
    found.extend(segments::of_others(walks.at_ns, pids, moment));
    found
}

/// The same of the mount namespaces of `pids` alone, without what is mounted where this process sees it.
pub fn read_theirs(pids: &[u32], moment: Moment) -> Vec<TmpfsUse> {
    let (others, _) = namespaces(pids);
    if others.is_empty() {
        return Vec::new();
    }
    let mut walks = Walks::new(moment);
    let mut found = of_namespaces(&of_process("self"), &others, &mut walks, moment);
    found.extend(segments::of_others(walks.at_ns, pids, moment));
    found
}

/// Mount namespaces of processes but for that of this one; and whether one of them is in this one.
fn namespaces(pids: &[u32]) -> (Vec<Namespace>, bool) {
    let own = namespace("self");
    let mut seen: BTreeMap<u64, u32> = BTreeMap::new();
    let mut in_own = false;
    for pid in pids {
        let found = namespace(&pid.to_string());
        in_own |= found.is_some() && found == own;
        if let Some(inode) = found.filter(|_| found != own && seen.len() < MOST_NAMESPACES) {
            seen.entry(inode).or_insert(*pid);
        }
    }
    let with_mounts = seen.into_values().map(|pid| Namespace { pid, mounts: of_process(&pid.to_string()) });
    (with_mounts.collect(), in_own)
}

fn of_namespaces(own: &[Mount], others: &[Namespace], walks: &mut Walks, moment: Moment) -> Vec<TmpfsUse> {
    let mut known: BTreeSet<u64> = own.iter().map(|mount| mount.number).collect();
    let mut found = Vec::new();
    for other in others {
        let container = container_of(other.pid);
        let rows =
            walks.of(&other.pid.to_string(), &other.mounts, &known, moment).into_iter().map(|row| TmpfsUse {
                seen_by: Some(other.pid),
                container: container.clone(),
                target_has_it: Some(true),
                ..row
            });
        // A container has several that are never used. At the end they show that nothing is left.
        found.extend(rows.filter(|row| row.used > 0 || moment == Moment::End));
        known.extend(other.mounts.iter().map(|mount| mount.number));
    }
    found
}

/// All walks of one reading.
struct Walks {
    at_ns: u64,
    budget: walk::Budget,
}

impl Walks {
    fn new(moment: Moment) -> Self {
        let (entries, time) = budget(moment);
        Self { at_ns: now_ns(), budget: walk::Budget { entries, until: Instant::now() + time } }
    }

    /// The file systems among the mounts of a process that are not known yet.
    fn of(&mut self, pid: &str, mounts: &[Mount], known: &BTreeSet<u64>, moment: Moment) -> Vec<TmpfsUse> {
        let Ok(paths) = Paths::of(pid, mounts) else { return Vec::new() };
        let in_memory = mounts::in_memory(mounts);
        let new = in_memory.iter().filter(|mount| !known.contains(&mount.number));
        let mut opened: Vec<_> = new.filter_map(|mount| Opened::of(&paths, mount)).collect();
        // The fullest first: the walks may not come to the end.
        opened.sort_by_key(|opened| std::cmp::Reverse(opened.used));
        opened.into_iter().map(|opened| opened.read(self.at_ns, &mut self.budget, moment)).collect()
    }
}

/// A mounted file system that can be read.
struct Opened<'a> {
    mount: &'a InMemory,
    point: &'a str,
    /// A descriptor of its place alone: opening it does nothing to what is there.
    place: File,
    is_dir: bool,
    /// Absent where the file system does not count (a ramfs; a tmpfs without a limit).
    used: Option<u64>,
}

impl<'a> Opened<'a> {
    /// By the first of its mount points that nothing else is mounted upon.
    fn of(paths: &Paths, mount: &'a InMemory) -> Option<Self> {
        mount.points.iter().find_map(|point| {
            let place = paths.open(point, libc::O_PATH).ok()?;
            let found = place.metadata().ok()?;
            let used = used(&place).ok()?;
            (found.dev() == mount.number).then(|| Self { mount, point, place, is_dir: found.is_dir(), used })
        })
    }

    fn read(self, at_ns: u64, budget: &mut walk::Budget, moment: Moment) -> TmpfsUse {
        let blockless = match self.mount.kind.as_str() {
            "ramfs" => walk::Blockless::Length,
            _ => walk::Blockless::Nothing,
        };
        let walked = (self.is_dir && self.used != Some(0))
            .then(|| walk::files(&self.place, self.point, self.mount.number, blockless, budget));
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
            moment: Some(moment),
            device: Some(self.mount.device.clone()),
            ..TmpfsUse::default()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_mounted_here_is_read() {
        let all = read(&[], Moment::Start);
        let mut points: Vec<_> = all.iter().map(|found| &found.mount_point).collect();
        let count = points.len();
        points.sort();
        points.dedup();
        assert_eq!(points.len(), count, "each once: {points:?}");
        assert!(all.iter().all(|found| found.files.len() <= NAMED && found.at_ns == all[0].at_ns));
    }

    #[test]
    fn of_its_own_namespace_a_process_has_all() {
        let all = read(&[std::process::id()], Moment::End);
        assert!(
            all.iter().filter(|found| found.kind != "sysv").all(|found| found.target_has_it == Some(true))
        );
        assert!(read_theirs(&[std::process::id()], Moment::Peak).is_empty());
    }
}
