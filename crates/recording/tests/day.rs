//! A day of `record --system` in a minute: what its journal takes on the disk and its fold in memory. Simulated: as many columns
//! as a kernel of 6.18 has, each of which changes as often and as much as on a machine with two CPUs that compiles.
//!
//! `SPARK_TRACE_DAY=day.json cargo test --release -p spark-trace-recording --test day -- --ignored --nocapture` writes the recording,
//! its journal (`day.json.partial`), and what they took.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on should stop")]

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufReader, BufWriter};
use std::path::PathBuf;
use std::time::Instant;

use spark_trace_recording::journal::{self, Begin, Entry, JOURNAL_SCHEMA, Journal, Packer, Sample, SeriesId};
use spark_trace_recording::{Clock, Host, Phase, SCHEMA_VERSION, Target, TargetKind, Tool, WriteOptions};

const MS: u64 = 1_000_000;
const DAY_MS: u64 = 86_400_000;
const INTERVAL_MS: u64 = 100;
const MIB: u64 = 1 << 20;
/// Processes that are read in turn, ten at each reading.
const PROCESSES: u64 = 120;
const A_READING: u64 = 10;

/// Name, how often it changes of a thousand readings, and by how many pages at most.
const MOVING: &[(&str, u64, u64)] = &[
    ("dentry.entries", 800, 20),
    ("dentry.negative", 125, 8),
    ("meminfo.Active", 450, 30),
    ("meminfo.Active(anon)", 216, 2),
    ("meminfo.Active(file)", 380, 50),
    ("meminfo.AnonPages", 1000, 6000),
    ("meminfo.Buffers", 142, 2),
    ("meminfo.Cached", 612, 120),
    ("meminfo.Committed_AS", 474, 200),
    ("meminfo.Dirty", 580, 60),
    ("meminfo.Inactive", 1000, 6000),
    ("meminfo.Inactive(anon)", 1000, 6000),
    ("meminfo.Inactive(file)", 599, 130),
    ("meminfo.KReclaimable", 254, 8),
    ("meminfo.KernelStack", 328, 16),
    ("meminfo.Mapped", 787, 250),
    ("meminfo.MemAvailable", 988, 5000),
    ("meminfo.MemFree", 970, 5000),
    ("meminfo.PageTables", 990, 26),
    ("meminfo.SReclaimable", 254, 8),
    ("meminfo.SUnreclaim", 113, 2),
    ("meminfo.Slab", 309, 6),
    ("meminfo.VmallocUsed", 298, 8),
    ("vmstat.pgmajfault", 121, 4),
    ("vmstat.workingset_refault_file", 273, 24),
    ("zoneinfo.pcp_count", 1000, 2000),
];
/// Columns that never change.
const STILL: usize = 73 - MOVING.len();

/// Knuth's MMIX generator: the same numbers in every run.
struct Random(Cell<u64>);

impl Random {
    fn below(&self, limit: u64) -> u64 {
        self.0.set(
            self.0.get().wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407),
        );
        (self.0.get() >> 33) % limit.max(1)
    }

    /// A counter that goes up and down around where it began.
    fn walk(&self, value: &mut u64, often: u64, most: u64) {
        if self.below(1000) < often {
            let pages = self.below(most) + 1;
            let up = self.below(16 << 30) > *value;
            *value = if up { *value + pages * 4096 } else { value.saturating_sub(pages * 4096) };
        }
    }
}

fn begin() -> Begin {
    Begin {
        schema: JOURNAL_SCHEMA.to_owned(),
        schema_version: SCHEMA_VERSION,
        tool: Tool { interval_ns: INTERVAL_MS * MS, ..Tool::default() },
        host: Host { page_size: 4096, cpus: 2, memory_total: 64 << 30, ..Host::default() },
        clock: Clock { name: "CLOCK_MONOTONIC".to_owned(), realtime_offset_ns: 0 },
        target: Target { kind: TargetKind::System.into(), started_ns: MS, ..Target::default() },
    }
}

