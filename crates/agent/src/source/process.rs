//! Processes: resident memory split by kind, and what is resident in which mapping.

use std::{
    collections::{BTreeMap, HashMap},
    fs::{self, File},
    io::{BufRead, BufReader, Read},
};

use procfs::process::Process as ProcProcess;

use super::{KernelFile, Reading};
use crate::now_ns;
use spark_trace_recording::units;
use spark_trace_recording::{
    Process, Region,
    journal::{Sample, SeriesId},
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

/// Mappings of one process that are kept. The kernel lets a process have some 65 thousand (vm.max_map_count) or more.
const MOST_REGIONS: usize = 4096;
/// Read of one line of smaps: a path of the longest kind has four times as many characters where each is escaped.
const LONGEST_LINE: u64 = 20 << 10;

/// The mappings of `pid` with at least `min` bytes resident, from /proc/PID/smaps: the largest, where there are many. The
/// smaller ones are one row: thousands of them may hold most of a process.
pub fn regions(pid: u32, min: u64) -> Option<Vec<Region>> {
    let at_ns = now_ns();
    let smaps = File::open(format!("/proc/{pid}/smaps")).ok()?;
    Some(parse_regions(BufReader::new(smaps), pid, at_ns, min))
}

/// Line by line: the text of all mappings may have tens of megabytes.
pub fn parse_regions(mut smaps: impl BufRead, pid: u32, at_ns: u64, min: u64) -> Vec<Region> {
    let mut kept: Vec<Region> = Vec::new();
    let mut current: Option<Region> = None;
    let mut smaller = Region {
        at_ns,
        pid,
        name: format!("(mappings below {} each)", units::unsigned(min)),
        smaller: Some(0),
        ..Region::default()
    };
    let mut bytes = Vec::new();
    loop {
        bytes.clear();
        let read = smaps.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut bytes);
        let is_end = !matches!(read, Ok(1..));
        let line = String::from_utf8_lossy(&bytes);
        let next = region_of(line.trim_end_matches('\n'));
        if is_end || next.is_some() {
            match current.take() {
                Some(region) if region.rss >= min => kept.push(region),
                Some(region) => add(&mut smaller, &region),
                None => {}
            }
            if kept.len() >= 2 * MOST_REGIONS {
                keep_largest(&mut kept);
            }
            current = next.map(|region| Region { at_ns, pid, ..region });
        } else if let Some(region) = &mut current {
            count(region, &line);
        }
        if is_end {
            keep_largest(&mut kept);
            kept.extend(Some(smaller).filter(|sum| sum.rss > 0));
            return kept;
        }
    }
}

/// One more mapping in a sum, if there is anything in it.
fn add(sum: &mut Region, region: &Region) {
    if region.rss == 0 {
        return;
    }
    sum.smaller = sum.smaller.map(|count| count.saturating_add(1));
    for (sum, value) in [
        (&mut sum.length, region.length),
        (&mut sum.rss, region.rss),
        (&mut sum.pss, region.pss),
        (&mut sum.anonymous, region.anonymous),
        (&mut sum.swap, region.swap),
    ] {
        *sum = sum.saturating_add(value);
    }
}

/// Those with the most resident, in the order of their addresses.
fn keep_largest(regions: &mut Vec<Region>) {
    if regions.len() > MOST_REGIONS {
        regions.sort_by_key(|region| std::cmp::Reverse(region.rss));
        regions.truncate(MOST_REGIONS);
        regions.sort_by_key(|region| region.address);
    }
}

/// The mapping that a line begins: `START-END PERMISSIONS OFFSET DEVICE INODE      PATH`.
fn region_of(line: &str) -> Option<Region> {
    let mut fields = line.splitn(6, ' ');
    let (start, end) = fields.next()?.split_once('-')?;
    let [start, end] = [start, end].map(|address| u64::from_str_radix(address, 16).ok());
    let (address, end) = (start?, end?);
    let inode = fields.nth(3)?;
    inode.parse::<u64>().ok()?;
    let path = fields.next().unwrap_or_default().trim_start_matches(' ');
    Some(Region { address, length: end.checked_sub(address)?, name: name_of(path), ..Region::default() })
}

fn count(region: &mut Region, line: &str) {
    let Some((key, value)) = line.split_once(':') else { return };
    let field = match key {
        "Rss" => &mut region.rss,
        "Pss" => &mut region.pss,
        "Anonymous" => &mut region.anonymous,
        "Swap" => &mut region.swap,
        _ => return,
    };
    let kib = value.split_whitespace().next().and_then(|word| word.parse::<u64>().ok());
    *field = kib.unwrap_or(0).saturating_mul(1024);
}

