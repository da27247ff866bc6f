//! Finding and starting the library, and what it says of the machine.

use std::{collections::BTreeMap, fs, path::Path};

use nvml_wrapper::{Device, Nvml, error::NvmlError};

use super::{Machine, NAME};
use crate::host;
use spark_trace_host::nvml::{Refusal, failed, load};
use spark_trace_recording::verdict::{NVML_NOT_SUPPORTED, Verdict};
use spark_trace_recording::{Gpu, Nvidia, SourceVerdict};

/// What a library says that plays the part of a driver which is not there.
const SIMULATED: &str = "simulated";

/// Starts the library at `path`, or the first that is found.
pub(super) fn start(path: Option<&Path>) -> (Machine, Option<Nvml>) {
    match load(path) {
        Err(Refusal::Absent(reason)) => (Machine::without(Verdict::NotApplicable, reason), None),
        Err(Refusal::Broken(reason)) => (Machine::without(Verdict::Broken, reason), None),
        Ok(nvml) => {
            let machine = machine(&nvml, path);
            let usable = machine.is_ok().then_some(nvml);
            (machine, usable)
        }
    }
}

/// Why a value is absent, with the function that did not give it.
pub(super) fn reason(error: &NvmlError, function: &str) -> String {
    match error {
        NvmlError::NotSupported => format!("{NVML_NOT_SUPPORTED} ({function})"),
        error => failed(error, function),
    }
}

fn machine(nvml: &Nvml, path: Option<&Path>) -> Machine {
    let driver = nvml.sys_driver_version().ok();
    let simulated = driver.as_deref().is_some_and(|version| version.contains(SIMULATED));
    // Beside a library that plays a part the driver of this machine has none; what stands in for it does.
    let module = host::nvidia_module().filter(|module| !simulated || module.is_stand_in());
    let nvidia = Nvidia {
        cuda_driver_version: nvml
            .sys_cuda_driver_version()
            .ok()
            .map(|version| format!("{}.{}", version / 1000, version % 1000 / 10)),
        kernel_module: module.map(|module| module.kind.to_owned()),
        nvml_version: nvml.sys_nvml_version().ok(),
        nvml_library: path.map(|path| path.display().to_string()).or_else(loaded),
        simulated,
        driver_version: driver,
    };
    let verdict = |verdict: Verdict, reason: Option<String>| SourceVerdict {
        name: NAME.to_owned(),
        verdict: verdict.into(),
        reason,
    };
    let (verdict, gpus) = match nvml.device_count() {
        Ok(0) => (verdict(Verdict::NotApplicable, Some("NVML lists no GPU".to_owned())), Vec::new()),
        Ok(count) => (verdict(Verdict::Ok, None), (0..count).map(|index| gpu(nvml, index)).collect()),
        Err(e) => (verdict(Verdict::Broken, Some(reason(&e, "nvmlDeviceGetCount_v2"))), Vec::new()),
    };
    Machine { verdict, gpus, nvidia: Some(nvidia) }
}

/// The library that the loader found, from this process's own mappings.
fn loaded() -> Option<String> {
    let maps = fs::read_to_string("/proc/self/maps").ok()?;
    let mut paths = maps.lines().filter_map(|line| line.find('/').and_then(|at| line.get(at..)));
    paths.find(|path| path.contains("/libnvidia-ml.so")).map(ToOwned::to_owned)
}

fn gpu(nvml: &Nvml, index: u32) -> Gpu {
    let mut gpu = Gpu { index, ..Gpu::default() };
    let mut unknown = BTreeMap::new();
    let mut note = |field: &str, function: &str, error: NvmlError| {
        unknown.insert(field.to_owned(), reason(&error, function));
    };
    match nvml.device_by_index(index) {
        Err(e) => note("uuid", "nvmlDeviceGetHandleByIndex_v2", e),
        Ok(device) => {
            for (field, function, read) in FACTS {
                if let Err(e) = read(&device, &mut gpu) {
                    note(field, function, e);
                }
            }
        }
    }
    gpu.unknown = unknown;
    gpu
}

type Fact = (&'static str, &'static str, fn(&Device<'_>, &mut Gpu) -> Result<(), NvmlError>);

/// Fields of a GPU, the function that gives each, and how.
const FACTS: &[Fact] = &[
    ("uuid", "nvmlDeviceGetUUID", |device, gpu| {
        gpu.uuid = Some(device.uuid()?);
        Ok(())
    }),
    ("name", "nvmlDeviceGetName", |device, gpu| {
        gpu.name = Some(device.name()?);
        Ok(())
    }),
    ("pci_bus_id", "nvmlDeviceGetPciInfo_v3", |device, gpu| {
        gpu.pci_bus_id = Some(device.pci_info()?.bus_id);
        Ok(())
    }),
    ("memory_total", "nvmlDeviceGetMemoryInfo_v2", |device, gpu| {
        gpu.memory_total = Some(device.memory_info()?.total);
        Ok(())
    }),
    ("mig", "nvmlDeviceGetMigMode", |device, gpu| {
        gpu.mig = Some(device.mig_mode()?.current != 0);
        Ok(())
    }),
    ("instances", "nvmlDeviceGetMigDeviceHandleByIndex", |device, gpu| {
        if gpu.mig == Some(true) {
            for index in 0..device.mig_device_count()? {
                match device.mig_device_by_index(index) {
                    Ok(instance) => gpu.instances.push(instance.uuid()?),
                    // There may be fewer than the most that are possible.
                    Err(NvmlError::NotFound) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }),
    ("compute_capability", "nvmlDeviceGetCudaComputeCapability", |device, gpu| {
        let capability = device.cuda_compute_capability()?;
        gpu.compute_capability = Some(format!("{}.{}", capability.major, capability.minor));
        Ok(())
    }),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_name_the_function() {
        assert_eq!(reason(&NvmlError::NotSupported, "f"), "NVML: not supported (f)");
        assert!(reason(&NvmlError::GpuLost, "f").ends_with("(f)"));
    }
}
