//! The recording: raw levels, provenance and health of one traced run.
//!
//! A recording is evidence. It holds what was read and counted, with the window of every reading,
//! the verdict on every hook and every loss; no analysis result. Sizes are bytes and times are
//! nanoseconds of CLOCK_MONOTONIC unless a name says otherwise. What could not be read is absent
//! (`null`) with a reason, never 0. `docs/recording.md` tells it in prose.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::column::Column;
use super::cuda::LibraryFile;
use super::provenance::Provenance;

/// Value of [`Recording::schema`].
pub const SCHEMA: &str = "spark-trace/recording";
/// Version this build writes; it reads this and older ones.
pub const SCHEMA_VERSION: u32 = 1;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Recording {
    pub schema: String,
    pub schema_version: u32,
    pub tool: Tool,
    pub host: Host,
    pub clock: Clock,
    pub target: Target,
    pub phases: Vec<Phase>,
    pub health: Health,
    pub cost: Cost,
    pub samples: Samples,
    pub provenance: Provenance,
}

impl Recording {
    /// What is said about the trace itself, without anything that was read.
    pub fn unread(&self) -> Self {
        Self {
            schema: self.schema.clone(),
            schema_version: self.schema_version,
            tool: self.tool.clone(),
            host: self.host.clone(),
            clock: self.clock.clone(),
            target: self.target.clone(),
            phases: Vec::new(),
            health: self.health.clone(),
            cost: self.cost.clone(),
            samples: Samples::default(),
            provenance: Provenance::default(),
        }
    }
}

/// What recorded, and with which settings.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Tool {
    pub version: String,
    /// `light`, `default` or `deep`; `snapshot` where nothing was traced.
    pub profile: String,
    pub interval_ns: u64,
    /// Between two readings of the GPUs; absent where there was nobody to ask.
    pub gpu_interval_ns: Option<u64>,
    /// Mappings at least this long have an event of their own.
    pub min_region: u64,
    /// The process that recorded: what it took itself is not the target's. Absent in older recordings.
    #[serde(default)]
    pub pid: Option<u32>,
}

/// Command name of the process that records.
pub const TRACER: &str = "spark-trace";

/// Facts about the machine that explain the numbers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Host {
    pub kernel: String,
    pub arch: String,
    pub page_size: u64,
    pub cpus: u32,
    pub memory_total: u64,
    /// `v1`, `v2` or `hybrid`: who holds the memory controller, see `memory_controller`.
    pub cgroup_version: String,
    /// Mount point of the hierarchy that holds the memory controller; absent where none does.
    pub memory_controller: Option<String>,
    pub boot_id: String,
    pub model: Option<String>,
    pub swap_total: u64,
    /// Kernel stacks live in vmalloc space (CONFIG_VMAP_STACK); absent where it cannot be told.
    pub vmap_stack: Option<bool>,
    /// The most bytes that the kernel takes off its free lists at a time to report them to a hypervisor as free
    /// (mm/page_reporting.c); they are in no counter then. Absent where no virtio balloon has agreed to be told.
    #[serde(default)]
    pub page_reporting_bytes: Option<u64>,
    /// Selected word of /sys/kernel/mm/transparent_hugepage/enabled.
    pub transparent_hugepage: Option<String>,
    /// `measured`, `emulated` (a virtual CPU under TCG) or `simulated`.
    pub provenance: String,
    /// GPUs that NVML lists; empty where there is no NVML, see `health.sources`.
    #[serde(default)]
    pub gpus: Vec<Gpu>,
    /// NVIDIA's driver; absent where neither its kernel module nor NVML was found.
    pub nvidia: Option<Nvidia>,
}

