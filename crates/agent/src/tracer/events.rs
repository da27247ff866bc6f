//! What events of the ring buffer do to a trace.

use std::io::Write;

use spark_trace_common::{
    engine::{self, Client},
    event::{CgroupOp, MappingOp, ProcessOp},
};

use tracing::debug;

use super::{
    MOST_CGROUPS, Notice, Tracer, TracerError, surroundings, tentative::Deferred, unwinding::UserStack,
};
use crate::decode::{self, Event};
use crate::{page_size, source::process};
use spark_trace_recording::{CgroupName, Mapping, Process, ProcessContext, journal::Entry};

impl<W: Write> Tracer<W> {
    /// One record of the event ring buffer; `None` where it is not known, which counts as a loss.
    pub fn decode(&mut self, bytes: &[u8]) -> Option<Event> {
        match decode::decode(bytes) {
            Ok(event) => Some(event),
            Err(error) => {
                debug!("an event of {} bytes is not known: {error}", bytes.len());
                self.losses.undecoded_events += 1;
                None
            }
        }
    }

    /// Until when an event waits, with all that come after it: where the kernel does not say what lies at one address, one
    /// look at all mappings of a process serves all allocations that wait.
    pub fn waits_until(&self, event: &Event) -> Option<u64> {
        match event {
            Event::Call(call) if self.backings.may_wait() => self.backings.waits_until(call),
            _ => None,
        }
    }

    /// Handles one event.
    pub fn event(&mut self, event: Event) -> Result<Option<Notice>, TracerError> {
        match event {
            Event::FileName(name) => {
                self.places.file_on(name.device);
                self.collector.name_file(name.device, name.inode, name.path);
            }
            Event::Cgroup(event) => return self.cgroup_event(event),
            Event::Process(event) => return self.any_process_event(event),
            Event::Call(call) => self.call_event(*call)?,
            Event::Query(query) => self.query_event(*query),
            Event::FileRead(read) => self.file_read_event(*read),
            Event::Library(event) => self.library_event(&event)?,
            Event::Mapping(event) if self.ends_ns.is_some_and(|end| event.at_ns > end) => {}
            Event::Mapping(event) => {
                // In a storm of them the buffer is never empty, and no other event may come.
                self.take_samples(event.at_ns)?;
                if matches!(event.op, MappingOp::Mmap | MappingOp::Munmap) {
                    let file = event.op == MappingOp::Mmap && mmap_kind(event.detail) == "file";
                    let length = event.length.unsigned_abs();
                    self.stacks.changed(event.pid, event.address, length, file, event.at_ns);
                }
                let is_file = event.op == MappingOp::Mmap && mmap_kind(event.detail) == "file";
                if is_file && !self.retention.policy().file_mappings {
                    // Not worth a stack.
                } else if self.follows(event.pid) {
                    // Most of a storm ends here, without a look at the stack.
                    if event.op == MappingOp::Munmap
                        && self.brief.removes(event.pid, event.address, event.length, event.at_ns)
                    {
                        return Ok(None);
                    }
                    let stack = self.user_stack(&event);
                    self.mapping_event(event, stack)?;
                } else if let Some(cgroup) = self.tentative.cgroup_of(event.pid) {
                    let placed = self.place(stack_of(&event), None);
                    self.tentative.wait(cgroup, Deferred::Mapping(event, placed));
                }
            }
        }
        Ok(None)
    }

    fn any_process_event(&mut self, event: decode::Process) -> Result<Option<Notice>, TracerError> {
        let client = engine::client(&event.comm).filter(|_| event.op == ProcessOp::Exec);
        // As the kernel side has counted it, whoever it belongs to.
        self.clients.started += u64::from(client.is_some());
        let (pid, at_ns, op, cgroup) = (event.pid, event.at_ns, event.op, event.cgroup);
        if self.is_ours(cgroup, pid, event.parent) {
            let details = self.retention.policy().process_details;
            let context = if details { surroundings::after(&event) } else { None };
            self.process_event(event, context)?;
            return Ok(self.notice_of(pid, op, at_ns, cgroup, client));
        }
        if self.tentative.contains(cgroup) {
            // Its stacks can only be named while it lives, so look at it now.
            if op == ProcessOp::Exec {
                self.stacks.look_at(pid);
                self.places.process(pid);
            }
            let context = surroundings::after(&event);
            self.tentative.process(pid, cgroup);
            self.tentative.wait(cgroup, Deferred::Process(event, context));
        }
        Ok(None)
    }

