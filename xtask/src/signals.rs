//! Ctrl-C and SIGTERM end the running child, not us: what we started (a private dockerd) must be
//! stopped and cleaned up on the way out.

use std::io::{IsTerminal, stdin};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

use anyhow::{Context, Result, bail};

static INTERRUPTED: AtomicBool = AtomicBool::new(false);
/// First arguments of kill(2): a process, negative for its group, 0 for none. As many as run at once.
static CHILDREN: [AtomicI32; CHILDREN_AT_ONCE] = [const { AtomicI32::new(0) }; CHILDREN_AT_ONCE];

/// Children that can run at once.
pub const CHILDREN_AT_ONCE: usize = 16;

/// Installs the handlers. Children start with the default ones, as exec resets them.
pub fn forward_to_children() -> Result<()> {
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        let handler: extern "C" fn(libc::c_int) = on_signal;
        // SAFETY: sigaction is plain data for which all zeroes is valid: no flags, empty mask.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = handler as libc::sighandler_t;
        // SAFETY: `action` is initialised, outlives the call, and its handler is async-signal-safe.
        if unsafe { libc::sigaction(signal, &raw const action, std::ptr::null_mut()) } != 0 {
            return Err(std::io::Error::last_os_error())
                .with_context(|| format!("cannot handle signal {signal}"));
        }
    }
    Ok(())
}

extern "C" fn on_signal(signal: libc::c_int) {
    INTERRUPTED.store(true, Ordering::SeqCst);
    for child in CHILDREN.iter().map(|child| child.load(Ordering::SeqCst)).filter(|child| *child != 0) {
        // SAFETY: kill is async-signal-safe; the pid is of a child that we have not waited for.
        unsafe { libc::kill(child, signal) };
    }
}

/// Starts a child that gets our signals until the guard is dropped.
///
/// On a terminal, Ctrl-C reaches the whole foreground group by itself, and a child in another group
/// could not read. Elsewhere the child gets a group of its own, so that a signal to us also ends
/// what cargo has started.
pub fn spawn(command: &mut Command) -> std::io::Result<(Child, Forwarding)> {
    let terminal = stdin().is_terminal();
    if !terminal {
        command.process_group(0);
    }
    let child = command.spawn()?;
    let pid = child.id().cast_signed();
    let name = if terminal { pid } else { -pid };
    let free = |slot: &AtomicI32| slot.compare_exchange(0, name, Ordering::SeqCst, Ordering::SeqCst).is_ok();
    // Without a free place the child gets no signal; nobody starts so many.
    let slot = CHILDREN.iter().position(free);
    // The signal may have come before the child existed.
    if interrupted() {
        // SAFETY: kill takes plain numbers; the pid is of a child that we have not waited for.
        unsafe { libc::kill(name, libc::SIGTERM) };
    }
    Ok((child, Forwarding { slot }))
}

/// See [`spawn`].
pub struct Forwarding {
    slot: Option<usize>,
}

impl Drop for Forwarding {
    fn drop(&mut self) {
        if let Some(slot) = self.slot {
            CHILDREN[slot].store(0, Ordering::SeqCst);
        }
    }
}

/// Whether a signal to stop has come.
pub fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::SeqCst)
}

/// Fails if a signal to stop has come.
pub fn check() -> Result<()> {
    if interrupted() {
        bail!("interrupted");
    }
    Ok(())
}
