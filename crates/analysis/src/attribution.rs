//! `show`: who holds the memory of one run.

use crate::signed::signed;
use serde::Serialize;
use spark_trace_common::source::{Source, UNATTRIBUTED};

use crate::cgroups::{self, CgroupRow};
use crate::charges::{self, Charges};
use crate::containers::{self, ContainerUse};
use crate::cuda::{self, CudaReport};
use crate::derived::Derived;
use crate::devices::{self, DeviceReport};
use crate::driver_allocs::{self, DriverAllocRow};
use crate::engine_run::{self, EngineRun};
use crate::files::{self, FileRow};
use crate::instant_spec::InstantSpec;
use crate::limits::{self, Limit};
use crate::mappings::{self, MappingRow};
use crate::memory_queries::Queries;
use crate::memory_use::{self, MemoryUse};
use crate::names::Names;
use crate::nearest_instant;
use crate::processes::{self, ProcessRow};
use crate::regions::{self, RegionRow};
use crate::stacks::{self, Observed, StackRow};
use crate::tmpfs::{self, TmpfsRow};
use crate::user_stacks::{self, UserStacks};
use crate::view::{Scope, View};
use crate::warning::Warning;
use crate::whose::{Sums, Whose};
use spark_trace_recording::ledger::{Balance, Plane};
use spark_trace_recording::{
    Cost, Health, Host, Instant, LogLine, Phase, ProcessContext, Recording, Target, Tool,
};

pub mod answer;
pub mod gaps;
mod warnings;

use answer::Answer;

pub const SCHEMA: &str = "spark-trace/show";
pub const SCHEMA_VERSION: u32 = 1;

/// Sources that are page cache of files.
const PAGE_CACHE: &[&str] = &["file-clean", "file-dirty"];

/// What the driver takes on behalf of a process and nobody is charged for.
const UNCHARGED_DRIVER: &str = "nvidia-sysmem";

/// Who used the memory of one recorded run. Sizes are bytes, times nanoseconds of the recording's clock.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    pub schema: &'static str,
    pub schema_version: u32,
    /// The requested instant.
    pub at: InstantSpec,
    /// Absent where the recording has no plane.
    pub answer: Option<Answer>,
    pub planes: Planes,
    /// The time that the lists below are about.
    pub details_at_ns: u64,
    /// When stacks, files and what was requested of the driver were read, to be shown for that time; absent where nothing of
    /// what is in use was.
    pub details_instant: Option<Instant>,
    pub stacks: Vec<StackRow>,
    pub files: Vec<FileRow>,
    /// How much of the page cache has a name, where files were read for it.
    pub cache_named: Option<CacheNamed>,
    /// What the lists have that is not the target's.
    pub others: Others,
    /// The target's cgroups, each with what is below it.
    pub cgroups: Vec<CgroupRow>,
    /// Memory limits of the target's root cgroups; a cgroup without one has none here.
    pub limits: Vec<Limit>,
    /// What such a limit does not bound.
    pub containers: Vec<ContainerUse>,
    /// Absent where no hook on page counters ran.
    pub charges: Option<Charges>,
    /// What was requested of the NVIDIA driver; empty where hooks on its functions did not run.
    pub driver_allocs: Vec<DriverAllocRow>,
    pub processes: Vec<ProcessRow>,
    pub regions: Vec<RegionRow>,
    pub mappings: Vec<MappingRow>,
    /// Absent where no CUDA library was seen.
    pub cuda: Option<CudaReport>,
    /// Absent where nothing is a sign of an inference engine.
    pub engine: Option<EngineRun>,
    /// Who uses the GPUs' memory and the machine's, at the system plane's instant; absent where no GPU was read.
    pub memory_use: Option<MemoryUse>,
    /// The memory queries of the target; absent where it made none.
    pub queries: Option<Queries>,
    /// How user stacks were found; absent where none was to be unwound.
    pub user_stacks: Option<UserStacks>,
    /// What surrounds its processes, as recorded.
    pub contexts: Vec<ProcessContext>,
    /// File systems in memory, the target's or not.
    pub tmpfs: Vec<TmpfsRow>,
    /// What the command wrote of its memory, as recorded.
    pub log_lines: Vec<LogLine>,
    pub warnings: Vec<Warning>,
    pub phases: Vec<Phase>,
    pub health: Health,
    pub cost: Cost,
    pub target: Target,
    pub host: Host,
    pub tool: Tool,
}

