//! What changed on the machine between the two readings of an engine, by source and by process.

use crate::signed::signed;
use std::collections::{BTreeMap, BTreeSet};

use spark_trace_recording::Recording;

use super::arithmetic::Worth;
use super::outside_device::Device;
use super::state::{self, State};
use super::{Change, ChangeOf, ProcessUse, Reading, Role, own, reading};
use crate::names::Names;

/// A reading with the memory at that moment.
pub struct Moment<'a> {
    pub reading: &'a Reading,
    pub state: State,
}

impl<'a> Moment<'a> {
    pub fn new(recording: &Recording, reading: &'a Reading) -> Self {
        Self { reading, state: State::at(recording, reading) }
    }

    /// Whether the signal counts page cache as free.
    pub fn is_available(&self) -> bool {
        self.reading.signal == Some(reading::AVAILABLE)
    }
}

/// Sources of which MemAvailable counts the bytes as free (mm/show_mem.c si_mem_available): pages of files, which lie on
/// the lists of active and inactive files whether clean or dirty, and what shrinkers can give back.
const COUNTED_AS_AVAILABLE: &[&str] =
    &["file-clean", "file-dirty", "swap-cache", "slab-reclaimable", "kernel-other"];

/// Whether a source's bytes are taken off a signal.
pub fn lowers(source: &str, signal: Option<&str>) -> bool {
    match signal {
        Some(reading::AVAILABLE) => !COUNTED_AS_AVAILABLE.contains(&source),
        // No memory of the machine is on a GPU with memory of its own.
        Some(reading::GPU_MEMORY) => false,
        _ => true,
    }
}

/// The parts of the fall from one reading to the other. They add up to it: what no source explains is a row.
pub fn between(recording: &Recording, before: &Moment<'_>, after: &Moment<'_>) -> Vec<Change> {
    if after.reading.signal == Some(reading::GPU_MEMORY) {
        return of_device(recording, before, after);
    }
    let is_available = after.is_available();
    let row = |source: &'static str, title: &'static str, before: i64, after: i64| Change {
        source,
        title,
        before,
        after,
        change: after.saturating_sub(before),
    };
    let device = |moment: &Moment<'_>| signed(state::device_in_anon(recording, moment.reading));
    let (Some(old), Some(new)) = (&before.state.balance, &after.state.balance) else { return vec![] };
    let mut rows: Vec<Change> = Vec::new();
    for old_row in &old.rows {
        let source = old_row.source;
        let (Some(was), Some(is)) = (old_row.bytes, new.bytes(source.slug)) else { continue };
        if !lowers(source.slug, after.reading.signal) {
            continue;
        }
        let own = |moment| if source.slug == "anon" { device(moment) } else { 0 };
        rows.push(row(source.slug, source.title, signed(was) - own(before), signed(is) - own(after)));
    }
    rows.push(row(ChangeOf::OwnDevice.as_str(), OWN, device(before), device(after)));
    if is_available && let (Some(was), Some(is)) = (before.state.reserve(), after.state.reserve()) {
        rows.push(row(ChangeOf::Reserve.as_str(), RESERVE, signed(was), signed(is)));
    }
    close(rows, before, after)
}

const OWN: &str = "device memory of the engine: weights, and what it keeps of the dummy run";
const RESERVE: &str =
    "kept back by the kernel: watermarks, and the part of page cache and slab that it does not count on";
const REST: &str = "in no row above";

/// Of a GPU with memory of its own: the engine's, and everything else on it.
fn of_device(recording: &Recording, before: &Moment<'_>, after: &Moment<'_>) -> Vec<Change> {
    let live = |moment: &Moment<'_>| own::live_at(recording, &moment.reading.query).map(signed);
    let (Some(was), Some(is)) = (live(before), live(after)) else { return vec![] };
    let own = Change {
        source: ChangeOf::OwnDevice.as_str(),
        title: OWN,
        before: was,
        after: is,
        change: is.saturating_sub(was),
    };
    close(vec![own], before, after)
}

/// With what is missing to the whole, as its own row; rows of nothing are left out.
fn close(mut rows: Vec<Change>, before: &Moment<'_>, after: &Moment<'_>) -> Vec<Change> {
    let used =
        |moment: &Moment<'_>| Some(signed(moment.reading.total?).saturating_sub(signed(moment.reading.free)));
    let sum = |of: fn(&Change) -> i64| rows.iter().map(of).fold(0_i64, i64::saturating_add);
    if let (Some(was), Some(is)) = (used(before), used(after)) {
        let (was, is) = (was - sum(|row| row.before), is - sum(|row| row.after));
        rows.push(Change {
            source: ChangeOf::Unattributed.as_str(),
            title: REST,
            before: was,
            after: is,
            change: is.saturating_sub(was),
        });
    }
    rows.retain(|row| row.before != 0 || row.after != 0);
    rows.sort_by_key(|row| std::cmp::Reverse(row.change));
    rows
}

