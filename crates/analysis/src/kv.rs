//! The KV-cache budget: the answer that an inference engine sized it by, what it made of that, and what was reclaimable.

use serde::Serialize;

use crate::memory_queries::MemoryQueryRow;
use spark_trace_recording::Recording;
use spark_trace_recording::framework_log as log;
use spark_trace_recording::units;

mod advice;
mod budget;
mod reading;

/// An answer that sized a cache is followed by a growth of device memory of at least this part of it. Engines take most of
/// what is free; a program that prints what is free and goes on seldom takes a fifth of a GPU in one go.
pub const FOLLOWED_PERCENT: u64 = 20;
/// A cache that was told to be small is followed by less. It is taken for one where there were weights before it...
const WEIGHTS_PERCENT: u64 = 5;
/// ...that it is larger than, and where it is no trifle.
const SMALL_PERCENT: u64 = 1;

/// What makes an answer the KV-cache reading without a log, for messages.
pub fn rule() -> String {
    format!(
        "no answer about a GPU's free memory was followed by a growth of device memory by at least \
         {FOLLOWED_PERCENT} % of it, or by more than the program had there before"
    )
}

pub const SCHEMA: &str = "spark-trace/kv";
pub const SCHEMA_VERSION: u32 = 1;

#[derive(Debug, Clone, Serialize)]
pub struct Report {
    pub schema: &'static str,
    pub schema_version: u32,
    /// Absent where only one recording is looked at.
    pub a: Option<Budget>,
    pub b: Budget,
    /// Where both are known.
    pub kv_delta_bytes: Option<i64>,
    /// The KV cache that B would have had with A's memory at the reading.
    pub b_with_state_of_a: Option<u64>,
    pub advice: Vec<Advice>,
    /// The answer in a sentence or two.
    pub headline: String,
}

/// How one run's KV cache got its size.
#[derive(Debug, Clone, Serialize)]
pub struct Budget {
    /// The reading that sized it.
    pub reading: Reading,
    /// Everything in use at that instant, by source: rows of the system plane with anything in them.
    pub used: Vec<Used>,
    /// What the rows add up to, with what is in no source: MemTotal - MemFree.
    pub used_total: Option<u64>,
    /// What of the used bytes the kernel would have given up: clean page cache and reclaimable slab, and the driver's
    /// pool.
    pub reclaimable: u64,
    /// MemAvailable shortly after the reading.
    pub available: Option<u64>,
    pub figures: Figures,
    pub what_if: Vec<WhatIf>,
    /// Of each figure that both the log and the trace have.
    pub agreement: Vec<Agreement>,
    /// Page cache by file at that instant, the largest first.
    pub files: Vec<CachedFile>,
    pub notes: Vec<String>,
}

#[derive(Debug, Clone, Serialize)]
pub struct Reading {
    pub at_ns: u64,
    /// Nanoseconds after the target started.
    pub since_start_ns: u64,
    pub free: u64,
    pub total: Option<u64>,
    /// `log`: it is the last before the framework wrote its budget; `allocations`: the last that a growth of device
    /// memory followed.
    pub found_by: &'static str,
    /// The whole query, with what the library asked for it.
    pub query: MemoryQueryRow,
    /// What the answer agrees with: `MemFree`, `MemAvailable`, or the GPU's own memory; absent where with none.
    pub signal: Option<&'static str>,
}

#[derive(Debug, Clone, Serialize)]
pub struct Used {
    pub source: &'static str,
    pub title: &'static str,
    pub bytes: u64,
    pub reclaimable: &'static str,
}

/// The framework's arithmetic, in bytes. From its log where that has them, else from what was traced.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Figures {
    pub fraction: f64,
    /// `log`, `option` or `default`.
    pub fraction_from: &'static str,
    /// The target's own allocations at the reading, and at most before it.
    pub allocated: Option<u64>,
    pub allocated_peak: Option<u64>,
    /// Cache that the dummy run used, which is in `allocated`.
    pub temporary_kv: u64,
    /// total - free - allocated.
    pub outside: Option<u64>,
    /// allocated_peak + outside.
    pub peak: Option<u64>,
    /// (total - peak + temporary_kv) * fraction.
    pub kv: Option<u64>,
    /// What was taken after the reading.
    pub kv_taken: Option<u64>,
    pub logged_peak: Option<u64>,
    /// What the framework computed, and what it then allocated: less, where a limit was set.
    pub logged_kv: Option<u64>,
    pub logged_allocated: Option<u64>,
    pub logged_outside: Option<u64>,
}

/// A cache below this part of its budget was limited by something else.
const LESS_PERCENT: u64 = 90;

impl Figures {
    /// What the framework could have for its cache: as it logged it, else as the arithmetic has it.
    pub fn budget(&self) -> Option<u64> {
        self.logged_kv.or(self.kv)
    }

    /// What it took, where that is clearly less: a limit was set.
    pub fn taken_of_it(&self) -> Option<u64> {
        let budget = self.budget()?;
        let taken = self.logged_allocated.or(self.kv_taken.filter(|taken| *taken > 0))?;
        (taken < budget / 100 * LESS_PERCENT).then_some(taken)
    }

