//! What is known of a GPU beside the rows of its plane: its processes, how busy and how warm it was.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::view::View;
use spark_trace_recording::ledger;
use spark_trace_recording::verdict::NVML_NOT_SUPPORTED;
use spark_trace_recording::{Column, DeviceSeries, Recording, Series};

/// Said where a device has no counter because it has no memory.
const SHARES_MEMORY: &str = "this device has no memory of its own: its allocations are system memory, on the \
                             system plane";

#[derive(Debug, Clone, Serialize)]
pub struct DeviceReport {
    pub index: u32,
    pub uuid: Option<String>,
    pub name: Option<String>,
    /// Nothing of it was measured: a program plays its part.
    pub simulated: bool,
    /// Why the plane has no counter.
    pub note: Option<String>,
    /// The largest at the instant first.
    pub processes: Vec<DeviceProcess>,
    /// Over the run.
    pub readings: Vec<Range>,
    /// Reasons for lower clocks that were in force at any reading of the run.
    pub throttle_reasons: Vec<String>,
}

/// What NVML says that a process holds on the device, contexts included.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DeviceProcess {
    pub pid: u32,
    /// Known of the target's processes.
    pub comm: Option<String>,
    pub target: bool,
    pub bytes_at_start: Option<u64>,
    pub bytes_at_peak: Option<u64>,
    pub bytes_at_end: Option<u64>,
    pub bytes: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Range {
    /// Column of the recording.
    pub column: &'static str,
    pub min: u64,
    pub median: u64,
    pub max: u64,
}

/// Columns whose course matters more than any one reading.
const RANGES: [&str; 6] =
    ["utilization.gpu", "utilization.memory", "temperature.gpu", "power.draw", "clock.sm", "clock.memory"];

/// Bits of `throttle.reasons`: nvml.h, nvmlClocksThrottleReason* (nvmlClocksEventReason* in newer ones).
const THROTTLE_REASONS: [(u64, &str); 9] = [
    (0x1, "gpu-idle"),
    (0x2, "applications-clocks-setting"),
    (0x4, "sw-power-cap"),
    (0x8, "hw-slowdown"),
    (0x10, "sync-boost"),
    (0x20, "sw-thermal-slowdown"),
    (0x40, "hw-thermal-slowdown"),
    (0x80, "hw-power-brake-slowdown"),
    (0x100, "display-clock-setting"),
];

/// Times of the readings that a report is about.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    pub start_ns: u64,
    pub peak_ns: u64,
    pub end_ns: u64,
    pub at_ns: u64,
}

pub fn report(recording: &Recording, device: &DeviceSeries, view: &View<'_>, times: Times) -> DeviceReport {
    let gpu = recording.host.gpus.iter().find(|gpu| gpu.index == device.index);
    DeviceReport {
        index: device.index,
        uuid: device.uuid.clone(),
        name: gpu.and_then(|gpu| gpu.name.clone()),
        simulated: recording.host.nvidia.as_ref().is_some_and(|nvidia| nvidia.simulated),
        note: note(&device.series),
        processes: processes(recording, view, &device.series, times),
        readings: RANGES.iter().filter_map(|column| range(recording, &device.series, column)).collect(),
        throttle_reasons: throttle_reasons(recording, &device.series),
    }
}

/// Whether a GPU has no memory of its own and takes the machine's: NVML has no figure of it.
pub fn shares_memory(series: &Series) -> bool {
    note(series).as_deref() == Some(SHARES_MEMORY)
}

/// Processes of which NVML did not give the bytes at some reading.
pub fn unknown_processes(series: &Series) -> impl Iterator<Item = u32> {
    series.absent.iter().filter_map(|absent| pid_of(&absent.column))
}

fn pid_of(column: &str) -> Option<u32> {
    column.strip_prefix("process.")?.strip_suffix(".used")?.parse().ok()
}

/// Why there is no counter, where there is none.
fn note(series: &Series) -> Option<String> {
    let missing = |name: &&str| !series.columns.contains_key(*name);
    let column = ["memory.total", "memory.free"].into_iter().find(missing)?;
    let reason = series.absent.iter().rev().find(|absent| absent.column == column).map(|a| a.reason.as_str());
    Some(match reason {
        Some(reason) if reason.starts_with(NVML_NOT_SUPPORTED) => SHARES_MEMORY.to_owned(),
        Some(reason) => format!("size of its memory unknown: {reason}"),
        None => "size of its memory unknown".to_owned(),
    })
}

