//! Cgroups as the machine mounts them: where the memory controller is, whose cgroup is whose, and the
//! leaf that a native run gets.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use thiserror::Error;

use spark_trace_recording::cgroup_path::{is_at_or_below, leaf_name, leaf_owner};

#[derive(Debug, Error)]
pub enum CgroupError {
    #[error("cannot read {path}: {cause}")]
    Read { path: PathBuf, cause: io::Error },
    #[error("no cgroup hierarchy with the memory controller is mounted; mount cgroup2 at /sys/fs/cgroup")]
    NoMemoryController,
    #[error(
        "cannot {action} {path}: {cause}; run as root, or use --no-cgroup to leave the command where it is"
    )]
    Leaf { action: &'static str, path: PathBuf, cause: io::Error },
}

/// Which hierarchies there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    V1,
    V2,
    /// Both mounted, the memory controller on v1.
    Hybrid,
}

impl Version {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V1 => "v1",
            Self::V2 => "v2",
            Self::Hybrid => "hybrid",
        }
    }
}

/// How this machine mounts cgroups.
#[derive(Debug, Clone)]
pub struct Layout {
    pub version: Version,
    /// Mount point of the hierarchy that holds the memory controller.
    pub memory_root: PathBuf,
    /// Its number in the kernel: 0 is cgroup v2.
    pub memory_hierarchy_id: u32,
}

impl Layout {
    /// Reads the mounts of this process.
    pub fn detect() -> Result<Self, CgroupError> {
        let mounts = read("/proc/self/mountinfo")?;
        let controllers = read("/proc/cgroups").unwrap_or_default();
        Self::parse(&mounts, &controllers).ok_or(CgroupError::NoMemoryController)
    }

    fn parse(mountinfo: &str, proc_cgroups: &str) -> Option<Self> {
        let mut v1_memory = None;
        let mut v2 = None;
        for line in mountinfo.lines() {
            // ... mount-point options - type source super-options
            let (left, right) = line.split_once(" - ")?;
            let mount_point = PathBuf::from(left.split(' ').nth(4)?);
            let mut right = right.split(' ');
            match right.next()? {
                "cgroup" if right.nth(1)?.split(',').any(|o| o == "memory") => {
                    v1_memory.get_or_insert(mount_point);
                }
                "cgroup2" => {
                    v2.get_or_insert(mount_point);
                }
                _ => {}
            }
        }
        match (v1_memory, v2) {
            (Some(memory_root), v2) => Some(Self {
                version: if v2.is_some() { Version::Hybrid } else { Version::V1 },
                memory_root,
                memory_hierarchy_id: proc_cgroups
                    .lines()
                    .find_map(|l| l.strip_prefix("memory\t"))?
                    .split('\t')
                    .next()?
                    .parse()
                    .ok()?,
            }),
            (None, Some(memory_root)) => {
                Some(Self { version: Version::V2, memory_root, memory_hierarchy_id: 0 })
            }
            (None, None) => None,
        }
    }

    pub const fn is_v2(&self) -> bool {
        matches!(self.version, Version::V2)
    }

    /// Directory of a path below the memory hierarchy's mount point.
    pub fn dir(&self, path: &str) -> PathBuf {
        self.memory_root.join(path.trim_start_matches('/'))
    }

    /// Path of `dir` below the mount point, with a leading slash.
    pub fn path_of(&self, dir: &Path) -> Option<String> {
        let below = dir.strip_prefix(&self.memory_root).ok()?;
        Some(format!("/{}", below.display()))
    }

