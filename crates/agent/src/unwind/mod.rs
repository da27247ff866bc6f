//! Callers in code of C and C++ that keeps no frame pointers.
//!
//! The kernel side copies a piece of the stack of each large allocation and memory query. It is unwound by the tables that
//! compilers write for exceptions (`.eh_frame`), in a process without rights ([`crate::unprivileged`]): tables are programs that
//! anybody may have written. Addresses are all that comes back, and no byte of a stack is recorded.
//!
//! A thread waits for that process. Whoever wants a stack waits for the thread, a bounded time.

mod copies;
pub mod index;
pub mod serve;
mod tables;
mod thread;
pub mod walk;

use std::{sync::Arc, time::Duration};

use aya::maps::{MapData, RingBuf};

use crate::unprivileged::Took;
use copies::Copies;
use spark_trace_recording::{ReaderCost, Unwinding};
pub use thread::{Range, Ranges};
use thread::{Request, Thread, Waited};
pub use walk::{End, Walk};

/// How long one stack is waited for. What comes later is dropped, and so is what is wanted until then.
const LONGEST_WAIT: Duration = Duration::from_millis(500);

/// Unwinds stacks, and counts what became of them.
pub struct Unwinder {
    copies: Copies,
    /// Absent where no process without rights can be started.
    thread: Option<Thread>,
    unable: Option<String>,
    took: Took,
    counts: Unwinding,
}

impl Unwinder {
    /// Waits until the process that unwinds is ready.
    pub fn start(copies: RingBuf<MapData>) -> Self {
        let took = Took::default();
        let (thread, unable) = match Thread::start(Arc::clone(&took)) {
            Ok(thread) => (Some(thread), None),
            Err(why) => (None, Some(why)),
        };
        Self { copies: Copies::new(copies), thread, unable, took, counts: Unwinding::default() }
    }

    /// The copy that an event names; `None` where it was not made.
    pub fn copy(&mut self, number: u64) -> Option<walk::Copied> {
        let copied = self.copies.take(number);
        self.counts.copies += u64::from(copied.is_some());
        copied
    }

    /// Unwinds a copy, with the code of its process.
    pub fn walk(&mut self, copied: &walk::Copied, ranges: Arc<Ranges>) -> Option<Walk> {
        let thread = self.thread.as_mut()?;
        match thread.walk(Request { copied: copied.clone(), ranges }, LONGEST_WAIT) {
            Waited::Walk(walk) => Some(walk),
            Waited::Failed => {
                self.counts.failed += 1;
                None
            }
            Waited::Late => {
                self.counts.late += 1;
                None
            }
        }
    }

    /// Counts a stack that is taken in place of the one by frame pointers, or not.
    pub fn decided(&mut self, walk: &Walk, is_taken: bool) {
        self.counts.complete += u64::from(walk.end == End::Outermost);
        self.counts.taken += u64::from(is_taken);
    }

    pub fn counts(&self) -> Unwinding {
        self.counts
    }

    /// What the processes took that unwind.
    pub fn cost(&self) -> Option<ReaderCost> {
        *self.took.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Why no stack is unwound.
    pub fn warning(&self) -> Option<String> {
        self.unable.as_ref().map(|why| format!("stacks have frame pointers alone: {why}"))
    }
}

#[cfg(test)]
mod tests;
