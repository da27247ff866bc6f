//! Everything that has a stack, with its memory at an instant: by stack id, for programs that look at frames
//! themselves. The rows are those that `show` lists, not yet joined by their frames' names.

use std::collections::BTreeMap;

use crate::charges::class_of;
use crate::cuda;
use crate::mappings;
use crate::names::Names;
use crate::nearest_instant;
use crate::view::Scope;
use spark_trace_recording::Recording;
use spark_trace_recording::classify::classify;

/// Where bytes with a stack were seen. Kinds overlap and are not summed.
#[derive(Debug)]
pub struct Provenance {
    pub name: &'static str,
    /// Whose part the bytes are; absent where they are no part of a plane's sum.
    pub plane: Option<Scope>,
    rows: fn(&Lookup<'_>) -> Vec<StackBytes>,
}

pub const PROVENANCES: &[Provenance] = &[
    // Pages in use.
    Provenance { name: "pages", plane: Some(Scope::System), rows: pages },
    // Charged up to the instant: what is uncharged has no stack.
    Provenance { name: "charges", plane: Some(Scope::Cgroup), rows: charges },
    // Requested of the NVIDIA modules and not given back.
    Provenance { name: "driver", plane: Some(Scope::System), rows: driver },
    // Taken through the CUDA driver and not given back.
    Provenance { name: "cuda", plane: None, rows: through_cuda },
    // Address space that is mapped still.
    Provenance { name: "mappings", plane: None, rows: mapped },
];

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StackBytes {
    /// Id in `stacks`; absent where the kernel could not take one.
    pub stack: Option<u32>,
    /// Of the bytes, within their provenance: mobility, the driver's kind, the CUDA kind, the mapping's.
    pub kind: String,
    /// The source by the frames, or what was charged for.
    pub source: Option<&'static str>,
    pub cgroup: Option<String>,
    pub pid: Option<u32>,
    pub comm: Option<String>,
    /// The function that was called, where it is in no frame.
    pub function: Option<String>,
    /// At the instant.
    pub bytes: u64,
    /// Allocations, or charges; of mappings those up to the instant, else of the whole run.
    pub allocs: u64,
}

/// Rows of every provenance that has any.
pub fn rows(recording: &Recording, at_ns: u64) -> Vec<(&'static Provenance, Vec<StackBytes>)> {
    let processes = recording.provenance.processes.iter();
    let lookup = Lookup {
        recording,
        names: Names::new(recording),
        cgroups: processes.map(|process| (process.pid, process.cgroup)).collect(),
        at_ns,
    };
    let all = PROVENANCES.iter().map(|provenance| (provenance, (provenance.rows)(&lookup)));
    all.filter(|(_, rows)| !rows.is_empty()).collect()
}

struct Lookup<'a> {
    recording: &'a Recording,
    names: Names<'a>,
    cgroups: BTreeMap<u32, u64>,
    at_ns: u64,
}

impl Lookup<'_> {
    fn instant(&self) -> Option<usize> {
        nearest_instant::index(self.recording, self.at_ns)
    }

    /// The recorder keeps all tasks outside the target as one.
    fn cgroup(&self, id: u64) -> Option<String> {
        (id != 0).then(|| self.names.cgroup(id))
    }

    fn of_process(&self, pid: u32, row: StackBytes) -> StackBytes {
        if pid == 0 {
            return row;
        }
        let cgroup = self.cgroups.get(&pid).and_then(|&id| self.cgroup(id));
        StackBytes { pid: Some(pid), comm: Some(self.names.comm(pid)), cgroup: row.cgroup.or(cgroup), ..row }
    }
}

fn pages(lookup: &Lookup<'_>) -> Vec<StackBytes> {
    let all = &lookup.recording.provenance.page_allocs;
    let instant = lookup.instant();
    let row = |allocs: &spark_trace_recording::PageAllocs| StackBytes {
        stack: allocs.stack,
        kind: allocs.mobility.to_string(),
        source: Some(classify(&lookup.names.frames(allocs.stack), allocs.mobility.known()).source),
        cgroup: lookup.cgroup(allocs.cgroup),
        bytes: instant.and_then(|index| allocs.live.get(index)).unwrap_or(0),
        allocs: allocs.allocs,
        ..StackBytes::default()
    };
    all.iter().map(row).collect()
}

