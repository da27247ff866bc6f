//! What the kernel and container tests share: running the real binary, and truth from elsewhere to judge it by.
//!
//! Nothing here uses the code under test as its own truth. Truth is the reference workload's own report, the
//! kernel's files read by the test, and BPF objects listed through bpf(2).

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

pub mod bpf;
pub mod cache;
pub mod cgroup;
pub mod clock;
#[allow(dead_code, reason = "only container tests use all of it")]
pub mod docker;
pub mod elf;
pub mod field;
pub mod field_checks;
pub mod journal;
pub mod ledger;
pub mod oracle;
pub mod process;
pub mod python;
pub mod stand_in;
pub mod swap;
pub mod tmux;

pub use ledger::{Faults, MIB, array, int, losses, source, text, worst};
pub use process::{Recorded, Running, record, record_words, spark_trace};

/// Nothing here takes longer, on a busy machine either.
pub fn limit() -> Duration {
    // An emulated machine is slower, and not alone on the one that it runs on.
    Duration::from_secs(if oracle::machine_is_ours() { 240 } else { 60 })
}

/// The static reference workload.
pub fn workload() -> String {
    std::env::var("SPARK_TRACE_WORKLOAD").expect("SPARK_TRACE_WORKLOAD is not set: run `cargo xtask test`")
}

/// The workload that can load a CUDA driver: linked dynamically, unlike the other.
pub fn cuda_workload() -> String {
    std::env::var("SPARK_TRACE_CUDA_WORKLOAD")
        .expect("SPARK_TRACE_CUDA_WORKLOAD is not set: run `cargo xtask test`")
}

/// A directory on a disk: in a tmpfs, files would be shmem.
pub fn disk_dir() -> TempDir {
    tempfile::tempdir_in(disk_parent()).unwrap()
}

/// Where [`disk_dir`] makes directories: $SPARK_TRACE_TEST_DIR where tests run on another machine than the one
/// that built them.
pub fn disk_parent() -> PathBuf {
    let parent =
        std::env::var_os("SPARK_TRACE_TEST_DIR").unwrap_or_else(|| env!("CARGO_TARGET_TMPDIR").into());
    fs::create_dir_all(&parent).unwrap();
    parent.into()
}

/// Path of `name` in `dir`, as text for a command line.
pub fn path(dir: &TempDir, name: &str) -> String {
    dir.path().join(name).to_str().unwrap().to_owned()
}

/// Makes a file of so many MiB, on the disk and out of the page cache.
pub fn cold_file(path: &str, mib: u64) {
    workload_must(&format!("file --create {path} --size {mib}M"));
}

/// Takes a file out of the page cache.
pub fn drop_from_cache(path: &str) {
    workload_must(&format!("file --drop {path}"));
}

fn workload_must(line: &str) {
    let output = std::process::Command::new(workload()).args(line.split_whitespace()).output().unwrap();
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A JSON file.
pub fn json(path: impl AsRef<Path>) -> Value {
    let path = path.as_ref();
    let text = fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_slice(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Waits for a condition; panics with `what` where it does not come true in time.
pub fn wait_for<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(start.elapsed() < limit(), "waited {:?} for {what}", limit());
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Processes whose command line has `word` as one of its arguments.
pub fn processes_with(word: &str) -> Vec<u32> {
    pids().filter(|pid| arguments(*pid).iter().any(|argument| argument == word)).collect()
}

/// In the middle of exec a process has no arguments for a moment: the new memory has been taken, and they are not in it
/// yet (begin_new_exec in fs/exec.c, create_elf_tables in fs/binfmt_elf.c). One that never has any is soon given up.
fn arguments(pid: u32) -> Vec<String> {
    const LOOKS: usize = 100;
    let read = || fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    // Neither a thread of the kernel nor a process that has ended has an executable.
    let in_exec = || fs::read_link(format!("/proc/{pid}/exe")).is_ok();
    let mut line = read();
    for _ in 0..LOOKS {
        if !line.is_empty() || !in_exec() {
            break;
        }
        std::thread::sleep(Duration::from_millis(1));
        line = read();
    }
    line.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect()
}

pub fn pids() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// Kills the processes that `word` names and waits until they are gone.
pub fn kill_all_with(word: &str) {
    wait_for(&format!("the processes with {word} to end"), || {
        let left = processes_with(word);
        for pid in &left {
            process::signal(*pid, libc::SIGKILL);
        }
        left.is_empty().then_some(())
    });
}

/// Where a program lies in the PATH.
pub fn in_path(program: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut candidates = std::env::split_paths(&path).map(|dir| dir.join(program));
    candidates.find(|file| file.is_file()).unwrap_or_else(|| panic!("no {program} in PATH"))
}

/// A line of /proc/meminfo, in bytes.
pub fn meminfo(key: &str) -> i64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    let kib: i64 = line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).expect("no such line");
    kib << 10
}

/// Bytes of a transparent huge page, on a kernel that has them: 2 MiB, or 32 MiB of pages of 16 KiB.
pub fn thp_size() -> Option<i64> {
    let text = fs::read_to_string("/sys/kernel/mm/transparent_hugepage/hpage_pmd_size").ok()?;
    Some(text.trim().parse().unwrap())
}

/// Kills the processes with exactly this command line. Only for lines that nobody else uses.
pub fn kill_children_named(line: &[&str]) {
    for pid in pids().filter(|pid| arguments(*pid).iter().filter(|word| !word.is_empty()).eq(line.iter())) {
        process::signal(pid, libc::SIGKILL);
    }
}

/// Inode number of a file.
pub fn inode(path: &str) -> u64 {
    std::os::unix::fs::MetadataExt::ino(&fs::metadata(path).unwrap())
}
