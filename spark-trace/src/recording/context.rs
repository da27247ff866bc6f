//! What surrounds the target's processes, and what they say themselves.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Environment, rights and limits of a process, from /proc/PID/{environ,status,limits}, right after it became the program
/// that it is. One for each set that differs from those before it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ProcessContext {
    pub at_ns: u64,
    /// The first process that had it; `context` of others in `processes` points here, too.
    pub pid: u32,
    pub comm: String,
    /// Variables that libraries for GPUs, allocators and loaders read; no others, which may be secrets.
    pub environment: BTreeMap<String, String>,
    /// Variables that were to be taken and did not fit.
    #[serde(default)]
    pub left_out: u64,
    /// `CapEff` of /proc/PID/status: a bit for each capability.
    pub capabilities: Option<u64>,
    /// `Seccomp` of /proc/PID/status: 0 none, 1 strict, 2 filter.
    pub seccomp: Option<u32>,
    /// Soft limits by their name in /proc/PID/limits, in its units. `null` is no limit here; one that could not be read is
    /// missing.
    pub limits: BTreeMap<String, Option<u64>>,
}

impl ProcessContext {
    /// Whether processes with the one and with the other are surrounded by the same.
    pub fn is_same_as(&self, other: &Self) -> bool {
        let (this, that) = (&self, other);
        (this.capabilities, this.seccomp, this.left_out) == (that.capabilities, that.seccomp, that.left_out)
            && this.limits == that.limits
            && this.environment == that.environment
    }
}

/// A file system that lives in memory at one time. All are read before the target starts and at the end; those of the
/// target's own mount namespaces also when its cgroups stand at a peak. All that were read together have one time.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TmpfsUse {
    pub at_ns: u64,
    /// Where it is mounted, as the tracer sees it, or the process `seen_by`; `(System V shared memory)` for the segments of
    /// shmget(2).
    pub mount_point: String,
    /// `tmpfs`, `devtmpfs`, `ramfs` or `sysv`.
    #[serde(default)]
    pub kind: String,
    /// Bytes of its files.
    pub used: u64,
    /// The largest files in it, up to ten.
    pub files: Vec<TmpfsFile>,
    /// Why `files` may lack some.
    #[serde(default)]
    pub note: Option<String>,
    /// Absent in recordings of 0.1.0, which have the start and the end only.
    #[serde(default)]
    pub moment: Option<Moment>,
    /// `major:minor`: two readings of one file system have the same.
    #[serde(default)]
    pub device: Option<String>,
    /// A process in whose mount namespace it is mounted, where it is not mounted where spark-trace runs.
    #[serde(default)]
    pub seen_by: Option<u32>,
    /// Id of the container that this process is in.
    #[serde(default)]
    pub container: Option<String>,
    /// Processes of the target have it mounted; absent where that was not looked at.
    #[serde(default)]
    pub target_has_it: Option<bool>,
}

/// When something was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Moment {
    Start,
    Peak,
    End,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TmpfsFile {
    /// Of a System V segment: its id, key and maker.
    pub path: String,
    /// Bytes allocated.
    pub bytes: u64,
}

/// A line that the traced command wrote.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LogLine {
    /// When it was read.
    pub at_ns: u64,
    /// `stdout` or `stderr`.
    pub stream: String,
    /// The first KiB of it.
    pub text: String,
}
