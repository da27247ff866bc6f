//! Cgroups, read by the test itself: v1 or v2, whichever holds the memory controller.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Mount point of the hierarchy with the memory controller, and whether that is v2.
pub fn memory_root() -> (PathBuf, bool) {
    let mounts = fs::read_to_string("/proc/mounts").unwrap();
    let fields: Vec<Vec<&str>> = mounts.lines().map(|line| line.split(' ').collect()).collect();
    let v1 = fields.iter().find(|f| f[2] == "cgroup" && f[3].split(',').any(|option| option == "memory"));
    let found = v1.or_else(|| fields.iter().find(|f| f[2] == "cgroup2"));
    (PathBuf::from(found.expect("no cgroup hierarchy is mounted")[1]), v1.is_none())
}

/// Path of a process's memory cgroup below the mount point.
pub fn of_process(pid: u32) -> Option<String> {
    path_in(&fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?)
}

/// The same in a text like /proc/PID/cgroup.
pub fn path_in(text: &str) -> Option<String> {
    let (_, v2) = memory_root();
    let lines = text.lines().map(|line| line.splitn(3, ':').collect::<Vec<_>>());
    let mut ours = lines
        .filter(|f| f.len() == 3 && if v2 { f[0] == "0" } else { f[1].split(',').any(|c| c == "memory") });
    ours.next().map(|fields| fields[2].to_owned())
}

/// What the kernel charges to a cgroup: usage, and anonymous memory.
#[derive(Debug, Clone, Copy)]
pub struct Charged {
    pub usage: i64,
    pub anon: i64,
    pub shmem: i64,
}

pub fn charged(path: &str) -> Charged {
    let (root, v2) = memory_root();
    let dir = root.join(path.trim_start_matches('/'));
    let read = |name: &str| fs::read_to_string(dir.join(name)).unwrap();
    let stat = read("memory.stat");
    let value = |key: &str| -> i64 {
        let line = stat.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {key} in memory.stat")).parse().unwrap()
    };
    let number = |name: &str| read(name).trim().parse().unwrap();
    if v2 {
        Charged { usage: number("memory.current"), anon: value("anon"), shmem: value("shmem") }
    } else {
        let usage = number("memory.usage_in_bytes");
        Charged { usage, anon: value("total_rss"), shmem: value("total_shmem") }
    }
}

/// Directories that native runs of spark-trace were put in, of process `pid` of it.
pub fn leaves_of(pid: u32) -> Vec<PathBuf> {
    let (root, _) = memory_root();
    let prefix = format!("spark-trace-{pid}-");
    let entries = fs::read_dir(root).unwrap().flatten();
    let ours = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix));
    ours.map(|entry| entry.path()).collect()
}

/// Kills what is in the leaves of a spark-trace that was killed, and waits until nothing is. By the cgroup, because
/// a process in the middle of `exec` has no command line to find it by.
pub fn empty_leaves_of(pid: u32) {
    super::wait_for(&format!("the leaves of {pid} to be empty"), || {
        let inside: Vec<u32> = leaves_of(pid).iter().flat_map(|leaf| processes(leaf)).collect();
        for process in &inside {
            super::process::signal(*process, libc::SIGKILL);
        }
        inside.is_empty().then_some(())
    });
}

/// Processes in a cgroup, without those in cgroups below it.
fn processes(dir: &Path) -> Vec<u32> {
    let list = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
    list.lines().filter_map(|line| line.parse().ok()).collect()
}

/// A cgroup of the test's own, at the top of the hierarchy; removed when dropped.
pub struct Own {
    pub dir: PathBuf,
    /// Below the mount point.
    pub path: String,
}

impl Own {
    pub fn create(name: &str) -> Self {
        let (root, v2) = memory_root();
        let name = format!("test-of-spark-trace-{}-{name}", std::process::id());
        let dir = root.join(&name);
        fs::create_dir(&dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
        let own = Self { path: format!("/{name}"), dir };
        let has_memory = own.dir.join("memory.stat").is_file();
        assert!(has_memory, "v2 is {v2}, but {} has no memory files", own.dir.display());
        own
    }

    /// Makes `command` start in it.
    pub fn start_in(&self, command: &mut Command) {
        let procs = fs::OpenOptions::new().write(true).open(self.dir.join("cgroup.procs")).unwrap();
        let fd = std::os::fd::IntoRawFd::into_raw_fd(procs);
        let move_in = move || {
            // SAFETY: the buffer is one byte long; write is async-signal-safe. "0" is the writer itself.
            let written = unsafe { libc::write(fd, c"0".as_ptr().cast(), 1) };
            if written == 1 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
        };
        // SAFETY: the closure makes one async-signal-safe call and allocates nothing.
        unsafe { command.pre_exec(move_in) };
    }

    /// Makes a cgroup below it and moves a process there.
    pub fn move_below(&self, name: &str, pid: u32) -> PathBuf {
        let dir = self.dir.join(name);
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("cgroup.procs"), pid.to_string()).unwrap();
        dir
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        // Its processes have just been killed; the kernel takes a moment to see them off.
        for _ in 0..200 {
            let below = fs::read_dir(&self.dir).into_iter().flatten().flatten();
            for entry in below.filter(|entry| entry.file_type().is_ok_and(|t| t.is_dir())) {
                let _ = fs::remove_dir(entry.path());
            }
            if fs::remove_dir(&self.dir).is_ok() || !self.dir.exists() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        eprintln!("cannot remove {}", self.dir.display());
    }
}
