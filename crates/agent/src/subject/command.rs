//! Starting the traced command: in its cgroup, as the user who called sudo.

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io,
    os::fd::AsRawFd,
    process::Stdio,
};

use tokio::process::{Child, Command};

use crate::{
    open_files_at_start,
    output::{Ends, StandardOutput},
};
use spark_trace_host::invoker::become_id;

pub use spark_trace_host::invoker::Invoker;

/// Why a command did not start.
#[derive(Debug)]
pub enum Failure {
    /// The kernel did not execute it.
    Exec(io::Error),
    /// What goes before that did not work: its cgroup, its user.
    Setup(&'static str, io::Error),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Setup("prepare it", error)
    }
}

/// What the new process does before it executes the command. Its errors reach the parent as bare numbers, like those of
/// the execution itself: each step adds its own multiple of this to them, and no errno is as large
/// (MAX_ERRNO of include/linux/err.h is 4095).
const STEP: i32 = 1 << 16;
const STEPS: [&str; 2] = ["move it into its cgroup", "change to the user who called sudo"];
const CGROUP: i32 = 1;
const USER: i32 = 2;

fn failed(step: i32) -> io::Error {
    let errno = io::Error::last_os_error().raw_os_error().unwrap_or(libc::EINVAL);
    io::Error::from_raw_os_error(errno + step * STEP)
}

fn failure(error: io::Error) -> Failure {
    let Some(number) = error.raw_os_error() else { return error.into() };
    let step = usize::try_from(number / STEP).ok().and_then(|step| step.checked_sub(1));
    match step.and_then(|step| STEPS.get(step)) {
        Some(what) => Failure::Setup(what, io::Error::from_raw_os_error(number % STEP)),
        None => Failure::Exec(error),
    }
}

/// Where a command writes.
#[derive(Debug)]
pub enum Writes {
    /// Where this process does.
    Inherited(StandardOutput),
    Pipes(Ends),
}

/// Starts `argv` with `variables` set. `procs` is the `cgroup.procs` of the cgroup to start it in; `invoker` whom to start it as.
pub fn start(
    argv: &[OsString],
    variables: &[(&OsStr, &OsStr)],
    procs: Option<File>,
    invoker: Option<&Invoker>,
    writes: Writes,
) -> Result<Child, Failure> {
    let (program, args) = argv.split_first().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    let mut command = Command::new(program);
    command.args(args).envs(variables.iter().copied());
    match writes {
        Writes::Inherited(StandardOutput::Own) => {}
        Writes::Inherited(StandardOutput::Error) => drop(command.stdout(io::stderr())),
        Writes::Inherited(StandardOutput::Nowhere) => {
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        }
        Writes::Pipes(Ends { stdout, stderr, has_input }) => {
            command.stdout(stdout).stderr(stderr);
            if !has_input {
                command.stdin(Stdio::null());
            }
        }
    }
    let user = invoker.map(|invoker| (invoker.uid, invoker.gid, invoker.groups()));
    for (variable, value) in invoker.map(Invoker::environment).unwrap_or_default() {
        match value {
            Some(value) => command.env(variable, value),
            None => command.env_remove(variable),
        };
    }
    let open_files = open_files_at_start();
    // SAFETY: between fork and exec only system calls with data that was made before.
    unsafe {
        command.pre_exec(move || {
            // As it was before spark-trace raised it for itself.
            if let Some(limit) = &open_files {
                libc::setrlimit(libc::RLIMIT_NOFILE, limit);
            }
            if let Some(procs) = &procs {
                // "0" is the writing process itself.
                if libc::write(procs.as_raw_fd(), c"0".as_ptr().cast(), 1) != 1 {
                    return Err(failed(CGROUP));
                }
            }
            if let Some((uid, gid, groups)) = &user
                && become_id(*uid, *gid, groups).is_err()
            {
                return Err(failed(USER));
            }
            Ok(())
        });
    }
    command.spawn().map_err(failure)
}

/// Exit code as a shell gives it: 128 + signal for a death by signal.
pub fn exit_code(status: std::process::ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status.code().or_else(|| status.signal().map(|s| 128 + s)).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_before_the_execution_is_distinguished_from_it() {
        let exec = failure(io::Error::from_raw_os_error(libc::ENOENT));
        assert!(matches!(exec, Failure::Exec(error) if error.kind() == io::ErrorKind::NotFound));
        for (step, what) in [(CGROUP, "cgroup"), (USER, "user")] {
            let setup = failure(io::Error::from_raw_os_error(libc::ENOENT + step * STEP));
            let Failure::Setup(said, error) = setup else { panic!("{setup:?}") };
            assert!(said.contains(what) && error.kind() == io::ErrorKind::NotFound, "{said}: {error}");
        }
    }
}
