//! Cgroups: where they are mounted, and the `docker` ones that a daemon leaves behind.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Name of the cgroup that Docker puts containers in, below the root of every hierarchy.
const DOCKER: &str = "docker";

/// The cgroups that are Docker's but were not there when this was made.
pub struct NewDockerCgroups {
    absent: Vec<PathBuf>,
}

impl NewDockerCgroups {
    /// Notes in which hierarchies there is none yet.
    pub fn since_now() -> Self {
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let dirs = hierarchies(&mounts).into_iter().map(|root| root.join(DOCKER));
        Self { absent: dirs.filter(|dir| !dir.exists()).collect() }
    }

    /// Removes those that have come since and are empty; returns what could not be removed.
    pub fn remove(&self) -> Vec<PathBuf> {
        self.absent.iter().filter(|dir| dir.exists() && !remove_tree(dir)).cloned().collect()
    }
}

/// Mount point of the hierarchy that has the memory controller: that of version 1 where there is one.
pub fn memory_root() -> Result<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").context("cannot read the mounts")?;
    let memory = hierarchies(&mounts).into_iter().filter(|root| {
        let file = |name: &str| root.join(name).exists();
        file("memory.usage_in_bytes") || file("cgroup.controllers")
    });
    let mut found: Vec<_> = memory.collect();
    // Version 2 has the controller only where version 1 does not.
    found.sort_by_key(|root| !root.join("memory.usage_in_bytes").exists());
    found.into_iter().next().context("no cgroup hierarchy with the memory controller is mounted")
}

/// Roots of the mounted cgroup hierarchies, version 1 and 2.
fn hierarchies(mounts: &str) -> Vec<PathBuf> {
    let fields = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    fields
        .filter(|fields| matches!(fields.get(2), Some(&("cgroup" | "cgroup2"))))
        .filter_map(|fields| fields.get(1).map(PathBuf::from))
        .collect()
}

/// Removes a cgroup and those below it. The kernel refuses where one still holds a process, so
/// nothing that is in use can go.
fn remove_tree(dir: &Path) -> bool {
    if let Ok(entries) = dir.read_dir() {
        for entry in entries.flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                remove_tree(&entry.path());
            }
        }
    }
    std::fs::remove_dir(dir).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hierarchies_of_both_versions_are_found() {
        let mounts = "proc /proc proc rw 0 0\ncgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0\n\
                      cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        let expected = ["/sys/fs/cgroup/memory", "/sys/fs/cgroup/unified"].map(PathBuf::from);
        assert_eq!(hierarchies(mounts), expected);
    }

    #[test]
    fn trees_with_content_stay() {
        let dir = tempfile::tempdir().unwrap();
        let (empty, full) = (dir.path().join("empty"), dir.path().join("full"));
        std::fs::create_dir_all(empty.join("a/b")).unwrap();
        std::fs::create_dir_all(full.join("a")).unwrap();
        std::fs::write(full.join("a/file"), "").unwrap();
        assert!(remove_tree(&empty) && !empty.exists());
        assert!(!remove_tree(&full) && full.join("a/file").exists());
    }
}