    /// The arithmetic with other bytes in use by others, or another fraction.
    pub fn with_outside(&self, outside: u64, total: u64, fraction: f64) -> Option<u64> {
        let peak = self.allocated_peak?.saturating_add(outside);
        let left = total.saturating_add(self.temporary_kv).saturating_sub(peak);
        // Below 2^53 there is an f64 for every byte.
        Some((left as f64 * fraction) as u64)
    }
}

#[derive(Debug, Clone, Serialize)]
pub struct WhatIf {
    pub what: String,
    pub kv: u64,
    /// More than it took, or less.
    pub delta: i64,
}

#[derive(Debug, Clone, Serialize)]
pub struct Agreement {
    pub figure: &'static str,
    pub logged: u64,
    pub traced: u64,
    /// Traced less logged, of logged.
    pub percent: f64,
}

#[derive(Debug, Clone, Serialize)]
pub struct CachedFile {
    pub path: String,
    /// A path that can be opened where spark-trace ran; absent where none is known.
    pub opens_at: Option<String>,
    pub bytes: i64,
    /// `comm (pid)` of who touched it first.
    pub first_touch: Option<String>,
    pub charged_to: String,
}

/// Something to do about it.
#[derive(Debug, Clone, Serialize)]
pub struct Advice {
    pub what: String,
    /// To be typed as it is.
    pub command: Option<String>,
    pub risk: &'static str,
    /// What it would gain, where that is known.
    pub gains_bytes: Option<u64>,
}

#[derive(Debug, thiserror::Error)]
pub enum KvError {
    #[error(
        "{which} has no KV-cache reading: no log line states a KV-cache budget, and {rule}. Record the engine from its start with --log, and check with `spark-trace doctor` that CUDA calls are watched. For other programs use `show` and `diff`",
        rule = rule()
    )]
    NoReading { which: &'static str },
}

/// What may be set beside the recordings.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options<'a> {
    /// Of the free memory, where the log does not say it.
    pub fraction: Option<f64>,
    /// The framework's logs, where the recordings do not have their lines.
    pub a_log: Option<&'a str>,
    pub b_log: Option<&'a str>,
}

/// The budget of one run, or of two compared.
pub fn report(a: Option<&Recording>, b: &Recording, options: Options<'_>) -> Result<Report, KvError> {
    let a_lines = options.a_log.map(log::parse_text);
    let b_lines = options.b_log.map(log::parse_text);
    let which = if a.is_some() { "B" } else { "the run" };
    let a = match a {
        Some(a) => Some(budget::of(a, a_lines, options.fraction).ok_or(KvError::NoReading { which: "A" })?),
        None => None,
    };
    let b = budget::of(b, b_lines, options.fraction).ok_or(KvError::NoReading { which })?;
    let kv = |budget: &Budget| budget.figures.budget().and_then(|kv| i64::try_from(kv).ok());
    let kv_delta_bytes = a.as_ref().and_then(kv).zip(kv(&b)).map(|(a, b)| b - a);
    let b_with_state_of_a = a
        .as_ref()
        .and_then(|a| b.figures.with_outside(a.figures.outside?, b.reading.total?, b.figures.fraction));
    Ok(Report {
        schema: SCHEMA,
        schema_version: SCHEMA_VERSION,
        headline: headline(a.as_ref(), &b, kv_delta_bytes),
        advice: advice::of(&b),
        a,
        b,
        kv_delta_bytes,
        b_with_state_of_a,
    })
}

/// The KV-cache reading, where there is one.
pub fn reading_of(recording: &Recording) -> Option<Reading> {
    reading::of(recording)
}

/// Its time.
pub fn instant(recording: &Recording) -> Option<u64> {
    reading_of(recording).map(|reading| reading.at_ns)
}

fn headline(a: Option<&Budget>, b: &Budget, delta: Option<i64>) -> String {
    let told = |name: &str, budget: &Budget| {
        let reading = &budget.reading;
        let query = match name {
            "" => reading.query.interface.clone(),
            name => format!("{name}: {}", reading.query.interface),
        };
        let of = reading.total.map_or_else(String::new, |total| format!(" of {}", units::unsigned(total)));
        let kv = match budget.figures.budget() {
            Some(kv) => format!("; KV-cache budget {}", units::unsigned(kv)),
            None => String::new(),
        };
        let taken = budget
            .figures
            .taken_of_it()
            .map_or_else(String::new, |taken| format!(", of which {} was allocated", units::unsigned(taken)));
        format!("{query} returned {}{of} free{kv}{taken}", units::unsigned(reading.free))
    };
    let told = |name: &str, budget: &Budget| {
        let mut text = told(name, budget);
        if budget.reclaimable > 0 {
            let bytes = units::unsigned(budget.reclaimable);
            text.push_str(&format!("; {bytes} of the memory in use was reclaimable"));
        }
        text.push('.');
        text
    };
    let size = |delta: i64| {
        let word = if delta < 0 { "smaller" } else { "larger" };
        format!("The KV cache of B is {} {word} than that of A.", units::size(delta.abs()))
    };
    match (a, delta) {
        (None, _) => told("", b),
        (Some(a), Some(delta)) if delta != 0 => format!("{} {} {}", size(delta), told("A", a), told("B", b)),
        (Some(a), _) => format!("{} {}", told("A", a), told("B", b)),
    }
}

#[cfg(test)]
mod tests;
