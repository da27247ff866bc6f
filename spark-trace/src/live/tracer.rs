//! The state of a trace under way: what events and samples do to the journal.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io::Write,
    time::Duration,
};

use spark_trace_common::event::{CgroupOp, MappingOp, ProcessOp};
use thiserror::Error;

use super::{
    aggregates::Collector,
    cgroup::{self, Layout},
    now_ns,
    object::{Object, ObjectError},
    page_size,
    source::{
        cgroup::Cgroup as CgroupReader,
        process::{self, Processes},
        system::System,
    },
    symbols::Stacks,
};
use crate::{
    decode::{self, Event},
    ledger::{self, Plane},
    recording::{
        CgroupName, Mapping, Phase, Process, Series, Target, TargetCgroup,
        journal::{Entry, Journal, Sample, SeriesId},
    },
};

#[derive(Debug, Error)]
pub enum TracerError {
    #[error("cannot write the journal: {0}; is the disk full?")]
    Journal(#[from] std::io::Error),
    #[error(transparent)]
    Object(#[from] ObjectError),
}

/// A cgroup that is, or may turn out to be, part of the target.
struct Selected {
    info: TargetCgroup,
    reader: CgroupReader,
    /// Readings from before it was known to be the target's.
    waiting: Vec<Sample>,
    gone: bool,
}

/// An event of a process that may turn out to be the target's. A stack is resolved at once: its process may
/// have become another program by the time the target is known.
enum Waiting {
    Process(decode::Process),
    Mapping(decode::Mapping, Option<u32>),
}

/// Which cgroups are the target's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Resolution {
    /// A container is being waited for: every new cgroup may be it.
    Open,
    Done,
}

/// Something the session must act on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// A cgroup appeared that may be the awaited container's.
    Candidate { id: u64, path: String },
    /// The last process of a root of the target ended.
    Emptied(u64),
}

pub struct Tracer<W: Write> {
    pub object: Object,
    pub journal: Journal<W>,
    pub target: Target,
    pub stacks: Stacks,
    pub collector: Collector,
    layout: Layout,
    system: System,
    /// What the last reading of the system plane left unattributed.
    residual: Option<i64>,
    processes: Processes,
    min_region: u64,
    cgroups: BTreeMap<u64, Selected>,
    known: HashMap<u32, Process>,
    alive: BTreeSet<u32>,
    resolution: Resolution,
    /// Events from before the target was known.
    waiting: Vec<Waiting>,
    peaks: Peaks,
    follows_pids: bool,
    executed: bool,
    pub decode_errors: u64,
}

/// When the aggregates were last read for a peak, and at which level.
#[derive(Debug, Default)]
struct Peaks {
    system: Peak,
    cgroup: Peak,
    last_read_ns: u64,
    cost_ns: u64,
}

/// The highest level of a plane, and the one at which the aggregates were read.
#[derive(Debug, Default)]
struct Peak {
    highest: u64,
    read_at: u64,
}

impl Peak {
    /// Whether `level` is the peak, or as good as it, and stands clearly above the last one read.
    fn reached(&mut self, level: u64) -> bool {
        self.highest = self.highest.max(level);
        let margin = (self.highest >> 9).max(256 << 10);
        level + margin >= self.highest && level > self.read_at + margin
    }
}

/// How long a machine is given to stand still, and how still that is.
const SETTLE_TRIES: u32 = 20;
const SETTLE_PAUSE: Duration = Duration::from_millis(15);
/// Bytes between two readings that are not worth a third.
const IN_TRANSIT: u64 = 1 << 20;
/// Readings more of a disturbed one, and the time given to what disturbs it.
const REREADS: u32 = 3;
const REREAD_PAUSE: Duration = Duration::from_millis(3);

/// A reading of the aggregates is followed by so many times its own length without one, ...
const REST_FACTOR: u64 = 4;
/// ... but however dear it is, a peak waits no longer for it.
const LONGEST_WAIT_NS: u64 = 300_000_000;

