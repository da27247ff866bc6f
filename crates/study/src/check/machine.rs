//! The machine itself: cores, cgroup, GPU, disk, and gates that are closed now.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use spark_trace_host::{engine, meminfo};
use spark_trace_recording::units;

use super::{Findings, Machine, Subject, containers};
use crate::cores;
use crate::plan::Plan;
use crate::run;
use crate::ulimit;

/// The machine that this program runs on.
#[derive(Debug, Clone, Copy)]
pub struct Here;

impl Machine for Here {
    fn root(&self) -> &Path {
        Path::new("/")
    }

    fn engine(&self, engine: &str, args: &[&str]) -> Result<String, String> {
        let mut client = engine::reaching(engine)
            .ok_or_else(|| format!("no {engine} is installed, or it does not answer"))?;
        let output =
            client.args(args).stdin(Stdio::null()).output().map_err(|error| format!("{engine}: {error}"))?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        if output.status.success() {
            return Ok(text(&output.stdout));
        }
        let said = text(&output.stderr);
        Err(said.lines().last().map_or_else(|| output.status.to_string(), str::to_owned))
    }

    fn gpus(&self) -> Result<usize, String> {
        run::gates::count_gpus()
    }

    fn limit(&self, resource: u32) -> Option<(u64, u64)> {
        ulimit::current(resource).map(|limit| (limit.soft, limit.hard))
    }

    fn may_raise_limits(&self) -> Option<bool> {
        /// include/uapi/linux/capability.h CAP_SYS_RESOURCE.
        const SYS_RESOURCE: u32 = 24;
        // SAFETY: cannot fail.
        if unsafe { libc::geteuid() } != 0 {
            return None;
        }
        let status = std::fs::read_to_string("/proc/self/status").ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
        let capabilities = u64::from_str_radix(line.trim(), 16).ok()?;
        Some(capabilities >> SYS_RESOURCE & 1 == 1)
    }

    fn closed(&self, plan: &Plan) -> Vec<(&'static str, String)> {
        run::gates::closed(&plan.gates)
    }

    fn free_space(&self, dir: &Path) -> std::io::Result<u64> {
        run::free_space(dir)
    }

    fn path(&self) -> Vec<PathBuf> {
        std::env::var_os("PATH").map(|path| std::env::split_paths(&path).collect()).unwrap_or_default()
    }
}

/// Whether a container's CPUs are there, and of one type.
pub fn cores(subject: &Subject<'_>, findings: &mut Findings) {
    for environment in &subject.plan.environments {
        let uses_type = environment.flags.iter().any(|flag| flag.contains("{cpus.fast}"));
        let flags = subject.flags(environment);
        let Some(list) = containers::values_of(&flags, &["--cpuset-cpus"]).last() else { continue };
        let name = environment.name.as_str();
        let types = match &subject.options.cores {
            Ok(types) => types,
            Err(why) => {
                findings.warning(
                    name,
                    format!("the types of the cores are unknown: {why}"),
                    "check the list by hand",
                );
                continue;
            }
        };
        let Some(cpus) = cores::parse(list) else {
            findings.fatal(name, format!("`{list}` is no list of CPUs"), "correct it in the plan");
            continue;
        };
        let all: Vec<u32> = types.iter().flat_map(|kind| kind.cpus.iter().copied()).collect();
        let absent: Vec<_> = cpus.iter().filter(|cpu| !all.contains(cpu)).map(u32::to_string).collect();
        let used: Vec<_> = types
            .iter()
            .filter(|kind| kind.cpus.iter().any(|cpu| cpus.contains(cpu)))
            .map(|kind| format!("{} ({})", kind.name, kind.list()))
            .collect();
        let fast = types.first().map(cores::CoreType::list).unwrap_or_default();
        if !absent.is_empty() {
            let next = format!("this machine's fastest cores are {fast}; write {{cpus.fast}}");
            findings.fatal(name, format!("CPUs {} are not online", absent.join(", ")), next);
        } else if used.len() > 1 {
            let next = format!("write {{cpus.fast}}: here {fast}");
            findings.warning(name, format!("{list} mixes types of cores: {}", used.join(" and ")), next);
        } else if uses_type && types.len() == 1 {
            let found = format!("all cores are of one type, so that {list} leaves none out");
            findings.warning(name, found, "leave this environment out");
        } else {
            findings.fine(name, format!("{list}: {}", used.join("")));
        }
    }
}

