//! Where device memory of the simulated driver lies.

use spark_trace_recording::{Recording, ledger};

const HUGE_PAGES: &str = "meminfo.Hugetlb";

/// How much of the target's device memory is in pages of its processes, and charged as those are: all that the simulated
/// driver has, but for huge pages, which it can be run with and which no memory cgroup counts. NVIDIA's driver has none.
pub fn in_own_pages(recording: &Recording, at_ns: u64, live: u64) -> u64 {
    if !recording.health.libraries.iter().any(|library| library.simulated) {
        return 0;
    }
    let series = &recording.samples.system;
    let huge = || series.columns.get(HUGE_PAGES)?.get(ledger::nearest(series, at_ns)?);
    live.saturating_sub(huge().unwrap_or(0))
}
