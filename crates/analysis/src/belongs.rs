//! Whether a log or a file of results is of the same run as a recording.
//!
//! Three things are compared where both sides have them: the GPU's total memory, the times on the lines, and the engine. What
//! one side lacks is not compared.

use std::fmt;
use std::sync::LazyLock;

use regex::Regex;
use spark_trace_engines::{Engine, EngineLog, Figure, by_arguments, by_comm, row};
use spark_trace_recording::Recording;
use spark_trace_recording::provenance::Process;

const GIB: f64 = (1_u64 << 30) as f64;
const SECOND: i64 = 1_000_000_000;

/// What differs between a file and the recording beside it.
#[derive(Debug, Clone, PartialEq)]
pub struct Mismatch {
    pub file: String,
    pub difference: Difference,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Difference {
    /// Total memory of a GPU, bytes: of the file, and all that the recording has.
    Total { file: u64, recording: Vec<u64> },
    /// First and last time of the file in its own clock, and those of the recording in UTC; seconds since 1970.
    Times { file: (i64, i64), recording: (i64, i64) },
    /// Engine of the file, and those whose processes the recording has.
    Engine { file: Engine, recording: Vec<Engine> },
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} and the recording are of different runs: ", self.file)?;
        let gib = |bytes: &u64| format!("{:.2} GiB", *bytes as f64 / GIB);
        match &self.difference {
            Difference::Total { file, recording } => {
                let of_recording: Vec<String> = recording.iter().map(gib).collect();
                let of_recording = of_recording.join(" and ");
                write!(f, "the GPU has {} in the file and {of_recording} in the recording", gib(file))
            }
            Difference::Times { file, recording } => write!(
                f,
                "the file's lines are of {} to {}, the recording is of {} to {} UTC, and no time zone explains that",
                shown(file.0),
                shown(file.1),
                shown(recording.0),
                shown(recording.1)
            ),
            Difference::Engine { file, recording } => {
                let names: Vec<&str> = recording.iter().map(|engine| name(*engine)).collect();
                write!(
                    f,
                    "the file is {}'s, and the recording has processes of {}",
                    name(*file),
                    names.join(", ")
                )
            }
        }
    }
}

/// The first difference between a text and a recording.
pub fn mismatch(recording: &Recording, file: &str, text: &str) -> Option<Mismatch> {
    let log = spark_trace_engines::parse_text(text);
    let found = total(recording, text, &log)
        .or_else(|| times(recording, text))
        .or_else(|| engine(recording, log.engine?));
    found.map(|difference| Mismatch { file: file.to_owned(), difference })
}

/// `trtllm-bench --report_json`, GiB; logs are the engines' table's.
const TOTAL: &str = r#""memory\.total": ?([\d.]+)"#;

/// A log rounds, and NVML counts what the driver keeps for itself, too: some hundred MiB, whatever the size.
const TOTAL_WITHIN: f64 = 0.02;
const DRIVER_KEEPS: u64 = 640 << 20;

static TOTAL_OF_REPORT: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(TOTAL).ok());

fn total(recording: &Recording, text: &str, log: &EngineLog) -> Option<Difference> {
    let of_log = log.of(Figure::DeviceTotal).filter_map(|figure| u64::try_from(figure.value.whole()?).ok());
    let of_report = text.lines().filter_map(|line| {
        let found = TOTAL_OF_REPORT.as_ref()?.captures(line)?;
        Some((found.get(1)?.as_str().parse::<f64>().ok()? * GIB) as u64)
    });
    let file: Vec<u64> = of_log.chain(of_report).filter(|&bytes| bytes > 0).collect();
    let known = totals(recording);
    let same = |one: u64, other: u64| {
        let by = one.abs_diff(other);
        by <= DRIVER_KEEPS || by as f64 <= TOTAL_WITHIN * one.max(other) as f64
    };
    let matches = file.iter().any(|&one| known.iter().any(|&other| same(one, other)));
    let first = *file.first()?;
    (!matches && !known.is_empty()).then_some(Difference::Total { file: first, recording: known })
}

