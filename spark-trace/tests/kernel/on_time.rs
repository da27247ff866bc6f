//! Readings come on time whatever happens, and one that does not is reported; nothing but the user ends a recording.

use std::ffi::CString;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::Value;
use spark_trace_recording::journal::{Entry, SeriesId};

use crate::support::oracle::monotonic_ns;
use crate::support::{self, Recorded, Running, array, int, journal, spark_trace, wait_for};

const SECOND: i64 = 1_000_000_000;
/// Readings further apart than so many intervals are a gap.
const INTERVALS: i64 = 3;

/// Mappings made and unmade by this process as fast as it can, until it is dropped.
struct Storm {
    goes_on: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Storm {
    fn begin() -> Self {
        let goes_on = Arc::new(AtomicBool::new(true));
        let thread = || {
            let goes_on = Arc::clone(&goes_on);
            std::thread::spawn(move || {
                while goes_on.load(Ordering::Relaxed) {
                    map_and_unmap(2 << 20);
                }
            })
        };
        let threads = vec![thread(), thread()];
        Self { goes_on, threads }
    }
}

impl Drop for Storm {
    fn drop(&mut self) {
        self.goes_on.store(false, Ordering::Relaxed);
        self.threads.drain(..).for_each(|thread| thread.join().unwrap());
    }
}

fn map_and_unmap(length: usize) {
    // SAFETY: a new mapping, wherever the kernel has room, that nobody touches before it is gone.
    unsafe {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let start = libc::mmap(std::ptr::null_mut(), length, libc::PROT_READ, flags, -1, 0);
        assert_ne!(start, libc::MAP_FAILED);
        libc::munmap(start, length);
    }
}

/// Times of the readings since the target began, and the gaps among them that the recording must count.
fn gaps(recording: &Value) -> (usize, Vec<i64>) {
    let system = &recording["samples"]["system"];
    let times = |name: &str| array(&system[name]).iter().map(int).collect::<Vec<_>>();
    let (begin, end) = (times("begin_ns"), times("end_ns"));
    let started = int(&recording["target"]["started_ns"]);
    let limit = INTERVALS * int(&recording["tool"]["interval_ns"]);
    let since = begin.iter().filter(|begin| **begin >= started).count();
    let apart =
        begin[1..].iter().zip(&end).filter(|(_, end)| **end >= started).map(|(begin, end)| begin - end);
    (since, apart.filter(|apart| *apart > limit).collect())
}

/// What the recording says of gaps is what its readings show. The first may lie before the watch began.
fn are_counted(recorded: &Recorded) -> (usize, Vec<i64>) {
    let recording = recorded.recording();
    let (readings, gaps) = gaps(&recording);
    let said = &recording["health"]["gaps"];
    let counted = int(&said["count"]);
    assert!(
        gaps.len().abs_diff(usize::try_from(counted).unwrap()) <= 1,
        "{said}, and the readings have {gaps:?}"
    );
    if let Some(longest) = gaps.iter().max().filter(|_| counted > 0) {
        assert!(int(&said["longest_ns"]) <= longest + SECOND / 10, "{said}, and the readings have {gaps:?}");
    }
    (readings, gaps)
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn in_a_storm_of_mappings_levels_are_read_and_the_end_is_heard() {
    let dir = support::disk_dir();
    let storm = Storm::begin();
    let running = Running::start(&support::path(&dir, "storm.json"), &["--system", "--system-calls", "on"]);
    // A machine with two CPUs is overloaded now. That there are readings at all is what the storm used to prevent.
    let journal = support::process::partial(Path::new(&support::path(&dir, "storm.json")));
    wait_for("twenty readings", || {
        let is_start = |entry: &Entry| matches!(entry, Entry::Phase(phase) if phase.name == "start");
        let is_reading =
            |entry: &Entry| matches!(entry, Entry::Sample(sample) if sample.series == SeriesId::System);
        let since = journal::entries(&journal)?.skip_while(|entry| !is_start(entry));
        (since.filter(is_reading).count() >= 20).then_some(())
    });
    let sent_ns = monotonic_ns();
    running.signal(libc::SIGTERM);
    let recorded = running.finish().exited(0);
    drop(storm);
    let recording = recorded.recording();
    let took = int(&recording["target"]["ended_ns"]) - sent_ns;
    // Half a second where the machine is not overloaded.
    assert!(took < 5 * SECOND, "the trace went on for {took} ns");
    assert!(!array(&recording["provenance"]["mappings"]).is_empty(), "no storm");
    let (readings, _) = are_counted(&recorded);
    assert!(readings >= 20, "{readings}");
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_recorder_that_was_stopped_says_for_how_long_it_did_not_read() {
    const STOPPED: i64 = 2 * SECOND;
    let dir = support::disk_dir();
    let running = Running::start(&support::path(&dir, "stopped.json"), &["--", "sleep", "600"]);
    running.reads(3);
    running.signal(libc::SIGSTOP);
    let stopped_ns = monotonic_ns();
    wait_for("the time to go by", || {
        std::thread::sleep(Duration::from_millis(50));
        (monotonic_ns() - stopped_ns >= STOPPED).then_some(())
    });
    running.signal(libc::SIGCONT);
    running.reads(3);
    running.signal(libc::SIGTERM);
    let recorded = running.finish().exited(128 + libc::SIGTERM);
    let (_, gaps) = are_counted(&recorded);
    assert!(gaps.iter().any(|gap| *gap >= STOPPED), "{gaps:?}");
    let longest = int(&recorded.recording()["health"]["gaps"]["longest_ns"]);
    assert!(longest >= STOPPED, "{longest}");
    let names_the_gap =
        |text: &str| text.lines().any(|line| line.contains("WARNING") && line.contains("not read for"));
    assert!(names_the_gap(&recorded.stderr), "{}", recorded.stderr);
    assert!(names_the_gap(&recorded.table()), "{}", recorded.table());
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_terminal_that_is_closed_ends_the_command_and_keeps_the_recording() {
    let dir = support::disk_dir();
    let running = Running::start(&support::path(&dir, "closed.json"), &["--", "sleep", "600"]);
    running.reads(2);
    running.signal(libc::SIGHUP);
    let recorded = running.finish().exited(128 + libc::SIGHUP);
    assert_eq!(int(&recorded.recording()["target"]["exit_code"]), i64::from(128 + libc::SIGHUP));
    assert!(!recorded.partial().exists());
}

/// A file system of so many KiB, until it is dropped.
struct Small(tempfile::TempDir);

impl Small {
    fn mount(kib: u32) -> Self {
        let dir = support::disk_dir();
        let target = CString::new(dir.path().to_str().unwrap()).unwrap();
        let options = CString::new(format!("size={kib}k,nr_inodes=32")).unwrap();
        // SAFETY: all are strings that end in a zero byte.
        let mounted = unsafe {
            libc::mount(c"tmpfs".as_ptr(), target.as_ptr(), c"tmpfs".as_ptr(), 0, options.as_ptr().cast())
        };
        assert_eq!(mounted, 0, "{}", std::io::Error::last_os_error());
        Self(dir)
    }

    fn free(&self) -> u64 {
        let path = CString::new(self.0.path().to_str().unwrap()).unwrap();
        // SAFETY: the path ends in a zero byte, and all zeros is a valid statvfs.
        let about = unsafe {
            let mut about: libc::statvfs = std::mem::zeroed();
            assert_eq!(libc::statvfs(path.as_ptr(), &raw mut about), 0);
            about
        };
        about.f_bavail
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let path = CString::new(self.0.path().to_str().unwrap()).unwrap();
        // SAFETY: the path ends in a zero byte.
        unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH) };
    }
}

/// Runs a command that ends with 7 when it may, once `is_full`; says where the recording is.
fn runs_into(running: Running, go: &Path, is_full: impl Fn() -> bool) -> Recorded {
    wait_for("the journal to find no room", || is_full().then_some(()));
    // The command goes on, and so do the readings, which the journal cannot show.
    let (pid, path) = (running.pid(), |pid| format!("/proc/{pid}/task/{pid}/children"));
    assert!(!std::fs::read_to_string(path(pid)).unwrap().trim().is_empty(), "the command has ended");
    std::fs::write(go, "").unwrap();
    let mut recorded = running.finish().exited(7);
    if !recorded.output.exists() {
        recorded.output.as_mut_os_string().push(".zst");
    }
    let health = recorded.show()["health"].clone();
    let warnings = array(&health["warnings"]);
    assert!(warnings.iter().any(|text| text.as_str().unwrap().contains("journal")), "{warnings:?}");
    let warnings = recorded.stderr.lines().filter(|line| line.contains("journal is not written any more"));
    assert_eq!(warnings.count(), 1, "{}", recorded.stderr);
    assert_eq!(health["complete"], true);
    recorded
}

fn waits_for(go: &Path) -> String {
    format!("while [ ! -e {} ]; do sleep 0.05; done; exit 7", go.display())
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_full_disk_ends_neither_the_trace_nor_the_command() {
    let (dir, small) = (support::disk_dir(), Small::mount(512));
    let go = dir.path().join("go");
    let output = small.0.path().join("run.json");
    let words = ["--interval", "2ms", "--", "sh", "-c", &waits_for(&go)];
    let running = Running::start(output.to_str().unwrap(), &words);
    // Its last page may be there and not full yet.
    let journal = support::process::partial(&output);
    let is_whole = || journal.metadata().is_ok_and(|about| about.len().is_multiple_of(4096));
    let recorded = runs_into(running, &go, || small.free() == 0 && is_whole());
    assert!(recorded.output.starts_with(small.0.path()));
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_limit_of_the_size_of_files_ends_neither_the_trace_nor_the_command() {
    const LIMIT: u64 = 160 << 10;
    let dir = support::disk_dir();
    let go = dir.path().join("go");
    let output = support::path(&dir, "run.json");
    let words = ["--interval", "2ms", "--", "sh", "-c", &waits_for(&go)];
    let mut command = spark_trace();
    let limit = libc::rlimit { rlim_cur: LIMIT, rlim_max: LIMIT };
    // SAFETY: one async-signal-safe call between fork and exec.
    unsafe {
        command.pre_exec(move || {
            libc::setrlimit(libc::RLIMIT_FSIZE, &raw const limit);
            Ok(())
        });
    }
    let running = Running::start_as(command, &output, &words);
    let journal = support::process::partial(Path::new(&output));
    runs_into(running, &go, || journal.metadata().is_ok_and(|about| about.len() >= LIMIT));
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn few_open_files_are_raised_for_the_recorder_and_not_for_the_command() {
    const FEW: u64 = 64;
    let dir = support::disk_dir();
    let mut command = spark_trace();
    // SAFETY: async-signal-safe calls between fork and exec, with pointers to a valid rlimit.
    unsafe {
        command.pre_exec(|| {
            let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
            libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit);
            limit.rlim_cur = FEW;
            libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
            Ok(())
        });
    }
    let words = ["--", "sh", "-c", "ulimit -Sn"];
    let recorded = Running::start_as(command, &support::path(&dir, "few.json"), &words).finish().exited(0);
    assert_eq!(recorded.stdout.trim(), FEW.to_string());
    let losses = recorded.recording()["health"]["losses"].clone();
    assert!(array(&losses).iter().all(|loss| loss["what"] != "open_files"), "{losses}");
}
