//! The fold: one call after the other.

use std::collections::{BTreeMap, HashMap, HashSet};

use spark_trace_common::cuda::{Kind, Op};

use super::largest::Largest;
use super::object::{Contexts, Mapping, Object, Physical, Space, space_of};
use super::places::{Place, Places, is_on_host};
use super::totals::{ByGpu, Totals};
use crate::decode::Call;
use spark_trace_common::result::result_name;
use spark_trace_recording::{
    CudaAllocation, CudaAllocs, CudaEvent, CudaFailure, CudaGpuTotal, CudaOwn, CudaTotal, Gpu,
};

/// What the target's processes hold.
#[derive(Debug, Default)]
pub struct Holdings {
    rows: Vec<CudaAllocs>,
    by_key: HashMap<RowKey, usize>,
    /// Live bytes of each row.
    held: Vec<u64>,
    objects: HashMap<(u32, Space, u64), Object>,
    /// Address of a mapping to the handle of the physical memory it shows.
    mappings: HashMap<(u32, u64), Mapping>,
    totals: Totals,
    largest: Largest,
    places: Places,
    contexts: HashMap<u32, Contexts>,
    /// Physical memory whose handle was released while it was still mapped, by a number of its own.
    orphans: HashMap<u64, Object>,
    next_orphan: u64,
    /// Releases to come of handles that were retained: they free nothing. No more than `MOST_RETAINED`.
    retained: HashMap<(u32, u64), u32>,
    /// Frees of what was allocated before the trace began, or not seen.
    pub unknown_frees: u64,
    /// Contexts that ended while others of their process lived, or may have: what they held counts until the process
    /// ends.
    pub ambiguous_contexts: u64,
    /// Allocations that succeeded and whose address could not be read.
    pub unreadable: u64,
    /// Processes seen from their start: all their contexts are known.
    began: HashSet<u32>,
}

/// Handles that a program retains and does not release: libraries release them at once.
const MOST_RETAINED: usize = 1 << 16;

type RowKey = (u32, Kind, &'static str, Option<u32>, Option<String>, Place);

/// Something a call means beyond what it adds to the sums.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    None,
    Failure(CudaFailure),
    Event(CudaEvent),
}

/// What is held at one moment, for a sample.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Moment {
    /// Live bytes of the target by kind.
    pub by_kind: BTreeMap<&'static str, u64>,
    /// Live pinned and registered bytes by what they lie in.
    pub pinned: BTreeMap<String, u64>,
}

impl Holdings {
    /// The GPUs that NVML lists.
    pub fn know_gpus(&mut self, gpus: &[Gpu]) {
        self.places.know(gpus);
    }

    /// Takes a call in. `stack` is its id, `backing` what the memory lies in, if that was looked at.
    pub fn apply(&mut self, call: &Call, stack: Option<u32>, backing: Option<&str>) -> Effect {
        let function = call.function;
        if call.succeeded()
            && let Some((device, gpu)) = self.places.learn(call)
        {
            self.moved(call.pid, Place::Ordinal(device), Place::Gpu(gpu));
        }
        if let Some(event) = function.op.event() {
            if call.succeeded() {
                self.context(call);
            }
            return Effect::Event(CudaEvent {
                at_ns: call.end_ns,
                duration_ns: call.end_ns.saturating_sub(call.begin_ns),
                pid: call.pid,
                tid: call.tid,
                event: event.to_owned(),
                function: function.symbol.to_owned(),
                object: call.value(function.object),
                size: call.value(function.size),
                result: call.result,
                stack,
            });
        }
        match function.op {
            Op::Alloc(Kind::Physical) if is_on_host(call) => {
                return self.alloc(call, Kind::PhysicalHost, stack, backing);
            }
            Op::Alloc(kind) => return self.alloc(call, kind, stack, backing),
            Op::Free(kinds) if call.succeeded() => self.free(call, kinds),
            Op::Map if call.succeeded() => self.map(call),
            Op::Unmap if call.succeeded() => self.unmap(call),
            Op::HandleRetain if call.succeeded() => self.retain(call),
            _ => {}
        }
        Effect::None
    }

    /// A process, or a new program in it, begins.
    pub fn process_began(&mut self, pid: u32) {
        self.began.insert(pid);
    }

    /// The end of a process frees all it held.
    pub fn process_ended(&mut self, pid: u32, at_ns: u64) {
        self.release(pid, at_ns, |_| true);
        self.release_mappings(pid, at_ns);
        self.contexts.remove(&pid);
        self.retained.retain(|(owner, _), _| *owner != pid);
        self.places.forget(pid);
        self.began.remove(&pid);
    }