    /// What the session must know of a process of the target.
    fn notice_of(
        &mut self,
        pid: u32,
        op: ProcessOp,
        at_ns: u64,
        cgroup: u64,
        client: Option<Client>,
    ) -> Option<Notice> {
        if op == ProcessOp::Exit {
            return self.clients.alive.remove(&pid).then_some(Notice::ClientEnded { pid, at_ns });
        }
        if let Some(client) = client {
            self.clients.alive.insert(pid);
            return Some(Notice::Client { pid, client, at_ns });
        }
        // Engines without a daemon start containers as children of their client.
        let descends = self.follows_commands && op == ProcessOp::Exec;
        descends.then(|| self.container_elsewhere(cgroup)).flatten().map(Notice::Entered)
    }

    pub(super) fn is_ours(&self, cgroup: u64, pid: u32, parent: u32) -> bool {
        self.target.is_whole_machine()
            || self.cgroups.contains_key(&cgroup)
            || self.known.contains_key(&pid)
            || self.follows_pids && self.known.contains_key(&parent)
    }

    fn cgroup_event(&mut self, event: decode::Cgroup) -> Result<Option<Notice>, TracerError> {
        match event.op {
            CgroupOp::Mkdir => {
                let all = self.retention.policy().whole_machine
                    && self.target.is_whole_machine()
                    && self.cgroups.len() < MOST_CGROUPS;
                let known = self.cgroups.contains_key(&event.id);
                // A cgroup that the kernel side had selected while containers were awaited is not yet the target's.
                let below = event.target && self.has_ancestor(&event.path);
                let name = CgroupName { id: event.id, path: event.path.clone(), target: known || below };
                self.journal.add(Entry::Cgroup(name))?;
                if (below || all) && !known && !self.has_room_for_cgroup()? {
                    self.losses.cgroups += 1;
                    self.object.deselect_cgroup(event.id)?;
                } else if (below || all) && !known {
                    let root = !self.has_ancestor(&event.path);
                    self.open_cgroup(event.id, event.path, root, Some(event.at_ns));
                    self.unpublished = true;
                } else if event.target && !known {
                    let container = self.new_tentative(event.id, &event.path, event.at_ns)?;
                    return Ok(container.map(Notice::Candidate));
                }
            }
            CgroupOp::Rmdir => {
                let ours = self.cgroups.contains_key(&event.id);
                let selected = match self.cgroups.get_mut(&event.id) {
                    Some(selected) => Some(selected),
                    None => self.tentative.get_mut(event.id),
                };
                if let Some(selected) = selected {
                    debug!("cgroup {} (id {}) is removed", selected.info.path, event.id);
                    selected.gone = true;
                    selected.info.removed_ns = Some(event.at_ns);
                    selected.info.oom_kills_at_removal = event.oom_kills;
                    if let Some((usage, peak)) = event.usage_pages {
                        selected.info.usage_at_removal = Some(usage * page_size());
                        selected.info.peak_at_removal = Some(peak * page_size());
                    }
                    self.unpublished |= ours;
                }
            }
            CgroupOp::Populated => {
                let root = self.cgroups.get(&event.id).is_some_and(|c| c.info.root);
                if !event.populated && (root || self.tentative.contains(event.id)) {
                    debug!("cgroup with id {} has no process any more", event.id);
                    return Ok(Some(Notice::Emptied(event.id)));
                }
            }
        }
        Ok(None)
    }

