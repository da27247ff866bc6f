//! Who uses a GPU's memory and the machine's beside it, in figures that add up to what is in use.
//!
//! A GPU without memory of its own takes the machine's: NVML has no figure of it, only of its processes. Their bytes are then
//! part of the system plane, where hooks see them as the driver's or nothing does; so they are taken out of both.

use crate::signed::signed;
use serde::Serialize;

use crate::devices;
use crate::view::{Scope, View};
use spark_trace_recording::ledger::{self, Balance};
use spark_trace_recording::{DeviceSeries, Recording};

/// Rows of the system plane that are page cache.
const CACHE: &[&str] = &["file-clean", "file-dirty"];
/// What the names of the NVIDIA driver's rows begin with.
const DRIVER: &str = "nvidia-";

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MemoryUse {
    /// One for each GPU.
    pub gpus: Vec<GpuUse>,
    /// Absent where the machine's counters were not read.
    pub host: Option<HostUse>,
}

/// One GPU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GpuUse {
    /// NVML's index.
    pub device: u32,
    pub simulated: bool,
    /// It has no memory of its own, and shares the machine's.
    pub unified: bool,
    /// Of its own memory all that is not free; where it shares the machine's, the bytes of its processes.
    pub bytes: Option<i64>,
    /// Its own memory, or the machine's where it shares that.
    pub total: Option<i64>,
    /// The largest first, those of unknown size last.
    pub processes: Vec<GpuProcess>,
    /// Memory that driver and firmware set aside; absent where the GPU has none of its own.
    pub reserved: Option<i64>,
    /// Of its own memory: bytes minus those of its processes and the reserved ones.
    pub unexplained: Option<i64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GpuProcess {
    pub pid: u32,
    pub comm: Option<String>,
    pub bytes: Option<i64>,
}

/// The machine's memory beside what GPUs take of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct HostUse {
    pub total: Option<i64>,
    /// All that is neither page cache nor a GPU's.
    pub bytes: Option<i64>,
    pub page_cache: Option<i64>,
    pub unexplained: Option<i64>,
}

/// Absent where no GPU was read.
pub fn at(recording: &Recording, at_ns: u64) -> Option<MemoryUse> {
    let gpus: Vec<_> =
        recording.samples.devices.iter().filter_map(|device| gpu(recording, device, at_ns)).collect();
    if gpus.is_empty() {
        return None;
    }
    let system = View::new(recording, Scope::System).map(|view| view.at(at_ns));
    Some(MemoryUse { host: system.map(|balance| host(recording, &balance, &gpus)), gpus })
}

fn gpu(recording: &Recording, device: &DeviceSeries, at_ns: u64) -> Option<GpuUse> {
    let (series, view) = (&device.series, View::device(recording, device)?);
    let index = view.roots.first()?.nearest(at_ns)?;
    let column = |name: &str| series.columns.get(name)?.get(index).map(signed);
    let unified = devices::shares_memory(series);
    let mut processes: Vec<_> = ledger::device_processes(series, index)
        .map(|(pid, bytes)| GpuProcess { pid, comm: comm(recording, pid), bytes: Some(signed(bytes)) })
        .collect();
    let listed = column("processes.listed");
    let all_known = listed == i64::try_from(processes.len()).ok();
    let unknown = devices::unknown_processes(series).filter(|_| !all_known);
    let known: Vec<u32> = processes.iter().map(|process| process.pid).collect();
    processes.extend(unknown.filter(|pid| !known.contains(pid)).map(|pid| GpuProcess {
        pid,
        comm: comm(recording, pid),
        bytes: None,
    }));
    processes.sort_by_key(|process| (std::cmp::Reverse(process.bytes), process.pid));
    let of_processes =
        all_known.then(|| processes.iter().filter_map(|process| process.bytes).fold(0, i64::saturating_add));
    let own_total = column("memory.total");
    let own = own_total.zip(column("memory.free")).map(|(total, free)| total.saturating_sub(free));
    let reserved = column("memory.reserved");
    let unexplained = own.zip(of_processes).map(|(own, taken)| own - taken - reserved.unwrap_or(0));
    Some(GpuUse {
        device: device.index,
        simulated: recording.host.nvidia.as_ref().is_some_and(|nvidia| nvidia.simulated),
        unified,
        bytes: if unified { of_processes } else { own },
        total: if unified { Some(signed(recording.host.memory_total)) } else { own_total },
        processes,
        reserved: reserved.filter(|_| !unified),
        unexplained: unexplained.filter(|_| !unified),
    })
}

