//! Cgroups, swap and huge pages: where memory is charged and what else it may be in.

use super::{Finding, Machine, mib};
use crate::host;
use spark_trace_recording::Host;

pub fn hierarchy(machine: &Machine) -> Finding {
    match &machine.layout {
        Ok(layout) => Finding::ok(format!(
            "{}, memory controller at {}",
            layout.version.as_str(),
            layout.memory_root.display()
        )),
        Err(e) => Finding::missing(e),
    }
}

pub fn leaf(machine: &Machine) -> Finding {
    match &machine.trial.exercise.leaf {
        Ok(leaf) => Finding::ok(format!("made, used and removed {}", leaf.path)),
        Err(e) => Finding::missing(e),
    }
}

pub fn peak(machine: &Machine) -> Finding {
    match &machine.trial.exercise.leaf {
        Ok(leaf) if leaf.has_peak => Finding::ok("kept by the kernel for each cgroup"),
        Ok(_) => Finding::warning("this kernel has none (memory.peak needs 5.19)"),
        Err(_) => Finding::missing("not checked: no cgroup could be created"),
    }
}

pub fn swap(machine: &Machine) -> Finding {
    with_host(machine, |host| match host.swap_total {
        0 => Finding::not_applicable("none"),
        bytes => Finding::ok(mib(bytes)),
    })
}

pub fn huge_pages(machine: &Machine) -> Finding {
    with_host(machine, |host| match &host.transparent_hugepage {
        Some(mode) => Finding::ok(format!("transparent huge pages: {mode}")),
        None => Finding::not_applicable("the kernel has no transparent huge pages"),
    })
}

fn with_host(machine: &Machine, finding: impl Fn(&Host) -> Finding) -> Finding {
    match &machine.layout {
        Ok(layout) => finding(&host::facts(layout)),
        Err(_) => Finding::warning("not checked: there is no cgroup hierarchy"),
    }
}