fn processes(recording: &Recording, view: &View<'_>, series: &Series, times: Times) -> Vec<DeviceProcess> {
    let Some(root) = view.roots.first() else { return vec![] };
    let at = |at_ns: u64| -> DeviceBytes {
        let index = root.nearest(at_ns);
        let bytes = index.map(|index| ledger::device_processes(series, index).collect()).unwrap_or_default();
        let listed = index.and_then(|index| series.columns.get("processes.listed")?.get(index));
        DeviceBytes { complete: listed == u64::try_from(BTreeMap::len(&bytes)).ok(), bytes }
    };
    let [start, peak, end, chosen] = [times.start_ns, times.peak_ns, times.end_ns, times.at_ns].map(at);
    let columns = series.columns.keys().chain(series.absent.iter().map(|absent| &absent.column));
    let pids: BTreeSet<u32> = columns.filter_map(|column| pid_of(column)).collect();
    let name = |pid| {
        let mut known = recording.provenance.processes.iter().rev();
        known.find(|process| process.pid == pid).map(|process| process.comm.clone())
    };
    let rows = pids.into_iter().map(|pid| DeviceProcess {
        pid,
        comm: name(pid),
        target: view.is_target(pid),
        bytes_at_start: start.by(pid),
        bytes_at_peak: peak.by(pid),
        bytes_at_end: end.by(pid),
        bytes: chosen.by(pid),
    });
    let mut rows: Vec<_> = rows.collect();
    rows.sort_by_key(|row| std::cmp::Reverse((row.bytes, row.bytes_at_peak)));
    rows
}

/// One reading's processes.
struct DeviceBytes {
    bytes: BTreeMap<u32, u64>,
    /// Every process that was listed has a value, so that one without holds nothing.
    complete: bool,
}

impl DeviceBytes {
    fn by(&self, pid: u32) -> Option<u64> {
        self.bytes.get(&pid).copied().or(self.complete.then_some(0))
    }
}

/// Values of a column in readings of the run.
fn during<'a>(recording: &Recording, series: &'a Series, column: &str) -> impl Iterator<Item = u64> + 'a {
    let target = &recording.target;
    let ended_ns = if target.ended_ns == 0 { u64::MAX } else { target.ended_ns };
    let run = target.started_ns..=ended_ns;
    let values = series.columns.get(column).into_iter().flat_map(Column::iter);
    let readings = series.begin_ns.iter().zip(values);
    readings.filter(move |(begin_ns, _)| run.contains(*begin_ns)).filter_map(|(_, value)| value)
}

fn range(recording: &Recording, series: &Series, column: &'static str) -> Option<Range> {
    let mut values: Vec<u64> = during(recording, series, column).collect();
    values.sort_unstable();
    let (&min, &max) = (values.first()?, values.last()?);
    let median = values.get(values.len() / 2).copied()?;
    Some(Range { column, min, median, max })
}

fn throttle_reasons(recording: &Recording, series: &Series) -> Vec<String> {
    let seen = during(recording, series, "throttle.reasons").fold(0, |all, bits| all | bits);
    let named =
        THROTTLE_REASONS.iter().filter(|(bit, _)| seen & bit != 0).map(|(_, name)| (*name).to_owned());
    let known = THROTTLE_REASONS.iter().fold(0, |all, (bit, _)| all | bit);
    let rest = seen & !known;
    named.chain((rest != 0).then(|| format!("unknown ({rest:#x})"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use spark_trace_testing as testing;
    use spark_trace_testing::MIB;

    fn reports(recording: &Recording) -> Vec<DeviceReport> {
        let devices = recording.samples.devices.iter();
        devices
            .map(|device| {
                let view = View::device(recording, device).unwrap();
                let (start_ns, peak_ns, end_ns) = (view.start().at_ns, view.peak().at_ns, view.end().at_ns);
                report(recording, device, &view, Times { start_ns, peak_ns, end_ns, at_ns: peak_ns })
            })
            .collect()
    }

    #[test]
    fn processes_have_rows_of_their_own_and_gone_ones_hold_nothing() {
        let recording = testing::gpus();
        let device = &reports(&recording)[0];
        let rows: Vec<_> = device
            .processes
            .iter()
            .map(|p| (p.pid, p.comm.as_deref(), p.target, p.bytes_at_start, p.bytes, p.bytes_at_end))
            .collect();
        let mib = |n: u64| Some(n * MIB);
        assert_eq!(
            rows,
            [
                (4242, Some("python3"), true, mib(0), mib(30_000), mib(0)),
                (99, None, false, mib(500), mib(500), mib(500))
            ]
        );
        assert!(device.note.is_none() && device.simulated);
    }

    #[test]
    fn a_device_that_shares_memory_says_so_and_peaks_with_its_processes() {
        let recording = testing::gpus();
        let device = &reports(&recording)[1];
        assert_eq!(device.note.as_deref(), Some(SHARES_MEMORY));
        assert_eq!(device.processes[0].bytes, Some(700 * MIB));
    }

    #[test]
    fn readings_are_those_of_the_run() {
        let device = &reports(&testing::gpus())[0];
        let power = device.readings.iter().find(|range| range.column == "power.draw").unwrap();
        assert_eq!((power.min, power.median, power.max), (75_000, 75_000, 640_000));
        assert_eq!(device.throttle_reasons, ["gpu-idle", "sw-power-cap", "unknown (0x8000)"]);
    }

    #[test]
    fn another_reason_is_passed_on() {
        let mut recording = testing::gpus();
        recording.samples.devices[1].series.absent[0].reason = "NVML: GPU is lost (f)".into();
        let note = reports(&recording)[1].note.clone();
        assert_eq!(note.as_deref(), Some("size of its memory unknown: NVML: GPU is lost (f)"));
    }
}
