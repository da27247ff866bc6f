//! What a trace that goes on for days would pile up, dropped now and then.

use std::io::Write;

use spark_trace_common::capacities::LossKind;

use super::{Tracer, TracerError};

impl<W: Write> Tracer<W> {
    /// What no row of a recording names any more.
    pub fn tidy_names(&mut self) -> Result<(), TracerError> {
        Ok(self.collector.tidy(&self.object)?)
    }

    /// Only where somebody looks: a recording keeps everything.
    pub fn tidy(&mut self) -> Result<(), TracerError> {
        let alive = &self.alive;
        self.object.forget_processes(|pid| alive.contains(&pid))?;
        let lost = self.object.losses()?;
        let lost = lost.iter().find(|loss| loss.what == LossKind::Files.name()).map_or(0, |loss| loss.count);
        if lost > self.files_lost {
            // The table is full: files of which no page is left make room.
            self.files_lost = lost;
            self.object.forget_empty_files()?;
        }
        self.collector.tidy(&self.object)?;
        self.stacks.rest();
        Ok(())
    }
}
