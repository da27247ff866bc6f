//! Device memory of the process whose answer counts. An engine on several GPUs has a process for each, and each of them
//! sizes its part of the cache by its own.

use std::collections::BTreeSet;

use spark_trace_common::cuda::{DEVICE_ALL, Kind, LIVE_ON_GPU};
use spark_trace_recording::{CudaGpuTotal, MemoryQuery, Recording, Series};

pub use super::reading::{own as at, own_live_at as live_at, with_memory as processes};
use super::{Reading, reading};

/// A GPU is one process's where others have no more than this of its memory: contexts make small allocations everywhere.
const OTHERS_PERCENT: u64 = 1;

/// GPUs that a process had device memory on.
pub fn gpus(recording: &Recording, pid: u32) -> BTreeSet<u32> {
    let rows = device_rows(recording).filter(|row| row.total.pid == Some(pid));
    rows.filter_map(|row| row.device).collect()
}

/// Device memory of one kind that the target had at an answer; absent where it was not summed up then.
pub fn of_kind(reading: &Reading, kind: Kind) -> Option<u64> {
    let later = reading.query.state.as_ref()?.later.as_ref()?;
    Some(later.cuda_live.get(kind.as_str()).copied().unwrap_or(0))
}

/// The most that it was by then.
pub fn peak_at(recording: &Recording, reading: &Reading) -> Option<u64> {
    let most = || reading::highest(recording, 0, reading.at_ns);
    let now = live_at(recording, &reading.query)?;
    let peak = at(&reading.query).map(|own| own.peak).or_else(most);
    Some(peak.map_or(now, |peak| peak.max(now)))
}

/// The most that it was before graphs were captured for an estimate, which takes memory that is given back before the reading.
/// Between its baseline and its last reading vLLM reads once before its dummy run, then before and after each capture
/// (vllm/utils/mem_utils.py, memory_profiling; v1/worker/gpu_worker.py, determine_available_memory).
pub fn peak_before_graphs(recording: &Recording, baseline: &Reading, reading: &Reading) -> Option<u64> {
    let is_between = |query: &&MemoryQuery| {
        query.pid == reading.query.pid
            && query.interface == DEVICE_QUERY
            && (baseline.at_ns + 1..reading.at_ns).contains(&query.at_ns)
    };
    let between: Vec<&MemoryQuery> = recording.provenance.queries.iter().filter(is_between).collect();
    // Of a pair the library's answer comes right before the reading.
    let own = usize::from(reading.device_free.is_some());
    let [_, first, _, ..] = between.get(..between.len().checked_sub(own)?)? else { return None };
    let later = first.state.as_ref()?.later.as_ref()?;
    Some(later.cuda_own?.peak)
}

/// What the process took for the cache: how far its device memory rose in one go after the reading.
pub fn taken(recording: &Recording, reading: &Reading) -> Option<u64> {
    let pid = reading.query.pid;
    let Some(own) = at(&reading.query).filter(|_| processes(recording).len() > 1) else {
        return reading::taken(recording, reading);
    };
    let is_later = |query: &&MemoryQuery| query.pid == pid && query.at_ns > reading.at_ns;
    let queried = recording
        .provenance
        .queries
        .iter()
        .filter(is_later)
        .filter_map(|query| Some((query.at_ns, query.state.as_ref()?.later.as_ref()?.cuda_own?.live)));
    let sampled = alone_on(recording, pid).into_iter().flat_map(|series| {
        let column = series.columns.get(LIVE_ON_GPU).into_iter().flat_map(|column| column.iter());
        series.begin_ns.iter().copied().zip(column).filter_map(|(at_ns, live)| Some((at_ns, live?)))
    });
    let levels = queried.chain(sampled).filter(|(at_ns, _)| *at_ns > reading.at_ns);
    reading::risen(own.live, levels.collect())
}

/// Readings of the GPU that a process has for itself.
fn alone_on(recording: &Recording, pid: u32) -> Option<&Series> {
    let own = device_rows(recording).filter(|row| row.total.pid == Some(pid));
    let most = own.max_by_key(|row| row.total.peak)?;
    let others = device_rows(recording).filter(|row| row.device == most.device && row.total.pid != Some(pid));
    let theirs = others.filter(|row| row.total.pid.is_some()).map(|row| row.total.peak).max().unwrap_or(0);
    let is_alone = u128::from(theirs) * 100 <= u128::from(most.total.peak) * u128::from(OTHERS_PERCENT);
    let device = most.device.filter(|_| is_alone)?;
    recording.samples.devices.iter().find(|series| series.index == device).map(|series| &series.series)
}

fn device_rows(recording: &Recording) -> impl Iterator<Item = &CudaGpuTotal> {
    let rows = recording.provenance.cuda_by_gpu.iter();
    rows.filter(|row| row.total.kind == DEVICE_ALL && row.total.peak > 0)
}

