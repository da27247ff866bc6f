//! Starting the traced command: in its cgroup, as the user who called sudo.

use std::{ffi::CString, fs::File, io, os::fd::AsRawFd};

use tokio::process::{Child, Command};

use crate::live::output::Ends;

/// The user behind sudo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invoker {
    pub uid: u32,
    pub gid: u32,
    pub name: String,
}

impl Invoker {
    /// Who called sudo, if somebody other than root did.
    pub fn from_environment() -> Option<Self> {
        // SAFETY: no arguments, cannot fail.
        if unsafe { libc::geteuid() } != 0 {
            return None;
        }
        let number = |name: &str| std::env::var(name).ok()?.parse::<u32>().ok();
        let invoker = Self {
            uid: number("SUDO_UID")?,
            gid: number("SUDO_GID")?,
            name: std::env::var("SUDO_USER").ok()?,
        };
        (invoker.uid != 0).then_some(invoker)
    }
}

/// Starts `argv`. `procs` is the `cgroup.procs` of the cgroup to start it in; `invoker` whom to start it as; `ends` where
/// it writes, if not where this process does.
pub fn start(
    argv: &[String],
    procs: Option<File>,
    invoker: Option<&Invoker>,
    ends: Option<Ends>,
) -> io::Result<Child> {
    let (program, args) = argv.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    let mut command = Command::new(program);
    command.args(args);
    if let Some(Ends { stdout, stderr }) = ends {
        command.stdout(stdout).stderr(stderr);
    }
    let user = invoker
        .map(|i| CString::new(i.name.as_str()).map(|name| (name, i.uid, i.gid)))
        .transpose()
        .map_err(io::Error::other)?;
    // SAFETY: between fork and exec only async-signal-safe calls: write, setgid, setuid. initgroups reads
    // the user database and so is not one of them in general, but this process has no other thread that
    // could hold a lock across the fork (the runtime is single-threaded).
    unsafe {
        command.pre_exec(move || {
            if let Some(procs) = &procs {
                // "0" is the writing process itself.
                if libc::write(procs.as_raw_fd(), c"0".as_ptr().cast(), 1) != 1 {
                    return Err(io::Error::last_os_error());
                }
            }
            if let Some((name, uid, gid)) = &user
                && (libc::initgroups(name.as_ptr(), *gid) != 0
                    || libc::setgid(*gid) != 0
                    || libc::setuid(*uid) != 0)
            {
                return Err(io::Error::last_os_error());
            }
            Ok(())
        });
    }
    command.spawn()
}

/// Exit code as a shell gives it: 128 + signal for a death by signal.
pub fn exit_code(status: std::process::ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status.code().or_else(|| status.signal().map(|s| 128 + s)).unwrap_or(1)
}
