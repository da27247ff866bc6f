//! The recording: raw levels, provenance and health of one traced run.
//!
//! A recording is evidence. It holds what was read and counted, with the window of every reading,
//! the verdict on every hook and every loss; no analysis result. Sizes are bytes and times are
//! nanoseconds of CLOCK_MONOTONIC unless a name says otherwise. What could not be read is absent
//! (`null`) with a reason, never 0. `docs/recording.md` explains it.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use spark_trace_common::hook::Mechanism;

use super::column::Column;
use super::cuda::LibraryFile;
use super::provenance::Provenance;
use super::target::Target;
use super::verdict::Verdict;
use super::word::Word;

/// Value of [`Recording::schema`].
pub const SCHEMA: &str = "spark-trace/recording";
/// Version this build writes; it reads this and older ones.
pub const SCHEMA_VERSION: u32 = 2;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Recording {
    /// Always `spark-trace/recording`.
    pub schema: String,
    /// Rises when an older reader would misunderstand a recording.
    pub schema_version: u32,
    pub tool: Tool,
    pub host: Host,
    pub clock: Clock,
    pub target: Target,
    /// Instants that the run passed through.
    pub phases: Vec<Phase>,
    pub health: Health,
    pub cost: Cost,
    /// Levels: counters, read at intervals.
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

/// The program that recorded, and its settings.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Tool {
    /// Version of spark-trace.
    pub version: String,
    /// `light`, `default` or `deep`; `snapshot` if nothing was traced.
    pub profile: String,
    /// Time between two readings of the levels.
    pub interval_ns: u64,
    /// Time between two readings of the GPUs; absent if none were read.
    pub gpu_interval_ns: Option<u64>,
    /// Mappings of at least this many bytes have an event of their own.
    pub min_region: u64,
    /// Older readings than this were thinned, as requested (`record --keep-fine`); absent if all were to stay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_fine_ns: Option<u64>,
    /// The process that recorded. Its own memory is not the target's. Absent in older recordings.
    #[serde(default)]
    pub pid: Option<u32>,
}

/// Command name of the process that records.
pub const TRACER: &str = "spark-trace";

/// Facts about the machine that explain the numbers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Host {
    /// Release of the kernel, as uname(2) gives it.
    pub kernel: String,
    /// Machine, as uname(2) gives it.
    pub arch: String,
    /// Bytes of a page.
    pub page_size: u64,
    /// Number of CPUs.
    pub cpus: u32,
    /// MemTotal.
    pub memory_total: u64,
    /// `v1`, `v2` or `hybrid` (both are mounted, and the memory controller is on v1).
    pub cgroup_version: String,
    /// Mount point of the hierarchy that has the memory controller; absent if none has it.
    pub memory_controller: Option<String>,
    /// Random id of this boot, from /proc/sys/kernel/random/boot_id.
    pub boot_id: String,
    /// Model of the machine, from DMI or the device tree.
    pub model: Option<String>,
    /// SwapTotal.
    pub swap_total: u64,
    /// Whether kernel stacks are in vmalloc space (CONFIG_VMAP_STACK); absent if unknown.
    pub vmap_stack: Option<bool>,
    /// The most bytes that the kernel takes off its free lists at once to report them to a hypervisor as free
    /// (mm/page_reporting.c). They are then in no counter. Absent without a virtio balloon that wants such reports.
    #[serde(default)]
    pub page_reporting_bytes: Option<u64>,
    /// Selected word of /sys/kernel/mm/transparent_hugepage/enabled.
    pub transparent_hugepage: Option<String>,
    /// `measured`, `emulated` (a virtual CPU under TCG) or `simulated`.
    pub provenance: String,
    /// GPUs that NVML lists; empty without NVML, see `health.sources`.
    #[serde(default)]
    pub gpus: Vec<Gpu>,
    /// NVIDIA's driver; absent if neither its kernel module nor NVML was found.
    pub nvidia: Option<Nvidia>,
}

