//! The kernel's own accounts of a cgroup, read by the test while spark-trace records it, and what that says is
//! compared with.
//!
//! Both read the same counters at other times. So the test reads twice, and what was recorded in between must lie
//! between the two: exactly equal where nothing moved.

use std::collections::BTreeMap;
use std::fs;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use super::cgroup::{self, memory_root};
pub use super::clock::monotonic_ns;
use super::{Faults, Recorded, Running, array, int};

/// The kernel brings memory.stat up to date every two seconds; before, small changes may be missing in it.
pub const SETTLE: Duration = Duration::from_millis(2500);
/// Between the two readings: several of spark-trace's lie in it.
const BETWEEN: Duration = Duration::from_millis(1000);

/// A CPU takes so many pages ahead for a cgroup, and gives them back when another's turn comes
/// (mm/memcontrol.c MEMCG_CHARGE_BATCH).
const STOCK_PAGES: i64 = 64;

pub fn page_size() -> i64 {
    // SAFETY: no pointers involved.
    unsafe { libc::sysconf(libc::_SC_PAGESIZE) }
}

/// How far a charge counter may move while its cgroup does nothing.
pub fn stock() -> i64 {
    // SAFETY: no pointers involved.
    let cpus = unsafe { libc::sysconf(libc::_SC_NPROCESSORS_CONF) };
    STOCK_PAGES * cpus * page_size()
}

/// Whether this machine is there for tests only, so that its swap and huge pages may be changed.
pub fn machine_is_ours() -> bool {
    std::env::var_os("SPARK_TRACE_MACHINE").is_some()
}

/// Says why a test does not run here. `word` is what the reason is known by.
pub fn skip(word: &str, why: &str) {
    println!("SKIPPED: {word}: not-applicable: {why}");
}

/// Files and keys that have other names under the two hierarchy versions.
#[derive(Debug, Clone, Copy)]
pub struct Names {
    pub v2: bool,
    pub usage: &'static str,
    pub peak: &'static str,
    pub limit: &'static str,
    pub anon: &'static str,
    pub anon_thp: &'static str,
}

pub fn names() -> Names {
    if memory_root().1 {
        Names {
            v2: true,
            usage: "memory.current",
            peak: "memory.peak",
            limit: "memory.max",
            anon: "anon",
            anon_thp: "anon_thp",
        }
    } else {
        Names {
            v2: false,
            usage: "memory.usage_in_bytes",
            peak: "memory.max_usage_in_bytes",
            limit: "memory.limit_in_bytes",
            anon: "total_rss",
            anon_thp: "total_rss_huge",
        }
    }
}

/// A memory cgroup, by its path below the mount point.
#[derive(Debug, Clone)]
pub struct Files(pub PathBuf);

impl Files {
    pub fn of(path: &str) -> Self {
        Self(memory_root().0.join(path.trim_start_matches('/')))
    }

    pub fn of_process(pid: i64) -> Self {
        Self::of(&cgroup::of_process(u32::try_from(pid).unwrap()).unwrap())
    }

    pub fn text(&self, name: &str) -> String {
        let path = self.0.join(name);
        fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    }

    pub fn number(&self, name: &str) -> i64 {
        self.text(name).trim().parse().unwrap()
    }

    /// `key value` lines.
    pub fn keys(&self, name: &str) -> BTreeMap<String, i64> {
        let text = self.text(name);
        let pairs = text.lines().filter_map(|line| line.split_once(' '));
        pairs.map(|(key, value)| (key.to_owned(), value.trim().parse().unwrap())).collect()
    }

    pub fn write(&self, name: &str, text: &str) {
        let path = self.0.join(name);
        fs::write(&path, text).unwrap_or_else(|e| panic!("{text} to {}: {e}", path.display()));
    }

    pub fn reading(&self) -> Reading {
        let begin_ns = monotonic_ns();
        let (usage, stat) = (self.number(names().usage), self.keys("memory.stat"));
        Reading { begin_ns, end_ns: monotonic_ns(), usage, stat }
    }

    /// Two readings of a cgroup in which nothing is going on any more.
    pub fn settled(&self) -> Bracket {
        std::thread::sleep(SETTLE);
        let before = self.reading();
        std::thread::sleep(BETWEEN);
        Bracket { before, after: self.reading() }
    }
}

/// What a cgroup's files said.
#[derive(Debug)]
pub struct Reading {
    begin_ns: i64,
    end_ns: i64,
    pub usage: i64,
    pub stat: BTreeMap<String, i64>,
}

impl Reading {
    /// Sum of keys of memory.stat. Those that this kernel does not have are nothing.
    pub fn sum(&self, keys: &[&str]) -> i64 {
        keys.iter().filter_map(|key| self.stat.get(*key)).sum()
    }
}

/// Two readings with spark-trace's own between them.
#[derive(Debug)]
pub struct Bracket {
    pub before: Reading,
    pub after: Reading,
}

impl Bracket {
    /// Values from the one to the other.
    pub fn range(&self, of: impl Fn(&Reading) -> i64) -> RangeInclusive<i64> {
        let (before, after) = (of(&self.before), of(&self.after));
        before.min(after)..=before.max(after)
    }

    /// Indices of the readings in `series` that lie between.
    fn between(&self, series: &Value) -> Vec<usize> {
        let windows = array(&series["begin_ns"]).iter().zip(array(&series["end_ns"]));
        let inside = |(begin, end): (&Value, &Value)| {
            int(begin) >= self.before.end_ns && int(end) <= self.after.begin_ns
        };
        windows.enumerate().filter(|(_, window)| inside(*window)).map(|(index, _)| index).collect()
    }

