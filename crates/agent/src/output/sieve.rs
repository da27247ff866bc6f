//! Of all lines those that are known.

use std::sync::{Arc, mpsc};

use super::Shared;
use spark_trace_engines::{benchmark, is_known};
use spark_trace_recording::LogLine;

#[derive(Debug, Clone)]
pub(super) struct Sieve {
    pub(super) stream: &'static str,
    pub(super) lines: mpsc::SyncSender<LogLine>,
    pub(super) shared: Arc<Shared>,
}

impl Sieve {
    pub(super) fn keep(&self, line: &str, at_ns: u64) {
        if (is_known(line) || benchmark::is_reported(line)) && self.shared.has_room(line.len()) {
            let line = LogLine { at_ns, stream: self.stream.to_owned(), text: line.to_owned() };
            // Nobody takes lines any more where the recording is complete.
            let _ = self.lines.try_send(line);
        }
    }
}
