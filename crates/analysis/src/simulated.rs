//! Where device memory of the simulated driver lies.

use spark_trace_recording::{Recording, ledger};

const HUGE_PAGES: &str = "meminfo.Hugetlb";
const SYSMEM: &str = "driver.nvidia_sysmem";

/// How much of the target's device memory is in pages of its processes, and charged as those are: all that the simulated
/// driver has, but for huge pages and pages of the stand-in for NVIDIA's modules, which it can be run with and which no memory
/// cgroup counts. NVIDIA's driver has none.
pub fn in_own_pages(recording: &Recording, at_ns: u64, live: u64) -> u64 {
    if !recording.health.libraries.iter().any(|library| library.simulated) {
        return 0;
    }
    let series = &recording.samples.system;
    let then = |column| series.columns.get(column)?.get(ledger::nearest(series, at_ns)?);
    let elsewhere = [HUGE_PAGES, SYSMEM].into_iter().filter_map(then);
    elsewhere.fold(live, u64::saturating_sub)
}