impl<W: Write> Tracer<W> {
    pub fn new(
        object: Object,
        journal: Journal<W>,
        target: Target,
        parts: (Stacks, Collector, Layout, System),
        min_region: u64,
    ) -> Self {
        let (stacks, collector, layout, system) = parts;
        Self {
            object,
            journal,
            target,
            stacks,
            collector,
            layout,
            system,
            residual: None,
            processes: Processes::default(),
            min_region,
            cgroups: BTreeMap::new(),
            known: HashMap::new(),
            alive: BTreeSet::new(),
            resolution: Resolution::Done,
            waiting: Vec::new(),
            peaks: Peaks::default(),
            follows_pids: false,
            executed: false,
            decode_errors: 0,
        }
    }

    /// Selects a cgroup with its descendants as a root of the target.
    pub fn add_root(&mut self, path: &str, created: bool) -> Result<(), TracerError> {
        let now = now_ns();
        for (id, path) in self.layout.subtree(path) {
            self.object.select_cgroup(id)?;
            let root = self.cgroups.is_empty() || !self.has_ancestor(&path);
            self.open_cgroup(id, path, root, created.then_some(now));
        }
        let members: Vec<u32> =
            self.cgroups.values().flat_map(|c| cgroup::processes(&self.layout.dir(&c.info.path))).collect();
        for pid in members {
            self.add_process(pid)?;
        }
        self.publish_target()
    }

    /// Follows a process and what it forks, wherever it goes.
    pub fn add_pid(&mut self, pid: u32) -> Result<(), TracerError> {
        self.object.select_pid(pid)?;
        self.follows_pids = true;
        self.add_process(pid)
    }

    /// Selects every cgroup created from now on until [`Self::resolve`] says which is meant.
    pub fn wait_for_container(&mut self) -> Result<(), TracerError> {
        self.resolution = Resolution::Open;
        Ok(self.object.select_new_cgroups(true)?)
    }

    /// Ends the wait: those candidates that `is_target` accepts, with all below them, are the target.
    pub fn resolve(&mut self, is_target: impl Fn(&str) -> bool) -> Result<(), TracerError> {
        self.object.select_new_cgroups(false)?;
        self.resolution = Resolution::Done;
        let all: Vec<u64> = self.cgroups.keys().copied().collect();
        let paths: Vec<String> =
            self.cgroups.values().map(|c| c.info.path.clone()).filter(|p| is_target(p)).collect();
        for id in all {
            let Some(selected) = self.cgroups.get_mut(&id) else { continue };
            if paths.iter().any(|root| is_at_or_below(&selected.info.path, root)) {
                selected.info.root =
                    !paths.iter().any(|p| *p != selected.info.path && is_at_or_below(&selected.info.path, p));
            } else {
                self.object.deselect_cgroup(id)?;
                self.cgroups.remove(&id);
            }
        }
        self.publish_target()?;
        for id in self.cgroups.keys().copied().collect::<Vec<_>>() {
            let samples =
                self.cgroups.get_mut(&id).map(|c| std::mem::take(&mut c.waiting)).unwrap_or_default();
            for sample in samples {
                self.journal.add(Entry::Sample(sample))?;
            }
        }
        for event in std::mem::take(&mut self.waiting) {
            match event {
                Waiting::Process(event) if self.is_ours(event.cgroup, event.pid, event.parent) => {
                    self.process_event(event)?;
                }
                Waiting::Mapping(event, stack) if self.follows(event.pid) => {
                    self.mapping_event(event, stack)?
                }
                Waiting::Process(_) | Waiting::Mapping(..) => {}
            }
        }
        Ok(())
    }

    pub const fn is_waiting(&self) -> bool {
        matches!(self.resolution, Resolution::Open)
    }

    /// Whether every root of the target is without processes or gone.
    pub fn is_empty(&self) -> bool {
        self.cgroups.values().all(|c| c.gone || cgroup::processes(&self.layout.dir(&c.info.path)).is_empty())
    }

    pub fn has_cgroups(&self) -> bool {
        !self.cgroups.is_empty()
    }

