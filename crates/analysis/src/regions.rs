//! Mappings by name, with what was resident in them.

use std::collections::BTreeMap;

use serde::Serialize;

use spark_trace_recording::ledger;
use spark_trace_recording::{Recording, Region};

/// What the kernel calls mappings whose pages are shared memory.
const SHARED_MEMORY: &[&str] = &["/dev/shm/", "/memfd:", "/dev/zero", "/SYSV", "/anon_hugepage"];

/// A reading of mappings counts for another time if the process had as much then.
const SAME_PERCENT: u64 = 5;
const SAME_BYTES: u64 = 1 << 20;

/// The regions of one name in processes of one command name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct RegionRow {
    pub comm: String,
    pub name: String,
    pub processes: usize,
    pub regions: usize,
    pub length: u64,
    /// Pages that processes share are in each of them.
    pub rss: u64,
    /// The same of the process that has the most.
    pub rss_largest: u64,
    /// Resident, pages that processes share divided among them. Absent of several processes that were read one after the
    /// other: shares of different times add up to nothing.
    pub pss: Option<u64>,
    pub anonymous: u64,
    pub swap: u64,
    /// It is the sum of mappings that are too small for a row each.
    pub smaller: bool,
    /// When the first and the last of the processes were read.
    pub read_from_ns: u64,
    pub read_until_ns: u64,
}

impl RegionRow {
    /// Its name, and of a sum how many mappings it is of.
    pub fn shown(&self) -> String {
        match self.smaller {
            true => format!("{} {}", self.regions, self.name.trim_matches(['(', ')'])),
            false => self.name.clone(),
        }
    }

    /// Its pages are shared memory, except those that were copied on write.
    pub fn is_shared_memory(&self) -> bool {
        SHARED_MEMORY.iter().any(|prefix| self.name.starts_with(prefix))
    }
}

/// A row under way, and what is resident in each process.
type Group = (RegionRow, BTreeMap<u32, u64>);

/// Regions by command and name, the most resident first: of every process that was there at `at_ns` the reading nearest
/// to it. A process is read once it has grown, so that reading may be of another time.
pub fn rows(recording: &Recording, at_ns: u64) -> Vec<RegionRow> {
    let provenance = &recording.provenance;
    let comms: BTreeMap<_, _> =
        provenance.processes.iter().map(|process| (process.pid, process.comm.as_str())).collect();
    let read_at = readings(recording, at_ns);
    // Within one look at the machine nothing differs by time.
    let one_look = recording.target.is_snapshot();
    let mut groups: BTreeMap<(&str, &str), Group> = BTreeMap::new();
    for region in provenance.regions.iter().filter(|region| read_at.get(&region.pid) == Some(&region.at_ns)) {
        let comm = comms.get(&region.pid).copied().filter(|comm| !comm.is_empty()).unwrap_or("(unknown)");
        let name = if region.name.is_empty() { "(anonymous)" } else { &region.name };
        let (row, resident) = groups.entry((comm, name)).or_default();
        row.add(region);
        let resident = resident.entry(region.pid).or_default();
        *resident = resident.saturating_add(region.rss);
    }
    let rows = groups.into_iter().map(|((comm, name), (row, resident))| RegionRow {
        comm: comm.to_owned(),
        name: name.to_owned(),
        processes: resident.len(),
        rss_largest: resident.values().copied().max().unwrap_or(0),
        pss: row.pss.filter(|_| one_look || resident.len() == 1),
        ..row
    });
    let mut rows: Vec<_> = rows.collect();
    rows.sort_by_key(|row| std::cmp::Reverse(row.rss));
    rows
}

/// Whether what was read of mappings is of `at_ns`: every process that was read had as much of its own and of shared
/// memory then, to within [`SAME_PERCENT`].
pub fn are_of(recording: &Recording, at_ns: u64) -> bool {
    let read = readings(recording, at_ns);
    let resident = |pid: u32, at_ns: u64| {
        let samples = recording.samples.processes.iter().find(|samples| samples.pid == pid)?;
        let index = ledger::nearest(&samples.series, at_ns)?;
        let column = |name: &str| samples.series.columns.get(name)?.get(index);
        Some(column("rss_anon")?.saturating_add(column("rss_shmem").unwrap_or(0)))
    };
    let is_of_then = |(&pid, &read_ns): (&u32, &u64)| {
        let Some((then, now)) = resident(pid, read_ns).zip(resident(pid, at_ns)) else { return true };
        then.abs_diff(now) <= (then.max(now) / 100 * SAME_PERCENT).max(SAME_BYTES)
    };
    !read.is_empty() && read.iter().all(is_of_then)
}

/// Of each process that was there at `at_ns`, when its regions were read: the reading nearest to that time.
fn readings(recording: &Recording, at_ns: u64) -> BTreeMap<u32, u64> {
    let provenance = &recording.provenance;
    let was_there = |pid: u32| {
        let mut lives = provenance.processes.iter().filter(|process| process.pid == pid).peekable();
        lives.peek().is_none()
            || lives.any(|life| {
                life.started_ns.is_none_or(|started| started <= at_ns)
                    && life.ended_ns.is_none_or(|ended| ended >= at_ns)
            })
    };
    let mut nearest: BTreeMap<u32, Option<u64>> = BTreeMap::new();
    for region in &provenance.regions {
        let found =
            nearest.entry(region.pid).or_insert_with(|| was_there(region.pid).then_some(region.at_ns));
        if found.is_some_and(|found| region.at_ns.abs_diff(at_ns) < found.abs_diff(at_ns)) {
            *found = Some(region.at_ns);
        }
    }
    nearest.into_iter().filter_map(|(pid, read_ns)| Some((pid, read_ns?))).collect()
}

