//! The tracer's side of the connection to the reader.

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

use tracing::debug;

use super::{
    Answer,
    reader::{DONE, FAILED, LONGEST_NAME, NAME, READER, READY},
    socket,
};
use spark_trace_recording::ReaderCost;

/// How long a reader may take to begin, on a machine that is busy.
const LONGEST_START: Duration = Duration::from_secs(10);
/// How long one that was killed is waited for. One that is stuck in the kernel, in a file system that does not answer, is
/// left to init.
const LONGEST_END: Duration = Duration::from_secs(1);
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// What it is called with. Tests are another program, in which a test plays the reader's part.
const ARGUMENTS: &[&str] = if cfg!(test) {
    &["--exact", "names::tests::acts_as_the_reader", "--ignored", "--test-threads=1", "--nocapture"]
} else {
    &[READER]
};

/// What readers took so far, also for who does not wait for them; `None` before it is known.
pub type Took = Arc<Mutex<Option<ReaderCost>>>;

/// A reader under way, if there is one.
#[derive(Debug, Default)]
pub struct Client {
    reader: Option<Reader>,
    took: Took,
    /// CPU time of readers that have ended, and of the one under way.
    ended_ns: u64,
    now_ns: u64,
    /// Why none can be started.
    unable: Option<String>,
}

#[derive(Debug)]
struct Reader {
    child: Child,
    socket: OwnedFd,
}

impl Client {
    /// Names of places in a file, within a time.
    pub fn names(&mut self, file: &File, offsets: &[u64], within: Duration) -> Answer {
        if let Some(why) = &self.unable {
            return Err(why.clone());
        }
        let reader = match self.reader.take() {
            Some(reader) => reader,
            None => start().inspect_err(|why| {
                debug!("{why}");
                self.unable = Some(why.clone());
            })?,
        };
        let until = Instant::now() + within;
        let answer = reader.names(file, offsets, until);
        // One that has died is still there until it is waited for.
        self.note(reader.child.id());
        if answer.is_err() {
            self.ended_ns += std::mem::take(&mut self.now_ns);
        }
        let answer = match answer {
            Ok(answer) => {
                self.reader = Some(reader);
                return answer;
            }
            Err(Broken::Late) => {
                reader.end();
                Err(format!("reading its symbols takes more than {} s", within.as_secs_f32().ceil()))
            }
            Err(Broken::Lies) => {
                reader.end();
                Err("the reader of symbols sent invalid data".to_owned())
            }
            Err(Broken::Closed) => Err(match reader.end() {
                Some(status) => format!("the reader of symbols ended ({})", in_words(status)),
                None => "the reader of symbols ended".to_owned(),
            }),
        };
        if let Err(why) = &answer {
            debug!(
                "{why}; {} places stay without a name, and another reader starts for the next file",
                offsets.len()
            );
        }
        answer
    }

    /// One that notes what its readers took.
    pub fn noting(took: Took) -> Self {
        let mut client = Self::default();
        client.took = took;
        client
    }

    /// Notes what the reader has taken.
    fn note(&mut self, pid: u32) {
        let Some(cpu_ns) = cpu_ns(pid) else { return };
        self.now_ns = cpu_ns;
        let mut took = self.took.lock().unwrap_or_else(PoisonError::into_inner);
        let rss_peak = rss_peak(pid).max(took.and_then(|took| took.rss_peak));
        *took = Some(ReaderCost { cpu_ns: self.ended_ns + cpu_ns, rss_peak });
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

#[cfg(test)]
impl Client {
    pub fn pid(&self) -> Option<u32> {
        self.reader.as_ref().map(|reader| reader.child.id())
    }
}

/// Why a reader is of no more use.
enum Broken {
    Late,
    Closed,
    Lies,
}

/// Starts one, and waits until it has given up its rights.
fn start() -> Result<Reader, String> {
    let failed = |error: std::io::Error| format!("the reader of symbols cannot be started: {error}");
    let (socket, theirs) = socket::pair().map_err(failed)?;
    let mut command = Command::new("/proc/self/exe");
    command.args(ARGUMENTS).env_clear().current_dir("/");
    let child = command.stdin(theirs).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    // Its end of the socket is closed with the command, so that its death is an end here.
    drop(command);
    let reader = Reader { child: child.map_err(failed)?, socket };
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

impl Reader {
    fn names(&self, file: &File, offsets: &[u64], until: Instant) -> Result<Answer, Broken> {
        let request: Vec<u8> = offsets.iter().flat_map(|offset| offset.to_le_bytes()).collect();
        socket::send(self.socket.as_fd(), &request, Some(file)).map_err(|_| Broken::Closed)?;
        let mut names = vec![None; offsets.len()];
        // One packet a name at most, and the end.
        for _ in 0..=offsets.len() {
            let packet = self.receive(until)?;
            let (kind, content) = packet.split_first().ok_or(Broken::Closed)?;
            match (*kind, content.split_first_chunk()) {
                (DONE, _) => return Ok(Ok(names)),
                (FAILED, _) => return Ok(Err(String::from_utf8_lossy(content).into_owned())),
                (NAME, Some((index, name))) => {
                    let name = std::str::from_utf8(name).map_err(|_| Broken::Lies)?;
                    let place = names.get_mut(u32::from_le_bytes(*index) as usize).ok_or(Broken::Lies)?;
                    if name.is_empty() || name.len() > LONGEST_NAME + '…'.len_utf8() {
                        return Err(Broken::Lies);
                    }
                    *place = Some(name.to_owned());
                }
                _ => return Err(Broken::Lies),
            }
        }
        Err(Broken::Lies)
    }

    /// A packet; none of a reader that is gone.
    fn receive(&self, until: Instant) -> Result<Vec<u8>, Broken> {
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
    fn end(mut self) -> Option<ExitStatus> {
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

impl Drop for Client {
    fn drop(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.end();
        }
    }
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

fn in_words(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => match SIGNALS.iter().find(|(number, _)| *number == signal) {
            Some((_, name)) => (*name).to_owned(),
            None => format!("signal {signal}"),
        },
        (None, None) => status.to_string(),
    }
}