/// What others than the target hold, by list.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Others {
    /// Added since the trace began.
    pub files: Sums,
    pub stacks: Sums,
    pub tmpfs: Sums,
}

/// How much of the page cache is in files that were looked at.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct CacheNamed {
    pub files: u64,
    pub bytes: u64,
    /// The page cache of the machine; absent where it was not read.
    pub of: Option<u64>,
}

/// The planes overlap: a charged page is in both. Nothing is summed across them.
#[derive(Debug, Clone, Serialize)]
pub struct Planes {
    pub system: Option<PlaneReport>,
    /// All root cgroups of the target.
    pub cgroup: Option<PlaneReport>,
    /// One of each GPU.
    pub devices: Vec<PlaneReport>,
}

impl Planes {
    pub fn iter(&self) -> impl Iterator<Item = &PlaneReport> {
        self.system.iter().chain(&self.cgroup).chain(&self.devices)
    }

    /// The plane whose instant the lists are about: the target's own, where it has one, for the lists say what the
    /// target did. But what the NVIDIA driver takes for it is charged to no cgroup: where it had more of that at
    /// the system's peak than the cgroup had lost by then or had yet to come, that is the target's peak.
    fn details_at(&self) -> Option<&PlaneReport> {
        let (Some(system), Some(cgroup)) = (&self.system, &self.cgroup) else {
            return self.cgroup.as_ref().or(self.system.as_ref());
        };
        let driver = |bytes: fn(&SourceRow) -> Option<i64>| {
            let row = system.sources.iter().find(|row| row.source == UNCHARGED_DRIVER);
            row.and_then(bytes).unwrap_or(0)
        };
        let charged =
            |bytes: fn(&SourceRow) -> Option<i64>| cgroup.sources.iter().filter_map(bytes).sum::<i64>();
        let at_system_peak = driver(|row| row.bytes_at_system_peak) + charged(|row| row.bytes_at_system_peak);
        let at_cgroup_peak = driver(|row| row.bytes_at_cgroup_peak) + charged(|row| row.bytes_at_cgroup_peak);
        Some(if at_system_peak > at_cgroup_peak { system } else { cgroup })
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut PlaneReport> {
        self.system.iter_mut().chain(&mut self.cgroup).chain(&mut self.devices)
    }
}

#[derive(Debug, Clone, Serialize)]
pub struct PlaneReport {
    pub plane: Scope,
    /// Hierarchy version of a cgroup plane.
    pub cgroup_version: Option<&'static str>,
    /// Time of the reading at the requested instant.
    pub at_ns: u64,
    pub start_ns: u64,
    pub peak_ns: u64,
    pub end_ns: u64,
    pub sources: Vec<SourceRow>,
    /// Growth from the start of the trace to the instant.
    #[serde(flatten)]
    pub growth: Reconciliation,
    /// The same for the levels at the instant.
    pub level: Reconciliation,
    /// Root cgroups with their peaks; empty on other planes.
    pub roots: Vec<RootPeak>,
    /// On a cgroup plane, the most bytes by which the counter may differ from memory.stat although nothing is missing;
    /// see [`BATCHES`].
    pub uncounted_at_most: Option<u64>,
    /// What else is known of the GPU that a device plane is about.
    pub device: Option<DeviceReport>,
}

impl PlaneReport {
    /// Of files that lie on disks, at the instant.
    fn page_cache(&self) -> Option<u64> {
        let rows = self.sources.iter().filter(|row| PAGE_CACHE.contains(&row.source));
        let bytes: Option<Vec<i64>> = rows.map(|row| row.bytes).collect();
        let sum = bytes.filter(|bytes| !bytes.is_empty())?.into_iter().fold(0, i64::saturating_add);
        u64::try_from(sum).ok()
    }