    /// Whether anything was ever allocated, or refused.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Puts down what is held now as the state at `slots`.
    pub fn mark(&mut self, slots: &[usize]) {
        for (row, held) in self.rows.iter_mut().zip(&self.held) {
            for &slot in slots {
                row.live.set(slot, Some(*held));
            }
        }
    }

    /// All rows, every `live` as long as there are instants.
    pub fn rows(&mut self, instants: usize) -> Vec<CudaAllocs> {
        self.rows.iter_mut().for_each(|row| row.live.resize(instants));
        self.rows.clone()
    }

    /// The largest allocations one by one.
    pub fn largest(&self) -> Vec<CudaAllocation> {
        self.largest.all(&self.rows)
    }

    pub fn totals(&self) -> Vec<CudaTotal> {
        self.totals.all()
    }

    pub fn by_gpu(&self) -> Vec<CudaGpuTotal> {
        self.totals.by_gpu()
    }

    pub fn now(&self) -> Moment {
        let mut moment = Moment { by_kind: self.totals.of_target().collect(), ..Moment::default() };
        for (row, held) in self.rows.iter().zip(&self.held) {
            if let Some(backing) = &row.backing {
                *moment.pinned.entry(backing.clone()).or_default() += held;
            }
        }
        moment
    }

    /// Device memory of a process that has allocated any.
    pub fn own(&self, pid: u32) -> Option<CudaOwn> {
        self.totals.own(pid)
    }

    /// What a process has pinned, by what it lies in.
    pub fn pinned_by(&self, pid: u32) -> BTreeMap<String, u64> {
        let mut pinned = BTreeMap::new();
        for (row, held) in self.rows.iter().zip(&self.held).filter(|(row, _)| row.pid == pid) {
            if let Some(backing) = &row.backing {
                *pinned.entry(backing.clone()).or_default() += held;
            }
        }
        pinned
    }

    /// Device memory that each process holds.
    pub fn device_by_process(&self) -> BTreeMap<u32, ByGpu> {
        self.totals.device_by_process()
    }

    /// The same of one process.
    pub fn device_of(&self, pid: u32) -> ByGpu {
        self.totals.device_of(pid)
    }

    fn alloc(&mut self, call: &Call, kind: Kind, stack: Option<u32>, backing: Option<&str>) -> Effect {
        let place = self.places.of(call, kind);
        let row = self.row(call, kind, place, stack, backing);
        let size = call.value(call.function.size);
        if !call.succeeded() {
            self.rows[row].failures += 1;
            self.totals.each(call.pid, kind, place, |total| total.failures += 1);
            return Effect::Failure(CudaFailure {
                at_ns: call.end_ns,
                pid: call.pid,
                tid: call.tid,
                function: call.function.symbol.to_owned(),
                kind: kind.as_str().to_owned(),
                size,
                result: call.result,
                result_name: result_name(call.function.library, call.result).map(ToOwned::to_owned),
                stack,
            });
        }
        let Some(object) = call.value(call.function.object) else {
            self.unreadable += 1;
            return Effect::None;
        };
        let bytes = size.unwrap_or(0);
        let key = (call.pid, space_of(kind), object);
        // An address that comes again was freed by a call that was not seen.
        if let Some(before) = self.objects.remove(&key) {
            self.retire(call.pid, before, true, call.end_ns);
        }
        let (context, since_ns) = (call.context, call.end_ns);
        let number = self.largest.began(row, kind, bytes, since_ns);
        self.objects.insert(key, Object { row, kind, place, context, bytes, since_ns, mapped: 0, number });
        self.held[row] = self.held[row].saturating_add(bytes);
        let totals = &mut self.rows[row];
        totals.allocs += 1;
        totals.bytes_allocated = totals.bytes_allocated.saturating_add(bytes);
        let at_ns = call.end_ns;
        self.totals.each(call.pid, kind, place, |total| {
            total.allocs += 1;
            total.live = total.live.saturating_add(bytes);
            if total.live > total.peak {
                (total.peak, total.peak_ns) = (total.live, at_ns);
            }
        });
        Effect::None
    }

