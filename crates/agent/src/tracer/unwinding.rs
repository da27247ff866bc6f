//! Which of two stacks an event gets: the one that the kernel has walked by frame pointers, or the one that was unwound.

use std::io::Write;

use super::Tracer;
use crate::unwind::{End, Walk};

/// A user stack as an event brings it.
#[derive(Debug, Clone, Copy)]
pub(super) struct UserStack<'a> {
    pub pid: u32,
    /// By frame pointers, innermost first.
    pub addresses: &'a [u64],
    /// Return address of the system call's stub, if it keeps no frame.
    pub caller: u64,
    /// Number of its copy.
    pub copy: Option<u64>,
}

impl<W: Write> Tracer<W> {
    /// The stack by the tables of its code; `None` where there is none, and where the frame pointers lead further.
    pub(super) fn unwound(&mut self, stack: UserStack<'_>) -> Option<Vec<u64>> {
        let walk = self.walk_copy(stack.pid, stack.copy?)?;
        let UserStack { pid, addresses, caller, .. } = stack;
        // What ends at the outermost function is all of it, however far what looks like frame pointers leads.
        let is_taken = walk.end == End::Outermost
            || walk.frames.len()
                >= self.stacks.place(pid, addresses, caller).map_or(0, |placed| placed.depth()).max(2);
        if let Some(unwinder) = &mut self.unwinder {
            unwinder.decided(&walk, is_taken);
        }
        is_taken.then_some(walk.frames)
    }

    fn walk_copy(&mut self, pid: u32, number: u64) -> Option<Walk> {
        let unwinder = self.unwinder.as_mut()?;
        let copied = unwinder.copy(number)?;
        let walk = unwinder.walk(&copied, self.stacks.ranges(pid)?)?;
        let End::Unknown(address) = walk.end else { return Some(walk) };
        // A library that was mapped since the code was looked at. One look finds others, too.
        if !self.stacks.is_in_file(pid, address) {
            return Some(walk);
        }
        self.stacks.look_at(pid);
        let again = unwinder.walk(&copied, self.stacks.ranges(pid)?)?;
        Some(again)
    }
}
