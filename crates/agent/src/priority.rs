//! The thread that reads levels is scheduled before others: it needs little of a CPU, but at its time.

use std::io;

/// Nice value of the recorder's thread: about ten times the weight of an ordinary one (kernel/sched/core.c
/// sched_prio_to_weight), so that a machine with more work than CPUs delays its readings by milliseconds.
const NICE: libc::c_int = -10;

/// The calling thread is raised until this is dropped.
pub struct Raised(());

impl Raised {
    /// What the thread starts, threads and processes, has the ordinary priority again (SCHED_RESET_ON_FORK;
    /// kernel/sched/core.c sched_fork). Absent where spark-trace was started with another priority: that one stays.
    pub fn begin() -> io::Result<Option<Self>> {
        // SAFETY: no pointers involved. The call for the own thread cannot fail, and 0 is a value that it returns.
        if unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) } != 0 {
            return Ok(None);
        }
        let parameters = libc::sched_param { sched_priority: 0 };
        let policy = libc::SCHED_OTHER | libc::SCHED_RESET_ON_FORK;
        // SAFETY: a pointer to a valid parameter.
        check(unsafe { libc::sched_setscheduler(0, policy, &raw const parameters) })?;
        set(NICE).map(|()| Some(Self(())))
    }
}

impl Drop for Raised {
    fn drop(&mut self) {
        // Less is always allowed.
        let _ = set(0);
    }
}

fn set(nice: libc::c_int) -> io::Result<()> {
    // SAFETY: no pointers involved.
    check(unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice) })
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Field 19 of /proc/PID/stat, as the kernel counts it.
    fn nice(stat: &str) -> i32 {
        let after_name = stat.rsplit(')').next().unwrap();
        after_name.split_whitespace().nth(16).unwrap().parse().unwrap()
    }

    #[test]
    fn only_the_thread_itself_is_raised() {
        // SAFETY: cannot fail.
        if unsafe { libc::geteuid() } != 0 {
            return;
        }
        let work = || {
            let raised = Raised::begin().unwrap();
            let own = nice(&std::fs::read_to_string("/proc/thread-self/stat").unwrap());
            let child = std::process::Command::new("cat").arg("/proc/self/stat").output().unwrap();
            let child = nice(&String::from_utf8(child.stdout).unwrap());
            let thread =
                std::thread::spawn(|| nice(&std::fs::read_to_string("/proc/thread-self/stat").unwrap()));
            let thread = thread.join().unwrap();
            drop(raised);
            (own, child, thread, nice(&std::fs::read_to_string("/proc/thread-self/stat").unwrap()))
        };
        let outside = nice(&std::fs::read_to_string("/proc/thread-self/stat").unwrap());
        let raised = std::thread::spawn(work).join().unwrap();
        let expected = if outside == 0 { NICE } else { outside };
        assert_eq!(raised, (expected, outside, outside, outside));
        assert_eq!(nice(&std::fs::read_to_string("/proc/thread-self/stat").unwrap()), outside);
    }
}
