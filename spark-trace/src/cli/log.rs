//! The log of the agent on standard error, where it is wanted.
//!
//! A thread writes it: standard error may be a pipe that nobody reads, and no reading may wait for that. Lines for which
//! the queue has no room are counted and left out.

use std::{
    fs::File,
    io::{self, IsTerminal, Write},
    os::fd::AsFd,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::Context;
use clap::ValueEnum;
use spark_trace_render::escape;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::{Registry, filter::Targets, fmt, layer::SubscriberExt};

use super::headings;

/// Lines that wait at most. Attaching writes some hundred at once.
const MOST_LINES: usize = 4096;
/// The time for what waits at the end.
const LONGEST_END: Duration = Duration::from_secs(2);
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Our crates' names begin so. What libraries write is not for users.
const OURS: &str = "spark_trace";

/// The options of each command that traces.
#[derive(Debug, Clone, Copy, Default, clap::Args)]
pub struct LogArgs {
    /// Write a log to standard error, for bug reports: the same as --log-level debug
    #[arg(help_heading = headings::LOG, short, long)]
    verbose: bool,

    /// Write a log to standard error, as detailed as this; trace includes messages of the eBPF programs
    #[arg(help_heading = headings::LOG, long, value_enum, value_name = "LEVEL", conflicts_with = "verbose")]
    log_level: Option<Level>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Level {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

impl From<Level> for LevelFilter {
    fn from(level: Level) -> Self {
        match level {
            Level::Error => Self::ERROR,
            Level::Warn => Self::WARN,
            Level::Info => Self::INFO,
            Level::Debug => Self::DEBUG,
            Level::Trace => Self::TRACE,
        }
    }
}

impl LogArgs {
    fn level(self) -> Option<Level> {
        self.log_level.or(self.verbose.then_some(Level::Debug))
    }

    /// Whether lines of the log come to the terminal that standard error is.
    pub fn is_on_terminal(self) -> bool {
        self.level().is_some() && io::stderr().is_terminal()
    }

    /// Begins the log, which goes on until what is returned is dropped.
    pub fn start(self) -> anyhow::Result<Log> {
        let Some(level) = self.level() else { return Ok(Log(None)) };
        let to = io::stderr().as_fd().try_clone_to_owned().context("cannot write a log")?;
        let (queue, lines) = sync_channel(MOST_LINES);
        let left_out = Arc::new(AtomicU64::new(0));
        let writer = Writer { lines, left_out: Arc::clone(&left_out), to: File::from(to) };
        thread::Builder::new()
            .name("spark-trace-log".to_owned())
            .spawn(move || writer.run())
            .context("cannot write a log")?;
        let lines = Lines { queue: queue.clone(), left_out };
        let format =
            fmt::layer().with_ansi(false).with_timer(fmt::time::uptime()).with_writer(move || lines.clone());
        let ours = Targets::new().with_target(OURS, LevelFilter::from(level));
        tracing::subscriber::set_global_default(Registry::default().with(ours).with(format))
            .context("cannot write a log")?;
        Ok(Log(Some(queue)))
    }
}

enum Entry {
    Line(String),
    /// The last; the other end of this is dropped when everything is written.
    End(SyncSender<()>),
}

/// A log under way.
#[must_use = "the log ends when this is dropped"]
pub struct Log(Option<SyncSender<Entry>>);

impl Drop for Log {
    fn drop(&mut self) {
        let Some(queue) = &self.0 else { return };
        let until = Instant::now() + LONGEST_END;
        let (written, end) = sync_channel(1);
        let mut entry = Entry::End(written);
        loop {
            match queue.try_send(entry) {
                Ok(()) => break,
                Err(TrySendError::Full(rest)) if Instant::now() < until => entry = rest,
                Err(_) => return,
            }
            thread::sleep(LOOK_EVERY);
        }
        // Nothing is ever sent: it returns when the other end is gone, or when there was time enough.
        let _ = end.recv_timeout(until.saturating_duration_since(Instant::now()));
    }
}

/// Where lines begin: the thread that logs formats them and does not wait.
#[derive(Clone)]
struct Lines {
    queue: SyncSender<Entry>,
    left_out: Arc<AtomicU64>,
}

impl Write for Lines {
    /// A line comes at once (tracing-subscriber, `fmt::Layer::on_event`).
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(bytes);
        let line = format!("spark-trace: {}\n", escape::line(text.trim()));
        if let Err(TrySendError::Full(_)) = self.queue.try_send(Entry::Line(line)) {
            self.left_out.fetch_add(1, Ordering::Relaxed);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Where they end.
struct Writer<W> {
    lines: Receiver<Entry>,
    left_out: Arc<AtomicU64>,
    to: W,
}

impl<W: Write> Writer<W> {
    fn run(mut self) {
        while let Ok(entry) = self.lines.recv() {
            let left_out = self.left_out.swap(0, Ordering::Relaxed);
            let result = match entry {
                Entry::Line(line) => self.to.write_all(line.as_bytes()),
                Entry::End(written) => {
                    self.note(left_out);
                    drop(written);
                    return;
                }
            };
            // Nobody reads any more.
            if result.is_err() {
                return;
            }
            self.note(left_out);
        }
    }

    fn note(&mut self, left_out: u64) {
        if left_out > 0 {
            // Of a log that cannot be written nothing more can be said.
            let _ = writeln!(
                self.to,
                "spark-trace: {left_out} lines of the log are left out: standard error is read too slowly"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(room: usize) -> (Lines, Receiver<Entry>) {
        let (queue, received) = sync_channel(room);
        (Lines { queue, left_out: Arc::default() }, received)
    }

    #[test]
    fn a_name_makes_no_line_and_no_command_of_its_own() {
        let (mut lines, received) = lines(1);
        lines.write_all("  1s DEBUG a: comm \u{1b}[2J\nspark-trace: wrote x\r\u{202e}\n".as_bytes()).unwrap();
        let Ok(Entry::Line(line)) = received.try_recv() else { panic!("no line") };
        assert!(line.starts_with("spark-trace: 1s DEBUG a: comm ") && line.ends_with('\n'), "{line:?}");
        assert_eq!(line.matches(|c: char| c.is_control() || c == '\u{202e}').count(), 1, "{line:?}");
    }

    #[test]
    fn a_full_queue_drops_lines_counts_them_and_never_waits() {
        let (mut lines, received) = lines(2);
        for _ in 0..5 {
            lines.write_all(b"line\n").unwrap();
        }
        let left_out = Arc::clone(&lines.left_out);
        assert_eq!(left_out.load(Ordering::Relaxed), 3);
        drop(lines);
        let mut written = Vec::new();
        let writer = Writer { lines: received, left_out, to: &mut written };
        writer.run();
        let text = String::from_utf8(written).unwrap();
        assert_eq!(text.lines().filter(|line| *line == "spark-trace: line").count(), 2, "{text}");
        assert!(text.contains("3 lines of the log are left out"), "{text}");
    }

    #[test]
    fn the_end_waits_for_what_is_written_and_for_no_reader_that_does_not_read() {
        let (lines, received) = lines(1);
        let (reader, mut to) = io::pipe().unwrap();
        // SAFETY: no pointers involved; both ends are open.
        let room = unsafe { libc::fcntl(std::os::fd::AsRawFd::as_raw_fd(&to), libc::F_GETPIPE_SZ) };
        to.write_all(&vec![b'x'; usize::try_from(room).unwrap()]).unwrap();
        let writer = Writer { lines: received, left_out: Arc::clone(&lines.left_out), to };
        let thread = thread::spawn(move || writer.run());
        let log = Log(Some(lines.queue.clone()));
        lines.clone().write_all(b"line\n").unwrap();
        // It returns although the writer is stuck.
        drop(log);
        // With the reader gone the writer ends by itself.
        drop(reader);
        thread.join().unwrap();
    }
}