    /// One instant has a level and no growth.
    fn forget_growth(&mut self) {
        self.growth = Reconciliation::default();
        self.sources.iter_mut().for_each(|row| row.growth = None);
    }
}

/// The plane's own counter against the sum of its rows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Reconciliation {
    pub expected: Option<i64>,
    pub attributed: i64,
    pub residual: Option<i64>,
    /// Of `expected`; absent where that is unknown or nothing.
    pub residual_percent: Option<f64>,
}

/// Level of one source; `unattributed` is the residual and the only one that may be negative.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SourceRow {
    pub source: &'static str,
    pub title: &'static str,
    pub bytes_at_start: Option<i64>,
    /// At this plane's peak.
    pub bytes_at_peak: Option<i64>,
    pub bytes_at_end: Option<i64>,
    /// This plane's level at the system plane's peak.
    pub bytes_at_system_peak: Option<i64>,
    /// This plane's level at the cgroup plane's peak.
    pub bytes_at_cgroup_peak: Option<i64>,
    /// At the requested instant.
    pub bytes: Option<i64>,
    /// From the start to that instant.
    pub growth: Option<i64>,
    /// What hooks saw allocated for this source since the start and in use at that instant, by kernel
    /// stack; part of the level above, or of `unattributed` where no counter gives one.
    pub observed: Option<u64>,
    /// Of those, what was allocated to be charged to a cgroup, and what was not.
    pub observed_charged: Option<u64>,
    pub observed_uncharged: Option<u64>,
    pub charged: &'static str,
    pub reclaimable: &'static str,
}

/// A root cgroup's highest reading beside the peak its kernel counter kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RootPeak {
    pub path: String,
    /// The path for people.
    #[serde(skip)]
    pub shown: String,
    pub sampled_peak: Option<u64>,
    /// May be older than the trace for a cgroup that is.
    pub kernel_peak: Option<u64>,
}

