//! The KV-cache budget: the answers that an inference engine sized its cache by, what it made of them, who had the memory
//! then, and what would have made the cache larger.

use serde::Serialize;

use spark_trace_engines::{Check, Engine, EngineLog};
use spark_trace_recording::{Recording, words};

use crate::containers::ContainerUse;
use crate::memory_queries::{MemoryQueryRow, Queries};

mod advice;
mod arithmetic;
mod budget;
mod changes;
mod exchange;
mod figures;
mod identity;
mod outside;
mod outside_device;
mod own;
mod reading;
mod signals;
mod state;
mod what_if;

pub use advice::Step;
pub use identity::{Identity, is_shared};
pub use what_if::{WhatIf, WhatIfKind};

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
    /// The KV cache that B would have had with A's memory at the readings.
    pub b_with_state_of_a: Option<i64>,
    pub advice: Vec<Advice>,
}

/// How one run's KV cache got its size.
#[derive(Debug, Clone, Serialize)]
pub struct Budget {
    pub engine: Identity,
    /// The reading that sized it.
    pub reading: Reading,
    /// The reading before the weights, of engines that go by what went between the two.
    pub baseline: Option<Reading>,
    /// Everything in use at that instant, by source: rows of the system plane with anything in them.
    pub used: Vec<Used>,
    /// What the rows add up to, with what is in no source: MemTotal - MemFree.
    pub used_total: Option<u64>,
    /// What the kernel keeps back from MemAvailable for itself: watermarks, and the part of the page cache and of slab that
    /// it does not count on. Absent where the signal is another.
    pub reserve: Option<u64>,
    /// What of the used bytes the kernel would have given up: clean page cache and reclaimable slab, and the driver's
    /// pool.
    pub reclaimable: u64,
    /// MemAvailable at the reading, or shortly after it.
    pub available: Option<u64>,
    pub figures: Figures,
    /// What changed from the baseline to the reading, by source; these add up to the fall of the signal.
    pub changes: Vec<Change>,
    /// Host memory of processes at both readings, the largest first.
    pub processes: Vec<ProcessUse>,
    /// The largest processes outside of the target, before it started and after it had ended; empty in older recordings.
    pub outside: Vec<OutsideUse>,
    pub what_if: Vec<WhatIf>,
    /// Of each figure that both the log and the trace have.
    pub agreement: Vec<Agreement>,
    /// Page cache by file at that instant, the largest first.
    pub files: Vec<CachedFile>,
    /// The check that ended the engine, as it logged it.
    pub failure: Option<Failure>,
    /// Limits of containers, and what they do not count.
    pub containers: Vec<ContainerUse>,
    pub notes: Vec<Note>,
}

#[derive(Debug, Clone, Serialize)]
pub struct Reading {
    pub at_ns: u64,
    /// Nanoseconds after the target started.
    pub since_start_ns: u64,
    pub free: u64,
    pub total: Option<u64>,
    /// The answer of the GPU's library right before, of which the engine used the total alone.
    pub device_free: Option<u64>,
    /// `log`: it is the last before the framework wrote its budget; `allocations`: the last that a growth of device
    /// memory followed; `failure`: the last before the check that ended the engine.
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
    /// Whether the bytes are taken off the engine's signal.
    pub lowers: bool,
}

