//! What a container's limit bounds, and what not: the driver's memory is charged to nobody.

use serde::Serialize;
use spark_trace_common::cuda::DEVICE_ALL;
use spark_trace_recording::{Recording, ledger};

use crate::limits;
use crate::simulated;
use crate::view::{Scope, View};

/// The memory of a limited cgroup, as its counter has it, and what is not in the counter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ContainerUse {
    /// Path of the cgroup.
    pub cgroup: String,
    pub limit: u64,
    /// The cgroup's own counter at that time.
    pub charged: Option<u64>,
    /// Device memory of its processes: on a GPU that shares the machine's memory it is pages of the machine that NVIDIA's
    /// driver takes without charging them (kernel-open/nvidia/nv-vm.c nv_alloc_system_pages: no __GFP_ACCOUNT).
    pub uncharged: u64,
}

/// Of the target's one limited cgroup, where device memory is the machine's and not in its counter.
pub fn of(recording: &Recording, at_ns: u64) -> Vec<ContainerUse> {
    device(recording, at_ns).map_or_else(Vec::new, |live| with(recording, at_ns, live))
}

/// The same, with the target's device memory at that time as it is known from elsewhere.
pub fn with(recording: &Recording, at_ns: u64, live: u64) -> Vec<ContainerUse> {
    if recording.host.gpus.iter().any(|gpu| gpu.memory_total.is_some()) {
        return vec![];
    }
    // Calls are not known by cgroup: of several nobody knows whose they are.
    let roots = recording.target.cgroups.iter().filter(|cgroup| cgroup.root).count();
    let limits = limits::rows(recording);
    let ([limit], 1) = (limits.as_slice(), roots) else { return vec![] };
    let uncharged = live.saturating_sub(simulated::in_own_pages(recording, at_ns, live));
    let charged = View::new(recording, Scope::Cgroup).and_then(|view| view.height(at_ns));
    let row = ContainerUse { cgroup: limit.cgroup.clone(), limit: limit.bytes, charged, uncharged };
    if uncharged > 0 { vec![row] } else { vec![] }
}

/// Device memory of the target near a time.
fn device(recording: &Recording, at_ns: u64) -> Option<u64> {
    let series = &recording.samples.cuda;
    let column = series.columns.get(&format!("live.{DEVICE_ALL}"))?;
    column.get(ledger::nearest(series, at_ns)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use spark_trace_recording::CgroupSeries;
    use spark_trace_testing as testing;
    use spark_trace_testing::{SECOND, START};

    const GIB: u64 = 1 << 30;

    /// A container limited to 69 GiB whose processes have 110 GiB of device memory.
    fn limited() -> Recording {
        let mut recording = testing::container();
        recording.host.gpus = vec![spark_trace_recording::Gpu::default()];
        let root = &recording.target.cgroups[0];
        let (id, path) = (root.id, root.path.clone());
        let counters = [("memory.max", 69 * GIB), ("memory.current", 9 * GIB)];
        let rows = [(START, &counters[..]), (START + 9 * SECOND, &counters[..])];
        recording.samples.cgroups = vec![CgroupSeries { id, path, series: testing::series(&rows) }];
        recording.host.memory_total = 120 * GIB;
        recording.samples.cuda = testing::series(&[
            (START, &[("live.device-all", 0)]),
            (START + 5 * SECOND, &[("live.device-all", 110 * GIB)]),
        ]);
        recording
    }

    #[test]
    fn a_limit_does_not_bound_what_the_driver_takes() {
        let recording = limited();
        let rows = of(&recording, START + 5 * SECOND);
        let [row] = rows.as_slice() else { panic!("{rows:?}") };
        assert_eq!((row.limit, row.uncharged), (69 * GIB, 110 * GIB));
        assert_eq!(row.charged, Some(9 * GIB));
        assert_eq!(of(&recording, START), [], "nothing is taken yet");
    }

    #[test]
    fn what_the_simulated_driver_takes_is_charged_but_for_huge_pages_and_the_stand_ins() {
        let mut recording = limited();
        recording.health.libraries = vec![spark_trace_recording::LibraryFile {
            simulated: true,
            ..spark_trace_recording::LibraryFile::default()
        }];
        let at_ns = START + 5 * SECOND;
        recording.samples.system = testing::series(&[(at_ns, &[("meminfo.Hugetlb", 0)])]);
        assert_eq!(of(&recording, at_ns), []);
        for elsewhere in ["meminfo.Hugetlb", "driver.nvidia_sysmem"] {
            recording.samples.system = testing::series(&[(at_ns, &[(elsewhere, 100 * GIB)])]);
            assert_eq!(of(&recording, at_ns)[0].uncharged, 100 * GIB);
        }
    }

    #[test]
    fn memory_of_a_gpu_of_its_own_is_no_memory_of_the_machine() {
        let mut recording = limited();
        recording.host.gpus[0].memory_total = Some(140 * GIB);
        assert_eq!(of(&recording, START + 5 * SECOND), []);
    }
}