    /// Handles one record of the event ring buffer.
    pub fn event(&mut self, bytes: &[u8]) -> Result<Option<Notice>, TracerError> {
        match decode::decode(bytes) {
            Ok(event) => self.apply(event),
            Err(_) => {
                self.decode_errors += 1;
                Ok(None)
            }
        }
    }

    fn apply(&mut self, event: Event) -> Result<Option<Notice>, TracerError> {
        match event {
            Event::FileName(name) => self.collector.name_file(name.device, name.inode, name.path),
            Event::Cgroup(event) => return self.cgroup_event(event),
            Event::Process(event) => {
                if self.resolution == Resolution::Open {
                    // Its stacks can only be named while it lives, so look at it now.
                    if event.op == ProcessOp::Exec {
                        self.stacks.look_at(event.pid);
                    }
                    self.waiting.push(Waiting::Process(event));
                } else if self.is_ours(event.cgroup, event.pid, event.parent) {
                    self.process_event(event)?;
                }
            }
            Event::Mapping(event) => {
                if self.resolution == Resolution::Open {
                    let stack = self.user_stack(&event);
                    self.waiting.push(Waiting::Mapping(event, stack));
                } else if self.follows(event.pid) {
                    let stack = self.user_stack(&event);
                    self.mapping_event(event, stack)?;
                }
            }
        }
        Ok(None)
    }

    fn is_ours(&self, cgroup: u64, pid: u32, parent: u32) -> bool {
        self.target.kind == "system"
            || self.cgroups.contains_key(&cgroup)
            || self.known.contains_key(&pid)
            || self.follows_pids && self.known.contains_key(&parent)
    }

    fn cgroup_event(&mut self, event: decode::Cgroup) -> Result<Option<Notice>, TracerError> {
        match event.op {
            CgroupOp::Mkdir => {
                let name = CgroupName { id: event.id, path: event.path.clone(), target: event.target };
                self.journal.add(Entry::Cgroup(name))?;
                if event.target && !self.cgroups.contains_key(&event.id) {
                    let root = !self.has_ancestor(&event.path);
                    self.open_cgroup(event.id, event.path.clone(), root, Some(event.at_ns));
                    if self.resolution == Resolution::Open {
                        return Ok(Some(Notice::Candidate { id: event.id, path: event.path }));
                    }
                    self.publish_target()?;
                }
            }
            CgroupOp::Rmdir => {
                if let Some(selected) = self.cgroups.get_mut(&event.id) {
                    selected.gone = true;
                    selected.info.removed_ns = Some(event.at_ns);
                    if let Some((usage, peak)) = event.usage_pages {
                        selected.info.usage_at_removal = Some(usage * page_size());
                        selected.info.peak_at_removal = Some(peak * page_size());
                    }
                    self.publish_target()?;
                }
            }
            CgroupOp::Populated => {
                if !event.populated && self.cgroups.get(&event.id).is_some_and(|c| c.info.root) {
                    return Ok(Some(Notice::Emptied(event.id)));
                }
            }
        }
        Ok(None)
    }

    fn process_event(&mut self, event: decode::Process) -> Result<(), TracerError> {
        let process = self.known.entry(event.pid).or_insert_with(|| Process {
            pid: event.pid,
            parent: Some(event.parent),
            cgroup: event.cgroup,
            ..Process::default()
        });
        process.comm = event.comm;
        process.cgroup = event.cgroup;
        match event.op {
            ProcessOp::Fork => {
                process.started_ns = Some(event.at_ns);
                self.alive.insert(event.pid);
            }
            ProcessOp::Exec => {
                process.exec_ns = Some(event.at_ns);
                process.argv = process::argv(event.pid);
                self.alive.insert(event.pid);
                self.stacks.look_at(event.pid);
            }
            ProcessOp::Exit => {
                process.ended_ns = Some(event.at_ns);
                process.exit_status = Some(event.status);
                process.rss_peak = event.rss_peak_pages.map(|p| p * page_size());
                self.alive.remove(&event.pid);
                self.stacks.forget(event.pid);
            }
        }
        let process = process.clone();
        self.journal.add(Entry::Process(process))?;
        match event.op {
            ProcessOp::Exec if !self.executed => {
                self.executed = true;
                self.phase("exec", event.at_ns)?;
                self.sample()?;
            }
            // The pid may come again as another process.
            ProcessOp::Exit => {
                self.known.remove(&event.pid);
            }
            _ => {}
        }
        Ok(())
    }

