//! Claims that sources of memory hold the difference: these share it out.

use super::because::Reason;
use super::case::{Case, Judgement};
use super::groups::{DRIVER, FREE_LISTS, HOST, KERNEL, MANAGED, POOL};
use super::{Evidence, Side, Unit, Verdict, surroundings};
use crate::signed::signed;
use spark_trace_recording::Nvidia;
use spark_trace_recording::ledger::Plane;

pub fn driver(case: &Case<'_>) -> Judgement {
    let mut evidence = case.rows_evidence(DRIVER);
    for run in case.runs() {
        let seen = run.observed("nvidia-sysmem");
        if seen.bytes() > 0 {
            evidence.push(run.evidence(
                "of nvidia-sysmem allocated without being charged to a cgroup",
                i64::try_from(seen.uncharged).ok(),
                "provenance.page_allocs",
            ));
        }
    }
    match case.delta_of(DRIVER) {
        Some(explains) => case.by_bytes(Some(explains), "memory of the NVIDIA driver", evidence),
        None => no_driver(case, evidence),
    }
}

pub fn managed(case: &Case<'_>) -> Judgement {
    let evidence = case.rows_evidence(MANAGED);
    match case.delta_of(MANAGED) {
        Some(explains) => case.by_bytes(Some(explains), "managed memory", evidence),
        None => no_driver(case, evidence),
    }
}

/// No module, no memory of one. With one its pages should have been followed.
fn no_driver(case: &Case<'_>, evidence: Vec<Evidence>) -> Judgement {
    let loaded =
        case.runs().any(|run| run.recording.host.nvidia.as_ref().is_some_and(|n| n.kernel_module.is_some()));
    if loaded {
        return Judgement::untestable(Reason::ModuleNotTraced);
    }
    Judgement::new(Verdict::Refuted, Reason::NoModule, evidence)
}

pub fn pool(case: &Case<'_>) -> Judgement {
    let mut evidence = case.rows_evidence(POOL);
    if let Some(explains) = case.delta_of(POOL) {
        return case.by_bytes(Some(explains), "pages in the driver's pools", evidence);
    }
    // Without the shrinkers' counts: what it holds beyond what was requested of it.
    let beyond = |run: &super::run::Run<'_>| {
        let sysmem = run.counter("driver.nvidia_sysmem")?;
        Some(sysmem - run.counter("driver.nvidia_asked")?)
    };
    let kept: Vec<_> = case.runs().filter_map(|run| Some((run, beyond(run)?))).collect();
    for (run, kept) in &kept {
        let place = "samples.system: driver.nvidia_sysmem -driver.nvidia_asked";
        evidence.push(run.evidence("in use by the driver beyond the requested bytes", Some(*kept), place));
    }
    if kept.is_empty() {
        return no_pool(case, evidence);
    }
    let most = kept.iter().map(|(_, kept)| *kept).max().unwrap_or(0);
    let verdict = if most < case.material { Verdict::Refuted } else { Verdict::Inconclusive };
    Judgement::new(verdict, Reason::PoolsHidden(most), evidence)
}

/// The version from which on the driver has pools (kernel-open/nvidia/nv-vm.c sysmem_page_pools).
const POOLS_SINCE: u32 = 590;

fn no_pool(case: &Case<'_>, evidence: Vec<Evidence>) -> Judgement {
    let drivers: Vec<&Nvidia> = case.runs().filter_map(|run| run.recording.host.nvidia.as_ref()).collect();
    let major = |nvidia: &&Nvidia| -> Option<u32> {
        nvidia.driver_version.as_deref()?.split('.').next()?.parse().ok()
    };
    if drivers.iter().all(|nvidia| nvidia.kernel_module.is_none()) {
        return Judgement::new(Verdict::Refuted, Reason::NoModule, evidence);
    }
    if drivers.iter().all(|nvidia| major(nvidia).is_some_and(|major| major < POOLS_SINCE)) {
        let versions: Vec<_> = drivers.iter().filter_map(|n| n.driver_version.as_deref()).collect();
        let reason = Reason::NoPools { since: POOLS_SINCE, versions: versions.join(", ") };
        return Judgement::new(Verdict::Refuted, reason, evidence);
    }
    Judgement::untestable(Reason::PoolsNotShown)
}

pub fn host(case: &Case<'_>) -> Judgement {
    let mut evidence = case.rows_evidence(HOST);
    let left = surroundings::left_behind(case);
    if let Some(left) = left.filter(|left| left.abs() >= case.material) {
        evidence.push(Evidence {
            what: "minus what earlier processes had left in shared memory".to_owned(),
            value: Some(-left),
            unit: Unit::DeltaBytes,
            side: Side::Both,
            place: case.place_of("shmem"),
        });
    }
    let huge = case.runs().filter_map(|run| {
        let bytes = run.counter("meminfo.AnonHugePages").filter(|bytes| *bytes >= case.material)?;
        Some(run.evidence(
            "of anon in transparent huge pages",
            Some(bytes),
            "samples.system: meminfo.AnonHugePages",
        ))
    });
    evidence.extend(huge);
    let explains = case.delta_of(HOST).map(|delta| delta - left.unwrap_or(0));
    case.by_bytes(explains, "memory of processes", evidence)
}

pub fn kernel(case: &Case<'_>) -> Judgement {
    let mut evidence = case.rows_evidence(KERNEL);
    // Under cgroup v1 one counter has all of it: stacks distinguish the kinds.
    for run in case.runs().filter(|run| run.view.plane == Plane::CgroupV1) {
        let kinds = KERNEL.iter().map(|slug| (slug, run.observed(slug).bytes()));
        for (slug, bytes) in kinds.filter(|(_, bytes)| signed(*bytes) >= case.material / 16) {
            let what = format!("{slug}: in use by kernel stacks of the target");
            evidence.push(run.evidence(what, Some(signed(bytes)), "provenance.page_allocs"));
        }
    }
    case.by_bytes(case.delta_of(KERNEL), "kernel memory", evidence)
}

pub fn free_lists(case: &Case<'_>) -> Judgement {
    case.by_bytes(case.delta_of(FREE_LISTS), "free pages at the CPUs", case.rows_evidence(FREE_LISTS))
}
