//! The commands of a study, one at a time, and the signals that reach the runner meanwhile.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};

use super::RunError;
use crate::ulimit::{self, Limit};
use spark_trace_host::invoker;
use spark_trace_host::output_file::{Place, WriteOptions};

const EVERY: Duration = Duration::from_millis(20);
/// A recording is written after its command has ended: seconds, where it is large.
const GRACE: Duration = Duration::from_secs(60);

/// Ctrl-C and `kill` end the run under way, and then the study: nothing is lost but that run.
#[derive(Debug, Clone)]
pub struct Signals(Arc<AtomicBool>);

impl Signals {
    /// From here on signals no longer end this process.
    pub fn catch() -> std::io::Result<Self> {
        let interrupted = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&interrupted);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (mut interrupts, mut terminations) = {
            let _context = runtime.enter();
            (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
        };
        thread::spawn(move || {
            runtime.block_on(async {
                loop {
                    tokio::select! { _ = interrupts.recv() => {}, _ = terminations.recv() => {} }
                    flag.store(true, Ordering::SeqCst);
                }
            });
        });
        Ok(Self(interrupted))
    }

    pub fn interrupted(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

/// Runs a command that must succeed; what it says goes into the error.
pub fn quiet(line: &[String]) -> Result<(), RunError> {
    let (program, args) = split(line)?;
    let output = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .output()
        .map_err(|source| RunError::Start { program: program.clone(), source })?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.lines().last().unwrap_or_default().to_owned();
    Err(RunError::Failed { program: line.join(" "), status: output.status, said })
}

fn split(line: &[String]) -> Result<(&String, &[String]), RunError> {
    line.split_first().ok_or_else(|| RunError::Command("a command is empty".to_owned()))
}

/// Runs `spark-trace record`. Why the run counts for nothing, where it does.
pub fn record(
    line: &[String],
    messages: &Path,
    timeout: Duration,
    limits: &[(u32, Limit)],
    signals: &Signals,
) -> Result<Result<(), String>, RunError> {
    let (program, args) = split(line)?;
    let io = |source| RunError::Io { path: messages.to_owned(), source };
    let place = Place::new(messages)?;
    place.refuse_special()?;
    match place.remove() {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(io(error)),
        _ => {}
    }
    let said = place.create_new(0, WriteOptions { force: false, owner: invoker::owner() }).map_err(io)?;
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null()).stdout(said.try_clone().map_err(io)?).stderr(said);
    let (limits, has_limits) = (limits.to_vec(), !limits.is_empty());
    let ended_with_us = move || {
        limits.iter().try_for_each(|&(resource, limit)| ulimit::set(resource, limit))?;
        // SAFETY: a system call without pointers.
        if unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGINT) } == 0 {
            Ok(())
        } else {
            Err(std::io::Error::last_os_error())
        }
    };
    // SAFETY: between fork and exec the closure makes async-signal-safe calls alone and allocates nothing. A runner that is
    // killed leaves nothing behind that would run beside the next run.
    unsafe { command.pre_exec(ended_with_us) };
    let start = |source| RunError::Start { program: program.clone(), source };
    let mut child = command.spawn().map_err(|source| match source.raw_os_error() {
        // kernel/sys.c do_prlimit: a hard limit is raised by CAP_SYS_RESOURCE alone.
        Some(libc::EPERM) if has_limits => RunError::Limits { source },
        _ => start(source),
    })?;
    let (status, why) = wait(&mut child, timeout, signals).map_err(start)?;
    if signals.interrupted() {
        return Err(RunError::Interrupted);
    }
    Ok(match (why, status.code()) {
        (Some(why), _) => Err(why),
        (None, Some(0)) => Ok(()),
        (None, Some(code)) => Err(format!("exit code {code}")),
        (None, None) => Err(format!("{status}")),
    })
}

/// Waits for what a runner that was killed has left of a run: its recorder is ending, and would be beside the next.
pub fn wait_for_leftovers(dir: &Path, signals: &Signals) -> Result<(), RunError> {
    let began = Instant::now();
    while let Some(pid) = with_argument(&dir.display().to_string()) {
        if signals.interrupted() {
            return Err(RunError::Interrupted);
        }
        if began.elapsed() >= GRACE {
            return Err(RunError::Leftover { pid });
        }
        thread::sleep(EVERY);
    }
    Ok(())
}

/// A process with an argument that begins so.
fn with_argument(beginning: &str) -> Option<u32> {
    fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let line = fs::read(entry.path().join("cmdline")).ok()?;
        let mut words = line.split(|&byte| byte == 0);
        words.any(|word| word.starts_with(beginning.as_bytes())).then_some(pid)
    })
}

/// Waits for the end, and brings it about where time is over or a signal has come.
fn wait(
    child: &mut Child,
    timeout: Duration,
    signals: &Signals,
) -> std::io::Result<(ExitStatus, Option<String>)> {
    let began = Instant::now();
    let mut interrupted_at: Option<Instant> = None;
    let mut why = None;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok((status, why));
        }
        let late = began.elapsed() >= timeout;
        match interrupted_at {
            // A terminal sends the signal to the whole group; twice is as good as once.
            None if late || signals.interrupted() => {
                if late {
                    why = Some(format!("it took longer than {} s", timeout.as_secs()));
                }
                interrupt(child);
                interrupted_at = Some(Instant::now());
            }
            Some(interrupted_at) if interrupted_at.elapsed() >= GRACE => child.kill()?,
            _ => {}
        }
        thread::sleep(EVERY);
    }
}

fn interrupt(child: &Child) {
    if let Ok(pid) = i32::try_from(child.id()) {
        // SAFETY: no pointers; the child has not been waited for, so the pid is still its own.
        unsafe { libc::kill(pid, libc::SIGINT) };
    }
}
