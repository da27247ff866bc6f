//! Cgroups that may turn out to be the target's. What they do waits until it is known whose they are; of what turns out to
//! be somebody else's nothing is kept.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io::Write,
};

use tracing::debug;

use super::{Selected, Tracer, TracerError};
use crate::decode;
use crate::{cgroup::Layout, subject::container::id_in_path, symbols::Placed};
use spark_trace_recording::{
    CgroupName, MemoryQuery, ProcessContext, cgroup_path::is_at_or_below, journal::Entry,
};

/// An event of a process that may turn out to be the target's. Where a stack lies is found out at once: its process may have
/// become another program by the time the target is known; what surrounds a process is read at once for the same reason.
pub(super) enum Deferred {
    Process(decode::Process, Option<Box<ProcessContext>>),
    Mapping(decode::Mapping, Option<Placed>),
    Call(Box<decode::Call>, Option<Placed>, Option<String>),
    Query(Box<MemoryQuery>, Option<Placed>),
}

/// Whose an event is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Belongs {
    Ours,
    /// It may turn out to be the target's.
    Undecided,
    /// What was selected for a moment and dropped may still come.
    Elsewhere,
}

/// The most that a process may have resident that is taken for one that only waits for a client: shells, `timeout`, `sudo`.
const MOST_OF_A_WRAPPER: u64 = 16 << 20;
/// Generations that are looked at.
const DEEPEST: usize = 64;

/// Events kept of cgroups that may be the target's: those of a neighbour must not fill the memory.
const MOST_WAITING: usize = 50_000;

#[derive(Default)]
pub(super) struct Tentative {
    /// New cgroups are selected as they are created.
    awaits: bool,
    cgroups: BTreeMap<u64, Selected>,
    /// The cgroup of each process that was seen in one of them.
    processes: HashMap<u32, u64>,
    /// With the cgroup that each is of, in their order.
    waiting: Vec<(u64, Deferred)>,
    refused: u64,
}

impl Tentative {
    pub(super) fn wait(&mut self, cgroup: u64, event: Deferred) {
        if self.waiting.len() < MOST_WAITING {
            self.waiting.push((cgroup, event));
        } else {
            self.refused += 1;
        }
    }

    pub(super) fn get_mut(&mut self, id: u64) -> Option<&mut Selected> {
        self.cgroups.get_mut(&id)
    }

    pub(super) fn contains(&self, id: u64) -> bool {
        self.cgroups.contains_key(&id)
    }

    pub(super) fn process(&mut self, pid: u32, cgroup: u64) {
        self.processes.insert(pid, cgroup);
    }

    /// The cgroup in which a process was seen.
    pub(super) fn cgroup_of(&self, pid: u32) -> Option<u64> {
        self.processes.get(&pid).copied()
    }

    /// The container whose cgroup it is.
    pub(super) fn container(&self, id: u64) -> Option<&str> {
        self.cgroups.get(&id)?.info.container.as_deref()
    }

    /// Takes out what is of some of the containers: cgroups, processes, and events in their order.
    fn take(&mut self, which: impl Fn(&str) -> bool) -> (BTreeMap<u64, Selected>, Vec<u32>, Vec<Deferred>) {
        let is = |selected: &Selected| selected.info.container.as_deref().is_some_and(&which);
        let cgroups: BTreeMap<_, _> = self.cgroups.extract_if(.., |_, selected| is(selected)).collect();
        let processes =
            self.processes.extract_if(|_, cgroup| cgroups.contains_key(cgroup)).map(|(pid, _)| pid);
        let processes = processes.collect();
        let waiting = self.waiting.extract_if(.., |(cgroup, _)| cgroups.contains_key(cgroup));
        let waiting = waiting.map(|(_, event)| event).collect();
        (cgroups, processes, waiting)
    }
}

