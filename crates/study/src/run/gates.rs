//! What must hold before a run, checked again and again until it does or the time for it is over.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use nvml_wrapper::enum_wrappers::device::TemperatureSensor;

use super::RunError;
use crate::plan::Gates;
use spark_trace_host::{meminfo, nvml};

const EVERY: Duration = Duration::from_millis(500);
const SHM: &str = "/dev/shm";
const DROP_CACHES: &str = "/proc/sys/vm/drop_caches";

/// A gate: what it wants, or nothing where the plan does not name it; then what stands in its way.
struct Gate {
    name: &'static str,
    closed: fn(&Gates, &Machine) -> Option<String>,
}

/// A row is a gate. A value that the machine cannot read keeps a gate closed: nobody would know that it was not checked.
const GATES: &[Gate] = &[
    Gate {
        name: "gpu-temperature",
        closed: |gates, machine| {
            let most = gates.gpu_temperature?;
            match &machine.gpus {
                Err(why) => Some(format!("no temperature can be read: {why}")),
                Ok(gpus) => gpus
                    .iter()
                    .map(|gpu| gpu.temperature)
                    .max()
                    .filter(|&highest| highest > most)
                    .map(|highest| format!("a GPU has {highest} degrees C, at most {most} are allowed")),
            }
        },
    },
    Gate {
        name: "gpu-idle",
        closed: |gates, machine| {
            if !gates.gpu_idle {
                return None;
            }
            match &machine.gpus {
                Err(why) => Some(format!("no processes can be listed: {why}")),
                Ok(gpus) => gpus
                    .iter()
                    .flat_map(|gpu| &gpu.processes)
                    .next()
                    .map(|pid| format!("process {pid} uses a GPU")),
            }
        },
    },
    Gate {
        name: "mem-free",
        closed: |gates, _| bound("MemFree", gates.mem_free, |found, least| found < least),
    },
    Gate { name: "cached", closed: |gates, _| bound("Cached", gates.cached, |found, most| found > most) },
    Gate { name: "no-processes", closed: |gates, _| process(&gates.no_processes) },
    Gate {
        name: "shm-empty",
        closed: |gates, _| if gates.shm_empty { file_in(Path::new(SHM)) } else { None },
    },
];

/// What only NVML reports, read once for all gates.
struct Machine {
    gpus: Result<Vec<Gpu>, String>,
}

struct Gpu {
    temperature: u32,
    processes: Vec<u32>,
}

/// Waits until all gates are open. `interrupted` ends the waiting.
pub fn wait(gates: &Gates, last: Option<Instant>, interrupted: impl Fn() -> bool) -> Result<(), RunError> {
    if let Some(last) = last {
        while last.elapsed() < gates.cooldown {
            if interrupted() {
                return Err(RunError::Interrupted);
            }
            thread::sleep(EVERY.min(gates.cooldown.saturating_sub(last.elapsed())));
        }
    }
    if gates.drop_caches {
        drop_caches()?;
    }
    let began = Instant::now();
    loop {
        let Some((gate, reason)) = closed(gates).into_iter().next() else { return Ok(()) };
        if interrupted() {
            return Err(RunError::Interrupted);
        }
        if began.elapsed() >= gates.wait {
            return Err(RunError::Gate { gate, reason, waited: gates.wait });
        }
        thread::sleep(EVERY);
    }
}

/// The gates that are closed at this instant, and why.
pub fn closed(gates: &Gates) -> Vec<(&'static str, String)> {
    let machine =
        Machine { gpus: if gates.gpu_idle || gates.gpu_temperature.is_some() { gpus() } else { Ok(vec![]) } };
    GATES.iter().filter_map(|gate| Some((gate.name, (gate.closed)(gates, &machine)?))).collect()
}

/// How many GPUs the driver has.
pub fn count_gpus() -> Result<usize, String> {
    gpus().map(|gpus| gpus.len())
}

/// Dirty pages cannot be dropped: they are written back first.
fn drop_caches() -> Result<(), RunError> {
    // SAFETY: no arguments, and it cannot fail.
    unsafe { libc::sync() };
    fs::write(DROP_CACHES, "3").map_err(|source| RunError::Io { path: DROP_CACHES.into(), source })
}

fn gpus() -> Result<Vec<Gpu>, String> {
    let nvml = nvml::open()?;
    let count = nvml.device_count().map_err(|e| e.to_string())?;
    let gpu = |index| {
        let device = nvml.device_by_index(index)?;
        let compute = device.running_compute_processes()?;
        Ok(Gpu {
            temperature: device.temperature(TemperatureSensor::Gpu)?,
            processes: compute.into_iter().map(|process| process.pid).collect(),
        })
    };
    (0..count).map(gpu).collect::<Result<_, nvml_wrapper::error::NvmlError>>().map_err(|e| e.to_string())
}

/// The highest temperature of any GPU, where there is one.
pub fn temperature() -> Option<u32> {
    gpus().ok()?.iter().map(|gpu| gpu.temperature).max()
}

fn bound(field: &str, bound: Option<u64>, violated: fn(u64, u64) -> bool) -> Option<String> {
    let (bound, mib) = (bound?, |bytes: u64| bytes >> 20);
    match meminfo::read(field) {
        None => Some(format!("/proc/meminfo has no {field}")),
        Some(found) => violated(found, bound)
            .then(|| format!("{field} is {} MiB, the bound is {} MiB", mib(found), mib(bound))),
    }
}

fn process(names: &[String]) -> Option<String> {
    if names.is_empty() {
        return None;
    }
    let Ok(entries) = fs::read_dir("/proc") else { return Some("/proc cannot be read".to_owned()) };
    entries.flatten().find_map(|entry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        // The kernel keeps 15 characters of a name.
        let comm = fs::read_to_string(entry.path().join("comm")).ok()?;
        let name = names.iter().find(|name| name.chars().take(15).eq(comm.trim_end().chars()))?;
        Some(format!("process {pid} ({name}) is running"))
    })
}

fn file_in(dir: &Path) -> Option<String> {
    match fs::read_dir(dir) {
        Err(error) => Some(format!("{}: {error}", dir.display())),
        Ok(mut entries) => entries.next().map(|entry| match entry {
            Ok(entry) => format!("{} is there", entry.path().display()),
            Err(error) => format!("{}: {error}", dir.display()),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gate_that_stays_closed_says_what_stands_in_its_way() {
        let gates = Gates { mem_free: Some(u64::MAX), wait: Duration::ZERO, ..Gates::default() };
        let error = wait(&gates, None, || false).unwrap_err().to_string();
        assert!(error.contains("mem-free") && error.contains("MemFree is"), "{error}");
        let gates = Gates { cached: Some(u64::MAX), mem_free: Some(0), ..Gates::default() };
        assert!(wait(&gates, None, || false).is_ok());
    }

    #[test]
    fn a_process_that_must_not_run_is_found_by_its_name() {
        let own = fs::read_to_string("/proc/self/comm").unwrap();
        let names = [own.trim_end().to_owned()];
        assert!(process(&names).unwrap().contains("is running"));
        assert_eq!(process(&["no-such-program".to_owned()]), None);
    }

    #[test]
    fn files_in_shared_memory_are_named() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(file_in(dir.path()), None);
        fs::write(dir.path().join("psm_1"), "").unwrap();
        assert!(file_in(dir.path()).unwrap().contains("psm_1"));
    }

    #[test]
    fn waiting_can_be_interrupted() {
        let gates = Gates { mem_free: Some(u64::MAX), ..Gates::default() };
        assert!(matches!(wait(&gates, None, || true), Err(RunError::Interrupted)));
    }
}