/// One GPU, as NVML described it when the trace began.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Gpu {
    /// NVML's index, as in `samples.devices`.
    pub index: u32,
    pub uuid: Option<String>,
    pub name: Option<String>,
    pub pci_bus_id: Option<String>,
    /// Bytes of its own memory; absent if it has none (unified memory).
    pub memory_total: Option<u64>,
    /// Whether it is divided into instances (MIG mode).
    pub mig: Option<bool>,
    /// UUIDs of its instances, if it is divided.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub instances: Vec<String>,
    /// For example `9.0`.
    pub compute_capability: Option<String>,
    /// The reason for each absent field above, by its name.
    #[serde(default)]
    pub unknown: BTreeMap<String, String>,
}

/// NVIDIA's driver on this machine.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Nvidia {
    /// From NVML, otherwise from the kernel module.
    pub driver_version: Option<String>,
    /// Newest CUDA version that the driver supports, for example `13.0`.
    pub cuda_driver_version: Option<String>,
    /// `open`, `proprietary`, or `stand-in` for the test modules; absent if no module is loaded.
    pub kernel_module: Option<String>,
    pub nvml_version: Option<String>,
    /// Path of the library that was loaded.
    pub nvml_library: Option<String>,
    /// Driver and GPU are simulated: no figure about devices in this recording is measured.
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

/// How to turn the times of this recording into dates.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Clock {
    /// Always `CLOCK_MONOTONIC`.
    pub name: String,
    /// Add this to a time of the recording for nanoseconds since 1970.
    pub realtime_offset_ns: i64,
}

/// The profile of a recording that is one instant: nothing was traced.
pub const SNAPSHOT: &str = "snapshot";

/// An instant that the run passed through.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Phase {
    /// `start`, `exec` (the first of the target), `exit` (of the command), `end`; `oom-kill` in recordings that `serve`
    /// wrote.
    pub name: String,
    pub at_ns: u64,
}

/// What the recording lacks, and why.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Health {
    /// Sum of `losses`.
    pub lost_total: u64,
    /// Events that a full buffer or map dropped.
    pub losses: Vec<Loss>,
    /// Processes of other spark-traces that ran beside this one. Their mappings, queries and calls are not recorded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub beside: Vec<u32>,
    /// One row for each hook, attached or not.
    pub hooks: Vec<Hook>,
    /// Libraries whose functions are watched, in the order in which they were found.
    pub libraries: Vec<LibraryFile>,
    /// Verdicts on libraries that are read for levels.
    #[serde(default)]
    pub sources: Vec<SourceVerdict>,
    /// Sentences for the user.
    pub warnings: Vec<String>,
    /// Times without a reading of the kernel's counters; absent if they were not counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gaps: Option<Gaps>,
    /// Times without a reading of a GPU: those of the GPU with the longest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_gaps: Option<Gaps>,
    /// What was left out so that the recording stays within its limits; absent if nothing was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reduced: Option<Reduced>,
    /// What became of user stacks that were copied; absent if none were to be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unwinding: Option<Unwinding>,
    /// False if the recording was recovered from a journal.
    pub complete: bool,
}

/// User stacks that were copied to be unwound. Those that could not be copied are in `losses` (`stack_copies`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Unwinding {
    pub copies: u64,
    /// Unwound to the outermost frame.
    pub complete: u64,
    /// Recorded in place of the stack by frame pointers.
    pub taken: u64,
    /// Not unwound in time.
    pub late: u64,
    /// Not unwound because the process that unwinds ended.
    pub failed: u64,
}

impl Health {
    /// The time between two readings of levels that are kept, of those that were made at an interval, so long before the last.
    pub fn spacing_ns(&self, interval_ns: u64, age_ns: u64) -> u64 {
        let aged = |reduced: Reduced| reduced.aged.map_or(0, |aged| aged.spacing_at(age_ns));
        let of = |reduced: Reduced| reduced.levels_spacing_ns.max(aged(reduced));
        interval_ns.max(self.reduced.map_or(0, of))
    }
}

/// What was left out of a recording so that it stays within its limits. Losses are counted apart.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Reduced {
    /// Readings left out, of all series together.
    pub readings: u64,
    /// For the system, each cgroup and each GPU one reading is kept for each stretch of this length, and with it the
    /// lowest and highest of each column; 0 if all are kept.
    pub levels_spacing_ns: u64,
    /// The same for processes.
    pub processes_spacing_ns: u64,
    /// Events left out: mappings that were made and removed between two readings.
    pub mappings: u64,
    /// Readings left out because of their age; absent if there are none, or none were to be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aged: Option<Aged>,
}

