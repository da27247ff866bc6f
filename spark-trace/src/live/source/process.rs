//! Processes: resident memory split by kind, and what is resident in which mapping.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
};

use procfs::process::{MMapPath, Process as ProcProcess};

use super::{KernelFile, Reading};
use crate::{
    live::now_ns,
    recording::{
        Process, Region,
        journal::{Sample, SeriesId},
    },
};

/// Processes read at one sample; with more than that, each sample takes its turn of them.
const PROCESSES_PER_SAMPLE: usize = 128;

/// Lines of /proc/PID/status and the columns they become.
const STATUS: &[(&str, &str)] = &[
    ("RssAnon:", "rss_anon"),
    ("RssFile:", "rss_file"),
    ("RssShmem:", "rss_shmem"),
    ("VmSwap:", "swap"),
    ("VmHWM:", "rss_peak"),
];

/// Walking a process's page tables is dear, so its mappings are read only when its resident memory has
/// grown to 5/4 of what it was at the last walk and by at least this much, ...
const REGION_GROWTH: u64 = 16 << 20;
/// ... or when it has grown by this much and then stood still for two readings.
const REGION_PLATEAU: u64 = 1 << 20;

/// Reads the target's processes.
#[derive(Debug, Default)]
pub struct Processes {
    open: HashMap<u32, Known>,
    turn: usize,
}

#[derive(Debug)]
struct Known {
    status: KernelFile,
    rss_at_walk: u64,
    rss_before: u64,
}

impl Processes {
    /// Reads `pids` (sorted), all or this sample's turn of them; forgets the others.
    pub fn read(&mut self, pids: &[u32]) -> Vec<Sample> {
        self.open.retain(|pid, _| pids.binary_search(pid).is_ok());
        let rounds = pids.len().div_ceil(PROCESSES_PER_SAMPLE).max(1);
        let turn = self.turn % rounds;
        self.turn = self.turn.wrapping_add(1);
        pids.iter().skip(turn).step_by(rounds).filter_map(|pid| self.read_one(*pid)).collect()
    }

    /// One process, once.
    pub fn level(pid: u32) -> Option<Sample> {
        Self::default().read_one(pid)
    }

    /// `None` where the process is gone: its end has an event of its own.
    fn read_one(&mut self, pid: u32) -> Option<Sample> {
        let known = match self.open.entry(pid) {
            std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::hash_map::Entry::Vacant(entry) => {
                let status = KernelFile::open(format!("/proc/{pid}/status").as_ref()).ok()?;
                entry.insert(Known { status, rss_at_walk: 0, rss_before: 0 })
            }
        };
        let mut reading = Reading::begin();
        for line in known.status.read().ok()?.lines() {
            let found = STATUS.iter().find_map(|(key, column)| Some((column, line.strip_prefix(key)?)));
            let Some((column, value)) = found else { continue };
            if let Some(kib) = value.split_whitespace().next().and_then(|w| w.parse::<u64>().ok()) {
                reading.put(*column, kib * 1024);
            }
        }
        // A zombie has no memory lines: it holds none.
        (!reading.values.is_empty()).then(|| reading.end(SeriesId::Process(pid)))
    }

    /// Whether a process has grown enough for its mappings to be worth a walk.
    pub fn wants_walk(&mut self, sample: &Sample) -> bool {
        let SeriesId::Process(pid) = sample.series else { return false };
        let Some(known) = self.open.get_mut(&pid) else { return false };
        let rss = resident(sample);
        let grown = rss >= known.rss_at_walk + (known.rss_at_walk / 4).max(REGION_GROWTH);
        let settled = rss == known.rss_before && rss >= known.rss_at_walk + REGION_PLATEAU;
        known.rss_before = rss;
        let wanted = grown || settled;
        if wanted {
            known.rss_at_walk = rss;
        }
        wanted
    }
}

/// The mappings of `pid` with at least `min` bytes resident, from /proc/PID/smaps.
pub fn regions(pid: u32, min: u64) -> Option<Vec<Region>> {
    let at_ns = now_ns();
    let maps = ProcProcess::new(i32::try_from(pid).ok()?).ok()?.smaps().ok()?;
    let regions = maps.into_iter().filter_map(|map| {
        let field = |name: &str| map.extension.map.get(name).copied().unwrap_or(0);
        let region = Region {
            at_ns,
            pid,
            address: map.address.0,
            length: map.address.1 - map.address.0,
            name: name_of(&map.pathname),
            rss: field("Rss"),
            pss: field("Pss"),
            anonymous: field("Anonymous"),
            swap: field("Swap"),
        };
        (region.rss >= min).then_some(region)
    });
    Some(regions.collect())
}

