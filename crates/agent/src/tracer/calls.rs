//! What library calls and readings of memory figures do to a trace.

use std::{io::Write, path::PathBuf};

use spark_trace_common::cuda::Op;

use super::{
    Tracer, TracerError,
    tentative::{Belongs, Deferred},
};
use crate::cuda::Effect;
use crate::decode::{Call, MappedLibrary, MemoryAnswer, State};
use crate::memory_answer;
use crate::{driver::DriverBytes, now_ns, page_size, symbols::Placed};
use spark_trace_host::meminfo;
use spark_trace_recording::{
    LaterState, LibraryFile, MemoryQuery, MemoryState,
    journal::{Entry, Sample, SeriesId},
};

/// MemFree is the page allocator's free pages on every kernel but those that count memory to come: less than this
/// between two readings is only time that went by.
const BEYOND_FREE: u64 = 256 << 20;

/// What a thread has read of a file so far.
pub(super) struct PartialReading {
    figures: MemoryAnswer,
    state: Option<MemoryState>,
    placed: Option<Placed>,
}

/// Answers that a framework sizes its caches by: what holds the memory is wanted at that time.
const SIZING: &[&str] = &["cuMemGetInfo_v2", "sysinfo"];

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
        Ok(Some(self.collector.driver_bytes(&self.object, &mut self.stacks)?))
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
        let placed = self.stacks.place(call.pid, &call.stack, 0);
        if call.function.op == Op::Query {
            let mut query = MemoryQuery {
                at_ns: call.end_ns,
                began_ns: Some(call.begin_ns),
                pid: call.pid,
                tid: call.tid,
                cgroup: call.cgroup,
                interface: call.function.symbol.to_owned(),
                result: call.result,
                ..MemoryQuery::default()
            };
            let figures = call.function.figures.iter().zip(call.outs);
            if call.succeeded() {
                query.values =
                    figures.filter_map(|(name, bytes)| Some(((*name).to_owned(), bytes?))).collect();
            }
            query.state = self.state_of(call.state, query.at_ns)?;
            return self.query_event(query, placed);
        }
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
        self.gpus.changed(call.pid, self.collector.cuda.device_of(call.pid));
        match effect {
            Effect::None => Ok(()),
            Effect::Failure(failure) => Ok(self.journal.add(Entry::CudaFailure(failure))?),
            Effect::Event(event) => Ok(self.journal.add(Entry::CudaEvent(event))?),
        }
    }

    /// A file may be read in parts: its figures are worked out when all of it is there.
    pub(super) fn figures_event(&mut self, event: MemoryAnswer) -> Result<(), TracerError> {
        let key = (event.tid, event.name.clone(), event.parent.clone());
        if event.position == 0 && self.retention.refuses_query() {
            return Ok(());
        }
        if event.position > 0 {
            // Further parts of a reading whose beginning was not seen say nothing.
            if let Some(reading) = self.readings.get_mut(&key)
                && reading.figures.content.len() as u64 == event.position
            {
                reading.figures.content.extend(event.content);
            }
            return Ok(());
        }
        if self.belongs(event.cgroup, event.pid) == Belongs::Elsewhere {
            return Ok(());
        }
        let state = self.state_of(event.state, event.at_ns)?;
        let placed = self.stacks.place(event.pid, &event.stack, event.caller);
        let begun = PartialReading { figures: event, state, placed };
        match self.readings.insert(key, begun) {
            Some(before) => self.reading_done(before),
            None => Ok(()),
        }
    }

    /// Takes the readings as complete that began before `before_ns`.
    pub fn finish_readings(&mut self, before_ns: u64) -> Result<(), TracerError> {
        let mut done: Vec<_> = self
            .readings
            .extract_if(|_, reading| reading.figures.at_ns < before_ns)
            .map(|(_, r)| r)
            .collect();
        done.sort_by_key(|reading| reading.figures.at_ns);
        done.into_iter().try_for_each(|reading| self.reading_done(reading))
    }

    fn reading_done(&mut self, reading: PartialReading) -> Result<(), TracerError> {
        let PartialReading { figures: event, state, placed } = reading;
        let answer = memory_answer::parse(event.op, &event.name, &event.parent, &event.content, page_size());
        let Some(answer) = answer else { return Ok(()) };
        let query = MemoryQuery {
            at_ns: event.at_ns,
            pid: event.pid,
            tid: event.tid,
            cgroup: event.cgroup,
            interface: answer.interface,
            directory: answer.directory,
            values: answer.values,
            text: answer.text,
            state,
            ..MemoryQuery::default()
        };
        self.query_event(query, placed)
    }

    fn query_event(&mut self, query: MemoryQuery, placed: Option<Placed>) -> Result<(), TracerError> {
        match self.belongs(query.cgroup, query.pid) {
            Belongs::Ours => self.take_query(query, placed),
            Belongs::Undecided => {
                self.tentative.wait(query.cgroup, Deferred::Query(Box::new(query), placed));
                Ok(())
            }
            Belongs::Elsewhere => Ok(()),
        }
    }

    pub(super) fn take_query(
        &mut self,
        mut query: MemoryQuery,
        placed: Option<Placed>,
    ) -> Result<(), TracerError> {
        if !self.retention.take_query() {
            return Ok(());
        }
        query.stack = placed.and_then(|placed| self.stacks.keep(placed));
        let sizes = SIZING.contains(&query.interface.as_str());
        self.journal.add(Entry::Query(Box::new(query)))?;
        if sizes { self.read_aggregates_at_answer() } else { Ok(()) }
    }

    /// Queries that were not kept.
    pub const fn queries_lost(&self) -> u64 {
        self.retention.queries_lost()
    }

    /// What is free at some time after `at_ns`. Where events are behind, what was read for one is later than many others.
    fn free_since(&mut self, at_ns: u64) -> Free {
        match self.free {
            Some(free) if free.at_ns >= at_ns => free,
            _ => *self.free.insert(Free::read()),
        }
    }

    fn state_of(&mut self, state: Option<State>, at_ns: u64) -> Result<Option<MemoryState>, TracerError> {
        // Of no use beyond what is kept, and not free.
        let Some(state) = state.filter(|_| self.retention.has_room_for_query()) else { return Ok(None) };
        let driver = self.driver_bytes()?;
        let driver_bytes = driver.map(|driver| driver.by_source().map(|(_, bytes)| bytes.total()).sum());
        let bytes = |pages: u64| pages * page_size();
        let later = self.free_since(at_ns);
        let beyond =
            later.mem_free.zip(later.allocator).map(|(all, allocator)| all.saturating_sub(allocator));
        let beyond = beyond.filter(|bytes| *bytes > BEYOND_FREE).unwrap_or(0);
        let cuda_live = self
            .collector
            .cuda
            .now()
            .by_kind
            .into_iter()
            .map(|(kind, live)| (kind.to_owned(), live))
            .collect();
        Ok(Some(MemoryState {
            mem_free: later.mem_free.map(|_| bytes(state.free) + beyond),
            free: bytes(state.free),
            file: bytes(state.file),
            dirty: bytes(state.dirty),
            writeback: bytes(state.writeback),
            shmem: bytes(state.shmem),
            anon: bytes(state.anon),
            slab_reclaimable: bytes(state.slab_reclaimable),
            cgroup_usage: bytes(state.cgroup_usage),
            cgroup: state.cgroup,
            later: Some(LaterState {
                age_ns: later.at_ns.saturating_sub(at_ns),
                mem_free: later.mem_free,
                mem_available: later.mem_available,
                driver_bytes,
                cuda_live,
            }),
        }))
    }
}

/// What is free, as the kernel's files say.
#[derive(Debug, Clone, Copy)]
pub(super) struct Free {
    at_ns: u64,
    mem_free: Option<u64>,
    /// In no counter: the kernel works it out for each reader.
    mem_available: Option<u64>,
    allocator: Option<u64>,
}

impl Free {
    fn read() -> Self {
        let at_ns = now_ns();
        let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
        Self {
            at_ns,
            mem_free: meminfo::field(&text, "MemFree"),
            mem_available: meminfo::field(&text, "MemAvailable"),
            allocator: allocator_free(),
        }
    }
}

/// What the page allocator has free now, bytes.
fn allocator_free() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/vmstat").ok()?;
    let pages = text.lines().find_map(|line| line.strip_prefix("nr_free_pages "))?;
    Some(pages.trim().parse::<u64>().ok()? * page_size())
}
