//! What a trace that goes on for days would pile up, dropped now and then.

use std::io::Write;

use spark_trace_common::capacities::LossKind;

use super::{Tracer, TracerError};
use crate::now_ns;

impl<W: Write> Tracer<W> {
    /// What no row of a recording names any more.
    pub fn tidy_names(&mut self) -> Result<(), TracerError> {
        Ok(self.collector.tidy(&self.object)?)
    }

    /// Drops rows that are older than the window, if that is due, but none from `kept_ns` on. A recording keeps everything.
    pub fn forget(&mut self, kept_ns: Option<u64>) -> Result<(), TracerError> {
        let now = now_ns();
        let Some(before_ns) = self.retention.due(now, self.process_count()) else { return Ok(()) };
        let before_ns = kept_ns.map_or(before_ns, |kept| kept.min(before_ns));
        self.cgroups.retain(|_, cgroup| cgroup.info.removed_ns.is_none_or(|removed| removed >= before_ns));
        self.journal.forget(before_ns);
        self.tidy()?;
        self.retention.dropped(now, self.process_count());
        Ok(())
    }

    /// Rows of processes that are kept, ended ones too.
    fn process_count(&self) -> usize {
        self.journal.recording().provenance.processes.len()
    }

    fn tidy(&mut self) -> Result<(), TracerError> {
        let alive = &self.alive;
        self.object.forget_processes(|pid| alive.contains(&pid))?;
        let lost = self.object.losses()?;
        let lost = lost.iter().find(|loss| loss.what == LossKind::Files.name()).map_or(0, |loss| loss.count);
        if self.retention.is_table_full(lost) {
            // Files of which no page is left make room.
            self.object.forget_empty_files()?;
        }
        self.collector.tidy(&self.object)?;
        self.stacks.rest();
        Ok(())
    }
}
