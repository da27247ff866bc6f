//! What surrounds the target, in the journal: contexts of its processes, file systems in memory, lines of its log.

use std::io::Write;

use spark_trace_common::event::ProcessOp;

use super::{Tracer, TracerError};
use crate::decode;
use crate::source::{outside, process_env, tmpfs};
use spark_trace_recording::{LogLine, Moment, ProcessContext, journal::Entry};

/// Rows of contexts. Runs have one or two; one that sets a variable anew for each process could have any number.
const MOST_CONTEXTS: usize = 256;

/// What surrounds a process, if it is still there.
pub(super) fn of(pid: u32) -> Option<Box<ProcessContext>> {
    process_env::read(pid).map(Box::new)
}

/// The same after an event, where that changes it.
pub(super) fn after(event: &decode::Process) -> Option<Box<ProcessContext>> {
    (event.op == ProcessOp::Exec).then(|| of(event.pid)).flatten()
}

impl<W: Write> Tracer<W> {
    /// The index of a context: that of an equal one, or of a new row.
    pub(super) fn take_context(
        &mut self,
        context: Option<Box<ProcessContext>>,
    ) -> Result<Option<u32>, TracerError> {
        let Some(context) = context else { return Ok(None) };
        let known = &self.journal.recording().provenance.contexts;
        let index = match known.iter().position(|known| known.is_same_as(&context)) {
            Some(index) => index,
            None if known.len() >= MOST_CONTEXTS => {
                self.losses.contexts += 1;
                return Ok(None);
            }
            None => {
                let index = known.len();
                self.journal.add(Entry::Context(context))?;
                index
            }
        };
        Ok(u32::try_from(index).ok())
    }

    /// Reads what file systems in memory hold now.
    pub fn read_tmpfs(&mut self, moment: Moment) -> Result<(), TracerError> {
        let file_systems = tmpfs::read(&self.members(), moment);
        Ok(self.journal.add(Entry::Tmpfs { file_systems })?)
    }

    /// The same of those that the target alone has mounted: a container's are gone with it.
    pub fn read_own_tmpfs(&mut self, moment: Moment) -> Result<(), TracerError> {
        let file_systems = tmpfs::read_theirs(&self.members(), moment);
        if file_systems.is_empty() {
            return Ok(());
        }
        Ok(self.journal.add(Entry::Tmpfs { file_systems })?)
    }

    /// Processes of the target; of a machine, which is not looked into process by process, none.
    fn members(&self) -> Vec<u32> {
        if self.target.is_whole_machine() { Vec::new() } else { self.alive() }
    }

    /// Reads the largest processes outside of the target; none where the target is the machine.
    pub fn read_outside(&mut self, moment: Moment) -> Result<(), TracerError> {
        if self.target.is_whole_machine() {
            return Ok(());
        }
        let found = outside::largest(&self.alive(), &self.gpus.processes(), moment);
        self.losses.outside = self.losses.outside.max(found.missed);
        Ok(self.journal.add(Entry::Outside { processes: found.rows })?)
    }

    /// Has them read near a query, by a thread of its own.
    pub(super) fn want_neighbours(&mut self) -> Result<(), TracerError> {
        if self.target.is_whole_machine() || !self.retention.policy().peaks {
            return Ok(());
        }
        self.take_neighbours()?;
        if self.neighbours.wants() {
            self.neighbours.read(self.alive(), self.gpus.processes());
        }
        Ok(())
    }

    /// What that thread has found so far.
    pub(super) fn take_neighbours(&mut self) -> Result<(), TracerError> {
        while let Some(found) = self.neighbours.take() {
            self.journal.add(Entry::Outside { processes: found.rows })?;
        }
        Ok(())
    }

    /// The same of the reading under way, which is waited for.
    pub fn finish_neighbours(&mut self) -> Result<(), TracerError> {
        self.take_neighbours()?;
        if let Some(found) = self.neighbours.finish() {
            self.journal.add(Entry::Outside { processes: found.rows })?;
        }
        self.losses.outside = self.losses.outside.max(self.neighbours.missed);
        self.losses.unserved_queries = self.neighbours.unserved;
        Ok(())
    }

    pub fn add_log_lines(&mut self, lines: Vec<LogLine>) -> Result<(), TracerError> {
        for line in lines {
            self.journal.add(Entry::LogLine(line))?;
        }
        Ok(())
    }
}
