//! The state of a trace under way: what events and samples do to the journal.

mod answers;
mod brief;
mod calls;
mod churn;
mod driver_baseline;
mod events;
mod eviction;
pub(super) mod gpus;
pub(super) mod on_time;
mod pins;
mod python;
mod reading;
pub(super) mod retention;
mod sampling;
mod surroundings;
mod tentative;
mod unwinding;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io::Write,
    time::{Duration, Instant},
};

use spark_trace_common::engine::Client;
use thiserror::Error;
use tracing::debug;

use answers::Answers;
use brief::Brief;
use driver_baseline::DriverBaseline;
use gpus::Gpus;
use on_time::{Deferred, Watches};
use pins::Pins;
use retention::Retention;
use sampling::Peaks;
use tentative::Tentative;

use super::{
    aggregates::{Collector, Next},
    backing::Backings,
    bpf::{Object, ObjectError},
    cgroup::{self, Layout},
    charges::Charges,
    driver,
    library::Libraries,
    mounts::places::Places,
    neighbours::Neighbours,
    now_ns,
    python::Pythons,
    source::{
        cache,
        cgroup::Cgroup as CgroupReader,
        content,
        process::{self, Processes},
        system::System,
    },
    subject::{container::id_in_path, running},
    symbols::{Names, Stacks},
    unwind::Unwinder,
    walks::Walks,
};
use spark_trace_recording::cgroup_path::is_at_or_below;
use spark_trace_recording::{
    CgroupName, Phase, Process, Target, TargetCgroup,
    journal::{Entry, Journal, Sample},
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

/// Files that are shown for those cached before a trace, and the time for finding them: nothing is sampled meanwhile.
const MOST_FILES: usize = 200;
const LONGEST_LOOK: Duration = Duration::from_millis(500);

/// The time for the last readings of processes' proportional shares, each of which walks a process's page tables: some
/// milliseconds for a process of gigabytes.
const LONGEST_PSS: Duration = Duration::from_secs(2);

/// Cgroups that are read of a whole machine.
const MOST_CGROUPS: usize = 512;

/// Clients of container engines among the target's processes.
#[derive(Debug, Default)]
struct Clients {
    alive: BTreeSet<u32>,
    /// Those that were started, whoever they belong to, as the kernel side has counted them.
    started: u64,
    /// As many as that had been started when containers were awaited no more.
    done: u64,
}

/// What there was no room for, or what was not understood.
#[derive(Debug, Default)]
pub struct Losses {
    pub undecoded_events: u64,
    /// Environments of processes.
    pub contexts: u64,
    /// Cgroups of the target.
    pub cgroups: u64,
    /// Processes outside of the target that there was no time to look at, in the worst reading.
    pub outside: u64,
    /// Queries of free memory near which no process outside was read.
    pub unserved_queries: u64,
}

/// Targets with more cgroups than this are not published at every change.
const FEW_CGROUPS: usize = 32;

/// Something the session must act on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// A cgroup appeared that is a container's, and may be the target's.
    Candidate(String),
    /// A process of the command entered the cgroup of this container.
    Entered(String),
    /// A client of a container engine among the target's processes.
    Client { pid: u32, client: Client, at_ns: u64 },
    /// Such a process ended.
    ClientEnded { pid: u32, at_ns: u64 },
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
    driver: driver::Rows,
    pub pythons: Pythons,
    /// Frames of Python are wanted.
    pub reads_python: bool,
    /// Absent where no stacks are copied.
    pub unwinder: Option<Unwinder>,
    /// The NVIDIA module is loaded: it may hold system memory.
    driver_module: bool,
    /// What the driver had before the trace began, where that is system memory.
    driver_baseline: DriverBaseline,
    /// Bytes in the driver's pools of pages at the first reading.
    pool_at_start: Option<u64>,
    gpus: Gpus,
    /// Pages that processes had pinned which have ended.
    pins: Pins,
    brief: Brief,
    pub retention: Retention,
    answers: Answers,
    layout: Layout,
    system: System,
    /// What the last reading of the system plane left unattributed.
    residual: Option<i64>,
    processes: Processes,
    walks: Walks,
    neighbours: Neighbours,
    min_region: u64,
    cgroups: BTreeMap<u64, Selected>,
    /// What hooks on page counters make of the cgroups' levels.
    charges: Charges,
    known: HashMap<u32, Process>,
    alive: BTreeSet<u32>,
    tentative: Tentative,
    clients: Clients,
    /// What the command's processes start is part of the target.
    pub follows_commands: bool,
    peaks: Peaks,
    follows_pids: bool,
    executed: bool,
    pub losses: Losses,
    /// Where files are to be found.
    places: Places,
    /// The target has ended: files are looked for where they are now.
    pub ended: bool,
    /// What programs map after this is no part of the trace.
    pub ends_ns: Option<u64>,
    /// Events wait that are older than what is read now.
    pub is_behind: bool,
    waiting: Deferred,
    watches: Watches,
    backings: Backings,
    /// Samples taken: which cgroups have their turn.
    turn: usize,
    /// What is known of the target has changed since it was published.
    unpublished: bool,
    published_ns: u64,
}

