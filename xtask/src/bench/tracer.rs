//! What is measured: spark-trace in its profiles, and bpftrace beside it.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

use super::empty::Empty;
use crate::process;

/// Longest time a tracer may take to attach.
const ATTACH: Duration = Duration::from_secs(30);

pub enum Tracer {
    SparkTrace {
        program: PathBuf,
        profile: &'static str,
        scratch: PathBuf,
        whom: Whom,
    },
    Serve {
        program: PathBuf,
        scratch: PathBuf,
    },
    /// A program that does nothing at the end of every system call.
    Empty,
    Bpftrace {
        script: PathBuf,
    },
    /// Nothing: the noise of the method.
    Nothing,
}

/// Whom spark-trace records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whom {
    Storm,
    /// Another process, so that the storm is a bystander.
    Another,
    Machine,
}

/// The time in which a tracer was fully attached, in nanoseconds of CLOCK_MONOTONIC.
pub type Window = (u64, u64);

impl Tracer {
    pub const NAMES: [&'static str; 9] =
        ["nothing", "light", "default", "deep", "bystander", "system", "serve", "empty", "bpftrace"];

    pub fn all(spark_trace: &Path, scratch: &Path) -> Result<Vec<Self>> {
        let (program, scratch) = (spark_trace.to_owned(), scratch.to_owned());
        let recorder = |profile, whom| Self::SparkTrace {
            program: program.clone(),
            profile,
            scratch: scratch.clone(),
            whom,
        };
        let profiles = ["light", "default", "deep"].map(|profile| recorder(profile, Whom::Storm));
        let others = [Whom::Another, Whom::Machine].map(|whom| recorder("default", whom));
        let mut all: Vec<_> = [Self::Nothing].into_iter().chain(profiles).chain(others).collect();
        all.extend([Self::Serve { program: program.clone(), scratch: scratch.clone() }, Self::Empty]);
        if process::succeeds(Command::new("bpftrace").arg("--version")) {
            mount_tracefs()?;
            let script = scratch.join("comparable.bt");
            fs::write(&script, include_str!("comparable.bt")).context("cannot write the bpftrace script")?;
            all.push(Self::Bpftrace { script });
        } else {
            eprintln!("bpftrace is not installed: measured without it");
        }
        Ok(all)
    }

    pub const fn name(&self) -> &'static str {
        match self {
            Self::SparkTrace { whom: Whom::Another, .. } => "bystander",
            Self::SparkTrace { whom: Whom::Machine, .. } => "system",
            Self::SparkTrace { profile, .. } => profile,
            Self::Serve { .. } => "serve",
            Self::Empty => "empty",
            Self::Bpftrace { .. } => "bpftrace",
            Self::Nothing => "nothing",
        }
    }

    /// Whether it is of interest for any storm, and not only for those of system calls.
    pub const fn is_for_all(&self) -> bool {
        !matches!(
            self,
            Self::SparkTrace { whom: Whom::Another | Whom::Machine, .. } | Self::Serve { .. } | Self::Empty
        )
    }

    /// Traces process `pid` (bpftrace: the machine) for `length`.
    pub fn trace(&self, pid: u32, length: Duration) -> Result<Window> {
        match self {
            Self::Nothing => {
                let begin = now_ns();
                thread::sleep(length);
                Ok((begin, now_ns()))
            }
            Self::SparkTrace { program, profile, scratch, whom } => {
                let output = scratch.join("bench.json");
                let mut command = Command::new(program);
                command.args(["record", "--quiet", "--force", "--profile", profile, "--output"]).arg(&output);
                command.args(["--duration", &format!("{}ms", length.as_millis())]);
                let another = if *whom == Whom::Another { Some(Sleeper::start()?) } else { None };
                match another.as_ref().map_or(pid, Sleeper::pid) {
                    _ if *whom == Whom::Machine => command.arg("--system"),
                    pid => command.args(["--pid", &pid.to_string()]),
                };
                process::output(&mut command, "tracing the storm")?;
                phases(&output)
            }
            Self::Serve { program, scratch } => serve(program, scratch, length),
            Self::Empty => {
                let attached = Empty::attach()?;
                let begin = now_ns();
                thread::sleep(length);
                let window = (begin, now_ns());
                drop(attached);
                Ok(window)
            }
            Self::Bpftrace { script } => bpftrace(script, length),
        }
    }
}

