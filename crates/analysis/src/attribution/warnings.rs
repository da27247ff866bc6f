//! What to know before trusting a report on one recording.

use super::{PlaneReport, Planes, gaps};
use crate::cuda;
use crate::instant_spec::InstantSpec;
use crate::losses;
use crate::names::{self, Names};
use crate::view::{Root, Scope, View};
use crate::warning::{KilledSeen, Warning};
use spark_trace_recording::ledger::Plane;
use spark_trace_recording::verdict::Verdict;
use spark_trace_recording::{Column, LibraryFile, Process, Recording};

/// Sampling that missed more of the kernel's peak than this is worth a warning.
const NEAR_PEAK_PERCENT: u64 = 99;
/// Readings come at an interval, a little late on a busy machine.
const FAR_INTERVALS: u64 = 3;
/// Columns that hold the kernel's own peak, one of each hierarchy version.
const PEAK_COLUMNS: [&str; 2] = ["memory.peak", "memory.max_usage_in_bytes"];
/// What the kernel killed for want of memory, as both hierarchy versions are recorded.
const KILLED_COLUMN: &str = "events.oom_kill";
/// The same of the whole machine.
const MACHINE_KILLED_COLUMN: &str = "vmstat.oom_kill";
/// A status as wait(2) reports it has the signal in these bits.
const SIGNAL_BITS: u32 = 0x7f;
const SIGKILL: u32 = 9;

pub(super) fn all(recording: &Recording, at: InstantSpec, planes: &Planes) -> Vec<Warning> {
    let health = &recording.health;
    let mut warnings = Vec::new();
    if losses::matter(health) {
        warnings.push(Warning::Lost { count: losses::lost(health) });
    }
    let not_unwound = losses::not_unwound(health);
    if not_unwound > 0 {
        warnings.push(Warning::NotUnwound { count: not_unwound });
    }
    if !health.complete {
        warnings.push(Warning::Incomplete);
    }
    warnings.extend(gaps::warnings(recording, planes));
    warnings.extend(missed_peaks(recording));
    let killed = killed(recording);
    if killed.is_empty() {
        warnings.extend(may_be_killed(recording));
    }
    warnings.extend(killed);
    warnings.extend(never_read(recording));
    warnings.extend(far_readings(recording, at, planes));
    // Somebody else's says nothing about this run.
    let provenance = &recording.provenance;
    let uses_gpu = !provenance.cuda_totals.is_empty()
        || !provenance.cuda_allocs.is_empty()
        || !provenance.cuda_events.is_empty()
        || !recording.samples.devices.is_empty();
    warnings.extend(health.libraries.iter().flat_map(|file| library(file, uses_gpu)));
    warnings.extend(health.warnings.iter().map(|text| Warning::Recorded(names::short(text))));
    warnings
}

fn library(file: &LibraryFile, uses_gpu: bool) -> Vec<Warning> {
    let path = || file.path.clone();
    let late = cuda::late(file).map(|late_ns| Warning::LateLibrary { path: path(), late_ns });
    let simulated = (file.simulated && uses_gpu).then(|| Warning::SimulatedLibrary { path: path() });
    let unwatched =
        (file.verdict == Verdict::Broken && file.in_use != Some(false)).then(|| Warning::UnwatchedLibrary {
            path: path(),
            reason: file.reason.clone().unwrap_or_else(|| "no reason recorded".to_owned()),
        });
    simulated.into_iter().chain(unwatched).chain(late).collect()
}

/// The peak that the kernel kept of a root cgroup, the last that was read.
pub(super) fn kernel_peak(root: &Root<'_>) -> Option<u64> {
    let removed = root.cgroup.and_then(|cgroup| cgroup.peak_at_removal);
    removed.max(peaks_read(root).last())
}

fn peaks_read<'a>(root: &Root<'a>) -> impl DoubleEndedIterator<Item = u64> + 'a {
    let series = root.series;
    let columns = PEAK_COLUMNS.into_iter().filter_map(|name| series.columns.get(name));
    columns.flat_map(Column::known)
}

/// The kernel's peak belongs to this run: the cgroup is no older than the trace, or the peak rose meanwhile.
fn peaked_while_tracing(root: &Root<'_>) -> bool {
    root.created_ns().is_some() || kernel_peak(root) > peaks_read(root).next()
}

