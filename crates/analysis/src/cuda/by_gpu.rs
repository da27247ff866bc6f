//! Device memory by GPU.

use std::collections::BTreeSet;

use serde::Serialize;
use spark_trace_common::cuda::DEVICE_ALL;

use super::{TotalRow, is_part_of, live, total};
use crate::names::Names;
use spark_trace_recording::Recording;

/// All kinds of device memory together.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct GpuRow {
    /// NVML's index; absent for allocations whose GPU is unknown.
    pub device: Option<u32>,
    /// Absent for all of the target's processes together.
    pub pid: Option<u32>,
    pub comm: Option<String>,
    #[serde(flatten)]
    pub total: TotalRow,
}

/// By GPU, the unknown one last; the target's before those of its processes, where there are several.
pub(super) fn rows(recording: &Recording, names: &Names<'_>, instant: Option<usize>) -> Vec<GpuRow> {
    let all = recording.provenance.cuda_by_gpu.iter().filter(|row| row.total.kind == DEVICE_ALL);
    let users: BTreeSet<_> = all.clone().filter_map(|row| row.total.pid).collect();
    let in_use = |device: Option<u32>, pid: Option<u32>| {
        let rows = recording.provenance.cuda_allocs.iter().filter(|row| {
            row.device == device && pid.is_none_or(|pid| row.pid == pid) && is_part_of(&row.kind, DEVICE_ALL)
        });
        rows.map(|row| live(row, instant)).try_fold(0, |sum: u64, live| Some(sum.saturating_add(live?)))
    };
    let shown = all.filter(|row| row.total.pid.is_none() || users.len() > 1);
    let mut rows: Vec<_> = shown
        .map(|row| GpuRow {
            device: row.device,
            pid: row.total.pid,
            comm: row.total.pid.map(|pid| names.comm(pid)),
            total: total(&row.total, in_use(row.device, row.total.pid).filter(|_| instant.is_some())),
        })
        .collect();
    rows.sort_by_key(|row| {
        (row.device.is_none(), row.device, row.pid.is_some(), std::cmp::Reverse(row.total.peak), row.pid)
    });
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cuda::report;
    use spark_trace_recording::{CudaGpuTotal, CudaTotal};
    use spark_trace_testing as testing;
    use spark_trace_testing::{SECOND, START};

    fn with_gpus(totals: &[(Option<u32>, Option<u32>, u64)]) -> Recording {
        let mut recording = testing::cuda();
        recording.host.gpus = testing::gpus().host.gpus;
        for &(device, pid, peak) in totals {
            let total = CudaTotal { pid, kind: DEVICE_ALL.to_owned(), peak, ..CudaTotal::default() };
            recording.provenance.cuda_by_gpu.push(CudaGpuTotal { device, total });
        }
        recording
    }

    fn rows_of(recording: &Recording) -> Vec<(Option<u32>, Option<u32>, u64)> {
        let report = report(recording, START + 5 * SECOND).unwrap();
        report.gpus.iter().map(|row| (row.device, row.pid, row.total.peak)).collect()
    }

    #[test]
    fn one_process_has_no_rows_of_its_own() {
        let totals = [(None, None, 5), (None, Some(7), 5), (Some(1), None, 9), (Some(1), Some(7), 9)];
        assert_eq!(rows_of(&with_gpus(&totals)), [(Some(1), None, 9), (None, None, 5)]);
        let totals = [(Some(1), Some(7), 2), (Some(1), Some(8), 9), (Some(1), None, 10), (Some(0), None, 1)];
        let expected =
            [(Some(0), None, 1), (Some(1), None, 10), (Some(1), Some(8), 9), (Some(1), Some(7), 2)];
        assert_eq!(rows_of(&with_gpus(&totals)), expected);
    }

    #[test]
    fn bytes_in_use_are_those_of_allocations_on_that_gpu() {
        let mut recording = with_gpus(&[(Some(0), None, 9), (Some(1), None, 9), (None, None, 9)]);
        let device = recording.provenance.cuda_allocs.iter_mut().filter(|row| row.kind == "device");
        device.for_each(|row| row.device = Some(1));
        let report = report(&recording, START + 5 * SECOND).unwrap();
        let all = |kinds: &[&str]| {
            let totals = report.totals.iter().filter(|row| kinds.contains(&row.kind.as_str()));
            totals.map(|row| row.live.unwrap()).sum::<u64>()
        };
        let live: Vec<_> = report.gpus.iter().map(|row| row.total.live.unwrap()).collect();
        assert!(live[1] > 0);
        assert_eq!(live, [0, all(&["device"]), all(&["async", "physical"])]);
    }
}