/// The kernel's cgroup version, and whether parents fit the engine's driver.
pub fn cgroup(subject: &Subject<'_>, findings: &mut Findings) {
    // Documentation/admin-guide/cgroup-v2.rst: only version 2 has this file at its root.
    let version = match subject.machine.file("/sys/fs/cgroup/cgroup.controllers").exists() {
        true => "version 2",
        false => "version 1",
    };
    findings.fine("", version);
    for environment in &subject.plan.environments {
        let flags = subject.flags(environment);
        let Some(engine) = environment.kind.engine() else { continue };
        let Some(parent) = containers::values_of(&flags, &["--cgroup-parent"]).last() else { continue };
        let Ok(driver) = subject.machine.engine(engine, &["info", "--format", "{{.CgroupDriver}}"]) else {
            continue;
        };
        // moby, daemon/daemon_unix.go verifyPlatformContainerSettings.
        if driver == "systemd" && !parent.ends_with(".slice") {
            findings.fatal(
                &environment.name,
                format!("{engine} with the driver systemd refuses the parent {parent}"),
                "name a slice, for example system.slice",
            );
        } else {
            findings.fine(&environment.name, format!("parent {parent} by the driver {driver}"));
        }
    }
}

pub fn gpu(subject: &Subject<'_>, findings: &mut Findings) {
    let plan = subject.plan;
    let by_gate = plan.gates.gpu_idle || plan.gates.gpu_temperature.is_some();
    let by_flag = plan.environments.iter().flat_map(|environment| &environment.flags);
    let by_flag = by_flag.into_iter().any(|flag| flag.starts_with("--gpus") || flag.contains("nvidia"));
    if !by_gate && !by_flag {
        return;
    }
    match subject.machine.gpus() {
        Ok(0) => findings.fatal("", "the driver has no GPU", "see `nvidia-smi`"),
        Ok(count) => findings.fine("", units::count(count, "GPU", "GPUs")),
        Err(why) if by_gate => findings.fatal(
            "",
            format!("the gates need a GPU, and there is none: {why}"),
            "install the driver, or leave out gpu-temperature and gpu-idle",
        ),
        Err(why) => findings.warning(
            "",
            format!("containers get a GPU, and there is none: {why}"),
            "see `nvidia-smi`",
        ),
    }
}

pub fn disk(subject: &Subject<'_>, findings: &mut Findings) {
    let Some(wanted) = subject.plan.disk_space else { return };
    // The study's folder is made later.
    let Some(dir) = subject.options.dir.ancestors().find(|dir| dir.exists()) else { return };
    match subject.machine.free_space(dir) {
        Ok(free) if free < wanted => findings.fatal(
            "",
            format!(
                "{} has {} free, the plan needs {}",
                dir.display(),
                units::unsigned(free),
                units::unsigned(wanted)
            ),
            "free space, or name another folder with --dir",
        ),
        Ok(free) => findings.fine("", format!("{} has {} free", dir.display(), units::unsigned(free))),
        Err(error) => {
            findings.warning("", format!("{}: {error}", dir.display()), "check the free space by hand")
        }
    }
}

/// What would keep a run waiting now, and what no run could ever pass.
pub fn gates(subject: &Subject<'_>, findings: &mut Findings) {
    let gates = &subject.plan.gates;
    let text = std::fs::read_to_string(subject.machine.file("/proc/meminfo")).unwrap_or_default();
    let total = meminfo::field(&text, "MemTotal");
    if let (Some(least), Some(total)) = (gates.mem_free, total)
        && least >= total
    {
        let found =
            format!("mem-free is {}, the machine has {}", units::unsigned(least), units::unsigned(total));
        findings.fatal("mem-free", found, "write a smaller bound");
    }
    let closed = subject.machine.closed(subject.plan);
    if closed.is_empty() {
        findings.fine("", "all are open");
    }
    // Where there is no GPU, that is a finding of its own.
    let has_gpus = subject.machine.gpus().is_ok();
    for (gate, reason) in closed.into_iter().filter(|(gate, _)| has_gpus || !gate.starts_with("gpu-")) {
        findings.warning(gate, format!("closed now: {reason}"), "a run waits for it");
    }
}
