//! spark-trace as a user runs it, with a limit on how long it may take.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use std::time::Instant;

use serde_json::Value;

use super::clock::monotonic_ns;
use super::{journal, json, limit, wait_for};

/// The binary under test, without what the caller's environment says about sudo.
///
/// $SPARK_TRACE_BIN names it where tests run on another machine than the one that built them.
pub fn spark_trace() -> Command {
    let built = || env!("CARGO_BIN_EXE_spark-trace").into();
    let mut command = Command::new(std::env::var_os("SPARK_TRACE_BIN").unwrap_or_else(built));
    for name in ["SUDO_UID", "SUDO_GID", "SUDO_USER"] {
        command.env_remove(name);
    }
    command.stdin(Stdio::null());
    let interruptible = || {
        // SAFETY: a plain system call with valid constants.
        unsafe { libc::signal(libc::SIGINT, libc::SIG_DFL) };
        Ok(())
    };
    // SAFETY: between fork and exec the closure makes one async-signal-safe call. A test program started in
    // the background passes on that SIGINT is ignored, and a shell cannot trap what it inherits so.
    unsafe { command.pre_exec(interruptible) };
    command
}

/// Runs `spark-trace record -o OUTPUT LINE` to its end. Words of `line` are separated by blanks.
pub fn record(output: &str, line: &str) -> Recorded {
    record_words(output, &line.split_whitespace().collect::<Vec<_>>())
}

/// The same with words that may hold blanks.
pub fn record_words(output: &str, words: &[&str]) -> Recorded {
    Running::start(output, words).finish()
}

/// A `record` that ended.
#[derive(Debug)]
pub struct Recorded {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
    /// Of spark-trace itself.
    pub pid: u32,
    pub output: PathBuf,
}

impl Recorded {
    /// Passes itself on where the exit code is `code`.
    pub fn exited(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "stderr: {}\nstdout: {}", self.stderr, self.stdout);
        self
    }

    /// The recording itself.
    pub fn recording(&self) -> Value {
        json(&self.output)
    }

    /// The JSON that the command has written last, as workloads end with their report.
    pub fn said(&self) -> Value {
        let last = self.stdout.lines().last().expect("the command has said nothing");
        serde_json::from_str(last).unwrap_or_else(|e| panic!("{e}: {last}"))
    }

    /// What `show` says of it.
    pub fn show(&self) -> Value {
        self.show_with(&[])
    }

    /// The same with options.
    pub fn show_with(&self, options: &[&str]) -> Value {
        let options = options.iter().map(OsStr::new);
        report(&[OsStr::new("show"), self.output.as_os_str()].into_iter().chain(options).collect::<Vec<_>>())
    }

    /// All tables that a user can see.
    pub fn table(&self) -> String {
        run(&["show".as_ref(), self.output.as_os_str(), "--all".as_ref()])
    }

    /// What `diff` says of it and another one.
    pub fn diff(&self, other: &Self) -> Value {
        self.diff_with(other, &[])
    }

    /// The same with options.
    pub fn diff_with(&self, other: &Self, options: &[&str]) -> Value {
        let files = ["diff".as_ref(), self.output.as_os_str(), other.output.as_os_str()];
        report(&files.into_iter().chain(options.iter().map(OsStr::new)).collect::<Vec<_>>())
    }

    /// The journal that must not be left behind.
    pub fn partial(&self) -> PathBuf {
        partial(&self.output)
    }
}

pub fn partial(output: &Path) -> PathBuf {
    let mut name = output.as_os_str().to_owned();
    name.push(".partial");
    name.into()
}

fn report(args: &[&OsStr]) -> Value {
    let args: Vec<_> = args.iter().copied().chain(["--format", "json"].map(OsStr::new)).collect();
    serde_json::from_str(&run(&args)).unwrap()
}

fn run(args: &[&OsStr]) -> String {
    let output = spark_trace().args(args).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), &*stderr), (Some(0), ""), "{args:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// A `record` under way. Dropped before its end (a failed assertion) it is stopped and waited for.
pub struct Running {
    child: Child,
    output: PathBuf,
    lines: Receiver<String>,
    stdout: String,
    stderr: Option<JoinHandle<String>>,
}

impl Running {
    pub fn start(output: &str, words: &[&str]) -> Self {
        Self::start_as(spark_trace(), output, words)
    }