/// Reports on `recording` at the requested instant.
pub fn report<'a>(run: impl Into<Derived<'a>>, at: InstantSpec) -> Report {
    let run = run.into();
    let recording = run.recording;
    let system = View::new(recording, Scope::System);
    let cgroup = View::new(recording, Scope::Cgroup);
    let peak_ns = |view: &Option<View<'_>>| view.as_ref().map(|view| view.peak().at_ns);
    let peaks = Peaks { system_ns: peak_ns(&system), cgroup_ns: peak_ns(&cgroup) };
    let plane = |view: Option<View<'_>>| view.map(|view| plane_report(recording, &view, at, peaks));
    let devices = recording.samples.devices.iter().filter_map(|device| {
        let view = View::device(recording, device)?;
        let mut report = plane_report(recording, &view, at, peaks);
        let PlaneReport { start_ns, peak_ns, end_ns, at_ns, .. } = report;
        let times = devices::Times { start_ns, peak_ns, end_ns, at_ns };
        report.device = Some(devices::report(recording, device, &view, times));
        Some(report)
    });
    let devices = devices.collect();
    let mut planes = Planes { system: plane(system), cgroup: plane(cgroup), devices };
    if recording.target.is_snapshot() {
        planes.iter_mut().for_each(PlaneReport::forget_growth);
    }
    let page_cache = planes.system.as_ref().and_then(PlaneReport::page_cache);
    let details_at_ns = planes.details_at().map_or(recording.target.ended_ns, |plane| plane.at_ns);
    let use_at_ns = planes.system.as_ref().map_or(details_at_ns, |plane| plane.at_ns);
    let stacks = stacks::rows(recording, Scope::System, details_at_ns);
    let files = files::rows(recording, details_at_ns);
    let tmpfs = tmpfs::rows(recording);
    let mut report = Report {
        schema: SCHEMA,
        schema_version: SCHEMA_VERSION,
        at,
        answer: None,
        warnings: warnings::all(recording, at, &planes),
        planes,
        details_at_ns,
        details_instant: nearest_instant::instant(recording, details_at_ns).cloned(),
        cache_named: recording.provenance.cache_seen.map(|seen| CacheNamed {
            files: seen.files,
            bytes: seen.bytes,
            of: page_cache,
        }),
        others: Others {
            files: Sums::of(
                &files,
                // A file that has lost pages from before the trace has nothing that came since.
                |row| if row.is_from_before() || row.bytes <= 0 { Whose::Target } else { row.whose },
                |row| row.bytes,
            ),
            stacks: Sums::of(
                &stacks,
                |row| if row.is_listed() { Whose::Target } else { row.whose },
                |row| signed(row.bytes),
            ),
            tmpfs: Sums::of(&tmpfs, |row| row.whose, |row| signed(row.highest().unwrap_or(0))),
        },
        stacks,
        files,
        cgroups: cgroups::rows(recording, details_at_ns),
        limits: limits::rows(recording),
        containers: containers::of(recording, details_at_ns),
        charges: charges::report(recording, details_at_ns),
        driver_allocs: driver_allocs::rows(recording, details_at_ns),
        processes: processes::rows(recording, details_at_ns),
        regions: regions::rows(recording, details_at_ns),
        mappings: mappings::rows(recording, details_at_ns),
        cuda: cuda::report_with(recording, details_at_ns, at.answered()),
        engine: engine_run::report(&run, details_at_ns),
        memory_use: memory_use::at(recording, use_at_ns),
        queries: run.into_queries(),
        user_stacks: user_stacks::of(recording),
        contexts: recording.provenance.contexts.clone(),
        tmpfs,
        log_lines: recording.provenance.log_lines.clone(),
        phases: recording.phases.clone(),
        health: recording.health.clone(),
        cost: recording.cost.clone(),
        target: recording.target.clone(),
        host: recording.host.clone(),
        tool: recording.tool.clone(),
    };
    report.answer = answer::answer(&report);
    report
}

/// When each plane peaked, so that each can be shown at the other's.
#[derive(Clone, Copy)]
struct Peaks {
    system_ns: Option<u64>,
    cgroup_ns: Option<u64>,
}

/// The balances that a plane's rows are made of.
struct Balances {
    start: Balance,
    peak: Balance,
    end: Balance,
    system_peak: Option<Balance>,
    cgroup_peak: Option<Balance>,
    chosen: Balance,
}

fn plane_report(recording: &Recording, view: &View<'_>, at: InstantSpec, peaks: Peaks) -> PlaneReport {
    let balances = Balances {
        start: view.start(),
        peak: view.peak(),
        end: view.end(),
        system_peak: peaks.system_ns.map(|at_ns| view.at(at_ns)),
        cgroup_peak: peaks.cgroup_ns.map(|at_ns| view.at(at_ns)),
        chosen: view.choose(at),
    };
    let seen = stacks::rows(recording, view.scope, balances.chosen.at_ns);
    let observed = stacks::by_source(&seen);
    let row = |source: &'static Source| {
        let seen = observed.get(source.slug).copied();
        SourceRow {
            observed: seen.map(Observed::bytes),
            observed_charged: seen.map(|seen| seen.charged),
            observed_uncharged: seen.map(|seen| seen.uncharged),
            ..balances.row(source)
        }
    };
    PlaneReport {
        plane: view.scope,
        cgroup_version: match view.plane {
            Plane::System | Plane::Device => None,
            Plane::CgroupV1 => Some("v1"),
            Plane::CgroupV2 => Some("v2"),
        },
        at_ns: balances.chosen.at_ns,
        start_ns: balances.start.at_ns,
        peak_ns: balances.peak.at_ns,
        end_ns: balances.end.at_ns,
        sources: view.plane.sources().map(row).collect(),
        growth: balances.growth(),
        level: level(&balances.chosen),
        roots: roots(recording, view),
        uncounted_at_most: (view.scope == Scope::Cgroup).then(|| view.stock().saturating_mul(BATCHES)),
        device: None,
    }
}

