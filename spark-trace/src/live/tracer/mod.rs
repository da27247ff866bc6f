//! The state of a trace under way: what events and samples do to the journal.

mod before;
mod calls;
mod events;
mod levels;
mod surroundings;
mod upkeep;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io::Write,
    time::Duration,
};

use thiserror::Error;

use before::HeldBefore;
use calls::PartialReading;
use levels::Peaks;

use super::{
    aggregates::Collector,
    cgroup::{self, Layout},
    charges::Charges,
    library::Libraries,
    now_ns,
    object::{Object, ObjectError},
    source::{
        cache,
        cgroup::Cgroup as CgroupReader,
        process::{self, Processes},
        system::System,
    },
    symbols::{Names, Stacks},
    target::container::id_in_path,
};
use crate::{
    decode,
    recording::{
        CgroupName, Phase, Process, ProcessContext, Query, Target, TargetCgroup,
        journal::{Entry, Journal, Sample},
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
/// have become another program by the time the target is known; what surrounds a process is read at once for the same reason.
enum Waiting {
    Process(decode::Process, Option<Box<ProcessContext>>),
    Mapping(decode::Mapping, Option<u32>),
    Call(decode::Call, Option<u32>, Option<String>),
    Query(Box<Query>),
}

/// Files that are told of those cached before a trace, and the time for finding them: nothing is sampled meanwhile.
const MOST_FILES: usize = 200;
const LONGEST_LOOK: Duration = Duration::from_millis(500);

/// Cgroups that are read of a whole machine.
const MOST_CGROUPS: usize = 512;

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
    pub libraries: Libraries,
    /// The NVIDIA module is loaded: it may hold system memory.
    driver_module: bool,
    /// What the driver held before the trace began, where that is system memory.
    held_before: HeldBefore,
    /// Bytes in the driver's pools of pages at the first reading.
    pool_at_start: Option<u64>,
    /// GPUs that are read.
    pub gpus: usize,
    /// Queries in the journal; where somebody only looks, those since the last reading.
    queries: u64,
    /// Queries that were not kept.
    queries_lost: u64,
    /// Rows of files lost when the table of them was found full last.
    files_lost: u64,
    /// Files being read, by thread, name and directory.
    readings: HashMap<(u32, String, String), PartialReading>,
    layout: Layout,
    system: System,
    /// What the last reading of the system plane left unattributed.
    residual: Option<i64>,
    processes: Processes,
    min_region: u64,
    cgroups: BTreeMap<u64, Selected>,
    /// What hooks on page counters make of the cgroups' levels.
    charges: Charges,
    known: HashMap<u32, Process>,
    /// Processes that have not lived to see a reading: where somebody only looks they are not worth an entry.
    young: BTreeSet<u32>,
    alive: BTreeSet<u32>,
    resolution: Resolution,
    /// Somebody looks: nothing is read that they did not ask for, but every cgroup and process of the machine.
    pub looks: bool,
    /// Events from before the target was known.
    waiting: Vec<Waiting>,
    peaks: Peaks,
    follows_pids: bool,
    executed: bool,
    pub decode_errors: u64,
    /// Surroundings that there was no room for.
    pub contexts_lost: u64,
}

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
            libraries: Libraries::default(),
            driver_module: std::path::Path::new("/sys/module/nvidia").exists(),
            held_before: HeldBefore::default(),
            pool_at_start: None,
            gpus: 0,
            queries: 0,
            queries_lost: 0,
            files_lost: 0,
            readings: HashMap::new(),
            layout,
            system,
            residual: None,
            processes: Processes::default(),
            min_region,
            cgroups: BTreeMap::new(),
            charges: Charges::default(),
            known: HashMap::new(),
            young: BTreeSet::new(),
            alive: BTreeSet::new(),
            resolution: Resolution::Done,
            looks: false,
            waiting: Vec::new(),
            peaks: Peaks::default(),
            follows_pids: false,
            executed: false,
            decode_errors: 0,
            contexts_lost: 0,
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

    /// Takes every cgroup and process of the machine in.
    pub fn add_everything(&mut self) -> Result<(), TracerError> {
        for (id, path) in
            self.layout.subtree("/").into_iter().filter(|(_, path)| path != "/").take(MOST_CGROUPS)
        {
            let root = !self.has_ancestor(&path);
            self.open_cgroup(id, path, root, None);
        }
        for pid in process::all() {
            self.add_process(pid)?;
        }
        self.publish_target()
    }

    /// Drops what is older than `before_ns`, and cgroups that were removed by then.
    pub fn forget(&mut self, before_ns: u64) {
        self.cgroups.retain(|_, cgroup| cgroup.info.removed_ns.is_none_or(|removed| removed >= before_ns));
        self.journal.forget(before_ns);
    }

    /// Stacks of a process's calls that are listed one by one or counted.
    pub fn stacks_of(&self, pid: u32) -> Vec<u32> {
        let provenance = &self.journal.recording().provenance;
        let mapped = provenance.mappings.iter().filter(|row| row.pid == pid).filter_map(|row| row.stack);
        let cuda = provenance.cuda_allocs.iter().filter(|row| row.pid == pid).filter_map(|row| row.stack);
        mapped.chain(cuda).collect()
    }

    /// Processes of the target that run.
    pub fn alive(&self) -> Vec<u32> {
        self.alive.iter().copied().collect()
    }

    /// Reads what is cached of the files that processes have mapped or open, before anything is seen to be added. Says so
    /// where there may be more.
    pub fn read_cached_before(&mut self, pids: &[u32]) -> Option<String> {
        let wanted = cache::Wanted { directories: Vec::new(), most: MOST_FILES, time: LONGEST_LOOK };
        let found = cache::read(pids, &wanted);
        self.collector.cached_before(found.files);
        found.note
    }

    /// Tells of processes that were too young for it before.
    fn tell_of_the_young(&mut self) -> Result<(), TracerError> {
        for pid in std::mem::take(&mut self.young) {
            let Some(process) = self.known.get_mut(&pid) else { continue };
            process.argv = process::argv(pid);
            let process = process.clone();
            self.journal.add(Entry::Process(process))?;
        }
        Ok(())
    }

    /// Reads what a process has mapped.
    pub fn read_mappings(&mut self, pid: u32) -> Result<(), TracerError> {
        let Some(regions) = process::regions(pid, self.min_region) else { return Ok(()) };
        Ok(self.journal.add(Entry::Regions { pid, regions })?)
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
                Waiting::Process(event, context) if self.is_ours(event.cgroup, event.pid, event.parent) => {
                    self.process_event(event, context)?;
                }
                Waiting::Mapping(event, stack) if self.follows(event.pid) => {
                    self.mapping_event(event, stack)?
                }
                Waiting::Call(call, stack, backing) => {
                    self.take_call(&call, stack, backing.as_deref())?;
                }
                Waiting::Query(query) => {
                    self.take_query(*query)?;
                }
                Waiting::Process(..) | Waiting::Mapping(..) => {}
            }
        }
        Ok(())
    }

    pub const fn is_waiting(&self) -> bool {
        matches!(self.resolution, Resolution::Open)
    }

    /// Whether every root of the target is without processes, with all that is below it, or gone.
    pub fn is_empty(&self) -> bool {
        let mut roots = self.cgroups.values().filter(|c| c.info.root);
        roots.all(|c| c.gone || cgroup::is_empty(&self.layout.dir(&c.info.path)))
    }

    /// Puts all aggregates read so far into the journal. `names`: which user frames are to have theirs,
    /// which means reading symbol tables, so not while a target runs that is only recorded.
    pub fn journal_aggregates(&mut self, names: &Names) -> Result<(), TracerError> {
        let mut aggregates = self.collector.snapshot(&mut self.stacks, names);
        // What was selected while the target was not yet known and turned out to be somebody else's.
        for row in &mut aggregates.page_allocs {
            if !self.target.is_whole_machine() && !self.target.cgroups.iter().any(|c| c.id == row.cgroup) {
                row.cgroup = 0;
            }
        }
        aggregates.charge_levels = self.charges.rows(&self.object)?;
        if !self.target.is_whole_machine() {
            let ours = |id: u64| self.target.cgroups.iter().any(|c| c.id == id);
            aggregates.charge_stacks.retain(|row| ours(row.cgroup));
            aggregates.charge_levels.retain(|row| ours(row.cgroup));
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
        let comm = comm.trim_end().to_owned();
        let context = if self.looks { None } else { surroundings::of(pid) };
        let process = Process {
            pid,
            argv: process::argv(pid),
            comm,
            context: self.take_context(context)?,
            cgroup,
            ..Process::default()
        };
        if !self.looks {
            self.stacks.look_at(pid);
        }
        self.alive.insert(pid);
        self.known.insert(pid, process.clone());
        Ok(self.journal.add(Entry::Process(process))?)
    }

    fn open_cgroup(&mut self, id: u64, path: String, root: bool, created_ns: Option<u64>) {
        let reader = CgroupReader::open(id, &self.layout.dir(&path), self.layout.is_v2());
        let container = id_in_path(&path).map(ToOwned::to_owned);
        let info = TargetCgroup { id, path, root, created_ns, container, ..TargetCgroup::default() };
        self.charges.follow(id, created_ns.is_some());
        self.cgroups.insert(id, Selected { info, reader, waiting: Vec::new(), gone: false });
    }

    fn has_ancestor(&self, path: &str) -> bool {
        self.cgroups.values().any(|c| c.info.path != path && is_at_or_below(path, &c.info.path))
    }
}

fn is_at_or_below(path: &str, root: &str) -> bool {
    path.strip_prefix(root.trim_end_matches('/')).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
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
}
