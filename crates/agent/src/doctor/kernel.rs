//! What the kernel was built with and shows.

use std::{
    fs::{self, File},
    io::Read,
    os::fd::AsRawFd,
    path::Path,
};

use spark_trace_common::hook::{HOOKS, Mechanism};

use super::{Finding, Machine, mib};
use crate::{bpf::beside, host, page_size, source::system::System};

pub fn release(_: &Machine) -> Finding {
    match fs::read_to_string("/proc/sys/kernel/osrelease") {
        Ok(release) => Finding::ok(release.trim()),
        Err(e) => Finding::warning(e.to_string()),
    }
}

pub fn architecture(_: &Machine) -> Finding {
    match std::env::consts::ARCH {
        arch @ ("x86_64" | "aarch64") => Finding::ok(arch),
        other => Finding::missing(other),
    }
}

pub fn beside(_: &Machine) -> Finding {
    match beside::running() {
        Ok(pids) if pids.is_empty() => Finding::ok("no other spark-trace traces"),
        Ok(pids) => {
            let pids: Vec<String> = pids.into_iter().map(|pid| format!("pid {pid}")).collect();
            Finding::warning(format!("another spark-trace traces ({})", pids.join(", ")))
        }
        Err(reason) => Finding::warning(format!("not known: {reason}")),
    }
}

pub fn pages(_: &Machine) -> Finding {
    Finding::ok(format!("{} KiB", page_size() / 1024))
}

pub fn types(machine: &Machine) -> Finding {
    match &machine.btf {
        Ok(_) => {
            let size = fs::metadata("/sys/kernel/btf/vmlinux").map_or(0, |meta| meta.len());
            Finding::ok(format!("/sys/kernel/btf/vmlinux, {}", mib(size)))
        }
        Err(e) => Finding::missing(e),
    }
}

pub fn module_types(_: &Machine) -> Finding {
    let modules: Vec<String> = fs::read_to_string("/proc/modules")
        .unwrap_or_default()
        .lines()
        .filter_map(|line| line.split(' ').next().map(ToOwned::to_owned))
        .collect();
    if modules.is_empty() {
        return Finding::not_applicable("no modules are loaded");
    }
    let with = modules.iter().filter(|name| Path::new("/sys/kernel/btf").join(name).exists()).count();
    let found = format!("{with} of {} modules", modules.len());
    if with == modules.len() { Finding::ok(found) } else { Finding::warning(found) }
}

pub fn members(machine: &Machine) -> Finding {
    match &machine.trial.members {
        Ok(()) => Finding::ok("all structures that the programs need"),
        Err(e) => Finding::missing(e),
    }
}

pub fn program_memory(machine: &Machine) -> Finding {
    match machine.trial.memory {
        Some(bytes) => Finding::ok(format!("{} while a recording is made", mib(bytes))),
        None if machine.trial.statistics.is_none() => {
            Finding::missing("unknown: programs could not be loaded")
        }
        None => Finding::warning("the kernel does not show it"),
    }
}

pub fn run_times(machine: &Machine) -> Finding {
    match machine.trial.statistics {
        Some(true) => Finding::ok("can be counted"),
        Some(false) => Finding::warning("the kernel refuses to count them"),
        None => Finding::missing("not tried: programs could not be loaded"),
    }
}

pub fn tracefs(_: &Machine) -> Finding {
    let roots = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];
    let found = roots.iter().find(|root| Path::new(root).join("events").is_dir());
    let needs = HOOKS
        .iter()
        .flat_map(|hook| hook.candidates)
        .any(|candidate| matches!(candidate.mechanism, Mechanism::Kprobe | Mechanism::Uprobe));
    match (found, needs) {
        (Some(root), _) => Finding::ok(*root),
        (None, true) => Finding::warning("not mounted or not readable"),
        (None, false) => Finding::not_applicable("not mounted or not readable; no hook uses it"),
    }
}

pub fn configuration(machine: &Machine) -> Finding {
    let stack = machine.layout.as_ref().ok().and_then(|layout| host::facts(layout).vmap_stack);
    match stack {
        Some(true) => Finding::ok("readable; kernel stacks lie in vmalloc space"),
        Some(false) => Finding::ok("readable; kernel stacks lie outside vmalloc space"),
        None => Finding::warning("neither /proc/config.gz nor /boot/config-* can be read"),
    }
}

/// A process's mapped files, opened through the kernel: also those of a container, or deleted since.
pub fn map_files(_: &Machine) -> Finding {
    let entry = fs::read_dir("/proc/self/map_files").and_then(|mut entries| {
        entries.next().unwrap_or_else(|| Err(std::io::ErrorKind::NotFound.into())).map(|entry| entry.path())
    });
    match entry.and_then(File::open) {
        Ok(_) => Finding::ok("/proc/PID/map_files can be opened"),
        Err(e) => Finding::warning(format!("/proc/PID/map_files: {e}")),
    }
}

pub fn counters(_: &Machine) -> Finding {
    match System::open() {
        Ok(_) => Finding::ok("/proc/meminfo, vmstat, zoneinfo"),
        Err(e) => Finding::missing(e.to_string()),
    }
}

pub fn exact_counters(_: &Machine) -> Finding {
    readable("/proc/sys/vm/stat_refresh")
}

pub fn page_owners(_: &Machine) -> Finding {
    readable("/proc/kpagecgroup")
}

/// Whether reading works, not only opening. The end of the file is an answer.
fn readable(path: &str) -> Finding {
    match File::open(path).and_then(|mut file| file.read(&mut [0; 8])) {
        Ok(_) => Finding::ok(path),
        Err(e) => Finding::warning(format!("{path}: {e}")),
    }
}

pub fn cachestat(_: &Machine) -> Finding {
    // The same number on every architecture; libc has no name for it on all of them.
    const SYS_CACHESTAT: libc::c_long = 451;
    let Ok(file) = File::open("/proc/self/exe") else {
        return Finding::warning("there is no file to try it on");
    };
    // struct cachestat_range (a length of 0 means up to the end) and struct cachestat.
    let (range, mut stat) = ([0_u64; 2], [0_u64; 5]);
    // SAFETY: both arrays have the size and layout of the kernel's structures (uapi/linux/mman.h) and
    // outlive the call, which reads the first and writes the second.
    let rc = unsafe { libc::syscall(SYS_CACHESTAT, file.as_raw_fd(), &raw const range, &raw mut stat, 0) };
    if rc == 0 {
        return Finding::ok("works");
    }
    Finding::warning(std::io::Error::last_os_error().to_string())
}
