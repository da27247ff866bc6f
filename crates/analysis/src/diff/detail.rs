//! What the differences of the sources are made of: files, kernel stacks, mappings.

use crate::signed::signed;
use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::charges;
use crate::files::{self, FileRow};
use crate::names::Names;
use crate::processes;
use crate::regions;
use crate::stacks::{self, StackRow};
use crate::view::Scope;
use spark_trace_recording::Recording;

/// A recording and the instant to look at it.
pub type Look<'a> = (&'a Recording, u64);

/// Which run has something at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnlyIn {
    A,
    B,
}

/// Page cache of the file that both runs know by the same name.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FileDelta {
    /// Path below the container engine's storage, if it lies in one.
    pub path: String,
    pub a_bytes: i64,
    pub b_bytes: i64,
    pub delta_bytes: i64,
    /// Absent where both have it.
    pub only_in: Option<OnlyIn>,
    /// Who holds its pages in each run, charged to the target or not.
    pub a_holders: Vec<FileRow>,
    pub b_holders: Vec<FileRow>,
}

/// Pages in use by one kernel stack.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StackDelta {
    pub source: &'static str,
    pub label: String,
    pub frames: Vec<String>,
    pub a_bytes: i64,
    pub b_bytes: i64,
    pub delta_bytes: i64,
    pub only_in: Option<OnlyIn>,
}

/// Pages charged through one kernel path.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ChargeDelta {
    pub class: &'static str,
    pub frames: Vec<String>,
    pub a_bytes: u64,
    pub b_bytes: u64,
    pub delta_bytes: i64,
}

/// Anonymous or shared memory of one named mapping in processes of one command name.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RegionDelta {
    /// `anon` or `shmem`.
    pub source: &'static str,
    pub comm: String,
    /// Name of the mapping, `(all)` for what was sampled of whole processes.
    pub region: String,
    pub a_bytes: i64,
    pub b_bytes: i64,
    pub delta_bytes: i64,
    pub only_in: Option<OnlyIn>,
}

/// Files whose page cache differs, or that only others than the target hold in one run; the largest difference first.
///
/// On the cgroup plane only pages charged to the target count, but every holder is listed: a file that
/// costs one run nothing because another cgroup touched it first is the difference to look for.
pub fn files(scope: Scope, a: Look<'_>, b: Look<'_>) -> Vec<FileDelta> {
    let counts = |row: &FileRow| match scope {
        Scope::System => true,
        Scope::Cgroup => row.charged_to_target,
        // The page cache is the system's memory.
        Scope::Device => false,
    };
    let holders = |(recording, at_ns): Look<'_>| {
        let mut by_path: BTreeMap<String, Vec<FileRow>> = BTreeMap::new();
        for row in files::largest(recording, at_ns).into_iter().filter(|row| row.bytes != 0) {
            by_path.entry(row.inner_path.clone()).or_default().push(row);
        }
        by_path
    };
    let bytes_of = |rows: &[FileRow]| {
        rows.iter().filter(|row| counts(row)).map(|row| row.bytes).fold(0, i64::saturating_add)
    };
    let joined = join(holders(a), holders(b)).into_iter().map(|(path, a_holders, b_holders)| {
        let (a_bytes, b_bytes) = (bytes_of(&a_holders), bytes_of(&b_holders));
        let only_in = only_in(a_holders.iter().any(counts), b_holders.iter().any(counts));
        let delta_bytes = b_bytes.saturating_sub(a_bytes);
        FileDelta { path, a_bytes, b_bytes, delta_bytes, only_in, a_holders, b_holders }
    });
    largest_first(joined.filter(|row| row.delta_bytes != 0).collect(), |row| row.delta_bytes)
}

/// Stacks whose pages in use differ, matched by the names of their frames.
pub fn stacks(scope: Scope, a: Look<'_>, b: Look<'_>) -> Vec<StackDelta> {
    let groups = |(recording, at_ns): Look<'_>| {
        let mut by_frames: BTreeMap<(&'static str, Vec<String>), Vec<StackRow>> = BTreeMap::new();
        for row in stacks::rows(recording, scope, at_ns) {
            by_frames.entry((row.source, base_names(&row.frames))).or_default().push(row);
        }
        by_frames
    };
    let bytes_of = |rows: &[StackRow]| {
        let sum = rows.iter().map(|row| row.bytes).fold(0, u64::saturating_add);
        signed(sum)
    };
    let joined = join(groups(a), groups(b)).into_iter().map(|((source, frames), a, b)| {
        let (a_bytes, b_bytes) = (bytes_of(&a), bytes_of(&b));
        let label = a.iter().chain(&b).map(|row| row.label.clone()).next().unwrap_or_default();
        let delta_bytes = b_bytes.saturating_sub(a_bytes);
        let only_in = only_in(!a.is_empty(), !b.is_empty());
        StackDelta { source, label, frames, a_bytes, b_bytes, delta_bytes, only_in }
    });
    largest_first(joined.filter(|row| row.delta_bytes != 0).collect(), |row| row.delta_bytes)
}