    /// All that was recorded of the cgroup in between is what the kernel says. Returns the times of those readings.
    pub fn check_samples(&self, series: &Value, faults: &mut Faults) -> Vec<i64> {
        let indices = self.between(series);
        faults.expect(!indices.is_empty(), || "nothing was recorded between the two readings".to_owned());
        let columns = &series["columns"];
        for key in self.before.stat.keys().filter(|key| self.after.stat.contains_key(*key)) {
            let column = &columns[format!("stat.{key}")];
            let truth = self.range(|reading| reading.stat[key]);
            for &index in &indices {
                let recorded = column[index].as_i64();
                faults.expect(recorded.is_some_and(|bytes| truth.contains(&bytes)), || {
                    format!("stat.{key}: recorded {recorded:?}, the kernel says {truth:?}")
                });
            }
        }
        let truth = self.range(|reading| reading.usage);
        for &index in &indices {
            let recorded = int(&columns[names().usage][index]);
            faults.expect(near(recorded, &truth, stock()), || {
                format!("{}: recorded {recorded}, the kernel says {truth:?}", names().usage)
            });
        }
        let middle = |index: usize| {
            let (begin, end) = (int(&series["begin_ns"][index]), int(&series["end_ns"][index]));
            begin + (end - begin) / 2
        };
        indices.into_iter().map(middle).collect()
    }
}

/// Within the range or no farther from it than `slack`.
pub fn near(value: i64, range: &RangeInclusive<i64>, slack: i64) -> bool {
    (range.start() - slack..=range.end() + slack).contains(&value)
}

/// Rows of a plane, by slug. What the kernel does not count is nothing.
pub fn levels(show: &Value, plane: &str) -> BTreeMap<String, i64> {
    let rows = array(&show["planes"][plane]["sources"]).iter();
    rows.map(|row| (row["source"].as_str().unwrap().to_owned(), row["bytes"].as_i64().unwrap_or(0))).collect()
}

/// The readings of a target's cgroup.
pub fn series<'a>(recording: &'a Value, path: &str) -> &'a Value {
    let mut all = array(&recording["samples"]["cgroups"]).iter();
    all.find(|series| series["path"] == path).unwrap_or_else(|| panic!("no readings of {path}"))
}

/// The target's only cgroup in a recording, as spark-trace saw its end.
pub fn cgroup_row<'a>(recording: &'a Value, path: &str) -> &'a Value {
    let mut all = array(&recording["target"]["cgroups"]).iter();
    all.find(|row| row["path"] == path).unwrap_or_else(|| panic!("{path} is not in the target"))
}

/// The highest that a column was recorded.
pub fn highest(series: &Value, column: &str) -> Option<i64> {
    series["columns"][column].as_array()?.iter().filter_map(Value::as_i64).max()
}

/// The last that a column was recorded.
pub fn last(series: &Value, column: &str) -> Option<i64> {
    series["columns"][column].as_array()?.iter().rev().find_map(Value::as_i64)
}

impl Recorded {
    /// What `show` says of the instant at `at_ns` of the recording's clock.
    pub fn show_at(&self, at_ns: i64) -> Value {
        self.show_with(&["--at", &format!("@{at_ns}")])
    }

    /// It is whole, and nothing was lost but runs of programs that would have interrupted another run on the same
    /// CPU: the kernel leaves those out, more of them the more it preempts. Returns how many, by hook.
    pub fn whole(&self, faults: &mut Faults) -> BTreeMap<String, i64> {
        let recording = self.recording();
        let health = &recording["health"];
        let hooks = array(&health["hooks"]).iter();
        let left_out: BTreeMap<String, i64> = hooks
            .filter_map(|hook| Some((hook["name"].as_str()?.to_owned(), hook["lost"].as_i64()?)))
            .filter(|(_, count)| *count > 0)
            .collect();
        for loss in array(&health["losses"]).iter().filter(|loss| int(&loss["count"]) > 0) {
            let is_counted =
                loss["what"] == "skipped_runs" && int(&loss["count"]) == left_out.values().sum::<i64>();
            faults.expect(is_counted, || format!("lost: {loss}, of hooks: {left_out:?}"));
        }
        if !left_out.is_empty() {
            println!("runs left out: {left_out:?}");
        }
        faults.expect(health["complete"] == true, || "the recording is not complete".to_owned());
        left_out
    }
}

/// A workload's line, started as the target of a recording.
pub fn start(output: &str, options: &str, line: &str) -> Running {
    let line = format!("{options} -- {} {line} --jsonl", super::workload());
    Running::start(output, &line.split_whitespace().collect::<Vec<_>>())
}

/// A file of settings that apply to the whole machine: as before when dropped.
#[derive(Debug)]
pub struct Setting {
    path: PathBuf,
    before: String,
}

impl Setting {
    /// Of a file with a list the chosen word is in brackets.
    pub fn change(path: &str, to: &str) -> Self {
        let text = fs::read_to_string(path).unwrap_or_else(|e| panic!("{path}: {e}"));
        let chosen = text.split_whitespace().find_map(|word| word.strip_prefix('[')?.strip_suffix(']'));
        let before = chosen.unwrap_or(text.trim()).to_owned();
        fs::write(path, to).unwrap_or_else(|e| panic!("{to} to {path}: {e}"));
        Self { path: Path::new(path).to_owned(), before }
    }
}

impl Drop for Setting {
    fn drop(&mut self) {
        if let Err(error) = fs::write(&self.path, &self.before) {
            eprintln!("cannot write {} back to {}: {error}", self.before, self.path.display());
        }
    }
}