/// The framework's arithmetic, in bytes. From its log where that has them, else from what was traced.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Figures {
    /// Absent where nobody states it and the engine is unknown.
    pub fraction: Option<f64>,
    /// `log`, `option`, `arguments`, `allocations` (it follows from what was taken), or `default`.
    pub fraction_from: Option<&'static str>,
    /// The target's own device memory at the reading, and at most before it.
    pub allocated: Option<u64>,
    pub allocated_peak: Option<u64>,
    /// Cache that the dummy run used, which is in `allocated`.
    pub temporary_kv: u64,
    /// allocated_peak - allocated: what the dummy run gave back.
    pub transient: Option<u64>,
    /// The engine's estimate of its graphs, which it takes off. Negative on unified memory where page cache was
    /// reclaimed between its two readings.
    pub graphs: Option<i64>,
    /// total x fraction, of engines that take it so.
    pub requested: Option<i64>,
    /// By how much the signal fell from the baseline to the reading.
    pub consumed: Option<i64>,
    /// total - free - allocated.
    pub outside: Option<u64>,
    /// allocated_peak + outside.
    pub peak: Option<u64>,
    /// The engine's arithmetic with the traced figures.
    pub kv: Option<i64>,
    /// What was taken after the reading, with what was there already.
    pub kv_taken: Option<u64>,
    /// Of an engine that backs a range of addresses after the reading: what was there of the cache, and the range.
    pub kv_backed: Option<u64>,
    pub kv_upper: Option<i64>,
    pub logged_peak: Option<u64>,
    /// What the framework computed, and what it then allocated: fewer bytes, where a limit was set.
    pub logged_kv: Option<i64>,
    pub logged_allocated: Option<u64>,
    pub logged_outside: Option<u64>,
    /// Of engines that fit a model into what is free: what they keep free, what weights and compute buffers have, and the
    /// cache of the whole context.
    pub margin: i64,
    /// Free by the container's counter, of an engine that reads that too; and the page cache that it has as used.
    pub container_free: Option<u64>,
    pub container_cached: Option<u64>,
    pub beside_cache: Option<i64>,
    pub context: Option<i64>,
}

/// A cache below this part of its budget was limited by something else.
const LESS_PERCENT: i64 = 90;

impl Figures {
    /// What the framework could have for its cache: as it logged it, else as the arithmetic has it.
    pub fn budget(&self) -> Option<i64> {
        self.logged_kv.or(self.kv)
    }

    /// What it took, where that is clearly less: a limit was set.
    pub fn taken_of_it(&self) -> Option<u64> {
        let budget = self.budget()?;
        let taken = self.logged_allocated.or(self.kv_taken.filter(|taken| *taken > 0))?;
        (i64::try_from(taken).ok()? < budget / 100 * LESS_PERCENT).then_some(taken)
    }
}

/// One part of the fall of the signal between the two readings.
#[derive(Debug, Clone, Serialize)]
pub struct Change {
    /// Slug of a source, or one of [`ChangeOf`]'s words.
    pub source: &'static str,
    pub title: &'static str,
    pub before: i64,
    pub after: i64,
    pub change: i64,
}

words! {
    /// Rows of a change that are no sources.
    pub enum ChangeOf {
        /// The engine's own device memory: weights and what it keeps.
        OwnDevice = "own-device",
        /// What the kernel keeps back: see [`Budget::reserve`].
        Reserve = "reserve",
        /// What no counter explains.
        Unattributed = "unattributed",
    }
}

words! {
    /// What a process is to the engine.
    pub enum Role {
        Engine = "engine",
        /// The engine started it, or one that it started.
        Child = "child",
        /// Another one of the target's.
        Other = "other",
        /// One that is not the target's; without a number all of them together.
        Outside = "outside",
    }
}

/// Memory of a process that no other can have: anonymous and shared pages. Of those outside of the target also device memory, by
/// NVML, where the GPU has none of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ProcessUse {
    /// Absent of the sum of those outside of the target.
    pub pid: Option<u32>,
    pub comm: String,
    #[serde(serialize_with = "word")]
    pub role: Role,
    /// Absent where there is no baseline, and of a process that lived then and was not read near it or changed just then.
    pub before: Option<u64>,
    pub at: u64,
    /// Of `at`, device memory of a process outside of the target; absent where it has none.
    pub device: Option<u64>,
    /// Bytes that the cache would have more without this process; absent where its memory at the baseline is not known.
    pub costs: Option<i64>,
}

/// Anonymous and shared memory of a process outside of the target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OutsideUse {
    pub pid: u32,
    pub comm: String,
    /// Absent where it was not among the largest then.
    pub at_start: Option<u64>,
    pub at_end: Option<u64>,
}

#[derive(Debug, Clone, Serialize)]
pub struct Agreement {
    pub figure: &'static str,
    pub logged: i64,
    pub traced: i64,
    /// Traced minus logged, of logged.
    pub percent: f64,
}

#[derive(Debug, Clone, Serialize)]
pub struct CachedFile {
    pub path: String,
    /// A path that can be opened where spark-trace ran; absent where none is known.
    pub opens_at: Option<String>,
    pub bytes: i64,
    /// Bytes that the cache would have more without these pages; absent where the formula is unknown.
    pub costs: Option<i64>,
    /// `comm (pid)` of who touched it first.
    pub first_touch: Option<String>,
    pub charged_to: String,
}