/// One GPU, as NVML described it when the trace began.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Gpu {
    /// NVML's index; it recurs in `samples.devices`.
    pub index: u32,
    pub uuid: Option<String>,
    pub name: Option<String>,
    pub pci_bus_id: Option<String>,
    /// Bytes of its own memory; absent where it has none (unified memory).
    pub memory_total: Option<u64>,
    /// It is divided into instances (MIG mode).
    pub mig: Option<bool>,
    /// For example `9.0`.
    pub compute_capability: Option<String>,
    /// Why a field above is absent, by its name.
    #[serde(default)]
    pub unknown: BTreeMap<String, String>,
}

/// NVIDIA's driver on this machine.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Nvidia {
    /// As NVML says it, else as the kernel module does.
    pub driver_version: Option<String>,
    /// Newest CUDA version that the driver serves, for example `13.0`.
    pub cuda_driver_version: Option<String>,
    /// `open` or `proprietary`, `stand-in` for the test modules that take its place; absent where no module is loaded.
    pub kernel_module: Option<String>,
    pub nvml_version: Option<String>,
    /// The library that was loaded.
    pub nvml_library: Option<String>,
    /// Something plays the part of driver and GPU: nothing about devices in this recording is measured.
    pub simulated: bool,
}

/// What `driver_version` and `kernel_module` say of the modules that stand in for NVIDIA's in tests.
pub const STAND_IN: &str = "stand-in";

impl Nvidia {
    /// The kernel modules are not NVIDIA's.
    pub fn is_stand_in(&self) -> bool {
        self.kernel_module.as_deref() == Some(STAND_IN)
    }
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Clock {
    /// Always `CLOCK_MONOTONIC`.
    pub name: String,
    /// Add to a time of this recording to get nanoseconds since the epoch.
    pub realtime_offset_ns: i64,
}

/// What was traced.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Target {
    /// `command`, `container`, `cgroup`, `pid`, `system`, or `snapshot` for one instant of the whole machine.
    pub kind: String,
    pub argv: Vec<String>,
    /// The target's memory cgroups: its roots and every cgroup created below them.
    pub cgroups: Vec<TargetCgroup>,
    /// The first of `containers`.
    pub container: Option<Container>,
    /// Containers that are part of the target, in the order in which they were found. Recordings of 0.1.0 have `container` only.
    #[serde(default)]
    pub containers: Vec<Container>,
    /// Exit code of the traced command; 128 + signal where one killed it; absent where none was run or waited for.
    pub exit_code: Option<i32>,
    pub started_ns: u64,
    pub ended_ns: u64,
}

/// What `kind` and `profile` are called where one instant was read, and nothing traced.
pub const SNAPSHOT: &str = "snapshot";

/// What `kind` is called where the roots of the target are containers.
pub const CONTAINER: &str = "container";

/// What `kind` is called where the target is a command that was started for the recording.
pub const COMMAND: &str = "command";

impl Target {
    /// Every process is the target's.
    pub fn is_whole_machine(&self) -> bool {
        matches!(self.kind.as_str(), "system" | SNAPSHOT)
    }

    /// Takes a container in as part of the target.
    pub fn take_container(&mut self, container: Container) {
        match self.containers.iter_mut().find(|known| known.id == container.id) {
            Some(known) => *known = container,
            None => self.containers.push(container),
        }
        self.container = self.containers.first().cloned();
    }

    /// The tool started it.
    pub fn is_command(&self) -> bool {
        self.kind == COMMAND
    }