/// What may be charged to a cgroup and in no row of memory.stat yet, in what CPUs charge ahead: that itself, as many
/// changes that wait on each CPU (memcg_rstat_updated in mm/memcontrol.c), and as many before a read of the file takes them
/// in (memcg_vmstats_needs_flush); every two seconds all are taken in.
const BATCHES: u64 = 3;

impl Balances {
    fn row(&self, source: &'static Source) -> SourceRow {
        let at = |balance: &Balance| level_of(balance, source.slug);
        let (start, chosen) = (at(&self.start), at(&self.chosen));
        let growth = match source.slug {
            UNATTRIBUTED => self.growth().residual,
            _ => difference(chosen, start),
        };
        SourceRow {
            source: source.slug,
            title: source.title,
            bytes_at_start: start,
            bytes_at_peak: at(&self.peak),
            bytes_at_end: at(&self.end),
            bytes_at_system_peak: self.system_peak.as_ref().and_then(at),
            bytes_at_cgroup_peak: self.cgroup_peak.as_ref().and_then(at),
            bytes: chosen,
            growth,
            observed: None,
            observed_charged: None,
            observed_uncharged: None,
            charged: source.charged.as_str(),
            reclaimable: source.reclaimable.as_str(),
        }
    }

    /// Growth of the counter against growth of the rows that are known at both ends.
    fn growth(&self) -> Reconciliation {
        let expected = difference(bytes(self.chosen.expected), bytes(self.start.expected));
        let rows = self.chosen.rows.iter();
        let attributed =
            rows.filter_map(|row| difference(bytes(row.bytes), level_of(&self.start, row.source.slug)));
        Reconciliation::new(expected, attributed.fold(0, i64::saturating_add))
    }
}

impl Reconciliation {
    pub fn new(expected: Option<i64>, attributed: i64) -> Self {
        let residual = expected.map(|expected| expected.saturating_sub(attributed));
        let residual_percent = residual.zip(expected).filter(|&(_, expected)| expected != 0);
        let residual_percent =
            residual_percent.map(|(residual, all)| residual as f64 / all.abs() as f64 * 100.0);
        Self { expected, attributed, residual, residual_percent }
    }
}

fn level(balance: &Balance) -> Reconciliation {
    Reconciliation::new(bytes(balance.expected), signed(balance.attributed))
}

/// A source's level as rows have it: signed, and the residual for `unattributed`.
pub fn level_of(balance: &Balance, slug: &str) -> Option<i64> {
    if slug == UNATTRIBUTED { balance.residual } else { bytes(balance.bytes(slug)) }
}

pub(super) fn bytes(level: Option<u64>) -> Option<i64> {
    level.map(signed)
}

pub(super) fn difference(to: Option<i64>, from: Option<i64>) -> Option<i64> {
    Some(to?.saturating_sub(from?))
}

fn roots(recording: &Recording, view: &View<'_>) -> Vec<RootPeak> {
    let names = Names::new(recording);
    let roots = view.roots.iter();
    roots
        .filter_map(|root| {
            let cgroup = root.cgroup?;
            let sampled_peak = view.highest_of(root);
            Some(RootPeak {
                shown: names.shown_cgroup(&cgroup.path),
                path: cgroup.path.clone(),
                sampled_peak,
                kernel_peak: warnings::kernel_peak(root),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests;