impl<W: Write> Tracer<W> {
    /// Selects every cgroup that is created from now on, until containers are no longer awaited.
    pub fn await_containers(&mut self) -> Result<(), TracerError> {
        if !self.tentative.awaits {
            self.tentative.awaits = true;
            self.object.select_new_cgroups(true)?;
        }
        Ok(())
    }

    /// Ends the wait: what is not known as the target's by now is not.
    pub fn await_no_more(&mut self) -> Result<(), TracerError> {
        if !self.tentative.awaits && self.clients.done == self.clients.started {
            return Ok(());
        }
        self.tentative.awaits = false;
        self.clients.done = self.clients.started;
        self.object.select_new_cgroups(false)?;
        // Clients that were counted and not heard of yet keep the kernel side selecting.
        self.object.clients_done(self.clients.started)?;
        self.drop_containers(|_| true)
    }

    /// Events for which there was no room until it was known whose they are.
    pub const fn refused_while_waiting(&self) -> u64 {
        self.tentative.refused
    }

    /// A cgroup was created that is selected. Says which container's it may be.
    pub(super) fn new_tentative(
        &mut self,
        id: u64,
        path: &str,
        at_ns: u64,
    ) -> Result<Option<String>, TracerError> {
        let container = id_in_path(path).filter(|_| self.tentative.awaits).map(ToOwned::to_owned);
        let Some(container) = container else {
            // Nobody could say later that it is the target's.
            self.object.deselect_cgroup(id)?;
            return Ok(None);
        };
        let selected = self.open(id, path.to_owned(), false, Some(at_ns));
        self.tentative.cgroups.insert(id, selected);
        Ok(Some(container))
    }

    /// Takes a container in as part of the target. Says whether it has a cgroup.
    pub fn take_container(&mut self, container: &str) -> Result<bool, TracerError> {
        debug!("container {container} is the target's");
        let (cgroups, _, waiting) = self.tentative.take(|id| id == container);
        if cgroups.is_empty() {
            let known =
                self.cgroups.values().any(|c| !c.gone && c.info.container.as_deref() == Some(container));
            return if known { Ok(true) } else { self.take_running(container) };
        }
        let ids: Vec<u64> = cgroups.keys().copied().collect();
        let paths: Vec<String> = cgroups.values().map(|c| c.info.path.clone()).collect();
        for (id, mut selected) in cgroups {
            let path = &selected.info.path;
            selected.info.root =
                !paths.iter().any(|p| p != path && is_at_or_below(path, p)) && !self.has_ancestor(path);
            let name = CgroupName { id, path: path.clone(), target: true };
            self.journal.add(Entry::Cgroup(name))?;
            self.cgroups.insert(id, selected);
        }
        self.publish_target()?;
        for id in ids {
            let samples =
                self.cgroups.get_mut(&id).map(|c| std::mem::take(&mut c.waiting)).unwrap_or_default();
            for sample in samples {
                self.journal.add(Entry::Sample(sample))?;
            }
        }
        let mut sizing = false;
        for event in waiting {
            match event {
                Deferred::Process(event, context) => self.process_event(event, context)?,
                Deferred::Mapping(event, placed) => {
                    if self.follows(event.pid) {
                        let stack = placed.and_then(|placed| self.stacks.keep(placed));
                        self.mapping_event(event, stack)?;
                    }
                }
                Deferred::Call(call, placed, backing) => {
                    let stack = placed.and_then(|placed| self.stacks.keep(placed));
                    self.take_call(&call, stack, backing.as_deref())?;
                }
                Deferred::Query(row, placed) => sizing |= self.keep_query(*row, placed)?,
            }
        }
        if sizing {
            self.read_aggregates_at_answer()?;
        }
        Ok(true)
    }

    /// One that runs already.
    fn take_running(&mut self, container: &str) -> Result<bool, TracerError> {
        let Some(path) = path_of(&self.layout, container) else { return Ok(false) };
        self.add_root(&path, false)?;
        Ok(true)
    }

