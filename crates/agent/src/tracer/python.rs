//! Frames of Python in the stacks of calls.

use std::{borrow::Cow, io::Write};

use super::{Tracer, unwinding::UserStack};
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

    /// The process has mapped a library that calls come through. It may have been looked at too early.
    pub(super) fn look_again_for_python(&mut self, pid: u32) {
        if self.pythons.had_none(pid) {
            self.forget_python(pid);
        }
        self.look_for_python(pid);
    }

    /// A process has ended or become another program.
    pub(super) fn forget_python(&mut self, pid: u32) {
        if self.pythons.forget(pid) {
            self.object.forget_python(pid);
        }
    }

    /// Where the frames of an event lie: those of the libraries, and outside of them those of Python.
    pub(super) fn place(&mut self, stack: UserStack<'_>, walk: Option<&Walk>) -> Option<Placed> {
        self.look_for_python(stack.pid);
        let unwound = self.unwound(stack);
        let frames = walk.map(|walk| self.pythons.name(stack.pid, walk)).unwrap_or_default();
        let is_unwound = unwound.is_some();
        let addresses = unwound.map_or(Cow::Borrowed(stack.addresses), Cow::Owned);
        // Without frames of Python, as in a thread of a library, the interpreter's own are all that is known.
        let called = match frames.is_empty() {
            true => &addresses,
            false => self.pythons.called(stack.pid, &addresses),
        };
        let placed = match is_unwound {
            true => self.stacks.place_unwound(stack.pid, called),
            false => self.stacks.place(stack.pid, called, stack.caller),
        };
        self.stacks.called_by(placed, frames)
    }
}
