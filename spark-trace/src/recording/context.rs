//! What surrounds the target's processes, and what they say themselves.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Environment, rights and limits of a process, from /proc/PID/{environ,status,limits}. One for each set that differs from
/// those of the processes before it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ProcessContext {
    pub at_ns: u64,
    pub pid: u32,
    pub comm: String,
    /// Variables that libraries for GPUs, allocators and loaders read; no others, which may be secrets.
    pub environment: BTreeMap<String, String>,
    /// `CapEff` of /proc/PID/status: a bit for each capability.
    pub capabilities: Option<u64>,
    /// `Seccomp` of /proc/PID/status: 0 none, 1 strict, 2 filter.
    pub seccomp: Option<u32>,
    /// Soft limits by their name in /proc/PID/limits, in its units; absent where unlimited.
    pub limits: BTreeMap<String, Option<u64>>,
}

/// A file system that lives in memory.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TmpfsUse {
    pub at_ns: u64,
    /// Where it is mounted, as the tracer sees it.
    pub mount_point: String,
    /// Bytes of its files.
    pub used: u64,
    /// The largest files in it, up to ten.
    pub files: Vec<TmpfsFile>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TmpfsFile {
    pub path: String,
    /// Bytes allocated.
    pub bytes: u64,
}

/// A line that the traced command wrote.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LogLine {
    /// When it was read.
    pub at_ns: u64,
    /// `stdout` or `stderr`.
    pub stream: String,
    /// The first KiB of it.
    pub text: String,
}