/// Host memory of processes at both readings. What the target's have, less their device memory where that lies in
/// theirs; what is mapped of the machine's anonymous memory beyond that is of others.
pub fn processes(
    recording: &Recording,
    before: Option<&Moment<'_>>,
    at: &Moment<'_>,
    worth: Option<Worth>,
) -> Vec<ProcessUse> {
    let names = Names::new(recording);
    let engine = at.reading.query.pid;
    let children = descendants(recording, engine);
    let used = |moment: &Moment<'_>| -> BTreeMap<u32, u64> {
        let living = state::living(recording, moment.reading.at_ns);
        let device = state::device_in_anon(recording, moment.reading);
        let processes = moment.state.processes.iter().filter(|(pid, _)| living.contains(pid));
        processes
            .map(|(&pid, &bytes)| (pid, if pid == engine { bytes.saturating_sub(device) } else { bytes }))
            .collect()
    };
    let (was, is) = (before.map(used), used(at));
    let lived = before.map(|moment| state::living(recording, moment.reading.at_ns)).unwrap_or_default();
    // Who lived at the baseline and was not read near it, or changed just then, had memory that nobody knows.
    let at_baseline = |pid: u32| match was.as_ref()?.get(&pid) {
        _ if before.is_some_and(|moment| moment.state.changing.contains(&pid)) => None,
        None if lived.contains(&pid) => None,
        bytes => Some(bytes.copied().unwrap_or(0)),
    };
    let pids: BTreeSet<u32> = is.keys().chain(was.iter().flat_map(BTreeMap::keys)).copied().collect();
    let mut rows: Vec<ProcessUse> = pids
        .into_iter()
        .map(|pid| ProcessUse {
            pid: Some(pid),
            comm: names.comm(pid),
            role: match () {
                () if pid == engine => Role::Engine,
                () if children.contains(&pid) => Role::Child,
                () => Role::Other,
            },
            before: at_baseline(pid),
            at: is.get(&pid).copied().unwrap_or(0),
            device: None,
            costs: None,
        })
        .collect();
    let baseline_ns = before.map(|moment| moment.reading.at_ns);
    rows.extend(super::outside::at_readings(recording, baseline_ns, at.reading.at_ns));
    rows.extend(outside(recording, before, at, was.as_ref(), &is));
    for row in &mut rows {
        let is_known =
            |worth: &Worth| before.is_none() || row.before.is_some() || !worth.counts_the_baseline();
        row.costs = worth
            .filter(|worth| row.role != Role::Engine && is_known(worth))
            .map(|worth| worth.of(signed(row.at), row.before.map_or(0, signed)));
    }
    rows.retain(|row| row.at > 0 || row.before.is_some_and(|before| before > 0));
    rows.sort_by_key(|row| std::cmp::Reverse((row.costs.map_or(0, i64::abs), row.at)));
    rows
}

/// Memory of everybody else, as one row: anonymous, shared, and of a GPU without memory of its own. Absent where the whole machine
/// is the target.
fn outside(
    recording: &Recording,
    before: Option<&Moment<'_>>,
    at: &Moment<'_>,
    was: Option<&BTreeMap<u32, u64>>,
    is: &BTreeMap<u32, u64>,
) -> Option<ProcessUse> {
    let device = |moment: &Moment<'_>| Device::at(recording, moment.reading.at_ns).sum();
    let (device_before, device_at) = (before.map(device), device(at));
    // Of one time alone it would be a change that was none.
    let is_known = device_at.is_some() && device_before.is_none_or(|bytes| bytes.is_some());
    let rest = |moment: &Moment<'_>, of: &BTreeMap<u32, u64>, device: Option<u64>| {
        let mapped = moment.state.counter("AnonPages")?.checked_add(moment.state.counter("Shmem")?)?;
        let own = of.values().sum::<u64>().saturating_add(state::device_in_anon(recording, moment.reading));
        Some(mapped.saturating_sub(own).saturating_add(device.filter(|_| is_known).unwrap_or(0)))
    };
    let at = rest(at, is, device_at)?;
    let before = match before.zip(was) {
        Some((moment, was)) => Some(rest(moment, was, device_before.flatten())?),
        None => None,
    };
    let device = device_at.filter(|device| is_known && *device > 0);
    Some(ProcessUse { pid: None, comm: String::new(), role: Role::Outside, before, at, device, costs: None })
}

/// Processes that one started, and those that they started.
fn descendants(recording: &Recording, of: u32) -> BTreeSet<u32> {
    let mut found = BTreeSet::from([of]);
    // Parents come before their children, but a number may come again.
    for _ in 0..2 {
        for process in &recording.provenance.processes {
            if process.parent.is_some_and(|parent| found.contains(&parent)) {
                found.insert(process.pid);
            }
        }
    }
    found.remove(&of);
    found
}
