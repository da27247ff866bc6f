//! What library calls do to a trace.

use std::{io::Write, path::PathBuf};

use super::{
    Tracer, TracerError,
    tentative::{Belongs, Deferred},
    unwinding::UserStack,
};
use crate::cuda::Effect;
use crate::decode::{Call, MappedLibrary};
use crate::{driver::DriverBytes, now_ns};
use spark_trace_common::cuda::Library;
use spark_trace_recording::{
    LibraryFile,
    journal::{Entry, Sample, SeriesId},
};

impl<W: Write> Tracer<W> {
    /// Attaches to the libraries that are there before the target starts.
    pub fn find_libraries(&mut self, extra: &[PathBuf]) -> Result<(), TracerError> {
        if !self.object.watches_libraries() {
            return Ok(());
        }
        for file in self.libraries.present(&mut self.object, extra) {
            self.journal.add(Entry::Library(file))?;
        }
        self.follow_driver();
        Ok(())
    }

    /// A process has mapped a library, and waits for this if it is paused.
    pub(super) fn library_event(&mut self, event: &MappedLibrary) -> Result<(), TracerError> {
        let file = match self.object.watches_libraries() {
            true => self.libraries.mapped(&mut self.object, event),
            false => None,
        };
        self.follow_driver();
        // Before it calls anything.
        self.look_again_for_python(event.pid);
        let waited = self.let_go(event)?;
        match file {
            Some(file) => Ok(self.journal.add(Entry::Library(LibraryFile { paused_ns: waited, ..file }))?),
            None => Ok(()),
        }
    }

    /// Lets the process go on that an event is of, if it is paused. Says how long it was, where it was until now.
    fn let_go(&mut self, event: &MappedLibrary) -> Result<Option<u64>, TracerError> {
        if !event.paused {
            return Ok(None);
        }
        let since = self.object.paused_since(event.pid)?;
        // Paused again for another library: the event of that one comes yet.
        if since.is_none_or(|since| since <= event.at_ns) {
            self.object.let_go(event.pid, event.at_ns)?;
        }
        // The guard was quicker: it ran on before the library was watched.
        Ok(since.map(|_| now_ns().saturating_sub(event.at_ns)))
    }

    /// Once a CUDA driver is in use, frees are followed as they happen: the driver's pages are too many to look at
    /// each of them again.
    pub(super) fn follow_driver(&mut self) {
        if self.libraries.driver_in_use {
            self.object.attach_waiting("cuda");
        }
    }

    /// Whether all calls of the CUDA driver are seen, or would be: a driver is attached to, or none is in use.
    pub(super) fn sees_calls(&self) -> bool {
        let in_use = self.libraries.driver_in_use;
        self.libraries.driver_watched
            || !in_use && self.object.watches_libraries() && self.object.sees_mappings()
    }

    /// System memory that the NVIDIA module holds; `None` where there is no such module or pages are not followed.
    pub(super) fn driver_bytes(&mut self) -> Result<Option<DriverBytes>, TracerError> {
        if !self.driver_module || !self.object.follows_pages() {
            return Ok(None);
        }
        Ok(Some(self.driver.read(&self.object, &mut self.stacks)?))
    }

    /// What is in use through the CUDA driver after the events before `at_ns`; `None` where it was never used.
    pub(super) fn cuda_sample(&self, at_ns: u64) -> Option<Sample> {
        if self.collector.cuda.is_empty() {
            return None;
        }
        let live = self.collector.cuda.now().by_kind.into_iter();
        Some(Sample {
            series: SeriesId::Cuda,
            begin_ns: at_ns,
            end_ns: at_ns,
            values: live.map(|(kind, bytes)| (format!("live.{kind}"), bytes)).collect(),
            absent: Vec::new(),
        })
    }

    pub(super) fn call_event(&mut self, call: Call) -> Result<(), TracerError> {
        let whose = self.belongs(call.cgroup, call.pid);
        if whose == Belongs::Elsewhere {
            return Ok(());
        }
        // Where it is not seen that the library is mapped, its first call shows it.
        if call.function.library == Library::Cuda && !self.libraries.driver_in_use {
            self.libraries.driver_in_use = true;
            self.follow_driver();
        }
        let stack = UserStack { pid: call.pid, addresses: &call.stack, caller: 0, copy: call.copy };
        let placed = self.place(stack, call.python.as_ref());
        let backing = self.backings.of(&call);
        if whose == Belongs::Undecided {
            let backing = backing.map(ToOwned::to_owned);
            self.tentative.wait(call.cgroup, Deferred::Call(Box::new(call), placed, backing));
            return Ok(());
        }
        let stack = placed.and_then(|placed| self.stacks.keep(placed));
        self.take_call(&call, stack, backing)
    }

    pub(super) fn take_call(
        &mut self,
        call: &Call,
        stack: Option<u32>,
        backing: Option<&str>,
    ) -> Result<(), TracerError> {
        self.take_samples(call.end_ns)?;
        let effect = self.collector.cuda.apply(call, stack, backing);
        self.gpus.changed(call.pid, &self.collector.cuda.device_of(call.pid));
        match effect {
            Effect::None => Ok(()),
            Effect::Failure(failure) => Ok(self.journal.add(Entry::CudaFailure(failure))?),
            Effect::Event(event) => Ok(self.journal.add(Entry::CudaEvent(event))?),
        }
    }
}