/// `VmHWM` or `VmRSS` of this process.
fn memory(field: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    line.trim_matches([':', '\t', ' ']).trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

#[test]
#[ignore = "writes the journal of a day: some minutes and 300 MiB"]
fn a_day_fits_on_the_disk_and_into_memory() {
    let temporary = tempfile::tempdir().unwrap();
    let output =
        std::env::var_os("SPARK_TRACE_DAY").map_or_else(|| temporary.path().join("day.json"), PathBuf::from);
    let partial = output.with_extension("json.partial");
    let out = BufWriter::new(Packer::new(File::create(&partial).unwrap()).unwrap());
    let mut journal = Journal::begin(out, begin()).unwrap();
    journal.add(Entry::Phase(Phase { name: "start".to_owned(), at_ns: MS })).unwrap();

    let random = Random(Cell::new(0x5eed));
    let mut system: BTreeMap<String, u64> =
        MOVING.iter().map(|(name, ..)| ((*name).to_owned(), (1 + random.below(8)) << 30)).collect();
    system.extend((0..STILL - 1).map(|still| (format!("meminfo.Still{still}"), random.below(1 << 34))));
    system.insert("meminfo.MemTotal".to_owned(), 64 << 30);
    let rss = ["rss_anon", "rss_file", "rss_peak", "rss_shmem", "swap"];
    let process: BTreeMap<String, u64> = rss.iter().map(|name| ((*name).to_owned(), 64 * MIB)).collect();
    let mut processes = vec![process; PROCESSES as usize];

    let started = Instant::now();
    let mut resident = 0;
    for reading in 0..DAY_MS / INTERVAL_MS {
        let mut now = (reading * INTERVAL_MS + 2) * MS + random.below(MS);
        let mut sample = |series, values: &BTreeMap<String, u64>, takes| {
            let (begin_ns, end_ns) = (now, now + takes + random.below(takes));
            now = end_ns + 60 + random.below(500);
            journal.add(Entry::Sample(Sample {
                series,
                begin_ns,
                end_ns,
                values: values.clone(),
                absent: Vec::new(),
            }))
        };
        for (name, often, most) in MOVING {
            random.walk(system.get_mut(*name).unwrap(), *often, *most);
        }
        sample(SeriesId::System, &system, 200_000).unwrap();
        for turn in 0..A_READING {
            let index = (reading * A_READING + turn) % PROCESSES;
            let process = &mut processes[index as usize];
            for (name, often) in [("rss_anon", 280), ("rss_peak", 240), ("rss_file", 230)] {
                random.walk(process.get_mut(name).unwrap(), often, 500);
            }
            sample(SeriesId::Process(1000 + index as u32), process, 12_000).unwrap();
        }
        journal.flush().unwrap();
        if reading % 10_000 == 0 {
            resident = resident.max(memory("VmRSS"));
        }
    }
    let recording = journal.finish(DAY_MS * MS).unwrap();
    let (took, packed, peak) = (started.elapsed(), partial.metadata().unwrap().len(), memory("VmHWM"));
    spark_trace_recording::write(
        &recording,
        &output,
        WriteOptions { force: true, ..WriteOptions::default() },
    )
    .unwrap();
    let written = output.metadata().unwrap().len();
    let readings = recording.samples.system.begin_ns.len();
    println!("journal {} MiB, recording {} MiB with {readings} readings", packed / MIB, written / MIB);
    println!("resident {} MiB, peak {} MiB; {took:.1?} for a day", resident / MIB, peak / MIB);
    assert!(packed + written <= 300 * MIB, "{packed} {written}");
    assert!(peak <= 200 * MIB, "{peak}");

    let recovering = Instant::now();
    let recovered = journal::recover(BufReader::new(File::open(&partial).unwrap())).unwrap();
    println!("recovered in {:.1?}", recovering.elapsed());
    assert!(recovered == recording, "what is recovered differs");
}
