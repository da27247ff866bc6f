//! One reading of one GPU.

use std::collections::BTreeMap;

use nvml_wrapper::{
    Device, Nvml,
    enum_wrappers::device::{Clock, TemperatureSensor},
    enums::device::UsedGpuMemory,
    error::NvmlError,
    struct_wrappers::device::ProcessInfo,
};

use super::super::Reading;
use super::library::reason;
use spark_trace_recording::journal::{Sample, SeriesId};

/// A function of NVML and the columns it gives.
struct Call {
    function: &'static str,
    columns: &'static [&'static str],
    read: fn(&Device<'_>, &mut Reading) -> Result<(), NvmlError>,
}

/// In the order they are made. Memory comes right after the processes, which it is compared with.
const CALLS: &[Call] = &[
    Call {
        function: "nvmlDeviceGetMemoryInfo_v2",
        columns: &["memory.total", "memory.free", "memory.used", "memory.reserved"],
        read: |device, reading| {
            let memory = device.memory_info()?;
            reading.put("memory.total", memory.total);
            reading.put("memory.free", memory.free);
            reading.put("memory.used", memory.used);
            reading.put("memory.reserved", memory.reserved);
            Ok(())
        },
    },
    Call {
        function: "nvmlDeviceGetUtilizationRates",
        columns: &["utilization.gpu", "utilization.memory"],
        read: |device, reading| {
            let busy = device.utilization_rates()?;
            reading.put("utilization.gpu", busy.gpu.into());
            reading.put("utilization.memory", busy.memory.into());
            Ok(())
        },
    },
    Call {
        function: "nvmlDeviceGetTemperature",
        columns: &["temperature.gpu"],
        read: |device, reading| {
            reading.put("temperature.gpu", device.temperature(TemperatureSensor::Gpu)?.into());
            Ok(())
        },
    },
    Call {
        function: "nvmlDeviceGetPowerUsage",
        columns: &["power.draw"],
        read: |device, reading| {
            reading.put("power.draw", device.power_usage()?.into());
            Ok(())
        },
    },
    Call {
        function: "nvmlDeviceGetClockInfo",
        columns: &["clock.sm"],
        read: |device, reading| {
            reading.put("clock.sm", device.clock_info(Clock::SM)?.into());
            Ok(())
        },
    },
    Call {
        function: "nvmlDeviceGetClockInfo",
        columns: &["clock.memory"],
        read: |device, reading| {
            reading.put("clock.memory", device.clock_info(Clock::Memory)?.into());
            Ok(())
        },
    },
    Call {
        function: "nvmlDeviceGetCurrentClocksThrottleReasons",
        columns: &["throttle.reasons"],
        read: |device, reading| {
            reading.put("throttle.reasons", device.current_throttle_reasons()?.bits());
            Ok(())
        },
    },
    Call {
        function: "nvmlDeviceGetPerformanceState",
        columns: &["performance.state"],
        read: |device, reading| {
            reading.put("performance.state", u64::from(device.performance_state()?.as_c()));
            Ok(())
        },
    },
];

type List = (&'static str, fn(&Device<'_>) -> Result<Vec<ProcessInfo>, NvmlError>);

/// Processes by what they use the GPU for. One that is in several lists has the same bytes in each.
const LISTS: &[List] = &[
    ("nvmlDeviceGetComputeRunningProcesses_v3", |device| device.running_compute_processes()),
    ("nvmlDeviceGetGraphicsRunningProcesses_v3", |device| device.running_graphics_processes()),
    ("nvmlDeviceGetMPSComputeRunningProcesses_v3", |device| device.mps_running_compute_processes()),
];

/// Says how many processes have a value; without it a process that has none may hold anything.
const LISTED: &str = "processes.listed";

/// A device under reading.
pub(super) struct Gpu<'nvml> {
    nvml: &'nvml Nvml,
    index: u32,
    /// Columns that are not supported here: they are not requested again.
    unsupported: Vec<&'static str>,
}

