//! Which BPF programs and links the kernel holds, by the kernel itself.

use std::collections::BTreeSet;
use std::fs;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

use super::limit;

/// Commands of bpf(2), from linux/bpf.h.
const MAP_CREATE: i32 = 0;
const MAP_UPDATE_ELEM: i32 = 2;
const PROG_GET_NEXT_ID: i32 = 11;
const LINK_GET_NEXT_ID: i32 = 31;

/// Ids of all programs and links.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ids {
    pub programs: BTreeSet<u32>,
    pub links: BTreeSet<u32>,
}

pub fn ids() -> Ids {
    Ids { programs: list(PROG_GET_NEXT_ID), links: list(LINK_GET_NEXT_ID) }
}

fn list(command: i32) -> BTreeSet<u32> {
    // start_id, next_id, open_flags of union bpf_attr.
    let mut attr = [0u32; 3];
    let mut found = BTreeSet::new();
    loop {
        // SAFETY: `attr` is valid for the three fields that these commands read and write.
        let result = unsafe { libc::syscall(libc::SYS_bpf, command, attr.as_mut_ptr(), size_of_val(&attr)) };
        if result != 0 {
            let error = std::io::Error::last_os_error();
            assert_eq!(error.raw_os_error(), Some(libc::ENOENT), "bpf({command}): {error}");
            return found;
        }
        found.insert(attr[1]);
        attr[0] = attr[1];
    }
}

/// A map from numbers of 32 bits to such numbers, which programs that are started from now on inherit.
pub fn make_map(name: &str) -> OwnedFd {
    const HASH: u32 = 1;
    // map_type, key_size, value_size, max_entries, map_flags, inner_map_fd, numa_node and map_name of union bpf_attr.
    let mut attr = [0u8; 44];
    for (field, value) in [HASH, 4, 4, 64].into_iter().enumerate() {
        attr[4 * field..][..4].copy_from_slice(&value.to_ne_bytes());
    }
    attr[28..][..name.len()].copy_from_slice(name.as_bytes());
    // SAFETY: `attr` is valid for the fields that this command reads; what it gives is ours alone.
    let map = unsafe {
        let fd = libc::syscall(libc::SYS_bpf, MAP_CREATE, attr.as_mut_ptr(), attr.len());
        assert!(fd >= 0, "bpf(MAP_CREATE): {}", std::io::Error::last_os_error());
        OwnedFd::from_raw_fd(fd as i32)
    };
    // SAFETY: no pointers involved.
    assert_eq!(unsafe { libc::fcntl(map.as_raw_fd(), libc::F_SETFD, 0) }, 0);
    map
}

/// Sets an element of such a map.
pub fn set(map: &OwnedFd, key: u32, value: u32) {
    // map_fd, key, value and flags of union bpf_attr.
    let mut attr = [map.as_raw_fd() as u64, (&raw const key) as u64, (&raw const value) as u64, 0];
    // SAFETY: `attr` is valid for the fields that this command reads, and points to what lives.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, MAP_UPDATE_ELEM, attr.as_mut_ptr(), size_of_val(&attr)) };
    assert_eq!(result, 0, "bpf(MAP_UPDATE_ELEM): {}", std::io::Error::last_os_error());
}

impl Ids {
    fn less(&self, other: &Self) -> Self {
        Self {
            programs: self.programs.difference(&other.programs).copied().collect(),
            links: self.links.difference(&other.links).copied().collect(),
        }
    }

    fn is_empty(&self) -> bool {
        self.programs.is_empty() && self.links.is_empty()
    }
}

/// What is there now and was not before, and stays: the kernel frees programs and links some time after their last user
/// is gone (a grace period of RCU, then a work queue), and later on a busy machine. Another tracer
/// that runs on this machine meanwhile is not counted: a live process of another name than `orphan` holds
/// its programs. What `orphan`, a command that outlived its tracer, holds is counted.
pub fn left_behind(before: &Ids, orphan: &str) -> Ids {
    let start = Instant::now();
    loop {
        let new = ids().less(before);
        let left = if new.is_empty() { new } else { new.less(&open_in_others(orphan)) };
        if left.is_empty() || start.elapsed() > limit() {
            return left;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Raw tracepoints that a process holds links to.
pub fn tracepoints_of(pid: u32) -> BTreeSet<String> {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fdinfo")).unwrap().flatten();
    let infos = descriptors.filter_map(|entry| fs::read_to_string(entry.path()).ok());
    // kernel/bpf/syscall.c bpf_raw_tp_link_show_fdinfo
    let name =
        |info: String| info.lines().find_map(|line| line.strip_prefix("tp_name:\t").map(str::to_owned));
    infos.filter_map(name).collect()
}

/// Ids of which other live processes have descriptors.
fn open_in_others(orphan: &str) -> Ids {
    let mut open = Ids::default();
    for pid in super::pids() {
        let executable = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
        if executable.as_os_str() == orphan {
            continue;
        }
        let descriptors = fs::read_dir(format!("/proc/{pid}/fdinfo")).into_iter().flatten().flatten();
        for info in descriptors.filter_map(|entry| fs::read_to_string(entry.path()).ok()) {
            for line in info.lines() {
                let Some((key, value)) = line.split_once(':') else { continue };
                let Ok(id) = value.trim().parse() else { continue };
                match key {
                    "prog_id" => open.programs.insert(id),
                    "link_id" => open.links.insert(id),
                    _ => false,
                };
            }
        }
    }
    open
}
