//! Takes out of a recording what turned out to be no part of its target.

use std::collections::BTreeSet;

use super::Recording;

impl Recording {
    /// Takes out the processes of a cgroup, with all that is listed of them. What hooks counted in sums stays, where it is
    /// nobody's of the target.
    pub fn leave_out(&mut self, cgroup: u64) {
        let provenance = &mut self.provenance;
        let of = |inside: bool| {
            let rows = provenance.processes.iter().filter(move |row| (row.cgroup == cgroup) == inside);
            rows.map(|row| row.pid).collect::<BTreeSet<_>>()
        };
        // A number may have come again as a process of the target.
        let pids = &of(true) - &of(false);
        provenance.processes.retain(|row| row.cgroup != cgroup);
        provenance.mappings.retain(|row| !pids.contains(&row.pid));
        provenance.brief_mappings.retain(|row| !pids.contains(&row.pid));
        provenance.regions.retain(|row| !pids.contains(&row.pid));
        provenance.queries.retain(|row| row.cgroup != cgroup && !pids.contains(&row.pid));
        self.samples.processes.retain(|series| !pids.contains(&series.pid));
        self.samples.cgroups.retain(|series| series.id != cgroup);
    }
}

#[cfg(test)]
mod tests {
    use crate::{CgroupSeries, Mapping, MemoryQuery, Process, ProcessSeries};

    #[test]
    fn nothing_of_its_processes_is_left() {
        let mut recording = crate::testing::native();
        let process = |pid, cgroup| Process { pid, cgroup, ..Process::default() };
        recording.provenance.processes = vec![process(1, 7), process(2, 7), process(3, 8), process(2, 8)];
        recording.provenance.mappings =
            [1, 2, 3].map(|pid| Mapping { pid, ..Mapping::default() }).into_iter().collect();
        recording.provenance.queries = [(1, 7), (3, 8)]
            .map(|(pid, cgroup)| MemoryQuery { pid, cgroup, ..MemoryQuery::default() })
            .into_iter()
            .collect();
        recording.provenance.regions.clear();
        let series = |pid| ProcessSeries { pid, ..ProcessSeries::default() };
        recording.samples.processes = vec![series(1), series(2), series(3)];
        recording.samples.cgroups =
            [7, 8].map(|id| CgroupSeries { id, ..CgroupSeries::default() }).into_iter().collect();
        recording.leave_out(7);
        let provenance = &recording.provenance;
        assert_eq!(provenance.processes.iter().map(|row| row.pid).collect::<Vec<_>>(), [3, 2]);
        assert_eq!(provenance.mappings.iter().map(|row| row.pid).collect::<Vec<_>>(), [2, 3]);
        assert_eq!(provenance.queries.iter().map(|row| row.pid).collect::<Vec<_>>(), [3]);
        assert_eq!(recording.samples.processes.iter().map(|row| row.pid).collect::<Vec<_>>(), [2, 3]);
        assert_eq!(recording.samples.cgroups.iter().map(|row| row.id).collect::<Vec<_>>(), [8]);
    }
}
