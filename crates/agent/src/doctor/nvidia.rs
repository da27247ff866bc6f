//! NVIDIA's driver and what its management library says of the GPUs.

use std::{fs, path::PathBuf};

use super::{Finding, Machine};
use crate::host;
use spark_trace_host::nvml::DIRECTORIES;
use spark_trace_recording::Gpu;
use spark_trace_recording::units;
use spark_trace_recording::verdict::Verdict;

const LIBRARY: &str = "libcuda.so.1";

pub fn driver() -> Finding {
    if host::nvidia_module().is_some_and(|module| module.is_stand_in()) {
        return Finding::warning("STAND-IN for NVIDIA's kernel modules, for tests: no driver, no GPU");
    }
    match fs::read_to_string("/proc/driver/nvidia/version") {
        Ok(text) => Finding::ok(host::nvidia_module().map_or_else(
            || text.lines().next().unwrap_or_default().trim().to_owned(),
            |module| format!("{} ({} kernel module)", module.version, module.kind),
        )),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Finding::not_applicable("not loaded"),
        Err(e) => Finding::warning(format!("/proc/driver/nvidia/version: {e}")),
    }
}

pub fn nvml(machine: &Machine) -> Finding {
    let found = &machine.nvml;
    let reason = || found.verdict.reason.clone().unwrap_or_else(|| "no reason given".to_owned());
    let Some(nvidia) = &found.nvidia else {
        let broken = found.verdict.verdict == Verdict::Broken;
        return if broken { Finding::warning(reason()) } else { Finding::not_applicable(reason()) };
    };
    let or_unknown = |text: &Option<String>| text.clone().unwrap_or_else(|| "unknown".to_owned());
    let versions = format!(
        "{} of driver {}, CUDA up to {}, in {}",
        or_unknown(&nvidia.nvml_version),
        or_unknown(&nvidia.driver_version),
        or_unknown(&nvidia.cuda_driver_version),
        or_unknown(&nvidia.nvml_library)
    );
    if nvidia.simulated { Finding::warning(format!("simulated: {versions}")) } else { Finding::ok(versions) }
}

pub fn gpus(machine: &Machine) -> Finding {
    let found = &machine.nvml;
    if found.gpus.is_empty() {
        return Finding::not_applicable("none listed by NVML");
    }
    Finding::ok(found.gpus.iter().map(gpu).collect::<Vec<_>>().join("; "))
}

fn gpu(gpu: &Gpu) -> String {
    let name = gpu.name.as_deref().unwrap_or("of unknown name");
    let memory = match (gpu.memory_total, gpu.unknown.get("memory_total")) {
        (Some(total), _) => format!("{} of its own", units::unsigned(total)),
        (None, Some(reason)) => format!("size of its memory unknown: {reason}"),
        (None, None) => "no figure of its memory".to_owned(),
    };
    let mig = if gpu.mig == Some(true) { ", divided (MIG)" } else { "" };
    format!("{} {name}, {memory}{mig}", gpu.index)
}

/// It is not opened: that would run its code.
pub fn library() -> Finding {
    let linker = fs::read("/etc/ld.so.cache").ok().and_then(|cache| in_linker_cache(&cache));
    let usual = || DIRECTORIES.iter().map(|dir| PathBuf::from(dir).join(LIBRARY)).find(|path| path.exists());
    let found = linker.filter(|path| path.exists()).or_else(usual);
    match (found, driver().status) {
        (Some(path), _) => Finding::ok(path.display().to_string()),
        (None, super::Status::NotApplicable) => Finding::not_applicable("not found, and there is no driver"),
        (None, _) => Finding::missing("not found"),
    }
}

/// The first path of the library among the cache's strings, which end in zero bytes.
fn in_linker_cache(cache: &[u8]) -> Option<PathBuf> {
    let strings = cache.split(|byte| *byte == 0).filter_map(|bytes| std::str::from_utf8(bytes).ok());
    let mut paths = strings.filter(|text| text.starts_with('/'));
    paths.find(|text| text.rsplit('/').next() == Some(LIBRARY)).map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_library_is_found_in_the_linkers_cache() {
        let cache = b"glibc-ld.so.cache1.1\xff\0libc.so.6\0/lib/libc.so.6\0/opt/nv/libcuda.so.1\0";
        assert_eq!(in_linker_cache(cache), Some(PathBuf::from("/opt/nv/libcuda.so.1")));
        assert_eq!(in_linker_cache(&cache[..30]), None);
    }
}
