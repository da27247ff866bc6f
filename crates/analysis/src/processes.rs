//! What each process had mapped.

use serde::Serialize;

use crate::names::Names;
use spark_trace_recording::ledger::time_of;
use spark_trace_recording::{Process, ProcessSeries, Recording, Series};

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ProcessRow {
    pub pid: u32,
    pub parent: Option<u32>,
    pub comm: String,
    pub argv: Vec<String>,
    pub cgroup: String,
    /// The same for people.
    #[serde(skip)]
    pub cgroup_shown: String,
    pub target: bool,
    /// High-water mark that the kernel kept, where it was read in time.
    pub rss_peak: Option<u64>,
    /// At the first reading of a process that was there before the trace; absent of others.
    pub before: Option<Split>,
    /// Where the most was resident of all readings.
    pub at_peak: Option<Split>,
    /// At the instant; absent where the process was not there then, or not read.
    pub at: Option<Split>,
    pub started_ns: Option<u64>,
    pub ended_ns: Option<u64>,
    /// `exit N` or `signal N`; absent while it runs.
    pub exit: Option<String>,
}

/// Resident memory by kind. Pages that processes share are in each of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Split {
    pub at_ns: u64,
    pub rss_anon: Option<u64>,
    pub rss_file: Option<u64>,
    pub rss_shmem: Option<u64>,
    pub swap: Option<u64>,
}

/// Processes, the one that had the most resident first.
pub fn rows(recording: &Recording, at_ns: u64) -> Vec<ProcessRow> {
    let names = Names::new(recording);
    let samples = &recording.samples.processes;
    let mut rows: Vec<_> = recording
        .provenance
        .processes
        .iter()
        .map(|process| row(&names, process, samples.iter().find(|samples| samples.pid == process.pid), at_ns))
        .collect();
    rows.sort_by_key(|row| std::cmp::Reverse(row.highest()));
    rows
}

fn row(names: &Names<'_>, process: &Process, samples: Option<&ProcessSeries>, at_ns: u64) -> ProcessRow {
    let readings = || samples.into_iter().flat_map(|samples| splits(&samples.series));
    let existed = process.started_ns.is_none_or(|started| started <= at_ns)
        && process.ended_ns.is_none_or(|ended| ended >= at_ns);
    ProcessRow {
        pid: process.pid,
        parent: process.parent,
        comm: process.comm.clone(),
        argv: process.argv.clone(),
        cgroup_shown: names.shown_cgroup(&names.cgroup(process.cgroup)),
        cgroup: names.cgroup(process.cgroup),
        target: names.is_target(process.cgroup),
        rss_peak: process.rss_peak.into_iter().chain(marks(samples)).max(),
        before: readings().next().filter(|_| process.started_ns.is_none() && process.exec_ns.is_none()),
        at_peak: readings().max_by_key(|split| (split.resident(), std::cmp::Reverse(split.at_ns))),
        at: readings().min_by_key(|split| split.at_ns.abs_diff(at_ns)).filter(|_| existed),
        started_ns: process.started_ns,
        ended_ns: process.ended_ns,
        exit: process.exit_status.map(exit),
    }
}

/// The kernel's high-water mark as it was read while the process ran: one that has not ended has no other.
fn marks(samples: Option<&ProcessSeries>) -> impl Iterator<Item = u64> + '_ {
    let column = samples.and_then(|samples| Some((samples, samples.series.columns.get("rss_peak")?)));
    column.into_iter().flat_map(|(samples, column)| {
        (0..samples.series.begin_ns.len()).filter_map(|index| column.get(index))
    })
}

fn splits(series: &Series) -> impl Iterator<Item = Split> + '_ {
    (0..series.begin_ns.len()).filter_map(|index| {
        let column = |name: &str| series.columns.get(name)?.get(index);
        Some(Split {
            at_ns: time_of(series, index)?,
            rss_anon: column("rss_anon"),
            rss_file: column("rss_file"),
            rss_shmem: column("rss_shmem"),
            swap: column("swap"),
        })
    })
}

impl Split {
    pub fn resident(&self) -> u64 {
        [self.rss_anon, self.rss_file, self.rss_shmem].into_iter().flatten().fold(0, u64::saturating_add)
    }
}

impl ProcessRow {
    /// The most it is known to have had resident.
    pub fn highest(&self) -> u64 {
        self.rss_peak.unwrap_or(0).max(self.at_peak.map_or(0, |split| split.resident()))
    }
}

/// A status as wait(2) reports it.
fn exit(status: u32) -> String {
    match status & 0x7f {
        0 => format!("exit {}", status >> 8 & 0xff),
        signal => format!("signal {signal}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use spark_trace_testing as testing;
    use spark_trace_testing::{MIB, SECOND, START};

    #[test]
    fn a_process_that_has_not_ended_has_the_mark_that_was_read() {
        let mut recording = testing::container();
        recording.provenance.processes[0].rss_peak = None;
        let series = &mut recording.samples.processes[0].series;
        let mut marks = spark_trace_recording::Column::default();
        (0..series.begin_ns.len()).for_each(|index| marks.set(index, Some((900 + index as u64) * MIB)));
        series.columns.insert("rss_peak".into(), marks);
        let last = 899 + recording.samples.processes[0].series.begin_ns.len() as u64;
        let row = &rows(&recording, START + 5 * SECOND)[0];
        assert_eq!(row.rss_peak, Some(last * MIB));
    }

    #[test]
    fn a_process_has_its_peak_and_its_end() {
        let recording = testing::container();
        let row = &rows(&recording, START + 5 * SECOND)[0];
        assert_eq!(row.at_peak.unwrap().rss_anon, Some(810 * MIB));
        assert_eq!(row.highest(), 850 * MIB);
        assert_eq!(row.exit.as_deref(), Some("exit 0"));
        assert_eq!(row.at, row.at_peak);
    }

    #[test]
    fn a_process_that_was_not_there_holds_nothing() {
        let recording = testing::container();
        assert_eq!(rows(&recording, START + 11 * SECOND)[0].at, None);
        assert_eq!(rows(&recording, START - 1)[0].at, None);
    }

    #[test]
    fn statuses_differ() {
        assert_eq!(exit(3 << 8), "exit 3");
        assert_eq!(exit(9), "signal 9");
        assert_eq!(exit(11 | 0x80), "signal 11");
    }
}
