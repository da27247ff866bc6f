//! The system plane: /proc/meminfo, /proc/vmstat, the per-CPU lists in /proc/zoneinfo and the huge zero page.

use std::path::Path;

use super::{
    KernelFile, Reading,
    huge_pages::{self, PartlyMapped},
    huge_zero::{self, HugeZero},
    refresh::Refresh,
};
use crate::page_size;
use spark_trace_host::meminfo;
use spark_trace_recording::journal::{Sample, SeriesId};

/// Counters of /proc/vmstat worth keeping: reclaim, refaults, swap, pins and huge pages. Levels that
/// /proc/meminfo has too are left to it.
const VMSTAT: &[&str] = &[
    "nr_foll_pin_acquired",
    "nr_foll_pin_released",
    "pgsteal_kswapd",
    "pgsteal_direct",
    "pgscan_kswapd",
    "pgscan_direct",
    "workingset_refault_anon",
    "workingset_refault_file",
    "pswpin",
    "pswpout",
    "pgmajfault",
    "thp_fault_alloc",
    "thp_collapse_alloc",
    "thp_deferred_split_page",
    huge_zero::TAKEN,
    "oom_kill",
    "drop_pagecache",
];

/// Bytes of the huge zero page.
const HUGE_ZERO: &str = "kpageflags.huge_zero_page";

/// Bytes of huge pages of which only parts are mapped.
const PARTLY_MAPPED: &str = "thp.anon_partially_mapped";
/// The most that each counter may be off where not every CPU had handed in its part (mm/vmstat.c vmstat_refresh).
const STAT_DRIFT: &str = "zoneinfo.stat_drift";
/// Pages that sockets of a protocol were given for what they send and receive: /proc/net/sockstat. The counters are
/// one for all network namespaces (net/ipv4/proc.c sockstat_seq_show: proto_memory_allocated).
const SOCKETS: [&str; 2] = ["TCP", "UDP"];
/// Entries of the caches of names: /proc/sys/fs/dentry-state (fs/dcache.c proc_nr_dentry).
const DENTRIES: [(usize, &str); 2] = [(0, "dentry.entries"), (4, "dentry.negative")];

/// Reads the system plane.
#[derive(Debug)]
pub struct System {
    meminfo: KernelFile,
    vmstat: KernelFile,
    zoneinfo: KernelFile,
    huge_zero: HugeZero,
    partly_mapped: PartlyMapped,
    sockets: Option<KernelFile>,
    dentries: Option<KernelFile>,
    refresh: Option<Refresh>,
}

impl System {
    pub fn open() -> std::io::Result<Self> {
        let open = |path: &str| {
            KernelFile::open(Path::new(path))
                .map_err(|e| std::io::Error::new(e.kind(), format!("{path}: {e}")))
        };
        Ok(Self {
            meminfo: open("/proc/meminfo")?,
            vmstat: open("/proc/vmstat")?,
            zoneinfo: open("/proc/zoneinfo")?,
            huge_zero: HugeZero::new(),
            partly_mapped: PartlyMapped::open(Path::new(huge_pages::SIZES)),
            sockets: open("/proc/net/sockstat").ok(),
            dentries: open("/proc/sys/fs/dentry-state").ok(),
            refresh: Refresh::start(Path::new("/proc/sys/vm/stat_refresh")),
        })
    }

    pub fn read(&mut self) -> Sample {
        // Before the window: it changes no level, only how exact the counters are.
        let is_exact = self.refresh.as_mut().is_none_or(Refresh::refresh);
        let mut reading = self.read_balanced();
        if is_exact {
            reading.values.remove(STAT_DRIFT);
        }
        match self.vmstat.read() {
            Ok(text) => parse_vmstat(&text, &mut reading),
            Err(e) => reading.absent("vmstat", e),
        }
        let taken = reading.values.get(&format!("vmstat.{}", huge_zero::TAKEN)).copied();
        // A kernel without transparent huge pages does not count them.
        match self.huge_zero.bytes(taken.unwrap_or(0)) {
            Ok(bytes) => reading.put(HUGE_ZERO, bytes),
            Err(e) => reading.absent(HUGE_ZERO, e),
        }
        if let Some(bytes) = self.partly_mapped.bytes() {
            reading.put(PARTLY_MAPPED, bytes);
        }
        if let Some(Ok(text)) = self.sockets.as_ref().map(KernelFile::read) {
            parse_sockets(&text, &mut reading);
        }
        if let Some(Ok(text)) = self.dentries.as_ref().map(KernelFile::read) {
            parse_dentries(&text, &mut reading);
        }
        reading.end(SeriesId::System)
    }
}