impl<'nvml> Gpu<'nvml> {
    pub(super) fn all(nvml: &'nvml Nvml) -> Vec<Self> {
        let count = nvml.device_count().unwrap_or(0);
        (0..count).map(|index| Self { nvml, index, unsupported: Vec::new() }).collect()
    }

    pub(super) fn read(&mut self) -> Sample {
        let mut reading = Reading::begin();
        match self.nvml.device_by_index(self.index) {
            Ok(device) => {
                self.processes(&device, &mut reading);
                for call in CALLS {
                    let answer = self.call(call.columns, || (call.read)(&device, &mut reading));
                    let Some(Err(e)) = answer else { continue };
                    let reason = reason(&e, call.function);
                    for column in call.columns {
                        reading.absent(*column, &reason);
                    }
                }
            }
            Err(e) => {
                let reason = reason(&e, "nvmlDeviceGetHandleByIndex_v2");
                let columns = CALLS.iter().flat_map(|call| call.columns).chain([&LISTED]);
                for column in columns {
                    reading.absent(*column, &reason);
                }
            }
        }
        reading.end(SeriesId::Device(self.index))
    }

    /// The answer to what gives `columns`; none where it is known not to be supported.
    fn call<T>(
        &mut self,
        columns: &[&'static str],
        call: impl FnOnce() -> Result<T, NvmlError>,
    ) -> Option<Result<T, NvmlError>> {
        if columns.iter().any(|column| self.unsupported.contains(column)) {
            return None;
        }
        let answer = call();
        if matches!(answer, Err(NvmlError::NotSupported)) {
            self.unsupported.extend(columns);
        }
        Some(answer)
    }

    /// What each process holds. A list that is not supported has nobody in it, as long as another one is.
    fn processes(&mut self, device: &Device<'_>, reading: &mut Reading) {
        let (mut any, mut whole) = (false, true);
        let mut used: BTreeMap<u32, Option<u64>> = BTreeMap::new();
        for (function, list) in LISTS {
            match self.call(&[function], || list(device)) {
                None => {}
                Some(Ok(list)) => {
                    any = true;
                    for (pid, bytes) in by_process(&list) {
                        let known = used.entry(pid).or_insert(bytes);
                        *known = (*known).max(bytes);
                    }
                }
                Some(Err(e)) => {
                    // Missing in old libraries as well as in drivers for some devices.
                    whole &= matches!(e, NvmlError::NotSupported | NvmlError::FailedToLoadSymbol(_));
                    reading.absent(LISTED, reason(&e, function));
                }
            }
        }
        if any && whole {
            reading.put(LISTED, used.len() as u64);
        }
        for (pid, bytes) in used {
            let column = format!("process.{pid}.used");
            match bytes {
                Some(bytes) => reading.put(column, bytes),
                None => reading.absent(column, "NVML: not available for this process"),
            }
        }
    }
}

/// Bytes of each process in one list. On a GPU that is divided a process is listed once for each instance.
fn by_process(list: &[ProcessInfo]) -> BTreeMap<u32, Option<u64>> {
    let mut sums = BTreeMap::new();
    for process in list {
        let bytes = match process.used_gpu_memory {
            UsedGpuMemory::Used(bytes) => Some(bytes),
            UsedGpuMemory::Unavailable => None,
        };
        let sum = sums.entry(process.pid).or_insert(Some(0));
        *sum = sum.zip(bytes).map(|(sum, bytes): (u64, u64)| sum.saturating_add(bytes));
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(pid: u32, used_gpu_memory: UsedGpuMemory) -> ProcessInfo {
        ProcessInfo { pid, used_gpu_memory, gpu_instance_id: None, compute_instance_id: None }
    }

    #[test]
    fn instances_add_up_and_what_is_not_available_is_not_zero() {
        let used = UsedGpuMemory::Used;
        let list = [process(1, used(5)), process(1, used(7)), process(2, UsedGpuMemory::Unavailable)];
        assert_eq!(by_process(&list), BTreeMap::from([(1, Some(12)), (2, None)]));
    }
}
