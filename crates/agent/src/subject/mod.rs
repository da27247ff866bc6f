//! What is traced, and how it is found.

pub mod client_args;
pub mod command;
pub mod container;
pub mod fits;
pub mod id_file;
pub mod question;
pub mod running;

use std::ffi::OsString;
use std::path::PathBuf;

use spark_trace_recording::TargetKind;

/// What the user wants to trace.
#[derive(Debug, Clone)]
pub enum Spec {
    /// Run this and trace it.
    Command { argv: Vec<OsString>, placement: Placement, as_root: bool },
    /// A running container, by id or name.
    Container { engine: Option<String>, name: String },
    /// A cgroup, by its directory or its path below the memory hierarchy's mount point.
    Cgroup(PathBuf),
    /// A running process and what it forks.
    Pid(u32),
    /// The whole machine, while a command runs or until it is stopped.
    System { argv: Vec<OsString> },
}

/// Where a native command runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placement {
    /// In a cgroup of its own.
    Leaf,
    /// Where it is started.
    Unchanged,
}

impl Spec {
    /// The recording's `target.kind`.
    pub const fn kind(&self) -> TargetKind {
        match self {
            Self::Command { .. } => TargetKind::Command,
            Self::Container { .. } => TargetKind::Container,
            Self::Cgroup(_) => TargetKind::Cgroup,
            Self::Pid(_) => TargetKind::Pid,
            Self::System { .. } => TargetKind::System,
        }
    }

    /// The command to run; empty where there is none.
    pub fn argv(&self) -> &[OsString] {
        match self {
            Self::Command { argv, .. } | Self::System { argv } => argv,
            Self::Container { .. } | Self::Cgroup(_) | Self::Pid(_) => &[],
        }
    }

    /// Whether the command keeps root's identity under sudo.
    pub const fn as_root(&self) -> bool {
        matches!(self, Self::Command { as_root: true, .. })
    }
}

/// Words as text, for people and for what looks into them: what is not UTF-8 is replaced.
pub fn text(argv: &[OsString]) -> Vec<String> {
    argv.iter().map(|word| word.to_string_lossy().into_owned()).collect()
}