/// Total memory of each GPU. The driver's own answer decides: it knows of parts of a GPU, and of unified memory.
fn totals(recording: &Recording) -> Vec<u64> {
    let queries = recording.provenance.queries.iter();
    let answers = queries.filter(|query| query.interface.starts_with("cuMemGetInfo") && query.result == 0);
    let mut totals: Vec<u64> = answers.filter_map(|query| query.values.get("total").copied()).collect();
    let gpus = &recording.host.gpus;
    let whole = gpus.iter().all(|gpu| gpu.mig == Some(false));
    if totals.is_empty() && whole {
        totals = gpus.iter().filter_map(|gpu| gpu.memory_total).collect();
    }
    totals.sort_unstable();
    totals.dedup();
    totals
}

/// Date and time at the beginning of an engine's line, or in a benchmark's results.
#[derive(Debug)]
struct Stamp {
    regex: &'static str,
    zone: Zone,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Zone {
    Utc,
    /// Whatever the machine or container has.
    Local,
}

/// Groups are called `y` (some formats lack it), `m`, `d`, `h`, `n` and `s`.
const STAMPS: &[Stamp] = &[
    // TensorRT-LLM (tensorrt_llm/logger.py).
    Stamp {
        regex: r"^\[(?P<m>\d\d)/(?P<d>\d\d)/(?P<y>\d{4})-(?P<h>\d\d):(?P<n>\d\d):(?P<s>\d\d)\] \[TRT-LLM\]",
        zone: Zone::Local,
    },
    // vLLM (vllm/logging_utils/formatter.py), with the process in front of it.
    Stamp {
        regex: r"^(?:\([^)]*\) )?(?:DEBUG|INFO|WARNING|ERROR) (?P<m>\d\d)-(?P<d>\d\d) (?P<h>\d\d):(?P<n>\d\d):(?P<s>\d\d) \[",
        zone: Zone::Local,
    },
    // SGLang (srt/utils configure_logger).
    Stamp {
        regex: r"^\[(?P<y>\d{4})-(?P<m>\d\d)-(?P<d>\d\d) (?P<h>\d\d):(?P<n>\d\d):(?P<s>\d\d)(?: [A-Z]+\d+)*\]",
        zone: Zone::Local,
    },
    // llama-bench.
    Stamp {
        regex: r#""?test_time"?: ?"(?P<y>\d{4})-(?P<m>\d\d)-(?P<d>\d\d)T(?P<h>\d\d):(?P<n>\d\d):(?P<s>\d\d)Z""#,
        zone: Zone::Utc,
    },
    // vllm bench serve --save-result.
    Stamp {
        regex: r#""date": ?"(?P<y>\d{4})(?P<m>\d\d)(?P<d>\d\d)-(?P<h>\d\d)(?P<n>\d\d)(?P<s>\d\d)""#,
        zone: Zone::Local,
    },
];

static STAMPED: LazyLock<Vec<(Regex, Zone)>> = LazyLock::new(|| {
    STAMPS.iter().filter_map(|stamp| Some((Regex::new(stamp.regex).ok()?, stamp.zone))).collect()
});

/// Lines have whole seconds, and the clock may be set while a run lasts.
const LATE_S: i64 = 60;
/// Offsets of time zones: -12 h to +14 h, in quarters of an hour.
const QUARTER_S: i64 = 15 * 60;
const OFFSETS: std::ops::RangeInclusive<i64> = -48..=56;
/// Summer time may begin or end within a run.
const SUMMER: [i64; 3] = [0, 4, -4];

fn times(recording: &Recording, text: &str) -> Option<Difference> {
    // What spark-trace did not start may have written lines before the recording.
    if recording.target.argv.is_empty() {
        return None;
    }
    let utc =
        |ns: u64| Some((i64::try_from(ns).ok()?.checked_add(recording.clock.realtime_offset_ns)?) / SECOND);
    let (began, ended) = (utc(recording.target.started_ns)?, utc(recording.target.ended_ns)?);
    for (regex, zone) in STAMPED.iter() {
        let stamps: Vec<i64> = text.lines().filter_map(|line| seconds(regex, line, began)).collect();
        let (Some(&first), Some(&last)) = (stamps.iter().min(), stamps.iter().max()) else { continue };
        let offsets = if *zone == Zone::Utc { 0..=0 } else { OFFSETS };
        let within =
            |at: i64, offset: i64| (began - LATE_S..=ended + LATE_S).contains(&(at - offset * QUARTER_S));
        let fits =
            |offset: i64| within(first, offset) && SUMMER.iter().any(|summer| within(last, offset + summer));
        if !offsets.into_iter().any(fits) {
            return Some(Difference::Times { file: (first, last), recording: (began, ended) });
        }
    }
    None
}

/// Seconds since 1970 of a line. Without a year it is that in which the time is next to `near`.
fn seconds(regex: &Regex, line: &str, near: i64) -> Option<i64> {
    let line = line.rsplit_once(" | ").map_or(line, |(_, rest)| rest).trim_start();
    let found = regex.captures(line)?;
    let group = |name: &str| found.name(name)?.as_str().parse::<i64>().ok();
    let (month, day) = (group("m")?, group("d")?);
    let time = group("h")? * 3600 + group("n")? * 60 + group("s")?;
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let of_year = |year: i64| days(year, month, day) * 86_400 + time;
    let guessed = 1970 + near / 31_556_952;
    let years = group("y").map_or(guessed - 1..=guessed + 1, |year| year..=year);
    years.map(of_year).min_by_key(|at| at.abs_diff(near))
}

/// Days since 1970 of a date of the Gregorian calendar.
fn days(year: i64, month: i64, day: i64) -> i64 {
    // Years that begin in March, so that the leap day is the last.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let century = year.div_euclid(100);
    365 * year + year.div_euclid(4) - century + century.div_euclid(4) + (153 * month + 2) / 5 + day - 719_469
}

/// Date and time of day.
fn shown(at: i64) -> String {
    let (day, time) = (at.div_euclid(86_400), at.rem_euclid(86_400));
    let mut year = 1970 + day.div_euclid(366);
    while days(year + 1, 1, 1) <= day {
        year += 1;
    }
    let month = (1..=12).rev().find(|&month| days(year, month, 1) <= day).unwrap_or(1);
    let of_month = day - days(year, month, 1) + 1;
    let (hour, minute, second) = (time / 3600, time / 60 % 60, time % 60);
    format!("{year:04}-{month:02}-{of_month:02} {hour:02}:{minute:02}:{second:02}")
}

/// Generations of processes that are followed upwards.
const DEEPEST: usize = 64;

fn engine(recording: &Recording, file: Engine) -> Option<Difference> {
    let processes = &recording.provenance.processes;
    let mut running: Vec<Engine> = vec![];
    for process in processes {
        match engines_of(process, processes) {
            // A program in Python can be any engine.
            found if found.is_empty() && process.comm.starts_with("python") => return None,
            found => running.extend(found),
        }
    }
    running.sort();
    running.dedup();
    (!running.is_empty() && !running.iter().any(|&other| are_one(file, other)))
        .then_some(Difference::Engine { file, recording: running })
}

/// Whether one is the other, another version of it, or runs it.
fn are_one(one: Engine, other: Engine) -> bool {
    let runs = |outer: Engine, inner: Engine| row(outer).and_then(|row| row.runs) == Some(inner);
    name(one) == name(other) || runs(one, other) || runs(other, one)
}

/// The engine without its version or backend.
fn name(engine: Engine) -> &'static str {
    let word = engine.as_str();
    word.split_once('-').map_or(word, |(name, _)| name)
}

/// What engines a process may be, or the process that started it.
fn engines_of(process: &Process, all: &[Process]) -> Vec<Engine> {
    let mut process = Some(process);
    for _ in 0..DEEPEST {
        let Some(this) = process else { break };
        let mut found = by_comm(&this.comm);
        found.extend(by_arguments(&names(this)));
        if !found.is_empty() {
            return found;
        }
        process = all.iter().find(|other| Some(other.pid) == this.parent);
    }
    vec![]
}

/// The program, what an interpreter runs, and the module behind `-m`: other arguments are names of models.
fn names(process: &Process) -> Vec<&str> {
    let argv = process.argv.iter().map(String::as_str);
    argv.clone().take(2).chain(argv.skip_while(|word| *word != "-m").nth(1)).collect()
}

#[cfg(test)]
mod tests;