/// The check that ended an engine before there was a cache.
#[derive(Debug, Clone, Serialize)]
pub struct Failure {
    pub check: Check,
    pub line: String,
    /// Of the check, as the log has them.
    pub free: Option<i64>,
    pub needed: Option<i64>,
}

/// Something to do about it.
#[derive(Debug, Clone, Serialize)]
pub struct Advice {
    /// A word of [`Cause`].
    pub cause: &'static str,
    /// A word of [`Action`] or of [`Step`].
    pub action: &'static str,
    /// Whom or what it is about: a process, a file.
    pub subject: Option<String>,
    /// Bytes that it is about.
    pub bytes: Option<u64>,
    /// The engine's own name for it.
    pub flag: Option<String>,
    /// To be typed as it is.
    pub command: Option<String>,
    /// What it would gain, where that is known.
    pub gains_bytes: Option<u64>,
}

words! {
    /// What a reader should know of a budget.
    pub enum Note {
        OwnMemory = "own-memory",
        NoLog = "no-log",
        /// A log was given that has no line that is known.
        LogWithoutLines = "log-without-lines",
        UnknownEngine = "unknown-engine",
        /// The version is unknown, and versions differ.
        UnknownVersion = "unknown-version",
        NoBaseline = "no-baseline",
        /// Several processes have device memory: the figures are those of one.
        OneOfSeveral = "one-of-several-processes",
        /// The process has memory on several GPUs, and its answer is about one.
        OneOfSeveralGpus = "one-of-several-gpus",
        /// The fraction follows from the bytes that were taken, if no limit was set.
        FractionFromAllocations = "fraction-from-allocations",
        NegativeGraphs = "negative-graphs",
        /// The context as a whole fits: free memory does not limit the cache.
        NotLimited = "not-limited",
        /// The stated context does not fit: layers go to the host, and the device's part of the cache is unknown.
        LayersOnHost = "layers-on-host",
        /// The engine reads the container's counter, too, and has less free by it: memory of the driver is not in it.
        ContainerCounter = "container-counter",
        /// The memory levels were not read for a time just before or after a reading: who had what is of a reading farther away.
        GapAtReading = "gap-at-reading",
        /// Events were lost: what is attributed may be too little.
        Losses = "losses",
    }
}

impl Serialize for Note {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

fn word<W: spark_trace_recording::word::Words, S: serde::Serializer>(
    word: &W,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(word.word())
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
    /// Which engine it is, where nothing tells.
    pub engine: Option<Engine>,
    /// The framework's logs, where the recordings do not have their lines.
    pub a_log: Option<&'a str>,
    pub b_log: Option<&'a str>,
}

/// A recording, with what other reports need of it too.
#[derive(Debug, Clone, Copy)]
pub struct Run<'a> {
    pub recording: &'a Recording,
    /// What lines of the engine's log in the recording state.
    pub log: &'a EngineLog,
    pub queries: Option<&'a Queries>,
}

/// The budget of one run, or of two compared.
pub fn report(a: Option<Run<'_>>, b: Run<'_>, options: Options<'_>) -> Result<Report, KvError> {
    let which = if a.is_some() { "B" } else { "the run" };
    let a = match a {
        Some(a) => Some(budget::of(a, options.a_log, options).ok_or(KvError::NoReading { which: "A" })?),
        None => None,
    };
    let b = budget::of(b, options.b_log, options).ok_or(KvError::NoReading { which })?;
    let kv_delta_bytes =
        a.as_ref().and_then(|a| a.figures.budget()).zip(b.figures.budget()).map(|(a, b)| b.saturating_sub(a));
    let b_with_state_of_a = a.as_ref().and_then(|a| exchange::with_state_of(a, &b));
    Ok(Report {
        schema: SCHEMA,
        schema_version: SCHEMA_VERSION,
        advice: advice::of(&b),
        a,
        b,
        kv_delta_bytes,
        b_with_state_of_a,
    })
}

/// The KV-cache reading, where there is one among the recording's `queries`.
pub fn reading_of(recording: &Recording, queries: &Queries, log: &EngineLog) -> Option<Reading> {
    let identity = identity::of(recording, log, None);
    Some(reading::of(recording, queries, &identity, log)?.reading)
}

#[cfg(test)]
mod tests;