/// What a mapping is called: its path, or what the kernel calls it (fs/proc/task_mmu.c get_vma_name).
fn name_of(path: &str) -> String {
    match path {
        "" => "[anon]".to_owned(),
        _ if path.starts_with("[stack") => "[stack]".to_owned(),
        _ => match path.strip_prefix("/SYSV").and_then(|rest| rest.get(..8)) {
            // A segment of System V shared memory, by its key.
            Some(key) => match u32::from_str_radix(key, 16) {
                Ok(key) => format!("[shm {}]", key as i32),
                Err(_) => path.to_owned(),
            },
            None => path.to_owned(),
        },
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
    let CommandLine { argv, argv_cut } = command_line(pid);
    Some(Process { pid, parent, comm: stat.comm, argv, argv_cut, ..Process::default() })
}

/// Read of an environment, at most.
const LONGEST_ENVIRONMENT: u64 = 4 << 20;

/// Environment of a process: what it was given when its program began.
pub fn environment(pid: u32) -> BTreeMap<String, String> {
    let bytes = beginning(&format!("/proc/{pid}/environ"), LONGEST_ENVIRONMENT);
    let words = bytes.split(|byte| *byte == 0).filter_map(|word| std::str::from_utf8(word).ok());
    words.filter_map(|word| word.split_once('=')).map(|(n, v)| (n.to_owned(), v.to_owned())).collect()
}

/// The first bytes of a file; none where it cannot be read.
fn beginning(path: &str, most: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    // What was read before an error is what there is: a process may end meanwhile.
    let _ = File::open(path).and_then(|file| file.take(most).read_to_end(&mut bytes));
    bytes
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

/// Kept of a command line. Who starts a process may give it megabytes, and a recording keeps thousands of processes.
pub const LONGEST_COMMAND_LINE: usize = 4 << 10;
pub const MOST_ARGUMENTS: usize = 64;

/// A command line as recordings keep it, one element an argument.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct CommandLine {
    pub argv: Vec<String>,
    /// It has more than is kept; the last argument then ends in [`Process::CUT`].
    pub argv_cut: bool,
}

/// The beginning of a process's command line.
pub fn command_line(pid: u32) -> CommandLine {
    // One byte more, which shows that there is more.
    cut_command_line(&beginning(&format!("/proc/{pid}/cmdline"), LONGEST_COMMAND_LINE as u64 + 1))
}

/// Reads it anew into what is known of a process.
pub fn read_command_line(process: &mut Process) {
    CommandLine { argv: process.argv, argv_cut: process.argv_cut } = command_line(process.pid);
}

/// What is kept of the text of /proc/PID/cmdline.
pub fn cut_command_line(bytes: &[u8]) -> CommandLine {
    let kept = bytes.get(..LONGEST_COMMAND_LINE).unwrap_or(bytes);
    let mut argv = words(kept);
    let argv_cut = bytes.len() > kept.len() || argv.len() > MOST_ARGUMENTS;
    argv.truncate(MOST_ARGUMENTS);
    if argv_cut {
        match argv.last_mut() {
            Some(last) => last.push(Process::CUT),
            None => argv.push(Process::CUT.to_string()),
        }
    }
    CommandLine { argv, argv_cut }
}

/// Read of the command line of an engine's client, whose options say which container it starts. It is not kept.
const LONGEST_REQUEST: u64 = 1 << 20;

/// The whole command line of a process, to be looked at now.
pub fn arguments(pid: u32) -> Vec<String> {
    words(&beginning(&format!("/proc/{pid}/cmdline"), LONGEST_REQUEST))
}

fn words(bytes: &[u8]) -> Vec<String> {
    let words = bytes.split(|byte| *byte == 0).filter(|word| !word.is_empty());
    words.map(|word| String::from_utf8_lossy(word).into_owned()).collect()
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
    fn command_lines_are_cut_and_say_so() {
        let line = |words: &[&str]| cut_command_line(words.join("\0").as_bytes());
        let short = line(&["sleep", "1"]);
        assert_eq!((short.argv, short.argv_cut), (vec!["sleep".to_owned(), "1".to_owned()], false));
        // As many and as long as are kept, and one more of each.
        let most = line(&["a"; MOST_ARGUMENTS]);
        assert_eq!((most.argv.len(), most.argv_cut), (MOST_ARGUMENTS, false));
        let more = line(&["a"; MOST_ARGUMENTS + 1]);
        assert_eq!((more.argv.len(), more.argv_cut), (MOST_ARGUMENTS, true));
        assert_eq!(more.argv.last().unwrap(), "a…");
        let longest = "x".repeat(LONGEST_COMMAND_LINE);
        assert!(!line(&[&longest]).argv_cut);
        let longer = line(&["sh", &longest]);
        assert!(longer.argv_cut && longer.argv[1].ends_with("xx…"));
        assert!(
            longer.argv.iter().map(String::len).sum::<usize>()
                <= LONGEST_COMMAND_LINE + Process::CUT.len_utf8()
        );
        assert_eq!(line(&[""]), CommandLine::default());
    }

    /// Started with far more than is kept, and read back from the kernel.
    #[test]
    fn a_process_with_megabytes_of_arguments_is_kept_short() {
        let mut command = std::process::Command::new("sh");
        let arguments = vec!["y".repeat(100_000); 15];
        let child = command.args(["-c", "read x"]).args(&arguments).stdin(std::process::Stdio::piped());
        let mut child = child.spawn().unwrap();
        // In the midst of exec(2) it has none yet.
        let found = loop {
            match command_line(child.id()) {
                found if found.argv.is_empty() => std::thread::yield_now(),
                found => break found,
            }
        };
        assert!(found.argv_cut && found.argv[..3] == ["sh", "-c", "read x"], "{:?}", found.argv);
        assert!(found.argv.iter().map(String::len).sum::<usize>() < 2 * LONGEST_COMMAND_LINE);
        assert_eq!(super::arguments(child.id()).len(), 3 + 11, "a client's is read further");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn mappings_are_read_line_by_line() {
        let text = "\
00400000-00401000 r-xp 00000000 fe:00 17                                 /a b/c:d
Size:                  4 kB
Rss:                   4 kB
Pss:                   2 kB
Anonymous:             0 kB
Swap:                  8 kB
VmFlags: rd ex mr
7f0000000000-7f0000200000 rw-p 00000000 00:00 0 
Rss:                2048 kB
7f0000200000-7f0000300000 rw-s 00000000 00:01 5                          /SYSV0000002a (deleted)
Rss:                1024 kB
7f0000300000-7f0000400000 rw-s 00000000 00:01 5                          [anon:a: 1-2]
Rss:                   1 kB
7ffc00000000-7ffc00021000 rw-p 00000000 00:00 0                          [stack]
Rss:                   0 kB
";
        let found = parse_regions(text.as_bytes(), 7, 9, 1);
        let rows: Vec<_> =
            found.iter().map(|r| (r.address, r.length, r.name.as_str(), r.rss >> 10)).collect();
        let wanted = [
            (0x40_0000, 0x1000, "/a b/c:d", 4),
            (0x7f00_0000_0000, 0x20_0000, "[anon]", 2048),
            (0x7f00_0020_0000, 0x10_0000, "[shm 42]", 1024),
            (0x7f00_0030_0000, 0x10_0000, "[anon:a: 1-2]", 1),
        ];
        assert_eq!(rows, wanted);
        assert_eq!((found[0].pss, found[0].swap, found[0].pid, found[0].at_ns), (2048, 8192, 7, 9));
    }

    #[test]
    fn mappings_too_small_for_a_row_are_one_with_their_sums() {
        let text: String = [(1, 4), (2, 8), (3, 4096), (4, 0)]
            .iter()
            .map(|(i, kib)| {
                format!("{i}000-{i}800 r--p 0 00:00 0\nRss: {kib} kB\nPss: {kib} kB\nAnonymous: {kib} kB\n")
            })
            .collect();
        let found = parse_regions(text.as_bytes(), 7, 9, 1 << 20);
        let [large, sum] = &found[..] else { panic!("{found:?}") };
        assert_eq!((large.rss, large.smaller), (4 << 20, None));
        assert_eq!((sum.smaller, sum.rss, sum.pss, sum.anonymous), (Some(2), 12 << 10, 12 << 10, 12 << 10));
        assert_eq!((sum.name.as_str(), sum.pid, sum.at_ns), ("(mappings below 1.0 MiB each)", 7, 9));
    }

    #[test]
    fn of_many_mappings_the_largest_are_kept() {
        let many = MOST_REGIONS as u64 * 5;
        let text: String =
            (0..many).map(|i| format!("{i:x}000-{i:x}800 r--p 0 00:00 0\nRss: {} kB\n", i + 1)).collect();
        let found = parse_regions(text.as_bytes(), 1, 1, 1);
        assert_eq!(found.len(), MOST_REGIONS);
        assert!(found.iter().all(|region| region.rss > (many - MOST_REGIONS as u64) * 1024));
        assert!(found.is_sorted_by_key(|region| region.address));
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
        // Pids that do not exist: the point is which are requested.
        let pids: Vec<u32> = (0..PROCESSES_PER_SAMPLE as u32 * 2).map(|i| u32::MAX - 10_000 + i).collect();
        assert!(processes.read(&pids).is_empty());
        assert_eq!(processes.turn, 1);
    }
}
