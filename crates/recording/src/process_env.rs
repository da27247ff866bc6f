//! What surrounds the target's processes, and what they say themselves.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Environment, rights and limits of a process, from /proc/PID/{environ,status,limits}, read right after exec.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ProcessContext {
    /// When it was read.
    pub at_ns: u64,
    /// The first process with it; `context` of other processes may refer to it, too.
    pub pid: u32,
    pub comm: String,
    /// Variables of CUDA, frameworks, allocators and the loader, by a list of names. Others may be secrets and are not
    /// read.
    pub environment: BTreeMap<String, String>,
    /// Number of listed variables for which there was no room.
    #[serde(default)]
    pub left_out: u64,
    /// `CapEff` of /proc/PID/status: a bit for each capability.
    pub capabilities: Option<u64>,
    /// `Seccomp` of /proc/PID/status: 0 none, 1 strict, 2 filter.
    pub seccomp: Option<u32>,
    /// Soft limits by their name in /proc/PID/limits, in its units. `null` means no limit; a limit that could not be
    /// read is missing.
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

/// A process outside of the target at one time: the largest are read before the target starts, near queries that an engine sizes
/// itself by, and after it has ended.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OutsideProcess {
    pub at_ns: u64,
    /// `start` or `end`; absent near a query. All of one reading come one after the other.
    pub moment: Option<Moment>,
    pub pid: u32,
    pub comm: String,
    /// Anonymous and shared memory that it has resident. Shared pages count in each process.
    pub bytes: u64,
    /// When it was started, to a tick of the kernel; absent in older recordings.
    #[serde(default)]
    pub started_ns: Option<u64>,
}

/// A file system in memory at one time. All are read at the start and at the end; those in mount namespaces of the
/// target also at a peak of its cgroups. All that were read together have the same time.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TmpfsUse {
    pub at_ns: u64,
    /// Where it is mounted, as spark-trace or the process `seen_by` sees it; `(System V shared memory)` for segments of
    /// shmget(2).
    pub mount_point: String,
    /// `tmpfs`, `devtmpfs`, `ramfs` or `sysv`.
    #[serde(default)]
    pub kind: String,
    /// Bytes of its files.
    pub used: u64,
    /// Its largest files, up to ten.
    pub files: Vec<TmpfsFile>,
    /// Why `files` may lack some.
    #[serde(default)]
    pub note: Option<String>,
    /// Absent in recordings of 0.1.0, which have the start and the end only.
    #[serde(default)]
    pub moment: Option<Moment>,
    /// `major:minor`, the same in all readings of one file system.
    #[serde(default)]
    pub device: Option<String>,
    /// A process in whose mount namespace it is mounted, if it is not mounted where spark-trace runs.
    #[serde(default)]
    pub seen_by: Option<u32>,
    /// Id of this process's container.
    #[serde(default)]
    pub container: Option<String>,
    /// Whether processes of the target have it mounted; absent if not checked.
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

/// A file in it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TmpfsFile {
    /// For a System V segment: its id, key and creator.
    pub path: String,
    /// Bytes allocated.
    pub bytes: u64,
}

/// A line that the traced command or container wrote.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LogLine {
    /// When it was read; of a container's log when it was written, which may be before the start of the recording.
    pub at_ns: u64,
    /// `stdout` or `stderr`; `container` where it is of the log that a container's engine keeps.
    pub stream: String,
    /// Its first 4 KiB.
    pub text: String,
}
