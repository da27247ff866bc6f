//! Something for the hooks to see: a cgroup as a native run gets it, a process in it, a file.

use std::{
    fs::{self, File},
    io::{self, Write},
    os::{
        fd::AsRawFd,
        unix::{fs::OpenOptionsExt, process::CommandExt},
    },
    process::{Command, Stdio},
};

use crate::{
    cgroup::{Layout, Leaf},
    now_ns,
};

/// What could be done.
#[derive(Debug)]
pub struct Exercise {
    pub leaf: Result<LeafSeen, String>,
}

/// A leaf that was made, used and removed.
#[derive(Debug, PartialEq, Eq)]
pub struct LeafSeen {
    pub path: String,
    /// Its highest charge can be read.
    pub has_peak: bool,
}

pub fn run(layout: Option<&Layout>) -> Exercise {
    // Only for the hooks on the page cache to see: no matter if there is no room for it.
    let _ = touch_file();
    let leaf = layout.map_or_else(|| Err("no cgroup hierarchy to make it in".to_owned()), use_leaf);
    Exercise { leaf }
}

fn use_leaf(layout: &Layout) -> Result<LeafSeen, String> {
    let leaf = Leaf::create(layout).map_err(|e| e.to_string())?;
    let dir = layout.dir(&leaf.path);
    let peak = if layout.is_v2() { "memory.peak" } else { "memory.max_usage_in_bytes" };
    let seen = LeafSeen { path: leaf.path.clone(), has_peak: fs::read_to_string(dir.join(peak)).is_ok() };
    let ran = leaf.procs_file().map_err(|e| e.to_string()).and_then(|procs| {
        run_inside(procs).map_err(|e| format!("cannot run a process in {}: {e}", dir.display()))
    });
    leaf.remove().map_err(|e| e.to_string())?;
    ran.map(|()| seen)
}

/// Runs this program inside, with arguments that make it end at once.
fn run_inside(procs: File) -> io::Result<()> {
    let mut command = Command::new("/proc/self/exe");
    command.arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let move_in = move || {
        // SAFETY: a pointer to one byte, of which one is read; "0" is the writing process itself.
        let written = unsafe { libc::write(procs.as_raw_fd(), c"0".as_ptr().cast(), 1) };
        if written == 1 { Ok(()) } else { Err(io::Error::last_os_error()) }
    };
    // SAFETY: between fork and exec the closure makes one async-signal-safe call and allocates nothing.
    unsafe { command.pre_exec(move_in) };
    // How it exits does not matter.
    command.status().map(drop)
}

fn touch_file() -> io::Result<()> {
    let path = std::env::temp_dir().join(format!("spark-trace-doctor-{}-{}", std::process::id(), now_ns()));
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
    let written = file.write_all(&[0; 64 << 10]);
    fs::remove_file(&path)?;
    written
}