/// Paths that charged the target's cgroups differently; nothing where one of the runs was not watched.
pub fn charges(scope: Scope, a: Look<'_>, b: Look<'_>) -> Vec<ChargeDelta> {
    let groups = |(recording, at_ns): Look<'_>| {
        let mut by_frames: BTreeMap<(&'static str, Vec<String>), u64> = BTreeMap::new();
        for row in charges::rows(recording, at_ns) {
            let sum = by_frames.entry((row.class, base_names(&row.frames))).or_default();
            *sum = sum.saturating_add(row.bytes_charged);
        }
        by_frames
    };
    let (a, b) = (groups(a), groups(b));
    if scope != Scope::Cgroup || a.is_empty() || b.is_empty() {
        return vec![];
    }
    let joined = join(a, b).into_iter().map(|((class, frames), a_bytes, b_bytes)| {
        let delta_bytes = (b_bytes as i64).saturating_sub(a_bytes as i64);
        ChargeDelta { class, frames, a_bytes, b_bytes, delta_bytes }
    });
    largest_first(joined.filter(|row| row.delta_bytes != 0).collect(), |row| row.delta_bytes)
}

/// Builds of one kernel differ in how the compiler named clones of a function.
fn base_names(frames: &[String]) -> Vec<String> {
    let base = |frame: &String| match frame.split_once(" [") {
        Some((name, module)) => format!("{} [{module}", spark_trace_recording::classify::base_name(name)),
        None => spark_trace_recording::classify::base_name(frame).to_owned(),
    };
    frames.iter().map(base).collect()
}

/// What processes hold of anonymous and shared memory: by mapping where mappings were read, else by
/// command. Only the target's processes, on either plane: no others are sampled.
pub fn regions(scope: Scope, a: Look<'_>, b: Look<'_>) -> Vec<RegionDelta> {
    if scope == Scope::Device {
        return vec![];
    }
    // Mappings are read once or twice a run; a comparison needs them on both sides, and of its instant.
    let by_mapping = [a, b].iter().all(|(recording, at_ns)| regions::are_of(recording, *at_ns));
    let rows_of = if by_mapping { by_region } else { by_command };
    let joined = join(rows_of(a), rows_of(b)).into_iter().map(|((source, comm, region), a, b)| {
        let (a_bytes, b_bytes) = (a.unwrap_or(0), b.unwrap_or(0));
        let delta_bytes = b_bytes.saturating_sub(a_bytes);
        let only_in = only_in(a.is_some(), b.is_some());
        RegionDelta { source, comm, region, a_bytes, b_bytes, delta_bytes, only_in }
    });
    largest_first(joined.filter(|row| row.delta_bytes != 0).collect(), |row| row.delta_bytes)
}

/// Stands for all mappings of a command.
const ALL: &str = "(all)";

type Bytes = BTreeMap<(&'static str, String, String), Option<i64>>;

fn by_region((recording, at_ns): Look<'_>) -> Bytes {
    let mut bytes_by = Bytes::new();
    for row in regions::rows(recording, at_ns) {
        // Shares that cannot be added up: as the process with the most sees it.
        let shared = row.pss.map_or(row.rss_largest, |pss| pss.saturating_sub(row.anonymous));
        let shared = if row.is_shared_memory() { shared } else { 0 };
        for (source, bytes) in [("anon", row.anonymous), ("shmem", shared)] {
            add(&mut bytes_by, (source, row.comm.clone(), row.name.clone()), bytes);
        }
    }
    bytes_by
}

fn by_command((recording, at_ns): Look<'_>) -> Bytes {
    let names = Names::new(recording);
    let target: BTreeSet<u32> = {
        let processes = recording.provenance.processes.iter();
        processes.filter(|process| names.is_target(process.cgroup)).map(|process| process.pid).collect()
    };
    let mut bytes_by = Bytes::new();
    for row in processes::rows(recording, at_ns).into_iter().filter(|row| target.contains(&row.pid)) {
        let Some(split) = row.at else { continue };
        let key = |source| (source, row.comm.clone(), ALL.to_owned());
        add(&mut bytes_by, key("anon"), split.rss_anon.unwrap_or(0));
        // The same pages are in every process that shares them: as the one with the most sees them.
        let shared = signed(split.rss_shmem.unwrap_or(0));
        if shared > 0 {
            let most = bytes_by.entry(key("shmem")).or_default();
            *most = Some(most.unwrap_or(0).max(shared));
        }
    }
    bytes_by
}

fn add(bytes_by: &mut Bytes, key: (&'static str, String, String), bytes: u64) {
    if bytes > 0 {
        let bytes = signed(bytes);
        let sum = bytes_by.entry(key).or_default();
        *sum = Some(sum.unwrap_or(0).saturating_add(bytes));
    }
}

fn only_in(a: bool, b: bool) -> Option<OnlyIn> {
    match (a, b) {
        (true, false) => Some(OnlyIn::A),
        (false, true) => Some(OnlyIn::B),
        _ => None,
    }
}

/// Every key of either map with its value in both.
fn join<K: Ord + Clone, V: Default>(mut a: BTreeMap<K, V>, mut b: BTreeMap<K, V>) -> Vec<(K, V, V)> {
    let keys: BTreeSet<K> = a.keys().chain(b.keys()).cloned().collect();
    keys.into_iter()
        .map(|key| {
            let (a, b) = (a.remove(&key).unwrap_or_default(), b.remove(&key).unwrap_or_default());
            (key, a, b)
        })
        .collect()
}

fn largest_first<T>(mut rows: Vec<T>, delta: impl Fn(&T) -> i64) -> Vec<T> {
    rows.sort_by_key(|row| std::cmp::Reverse(delta(row).unsigned_abs()));
    rows
}