fn host(recording: &Recording, balance: &Balance, gpus: &[GpuUse]) -> HostUse {
    let shared = gpus.iter().filter(|gpu| gpu.unified);
    let of_gpus = shared.clone().try_fold(0_i64, |sum, gpu| Some(sum.saturating_add(gpu.bytes?)));
    let shares = shared.count() > 0;
    let sum = |is_meant: fn(&str) -> bool| {
        let rows = balance.rows.iter().filter(|row| is_meant(row.source.slug));
        rows.filter_map(|row| row.bytes).map(signed).fold(0, i64::saturating_add)
    };
    let page_cache = sum(|slug| CACHE.contains(&slug));
    let of_driver = if shares { sum(|slug| slug.starts_with(DRIVER)) } else { 0 };
    let bytes = signed(balance.attributed) - page_cache - of_driver;
    let used = balance.expected.map(signed);
    HostUse {
        total: Some(signed(recording.host.memory_total)),
        bytes: Some(bytes),
        page_cache: Some(page_cache),
        unexplained: used.zip(of_gpus).map(|(used, of_gpus)| used - of_gpus - bytes - page_cache),
    }
}

fn comm(recording: &Recording, pid: u32) -> Option<String> {
    let mut known = recording.provenance.processes.iter().rev();
    known.find(|process| process.pid == pid).map(|process| process.comm.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use spark_trace_testing as testing;
    use spark_trace_testing::{MIB, SECOND, START};

    const ONE_MIB: i64 = MIB as i64;
    const THEN: u64 = START + 5 * SECOND;

    fn sizes(gpu: &GpuUse) -> Vec<(u32, Option<i64>)> {
        gpu.processes
            .iter()
            .map(|process| (process.pid, process.bytes.map(|bytes| bytes / ONE_MIB)))
            .collect()
    }

    #[test]
    fn a_gpu_with_memory_of_its_own_adds_up() {
        let used = at(&testing::gpus(), THEN).unwrap();
        let gpu = &used.gpus[0];
        assert_eq!(sizes(gpu), [(4242, Some(30_000)), (99, Some(500))]);
        assert_eq!(gpu.processes[0].comm.as_deref(), Some("python3"));
        let mib = |bytes: Option<i64>| bytes.map(|bytes| bytes / ONE_MIB);
        assert_eq!([gpu.bytes, gpu.reserved, gpu.unexplained].map(mib), [Some(31_121), Some(605), Some(16)]);
        assert_eq!((mib(gpu.total), gpu.unified), (Some(143_771), false));
    }

    #[test]
    fn what_a_gpu_takes_of_the_machines_memory_is_in_no_other_figure() {
        let recording = testing::gpus();
        let used = at(&recording, THEN).unwrap();
        let (gpu, host) = (&used.gpus[1], used.host.unwrap());
        assert!(gpu.unified);
        assert_eq!((gpu.bytes, gpu.total), (Some(700 * ONE_MIB), Some(signed(recording.host.memory_total))));
        assert_eq!((gpu.reserved, gpu.unexplained), (None, None));
        let balance = View::new(&recording, Scope::System).unwrap().at(THEN);
        let parts = [gpu.bytes, host.bytes, host.page_cache, host.unexplained].map(Option::unwrap);
        assert_eq!(parts.iter().sum::<i64>(), signed(balance.expected.unwrap()));
    }

    #[test]
    fn a_process_of_unknown_size_makes_the_sum_unknown() {
        let mut recording = testing::gpus();
        for (device, pid) in [(0, 99), (1, 4242)] {
            let series = &mut recording.samples.devices[device].series;
            let column = format!("process.{pid}.used");
            series.columns.remove(&column);
            let reason = "NVML: no figure".to_owned();
            series.absent.push(spark_trace_recording::Absent { column, since_ns: START, reason });
        }
        let used = at(&recording, THEN).unwrap();
        assert_eq!(sizes(&used.gpus[0]), [(4242, Some(30_000)), (99, None)]);
        assert!(used.gpus[0].bytes.is_some() && used.gpus[0].unexplained.is_none());
        assert_eq!((used.gpus[1].bytes, used.host.unwrap().unexplained), (None, None));
    }

    #[test]
    fn a_machine_without_gpus_has_none() {
        assert_eq!(at(&testing::container(), THEN), None);
    }
}