    /// One instant was read, and nothing traced.
    pub fn is_snapshot(&self) -> bool {
        self.kind == SNAPSHOT
    }
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TargetCgroup {
    /// Inode number of the cgroup's directory in the memory hierarchy; ids recur in samples and provenance.
    pub id: u64,
    /// Path below the hierarchy's mount point.
    pub path: String,
    /// No ancestor of it is part of the target: its counters already contain its descendants.
    pub root: bool,
    /// Created while tracing, so that it started from nothing.
    pub created_ns: Option<u64>,
    pub removed_ns: Option<u64>,
    /// Charge and peak that the kernel held when the cgroup was removed.
    pub usage_at_removal: Option<u64>,
    pub peak_at_removal: Option<u64>,
    /// Processes that the kernel had killed in it for want of memory when it was removed; with cgroup v2 also those below.
    #[serde(default)]
    pub oom_kills_at_removal: Option<u64>,
    /// Id of the container whose cgroup it is, or in whose cgroup it lies.
    #[serde(default)]
    pub container: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Container {
    /// `docker`, `podman` or `nerdctl`.
    pub engine: String,
    pub id: String,
    pub name: Option<String>,
    pub image: Option<String>,
    pub image_id: Option<String>,
    /// The service of a compose project that it belongs to.
    #[serde(default)]
    pub service: Option<String>,
}

/// An instant the run passed through: `start`, `exec` (the target's first), `exit` (the command's), `end`; `oom-kill` in recordings
/// of one that `serve` wrote.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Phase {
    pub name: String,
    pub at_ns: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Health {
    /// Sum of `losses`.
    pub lost_total: u64,
    pub losses: Vec<Loss>,
    pub hooks: Vec<Hook>,
    /// Libraries whose functions are watched, as they were found.
    pub libraries: Vec<LibraryFile>,
    /// What became of the libraries that are asked for levels.
    #[serde(default)]
    pub sources: Vec<SourceVerdict>,
    pub warnings: Vec<String>,
    /// Times without a reading of the kernel's levels; absent where they were not counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gaps: Option<Gaps>,
    /// The same of the GPUs' levels: of the GPU that was without a reading for longest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_gaps: Option<Gaps>,
    /// What was left out so that the recording stays within its limits; absent where nothing was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reduced: Option<Reduced>,
    /// False for a recording recovered from a partial one.
    pub complete: bool,
}

impl Health {
    /// The time between two readings of levels that are kept, of those that were made at an interval.
    pub fn spacing_ns(&self, interval_ns: u64) -> u64 {
        self.reduced.map_or(interval_ns, |reduced| interval_ns.max(reduced.levels_spacing_ns))
    }
}

/// What was left out of a recording so that it stays within its limits, and is no loss of who holds what.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Reduced {
    /// Readings, of all series together.
    pub readings: u64,
    /// One reading of the system, of each cgroup and of each GPU is kept for each stretch of this length, and beside it the
    /// lowest and highest of each column; 0 where all are kept.
    pub levels_spacing_ns: u64,
    /// The same of processes.
    pub processes_spacing_ns: u64,
    /// Events of mappings that were made and removed again between two readings.
    pub mappings: u64,
}

/// Times without a reading: two readings in a row that lie further apart than three intervals, from the end of the first
/// to the beginning of the second.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Gaps {
    pub count: u64,
    pub longest_ns: u64,
    pub total_ns: u64,
}

/// How the losses of all hooks together are called: each hook says itself what it missed.
pub const SKIPPED: &str = "skipped_runs";

/// Events or entries that a buffer or map could not take.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Loss {
    /// Buffer or map, for example `events` or `live_pages`.
    pub what: String,
    pub count: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Hook {
    pub name: String,
    /// `tp_btf`, `fentry`, `fexit`, `kprobe`, `uprobe.multi`, `uprobe`, `on-demand`; absent where none attached.
    pub mechanism: Option<String>,
    /// `ok`, `unsupported`, `not-applicable`, `broken` or `off` (the profile leaves it out).
    pub verdict: String,
    /// Why it is not `ok`, or why a better mechanism did not carry it.
    pub reason: Option<String>,
    /// Events the program took (those it lets pass at once are not counted); absent where it is not attached.
    pub hits: Option<u64>,
    /// Times the program ran, those included in which it had nothing to do: put up from the windows in which the kernel's
    /// BPF statistics were on; absent where they never were.
    #[serde(default)]
    pub runs: Option<u64>,
    /// Runs the kernel skipped (recursion guard).
    pub lost: Option<u64>,
    /// Run time, put up from the windows in which the kernel's BPF statistics were on; absent where they never were.
    pub run_time_ns: Option<u64>,
}