    /// Drops containers that are somebody else's, with all that was seen of them.
    pub fn drop_containers(&mut self, which: impl Fn(&str) -> bool) -> Result<(), TracerError> {
        let (cgroups, processes, _) = self.tentative.take(which);
        for (id, selected) in cgroups {
            debug!("cgroup {} (id {id}) is not the target's", selected.info.path);
            self.object.deselect_cgroup(id)?;
            self.charges.forget(id);
        }
        self.stacks.drop_processes(&processes);
        for pid in processes {
            self.forget_python(pid);
        }
        Ok(())
    }

    /// Whether a command in the cgroup `leaf` did nothing but request containers: each of its processes is a client, was
    /// started by one, or waits for one and holds next to nothing itself. `clients`: when each became one.
    pub fn only_requested(&self, leaf: u64, clients: &BTreeMap<u32, u64>) -> bool {
        let all = &self.journal.recording().provenance.processes;
        let parents: HashMap<u32, u32> = all.iter().filter_map(|row| Some((row.pid, row.parent?))).collect();
        let line = |pid: u32| -> Vec<u32> {
            std::iter::successors(Some(pid), |pid| parents.get(pid).copied()).take(DEEPEST).collect()
        };
        let above: BTreeSet<u32> = clients.keys().flat_map(|&client| line(client)).collect();
        all.iter().filter(|row| row.cgroup == leaf).all(|row| {
            let client_then =
                |pid: &u32| clients.get(pid).is_some_and(|&since| row.started_ns >= Some(since));
            let of_client = clients.contains_key(&row.pid) || line(row.pid).iter().skip(1).any(client_then);
            let waits =
                above.contains(&row.pid) && row.rss_peak.is_some_and(|peak| peak <= MOST_OF_A_WRAPPER);
            of_client || waits
        })
    }

    /// Takes a cgroup out of the target, with all below it.
    pub fn leave_out(&mut self, root: u64) -> Result<(), TracerError> {
        let Some(path) = self.cgroups.get(&root).map(|selected| selected.info.path.clone()) else {
            return Ok(());
        };
        let below = self.cgroups.extract_if(.., |_, selected| is_at_or_below(&selected.info.path, &path));
        for (id, selected) in below.collect::<Vec<_>>() {
            let name = CgroupName { id, path: selected.info.path, target: false };
            self.journal.add(Entry::Cgroup(name))?;
        }
        self.publish_target()
    }

    /// Reads the levels of cgroups that may be the target's.
    pub(super) fn sample_tentative(&mut self, anew: bool) -> Result<(), TracerError> {
        for selected in self.tentative.cgroups.values_mut().filter(|c| !c.gone) {
            if let Some(sample) = self.charges.read(&self.object, &mut selected.reader, anew)? {
                selected.waiting.push(sample);
            }
        }
        Ok(())
    }

    /// Whose an event of a process in a cgroup is.
    pub(super) fn belongs(&self, cgroup: u64, pid: u32) -> Belongs {
        if self.follows(pid) || self.cgroups.contains_key(&cgroup) {
            Belongs::Ours
        } else if self.tentative.contains(cgroup) {
            Belongs::Undecided
        } else {
            Belongs::Elsewhere
        }
    }

    /// The container whose cgroup this is, if it is not part of the target.
    pub(super) fn container_elsewhere(&self, cgroup: u64) -> Option<String> {
        if self.cgroups.contains_key(&cgroup) {
            return None;
        }
        if let Some(container) = self.tentative.container(cgroup) {
            return Some(container.to_owned());
        }
        let named = &self.journal.recording().provenance.cgroups;
        let path = &named.iter().rev().find(|name| name.id == cgroup)?.path;
        id_in_path(path).map(ToOwned::to_owned)
    }
}

/// The cgroup of a running container: the uppermost that has its id.
fn path_of(layout: &Layout, container: &str) -> Option<String> {
    let all = layout.subtree("/").into_iter().map(|(_, path)| path);
    all.filter(|path| id_in_path(path) == Some(container)).min_by_key(String::len)
}