/// What vLLM calls before and after a capture.
const DEVICE_QUERY: &str = "cuMemGetInfo_v2";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory_queries::MemoryQueryRow;
    use spark_trace_recording::{CudaOwn, CudaTotal, DeviceSeries, LaterState, MemoryState};
    use spark_trace_testing::{self as testing, MIB, START};

    const GIB: u64 = 1 << 30;

    fn total(pid: u32, peak: u64) -> CudaTotal {
        CudaTotal { pid: Some(pid), kind: DEVICE_ALL.to_owned(), peak, ..CudaTotal::default() }
    }

    /// A worker on each GPU: both have 6 GiB at their readings, and take 10 and 20 GiB then.
    fn two_workers() -> Recording {
        let mut recording = testing::empty();
        for (gpu, pid, cache) in [(0_u32, 70_u32, 10 * GIB), (1, 71, 20 * GIB)] {
            recording.provenance.cuda_totals.push(total(pid, 6 * GIB + cache));
            let total = total(pid, 6 * GIB + cache);
            recording.provenance.cuda_by_gpu.push(CudaGpuTotal { device: Some(gpu), total });
            let mut series = DeviceSeries { index: gpu, ..DeviceSeries::default() };
            for (at_ns, live) in [(1, 6 * GIB), (20, 6 * GIB + cache), (30, 6 * GIB + cache + 100 * MIB)] {
                testing::push(&mut series.series, START + at_ns, [(LIVE_ON_GPU.to_owned(), live)]);
            }
            recording.samples.devices.push(series);
        }
        recording
    }

    fn reading_of(pid: u32) -> Reading {
        let own = CudaOwn { live: 6 * GIB, peak: 8 * GIB };
        let later = LaterState {
            cuda_live: [("device".to_owned(), 12 * GIB)].into(),
            cuda_own: Some(own),
            ..LaterState::default()
        };
        let state = MemoryState { later: Some(later), ..MemoryState::default() };
        let query =
            MemoryQueryRow { at_ns: START + 10, pid, state: Some(state), ..MemoryQueryRow::default() };
        Reading {
            at_ns: START + 10,
            since_start_ns: 10,
            free: 100 * GIB,
            total: Some(140 * GIB),
            device_free: None,
            found_by: "log",
            signal: None,
            query,
        }
    }

    #[test]
    fn each_worker_has_the_memory_that_it_allocated_itself() {
        let recording = two_workers();
        for (pid, cache) in [(70, 10 * GIB), (71, 20 * GIB)] {
            let reading = reading_of(pid);
            assert_eq!(live_at(&recording, &reading.query), Some(6 * GIB));
            assert_eq!(peak_at(&recording, &reading), Some(8 * GIB));
            assert_eq!(taken(&recording, &reading), Some(cache), "{pid}");
        }
    }

    #[test]
    fn a_gpu_that_two_processes_share_says_nothing_of_one() {
        let mut recording = two_workers();
        let total = total(71, 3 * GIB);
        recording.provenance.cuda_by_gpu.push(CudaGpuTotal { device: Some(0), total });
        assert_eq!(taken(&recording, &reading_of(70)), None);
        assert_eq!(taken(&recording, &reading_of(71)), Some(20 * GIB));
    }

    #[test]
    fn a_process_without_device_memory_queries_for_the_target() {
        let recording = two_workers();
        let mut reading = reading_of(72);
        reading.query.state.as_mut().unwrap().later.as_mut().unwrap().cuda_own = None;
        assert_eq!(live_at(&recording, &reading.query), Some(12 * GIB));
    }

    /// Memory of graphs that are captured for an estimate is in no peak of the dummy run.
    #[test]
    fn the_peak_is_that_before_graphs_are_captured() {
        let query = |at_ns, live, peak| {
            let later = LaterState { cuda_own: Some(CudaOwn { live, peak }), ..LaterState::default() };
            MemoryQuery {
                at_ns: START + at_ns,
                pid: 70,
                interface: "cuMemGetInfo_v2".to_owned(),
                state: Some(MemoryState { later: Some(later), ..MemoryState::default() }),
                ..MemoryQuery::default()
            }
        };
        let mut recording = two_workers();
        // Before the dummy run; before, between and after captures of 4 GiB.
        recording.provenance.queries = vec![
            query(2, 6 * GIB, 6 * GIB),
            query(4, 6 * GIB, 7 * GIB),
            query(5, 10 * GIB, 10 * GIB),
            query(6, 6 * GIB, 10 * GIB),
        ];
        let (reading, mut baseline) = (reading_of(70), reading_of(70));
        baseline.at_ns = START + 1;
        assert_eq!(peak_before_graphs(&recording, &baseline, &reading), Some(7 * GIB));
        recording.provenance.queries.truncate(2);
        assert_eq!(peak_before_graphs(&recording, &baseline, &reading), None, "no capture was seen");
    }
}