/// What became of a library that is asked for levels.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SourceVerdict {
    /// `nvml`.
    pub name: String,
    /// `ok`, `not-applicable` (there is none on this machine) or `broken` (there is one and it did not answer).
    pub verdict: String,
    pub reason: Option<String>,
}

/// What the tracing itself cost.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Cost {
    pub agent_cpu_ns: u64,
    pub agent_rss_peak: u64,
    /// Absent where the kernel's BPF statistics are off.
    pub bpf_run_time_ns: Option<u64>,
    /// Kernel memory of the tracer's maps and programs.
    pub bpf_memory: Option<u64>,
    /// Readings of the GPUs; absent where there were none.
    pub nvml: Option<Readings>,
}

/// What it took to read a source that is read in a thread of its own. Elapsed time, mostly waiting; the CPU time in
/// it is part of `agent_cpu_ns`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Readings {
    /// Readings of all devices.
    pub readings: u64,
    /// In calls of the library, over all readings.
    pub calls_ns: u64,
    /// The longest reading.
    pub longest_ns: u64,
    /// Loading and starting the library.
    pub start_ns: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Samples {
    /// Columns `meminfo.*`, `vmstat.*`, `zoneinfo.*`, `kpageflags.*`.
    pub system: Series,
    pub cgroups: Vec<CgroupSeries>,
    pub processes: Vec<ProcessSeries>,
    /// Columns `live.KIND`: bytes the target holds through the CUDA driver; empty where it never used it.
    pub cuda: Series,
    #[serde(default)]
    pub devices: Vec<DeviceSeries>,
}

/// Readings in columns: element i of every vector belongs to reading i.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Series {
    /// Window of each reading: all its counters were read between these two times.
    pub begin_ns: Vec<u64>,
    pub end_ns: Vec<u64>,
    pub columns: BTreeMap<String, Column>,
    /// Why a value is absent: the first reading it was absent in and the reason, once per column and reason.
    pub absent: Vec<Absent>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Absent {
    pub column: String,
    pub since_ns: u64,
    pub reason: String,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, JsonSchema)]
pub struct CgroupSeries {
    pub id: u64,
    pub path: String,
    /// Columns by file: `memory.current`, `memory.peak`, `stat.anon`, ... (v2);
    /// `memory.usage_in_bytes`, `memory.max_usage_in_bytes`, `memory.kmem.usage_in_bytes`, `stat.total_rss`, ... (v1).
    /// `hooks.before` and `hooks.after`: what hooks on page counters make the usage to be, just before and just after
    /// the kernel's file was read.
    #[serde(flatten)]
    pub series: Series,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, JsonSchema)]
pub struct ProcessSeries {
    pub pid: u32,
    /// Columns `rss_anon`, `rss_file`, `rss_shmem`, `swap`; `pss*` where smaps_rollup was read.
    #[serde(flatten)]
    pub series: Series,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, JsonSchema)]
pub struct DeviceSeries {
    /// As in `host.gpus`.
    pub index: u32,
    pub uuid: Option<String>,
    /// Columns `memory.total`, `memory.free`, `memory.used`, `memory.reserved` and `process.<pid>.used` in bytes,
    /// `processes.listed`, `utilization.gpu` and `utilization.memory` in percent, `temperature.gpu` in degrees Celsius,
    /// `power.draw` in milliwatts, `clock.sm` and `clock.memory` in MHz, `throttle.reasons` (bits), `performance.state`;
    /// `cuda.live`, bytes that the target allocated and has not freed, where CUDA calls are followed; `cuda.mixed`, bytes
    /// of processes that use several GPUs; `process.<pid>.before`, what a process held before the trace and still holds.
    #[serde(flatten)]
    pub series: Series,
}