/// Old readings that were left out as requested: of each second one is kept, after an hour of each minute, and with it the
/// lowest and highest of the plane in it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Aged {
    /// Readings left out, of all series together.
    pub readings: u64,
    /// Readings of the last so many nanoseconds are all kept.
    pub fine_ns: u64,
    /// The longest time of which one reading is kept: a second or a minute.
    pub spacing_ns: u64,
}

impl Aged {
    /// Of readings up to this much older than the fine ones, one a second is kept; of older ones one a minute.
    pub const BY_SECOND_NS: u64 = 3600 * Self::SECOND_NS;
    pub const SECOND_NS: u64 = 1_000_000_000;

    /// The time of which one reading is kept, so long before the last; 0 where all are.
    pub fn spacing_at(&self, age_ns: u64) -> u64 {
        match age_ns.saturating_sub(self.fine_ns) {
            0 => 0,
            1..=Self::BY_SECOND_NS => self.spacing_ns.min(Self::SECOND_NS),
            _ => self.spacing_ns,
        }
    }
}

/// Times longer than three intervals between the end of one reading and the beginning of the next.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Gaps {
    pub count: u64,
    pub longest_ns: u64,
    pub total_ns: u64,
}

/// Name of the losses of all hooks together; `health.hooks` has them by hook.
pub const SKIPPED: &str = "skipped_runs";

/// Events or rows that a buffer or map had no room for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Loss {
    /// Buffer or map, for example `events`, `files`, `live_pages`, `kernel_stacks`, `queries`, `skipped_runs`, `walks`
    /// or `open_files`.
    pub what: String,
    pub count: u64,
}

/// A place in the kernel or in a library where an eBPF program runs.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Hook {
    /// Name of the hook, as `--exclude-hook` takes it.
    pub name: String,
    /// `tp_btf`, `fentry`, `fexit`, `kprobe`, `uprobe.multi`, `uprobe` or `on-demand`; absent if it is not attached.
    pub mechanism: Option<Word<Mechanism>>,
    /// `ok`; `unsupported` (this kernel has nothing to attach to); `not-applicable`; `broken` (it should attach and did
    /// not); `off` (by profile, option or trigger).
    pub verdict: Word<Verdict>,
    /// Why the verdict is not `ok`, or why a better mechanism was not used.
    pub reason: Option<String>,
    /// Events that the program processed, without those it dismissed at once; absent if it is not attached.
    pub hits: Option<u64>,
    /// Runs of the program, including those with nothing to do. Extrapolated from the windows in which BPF statistics
    /// were on; absent if they never were.
    #[serde(default)]
    pub runs: Option<u64>,
    /// Runs that the kernel skipped, because the program would have interrupted itself.
    pub lost: Option<u64>,
    /// Time in the program, extrapolated like `runs`.
    pub run_time_ns: Option<u64>,
}

/// Verdict on a library that is read for levels.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SourceVerdict {
    /// `nvml`.
    pub name: String,
    /// `ok`, `not-applicable` (this machine has none) or `broken` (it exists and did not work).
    pub verdict: Word<Verdict>,
    /// Why the verdict is not `ok`.
    pub reason: Option<String>,
}

/// What the tracing itself cost.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Cost {
    /// CPU time of spark-trace.
    pub agent_cpu_ns: u64,
    /// Peak of the resident memory of spark-trace.
    pub agent_rss_peak: u64,
    /// Time in eBPF programs, an estimate; absent if the kernel's BPF statistics are off.
    pub bpf_run_time_ns: Option<u64>,
    /// Kernel memory of the maps and programs.
    pub bpf_memory: Option<u64>,
    /// Readings of the GPUs; absent if there were none.
    pub nvml: Option<Readings>,
    /// The processes that read symbols, which are not part of the figures above; absent if none ran or they could not be measured,
    /// and in older recordings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reader: Option<ReaderCost>,
}

/// What processes took that read symbols, one after the other.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ReaderCost {
    /// CPU time of all of them.
    pub cpu_ns: u64,
    /// The most that one of them had resident when it was last looked at; absent where that could not be read.
    pub rss_peak: Option<u64>,
}

