//! Processes that the kernel side has paused, because they have mapped a library that nobody watches yet, and how they
//! go on: let go by this process when it has attached to the library, by the guard where that takes too long.
//!
//! The guard is a process of its own, so that nobody's process stays stopped if this one is killed. It knows those that
//! are paused from the map that the kernel side keeps, and this process's end from a pipe.

use std::{
    fs,
    io::{self, Read, Write},
    os::{
        fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
        unix::process::CommandExt,
    },
    process::{Child, ChildStdin, Command, Stdio},
    time::Duration,
};

use aya::maps::{HashMap, Map, MapData};

use super::{clock_ns, now_ns};

/// How long a process stays paused at most, and how often the guard looks: so much may come on top.
pub const LONGEST: Duration = Duration::from_secs(2);
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// How this program is called as the guard.
pub const GUARD: &str = "let-paused-go-on";

/// What the guard reads where all is well. Without it, at the end of the pipe, this process has been killed.
const WELL: u8 = b'.';

/// Between the last two looks of a guard whose tracer was killed: a program that ran just then may have paused one more.
const LAST_LOOK: Duration = Duration::from_millis(100);

/// Descriptor at which the guard has the map.
const MAP: RawFd = 3;

/// The guard under way. Ends with this process, however it ends.
#[derive(Debug)]
pub struct Guard {
    child: Child,
    pipe: Option<ChildStdin>,
}

impl Guard {
    /// Starts it. `map`: where the kernel side keeps whom it has paused.
    pub fn start(map: BorrowedFd<'_>) -> io::Result<Self> {
        let map = map.as_raw_fd();
        let mut command = Command::new("/proc/self/exe");
        command.arg(GUARD).env_clear().stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        // SAFETY: between fork and exec only system calls are made.
        unsafe {
            command.pre_exec(move || {
                // Away from the terminal, whose signals would end it before this process.
                if libc::setsid() < 0 {
                    return Err(io::Error::last_os_error());
                }
                // A copy is kept over exec; one that is there already must be set so.
                let kept = if map == MAP { libc::fcntl(map, libc::F_SETFD, 0) } else { libc::dup2(map, MAP) };
                if kept < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
            });
        }
        let mut child = command.spawn()?;
        let pipe = child.stdin.take();
        Ok(Self { child, pipe })
    }

    /// Ends it: nobody is paused any more.
    pub fn end(mut self) {
        if let Some(mut pipe) = self.pipe.take() {
            // Without the byte it looks once more, which does no harm.
            let _ = pipe.write_all(&[WELL]);
        }
        let _ = self.child.wait();
    }
}

/// Runs as the guard, until the tracer ends.
pub fn guard() -> io::Result<()> {
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT] {
        // SAFETY: no handler is set.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
    // Where the machine is out of memory, others go first. It may not be allowed.
    let _ = fs::write("/proc/self/oom_score_adj", "-1000");
    // SAFETY: the descriptor that `Guard::start` left there, and nobody else's.
    let map = unsafe { OwnedFd::from_raw_fd(MAP) };
    let map = MapData::from_fd(map).map_err(io::Error::other)?;
    let mut map: HashMap<MapData, u32, u64> =
        HashMap::try_from(Map::HashMap(map)).map_err(io::Error::other)?;
    let mut pipe = io::stdin();
    while !ended(pipe.as_raw_fd(), LOOK_EVERY)? {
        let now = now_ns();
        release(&mut map, |at_ns| now.saturating_sub(at_ns) >= LONGEST.as_nanos() as u64);
    }
    release(&mut map, |_| true);
    let mut word = [0];
    if pipe.read(&mut word)? == 0 {
        std::thread::sleep(LAST_LOOK);
        release(&mut map, |_| true);
    }
    Ok(())
}

/// Whether the tracer has said its word or ended, within a time.
fn ended(pipe: RawFd, within: Duration) -> io::Result<bool> {
    let mut poll = libc::pollfd { fd: pipe, events: libc::POLLIN, revents: 0 };
    // SAFETY: one descriptor, which lives.
    match unsafe { libc::poll(&raw mut poll, 1, within.as_millis() as libc::c_int) } {
        0 => Ok(false),
        1.. => Ok(true),
        _ => match io::Error::last_os_error() {
            e if e.kind() == io::ErrorKind::Interrupted => Ok(false),
            e => Err(e),
        },
    }
}