fn name_of(path: &MMapPath) -> String {
    match path {
        MMapPath::Path(path) => path.display().to_string(),
        MMapPath::Heap => "[heap]".to_owned(),
        MMapPath::Stack | MMapPath::TStack(_) => "[stack]".to_owned(),
        MMapPath::Anonymous => "[anon]".to_owned(),
        MMapPath::Vsys(key) => format!("[shm {key}]"),
        MMapPath::Other(name) => format!("[{name}]"),
        special => format!("[{special:?}]").to_lowercase(),
    }
}

/// Resident memory of a reading, all kinds together.
pub fn resident(sample: &Sample) -> u64 {
    ["rss_anon", "rss_file", "rss_shmem"].iter().filter_map(|column| sample.values.get(*column)).sum()
}

/// Every process there is, in order.
pub fn all() -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut pids: Vec<u32> = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    pids.sort_unstable();
    pids
}

/// What /proc says a process is; when it started and what it holds is left open.
pub fn describe(pid: u32) -> Option<Process> {
    let stat = ProcProcess::new(i32::try_from(pid).ok()?).ok()?.stat().ok()?;
    let parent = u32::try_from(stat.ppid).ok();
    Some(Process { pid, parent, comm: stat.comm, argv: argv(pid), ..Process::default() })
}

/// Environment of a process: what it was given when its program began.
pub fn environment(pid: u32) -> BTreeMap<String, String> {
    let bytes = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    let words = bytes.split(|byte| *byte == 0).filter_map(|word| std::str::from_utf8(word).ok());
    words.filter_map(|word| word.split_once('=')).map(|(n, v)| (n.to_owned(), v.to_owned())).collect()
}

/// Parent of a process.
pub fn parent(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything; the fields after it do not.
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

/// Whether there is no such process, or only a zombie that nobody has waited for.
pub fn has_ended(pid: u32) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return true };
    // The name in parentheses may hold anything; the state comes after it.
    stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with(['Z', 'X', 'x']))
}

/// Command line of a process, one element an argument.
pub fn argv(pid: u32) -> Vec<String> {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    bytes
        .split(|b| *b == 0)
        .map(|a| String::from_utf8_lossy(a).into_owned())
        .filter(|a| !a.is_empty())
        .collect()
}

/// Proportional share of a process's memory, split as smaps_rollup has it.
pub fn pss(pid: u32) -> Option<Sample> {
    let mut reading = Reading::begin();
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    const COLUMNS: &[(&str, &str)] =
        &[("Pss:", "pss"), ("Pss_Anon:", "pss_anon"), ("Pss_File:", "pss_file"), ("Pss_Shmem:", "pss_shmem")];
    for line in text.lines() {
        let found = COLUMNS.iter().find_map(|(key, column)| Some((column, line.strip_prefix(key)?)));
        let Some((column, value)) = found else { continue };
        if let Some(kib) = value.split_whitespace().next().and_then(|w| w.parse::<u64>().ok()) {
            reading.put(*column, kib * 1024);
        }
    }
    (!reading.values.is_empty()).then(|| reading.end(SeriesId::Process(pid)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_process_reads_and_walks_once() {
        let pid = std::process::id();
        let mut processes = Processes::default();
        let samples = processes.read(&[pid]);
        assert!(samples[0].values["rss_anon"] > 0);
        let mut grown = samples[0].clone();
        grown.values.insert("rss_anon".to_owned(), 100 << 20);
        assert!(processes.wants_walk(&grown));
        assert!(!processes.wants_walk(&grown), "no growth since the walk");
        grown.values.insert("rss_anon".to_owned(), 102 << 20);
        assert!(!processes.wants_walk(&grown), "still growing, a little");
        assert!(processes.wants_walk(&grown), "grown a little and settled");
        assert!(processes.read(&[]).is_empty());
    }

    #[test]
    fn own_regions_and_pss() {
        let pid = std::process::id();
        let regions = regions(pid, 1).unwrap();
        assert!(regions.iter().any(|r| r.name == "[heap]" || r.name == "[stack]"));
        assert!(pss(pid).unwrap().values["pss"] > 0);
        assert!(regions.iter().all(|r| r.pss <= r.rss));
    }

    #[test]
    fn a_zombie_has_ended() {
        assert!(!has_ended(std::process::id()));
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let begun = std::time::Instant::now();
        while !has_ended(child.id()) && begun.elapsed().as_secs() < 10 {
            std::thread::yield_now();
        }
        assert!(has_ended(child.id()), "not yet waited for");
        child.wait().unwrap();
        assert!(has_ended(child.id()));
    }

    #[test]
    fn many_processes_take_turns() {
        let mut processes = Processes::default();
        // Pids that do not exist: the point is which are asked for.
        let pids: Vec<u32> = (0..PROCESSES_PER_SAMPLE as u32 * 2).map(|i| u32::MAX - 10_000 + i).collect();
        assert!(processes.read(&pids).is_empty());
        assert_eq!(processes.turn, 1);
    }
}