impl<W: Write> Tracer<W> {
    pub fn new(
        object: Object,
        journal: Journal<W>,
        target: Target,
        parts: (Stacks, Collector, Layout, System),
        retention: Retention,
        min_region: u64,
    ) -> Self {
        let (stacks, mut collector, layout, system) = parts;
        collector.keep_largest_files(retention.policy().files);
        Self {
            object,
            journal,
            target,
            stacks,
            collector,
            libraries: Libraries::default(),
            driver: driver::Rows::default(),
            pythons: Pythons::default(),
            reads_python: false,
            unwinder: None,
            driver_module: std::path::Path::new("/sys/module/nvidia").exists(),
            driver_baseline: DriverBaseline::default(),
            pool_at_start: None,
            gpus: Gpus::default(),
            pins: Pins::default(),
            brief: Brief::default(),
            retention,
            answers: Answers::default(),
            layout,
            system,
            residual: None,
            processes: Processes::default(),
            walks: Walks::default(),
            neighbours: Neighbours::default(),
            min_region,
            cgroups: BTreeMap::new(),
            charges: Charges::default(),
            known: HashMap::new(),
            alive: BTreeSet::new(),
            tentative: Tentative::default(),
            clients: Clients::default(),
            follows_commands: false,
            peaks: Peaks::default(),
            follows_pids: false,
            executed: false,
            losses: Losses::default(),
            places: Places::of_this_process(),
            ended: false,
            ends_ns: None,
            is_behind: false,
            waiting: Deferred::default(),
            watches: Watches::default(),
            backings: Backings::default(),
            turn: 0,
            unpublished: false,
            published_ns: 0,
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

    /// The same, with all processes that descend from it by now. Each is selected before its children are looked for, so
    /// that what it forks meanwhile is followed from its fork on, until a search finds nothing new. A child whose parent
    /// has ended is no descendant any more (kernel/exit.c forget_original_parent).
    pub fn add_tree(&mut self, pid: u32) -> Result<(), TracerError> {
        self.add_pid(pid)?;
        let mut selected = BTreeSet::from([pid]);
        loop {
            let before = selected.len();
            for process in process::all() {
                if !selected.contains(&process)
                    && process::parent(process).is_some_and(|parent| selected.contains(&parent))
                {
                    self.add_pid(process)?;
                    selected.insert(process);
                }
            }
            if selected.len() == before {
                return Ok(());
            }
        }
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
        let ids = self.cgroups.values().filter_map(|cgroup| cgroup.info.container.as_deref());
        self.target.containers = running::named(&ids.collect());
        self.publish_target()
    }

    /// Stacks of a process's calls that are listed one by one or counted.
    pub fn stacks_of(&self, pid: u32) -> Vec<u32> {
        let provenance = &self.journal.recording().provenance;
        let mapped = provenance.mappings.iter().map(|row| (row.pid, row.stack));
        let brief = provenance.brief_mappings.iter().map(|row| (row.pid, row.stack));
        let mapped = mapped.chain(brief).filter(|(of, _)| *of == pid).filter_map(|(_, stack)| stack);
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
        self.collector.cached_before(found.files, found.seen);
        found.note
    }

    /// Adds processes that were too young for it before.
    fn add_processes(&mut self, young: BTreeSet<u32>) -> Result<(), TracerError> {
        for pid in young {
            let Some(process) = self.known.get_mut(&pid) else { continue };
            process::read_command_line(process);
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

    /// Whether every root of the target is without processes, with all that is below it, or gone.
    pub fn is_empty(&self) -> bool {
        self.are_empty(|_| true)
    }

    /// The same of the containers that were started for the target.
    pub fn containers_are_empty(&self) -> bool {
        self.are_empty(|info| info.container.is_some() && info.created_ns.is_some())
    }

    fn are_empty(&self, which: impl Fn(&TargetCgroup) -> bool) -> bool {
        let mut roots = self.cgroups.values().filter(|c| c.info.root && which(&c.info));
        roots.all(|c| c.gone || self.layout.is_empty(&c.info.path))
    }

    /// Puts all aggregates read so far into the journal. `names`: which user frames are to have theirs,
    /// which means reading symbol tables, so not while a target runs that is only recorded.
    pub fn journal_aggregates(&mut self, names: &Names) -> Result<(), TracerError> {
        let mut aggregates = self.collector.snapshot(
            &mut self.stacks,
            names,
            if self.ended { Next::End } else { Next::Readings },
        );
        // What was selected while the target was not yet known and turned out to be somebody else's.
        for row in &mut aggregates.page_allocs {
            if !self.target.is_whole_machine() && !self.target.cgroups.iter().any(|c| c.id == row.cgroup) {
                row.cgroup = 0;
            }
        }
        self.places.name(&mut aggregates.files);
        if self.ended && self.retention.policy().file_contents {
            self.places.find(&mut aggregates.files);
            content::read(&mut aggregates.files);
        }
        aggregates.charge_levels = self.charges.rows(&self.object)?;
        if !self.target.is_whole_machine() {
            let ours = |id: u64| self.target.cgroups.iter().any(|c| c.id == id);
            aggregates.charge_stacks.retain(|row| ours(row.cgroup));
            aggregates.charge_levels.retain(|row| ours(row.cgroup));
        }
        for (pid, totals) in Collector::mapping_totals(&self.object)? {
            if let Some(mut process) = self.journal.latest(pid).cloned() {
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

    /// PSS of what still lives. Says of how many processes there was no time to read it.
    pub fn sample_pss(&mut self) -> Result<u64, TracerError> {
        let until = Instant::now() + LONGEST_PSS;
        let mut pids = self.alive().into_iter();
        while Instant::now() < until
            && let Some(pid) = pids.next()
        {
            if let Some(sample) = process::pss(pid) {
                self.journal.add(Entry::Sample(sample))?;
            }
        }
        Ok(pids.len() as u64)
    }

    pub fn phase(&mut self, name: &str, at_ns: u64) -> Result<(), TracerError> {
        debug!("phase {name}");
        Ok(self.journal.add(Entry::Phase(Phase { name: name.to_owned(), at_ns }))?)
    }

    /// Writes what is known of the target.
    pub fn publish_target(&mut self) -> Result<(), TracerError> {
        self.target.cgroups = self.cgroups.values().map(|c| c.info.clone()).collect();
        (self.unpublished, self.published_ns) = (false, now_ns());
        Ok(self.journal.add(Entry::Target(self.target.clone()))?)
    }

    /// The same, where it has changed. It holds every cgroup of the target: with many of them, not at every change.
    pub(super) fn publish_changes(&mut self) -> Result<(), TracerError> {
        let few = self.cgroups.len() <= FEW_CGROUPS;
        let every_ns = churn::publish_every_ns(self.cgroups.len());
        let due = few || now_ns().saturating_sub(self.published_ns) >= every_ns;
        if self.unpublished && due { self.publish_target() } else { Ok(()) }
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
        let details = self.retention.policy().process_details;
        let context = if details { surroundings::of(pid) } else { None };
        let process::CommandLine { argv, argv_cut } = process::command_line(pid);
        let process = Process {
            pid,
            argv,
            argv_cut,
            comm,
            context: self.take_context(context)?,
            cgroup,
            ..Process::default()
        };
        if details {
            self.stacks.look_at(pid);
            self.places.process(pid);
        }
        self.alive.insert(pid);
        self.known.insert(pid, process.clone());
        Ok(self.journal.add(Entry::Process(process))?)
    }

    fn open_cgroup(&mut self, id: u64, path: String, root: bool, created_ns: Option<u64>) {
        debug!("cgroup {path} (id {id}) is part of the target{}", if root { ", as a root" } else { "" });
        let selected = self.open(id, path, root, created_ns);
        self.cgroups.insert(id, selected);
    }

    fn open(&mut self, id: u64, path: String, root: bool, created_ns: Option<u64>) -> Selected {
        let reader = CgroupReader::open(id, &self.layout.dir(&path), self.layout.is_v2());
        let container = id_in_path(&path).map(ToOwned::to_owned);
        let info = TargetCgroup { id, path, root, created_ns, container, ..TargetCgroup::default() };
        self.charges.follow(id, created_ns.is_some());
        Selected { info, reader, waiting: Vec::new(), gone: false }
    }

    fn has_ancestor(&self, path: &str) -> bool {
        self.cgroups.values().any(|c| c.info.path != path && is_at_or_below(path, &c.info.path))
    }
}
