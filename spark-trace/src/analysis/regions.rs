//! Mappings by name, with what was resident in them.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::recording::{Recording, Region};

/// What the kernel calls mappings whose pages are shared memory.
const SHARED_MEMORY: &[&str] = &["/dev/shm/", "/memfd:", "/dev/zero", "/SYSV", "/anon_hugepage"];

/// The regions of one name in processes of one command name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct RegionRow {
    pub comm: String,
    pub name: String,
    pub processes: usize,
    pub regions: usize,
    pub length: u64,
    pub rss: u64,
    /// Resident, pages that processes share divided among them.
    pub pss: u64,
    pub anonymous: u64,
    pub swap: u64,
}

impl RegionRow {
    /// Its pages are shared memory, except those that were copied on write.
    pub fn is_shared_memory(&self) -> bool {
        SHARED_MEMORY.iter().any(|prefix| self.name.starts_with(prefix))
    }
}

/// Regions by command and name, the most resident first; of every process the reading nearest to `at_ns`.
pub fn rows(recording: &Recording, at_ns: u64) -> Vec<RegionRow> {
    let provenance = &recording.provenance;
    let comms: BTreeMap<_, _> =
        provenance.processes.iter().map(|process| (process.pid, process.comm.as_str())).collect();
    let read_at = nearest_reading(&provenance.regions, at_ns);
    let mut groups: BTreeMap<(&str, &str), (RegionRow, BTreeSet<u32>)> = BTreeMap::new();
    for region in provenance.regions.iter().filter(|region| read_at.get(&region.pid) == Some(&region.at_ns)) {
        let comm = comms.get(&region.pid).copied().unwrap_or("(unknown)");
        let name = if region.name.is_empty() { "(anonymous)" } else { &region.name };
        let (row, pids) = groups.entry((comm, name)).or_default();
        row.add(region);
        pids.insert(region.pid);
    }
    let mut rows: Vec<_> = groups
        .into_iter()
        .map(|((comm, name), (row, pids))| RegionRow {
            comm: comm.to_owned(),
            name: name.to_owned(),
            processes: pids.len(),
            ..row
        })
        .collect();
    rows.sort_by_key(|row| std::cmp::Reverse(row.rss));
    rows
}

/// When each process's regions were read, nearest to `at_ns`.
fn nearest_reading(regions: &[Region], at_ns: u64) -> BTreeMap<u32, u64> {
    let mut nearest = BTreeMap::new();
    for region in regions {
        let found = nearest.entry(region.pid).or_insert(region.at_ns);
        if region.at_ns.abs_diff(at_ns) < found.abs_diff(at_ns) {
            *found = region.at_ns;
        }
    }
    nearest
}

impl RegionRow {
    fn add(&mut self, region: &Region) {
        self.regions += 1;
        for (sum, value) in [
            (&mut self.length, region.length),
            (&mut self.rss, region.rss),
            (&mut self.pss, region.pss),
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
    use crate::recording::testing::{self, MIB, SECOND, START};

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
    fn shared_memory_is_told_by_its_name() {
        let named = |name: &str| RegionRow { name: name.into(), ..RegionRow::default() };
        assert!(named("/memfd:cuda (deleted)").is_shared_memory());
        assert!(named("/dev/shm/x").is_shared_memory());
        assert!(!named("/usr/lib/libc.so.6").is_shared_memory());
    }
}
