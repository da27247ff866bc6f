//! The eBPF object: loading it for the running kernel, reading and writing its maps, reading what its programs did.

mod ahead;
mod attach;
mod begun;
pub mod beside;
mod charges;
mod functions;
mod pages;
mod pauses;
mod python;

use std::cell::Cell;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use aya::{
    Ebpf, Pod,
    maps::{Array, HashMap, MapData, PerCpuArray, RingBuf},
    programs::{ProgramError, tp_btf::BtfTracePointLinkId, uprobe::UProbeLink},
};
use spark_trace_common::{
    capacities::{DRIVER_ALLOCS, LIVE_FRAMES, LossKind, STACK_COPY_RING_BYTES},
    config::{
        CLIENTS_DONE, CONFIG_SYMBOL, CONTROL_BY_PID, CONTROL_GENERATION, CONTROL_SELECT_NEW, Config,
        NO_MEMBER,
    },
    hook::{HOOKS, Mechanism},
    map_records::{FileKey, FileTotals, Heap, MappingTotals, Run},
};
use thiserror::Error;
use zerocopy::{FromBytes, IntoBytes};

pub use begun::Begun;

use super::{
    facts::kernel_has_kprobes,
    messages::{self, Messages},
    page_frames::Span,
    program_stats::{Counted, ProgramStats, fdinfo},
    statistics::Statistics,
    uprobe_multi::Multi,
};
use spark_trace_recording::verdict::Verdict;
use spark_trace_recording::{Hook, Loss};

static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("SPARK_TRACE_EBPF_OBJECT"));
/// The same programs, which also send messages for the log.
static OBJECT_WITH_MESSAGES: &[u8] =
    aya::include_bytes_aligned!(env!("SPARK_TRACE_EBPF_OBJECT_WITH_MESSAGES"));

/// Names of ring buffers' maps: of events, and of copies of user stacks.
const EVENTS: &str = "EVENTS";
const STACK_COPIES: &str = "STACK_COPIES";

