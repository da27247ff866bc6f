//! One plane over a whole run: its balance at the start, at the peak, at the end and in between.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use spark_trace_common::cuda::Library;
use spark_trace_common::source::{SOURCES, counts_from_start};

use crate::instant_spec::InstantSpec;
use spark_trace_recording::ledger::{self, Balance, Facts, Plane};
use spark_trace_recording::verdict::Verdict;
use spark_trace_recording::{DeviceSeries, Recording, Series, TargetCgroup};

/// memory.stat may be some 64 pages for each CPU behind memory.current until it is brought up to date, which is every two
/// seconds (FLUSH_TIME in mm/memcontrol.c): by so long after a reading it was.
const COUNTERS_CATCH_UP_NS: u64 = 5_000_000_000;
/// Less unattributed by less than this is no reason to leave the first of several equal readings.
const WORTH_ANOTHER: u64 = 256 << 10;

/// Pages that a CPU charges at a time, and may keep in stock for each cgroup (MEMCG_CHARGE_BATCH in
/// include/linux/memcontrol.h, consume_stock in mm/memcontrol.c).
pub const CHARGE_BATCH: u64 = 64;

/// Which memory a report is about: all of the machine's, what is charged to the target's cgroups, or the GPUs' own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scope {
    System,
    Cgroup,
    Device,
}

impl Scope {
    pub const ALL: [Self; 3] = [Self::System, Self::Cgroup, Self::Device];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::Cgroup => "cgroup",
            Self::Device => "device",
        }
    }
}

/// Readings that add up to a plane: the system's, those of every root cgroup of the target, or those of GPUs.
pub struct View<'a> {
    pub scope: Scope,
    pub plane: Plane,
    pub roots: Vec<Root<'a>>,
    vmap_stack: Option<bool>,
    /// The target's processes; absent where the whole machine is the target.
    target: Option<BTreeSet<u32>>,
    /// The plane has a counter of its own. GPUs that share the system's memory have none.
    counted: bool,
    /// Columns that the trace counted from its start.
    followed: BTreeSet<&'static str>,
    /// Bytes that CPUs may have charged ahead to the roots.
    stock: u64,
    started_ns: u64,
    ended_ns: u64,
}

pub struct Root<'a> {
    pub series: &'a Series,
    /// Absent for the system and for GPUs, which nobody creates or removes.
    pub cgroup: Option<&'a TargetCgroup>,
}

impl<'a> View<'a> {
    /// Absent where the recording has no reading of that plane. GPUs are taken together.
    pub fn new(recording: &'a Recording, scope: Scope) -> Option<Self> {
        let of = |series| Root { series, cgroup: None };
        let roots = match scope {
            Scope::System => vec![of(&recording.samples.system)],
            Scope::Cgroup => cgroup_roots(recording),
            Scope::Device => recording.samples.devices.iter().map(|device| of(&device.series)).collect(),
        };
        Self::of(recording, scope, roots)
    }

    /// The system by other readings than the recording's own.
    pub fn of_system(recording: &Recording, series: &'a Series) -> Option<Self> {
        Self::of(recording, Scope::System, vec![Root { series, cgroup: None }])
    }

    /// One GPU alone.
    pub fn device(recording: &'a Recording, device: &'a DeviceSeries) -> Option<Self> {
        Self::of(recording, Scope::Device, vec![Root { series: &device.series, cgroup: None }])
    }

    fn of(recording: &Recording, scope: Scope, roots: Vec<Root<'a>>) -> Option<Self> {
        let roots: Vec<_> = roots.into_iter().filter(|root| !root.series.begin_ns.is_empty()).collect();
        let plane = match scope {
            Scope::System => Plane::System,
            Scope::Cgroup => Plane::of_cgroup(roots.first()?.series)?,
            Scope::Device => Plane::Device,
        };
        let target = &recording.target;
        let counted = roots.iter().any(|root| plane.is_in(root.series));
        // Of a GPU without memory of its own the processes are known still.
        (counted || scope == Scope::Device && !roots.is_empty()).then_some(Self {
            scope,
            plane,
            followed: followed(recording, plane, &roots),
            stock: match scope {
                Scope::Cgroup => stock(recording, roots.len()),
                Scope::System | Scope::Device => 0,
            },
            roots,
            vmap_stack: recording.host.vmap_stack,
            target: (!target.is_whole_machine())
                .then(|| recording.provenance.processes.iter().map(|process| process.pid).collect()),
            counted,
            started_ns: target.started_ns,
            // A recording that was cut off has no end.
            ended_ns: if target.ended_ns == 0 { u64::MAX } else { target.ended_ns },
        })
    }