/// From the first to the last phase of a recording.
fn phases(recording: &Path) -> Result<(u64, u64)> {
    let text = fs::read(recording).with_context(|| format!("cannot read {}", recording.display()))?;
    let value: serde_json::Value = serde_json::from_slice(&text).context("not JSON")?;
    let at = |name: &str| {
        let phases = value["phases"].as_array()?;
        phases.iter().find(|p| p["name"] == name)?["at_ns"].as_u64()
    };
    at("start").zip(at("end")).context("the recording has no phases `start` and `end`")
}

/// A process that does nothing.
struct Sleeper(Child);

impl Sleeper {
    fn start() -> Result<Self> {
        Ok(Self(Command::new("sleep").arg("infinity").spawn().context("cannot run sleep")?))
    }

    fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn serve(program: &Path, scratch: &Path, length: Duration) -> Result<Window> {
    let mut child = Command::new(program)
        .args(["serve", "--listen", "127.0.0.1:0", "--state"])
        .arg(scratch.join("state"))
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot run spark-trace serve")?;
    let mut line = String::new();
    // It says where it listens once everything is attached.
    let mut output = BufReader::new(child.stderr.take().context("serve has no output")?);
    let read = output.read_line(&mut line);
    let begin = now_ns();
    thread::sleep(length);
    let window = (begin, now_ns());
    // SAFETY: no pointers involved; the child has not been waited for, so the pid is its own.
    unsafe { libc::kill(child.id() as i32, libc::SIGTERM) };
    let status = child.wait().context("cannot wait for spark-trace serve")?;
    ensure!(read.is_ok() && line.contains("http://") && status.success(), "serve: {status}: {line}");
    Ok(window)
}

fn bpftrace(script: &Path, length: Duration) -> Result<(u64, u64)> {
    let mut child = Command::new("bpftrace")
        // So that we see when it has attached.
        .args(["-e", &format!("{}\nBEGIN {{ printf(\"attached\\n\"); }}", fs::read_to_string(script)?)])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .context("cannot run bpftrace")?;
    let result = wait_attached(&mut child).map(|()| {
        let begin = now_ns();
        thread::sleep(length);
        (begin, now_ns())
    });
    // SAFETY: no pointers involved; the child has not been waited for, so the pid is its own.
    unsafe { libc::kill(child.id() as i32, libc::SIGINT) };
    // It prints its maps when it ends; nobody reads them, so the pipe must not fill up.
    drop(child.stdout.take());
    child.wait().context("cannot wait for bpftrace")?;
    result
}

fn wait_attached(child: &mut Child) -> Result<()> {
    let mut out = BufReader::new(child.stdout.as_mut().context("bpftrace has no output")?);
    let started = Instant::now();
    let mut line = String::new();
    while out.read_line(&mut line).context("cannot read from bpftrace")? > 0 {
        if line.trim_end() == "attached" {
            return Ok(());
        }
        ensure!(started.elapsed() < ATTACH, "bpftrace did not attach");
        line.clear();
    }
    bail!("bpftrace ended without attaching")
}

/// bpftrace needs tracefs. Where it is not mounted, mounts it for this process and its children alone.
fn mount_tracefs() -> Result<()> {
    let at = c"/sys/kernel/tracing";
    if Path::new("/sys/kernel/tracing/events").exists() {
        return Ok(());
    }
    // SAFETY: all pointers are to NUL-terminated constants.
    let done = unsafe {
        libc::unshare(libc::CLONE_NEWNS) == 0
            && libc::mount(
                c"none".as_ptr(),
                c"/".as_ptr(),
                std::ptr::null(),
                libc::MS_REC | libc::MS_PRIVATE,
                std::ptr::null(),
            ) == 0
            && libc::mount(c"tracefs".as_ptr(), at.as_ptr(), c"tracefs".as_ptr(), 0, std::ptr::null()) == 0
    };
    ensure!(done, "cannot mount tracefs for bpftrace: {}", std::io::Error::last_os_error());
    Ok(())
}

pub fn now_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a valid pointer.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
