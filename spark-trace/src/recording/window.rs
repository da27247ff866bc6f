//! The latest part of a recording that goes on for as long as somebody looks.

use std::collections::BTreeSet;

use super::schema::{Recording, Series};

/// Events of mappings that are kept, the latest: what a process mapped long ago may be mapped still, so they do not go
/// by their age.
const MOST_MAPPINGS: usize = 20_000;
/// The same for what was asked and for single CUDA events: each frame of a view has all of them.
const MOST_EVENTS: usize = 500;

/// Drops readings and events from before `before_ns`, and who has ended by then. One reading before it stays for each
/// series: where it starts from.
pub fn forget(recording: &mut Recording, before_ns: u64) {
    let samples = &mut recording.samples;
    cut(&mut samples.system, before_ns);
    cut(&mut samples.cuda, before_ns);
    samples.devices.iter_mut().for_each(|device| cut(&mut device.series, before_ns));
    let ended = |end: Option<u64>| end.is_some_and(|end| end < before_ns);

    let removed: BTreeSet<u64> = recording
        .target
        .cgroups
        .iter()
        .filter(|cgroup| ended(cgroup.removed_ns))
        .map(|cgroup| cgroup.id)
        .collect();
    recording.target.cgroups.retain(|cgroup| !removed.contains(&cgroup.id));
    samples.cgroups.retain(|cgroup| !removed.contains(&cgroup.id));
    samples.cgroups.iter_mut().for_each(|cgroup| cut(&mut cgroup.series, before_ns));

    let provenance = &mut recording.provenance;
    provenance.processes.retain(|process| !ended(process.ended_ns));
    let alive: BTreeSet<u32> = provenance.processes.iter().map(|process| process.pid).collect();
    samples.processes.retain(|process| alive.contains(&process.pid));
    samples.processes.iter_mut().for_each(|process| cut(&mut process.series, before_ns));
    provenance.mappings.retain(|mapping| alive.contains(&mapping.pid));
    provenance.regions.retain(|region| alive.contains(&region.pid));
    last(&mut provenance.mappings, MOST_MAPPINGS);
    provenance.queries.retain(|query| query.at_ns >= before_ns);
    last(&mut provenance.queries, MOST_EVENTS);
    last(&mut provenance.cuda_events, MOST_EVENTS);
    last(&mut provenance.cuda_failures, MOST_EVENTS);
    last(&mut provenance.log_lines, MOST_EVENTS);
    recording.phases.retain(|phase| phase.at_ns >= before_ns || phase.name == "start");
}

fn cut(series: &mut Series, before_ns: u64) {
    let gone = series.end_ns.partition_point(|end| *end < before_ns).saturating_sub(1);
    if gone == 0 {
        return;
    }
    series.begin_ns.drain(..gone);
    series.end_ns.drain(..gone);
    series.columns.values_mut().for_each(|column| column.drop_first(gone));
    // A process's page tables are summed up seldom; a column without a value tells nothing.
    series.columns.retain(|_, column| column.known().next().is_some());
}

fn last<T>(rows: &mut Vec<T>, most: usize) {
    rows.drain(..rows.len().saturating_sub(most));
}

#[cfg(test)]
mod tests {
    use super::super::testing::{self, SECOND, START};
    use super::*;
    use crate::analysis::view::{Scope, View};

    #[test]
    fn what_is_left_says_what_it_said() {
        let whole = testing::container();
        let mut rest = whole.clone();
        forget(&mut rest, START + 30 * SECOND);
        assert!(rest.samples.system.begin_ns.len() < whole.samples.system.begin_ns.len());
        for scope in [Scope::System, Scope::Cgroup] {
            let (whole, rest) = (View::new(&whole, scope).unwrap(), View::new(&rest, scope).unwrap());
            for at_ns in rest.times() {
                let levels = |view: &View<'_>| {
                    let balance = view.at(at_ns);
                    balance.rows.iter().map(|row| (row.source.slug, row.bytes)).collect::<Vec<_>>()
                };
                assert_eq!(levels(&rest), levels(&whole), "{at_ns}");
            }
        }
    }

    #[test]
    fn nothing_is_forgotten_of_what_is_new() {
        let whole = testing::cuda();
        let mut same = whole.clone();
        forget(&mut same, 0);
        assert_eq!(same, whole);
    }

    #[test]
    fn who_has_ended_is_gone_with_all_that_was_theirs() {
        let mut recording = testing::container();
        forget(&mut recording, u64::MAX);
        assert!(recording.provenance.processes.iter().all(|process| process.ended_ns.is_none()));
        let alive: BTreeSet<u32> = recording.provenance.processes.iter().map(|process| process.pid).collect();
        assert!(recording.provenance.regions.iter().all(|region| alive.contains(&region.pid)));
        assert!(recording.samples.system.begin_ns.len() == 1, "the last reading stays");
    }
}