    fn free(&mut self, call: &Call, kinds: &[Kind]) {
        let Some(value) = call.value(call.function.object) else { return };
        // Freeing nothing is allowed.
        if value == 0 {
            return;
        }
        if kinds.contains(&Kind::Physical) && self.releases_retained(call.pid, value) {
            return;
        }
        let spaces = [Space::Address, Space::Handle, Space::Range];
        // One that came after this call began is its successor at the address: it took the predecessor's place.
        let is_it = |object: &Object| kinds.contains(&object.kind) && object.since_ns <= call.begin_ns;
        let found =
            spaces.into_iter().find(|space| self.objects.get(&(call.pid, *space, value)).is_some_and(is_it));
        let Some(object) = found.and_then(|space| self.objects.remove(&(call.pid, space, value))) else {
            self.unknown_frees += 1;
            return;
        };
        if object.mapped == 0 {
            self.retire(call.pid, object, false, call.end_ns);
            return;
        }
        // Released while mapped: it lives until the last mapping goes, and the handle may come again.
        let orphan = self.next_orphan;
        self.next_orphan += 1;
        for (&(pid, _), mapping) in &mut self.mappings {
            if pid == call.pid && matches!(mapping.of, Physical::Handle(handle) if handle == value) {
                mapping.of = Physical::Orphan(orphan);
            }
        }
        self.orphans.insert(orphan, object);
    }

    fn retain(&mut self, call: &Call) {
        let Some(handle) = call.value(call.function.object) else { return };
        if self.retained.len() < MOST_RETAINED || self.retained.contains_key(&(call.pid, handle)) {
            let owners = self.retained.entry((call.pid, handle)).or_default();
            *owners = owners.saturating_add(1);
        }
    }

    /// Whether a release only takes back a retain: the memory keeps the handle that it was created with.
    fn releases_retained(&mut self, pid: u32, handle: u64) -> bool {
        let Some(owners) = self.retained.get_mut(&(pid, handle)) else { return false };
        *owners -= 1;
        if *owners == 0 {
            self.retained.remove(&(pid, handle));
        }
        true
    }

    fn map(&mut self, call: &Call) {
        let (Some(address), Some(length), Some(handle)) = (
            call.value(call.function.object),
            call.value(call.function.size),
            call.value(call.function.other),
        ) else {
            return;
        };
        if let Some(object) = self.objects.get_mut(&(call.pid, Space::Handle, handle)) {
            object.mapped += 1;
            self.mappings.insert((call.pid, address), Mapping { length, of: Physical::Handle(handle) });
        }
    }

    /// One call may take several neighbouring mappings away.
    fn unmap(&mut self, call: &Call) {
        let (Some(address), Some(length)) =
            (call.value(call.function.object), call.value(call.function.size))
        else {
            return;
        };
        let end = address.saturating_add(length);
        let inside = |at: u64, mapping: &Mapping| at >= address && at.saturating_add(mapping.length) <= end;
        let gone: Vec<(u32, u64)> = self
            .mappings
            .iter()
            .filter(|((pid, at), mapping)| *pid == call.pid && inside(*at, mapping))
            .map(|(key, _)| *key)
            .collect();
        for key in gone {
            match self.mappings.remove(&key).map(|mapping| mapping.of) {
                Some(Physical::Handle(handle)) => {
                    if let Some(object) = self.objects.get_mut(&(call.pid, Space::Handle, handle)) {
                        object.mapped = object.mapped.saturating_sub(1);
                    }
                }
                Some(Physical::Orphan(number)) => {
                    let Some(object) = self.orphans.get_mut(&number) else { continue };
                    object.mapped = object.mapped.saturating_sub(1);
                    if object.mapped == 0
                        && let Some(object) = self.orphans.remove(&number)
                    {
                        self.retire(call.pid, object, false, call.end_ns);
                    }
                }
                None => {}
            }
        }
    }