/// Lets those go on that were paused at a time that is `due`.
pub fn release<M>(map: &mut HashMap<M, u32, u64>, due: impl Fn(u64) -> bool)
where
    M: std::borrow::BorrowMut<MapData>,
{
    let all: Vec<(u32, u64)> = map.iter().flatten().filter(|(_, at_ns)| due(*at_ns)).collect();
    for (pid, at_ns) in all {
        // The tracer may have let it go on since.
        if map.remove(&pid).is_ok() {
            let_go(pid, at_ns);
        }
    }
}

/// Lets a process go on that was paused at `at_ns`. Stop signals that others have sent it meanwhile go with the pause
/// (kernel/signal.c prepare_signal), so they are sent again.
pub fn let_go(pid: u32, at_ns: u64) {
    let Some(process) = open(pid) else { return };
    // The pid of one that was killed may have come again.
    if !began_by(pid, at_ns) {
        return;
    }
    let others = stops_of_others(&fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default());
    for signal in [libc::SIGCONT].into_iter().chain(others) {
        // SAFETY: a descriptor of a process; the rest are plain numbers.
        unsafe {
            libc::syscall(libc::SYS_pidfd_send_signal, process.as_raw_fd(), signal, std::ptr::null::<u8>(), 0)
        };
    }
}

fn open(pid: u32) -> Option<OwnedFd> {
    // SAFETY: plain numbers.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid as libc::pid_t, 0) };
    let fd = RawFd::try_from(fd).ok().filter(|fd| *fd >= 0)?;
    // SAFETY: a new descriptor, which nobody else has.
    Some(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Whether a process is one that ran at a time of the trace's clock.
fn began_by(pid: u32, at_ns: u64) -> bool {
    let Some(began) = procfs::process::Process::new(pid as i32).and_then(|process| process.stat()).ok()
    else {
        return false;
    };
    // Its start is in ticks of a clock that goes on while the machine sleeps, rounded down.
    let tick_ns = 1_000_000_000 / procfs::ticks_per_second().max(1);
    let asleep = clock_ns(libc::CLOCK_BOOTTIME).saturating_sub(clock_ns(libc::CLOCK_MONOTONIC));
    began.starttime.saturating_mul(tick_ns) <= at_ns.saturating_add(asleep)
}

/// Stop signals that wait for a process, by its status, beside the one that paused it.
fn stops_of_others(status: &str) -> Vec<libc::c_int> {
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let pending = ["SigPnd:", "ShdPnd:"]
        .into_iter()
        .filter_map(|name| u64::from_str_radix(field(name)?, 16).ok())
        .fold(0, |all, set| all | set);
    let is_stopped = field("State:").is_some_and(|state| state.starts_with('T'));
    [libc::SIGSTOP, libc::SIGTSTP, libc::SIGTTIN, libc::SIGTTOU]
        .into_iter()
        // One that has not stopped yet still has ours.
        .filter(|signal| pending & 1 << (signal - 1) != 0 && (*signal != libc::SIGSTOP || is_stopped))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_of_others_is_distinguished_from_ours() {
        let status = |state: &str, thread: &str, shared: &str| {
            format!("Name:\tx\nState:\t{state}\nSigPnd:\t{thread}\nShdPnd:\t{shared}\n")
        };
        let (none, stop, typed) = ("0000000000000000", "0000000000040000", "0000000000080000");
        assert!(stops_of_others(&status("T (stopped)", none, none)).is_empty());
        assert!(stops_of_others(&status("R (running)", none, stop)).is_empty(), "that is ours");
        assert_eq!(stops_of_others(&status("T (stopped)", none, stop)), [libc::SIGSTOP]);
        assert_eq!(stops_of_others(&status("T (stopped)", typed, none)), [libc::SIGTSTP]);
        assert!(stops_of_others("").is_empty());
    }

    #[test]
    fn a_stopped_process_goes_on_and_one_that_began_later_is_left_alone() {
        let stopped = |pid: u32| {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
            status.lines().any(|line| line.starts_with("State:\tT"))
        };
        let wait_for = |wanted: bool, pid: u32| {
            let begun = std::time::Instant::now();
            while stopped(pid) != wanted {
                assert!(begun.elapsed() < Duration::from_secs(20), "stopped is not {wanted}");
                std::thread::sleep(Duration::from_millis(2));
            }
        };
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let pid = child.id();
        // SAFETY: our own child.
        unsafe { libc::kill(pid as i32, libc::SIGSTOP) };
        wait_for(true, pid);
        let_go(pid, now_ns().saturating_sub(3_600_000_000_000));
        assert!(stopped(pid), "its predecessor was meant");
        let_go(pid, now_ns());
        wait_for(false, pid);
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
