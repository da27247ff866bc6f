//! Every level of the run in long form: a row for each reading of each series, as CSV (RFC 4180, with line feeds).

use std::fmt::Write as _;
use std::io::{self, Write};
use std::sync::Arc;

use super::{Content, Exported, Options};
use crate::escape;
use spark_trace_analysis::levels::{self, Line};
use spark_trace_analysis::timeline::seconds_between;
use spark_trace_recording::Recording;

const HEADER: &[u8] = b"time_seconds,plane,object,source,bytes\n";

/// All series of a recording, and when its target started.
#[derive(Debug)]
pub struct Table {
    lines: Vec<Line>,
    started_ns: u64,
}

pub fn csv(recording: &Recording, _: Options) -> Exported {
    let (lines, started_ns) = (levels::lines(recording), recording.target.started_ns);
    Ok(Content::Table(Table { lines, started_ns }))
}

/// No recording within the limits of reading has more; one that was made to fill a disk has.
const MOST_BYTES: u64 = 16 << 30;
/// A time, a size and what separates them.
const ROW: u64 = 32;

impl Table {
    /// How long it is, roughly: names are in each row.
    fn bytes(&self) -> u64 {
        let names = |line: &Line| (line.plane.len() + line.object.len() + line.source.len()) as u64;
        let of = |line: &Line| (line.points.iter().count() as u64).saturating_mul(names(line) + ROW);
        self.lines.iter().map(of).fold(0, u64::saturating_add)
    }

    /// Sizes as plain bytes, unknown as an empty cell; times in seconds after the target's start, before which readings begin.
    pub(super) fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let bytes = self.bytes();
        if bytes > MOST_BYTES {
            return Err(io::Error::other(format!(
                "the table would have some {} GiB, more than the {} GiB that it may: export another format",
                bytes >> 30,
                MOST_BYTES >> 30
            )));
        }
        out.write_all(HEADER)?;
        let mut times = Times::default();
        let mut row = String::new();
        for line in &self.lines {
            let names = [line.plane, &line.object, &line.source].map(escape::csv).join(",");
            times.of(line.points.times(), self.started_ns);
            for (time, (_, bytes)) in times.iter().zip(line.points.iter()) {
                row.clear();
                row.extend([time, ",", &names, ","]);
                if let Some(bytes) = bytes {
                    // Writing to memory does not fail.
                    let _ = write!(row, "{bytes}");
                }
                row.push('\n');
                out.write_all(row.as_bytes())?;
            }
        }
        Ok(())
    }
}

/// The texts of the times of an object, which are those of each of its series.
#[derive(Default)]
struct Times {
    of: Option<Arc<[u64]>>,
    text: String,
    ends: Vec<usize>,
}

impl Times {
    fn of(&mut self, times: &Arc<[u64]>, started_ns: u64) {
        if self.of.as_ref().is_some_and(|of| Arc::ptr_eq(of, times)) {
            return;
        }
        self.text.clear();
        self.ends.clear();
        for at_ns in &**times {
            // Writing to memory does not fail.
            let _ = write!(self.text, "{}", seconds_between(started_ns, *at_ns));
            self.ends.push(self.text.len());
        }
        self.of = Some(Arc::clone(times));
    }

    fn iter(&self) -> impl Iterator<Item = &str> {
        let mut begin = 0;
        self.ends.iter().map(move |end| {
            let text = self.text.get(begin..*end).unwrap_or_default();
            begin = *end;
            text
        })
    }
}

/// After the target's start.
pub fn seconds(recording: &Recording, at_ns: u64) -> f64 {
    seconds_between(recording.target.started_ns, at_ns)
}