fn missed_peaks(recording: &Recording) -> Vec<Warning> {
    let Some(view) = View::new(recording, Scope::Cgroup) else { return vec![] };
    let names = Names::new(recording);
    let missed = view.roots.iter().filter(|root| peaked_while_tracing(root)).filter_map(|root| {
        let (sampled, kernel) = (view.highest_of(root)?, kernel_peak(root)?);
        let near = u128::from(sampled) * 100 >= u128::from(kernel) * u128::from(NEAR_PEAK_PERCENT);
        let cgroup = names.shown_cgroup(&root.cgroup?.path);
        let interval_ns = recording.tool.interval_ns;
        let gap_ns = gaps::at_kernel_peak(recording, root, &PEAK_COLUMNS, kernel);
        (!near).then_some(Warning::PeakMissed { cgroup, sampled, kernel, interval_ns, gap_ns })
    });
    missed.collect()
}

/// Processes killed while tracing, of each cgroup that counts them for itself: v2 counts a kill in all ancestors, too.
fn killed(recording: &Recording) -> Vec<Warning> {
    let cgroups = recording.target.cgroups.iter();
    let names = Names::new(recording);
    let killed = cgroups.filter_map(|cgroup| {
        let samples = recording.samples.cgroups.iter().find(|samples| samples.id == cgroup.id);
        let counts_below = samples.map_or(recording.host.cgroup_version == "v2", |samples| {
            Plane::of_cgroup(&samples.series) == Some(Plane::CgroupV2)
        });
        let counts = samples.and_then(|samples| samples.series.columns.get(KILLED_COLUMN));
        let read = || counts.into_iter().flat_map(Column::known);
        let before = if cgroup.created_ns.is_some() { 0 } else { read().next()? };
        // The kernel kills, and the cgroup is gone before it is read again.
        let after = cgroup.oom_kills_at_removal;
        let (read, all) = (read().next_back(), read().next_back().max(after)?);
        let count = all.saturating_sub(before);
        (count > 0 && (cgroup.root || !counts_below)).then(|| Warning::Killed {
            cgroup: names.shown_cgroup(&cgroup.path),
            count,
            seen: if after > read { KilledSeen::AtRemoval } else { KilledSeen::Reading },
        })
    });
    killed.collect()
}

/// Kills that only the machine's counter has, where processes of the target ended as the killed do: a target without
/// a cgroup of its own, or one whose cgroup was gone before it was read.
fn may_be_killed(recording: &Recording) -> Option<Warning> {
    let column = recording.samples.system.columns.get(MACHINE_KILLED_COLUMN)?;
    let count = column.known().next_back()?.saturating_sub(column.known().next()?);
    let names = Names::new(recording);
    let is_killed = |process: &&Process| {
        (recording.target.cgroups.is_empty() || names.is_target(process.cgroup))
            && process.exit_status.is_some_and(|status| status & SIGNAL_BITS == SIGKILL)
    };
    let victims = recording.provenance.processes.iter().filter(is_killed);
    let victims: Vec<_> = victims.map(|process| format!("{} ({})", process.comm, process.pid)).collect();
    (count > 0 && !victims.is_empty()).then_some(Warning::MayBeKilled { count, victims })
}

fn never_read(recording: &Recording) -> impl Iterator<Item = Warning> {
    let read = |id| {
        let mut samples = recording.samples.cgroups.iter();
        samples.any(|samples| samples.id == id && !samples.series.begin_ns.is_empty())
    };
    let names = Names::new(recording);
    let roots = recording.target.cgroups.iter().filter(|cgroup| cgroup.root);
    roots
        .filter(move |cgroup| !read(cgroup.id))
        .map(move |cgroup| Warning::NeverRead { cgroup: names.shown_cgroup(&cgroup.path) })
}

fn far_readings(recording: &Recording, at: InstantSpec, planes: &Planes) -> Vec<Warning> {
    let Some(requested_ns) = at.time(recording.target.started_ns) else { return vec![] };
    let tool = &recording.tool;
    let interval_ns = |plane: &PlaneReport| match plane.plane {
        Scope::Device => tool.gpu_interval_ns.unwrap_or(tool.interval_ns),
        Scope::System | Scope::Cgroup => tool.interval_ns,
    };
    let age_ns = gaps::age_ns(&recording.samples.system, requested_ns);
    let spacing_ns = |plane: &PlaneReport| recording.health.spacing_ns(interval_ns(plane), age_ns);
    let far = |plane: &PlaneReport| spacing_ns(plane).saturating_mul(FAR_INTERVALS);
    let planes = planes.iter().filter(|plane| plane.at_ns.abs_diff(requested_ns) > far(plane));
    planes
        .map(|plane| Warning::FarReading { plane: plane.plane.as_str(), requested_ns, found_ns: plane.at_ns })
        .collect()
}
