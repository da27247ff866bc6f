//! What later tasks run, built while tests wait.
//!
//! Kernel and container tests run one by one and leave most of the processors' time. A build takes that and no more: it
//! is of SCHED_IDLE, and whatever else wakes up runs at once (check_preempt_wakeup_fair in kernel/sched/fair.c).

use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::{signals, workspace};

/// Arguments to xtask. None builds into target/debug, from which the tests run.
const TASKS: &[&[&str]] = &[&["vm", "--build"], &["fuzz", "--build"]];

/// `IOPRIO_WHO_PROCESS` and `IOPRIO_CLASS_IDLE` of include/uapi/linux/ioprio.h.
const THIS_PROCESS: libc::c_long = 1;
const IDLE_CLASS: libc::c_long = 3 << 13;

/// Builds one after the other, and says what came of each. A failure is not one of the tests: the task whose build it is
/// builds it again, and shows why.
pub fn build() {
    for task in TASKS {
        if signals::interrupted() {
            return;
        }
        let start = Instant::now();
        let ended = match run(task) {
            Ok(()) => "is done".to_owned(),
            Err(error) => format!("failed: {error:#}"),
        };
        // Tests print beside it: in one piece, on a line of its own.
        eprintln!("\nahead: {} {ended} ({} s)", task.join(" "), start.elapsed().as_secs());
    }
}

fn run(task: &[&str]) -> Result<()> {
    let log = workspace::target_dir()?.join(format!("ahead-{}.log", task[0]));
    let file = File::create(&log).with_context(|| format!("cannot create {}", log.display()))?;
    // This program, although the tests' build may have put another in its place.
    let mut command = Command::new("/proc/self/exe");
    command.args(task).stdin(Stdio::null()).stderr(file.try_clone()?).stdout(file);
    // SAFETY: between fork and exec it makes two system calls with plain data, and allocates nothing.
    unsafe { command.pre_exec(idle) };
    let (mut child, forwarding) = signals::spawn(&mut command).context("cannot start it")?;
    let status = child.wait().context("cannot wait for it")?;
    drop(forwarding);
    if !status.success() {
        bail!("{status}, see {}", log.display());
    }
    Ok(())
}

/// For the calling process and those that it starts.
fn idle() -> io::Result<()> {
    // SAFETY: sched_param is plain data; zero is the one priority of SCHED_IDLE. Process 0 is the caller.
    let idle = unsafe {
        let none: libc::sched_param = std::mem::zeroed();
        libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const none)
    };
    // SAFETY: plain numbers.
    let io_idle = unsafe { libc::syscall(libc::SYS_ioprio_set, THIS_PROCESS, 0 as libc::c_long, IDLE_CLASS) };
    if idle == 0 && io_idle == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_is_this_program_and_leaves_a_log() {
        // This program is that of the tests here.
        run(&["--list", "ahead::"]).unwrap();
        let log = workspace::target_dir().unwrap().join("ahead---list.log");
        let text = std::fs::read_to_string(log).unwrap();
        assert!(text.contains("a_task_is_this_program_and_leaves_a_log"), "{text}");
        let error = run(&["--no-such-option"]).unwrap_err().to_string();
        assert!(error.contains("ahead---no-such-option.log"), "{error}");
    }

    #[test]
    fn a_build_is_of_the_idle_class_with_all_that_it_starts() {
        let mut command = Command::new("sh");
        // The policy is the 41st field (proc_pid_stat(5)); the name of the program has no blank.
        command.args(["-c", "cat /proc/self/stat; :"]).stdin(Stdio::null());
        // SAFETY: as above.
        unsafe { command.pre_exec(idle) };
        let output = command.output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(text.split_whitespace().nth(40), Some("5"), "{text}");
    }
}