    /// Memory cgroup of a process, as a path below the mount point.
    pub fn of_process(&self, pid: u32) -> Result<String, CgroupError> {
        let text = read(&format!("/proc/{pid}/cgroup"))?;
        let path = text.lines().find_map(|line| {
            let mut parts = line.splitn(3, ':');
            let (_, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
            let ours = if self.is_v2() {
                controllers.is_empty()
            } else {
                controllers.split(',').any(|c| c == "memory")
            };
            ours.then(|| path.to_owned())
        });
        path.ok_or(CgroupError::NoMemoryController)
    }

    /// Whether no process is in a cgroup or below it, or there is no such cgroup.
    pub fn is_empty(&self, path: &str) -> bool {
        let dir = self.dir(path);
        // cgroup v2 counts, with all that is below: a process that moves there is in one of them at any time. On v1 one that
        // moves while its cgroup is looked for is missed, so the processes themselves are looked at, too.
        populated(&dir)
            .map_or_else(|| has_no_process(&dir) && !self.has_process_below(path), |populated| !populated)
    }

    /// Whether a process is in `root` or below it, by what each process says of itself. Processes that have ended say that
    /// they are in "/" on v1 (kernel/cgroup/cgroup.c proc_cgroup_show).
    fn has_process_below(&self, root: &str) -> bool {
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        let mut pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        pids.any(|pid| self.of_process(pid).is_ok_and(|path| is_at_or_below(&path, root)))
    }

    /// All cgroups at or below `path`: (id, path).
    pub fn subtree(&self, path: &str) -> Vec<(u64, String)> {
        let mut found = Vec::new();
        let mut todo = vec![self.dir(path)];
        while let Some(dir) = todo.pop() {
            if let (Some(id), Some(path)) = (id_of(&dir), self.path_of(&dir)) {
                found.push((id, path));
            }
            todo.extend(children(&dir));
        }
        found
    }
}

/// Id of a cgroup: its directory's inode number, the same that the kernel side reads.
pub fn id_of(dir: &Path) -> Option<u64> {
    fs::metadata(dir).ok().map(|m| m.ino())
}

/// Pids in a cgroup, without those of its descendants.
pub fn processes(dir: &Path) -> Vec<u32> {
    fs::read_to_string(dir.join("cgroup.procs"))
        .map(|text| text.lines().filter_map(|l| l.trim().parse().ok()).collect())
        .unwrap_or_default()
}

/// Whether a process is in a cgroup of v2 or below it.
fn populated(dir: &Path) -> Option<bool> {
    let events = fs::read_to_string(dir.join("cgroup.events")).ok()?;
    events.lines().find_map(|line| line.strip_prefix("populated ")).map(|populated| populated != "0")
}

fn has_no_process(dir: &Path) -> bool {
    processes(dir).is_empty() && children(dir).iter().all(|child| has_no_process(child))
}

fn children(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_type().is_ok_and(|t| t.is_dir())).map(|entry| entry.path()).collect()
}

/// The cgroup a native command runs in, so that it is accounted the way a container is.
///
/// It lies at the top of the hierarchy, as a container engine's do. Its name holds our pid and start
/// time: what a killed spark-trace leaves behind is recognised and removed at the next start.
#[derive(Debug)]
pub struct Leaf {
    pub path: String,
    pub id: u64,
    dir: PathBuf,
    memory_root: PathBuf,
}

impl Leaf {
    pub fn create(layout: &Layout) -> Result<Self, CgroupError> {
        let leaf_error = |action, path: &Path| {
            let path = path.to_owned();
            move |cause| CgroupError::Leaf { action, path, cause }
        };
        if layout.is_v2() {
            // Without this the leaf would have no memory files. Writing it again changes nothing.
            let control = layout.memory_root.join("cgroup.subtree_control");
            let enabled = fs::read_to_string(&control).unwrap_or_default();
            if !enabled.split_whitespace().any(|c| c == "memory") {
                fs::write(&control, "+memory")
                    .map_err(leaf_error("enable the memory controller in", &control))?;
            }
        }
        let pid = std::process::id();
        let name = leaf_name(pid, start_time(pid).unwrap_or(0));
        let dir = layout.memory_root.join(&name);
        fs::create_dir(&dir).map_err(leaf_error("create", &dir))?;
        let id = id_of(&dir).ok_or_else(|| CgroupError::Leaf {
            action: "look at",
            path: dir.clone(),
            cause: io::ErrorKind::NotFound.into(),
        })?;
        Ok(Self { path: format!("/{name}"), id, dir, memory_root: layout.memory_root.clone() })
    }

    /// The file a process writes "0" to in order to move in.
    pub fn procs_file(&self) -> Result<fs::File, CgroupError> {
        let path = self.dir.join("cgroup.procs");
        fs::OpenOptions::new().write(true).open(&path).map_err(|cause| CgroupError::Leaf {
            action: "open",
            path,
            cause,
        })
    }

    /// Processes still inside.
    pub fn processes(&self) -> Vec<u32> {
        processes(&self.dir)
    }

    /// Moves what is left inside to the top and removes the cgroup.
    pub fn remove(self) -> Result<(), CgroupError> {
        remove_leaf(&self.memory_root, &self.dir).map_err(|cause| CgroupError::Leaf {
            action: "remove",
            path: self.dir.clone(),
            cause,
        })
    }
}