    fn follows(&self, pid: u32) -> bool {
        self.target.kind == "system" || self.known.contains_key(&pid)
    }

    /// Id of the user stack of a mapping.
    fn user_stack(&mut self, event: &decode::Mapping) -> Option<u32> {
        (!event.stack.is_empty()).then(|| self.stacks.user(event.pid, &event.stack, event.caller))
    }

    fn mapping_event(&mut self, event: decode::Mapping, stack: Option<u32>) -> Result<(), TracerError> {
        let (op, kind, detail) = match event.op {
            MappingOp::Mmap => ("mmap", Some(mmap_kind(event.detail)), Some(i64::from(event.prot))),
            MappingOp::Munmap => ("munmap", None, None),
            MappingOp::Mremap => ("mremap", None, Some(event.detail as i64)),
            MappingOp::Brk => ("brk", Some("heap"), None),
            MappingOp::Madvise => ("madvise", None, Some(event.detail as i64)),
        };
        self.journal.add(Entry::Mapping(Mapping {
            at_ns: event.at_ns,
            pid: event.pid,
            op: op.to_owned(),
            address: event.address,
            length: event.length,
            kind: kind.map(ToOwned::to_owned),
            detail,
            stack,
        }))?;
        Ok(())
    }

    /// Reads levels until the machine stands still: two readings in a row leave the same unattributed.
    pub fn settle(&mut self) -> Result<(), TracerError> {
        for _ in 0..SETTLE_TRIES {
            let before = self.residual;
            self.sample()?;
            if self.residual.zip(before).is_some_and(|(now, before)| now.abs_diff(before) <= IN_TRANSIT) {
                break;
            }
            std::thread::sleep(SETTLE_PAUSE);
        }
        Ok(())
    }

    /// Reads the system plane. Pages on their way (given back by a process, reported to a hypervisor) are in no
    /// source and not free for some milliseconds, tens of megabytes of them. So a reading that leaves clearly
    /// more unattributed than the last one is taken again, and the one that leaves least stands: what has
    /// really come is still there.
    fn read_system(&mut self) -> Sample {
        let vmap_stack = self.journal.recording().host.vmap_stack;
        let mut best = self.system.read();
        let mut residual = residual_of(&best, vmap_stack);
        for _ in 0..REREADS {
            let risen =
                residual.zip(self.residual).is_some_and(|(now, before)| now > before + IN_TRANSIT as i64);
            if !risen {
                break;
            }
            std::thread::sleep(REREAD_PAUSE);
            let again = self.system.read();
            let left = residual_of(&again, vmap_stack);
            if left < residual {
                (best, residual) = (again, left);
            }
        }
        self.residual = residual;
        best
    }

    /// Reads all levels once.
    pub fn sample(&mut self) -> Result<(), TracerError> {
        let system = self.read_system();
        let used = difference(&system, "meminfo.MemTotal", "meminfo.MemFree");
        self.journal.add(Entry::Sample(system))?;

        let mut charged = None;
        let mut samples = Vec::new();
        for selected in self.cgroups.values_mut().filter(|c| !c.gone) {
            let Some(sample) = selected.reader.read() else { continue };
            if selected.info.root {
                let usage =
                    ["memory.current", "memory.usage_in_bytes"].iter().find_map(|c| sample.values.get(*c));
                charged = usage.map(|u| charged.unwrap_or(0) + u).or(charged);
            }
            if self.resolution == Resolution::Open {
                selected.waiting.push(sample);
            } else {
                samples.push(sample);
            }
        }
        for sample in samples {
            self.journal.add(Entry::Sample(sample))?;
        }
        let alive: Vec<u32> = self.alive.iter().copied().collect();
        for sample in self.processes.read(&alive) {
            let walk = self.processes.wants_walk(&sample);
            let SeriesId::Process(pid) = sample.series else { continue };
            self.journal.add(Entry::Sample(sample))?;
            if walk && let Some(regions) = process::regions(pid, self.min_region) {
                self.journal.add(Entry::Regions { pid, regions })?;
                if let Some(pss) = process::pss(pid) {
                    self.journal.add(Entry::Sample(pss))?;
                }
            }
        }
        self.read_aggregates_at_peaks(used, charged)
    }

