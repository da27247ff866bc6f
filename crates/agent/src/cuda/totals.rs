//! Sums of what is held: by kind, by process, and by GPU.

use std::collections::{BTreeMap, BTreeSet};

use spark_trace_common::cuda::{DEVICE_ALL, Kind};
use spark_trace_recording::{CudaGpuTotal, CudaOwn, CudaTotal};

use super::places::Place;

/// Device memory of one process: on each GPU, and where the GPU is not known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ByGpu {
    pub on: BTreeMap<u32, u64>,
    pub unknown: u64,
}

impl ByGpu {
    pub fn all(&self) -> u64 {
        self.on.values().fold(self.unknown, |sum, bytes| sum.saturating_add(*bytes))
    }
}

#[derive(Debug, Default)]
pub(super) struct Totals {
    by_kind: BTreeMap<(Option<u32>, &'static str), CudaTotal>,
    by_place: BTreeMap<(Option<u32>, &'static str, Place), CudaTotal>,
}

impl Totals {
    /// Changes each total that something of `kind` counts in: its process's and the target's.
    pub(super) fn each(&mut self, pid: u32, kind: Kind, place: Place, change: impl Fn(&mut CudaTotal)) {
        let kinds = [Some(kind.as_str()), kind.is_device().then_some(DEVICE_ALL)];
        for name in kinds.into_iter().flatten() {
            for pid in [Some(pid), None] {
                let empty = || CudaTotal { pid, kind: name.to_owned(), ..CudaTotal::default() };
                change(self.by_kind.entry((pid, name)).or_insert_with(empty));
                if kind.is_device() {
                    let key = (pid, name, of_target(pid, place));
                    change(self.by_place.entry(key).or_insert_with(empty));
                }
            }
        }
    }

    /// The GPU behind a number of a process is known from now on.
    pub(super) fn moved(&mut self, pid: u32, from: Place, to: Place) {
        let (pid, mut kinds) = (Some(pid), BTreeSet::new());
        kinds.extend(self.by_place.keys().filter(|key| (key.0, key.2) == (pid, from)).map(|key| key.1));
        for kind in kinds {
            let Some(moved) = self.by_place.remove(&(pid, kind, from)) else { continue };
            if let Some(unknown) = self.by_place.get_mut(&(None, kind, of_target(None, from))) {
                take(unknown, &moved);
            }
            for owner in [pid, None] {
                let empty = || CudaTotal { pid: owner, kind: kind.to_owned(), ..CudaTotal::default() };
                add(self.by_place.entry((owner, kind, to)).or_insert_with(empty), &moved);
            }
        }
    }

    pub(super) fn of_target(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let of_target = self.by_kind.iter().filter(|((pid, _), _)| pid.is_none());
        of_target.map(|((_, kind), total)| (*kind, total.live))
    }

    /// Device memory of a process that has allocated any.
    pub(super) fn own(&self, pid: u32) -> Option<CudaOwn> {
        let total = self.by_kind.get(&(Some(pid), DEVICE_ALL)).filter(|total| total.peak > 0)?;
        Some(CudaOwn { live: total.live, peak: total.peak })
    }

    pub(super) fn all(&self) -> Vec<CudaTotal> {
        self.by_kind.values().cloned().collect()
    }

    pub(super) fn by_gpu(&self) -> Vec<CudaGpuTotal> {
        let was_used = |total: &CudaTotal| total.allocs > 0 || total.failures > 0;
        let used = self.by_place.iter().filter(|(_, total)| was_used(total));
        used.map(|((_, _, place), total)| CudaGpuTotal { device: place.gpu(), total: total.clone() })
            .collect()
    }

    /// Device memory of each process.
    pub(super) fn device_by_process(&self) -> BTreeMap<u32, ByGpu> {
        let mut processes: BTreeMap<u32, ByGpu> = BTreeMap::new();
        for ((pid, kind, place), total) in &self.by_place {
            let Some(pid) = pid.filter(|_| *kind == DEVICE_ALL) else { continue };
            count(processes.entry(pid).or_default(), *place, total.live);
        }
        processes
    }

    /// The same of one process.
    pub(super) fn device_of(&self, pid: u32) -> ByGpu {
        let mut process = ByGpu::default();
        let range = (Some(pid), DEVICE_ALL, Place::Gpu(0))..=(Some(pid), DEVICE_ALL, Place::Unknown);
        for ((.., place), total) in self.by_place.range(range) {
            count(&mut process, *place, total.live);
        }
        process
    }
}

/// Numbers of devices are each process's own.
const fn of_target(pid: Option<u32>, place: Place) -> Place {
    match place {
        Place::Ordinal(_) if pid.is_none() => Place::Unknown,
        place => place,
    }
}

fn count(process: &mut ByGpu, place: Place, bytes: u64) {
    let sum = match place.gpu() {
        Some(index) => process.on.entry(index).or_default(),
        None => &mut process.unknown,
    };
    *sum = sum.saturating_add(bytes);
}

/// Its peak since its GPU is known.
fn add(to: &mut CudaTotal, moved: &CudaTotal) {
    let was_empty = to.allocs == 0;
    to.live = to.live.saturating_add(moved.live);
    to.allocs += moved.allocs;
    to.frees += moved.frees;
    to.implicit_frees += moved.implicit_frees;
    to.failures += moved.failures;
    if was_empty || moved.peak > to.peak {
        (to.peak, to.peak_ns) = (moved.peak, moved.peak_ns);
    }
    to.peak = to.peak.max(to.live);
}

fn take(from: &mut CudaTotal, moved: &CudaTotal) {
    from.live = from.live.saturating_sub(moved.live);
    from.allocs = from.allocs.saturating_sub(moved.allocs);
    from.frees = from.frees.saturating_sub(moved.frees);
    from.implicit_frees = from.implicit_frees.saturating_sub(moved.implicit_frees);
    from.failures = from.failures.saturating_sub(moved.failures);
}