impl RegionRow {
    fn add(&mut self, region: &Region) {
        self.read_from_ns =
            if self.regions == 0 { region.at_ns } else { self.read_from_ns.min(region.at_ns) };
        self.read_until_ns = self.read_until_ns.max(region.at_ns);
        self.regions += region.smaller.map_or(1, |count| count as usize);
        self.smaller |= region.smaller.is_some();
        self.pss = Some(self.pss.unwrap_or(0).saturating_add(region.pss));
        for (sum, value) in [
            (&mut self.length, region.length),
            (&mut self.rss, region.rss),
            (&mut self.anonymous, region.anonymous),
            (&mut self.swap, region.swap),
        ] {
            *sum = sum.saturating_add(value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use spark_trace_testing as testing;
    use spark_trace_testing::{MIB, SECOND, START};

    #[test]
    fn each_process_counts_once_with_its_nearest_reading() {
        let mut recording = testing::container();
        let first = recording.provenance.regions[0].clone();
        recording.provenance.regions.push(Region { at_ns: START + 9 * SECOND, rss: MIB, ..first.clone() });
        recording.provenance.regions.push(Region { address: 1, rss: 2 * MIB, ..first.clone() });
        recording.provenance.regions.push(Region { pid: 1, name: String::new(), rss: MIB, ..first });
        let rows = rows(&recording, START + 5 * SECOND);
        let summary: Vec<_> = rows
            .iter()
            .map(|row| (row.comm.as_str(), row.name.as_str(), row.regions, row.rss / MIB))
            .collect();
        assert_eq!(summary, [("python3", "[heap]", 2, 812), ("(unknown)", "(anonymous)", 1, 1)]);
    }

    #[test]
    fn shares_of_different_times_are_not_added_up() {
        let mut recording = testing::container();
        let first = recording.provenance.regions[0].clone();
        for (pid, second) in [(11, 4), (12, 5), (13, 6)] {
            let region = Region {
                pid,
                at_ns: START + second * SECOND,
                name: "/dev/zero (deleted)".into(),
                rss: 100 * MIB,
                pss: 40 * MIB,
                ..first.clone()
            };
            recording.provenance.regions.push(region);
        }
        let shared = |recording: &Recording| {
            let rows = rows(recording, START + 5 * SECOND);
            rows.into_iter().find(RegionRow::is_shared_memory).unwrap()
        };
        let row = shared(&recording);
        assert_eq!((row.processes, row.pss, row.rss_largest), (3, None, 100 * MIB));
        assert_eq!((row.read_from_ns, row.read_until_ns), (START + 4 * SECOND, START + 6 * SECOND));
        recording.target.kind = "snapshot".into();
        assert_eq!(shared(&recording).pss, Some(120 * MIB));
    }

    #[test]
    fn a_process_that_is_gone_has_nothing_mapped() {
        let recording = testing::container();
        assert_eq!(rows(&recording, START + 9 * SECOND)[0].read_from_ns, START + 5 * SECOND);
        assert!(rows(&recording, START + 11 * SECOND).is_empty());
    }

    #[test]
    fn a_reading_counts_for_another_time_if_as_much_was_there() {
        let mut recording = testing::container();
        let samples = &mut recording.samples.processes[0].series;
        for (second, mib) in [(7, 800), (9, 500)] {
            testing::push(samples, START + second * SECOND, [("rss_anon".to_owned(), mib * MIB)]);
        }
        let of = |second: u64| are_of(&recording, START + second * SECOND);
        assert!(of(5) && of(7), "1 % less");
        assert!(!of(9), "the process had given back a third");
    }

    #[test]
    fn mappings_too_small_for_a_row_are_one_that_says_how_many() {
        let mut recording = testing::container();
        let first = recording.provenance.regions[0].clone();
        let smaller = |pid, count| Region {
            pid,
            name: "(mappings below 1.0 MiB each)".into(),
            rss: 5 * MIB,
            smaller: Some(count),
            ..first.clone()
        };
        recording.provenance.regions.extend([smaller(1, 30), smaller(2, 12)]);
        let rows = rows(&recording, START + 5 * SECOND);
        let row = rows.iter().find(|row| row.smaller).unwrap();
        assert_eq!(row.shown(), "42 mappings below 1.0 MiB each");
        assert_eq!((row.rss, row.processes), (10 * MIB, 2));
    }

    #[test]
    fn shared_memory_is_known_by_its_name() {
        let named = |name: &str| RegionRow { name: name.into(), ..RegionRow::default() };
        assert!(named("/memfd:cuda (deleted)").is_shared_memory());
        assert!(named("/dev/shm/x").is_shared_memory());
        assert!(!named("/usr/lib/libc.so.6").is_shared_memory());
    }
}
