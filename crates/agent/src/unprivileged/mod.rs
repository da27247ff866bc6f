//! Processes of this program without rights, which read what anybody may have made: the readers.
//!
//! One has little memory ([`rights`]) and gets files as open descriptors; what it may do with them is read. Its answers are
//! checked, and where it ends or takes too long that costs one answer.

pub mod rights;
pub mod socket;

use std::{
    fs::{self, File},
    os::{
        fd::{AsFd, OwnedFd},
        unix::process::ExitStatusExt,
    },
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use spark_trace_recording::ReaderCost;

/// How this program is called as a reader.
pub const READER: &str = "read-names";

/// First bytes of a reader's first packet.
pub const READY: u8 = b'r';
pub const FAILED: u8 = b'f';

/// How long a reader may take to begin, on a machine that is busy.
const LONGEST_START: Duration = Duration::from_secs(10);
/// How long one that was killed is waited for. One that is stuck in the kernel, in a file system that does not answer, is
/// left to init.
const LONGEST_END: Duration = Duration::from_secs(1);
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// What it is called with. Tests are another program, in which a test plays the reader's part.
const ARGUMENTS: &[&str] = if cfg!(test) {
    &["--exact", "names::tests::acts_as_the_reader", "--ignored", "--test-threads=1", "--nocapture"]
} else {
    &[READER]
};

/// A reader under way.
#[derive(Debug)]
pub struct Reader {
    child: Child,
    socket: OwnedFd,
}

/// Why a reader is of no more use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broken {
    Late,
    Closed,
    Lies,
}

impl Reader {
    /// Starts one, and waits until it has given up its rights.
    pub fn start() -> Result<Self, String> {
        let failed = |error: std::io::Error| format!("the reader of symbols cannot be started: {error}");
        let (socket, theirs) = socket::pair().map_err(failed)?;
        let mut command = Command::new("/proc/self/exe");
        command.args(ARGUMENTS).env_clear().current_dir("/");
        let child = command.stdin(theirs).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        // Its end of the socket is closed with the command, so that its death is an end here.
        drop(command);
        let reader = Self { child: child.map_err(failed)?, socket };
        match reader.receive(Instant::now() + LONGEST_START) {
            Ok(packet) if packet == [READY] => Ok(reader),
            Ok(packet) if packet.first() == Some(&FAILED) => {
                reader.end();
                Err(String::from_utf8_lossy(&packet[1..]).into_owned())
            }
            Err(Broken::Late) => {
                reader.end();
                Err(format!("the reader of symbols did not begin within {} s", LONGEST_START.as_secs()))
            }
            _ => {
                let status = reader.end().map(in_words).unwrap_or_default();
                Err(format!("the reader of symbols ended before it began ({status})"))
            }
        }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn send(&self, packet: &[u8], file: Option<&File>) -> Result<(), Broken> {
        socket::send(self.socket.as_fd(), packet, file).map_err(|_| Broken::Closed)
    }

    /// A packet; none of a reader that is gone.
    pub fn receive(&self, until: Instant) -> Result<Vec<u8>, Broken> {
        match socket::is_ready(self.socket.as_fd(), until) {
            Ok(true) => {}
            Ok(false) => return Err(Broken::Late),
            Err(_) => return Err(Broken::Closed),
        }
        match socket::receive(self.socket.as_fd()) {
            Ok((packet, _)) if packet.is_empty() => Err(Broken::Closed),
            Ok((packet, _)) => Ok(packet),
            Err(_) => Err(Broken::Closed),
        }
    }

    /// Ends it, and says how it had ended if it had.
    pub fn end(mut self) -> Option<ExitStatus> {
        // Its socket goes first: one that is well ends by itself.
        drop(self.socket);
        let until = Instant::now() + LONGEST_END;
        // What has ended already is not killed: how it ended is to be reported.
        if let Ok(None) = self.child.try_wait() {
            let soon = Instant::now() + Duration::from_millis(50);
            while Instant::now() < soon && matches!(self.child.try_wait(), Ok(None)) {
                thread::sleep(LOOK_EVERY);
            }
            let _ = self.child.kill();
        }
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) => return Some(status),
                Ok(None) if Instant::now() < until => thread::sleep(LOOK_EVERY),
                _ => return None,
            }
        }
    }
}

/// What readers took so far, also for who does not wait for them; `None` before it is known.
pub type Took = Arc<Mutex<Option<ReaderCost>>>;

/// Counts what readers take, one after the other.
#[derive(Debug, Default)]
pub struct Meter {
    took: Took,
    /// CPU time of readers that have ended, and of the one under way.
    ended_ns: u64,
    now_ns: u64,
}

impl Meter {
    pub const fn new(took: Took) -> Self {
        Self { took, ended_ns: 0, now_ns: 0 }
    }

    /// Notes what the reader has taken. One that has died is still there until it is waited for.
    pub fn note(&mut self, reader: &Reader) {
        self.note_with(reader, rss_peak(reader.id()));
    }

    /// The same without its memory, which is dearer to find out.
    pub fn note_time(&mut self, reader: &Reader) {
        self.note_with(reader, None);
    }

    fn note_with(&mut self, reader: &Reader, rss_peak: Option<u64>) {
        let Some(cpu_ns) = cpu_ns(reader.id()) else { return };
        self.now_ns = cpu_ns;
        let mut took = self.took.lock().unwrap_or_else(PoisonError::into_inner);
        let rss_peak = rss_peak.max(took.and_then(|took| took.rss_peak));
        *took = Some(ReaderCost { cpu_ns: self.ended_ns + cpu_ns, rss_peak });
    }

    /// What comes is of another reader.
    pub fn ended(&mut self) {
        self.ended_ns += std::mem::take(&mut self.now_ns);
    }
}

/// CPU time of a process, also of threads that have ended, until it is waited for (kernel/time/posix-cpu-timers.c
/// posix_cpu_clock_get).
fn cpu_ns(pid: u32) -> Option<u64> {
    let (mut clock, mut time) = (0, libc::timespec { tv_sec: 0, tv_nsec: 0 });
    let pid = libc::pid_t::try_from(pid).ok()?;
    // SAFETY: both write to the places that are given, which have the right types.
    let known = unsafe {
        libc::clock_getcpuclockid(pid, &raw mut clock) == 0 && libc::clock_gettime(clock, &raw mut time) == 0
    };
    known.then_some(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
}

/// The most that a process had resident; `None` of one that has died.
fn rss_peak(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let figure = text.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(figure.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1024)
}

/// Signals by which a program ends that has met what it cannot stand.
const SIGNALS: &[(i32, &str)] = &[
    (libc::SIGABRT, "SIGABRT"),
    (libc::SIGBUS, "SIGBUS"),
    (libc::SIGFPE, "SIGFPE"),
    (libc::SIGILL, "SIGILL"),
    (libc::SIGKILL, "SIGKILL"),
    (libc::SIGSEGV, "SIGSEGV"),
    (libc::SIGSYS, "SIGSYS"),
    (libc::SIGTERM, "SIGTERM"),
    (libc::SIGXCPU, "SIGXCPU"),
];

pub fn in_words(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => match SIGNALS.iter().find(|(number, _)| *number == signal) {
            Some((_, name)) => (*name).to_owned(),
            None => format!("signal {signal}"),
        },
        (None, None) => status.to_string(),
    }
}