#[derive(Debug, Error)]
pub enum ObjectError {
    #[error("loading eBPF needs root (CAP_BPF, CAP_PERFMON): run it with sudo")]
    NotPermitted,
    #[error("cannot load the eBPF object")]
    Load(#[source] Box<aya::EbpfError>),
    #[error("cannot read the kernel's type information for attaching")]
    Btf(#[from] aya::BtfError),
    #[error("cannot read the kernel side's messages")]
    Messages(#[from] aya_log::Error),
    #[error("the eBPF object has no map {0}: program and object are of different builds")]
    NoMap(&'static str),
    #[error("map {name}: {cause}")]
    Map { name: &'static str, cause: Box<aya::maps::MapError> },
    #[error("cannot look at the pages in use")]
    Sweep(#[source] Box<ProgramError>),
    #[error("the look at the pages in use does not come to an end")]
    SweepStuck,
    #[error("hook {name} is required and did not attach: {reason}")]
    Required { name: &'static str, reason: String },
}

/// What became of one row of HOOKS.
#[derive(Debug, Clone)]
pub struct Attached {
    pub name: &'static str,
    pub program: Option<&'static str>,
    pub mechanism: Option<Mechanism>,
    pub verdict: Verdict,
    pub reason: Option<String>,
}

impl Attached {
    /// Names of the programs that carry it.
    fn programs(&self) -> impl Iterator<Item = &'static str> {
        let candidates = HOOKS.iter().filter(|h| h.name == self.name).flat_map(|h| h.candidates);
        let (program, mechanism) = (self.program, self.mechanism);
        let mut carrying =
            candidates.filter(move |c| Some(c.program) == program && Some(c.mechanism) == mechanism);
        let candidate = carrying.next();
        let others = candidate.into_iter().flat_map(|c| c.also).map(|place| place.program);
        program.into_iter().chain(candidate.and_then(|c| c.on_return)).chain(others)
    }
}

/// The loaded object with its attached programs. Dropping it detaches everything, and so does the
/// kernel when this process dies: nothing is pinned.
pub struct Object {
    ebpf: Ebpf,
    /// What it was loaded from.
    bytes: &'static [u8],
    /// The ring buffers, also after they were taken out.
    events: OwnedFd,
    copies: OwnedFd,
    /// What the programs say; absent where nobody reads it.
    messages: Option<Messages>,
    hooks: Vec<Attached>,
    /// Programs that were loaded before their turn.
    ahead: std::collections::HashSet<&'static str>,
    /// Links of tracepoints, by the program they belong to.
    tracepoints: std::collections::HashMap<&'static str, BtfTracePointLinkId>,
    /// Hooks that are loaded and not attached yet, and what each waits for.
    waiting: Vec<(&'static str, &'static str)>,
    /// The page frames that can be followed.
    span: Option<Span>,
    /// Bytes of a `struct page`.
    page_struct_size: u32,
    /// Frees that the hook on them had missed at the last sweep since it is attached.
    swept_with: Cell<Option<u64>>,
    /// Programs at library functions, all functions of a library through one link; absent where the kernel cannot.
    multi: Option<Multi>,
    /// They are being loaded.
    multi_begun: Option<functions::Begun>,
    /// The same, each function through a link of its own.
    functions: Vec<UProbeLink>,
    /// Why not all library functions go through `multi`.
    not_multi: Vec<String>,
}

/// Removes entries. What comes or goes meanwhile is left to the next time.
fn remove<K: Pod, V: Pod>(map: &mut HashMap<&mut MapData, K, V>, unwanted: impl Fn(&K, &V) -> bool) {
    let gone: Vec<K> =
        map.iter().flatten().filter(|(key, value)| unwanted(key, value)).map(|(key, _)| key).collect();
    for key in gone {
        let _ = map.remove(&key);
    }
}

/// Wraps a record as plain data for aya's maps.
#[derive(Debug, Clone, Copy)]
#[repr(transparent)]
pub struct Wire<T>(pub T);

// SAFETY: every pattern of bytes is a T, and a T has no padding: the derives of its bounds prove it.
unsafe impl<T: Copy + FromBytes + IntoBytes + 'static> Pod for Wire<T> {}

impl Object {
    /// Loads the object and its maps; attaches nothing yet. `ring_bytes` is the size of the event ring buffer:
    /// a power of two, at least a page.
    pub fn load(begun: Option<Begun>, config: &Config, ring_bytes: u32) -> Result<Self, ObjectError> {
        let span = Span::of_machine();
        let config = Config {
            page_frames: span.map_or(0, |span| span.frames),
            first_frame: span.map_or(0, |span| span.first as u32),
            driver_bursts: u32::from(driver_is_loaded() && kernel_has_kprobes()),
            ..*config
        };
        let with_messages = messages::are_wanted();
        let bytes = if with_messages { OBJECT_WITH_MESSAGES } else { OBJECT };
        let mut ebpf = Begun::loader(begun)
            .override_global(CONFIG_SYMBOL, config.as_bytes(), true)
            .map_max_entries(EVENTS, ring_bytes)
            .map_max_entries(STACK_COPIES, copies_bytes(&config))
            .map_max_entries("DRIVER_ALLOCS", if driver_is_loaded() { DRIVER_ALLOCS } else { 1 })
            .map_max_entries("LIVE", config.page_frames.div_ceil(LIVE_FRAMES).max(1))
            .map_max_entries("TOUCHED", pages::touched_words(config.page_frames).max(1))
            .load(bytes)
            .map_err(|e| {
                if crate::is_root() { ObjectError::Load(Box::new(e)) } else { ObjectError::NotPermitted }
            })?;
        let ring = |name: &'static str| {
            let fd = ebpf.map(name).and_then(map_fd).ok_or(ObjectError::NoMap(name))?;
            fd.try_clone_to_owned().map_err(|e| map_error(name, e.into()))
        };
        let (events, copies) = (ring(EVENTS)?, ring(STACK_COPIES)?);
        let messages = if with_messages { Some(Messages::new(&mut ebpf)?) } else { None };
        Ok(Self {
            ebpf,
            bytes,
            messages,
            hooks: Vec::new(),
            tracepoints: std::collections::HashMap::new(),
            ahead: std::collections::HashSet::new(),
            waiting: Vec::new(),
            span,
            page_struct_size: config.page_struct_size,
            swept_with: Cell::new(None),
            events,
            copies,
            multi: None,
            multi_begun: None,
            functions: Vec::new(),
            not_multi: Vec::new(),
        })
    }

    /// Hands the kernel side's messages to the log.
    pub fn hand_on_messages(&mut self) {
        if let Some(messages) = &mut self.messages {
            messages.hand_on();
        }
    }

    /// Fails if a hook that a recording cannot do without did not attach.
    pub fn require(&self) -> Result<(), ObjectError> {
        let required = |name: &str| HOOKS.iter().any(|h| h.name == name && h.required);
        match self.hooks.iter().find(|h| h.verdict != Verdict::Ok && required(h.name)) {
            Some(hook) => {
                let reason = hook.reason.clone().unwrap_or_default();
                Err(ObjectError::Required { name: hook.name, reason })
            }
            None => Ok(()),
        }
    }

    pub fn hooks(&self) -> &[Attached] {
        &self.hooks
    }

    /// What the kernel's BPF statistics and the programs themselves have of each hook, in the order of [`Self::hooks`].
    pub fn counted(&self) -> Vec<Option<Counted>> {
        let hits_of = self.hits().unwrap_or_default();
        let hits =
            |attached: &Attached| index_of(attached).and_then(|i| hits_of.get(i).copied()).unwrap_or(0);
        let counted = |attached| Some(Counted { stats: self.stats_of(attached)?, hits: hits(attached) });
        self.hooks.iter().map(counted).collect()
    }

    fn stats_of(&self, attached: &Attached) -> Option<ProgramStats> {
        if is_of_files(attached) {
            return self.call_stats();
        }
        attached.programs().filter_map(|name| self.program_stats(name)).reduce(ProgramStats::plus)
    }

    /// Verdicts with what each program did, for the recording. Run times are known where statistics are kept.
    pub fn hook_rows(&self, statistics: Option<&Statistics>) -> Vec<Hook> {
        let hits_of = self.hits().unwrap_or_default();
        self.hooks
            .iter()
            .enumerate()
            .map(|(number, attached)| {
                let index = index_of(attached);
                let ran = attached.verdict == Verdict::Ok;
                // It is skipped while it looks whether it is needed, which loses nothing.
                let stands_in = index.is_some_and(|i| HOOKS[i].stands_in_for.is_some());
                let hits = index.and_then(|i| hits_of.get(i).copied()).filter(|_| ran);
                let info = self.stats_of(attached).filter(|_| ran);
                let whole = info.zip(statistics).and_then(|(stats, statistics)| {
                    statistics.whole(number, Counted { stats, hits: weight(attached, hits) })
                });
                // What a stand-in took was not lost.
                let taken = stand_in_of(attached.name).and_then(|i| hits_of.get(i).copied()).unwrap_or(0);
                Hook {
                    name: attached.name.to_owned(),
                    mechanism: attached.mechanism.filter(|_| ran).map(Into::into),
                    verdict: attached.verdict.into(),
                    reason: attached.reason.clone(),
                    hits,
                    runs: whole.map(|whole| whole.runs),
                    lost: info
                        .filter(|_| !stands_in && !self.sweeps_for(attached.name))
                        .map(|i| i.recursion_misses.saturating_sub(taken)),
                    run_time_ns: whole.map(|whole| whole.run_time_ns),
                }
            })
            .collect()
    }

    /// Runs of each hook, in the order of HOOKS.
    fn hits(&self) -> Result<Vec<u64>, ObjectError> {
        let array: PerCpuArray<&MapData, Wire<Run>> = self.map("RUNS")?;
        (0..HOOKS.len() as u32)
            .map(|i| {
                let runs = array.get(&i, 0).map_err(|e| map_error("RUNS", e))?;
                Ok(runs.iter().map(|Wire(run)| run.hits).sum())
            })
            .collect()
    }

    /// Whether sweeps find what the hook called `name` was skipped for.
    fn sweeps_for(&self, name: &str) -> bool {
        name == "page-free" && !self.is_attached("page-free-nested")
    }

    /// Whether it is seen which files the target maps.
    pub fn sees_mappings(&self) -> bool {
        self.is_attached("mapping")
    }

    /// Whether page allocations are followed: without that nothing is known of a driver's pages.
    pub fn follows_pages(&self) -> bool {
        self.is_attached("page-alloc")
    }

    fn program_stats(&self, name: &str) -> Option<ProgramStats> {
        ProgramStats::read(self.ebpf.program(name)?.fd().ok()?.as_fd())
    }

    /// What each buffer and map could not take.
    pub fn losses(&self) -> Result<Vec<Loss>, ObjectError> {
        let array: PerCpuArray<&MapData, u64> = self.map("LOSSES")?;
        let mut losses = Vec::new();
        for kind in LossKind::ALL {
            let counts = array.get(&(kind as u32), 0).map_err(|e| map_error("LOSSES", e))?;
            let count: u64 = counts.iter().sum();
            if count > 0 {
                losses.push(Loss { what: kind.name().to_owned(), count });
            }
        }
        Ok(losses)
    }

    /// A typed view of a map.
    pub fn map<'a, M>(&'a self, name: &'static str) -> Result<M, ObjectError>
    where
        M: TryFrom<&'a aya::maps::Map, Error = aya::maps::MapError>,
    {
        M::try_from(self.ebpf.map(name).ok_or(ObjectError::NoMap(name))?).map_err(|e| map_error(name, e))
    }

    fn map_mut<'a, M>(&'a mut self, name: &'static str) -> Result<M, ObjectError>
    where
        M: TryFrom<&'a mut aya::maps::Map, Error = aya::maps::MapError>,
    {
        M::try_from(self.ebpf.map_mut(name).ok_or(ObjectError::NoMap(name))?).map_err(|e| map_error(name, e))
    }

    /// Drops what is kept of processes that have ended.
    pub fn forget_processes(&mut self, is_alive: impl Fn(u32) -> bool) -> Result<(), ObjectError> {
        let mut totals: HashMap<_, u32, Wire<MappingTotals>> = self.map_mut("MAPPING_TOTALS")?;
        remove(&mut totals, |pid, _| !is_alive(*pid));
        let mut heaps: HashMap<_, u32, Wire<Heap>> = self.map_mut("HEAPS")?;
        remove(&mut heaps, |pid, _| !is_alive(*pid));
        Ok(())
    }

    /// Drops rows of files of which no page is left that was seen being added.
    pub fn forget_empty_files(&mut self) -> Result<(), ObjectError> {
        let mut files: HashMap<_, Wire<FileKey>, Wire<FileTotals>> = self.map_mut("FILES")?;
        remove(&mut files, |_, Wire(totals)| totals.bytes_added <= totals.bytes_removed);
        Ok(())
    }

    /// Takes the event ring buffer out.
    pub fn take_events(&mut self) -> Result<RingBuf<MapData>, ObjectError> {
        self.take_ring(EVENTS)
    }

    /// Takes the ring buffer of copied user stacks out.
    pub fn take_copies(&mut self) -> Result<RingBuf<MapData>, ObjectError> {
        self.take_ring(STACK_COPIES)
    }

    fn take_ring(&mut self, name: &'static str) -> Result<RingBuf<MapData>, ObjectError> {
        let map = self.ebpf.take_map(name).ok_or(ObjectError::NoMap(name))?;
        RingBuf::try_from(map).map_err(|e| map_error(name, e))
    }

    pub fn select_cgroup(&mut self, id: u64) -> Result<(), ObjectError> {
        let mut map: HashMap<_, u64, u32> = self.map_mut("TARGET_CGROUPS")?;
        map.insert(id, 1, 0).map_err(|e| map_error("TARGET_CGROUPS", e))?;
        self.selection_changed()
    }

    pub fn deselect_cgroup(&mut self, id: u64) -> Result<(), ObjectError> {
        let mut map: HashMap<_, u64, u32> = self.map_mut("TARGET_CGROUPS")?;
        match map.remove(&id) {
            Ok(()) | Err(aya::maps::MapError::KeyNotFound) => self.selection_changed(),
            Err(e) => Err(map_error("TARGET_CGROUPS", e)),
        }
    }

    pub fn select_pid(&mut self, pid: u32) -> Result<(), ObjectError> {
        // From now on processes of one cgroup may differ.
        let mut control: Array<_, u32> = self.map_mut("CONTROL")?;
        control.set(CONTROL_BY_PID, 1, 0).map_err(|e| map_error("CONTROL", e))?;
        let mut map: HashMap<_, u32, u32> = self.map_mut("TARGET_PIDS")?;
        map.insert(pid, 1, 0).map_err(|e| map_error("TARGET_PIDS", e))?;
        self.selection_changed()
    }

    pub fn deselect_pid(&mut self, pid: u32) -> Result<(), ObjectError> {
        let mut map: HashMap<_, u32, u32> = self.map_mut("TARGET_PIDS")?;
        match map.remove(&pid) {
            Ok(()) | Err(aya::maps::MapError::KeyNotFound) => self.selection_changed(),
            Err(e) => Err(map_error("TARGET_PIDS", e)),
        }
    }

    /// Makes the kernel side look again at what is selected.
    fn selection_changed(&mut self) -> Result<(), ObjectError> {
        let mut map: Array<_, u32> = self.map_mut("CONTROL")?;
        let generation = map.get(&CONTROL_GENERATION, 0).map_err(|e| map_error("CONTROL", e))?;
        map.set(CONTROL_GENERATION, generation.wrapping_add(1), 0).map_err(|e| map_error("CONTROL", e))
    }

    /// Whether every cgroup created from now on is selected.
    pub fn select_new_cgroups(&mut self, on: bool) -> Result<(), ObjectError> {
        let mut map: Array<_, u32> = self.map_mut("CONTROL")?;
        map.set(CONTROL_SELECT_NEW, u32::from(on), 0).map_err(|e| map_error("CONTROL", e))
    }

    /// Tells the kernel side how many clients of container engines have been dealt with.
    pub fn clients_done(&mut self, count: u64) -> Result<(), ObjectError> {
        let mut map: Array<_, u64> = self.map_mut("CLIENTS")?;
        map.set(CLIENTS_DONE, count, 0).map_err(|e| map_error("CLIENTS", e))
    }

    /// Kernel memory of all maps and programs, from their /proc fdinfo.
    pub fn memory(&self) -> Option<u64> {
        let maps = self
            .ebpf
            .maps()
            .filter(|(name, _)| ![EVENTS, STACK_COPIES].contains(name))
            .filter_map(|(_, map)| map_fd(map));
        let programs = self.ebpf.programs().filter_map(|(_, program)| program.fd().ok().map(|fd| fd.as_fd()));
        let multi = self.multi.iter().flat_map(Multi::programs);
        let rings = [self.events.as_fd(), self.copies.as_fd()]
            .into_iter()
            .chain(self.messages.iter().map(AsFd::as_fd));
        let all = maps.chain(rings).chain(programs).chain(multi);
        all.map(memlock).try_fold(0u64, |sum, bytes| Some(sum + bytes?))
    }
}

impl Drop for Object {
    fn drop(&mut self) {
        self.detach_functions();
        self.hand_on_messages();
    }
}

/// Runs that say what part of a hook's work was done at a time; none of a hook with several programs of which not all count.
fn weight(attached: &Attached, hits: Option<u64>) -> u64 {
    hits.filter(|_| !is_of_files(attached) && attached.name != attach::MAPPING).unwrap_or(0)
}

/// Of the hook in [`HOOKS`].
fn index_of(attached: &Attached) -> Option<usize> {
    HOOKS.iter().position(|h| h.name == attached.name)
}

/// Index of the hook that stands in for `name`.
fn stand_in_of(name: &str) -> Option<usize> {
    HOOKS.iter().position(|h| h.stands_in_for == Some(name))
}

fn map_fd(map: &aya::maps::Map) -> Option<BorrowedFd<'_>> {
    use aya::maps::Map;
    match map {
        Map::Array(d)
        | Map::HashMap(d)
        | Map::LruHashMap(d)
        | Map::PerCpuArray(d)
        | Map::StackTraceMap(d)
        | Map::RingBuf(d) => Some(d.fd().as_fd()),
        _ => None,
    }
}

/// Size of the ring buffer of copied user stacks: the smallest where none are copied.
fn copies_bytes(config: &Config) -> u32 {
    if config.unwind_min_4k == NO_MEMBER { crate::page_size() as u32 } else { STACK_COPY_RING_BYTES }
}

fn memlock(fd: BorrowedFd) -> Option<u64> {
    let text = fdinfo(fd)?;
    text.lines().find_map(|l| l.strip_prefix("memlock:"))?.trim().parse().ok()
}

fn is_of_files(hook: &Attached) -> bool {
    hook.mechanism.is_some_and(Mechanism::is_of_files)
}

fn reason(failures: &[String]) -> Option<String> {
    (!failures.is_empty()).then(|| failures.join("; "))
}

/// Whether a module of the NVIDIA driver is loaded.
fn driver_is_loaded() -> bool {
    let modules = HOOKS.iter().filter_map(|hook| hook.module);
    modules.map(|name| std::path::Path::new("/sys/module").join(name)).any(|path| path.exists())
}

fn map_error(name: &'static str, e: aya::maps::MapError) -> ObjectError {
    ObjectError::Map { name, cause: Box::new(e) }
}

#[cfg(test)]
mod tests;