fn charges(lookup: &Lookup<'_>) -> Vec<StackBytes> {
    let all = &lookup.recording.provenance.charge_stacks;
    let instant = nearest_instant::index_of_charges(lookup.recording, lookup.at_ns);
    let row = |charged: &spark_trace_recording::ChargeStack| {
        let class = class_of(&lookup.names.frames(charged.stack));
        StackBytes {
            stack: charged.stack,
            kind: class.to_owned(),
            source: Some(class),
            cgroup: lookup.cgroup(charged.cgroup),
            bytes: instant.and_then(|index| charged.charged.get(index)).unwrap_or(0),
            allocs: charged.charges,
            ..StackBytes::default()
        }
    };
    all.iter().map(row).collect()
}

/// The row of the system plane that has what was requested. Pinned pages are the process's own, of several rows.
const DRIVER_SOURCES: &[(&str, &str)] = &[("sysmem", "nvidia-sysmem"), ("managed", "nvidia-managed")];

fn driver(lookup: &Lookup<'_>) -> Vec<StackBytes> {
    let all = &lookup.recording.provenance.driver_allocs;
    let instant = lookup.instant();
    let row = |allocs: &spark_trace_recording::DriverAllocs| {
        let source = DRIVER_SOURCES.iter().find(|(kind, _)| *kind == allocs.kind);
        let bytes = StackBytes {
            stack: allocs.stack,
            kind: allocs.kind.clone(),
            source: source.map(|(_, source)| *source),
            cgroup: lookup.cgroup(allocs.cgroup),
            bytes: instant.and_then(|index| allocs.live.get(index)).unwrap_or(0),
            allocs: allocs.allocs,
            ..StackBytes::default()
        };
        lookup.of_process(allocs.pid, bytes)
    };
    all.iter().map(row).collect()
}

fn through_cuda(lookup: &Lookup<'_>) -> Vec<StackBytes> {
    let instant = lookup.instant();
    let row = |allocs: &spark_trace_recording::CudaAllocs| {
        let bytes = StackBytes {
            stack: allocs.stack,
            kind: allocs.kind.clone(),
            function: Some(allocs.function.clone()),
            bytes: cuda::live(allocs, instant).unwrap_or(0),
            allocs: allocs.allocs,
            ..StackBytes::default()
        };
        lookup.of_process(allocs.pid, bytes)
    };
    lookup.recording.provenance.cuda_allocs.iter().map(row).collect()
}

fn mapped(lookup: &Lookup<'_>) -> Vec<StackBytes> {
    let rows = mappings::by_stack(lookup.recording, lookup.at_ns).into_iter();
    let row = |((kind, stack), mapped): (mappings::Key<'_>, mappings::Mapped)| StackBytes {
        stack,
        kind: kind.to_owned(),
        bytes: mapped.bytes,
        allocs: mapped.calls,
        ..StackBytes::default()
    };
    rows.map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{attribution, driver_allocs, instant_spec::InstantSpec, stacks};
    use spark_trace_recording::DriverAllocs;
    use spark_trace_testing as testing;
    use spark_trace_testing::MIB;

    #[test]
    fn sums_are_those_of_show() {
        let mut recording = testing::cuda();
        recording.provenance.driver_allocs.push(DriverAllocs {
            kind: "sysmem".into(),
            pid: 4242,
            allocs: 1,
            live: [Some(0), Some(64 * MIB), Some(0)].into(),
            ..DriverAllocs::default()
        });
        for at in [InstantSpec::Peak, InstantSpec::End] {
            let report = attribution::report(&recording, at);
            let at_ns = report.details_at_ns;
            let rows = rows(&recording, at_ns);
            let sum = |name: &str| {
                let (_, rows) = rows.iter().find(|(provenance, _)| provenance.name == name).unwrap();
                rows.iter().map(|row| row.bytes).sum::<u64>()
            };
            let pages = stacks::rows(&recording, Scope::System, at_ns);
            assert_eq!(sum("pages"), pages.iter().map(|row| row.bytes).sum::<u64>());
            let driver = driver_allocs::rows(&recording, at_ns);
            assert_eq!(sum("driver"), driver.iter().map(|row| row.live).sum::<u64>());
            let cuda = report.cuda.unwrap();
            assert_eq!(sum("cuda"), cuda.stacks.iter().filter_map(|row| row.live).sum::<u64>());
            assert_eq!(sum("mappings"), report.mappings.iter().map(|row| row.bytes).sum::<u64>());
            let charged =
                report.charges.map_or(0, |all| all.stacks.iter().map(|row| row.bytes_charged).sum());
            assert_eq!(charged, rows.iter().find(|(p, _)| p.name == "charges").map_or(0, |_| sum("charges")));
        }
    }
}
