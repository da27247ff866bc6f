//! Runs the real binary, and looks at it from outside: nothing here is taken from what it says about itself.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Lines};
use std::os::fd::AsRawFd;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

pub const MIB: u64 = 1 << 20;

pub fn command(line: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_spark-trace-workload"));
    command.args(line.split_whitespace());
    command
}

pub fn run(line: &str) -> Output {
    command(line).output().unwrap()
}

/// The status it leaves with and what it says, for lines that must fail.
pub fn fails(line: &str) -> (Option<i32>, String) {
    let output = run(line);
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

/// Its last line on stdout, for lines that must succeed.
pub fn report(line: &str) -> Value {
    let output = run(line);
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    last_line(&output)
}

pub fn last_line(output: &Output) -> Value {
    serde_json::from_str(std::str::from_utf8(&output.stdout).unwrap().lines().last().unwrap()).unwrap()
}

/// A directory on a disk: in a tmpfs, files would be shmem.
pub fn disk_dir() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

pub fn page_size() -> u64 {
    // SAFETY: sysconf takes a plain number.
    u64::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap()
}

/// An `alloc` which holds until a signal stops it.
pub struct Running {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    /// The process before it took anything.
    pub before: Status,
    _dir: TempDir,
}

impl Running {
    /// Starts it, notes what it has before it begins, and returns when it holds everything.
    pub fn start(line: &str) -> Self {
        Self::start_until(&format!("alloc {line} --hold 60s"), "hold")
    }

    /// The same for a whole line, which must be one that stays in the phase.
    pub fn start_until(line: &str, phase: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let go = dir.path().join("go");
        let line = format!("{line} --jsonl --wait-go {}", go.display());
        let mut child = command(&line).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut running = Self { before: Status::default(), child, lines, _dir: dir };
        running.wait_for("start");
        running.before = Status::of(running.pid());
        File::create(go).unwrap();
        running.wait_for(phase);
        running
    }

    fn wait_for(&mut self, phase: &str) {
        loop {
            let line = self.lines.next().expect("it ended early").unwrap();
            // `llm` logs besides.
            if !line.starts_with('{') {
                continue;
            }
            let line: Value = serde_json::from_str(&line).unwrap();
            assert_eq!(line["pid"], self.child.id());
            if line["phase"] == phase {
                return;
            }
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn status(&self) -> Status {
        Status::of(self.pid())
    }

    /// Asks it to stop, and returns its report.
    pub fn stop(mut self) -> Value {
        let pid = libc::pid_t::try_from(self.pid()).unwrap();
        // SAFETY: the process is our child and not waited for yet, so the number is still its.
        assert_eq!(unsafe { libc::kill(pid, libc::SIGTERM) }, 0);
        let last = self.lines.by_ref().last().unwrap().unwrap();
        let status = self.child.wait().unwrap();
        assert_eq!((status.code(), status.signal()), (Some(128 + libc::SIGTERM), None));
        let report: Value = serde_json::from_str(&last).unwrap();
        assert_eq!(report["schema"], "spark-trace/workload");
        assert_eq!(report["stopped_by_signal"], libc::SIGTERM);
        report
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // After a failed assertion; else it has ended and been waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// /proc/PID/status, in bytes.
#[derive(Debug, Clone, Copy, Default)]
pub struct Status {
    pub rss_anon: u64,
    pub rss_file: u64,
    pub rss_shmem: u64,
    pub page_tables: u64,
    pub virt: u64,
    pub threads: u64,
}

impl Status {
    pub fn of(pid: u32) -> Self {
        let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let number = |name: &str| -> u64 {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap();
            line.split_whitespace().next().unwrap().parse().unwrap()
        };
        Self {
            rss_anon: number("RssAnon") << 10,
            rss_file: number("RssFile") << 10,
            rss_shmem: number("RssShmem") << 10,
            page_tables: number("VmPTE") << 10,
            virt: number("VmSize") << 10,
            threads: number("Threads"),
        }
    }
}

/// What the process takes besides on its heap and stacks; and, either way, what the kernel has not yet summed
/// up from its per-CPU counters.
pub fn slack() -> u64 {
    let cpus = std::thread::available_parallelism().unwrap().get() as u64;
    page_size() * (4 * cpus).max(64)
}

#[track_caller]
pub fn assert_between(value: u64, least: u64, most: u64) {
    assert!((least..=most).contains(&value), "{value} is not in {least}..={most}");
}

/// It grew by the requested bytes, give or take the slack.
#[track_caller]
pub fn assert_grew(before: u64, after: u64, grown: u64) {
    assert_between(after + slack(), before + grown, before + grown + 2 * slack());
}

/// Bytes of the file in the page cache, by mincore: another way than the program's own, where that has
/// cachestat.
pub fn resident(path: &Path) -> u64 {
    let file = File::open(path).unwrap();
    let len = usize::try_from(file.metadata().unwrap().len()).unwrap();
    let page = usize::try_from(page_size()).unwrap();
    let mut pages = vec![0_u8; len.div_ceil(page)];
    // SAFETY: a new mapping of a file that no test changes meanwhile; `pages` has a byte for each of its
    // pages, and the mapping is not used after it is unmapped.
    unsafe {
        let fd = file.as_raw_fd();
        let address = libc::mmap(std::ptr::null_mut(), len, libc::PROT_READ, libc::MAP_SHARED, fd, 0);
        assert_ne!(address, libc::MAP_FAILED);
        assert_eq!(libc::mincore(address, len, pages.as_mut_ptr()), 0);
        libc::munmap(address, len);
    }
    pages.iter().filter(|page| **page & 1 != 0).count() as u64 * page_size()
}

/// Waits until the file has from `least` to `most` bytes in the page cache. It takes a moment: mincore does
/// not count pages which readahead is still bringing in. And a sixteenth may be missing: a machine may
/// reclaim file pages at any time, without being short of memory (DAMON does in some virtual machines).
#[track_caller]
pub fn assert_resident(path: &Path, least: u64, most: u64) {
    let least = least - least / 16;
    let begin = Instant::now();
    while !(least..=most).contains(&resident(path)) && begin.elapsed() < Duration::from_secs(5) {
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_between(resident(path), least, most);
}

/// A file made by the program's own `file --create`.
pub fn made_file(dir: &TempDir, name: &str, size: &str) -> PathBuf {
    let path = dir.path().join(name);
    let output = run(&format!("file --create {} --size {size}", path.display()));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    path
}

/// The only source of this kind.
#[track_caller]
pub fn source<'a>(report: &'a Value, kind: &str) -> &'a Value {
    let mut found = report["sources"].as_array().unwrap().iter().filter(|source| source["kind"] == kind);
    let source = found.next().unwrap_or_else(|| panic!("no source of kind {kind}"));
    assert!(found.next().is_none());
    source
}

pub fn phases(report: &Value) -> Vec<&str> {
    report["phases"].as_array().unwrap().iter().map(|phase| phase["phase"].as_str().unwrap()).collect()
}