    /// Starts `command` (as [`spark_trace`] gives it) as `record`.
    pub fn start_as(mut command: Command, output: &str, words: &[&str]) -> Self {
        command.args(["record", "-o", output]).args(words);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (sender, lines) = channel();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        // Read on threads, so that full pipes hold up nobody.
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let mut pipe = child.stderr.take().unwrap();
        let stderr = std::thread::spawn(move || {
            let mut bytes = Vec::new();
            let _ = pipe.read_to_end(&mut bytes);
            String::from_utf8_lossy(&bytes).into_owned()
        });
        Self { child, output: output.into(), lines, stdout: String::new(), stderr: Some(stderr) }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for a line of the command's standard output that `wanted` accepts.
    pub fn line(&mut self, wanted: impl Fn(&str) -> bool) -> String {
        let start = Instant::now();
        while let Some(left) = limit().checked_sub(start.elapsed()) {
            let Ok(line) = self.lines.recv_timeout(left) else { break };
            self.stdout.push_str(&line);
            self.stdout.push('\n');
            if wanted(&line) {
                return line;
            }
        }
        // What is still under way says no more by itself.
        let is_ended = self.child.try_wait().is_ok_and(|status| status.is_some());
        let stderr = self.stderr.take().filter(|_| is_ended).map(|thread| thread.join().unwrap());
        panic!("no such line of output; there was: {}{}", self.stdout, stderr.unwrap_or_default());
    }

    /// Waits until a workload with `--jsonl` has come to a phase, and returns its line.
    pub fn phase(&mut self, name: &str) -> Value {
        let line = self
            .line(|line| serde_json::from_str::<Value>(line).is_ok_and(|line: Value| line["phase"] == name));
        serde_json::from_str(&line).unwrap()
    }

    /// Waits until it follows process `pid`: its journal says so.
    pub fn follows(&self, pid: u32) {
        self.has_entry(&format!("process {pid}"), |entry| entry["entry"] == "process" && entry["pid"] == pid);
    }

    /// Waits for an entry of the journal.
    pub fn has_entry(&self, what: &str, wanted: impl Fn(&Value) -> bool) {
        let journal = partial(&self.output);
        wait_for(&format!("the journal to name {what}"), || {
            let mut entries = journal::entries(&journal)?.map(|entry| serde_json::to_value(entry).unwrap());
            entries.any(|entry| wanted(&entry)).then_some(())
        });
    }

    /// Waits until it has read the system's counters `count` more times from now on.
    pub fn reads(&self, count: usize) {
        self.reads_after(count, monotonic_ns());
    }

    fn reads_after(&self, count: usize, after_ns: i64) {
        let journal = partial(&self.output);
        wait_for(&format!("{count} readings"), || {
            let later = journal::readings(&journal)?.filter(|begin| begin.cast_signed() > after_ns);
            (later.count() >= count).then_some(())
        });
    }

    /// Waits until the details of the present have been read: files, stacks, mappings. Where the present is a peak, they
    /// wait no longer than LONGEST_WAIT_NS of crates/agent/src/tracer/sampling.rs, and come with the next reading.
    pub fn reads_details(&self) {
        const LONGEST_WAIT_NS: i64 = 300_000_000;
        self.reads_after(2, monotonic_ns() + LONGEST_WAIT_NS);
    }

    pub fn signal(&self, number: i32) {
        signal(self.pid(), number);
    }

    /// Waits for its end.
    pub fn finish(mut self) -> Recorded {
        let status = wait_for("spark-trace to end", || self.child.try_wait().unwrap());
        self.stdout.extend(self.lines.iter().map(|line| line + "\n"));
        Recorded {
            code: status.code().or_else(|| status.signal().map(|signal| 128 + signal)),
            stdout: std::mem::take(&mut self.stdout),
            stderr: self.stderr.take().map(|thread| thread.join().unwrap()).unwrap_or_default(),
            pid: self.child.id(),
            output: self.output.clone(),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|status| status.is_none()) {
            // Twice, so that it ends even where the command takes no notice of the first.
            for _ in 0..2 {
                self.signal(libc::SIGINT);
                std::thread::sleep(std::time::Duration::from_millis(200));
            }
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// A process that a test started beside spark-trace; killed at the latest when dropped.
pub struct Other(pub Child);

impl Other {
    pub fn start(command: &mut Command) -> Self {
        Self(command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap())
    }

    /// A workload, once it holds what was requested: nothing but its own word says that it has read a file.
    pub fn holding(command: &mut Command) -> Self {
        let child = command.arg("--jsonl").stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let mut process = Self(child);
        let mut lines = BufReader::new(process.0.stdout.take().unwrap());
        let mut line = String::new();
        while !line.contains(r#""phase":"hold""#) {
            line.clear();
            assert!(lines.read_line(&mut line).unwrap() > 0, "the workload ended before it held anything");
        }
        // Open as long as it may write more.
        process.0.stdout = Some(lines.into_inner());
        process
    }

    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    pub fn runs(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Sends a signal to a process that the test or spark-trace started.
pub fn signal(pid: u32, number: i32) {
    // SAFETY: no pointers involved.
    unsafe { libc::kill(pid.cast_signed(), number) };
}
