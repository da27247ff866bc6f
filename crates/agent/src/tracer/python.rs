//! Frames of Python in the stacks of calls.

use std::io::Write;

use super::Tracer;
use crate::{python::Walk, symbols::Placed};

impl<W: Write> Tracer<W> {
    /// Finds a process's interpreter, unless it was looked for before.
    pub(super) fn look_for_python(&mut self, pid: u32) {
        if !self.reads_python || self.pythons.knows(pid) {
            return;
        }
        let process = self.pythons.look_at(pid);
        self.object.has_python(pid, process);
    }

    /// A process has ended or become another program.
    pub(super) fn forget_python(&mut self, pid: u32) {
        if self.pythons.forget(pid) {
            self.object.forget_python(pid);
        }
    }

    /// Where the frames of a call lie: those of the libraries, and outside of them those of Python. `caller`: as
    /// [`crate::symbols::Stacks::place`] wants it.
    pub(super) fn place_with_python(
        &mut self,
        pid: u32,
        (stack, caller): (&[u64], u64),
        walk: Option<&Walk>,
    ) -> Option<Placed> {
        self.look_for_python(pid);
        let Some(walk) = walk else { return self.stacks.place(pid, stack, caller) };
        let frames = self.pythons.name(pid, walk);
        // Without frames of Python, as in a thread of a library, the interpreter's own are all that is known.
        let called = if frames.is_empty() { stack } else { self.pythons.called(pid, stack) };
        let placed = self.stacks.place(pid, called, caller);
        self.stacks.called_by(placed, frames)
    }
}