    /// Follows contexts: the end of a process's last one frees what it held.
    fn context(&mut self, call: &Call) {
        let object = call.value(call.function.object);
        let device = call.value(call.function.other).unwrap_or(0) & u64::from(u32::MAX);
        let contexts = self.contexts.entry(call.pid).or_default();
        let ended = match call.function.op {
            Op::ContextCreate => {
                contexts.created.extend(object);
                None
            }
            Op::ContextDestroy => {
                contexts.created.retain(|context| Some(*context) != object);
                Some(object)
            }
            Op::PrimaryRetain => {
                let (context, retains) = contexts.primary.entry(device).or_default();
                (*context, *retains) = (object, *retains + 1);
                None
            }
            Op::PrimaryRelease => match contexts.primary.get_mut(&device) {
                Some((_, retains)) if *retains > 1 => {
                    *retains -= 1;
                    None
                }
                _ => Some(contexts.primary.remove(&device).and_then(|(context, _)| context)),
            },
            Op::PrimaryReset => Some(contexts.primary.remove(&device).and_then(|(context, _)| context)),
            _ => None,
        };
        let Some(ended) = ended else { return };
        let is_last = contexts.created.is_empty() && contexts.primary.is_empty();
        if is_last && self.began.contains(&call.pid) {
            self.release(call.pid, call.end_ns, |object| object.kind.is_of_context());
            return;
        }
        if ended.is_some() {
            let is_in_it = |object: &Object| object.kind.is_of_context() && object.context == ended;
            self.release(call.pid, call.end_ns, is_in_it);
        }
        let in_any = |object: &Object| object.kind.is_of_context() && object.context.is_none();
        let may_be_in_it = self.objects.iter().any(|((pid, ..), object)| *pid == call.pid && in_any(object));
        self.ambiguous_contexts += u64::from(ended.is_none() || may_be_in_it);
    }

    /// Frees what a process holds of some kinds.
    fn release(&mut self, pid: u32, at_ns: u64, is_freed: impl Fn(&Object) -> bool) {
        let mut gone = Vec::new();
        self.objects.retain(|(owner, ..), object| {
            let keep = *owner != pid || !is_freed(object);
            if !keep {
                gone.push(*object);
            }
            keep
        });
        gone.into_iter().for_each(|object| self.retire(pid, object, true, at_ns));
    }

    /// Physical memory that only mappings have kept ends with them.
    fn release_mappings(&mut self, pid: u32, at_ns: u64) {
        let mut orphans = Vec::new();
        self.mappings.retain(|(owner, _), mapping| {
            if let (true, Physical::Orphan(number)) = (*owner == pid, mapping.of) {
                orphans.push(number);
            }
            *owner != pid
        });
        for number in orphans {
            // One that is mapped twice is here twice.
            if let Some(object) = self.orphans.remove(&number) {
                self.retire(pid, object, true, at_ns);
            }
        }
    }

    fn retire(&mut self, pid: u32, object: Object, implicit: bool, at_ns: u64) {
        let Object { row, kind, place, bytes, number, .. } = object;
        self.largest.ended(number, at_ns);
        self.held[row] = self.held[row].saturating_sub(bytes);
        self.rows[row].bytes_freed = self.rows[row].bytes_freed.saturating_add(bytes);
        let count = |frees: &mut u64, implicit_frees: &mut u64| {
            if implicit { *implicit_frees += 1 } else { *frees += 1 }
        };
        let CudaAllocs { frees, implicit_frees, .. } = &mut self.rows[row];
        count(frees, implicit_frees);
        self.totals.each(pid, kind, place, |total| {
            total.live = total.live.saturating_sub(bytes);
            count(&mut total.frees, &mut total.implicit_frees);
        });
    }

    fn row(
        &mut self,
        call: &Call,
        kind: Kind,
        place: Place,
        stack: Option<u32>,
        backing: Option<&str>,
    ) -> usize {
        let backing = backing.map(ToOwned::to_owned);
        let key = (call.pid, kind, call.function.symbol, stack, backing, place);
        if let Some(index) = self.by_key.get(&key) {
            return *index;
        }
        let index = self.rows.len();
        self.rows.push(CudaAllocs {
            pid: call.pid,
            kind: kind.as_str().to_owned(),
            device: place.gpu(),
            function: call.function.symbol.to_owned(),
            stack,
            backing: key.4.clone(),
            ..CudaAllocs::default()
        });
        self.held.push(0);
        self.by_key.insert(key, index);
        index
    }

    /// The GPU behind a number of a process is known from now on: what it holds there has a place.
    fn moved(&mut self, pid: u32, from: Place, to: Place) {
        let is_meant = |key: &RowKey| (key.0, key.5) == (pid, from);
        for (mut key, row) in self.by_key.extract_if(|key, _| is_meant(key)).collect::<Vec<_>>() {
            key.5 = to;
            self.rows[row].device = to.gpu();
            self.by_key.entry(key).or_insert(row);
        }
        let objects = self.objects.iter_mut().filter(|((owner, ..), _)| *owner == pid);
        for object in objects.map(|(_, object)| object).filter(|object| object.place == from) {
            object.place = to;
        }
        let orphans = self.orphans.values_mut();
        for object in orphans.filter(|object| object.place == from && self.rows[object.row].pid == pid) {
            object.place = to;
        }
        self.totals.moved(pid, from, to);
    }
}

#[cfg(test)]
mod tests;
