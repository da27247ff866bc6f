//! The end of a child.

use std::io;

use anyhow::{Context as _, Result, bail};

/// Waits for a child, which must end well. Signals to this process do not end the wait.
pub fn reap(pid: libc::pid_t) -> Result<()> {
    let mut status = 0;
    loop {
        // SAFETY: `status` is valid to write to.
        if unsafe { libc::waitpid(pid, &mut status, 0) } == pid {
            break;
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error).with_context(|| format!("waitpid for child {pid}"));
        }
    }
    if status != 0 {
        bail!("child {pid} ended with wait status {status:#x} (9: killed, by the OOM killer?)");
    }
    Ok(())
}