    /// Reads the aggregates when a plane stands at a new peak, as often as a fifth of the time allows. A peak
    /// that came too soon after the last is read at the next sample that still stands there.
    fn read_aggregates_at_peaks(
        &mut self,
        used: Option<u64>,
        charged: Option<u64>,
    ) -> Result<(), TracerError> {
        let now = now_ns();
        let wait = (REST_FACTOR * self.peaks.cost_ns).min(LONGEST_WAIT_NS);
        let due = now.saturating_sub(self.peaks.last_read_ns) >= wait;
        let planes =
            [("system-peak", used, &mut self.peaks.system), ("cgroup-peak", charged, &mut self.peaks.cgroup)];
        let mut reasons = Vec::new();
        for (why, level, peak) in planes {
            let Some(level) = level else { continue };
            if peak.reached(level) && due {
                peak.read_at = level;
                reasons.push(why);
            }
        }
        if !reasons.is_empty() {
            self.collector.read(&self.object, &mut self.stacks, &reasons, now)?;
            self.peaks.cost_ns = now_ns() - now;
            self.peaks.last_read_ns = now;
        }
        Ok(())
    }

    /// Reads the aggregates as the state at `why`.
    pub fn read_aggregates(&mut self, why: &str) -> Result<(), TracerError> {
        Ok(self.collector.read(&self.object, &mut self.stacks, &[why], now_ns())?)
    }

    /// Puts all aggregates read so far into the journal. `named`: with the names of user frames, which means
    /// reading symbol tables, so only when the target no longer runs.
    pub fn journal_aggregates(&mut self, named: bool) -> Result<(), TracerError> {
        let mut aggregates = self.collector.snapshot(&mut self.stacks, named);
        // What was selected while the target was not yet known and turned out to be somebody else's.
        for row in &mut aggregates.page_allocs {
            if self.target.kind != "system" && !self.target.cgroups.iter().any(|c| c.id == row.cgroup) {
                row.cgroup = 0;
            }
        }
        for (pid, totals) in Collector::mapping_totals(&self.object)? {
            let mut last = self.journal.recording().provenance.processes.iter().rev();
            if let Some(mut process) = last.find(|p| p.pid == pid).cloned() {
                process.small_mmap_calls = totals.mmap_calls;
                process.small_mmap_bytes = totals.mmap_bytes;
                process.small_munmap_calls = totals.munmap_calls;
                process.small_munmap_bytes = totals.munmap_bytes;
                self.journal.add(Entry::Process(process))?;
            }
        }
        self.journal.add(Entry::Aggregates(Box::new(aggregates)))?;
        Ok(self.journal.flush()?)
    }

    /// PSS of what still lives.
    pub fn sample_pss(&mut self) -> Result<(), TracerError> {
        for pid in self.alive.clone() {
            if let Some(sample) = process::pss(pid) {
                self.journal.add(Entry::Sample(sample))?;
            }
        }
        Ok(())
    }

    pub fn phase(&mut self, name: &str, at_ns: u64) -> Result<(), TracerError> {
        Ok(self.journal.add(Entry::Phase(Phase { name: name.to_owned(), at_ns }))?)
    }

    /// Writes what is known of the target.
    pub fn publish_target(&mut self) -> Result<(), TracerError> {
        if self.resolution == Resolution::Done {
            self.target.cgroups = self.cgroups.values().map(|c| c.info.clone()).collect();
        }
        Ok(self.journal.add(Entry::Target(self.target.clone()))?)
    }