    /// What was in use when the target started: the last reading before. A cgroup created while tracing held
    /// nothing.
    pub fn start(&self) -> Balance {
        self.sum(|root| {
            let before = root.series.end_ns.partition_point(|end_ns| *end_ns <= self.started_ns);
            let first = self.balance(root, before.saturating_sub(1))?;
            Some(if root.created_ns().is_some() { first.emptied(first.at_ns) } else { first })
        })
    }

    /// The last reading; of a cgroup that was removed the last one before that.
    pub fn end(&self) -> Balance {
        self.sum(|root| self.balance(root, root.series.begin_ns.len().checked_sub(1)?))
    }

    /// The reading nearest to `at_ns`. A cgroup holds nothing before it is created and after it is removed.
    pub fn at(&self, at_ns: u64) -> Balance {
        self.sum(|root| {
            let nearest = self.balance(root, root.nearest(at_ns)?)?;
            // Its own last reading may be long ago: what counts is the time that is looked at.
            Some(if root.exists(at_ns) { nearest } else { nearest.emptied(at_ns) })
        })
    }

    /// The reading between the target's start and end at which the plane stood highest; where the target has no such
    /// reading, of all. Where the plane has no counter, the sum of its rows stands for it. What CPUs charge ahead to a
    /// cgroup makes no peak: of levels that differ by no more the one that was read most often counts. Of several that
    /// stand exactly as high, as where the target holds still, the first, or one soon after it that leaves clearly less
    /// unattributed: counters of rows may lag behind the plane's.
    pub fn peak(&self) -> Balance {
        let mut times = self.times();
        let during = |at_ns: &u64| (self.started_ns..=self.ended_ns).contains(at_ns);
        if times.iter().any(during) {
            times.retain(during);
        }
        let heights: Vec<_> = times.iter().map(|&at_ns| self.height(at_ns)).collect();
        let highest = self.level_of(&heights);
        let mut as_high = times.iter().zip(&heights).filter(|(_, height)| **height == highest).peekable();
        let until_ns = as_high.peek().map_or(0, |(first, _)| first.saturating_add(COUNTERS_CATCH_UP_NS));
        let balances = as_high.take_while(|(at_ns, _)| **at_ns <= until_ns).map(|(&at_ns, _)| self.at(at_ns));
        let peak = balances.min_by_key(|balance| {
            balance.residual.map_or(u64::MAX, |bytes| bytes.unsigned_abs() / WORTH_ANOTHER)
        });
        peak.unwrap_or_else(|| self.at(self.started_ns))
    }

    /// The highest level, give or take what CPUs may have charged ahead.
    fn level_of(&self, heights: &[Option<u64>]) -> Option<u64> {
        let highest = heights.iter().copied().max()??;
        let mut times = BTreeMap::<u64, usize>::new();
        for height in heights.iter().flatten().filter(|height| highest - **height <= self.stock) {
            *times.entry(*height).or_default() += 1;
        }
        times.into_iter().max_by_key(|&(height, count)| (count, height)).map(|(height, _)| height)
    }

    pub fn choose(&self, at: InstantSpec) -> Balance {
        match (at, at.time(self.started_ns)) {
            (_, Some(at_ns)) => self.at(at_ns),
            (InstantSpec::End, None) => self.end(),
            (_, None) => self.peak(),
        }
    }

    /// When the plane was read, in order.
    pub fn times(&self) -> Vec<u64> {
        let mut times: Vec<u64> = self.roots.iter().flat_map(Root::times).collect();
        times.sort_unstable();
        times.dedup();
        times
    }

    /// The highest that one root's own counter was read.
    pub fn highest_of(&self, root: &Root<'_>) -> Option<u64> {
        let readings = 0..root.series.begin_ns.len();
        readings.filter_map(|index| ledger::expected_at(self.plane, root.series, index)).max()
    }

    fn balance(&self, root: &Root<'_>, index: usize) -> Option<Balance> {
        let facts = Facts {
            vmap_stack: self.vmap_stack,
            target: self.target.as_ref(),
            followed: Some(&self.followed),
        };
        ledger::balance(self.plane, facts, root.series, index)
    }

    /// How high the plane stands at `at_ns`; where it has no counter, the sum of its rows.
    pub fn height(&self, at_ns: u64) -> Option<u64> {
        self.height_at(at_ns, Root::nearest)
    }

    /// The same by the last reading that had begun by then, however near the next one is.
    pub fn height_by(&self, at_ns: u64) -> Option<u64> {
        self.height_at(at_ns, Root::last_by)
    }

    /// Whether a process is the target's.
    pub fn is_target(&self, pid: u32) -> bool {
        self.target.as_ref().is_none_or(|pids| pids.contains(&pid))
    }

