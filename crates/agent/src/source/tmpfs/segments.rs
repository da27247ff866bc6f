//! System V segments, of this process's IPC namespace and of others.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    os::{fd::AsRawFd, unix::fs::MetadataExt},
};

use super::largest;
use crate::mounts::container_of;
use spark_trace_recording::{Moment, TmpfsFile, TmpfsUse};

/// What System V segments are listed as.
const SYSTEM_V: &str = "(System V shared memory)";
const TABLE: &str = "/proc/sysvipc/shm";
/// IPC namespaces that are looked into.
const MOST_NAMESPACES: usize = 64;

pub(super) fn own(at_ns: u64, moment: Moment) -> Option<TmpfsUse> {
    let found = system_v(at_ns, &fs::read_to_string(TABLE).unwrap_or_default(), moment)?;
    Some(TmpfsUse { device: namespace("self").map(device), ..found })
}

/// Of the IPC namespaces of `pids` but for that of this process.
pub(super) fn of_others(at_ns: u64, pids: &[u32], moment: Moment) -> Vec<TmpfsUse> {
    let own = namespace("self");
    let mut seen: BTreeMap<u64, u32> = BTreeMap::new();
    for pid in pids {
        let found = namespace(&pid.to_string()).filter(|inode| Some(*inode) != own);
        if let Some(inode) = found.filter(|_| seen.len() < MOST_NAMESPACES) {
            seen.entry(inode).or_insert(*pid);
        }
    }
    let read = seen.into_iter().filter_map(|(inode, pid)| {
        let found = system_v(at_ns, &table_of(pid)?, moment)?;
        Some(TmpfsUse {
            device: Some(device(inode)),
            seen_by: Some(pid),
            container: container_of(pid),
            target_has_it: Some(true),
            ..found
        })
    });
    read.collect()
}

fn namespace(pid: &str) -> Option<u64> {
    fs::metadata(format!("/proc/{pid}/ns/ipc")).ok().map(|status| status.ino())
}

/// Segments have no device: their namespace distinguishes them.
fn device(namespace: u64) -> String {
    format!("ipc:{namespace}")
}

/// The table shows the namespace of the thread that opens it (ipc/util.c sysvipc_proc_open): a thread of its own goes
/// there, reads and ends.
fn table_of(pid: u32) -> Option<String> {
    let namespace = File::open(format!("/proc/{pid}/ns/ipc")).ok()?;
    let thread = std::thread::spawn(move || {
        // SAFETY: no pointers involved; the descriptor is open.
        let entered = unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWIPC) } == 0;
        entered.then(|| fs::read_to_string(TABLE).ok()).flatten()
    });
    thread.join().ok().flatten()
}

/// Text of /proc/sysvipc/shm; absent where there are no segments.
fn system_v(at_ns: u64, text: &str, moment: Moment) -> Option<TmpfsUse> {
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
        moment: Some(moment),
        ..TmpfsUse::default()
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
        let found = system_v(7, text, Moment::End).unwrap();
        assert_eq!((found.used, found.files.len()), (9 << 20, 2));
        assert_eq!(found.files[0].path, "segment 32, key 0xdeadbeef, made by process 200, attached 0 times");
        assert_eq!(system_v(7, text.lines().next().unwrap(), Moment::End), None);
        assert_eq!(system_v(7, "", Moment::End), None);
        assert_eq!(system_v(7, "nothing\nknown", Moment::End), None);
    }
}