/// What it took to read a source that has a thread of its own: elapsed time, mostly waiting. Its CPU time is part of
/// `agent_cpu_ns`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Readings {
    /// Number of readings of all devices.
    pub readings: u64,
    /// Time in calls of the library, over all readings.
    pub calls_ns: u64,
    /// Longest reading.
    pub longest_ns: u64,
    /// Time to load and start the library.
    pub start_ns: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Samples {
    /// The machine. Columns `meminfo.*`, `vmstat.*` (selected), `zoneinfo.pcp_count`, `kpageflags.huge_zero_page`,
    /// `thp.anon_partially_mapped`, `sockstat.TCP`, `sockstat.UDP`, `dentry.entries`, `dentry.negative`; and columns by
    /// events. `zoneinfo.stat_drift` is there only where a CPU had not handed in its counts in time: the bytes by which each
    /// counter may be off.
    pub system: Series,
    /// One series for each cgroup of the target.
    pub cgroups: Vec<CgroupSeries>,
    /// One series for each process of the target.
    pub processes: Vec<ProcessSeries>,
    /// Columns `live.KIND`: bytes that the target allocated through the CUDA driver and did not free; empty if it never
    /// used it.
    pub cuda: Series,
    /// One series for each GPU.
    #[serde(default)]
    pub devices: Vec<DeviceSeries>,
}

/// Readings in columns: element i of every vector belongs to reading i.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Series {
    /// Beginning of each reading. Its counters were read one after the other between this time and `end_ns`.
    pub begin_ns: Vec<u64>,
    /// End of each reading.
    pub end_ns: Vec<u64>,
    /// Values by the name of the column; `null` if the value is unknown.
    pub columns: BTreeMap<String, Column>,
    /// Why values are `null`: one row for each column and reason.
    pub absent: Vec<Absent>,
}

/// Why values of a column are `null`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Absent {
    pub column: String,
    /// The first reading without the value.
    pub since_ns: u64,
    pub reason: String,
}

/// Readings of one cgroup. Columns of cgroup v2: `memory.current`, `memory.peak`, `memory.swap.current`, `memory.max`,
/// `memory.high`, `stat.*`, `events.*`. Of v1: `memory.usage_in_bytes`, `memory.max_usage_in_bytes`,
/// `memory.limit_in_bytes`, `memory.failcnt`, `memory.kmem.*`, `memory.memsw.usage_in_bytes`, `stat.*`, `events.*`.
/// `hooks.before` and `hooks.after`: usage by the hooks on page counters, just before and just after the kernel's file
/// was read. And columns by events.
#[derive(Debug, Clone, Default, PartialEq, Serialize, JsonSchema)]
pub struct CgroupSeries {
    /// As in `target.cgroups`.
    pub id: u64,
    pub path: String,
    #[serde(flatten)]
    pub series: Series,
}

/// Readings of one process. Columns `rss_anon`, `rss_file`, `rss_shmem`, `swap`, `rss_peak`; `pss*` in readings of
/// smaps_rollup.
#[derive(Debug, Clone, Default, PartialEq, Serialize, JsonSchema)]
pub struct ProcessSeries {
    pub pid: u32,
    #[serde(flatten)]
    pub series: Series,
}

/// Readings of one GPU. Columns `memory.total`, `memory.free`, `memory.used`, `memory.reserved` and
/// `process.<pid>.used` in bytes; `processes.listed`; `utilization.gpu` and `utilization.memory` in percent;
/// `temperature.gpu` in degrees Celsius; `power.draw` in milliwatts; `clock.sm` and `clock.memory` in MHz;
/// `throttle.reasons` (bits); `performance.state`. With CUDA calls followed also `cuda.live`, bytes that the target
/// allocated on this GPU and did not free; `cuda.mixed`, bytes that it allocated on an unknown GPU, this or another, at
/// most; `process.<pid>.before`, bytes that a process had before the trace and still has.
#[derive(Debug, Clone, Default, PartialEq, Serialize, JsonSchema)]
pub struct DeviceSeries {
    /// As in `host.gpus`.
    pub index: u32,
    pub uuid: Option<String>,
    #[serde(flatten)]
    pub series: Series,
}