    /// Bytes that CPUs may have charged ahead to the roots; none on other planes than a cgroup's.
    pub const fn stock(&self) -> u64 {
        self.stock
    }

    /// Nothing where one of the roots was not read.
    fn height_at(&self, at_ns: u64, index: impl Fn(&Root<'a>, u64) -> Option<usize>) -> Option<u64> {
        if !self.counted {
            return Some(self.at(at_ns).attributed);
        }
        let existing = self.roots.iter().filter(|root| root.exists(at_ns));
        existing
            .map(|root| ledger::height_at(self.plane, root.series, index(root, at_ns)?))
            .try_fold(0, |sum: u64, bytes| Some(sum.saturating_add(bytes?)))
    }

    fn sum(&self, balance: impl Fn(&Root<'_>) -> Option<Balance>) -> Balance {
        let balances = self.roots.iter().filter_map(balance);
        // `new` left no view without a reading.
        balances.reduce(|a, b| a.plus(&b)).unwrap_or_else(|| Balance::new(self.started_ns, vec![], None))
    }
}

impl Root<'_> {
    pub fn created_ns(&self) -> Option<u64> {
        self.cgroup?.created_ns
    }

    fn removed_ns(&self) -> Option<u64> {
        self.cgroup?.removed_ns
    }

    fn exists(&self, at_ns: u64) -> bool {
        self.created_ns().is_none_or(|created| at_ns >= created)
            && self.removed_ns().is_none_or(|removed| at_ns <= removed)
    }

    fn times(&self) -> impl Iterator<Item = u64> + '_ {
        (0..self.series.begin_ns.len()).filter_map(|index| ledger::time_of(self.series, index))
    }

    fn last_by(&self, at_ns: u64) -> Option<usize> {
        Some(ledger::last_by(self.series, at_ns))
    }

    /// The reading nearest to a time.
    pub fn nearest(&self, at_ns: u64) -> Option<usize> {
        ledger::nearest(self.series, at_ns)
    }
}

/// Columns counted by events that are zero where a series lacks them: another root has them, or the hooks that would
/// have counted ran and saw nothing, or there was no NVIDIA module to hold pages. Without this a run that pinned
/// nothing could not be compared with one that did.
fn followed(recording: &Recording, plane: Plane, roots: &[Root<'_>]) -> BTreeSet<&'static str> {
    let calls_seen = plane == Plane::System && calls_are_seen(recording);
    let module = recording.host.nvidia.as_ref().and_then(|nvidia| nvidia.kernel_module.as_ref());
    let no_driver = plane == Plane::System && module.is_none();
    let columns = SOURCES.iter().flat_map(|source| plane.terms(source)).map(|term| term.column);
    columns
        .filter(|column| counts_from_start(column))
        .filter(|column| {
            calls_seen && column.starts_with("cuda.")
                || no_driver && column.starts_with("driver.")
                || roots.iter().any(|root| root.series.columns.contains_key(*column))
        })
        .collect()
}

/// Whether calls of the CUDA driver were seen, or would have been: the hook on its functions found no library, and
/// the one that watches what the target maps saw none come.
fn calls_are_seen(recording: &Recording) -> bool {
    let verdict = |name: &str| {
        let hook = recording.health.hooks.iter().find(|hook| hook.name == name);
        hook.and_then(|hook| hook.verdict.known())
    };
    let drivers = recording.health.libraries.iter().filter(|file| file.library == Library::Cuda.as_str());
    let mut drivers = drivers.map(|file| file.verdict == Verdict::Ok).peekable();
    if drivers.peek().is_some() {
        return drivers.any(|ok| ok);
    }
    matches!(verdict("library-call"), Some(Verdict::Ok | Verdict::NotApplicable))
        && verdict("mapping") == Some(Verdict::Ok)
}

/// Bytes that CPUs may have charged ahead to cgroups.
fn stock(recording: &Recording, cgroups: usize) -> u64 {
    let host = &recording.host;
    let pages = CHARGE_BATCH * u64::from(host.cpus);
    pages.saturating_mul(host.page_size).saturating_mul(u64::try_from(cgroups).unwrap_or(u64::MAX))
}

fn cgroup_roots(recording: &Recording) -> Vec<Root<'_>> {
    let roots = recording.target.cgroups.iter().filter(|cgroup| cgroup.root);
    roots
        .filter_map(|cgroup| {
            let samples = recording.samples.cgroups.iter().find(|samples| samples.id == cgroup.id)?;
            Some(Root { series: &samples.series, cgroup: Some(cgroup) })
        })
        .collect()
}

#[cfg(test)]
mod tests;