impl System {
    /// Reads meminfo and the per-CPU lists so that they belong together: pages move between the free lists
    /// they report in batches of megabytes. MemFree must be the same before and after the lists are read;
    /// otherwise it is tried again, and the last try stands.
    fn read_balanced(&mut self) -> Reading {
        let mut reading = Reading::begin();
        for _ in 0..TRIES {
            reading = Reading::begin();
            let text = match self.meminfo.read() {
                Ok(text) => text,
                Err(e) => {
                    reading.absent("meminfo", e);
                    return reading;
                }
            };
            parse_meminfo(&text, &mut reading);
            match self.zoneinfo.read() {
                Ok(text) => {
                    reading.put("zoneinfo.pcp_count", page_size() * sum_of("count:", &text));
                    reading.put(STAT_DRIFT, page_size() * sum_of("vm stats threshold:", &text));
                }
                Err(e) => reading.absent("zoneinfo.pcp_count", e),
            }
            let before = reading.values.get("meminfo.MemFree").copied();
            let after = self.meminfo.read().ok().and_then(|text| meminfo::field(&text, "MemFree"));
            if before.zip(after).is_none_or(|(a, b)| a.abs_diff(b) <= STEADY) {
                break;
            }
        }
        reading
    }
}

/// Tries for a steady reading, and how far MemFree may move during one.
const TRIES: u32 = 4;
const STEADY: u64 = 512 << 10;

fn parse_meminfo(text: &str, reading: &mut Reading) {
    for (name, value) in meminfo::lines(text) {
        // Constants of the address space, not memory in use.
        if name.starts_with("Vmalloc") && name != "VmallocUsed" || name.starts_with("DirectMap") {
            continue;
        }
        reading.put(format!("meminfo.{name}"), value);
    }
}

fn parse_vmstat(text: &str, reading: &mut Reading) {
    for (name, value) in text.lines().filter_map(|l| l.split_once(' ')) {
        if VMSTAT.contains(&name)
            && let Ok(value) = value.trim().parse()
        {
            reading.put(format!("vmstat.{name}"), value);
        }
    }
}

/// `TCP: inuse 5 orphan 0 tw 0 alloc 7 mem 3` becomes bytes of the last.
fn parse_sockets(text: &str, reading: &mut Reading) {
    for (protocol, values) in text.lines().filter_map(|line| line.split_once(':')) {
        let mut words = values.split_whitespace().skip_while(|word| *word != "mem").skip(1);
        let pages = words.next().and_then(|pages| pages.parse::<u64>().ok());
        if let Some(pages) = pages.filter(|_| SOCKETS.contains(&protocol)) {
            reading.put(format!("sockstat.{protocol}"), pages * page_size());
        }
    }
}

fn parse_dentries(text: &str, reading: &mut Reading) {
    let fields: Vec<_> = text.split_whitespace().collect();
    for (field, column) in DENTRIES {
        if let Some(count) = fields.get(field).and_then(|count| count.parse().ok()) {
            reading.put(column, count);
        }
    }
}

/// Sum of a line of all CPUs in all zones: `count:` is pages on per-CPU free lists, `vm stats threshold:` pages by which a
/// CPU's part of a counter may have changed before it is handed in.
fn sum_of(name: &str, text: &str) -> u64 {
    text.lines()
        .filter_map(|l| l.trim().strip_prefix(name))
        .filter_map(|v| v.trim().parse::<u64>().ok())
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meminfo_is_in_bytes_and_counts_stay_counts() {
        let mut reading = Reading::begin();
        parse_meminfo(
            "MemTotal:  100 kB\nHugePages_Total:  3\nActive(anon): 7 kB\nVmallocTotal: 9 kB\n",
            &mut reading,
        );
        assert_eq!(reading.values["meminfo.MemTotal"], 102_400);
        assert_eq!(reading.values["meminfo.HugePages_Total"], 3);
        assert_eq!(reading.values["meminfo.Active(anon)"], 7168);
        assert!(!reading.values.contains_key("meminfo.VmallocTotal"));
    }

    #[test]
    fn per_cpu_lists_are_summed_over_zones_and_cpus() {
        let text = "  pagesets\n    cpu: 0\n              count:    10\n              high:  5\n    cpu: 1\n              count: 4\n";
        assert_eq!(sum_of("count:", text), 14);
        let text = "    cpu: 0\n  vm stats threshold: 24\n    cpu: 1\n  vm stats threshold: 30\n";
        assert_eq!(sum_of("vm stats threshold:", text), 54);
    }

    #[test]
    fn sockets_and_dentries_are_read_by_their_places() {
        let mut reading = Reading::begin();
        parse_sockets(
            "sockets: used 9\nTCP: inuse 5 orphan 0 tw 0 alloc 7 mem 3\nUDP: inuse 2 mem 4\nRAW: inuse 0\nFRAG: inuse 0 memory 8\n",
            &mut reading,
        );
        parse_dentries("161020\t140011\t45\t0\t9001\t0\n", &mut reading);
        let columns: Vec<_> = reading.values.iter().map(|(name, value)| (name.as_str(), *value)).collect();
        let page = page_size();
        assert_eq!(
            columns,
            [
                ("dentry.entries", 161_020),
                ("dentry.negative", 9001),
                ("sockstat.TCP", 3 * page),
                ("sockstat.UDP", 4 * page)
            ]
        );
    }

    #[test]
    fn the_running_kernel_reads_whole() {
        let sample = System::open().unwrap().read();
        assert!(sample.values["meminfo.MemTotal"] > 1 << 20);
        assert!(sample.values.contains_key("zoneinfo.pcp_count"));
        assert!(sample.absent.is_empty(), "{:?}", sample.absent);
        assert!(sample.begin_ns <= sample.end_ns);
    }
}