fn remove_leaf(root: &Path, dir: &Path) -> io::Result<()> {
    // A cgroup just emptied may still be busy for a moment.
    let mut last = Ok(());
    for _ in 0..50 {
        for pid in processes(dir) {
            // It may have ended since.
            let _ = fs::write(root.join("cgroup.procs"), pid.to_string());
        }
        // The command may have made cgroups of its own in it.
        for child in children(dir) {
            let _ = remove_leaf(root, &child);
        }
        last = fs::remove_dir(dir);
        if last.is_ok() {
            return last;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    last
}

/// How often, and after how long, the removal of a leaf without a process is tried again.
const STALE_TRIES: u32 = 10;
const STALE_PAUSE: Duration = Duration::from_millis(10);

/// Removes leaves whose spark-trace is gone and that hold no process any more. Returns their names.
pub fn remove_stale_leaves(layout: &Layout) -> Vec<String> {
    let Ok(entries) = fs::read_dir(&layout.memory_root) else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let owner = leaf_owner(&name)?;
            let owned = start_time(owner.0) == Some(owner.1);
            (!owned && remove_stale_leaf(&entry.path())).then_some(name)
        })
        .collect()
}

/// A process that is ending has left the list of processes and still keeps its cgroup busy (`css_task_iter_advance`
/// and `cgroup_destroy_locked` of kernel/cgroup/cgroup.c).
fn remove_stale_leaf(dir: &Path) -> bool {
    for _ in 0..STALE_TRIES {
        match fs::remove_dir(dir) {
            Ok(()) => return true,
            Err(e) if e.kind() == io::ErrorKind::ResourceBusy && processes(dir).is_empty() => {
                std::thread::sleep(STALE_PAUSE);
            }
            Err(_) => return false,
        }
    }
    false
}

/// Start time of a process in clock ticks since boot: with the pid it names a process for good.
fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything; the fields after it do not.
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

fn read(path: &str) -> Result<String, CgroupError> {
    fs::read_to_string(path).map_err(|cause| CgroupError::Read { path: path.into(), cause })
}

#[cfg(test)]
mod tests {
    use super::*;

    const V2: &str = "30 24 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n";
    const V1: &str = "33 30 0:29 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n";
    const CPU: &str = "34 30 0:30 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n";
    const PROC_CGROUPS: &str =
        "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpu\t1\t3\t1\nmemory\t4\t3\t1\n";

    #[test]
    fn layouts() {
        let v2 = Layout::parse(V2, "").unwrap();
        assert_eq!((v2.version, v2.memory_hierarchy_id), (Version::V2, 0));
        let hybrid = Layout::parse(&format!("{V2}{CPU}{V1}"), PROC_CGROUPS).unwrap();
        assert_eq!((hybrid.version, hybrid.memory_hierarchy_id), (Version::Hybrid, 4));
        assert_eq!(hybrid.memory_root, Path::new("/sys/fs/cgroup/memory"));
        let v1 = Layout::parse(V1, PROC_CGROUPS).unwrap();
        assert_eq!(v1.version, Version::V1);
        assert!(Layout::parse(CPU, PROC_CGROUPS).is_none());
    }

    #[test]
    fn a_cgroup_is_empty_where_no_process_is_in_it_or_below() {
        let dir = tempfile::tempdir().unwrap();
        let layout =
            Layout { version: Version::V1, memory_root: dir.path().to_owned(), memory_hierarchy_id: 4 };
        let is_empty = |path: &str| layout.is_empty(path);
        assert!(is_empty("/a/gone"));
        let below = dir.path().join("a/b");
        fs::create_dir_all(&below).unwrap();
        assert!(is_empty("/a"));
        // As on v1: each has its own only.
        let own = dir.path().join("a");
        fs::write(own.join("cgroup.procs"), "").unwrap();
        fs::write(below.join("cgroup.procs"), "17\n").unwrap();
        assert!(!is_empty("/a"));
        fs::write(below.join("cgroup.procs"), "").unwrap();
        assert!(is_empty("/a"));
        // As on v2, where the process may be in one that was made this moment.
        fs::write(own.join("cgroup.events"), "populated 1\nfrozen 0\n").unwrap();
        assert!(!is_empty("/a"));
        fs::write(own.join("cgroup.events"), "populated 0\nfrozen 0\n").unwrap();
        assert!(is_empty("/a"));
    }

    #[test]
    fn a_process_says_itself_where_it_is() {
        let layout = Layout::detect().unwrap();
        let own = layout.of_process(std::process::id()).unwrap();
        assert!(layout.has_process_below(&own));
        assert!(!layout.has_process_below(&format!("{}/none-is-here", own.trim_end_matches('/'))));
    }

    #[test]
    fn own_start_time_is_stable() {
        let pid = std::process::id();
        assert!(start_time(pid).is_some());
        assert_eq!(start_time(pid), start_time(pid));
    }
}