    /// Names of all cgroups of the machine, so that ids in provenance can be read.
    pub fn name_cgroups(&mut self) -> Result<(), TracerError> {
        for (id, path) in self.layout.subtree("/") {
            let target = self.cgroups.contains_key(&id);
            self.journal.add(Entry::Cgroup(CgroupName { id, path, target }))?;
        }
        Ok(())
    }

    fn add_process(&mut self, pid: u32) -> Result<(), TracerError> {
        if self.known.contains_key(&pid) {
            return Ok(());
        }
        let comm = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        let cgroup =
            self.layout.of_process(pid).ok().and_then(|p| cgroup::id_of(&self.layout.dir(&p))).unwrap_or(0);
        let process = Process {
            pid,
            comm: comm.trim_end().to_owned(),
            argv: process::argv(pid),
            cgroup,
            ..Process::default()
        };
        self.stacks.look_at(pid);
        self.alive.insert(pid);
        self.known.insert(pid, process.clone());
        Ok(self.journal.add(Entry::Process(process))?)
    }

    fn open_cgroup(&mut self, id: u64, path: String, root: bool, created_ns: Option<u64>) {
        let reader = CgroupReader::open(id, &self.layout.dir(&path), self.layout.is_v2());
        let info = TargetCgroup { id, path, root, created_ns, ..TargetCgroup::default() };
        self.cgroups.insert(id, Selected { info, reader, waiting: Vec::new(), gone: false });
    }

    fn has_ancestor(&self, path: &str) -> bool {
        self.cgroups.values().any(|c| c.info.path != path && is_at_or_below(path, &c.info.path))
    }
}

fn is_at_or_below(path: &str, root: &str) -> bool {
    path.strip_prefix(root.trim_end_matches('/')).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// What a reading of the system plane leaves unattributed.
fn residual_of(sample: &Sample, vmap_stack: Option<bool>) -> Option<i64> {
    let columns = sample.values.iter().map(|(name, value)| (name.clone(), vec![Some(*value)])).collect();
    let series = Series { begin_ns: vec![0], end_ns: vec![0], columns, absent: Vec::new() };
    ledger::balance(Plane::System, vmap_stack, &series, 0)?.residual
}

fn difference(sample: &Sample, a: &str, b: &str) -> Option<u64> {
    Some(sample.values.get(a)?.saturating_sub(*sample.values.get(b)?))
}

/// What an mmap call maps, by its flags.
const fn mmap_kind(flags: u64) -> &'static str {
    let anonymous = flags & libc::MAP_ANONYMOUS as u64 != 0;
    // MAP_SHARED_VALIDATE is both type bits.
    let shared = flags & libc::MAP_SHARED as u64 != 0;
    match (anonymous, shared) {
        (true, false) => "anon",
        (true, true) => "shared-anon",
        (false, _) => "file",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ancestry_is_by_whole_components() {
        assert!(is_at_or_below("/a/b", "/a"));
        assert!(is_at_or_below("/a", "/a"));
        assert!(!is_at_or_below("/ab", "/a"));
        assert!(is_at_or_below("/a", "/"));
    }

    #[test]
    fn a_peak_is_read_once_and_again_when_it_has_grown() {
        let mut peak = Peak::default();
        assert!(peak.reached(100 << 20));
        assert!(peak.reached(100 << 20), "not read yet");
        peak.read_at = 100 << 20;
        assert!(!peak.reached(100 << 20));
        assert!(!peak.reached((100 << 20) + 4096), "hardly more");
        assert!(peak.reached(110 << 20));
        assert!(!peak.reached(105 << 20), "past it");
    }

    #[test]
    fn mmap_flags_tell_the_kind() {
        assert_eq!(mmap_kind((libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as u64), "anon");
        assert_eq!(mmap_kind((libc::MAP_SHARED | libc::MAP_ANONYMOUS) as u64), "shared-anon");
        assert_eq!(mmap_kind(libc::MAP_PRIVATE as u64), "file");
    }
}