    /// `context`: what surrounds a process that has become another program.
    pub(super) fn process_event(
        &mut self,
        event: decode::Process,
        context: Option<Box<ProcessContext>>,
    ) -> Result<(), TracerError> {
        self.take_samples(event.at_ns)?;
        let context = match event.op {
            // A child has its parent's.
            ProcessOp::Fork => self.known.get(&event.parent).and_then(|parent| parent.context),
            ProcessOp::Exec => self.take_context(context)?,
            ProcessOp::Exit => None,
        };
        if event.op != ProcessOp::Fork {
            self.forget_python(event.pid);
        }
        let process = self.known.entry(event.pid).or_insert_with(|| Process {
            pid: event.pid,
            parent: Some(event.parent),
            cgroup: event.cgroup,
            ..Process::default()
        });
        // The one that ends a process may be any of its threads.
        // Of one whose start was not seen that is better than none.
        if event.op != ProcessOp::Exit || process.comm.is_empty() {
            process.comm = event.comm;
        }
        process.cgroup = event.cgroup;
        match event.op {
            ProcessOp::Fork => {
                process.started_ns = Some(event.at_ns);
                process.context = context;
                self.collector.cuda.process_began(event.pid);
                self.gpus.began(event.pid);
                self.alive.insert(event.pid);
            }
            ProcessOp::Exec => {
                process.exec_ns = Some(event.at_ns);
                process.context = context;
                // The program before has taken its memory with it.
                self.collector.cuda.process_ended(event.pid, event.at_ns);
                self.collector.cuda.process_began(event.pid);
                if !self.retention.is_young(event.pid) {
                    process::read_command_line(process);
                }
                self.alive.insert(event.pid);
                if self.retention.policy().process_details {
                    self.stacks.look_at(event.pid);
                    self.places.process(event.pid);
                }
            }
            ProcessOp::Exit => {
                process.ended_ns = Some(event.at_ns);
                process.exit_status = Some(event.status);
                process.rss_peak = event.rss_peak_pages.map(|p| p * page_size());
                self.alive.remove(&event.pid);
                self.stacks.forget(event.pid);
                self.backings.forget(event.pid);
                self.pins.ended(&self.collector.cuda.pinned_by(event.pid), event.at_ns);
                self.collector.cuda.process_ended(event.pid, event.at_ns);
            }
        }
        if self.retention.keeps_process(event.op, event.pid, event.status) {
            let process = process.clone();
            self.journal.add(Entry::Process(process))?;
        }
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

    pub(super) fn follows(&self, pid: u32) -> bool {
        self.target.is_whole_machine() || self.known.contains_key(&pid)
    }

    /// Id of the user stack of a mapping.
    pub(super) fn user_stack(&mut self, event: &decode::Mapping) -> Option<u32> {
        let placed = self.place(stack_of(event), None)?;
        self.stacks.keep(placed)
    }

    pub(super) fn mapping_event(
        &mut self,
        event: decode::Mapping,
        stack: Option<u32>,
    ) -> Result<(), TracerError> {
        let (op, kind, detail) = match event.op {
            MappingOp::Mmap => ("mmap", Some(mmap_kind(event.detail)), Some(i64::from(event.prot))),
            MappingOp::Munmap => ("munmap", None, None),
            MappingOp::Mremap => ("mremap", None, Some(event.detail as i64)),
            MappingOp::Brk => ("brk", Some("heap"), None),
            MappingOp::Madvise => ("madvise", None, Some(event.detail as i64)),
        };
        let mapping = Mapping {
            at_ns: event.at_ns,
            pid: event.pid,
            op: op.to_owned(),
            address: event.address,
            length: event.length,
            kind: kind.map(ToOwned::to_owned),
            detail,
            stack,
            from: event.from,
        };
        self.settle_mapping(event.op, mapping)
    }
}

fn stack_of(event: &decode::Mapping) -> UserStack<'_> {
    UserStack { pid: event.pid, addresses: &event.stack, caller: event.caller, copy: event.copy }
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
    fn mmap_flags_decide_the_kind() {
        assert_eq!(mmap_kind((libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as u64), "anon");
        assert_eq!(mmap_kind((libc::MAP_SHARED | libc::MAP_ANONYMOUS) as u64), "shared-anon");
        assert_eq!(mmap_kind(libc::MAP_PRIVATE as u64), "file");
    }
}
