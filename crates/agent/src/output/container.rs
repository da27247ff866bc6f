//! The log of a container as its engine keeps it, followed through the engine's client.
//!
//! Nothing waits for it: where the reader here is slow the client is, and the container is not.

use std::{
    io::{self, PipeReader, Read},
    sync::{Arc, mpsc},
};

use tokio::{process::Child, sync::mpsc as counted};

use super::{MOST_LINES, PATIENCE, Shared, dated::dated, lines::Lines, sieve::Sieve};
use crate::now_ns;
use spark_trace_recording::LogLine;

const PIECE: usize = 16 << 10;
/// What a recording calls it.
const STREAM: &str = "container";

/// Whether a container may be gone by the time its log is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    There,
    /// What it wrote came another way. It may have ended since, and been removed (`--rm`).
    PerhapsGone,
}

/// What engines write of a container that they do not have (Docker, Podman), in lower case.
const GONE: &str = "no such container";

/// A client that writes a container's log into a pipe. It ends when this is dropped.
#[derive(Debug)]
pub struct ContainerLog {
    client: Child,
    shared: Arc<Shared>,
    lines: mpsc::Receiver<LogLine>,
    /// Closed when the reader has ended.
    ended: counted::Receiver<()>,
}

impl ContainerLog {
    /// `client` writes lines with their times into `pipe`; they lie `offset_ns` after those of the recording's clock.
    pub fn follow(
        client: Child,
        pipe: PipeReader,
        name: &str,
        expected: Expected,
        offset_ns: i64,
    ) -> io::Result<Self> {
        spark_trace_engines::prepare();
        let shared: Arc<Shared> = Arc::default();
        let (sender, lines) = mpsc::sync_channel(MOST_LINES as usize);
        let sieve = Sieve { stream: STREAM, lines: sender, shared: Arc::clone(&shared) };
        let name = name.to_owned();
        let reader = Reader { sieve, name, expected, offset_ns, last_ns: None, complaint: None };
        let (alive, ended) = counted::channel(1);
        std::thread::Builder::new().name("spark-trace-container-log".to_owned()).spawn(move || {
            reader.run(pipe);
            // It is dropped at the end, which is the news.
            drop(alive);
        })?;
        Ok(Self { client, shared, lines, ended })
    }

    /// Waits a short time for what was written by now. Where the container has ended, its client does so by itself.
    pub async fn stop(&mut self, has_ended: bool) {
        if !has_ended {
            // Where it has ended by itself there is nothing to end.
            let _ = self.client.start_kill();
        }
        // What comes later than that is left out, as it would be with a container that goes on.
        let _ = tokio::time::timeout(PATIENCE, self.ended.recv()).await;
    }

    /// Known lines that have come since it was last read.
    pub fn take(&self) -> Vec<LogLine> {
        self.lines.try_iter().collect()
    }

    /// Known lines that there was no room for.
    pub fn lost(&self) -> u64 {
        self.shared.lost.load(std::sync::atomic::Ordering::Relaxed)
    }

    pub fn warnings(&self) -> Vec<String> {
        self.shared.warnings()
    }
}

struct Reader {
    sieve: Sieve,
    name: String,
    expected: Expected,
    offset_ns: i64,
    /// Time of the last line.
    last_ns: Option<u64>,
    /// The first line without a time, where none has had one.
    complaint: Option<String>,
}

impl Reader {
    fn run(mut self, mut pipe: impl Read) {
        let (mut piece, mut lines) = (vec![0; PIECE], Lines::default());
        loop {
            match pipe.read(&mut piece) {
                Ok(0) => break,
                Ok(length) => lines.feed(piece.get(..length).unwrap_or_default(), |line| self.line(line)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        lines.end(|line| self.line(line));
        let is_gone = |complaint: &String| {
            self.expected == Expected::PerhapsGone && complaint.to_lowercase().contains(GONE)
        };
        let complaint = self.complaint.filter(|complaint| self.last_ns.is_none() && !is_gone(complaint));
        if let Some(complaint) = complaint {
            self.sieve.shared.warn(format!("the log of container {} is not read: {complaint}", self.name));
        }
    }

    /// A carriage return within a line begins one without a time: it has that of the line before.
    fn line(&mut self, line: &str) {
        let Some((epoch_ns, text)) = dated(line) else {
            match self.last_ns {
                Some(last_ns) => self.sieve.keep(line, last_ns),
                None => self.complaint = self.complaint.take().or_else(|| Some(line.to_owned())),
            }
            return;
        };
        // A line from before the machine started, or of the future, has no time of this clock.
        let at_ns = epoch_ns.checked_sub(self.offset_ns).and_then(|ns| u64::try_from(ns).ok());
        let Some(at_ns) = at_ns.map(|ns| ns.min(now_ns())) else { return };
        self.last_ns = Some(at_ns);
        self.sieve.keep(text, at_ns);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OFFSET_NS: i64 = 1_796_043_000_000_000_000;

    fn read(text: &str) -> (Vec<(u64, String)>, Vec<String>) {
        read_expecting(Expected::There, text)
    }

    fn read_expecting(expected: Expected, text: &str) -> (Vec<(u64, String)>, Vec<String>) {
        let shared: Arc<Shared> = Arc::default();
        let (sender, lines) = mpsc::sync_channel(MOST_LINES as usize);
        let sieve = Sieve { stream: STREAM, lines: sender, shared: Arc::clone(&shared) };
        let (name, offset_ns) = ("engine".to_owned(), OFFSET_NS);
        let reader = Reader { sieve, name, expected, offset_ns, last_ns: None, complaint: None };
        reader.run(text.as_bytes());
        (lines.try_iter().map(|line| (line.at_ns, line.text)).collect(), shared.warnings())
    }

    /// 12:50:00 of that day is the beginning of the clock.
    #[test]
    fn lines_have_the_time_that_the_engine_gives_them() {
        let (lines, warnings) = read(
            "2026-11-30T12:50:02.5Z (EngineCore pid=7) INFO 06-10 10:00:00 [a.py:1] Model loading took 1.5 GiB memory and 2.0 seconds\n\
             2026-11-30T12:50:03Z something else\r\n\
             2026-11-30T12:50:04Z   0%\rINFO:     Application startup complete.\r\n\
             2026-11-30T12:49:59Z INFO:     Application startup complete.\n",
        );
        let times: Vec<_> = lines.iter().map(|(at_ns, _)| at_ns / 100_000_000).collect();
        assert_eq!(times, [25, 40], "{lines:?}");
        assert!(lines[0].1.starts_with("(EngineCore") && lines[1].1.starts_with("INFO:"), "{lines:?}");
        assert!(warnings.is_empty());
    }

    #[test]
    fn a_client_that_only_complains_is_quoted() {
        let (lines, warnings) = read("Error response: configured logging driver does not support reading\n");
        assert!(lines.is_empty());
        assert_eq!(
            warnings,
            [
                "the log of container engine is not read: Error response: configured logging driver does not support reading"
            ]
        );
        assert!(read("").1.is_empty());
    }

    #[test]
    fn a_container_that_was_removed_after_its_end_is_no_fault_where_its_lines_came_another_way() {
        for words in [
            "Error: No such container: d9ebd6a0d609\n",
            "Error: no container with ID d9eb found: no such container\n",
        ] {
            assert!(read_expecting(Expected::PerhapsGone, words).1.is_empty(), "{words}");
            assert_eq!(read_expecting(Expected::There, words).1.len(), 1, "{words}");
        }
        let other = "Error response: configured logging driver does not support reading\n";
        assert_eq!(read_expecting(Expected::PerhapsGone, other).1.len(), 1);
    }
}
