//! The JSON we print: one report at the end, and on request one line a phase on the way.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::Value;

use crate::sys::{SelfExact, SelfStatus};

pub const SCHEMA: &str = "spark-trace/workload";
pub const SCHEMA_VERSION: u32 = 1;

/// Something that takes memory, and how much of it.
#[derive(Debug, Serialize)]
pub struct SourceRecord {
    /// The category spark-trace should put it in: anon, shmem, file-clean, file-dirty, hugetlb, huge-zero-page,
    /// page-tables, kernel-other, sock, nvidia-sysmem, nvidia-managed, gpu-framebuffer.
    pub source: &'static str,
    /// Which of our ways to allocate made it.
    pub kind: &'static str,
    /// Bytes it occupies, in whole pages where it is made of pages.
    pub bytes: u64,
    /// Where it is mapped, in the process that `detail.pid` names, or in ours.
    pub address: Option<u64>,
    pub path: Option<String>,
    pub detail: Value,
    /// Which repetition, from 0.
    pub cycle: u32,
}

impl SourceRecord {
    pub fn new(source: &'static str, kind: &'static str, bytes: u64, detail: Value) -> Self {
        Self { source, kind, bytes, address: None, path: None, detail, cycle: 0 }
    }

    pub fn at(mut self, address: usize) -> Self {
        self.address = Some(address as u64);
        self
    }

    pub fn of_file(mut self, path: &Path) -> Self {
        self.path = Some(path.display().to_string());
        self
    }
}

/// A phase in CLOCK_MONOTONIC: it works from `begin_ns` to `ready_ns` and then holds what it has until
/// `end_ns`.
#[derive(Debug, Clone, Serialize)]
pub struct PhaseRecord {
    pub phase: &'static str,
    pub cycle: u32,
    pub begin_ns: u64,
    pub ready_ns: u64,
    pub end_ns: u64,
    /// This process when the phase was ready; null without /proc.
    pub after: Option<SelfStatus>,
}

/// A line of `--jsonl`. It is printed once the phase is ready and its holding begins, hence has no end yet.
#[derive(Debug, Serialize)]
pub struct PhaseLine<'a> {
    pub phase: &'a str,
    pub cycle: u32,
    pub pid: u32,
    pub begin_ns: u64,
    pub ready_ns: u64,
    pub after: Option<SelfStatus>,
    /// Which driver plays, and what it says is free; of CUDA workloads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cuda: Option<Value>,
}

#[derive(Debug, Serialize)]
pub struct Report {
    pub schema: &'static str,
    pub schema_version: u32,
    pub pid: u32,
    pub page_size: usize,
    pub argv: Vec<String>,
    pub monotonic_to_realtime_offset_ns: i64,
    /// This process before it allocated anything: what of `self` is not the sources'.
    pub baseline: Option<SelfStatus>,
    pub sources: Vec<SourceRecord>,
    pub phases: Vec<PhaseRecord>,
    /// This process at the end of the last hold.
    #[serde(rename = "self")]
    pub self_status: Option<SelfStatus>,
    /// The same from /proc/self/smaps_rollup, which counts page by page; null without.
    pub self_exact: Option<SelfExact>,
    /// Why `self` is null.
    pub self_reason: Option<String>,
    /// The signal that cut the holding short.
    pub stopped_by_signal: Option<i32>,
    /// The driver, and what it said; of CUDA workloads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cuda: Option<Value>,
}

/// One line to stdout, at once. (`println!` would panic when the reader has gone.)
pub fn print_line(value: &impl Serialize) -> Result<()> {
    let mut line = serde_json::to_vec(value).context("cannot write the report as JSON")?;
    line.push(b'\n');
    let mut stdout = io::stdout().lock();
    stdout
        .write_all(&line)
        .and_then(|()| stdout.flush())
        .context("cannot write to stdout: has its reader gone?")
}

/// The report: to `file` when given, else as the last line on stdout.
pub fn write_report(report: &Report, file: Option<&Path>) -> Result<()> {
    let Some(path) = file else { return print_line(report) };
    let mut text = serde_json::to_vec(report).context("cannot write the report as JSON")?;
    text.push(b'\n');
    File::create(path)
        .and_then(|mut file| file.write_all(&text))
        .with_context(|| format!("cannot write the report to {}", path.display()))
}
