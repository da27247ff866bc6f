//! The fold: one call after the other.

use std::collections::{BTreeMap, HashMap, HashSet};

use spark_trace_common::cuda::{DEVICE_ALL, Kind, Op};

use crate::decode::Call;
use spark_trace_common::result::result_name;
use spark_trace_recording::{CudaAllocs, CudaEvent, CudaFailure, CudaTotal};

/// `CUmemLocationType` of cuMemCreate's properties: anything but the device (1) is host memory.
const LOCATION_DEVICE: u32 = 1;

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
    totals: BTreeMap<(Option<u32>, &'static str), CudaTotal>,
    contexts: HashMap<u32, Contexts>,
    /// Physical memory whose handle was released while it was still mapped, by a number of its own.
    orphans: HashMap<u64, Object>,
    next_orphan: u64,
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

type RowKey = (u32, Kind, &'static str, Option<u32>, Option<String>);

/// What a pointer or handle means: values of different meaning may be equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Space {
    Address,
    Handle,
    Range,
}

#[derive(Debug, Clone, Copy)]
struct Object {
    row: usize,
    kind: Kind,
    bytes: u64,
    /// When its allocation returned.
    since_ns: u64,
    /// Mappings of physical memory.
    mapped: u32,
}

#[derive(Debug, Clone, Copy)]
struct Mapping {
    length: u64,
    of: Physical,
}

#[derive(Debug, Clone, Copy)]
enum Physical {
    Handle(u64),
    Orphan(u64),
}

#[derive(Debug, Default)]
struct Contexts {
    created: Vec<u64>,
    /// Retains of the primary context by device.
    primary: HashMap<u64, u32>,
}

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
    /// Takes a call in. `stack` is its id, `backing` what the memory lies in, if that was looked at.
    pub fn apply(&mut self, call: &Call, stack: Option<u32>, backing: Option<&str>) -> Effect {
        let function = call.function;
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
            Op::Alloc(kind) => return self.alloc(call, self.kind_of(call, kind), stack, backing),
            Op::Free(kinds) if call.succeeded() => self.free(call, kinds),
            Op::Map if call.succeeded() => self.map(call),
            Op::Unmap if call.succeeded() => self.unmap(call),
            _ => {}
        }
        Effect::None
    }

    /// A process, or a new program in it, begins.
    pub fn process_began(&mut self, pid: u32) {
        self.began.insert(pid);
    }

    /// The end of a process frees all it held.
    pub fn process_ended(&mut self, pid: u32) {
        self.release(pid, |_| true);
        self.contexts.remove(&pid);
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

    pub fn totals(&self) -> Vec<CudaTotal> {
        self.totals.values().cloned().collect()
    }

    pub fn now(&self) -> Moment {
        let mut moment = Moment::default();
        for ((pid, kind), total) in &self.totals {
            if pid.is_none() {
                moment.by_kind.insert(kind, total.live);
            }
        }
        for (row, held) in self.rows.iter().zip(&self.held) {
            if let Some(backing) = &row.backing {
                *moment.pinned.entry(backing.clone()).or_default() += held;
            }
        }
        moment
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
    pub fn device_by_process(&self) -> BTreeMap<u32, u64> {
        let of_device = self.totals.iter().filter(|((_, kind), _)| *kind == DEVICE_ALL);
        of_device.filter_map(|((pid, _), total)| Some(((*pid)?, total.live))).collect()
    }

    /// The same of one process.
    pub fn device_of(&self, pid: u32) -> u64 {
        self.totals.get(&(Some(pid), DEVICE_ALL)).map_or(0, |total| total.live)
    }

    fn kind_of(&self, call: &Call, kind: Kind) -> Kind {
        let location = call.outs[1].map(|location| location as u32);
        match (kind, location) {
            (Kind::Physical, Some(location)) if location != LOCATION_DEVICE => Kind::PhysicalHost,
            _ => kind,
        }
    }

    fn alloc(&mut self, call: &Call, kind: Kind, stack: Option<u32>, backing: Option<&str>) -> Effect {
        let row = self.row(call, kind, stack, backing);
        let size = call.value(call.function.size);
        if !call.succeeded() {
            self.rows[row].failures += 1;
            self.each_total(call.pid, kind, |total| total.failures += 1);
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
            self.retire(call.pid, before, true);
        }
        self.objects.insert(key, Object { row, kind, bytes, since_ns: call.end_ns, mapped: 0 });
        self.held[row] = self.held[row].saturating_add(bytes);
        let totals = &mut self.rows[row];
        totals.allocs += 1;
        totals.bytes_allocated = totals.bytes_allocated.saturating_add(bytes);
        let at_ns = call.end_ns;
        self.each_total(call.pid, kind, |total| {
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
            self.retire(call.pid, object, false);
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
                        self.retire(call.pid, object, false);
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
                false
            }
            Op::ContextDestroy => {
                contexts.created.retain(|context| Some(*context) != object);
                true
            }
            Op::PrimaryRetain => {
                *contexts.primary.entry(device).or_default() += 1;
                false
            }
            Op::PrimaryRelease => match contexts.primary.get_mut(&device) {
                Some(retains) if *retains > 1 => {
                    *retains -= 1;
                    false
                }
                _ => {
                    contexts.primary.remove(&device);
                    true
                }
            },
            Op::PrimaryReset => {
                contexts.primary.remove(&device);
                true
            }
            _ => false,
        };
        if !ended {
            return;
        }
        if contexts.created.is_empty() && contexts.primary.is_empty() && self.began.contains(&call.pid) {
            self.release(call.pid, |kind| kind.is_of_context());
        } else {
            self.ambiguous_contexts += 1;
        }
    }

    /// Frees what a process holds of some kinds.
    fn release(&mut self, pid: u32, is_freed: impl Fn(Kind) -> bool) {
        let mut gone = Vec::new();
        self.objects.retain(|(owner, ..), object| {
            let keep = *owner != pid || !is_freed(object.kind);
            if !keep {
                gone.push(*object);
            }
            keep
        });
        if !is_freed(Kind::Physical) {
            gone.into_iter().for_each(|object| self.retire(pid, object, true));
            return;
        }
        let orphans: Vec<u64> = self
            .mappings
            .iter()
            .filter(|((owner, _), _)| *owner == pid)
            .filter_map(|(_, mapping)| match mapping.of {
                Physical::Orphan(number) => Some(number),
                Physical::Handle(_) => None,
            })
            .collect();
        gone.extend(orphans.into_iter().filter_map(|number| self.orphans.remove(&number)));
        self.mappings.retain(|(owner, _), _| *owner != pid);
        for object in gone {
            self.retire(pid, object, true);
        }
    }

    fn retire(&mut self, pid: u32, object: Object, implicit: bool) {
        let Object { row, kind, bytes, .. } = object;
        self.held[row] = self.held[row].saturating_sub(bytes);
        self.rows[row].bytes_freed = self.rows[row].bytes_freed.saturating_add(bytes);
        let count = |frees: &mut u64, implicit_frees: &mut u64| {
            if implicit { *implicit_frees += 1 } else { *frees += 1 }
        };
        let CudaAllocs { frees, implicit_frees, .. } = &mut self.rows[row];
        count(frees, implicit_frees);
        self.each_total(pid, kind, |total| {
            total.live = total.live.saturating_sub(bytes);
            count(&mut total.frees, &mut total.implicit_frees);
        });
    }

    fn row(&mut self, call: &Call, kind: Kind, stack: Option<u32>, backing: Option<&str>) -> usize {
        let backing = backing.map(ToOwned::to_owned);
        let key = (call.pid, kind, call.function.symbol, stack, backing);
        if let Some(index) = self.by_key.get(&key) {
            return *index;
        }
        let index = self.rows.len();
        self.rows.push(CudaAllocs {
            pid: call.pid,
            kind: kind.as_str().to_owned(),
            function: call.function.symbol.to_owned(),
            stack,
            backing: key.4.clone(),
            ..CudaAllocs::default()
        });
        self.held.push(0);
        self.by_key.insert(key, index);
        index
    }

    /// The totals that something of `kind` counts in: its process's and the target's.
    fn each_total(&mut self, pid: u32, kind: Kind, change: impl Fn(&mut CudaTotal)) {
        let kinds = [Some(kind.as_str()), kind.is_device().then_some(DEVICE_ALL)];
        for kind in kinds.into_iter().flatten() {
            for pid in [Some(pid), None] {
                let total = self.totals.entry((pid, kind)).or_insert_with(|| CudaTotal {
                    pid,
                    kind: kind.to_owned(),
                    ..CudaTotal::default()
                });
                change(total);
            }
        }
    }
}

const fn space_of(kind: Kind) -> Space {
    match kind {
        Kind::Physical | Kind::PhysicalHost | Kind::Imported => Space::Handle,
        Kind::Reserved => Space::Range,
        _ => Space::Address,
    }
}

#[cfg(test)]
mod tests;
