//! What is to be traced and how, and what whoever looks at a trace under way wants of it.

use std::{path::PathBuf, time::Duration};

use crate::attach_plan::HookSelection;
use crate::{
    output::{self, StandardOutput},
    subject::Spec,
    tracer::retention::Retention,
};
use spark_trace_recording::{claim::Claim, journal::Arguments};

#[derive(Debug, Clone)]
pub struct Options {
    pub spec: Spec,
    pub hooks: HookSelection,
    pub interval: Duration,
    pub min_region: u64,
    /// Older readings are thinned; absent to keep all.
    pub keep_fine: Option<Duration>,
    /// The frames of Python are read of allocations of at least this size; absent for none.
    pub python_min: Option<u64>,
    /// Stacks of allocations of at least this size are unwound by the tables of their code; absent for none.
    pub unwind_min: Option<u64>,
    pub ring_bytes: u32,
    /// CUDA drivers and NVML libraries to watch besides those that are found.
    pub libraries: Vec<PathBuf>,
    /// A process of the target may be paused while a library that it has just mapped is attached to.
    pub pause: bool,
    /// Stops an attached trace after this time.
    pub duration: Option<Duration>,
    /// NVML's library; absent to look for it.
    pub nvml: Option<PathBuf>,
    /// Time between two readings of the GPUs.
    pub gpu_interval: Duration,
    /// Reads what the command writes; absent to leave it where it goes.
    pub output: Option<output::Options>,
    /// Where what the command writes to standard output goes.
    pub command_output: StandardOutput,
    pub keep: Keep,
    /// Whether values in command lines that look like secrets are kept.
    pub arguments: Arguments,
}

/// What becomes of what is read.
#[derive(Debug, Clone)]
pub enum Keep {
    /// All of it; with a name of its own in a journal that outlives this process.
    All(Option<Claim>),
    /// The latest, for looking at: every cgroup and process of the machine where that is the target, and details only
    /// when they are requested.
    Latest(Duration),
}

impl Keep {
    pub(super) fn retention(&self) -> Retention {
        match self {
            Self::All(_) => Retention::everything(),
            Self::Latest(window) => Retention::latest(*window),
        }
    }
}

/// Whose functions are to be named: symbol tables are read for it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Named {
    #[default]
    None,
    /// Those of this process, whose mappings are read, too.
    Process(u32),
    All,
}

/// What whoever looks at a trace wants of it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wishes {
    /// Read who took what, now.
    pub details: bool,
    /// With the names of functions in programs.
    pub names: Named,
    /// Forget nothing from this time on.
    pub keep_since: Option<u64>,
    /// That was all.
    pub end: bool,
}
