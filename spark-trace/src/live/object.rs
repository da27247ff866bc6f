//! The eBPF object: loading it for the running kernel and attaching what the plan says.

use std::{
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::Path,
};

use aya::{
    Ebpf, EbpfLoader, Pod,
    maps::{Array, HashMap, MapData, PerCpuArray, RingBuf},
    programs::{
        BtfTracePoint, ProgramError, RawTracePoint, RawTracePointRunOptions, TestRun, UProbe,
        uprobe::{UProbeAttachPoint, UProbeLink, UProbeScope},
    },
};
use spark_trace_common::{
    config::{CONFIG_SYMBOL, CONTROL_GENERATION, CONTROL_SELECT_NEW, Config},
    event::Run,
    hook::{Candidate, HOOKS, Mechanism},
    map::LossKind,
};
use thiserror::Error;

use super::{
    btf::Btf,
    multi::{Multi, end_of_log},
};
use crate::{
    health::Verdict,
    plan::{self, Choice, Facts, Step},
    recording::{Hook, Loss},
};

static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("SPARK_TRACE_EBPF_OBJECT"));

/// The pair of programs at library functions.
const CALL_ENTER: &str = "call_enter";
const CALL_RETURN: &str = "call_return";
/// The event ring buffer, and its map's name.
const EVENTS: &str = "EVENTS";

#[derive(Debug, Error)]
pub enum ObjectError {
    #[error("loading eBPF needs root (CAP_BPF, CAP_PERFMON): run it with sudo")]
    NotPermitted,
    #[error("cannot load the eBPF object")]
    Load(#[source] Box<aya::EbpfError>),
    #[error("cannot read the kernel's type information for attaching")]
    Btf(#[from] aya::BtfError),
    #[error("the eBPF object has no map {0}: program and object are of different builds")]
    NoMap(&'static str),
    #[error("map {name}: {cause}")]
    Map { name: &'static str, cause: Box<aya::maps::MapError> },
    #[error("cannot look at the pages in use")]
    Sweep(#[source] Box<ProgramError>),
    #[error("hook {name} is required and did not attach: {reason}")]
    Required { name: &'static str, reason: String },
}

impl Facts for Btf {
    fn has_btf_tracepoint(&self, name: &str) -> bool {
        self.has_tracepoint(name)
    }
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

/// The loaded object with its attached programs. Dropping it detaches everything, and so does the
/// kernel when this process dies: nothing is pinned.
pub struct Object {
    ebpf: Ebpf,
    /// The ring buffer, also after it was taken out.
    events: OwnedFd,
    hooks: Vec<Attached>,
    /// Programs at library functions, all functions of a library through one link; absent where the kernel cannot.
    multi: Option<Multi>,
    /// The same, each function through a link of its own.
    functions: Vec<UProbeLink>,
    /// Why not all library functions go through `multi`.
    not_multi: Vec<String>,
}

/// Wraps a wire record as plain data for aya's maps.
#[derive(Debug, Clone, Copy)]
#[repr(transparent)]
pub struct Wire<T: Copy + 'static>(pub T);

// SAFETY: used for the records of spark-trace-common, whose asserts say that they have no padding.
unsafe impl<T: Copy + 'static> Pod for Wire<T> {}

/// Capacities a user may change.
#[derive(Debug, Clone, Copy)]
pub struct Sizes {
    /// Bytes of the event ring buffer: a power of two, at least a page.
    pub ring_bytes: u32,
    pub live_pages: u32,
}

impl Object {
    /// Loads the object and its maps; attaches nothing yet.
    pub fn load(config: &Config, sizes: Sizes) -> Result<Self, ObjectError> {
        let ebpf = EbpfLoader::new()
            .override_global(CONFIG_SYMBOL, config.as_bytes(), true)
            .map_max_entries(EVENTS, sizes.ring_bytes)
            .map_max_entries("LIVE_PAGES", sizes.live_pages)
            .load(OBJECT)
            .map_err(
                |e| if is_root() { ObjectError::Load(Box::new(e)) } else { ObjectError::NotPermitted },
            )?;
        let events = ebpf.map(EVENTS).and_then(map_fd).ok_or(ObjectError::NoMap(EVENTS))?;
        let events = events.try_clone_to_owned().map_err(|e| map_error(EVENTS, e.into()))?;
        let (hooks, functions, not_multi) = (Vec::new(), Vec::new(), Vec::new());
        Ok(Self { ebpf, events, hooks, multi: None, functions, not_multi })
    }

    /// Attaches every chosen hook that this kernel can carry.
    pub fn attach(&mut self, choice: &Choice, btf: &Btf) -> Result<(), ObjectError> {
        let kernel_types = aya::Btf::from_sys_fs()?;
        for step in plan::plan(choice, btf) {
            let attached = self.attach_step(&step, &kernel_types);
            self.hooks.push(attached);
        }
        Ok(())
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

    fn attach_step(&mut self, step: &Step, kernel_types: &aya::Btf) -> Attached {
        let mut attached = Attached {
            name: step.hook.name,
            program: None,
            mechanism: None,
            verdict: Verdict::Broken,
            reason: None,
        };
        if let Some((verdict, reason)) = &step.verdict {
            attached.verdict = *verdict;
            attached.reason = Some(reason.clone());
            return attached;
        }
        let mut failures = step.left_out.clone();
        for candidate in &step.candidates {
            match self.attach_program(candidate, kernel_types) {
                Ok(()) => {
                    attached.program = Some(candidate.program);
                    attached.mechanism = Some(candidate.mechanism);
                    attached.verdict = Verdict::Ok;
                    if candidate.mechanism.is_of_files() {
                        // Loaded, with nothing to attach to as yet.
                        attached.verdict = Verdict::NotApplicable;
                        self.not_multi.clone_from(&failures);
                        failures.insert(0, "no CUDA driver or NVML library was found".to_owned());
                    }
                    attached.reason = reason(&failures);
                    return attached;
                }
                Err(reason) => failures.push(format!("{}: {reason}", plan::name_of(candidate))),
            }
        }
        attached.reason = reason(&failures);
        attached
    }

    fn attach_program(&mut self, candidate: &Candidate, kernel_types: &aya::Btf) -> Result<(), String> {
        let no_program = "no such program in the object";
        match candidate.mechanism {
            Mechanism::UprobeMulti => {
                let map = |name: &str| match name {
                    EVENTS => Some(self.events.as_fd()),
                    name => self.ebpf.map(name).and_then(map_fd),
                };
                let multi = Multi::load(OBJECT, CALL_ENTER, CALL_RETURN, map).map_err(|e| e.to_string())?;
                self.multi = Some(multi);
            }
            Mechanism::Uprobe => self.load_uprobes()?,
            Mechanism::OnDemand => {
                let program = self.ebpf.program_mut(candidate.program).ok_or(no_program)?;
                let program: &mut RawTracePoint =
                    program.try_into().map_err(|e: ProgramError| e.to_string())?;
                program.load().map_err(|e| describe(&e))?;
                program.test_run(RawTracePointRunOptions::default()).map_err(|e| describe(&e))?;
            }
            _ => {
                let program = self.ebpf.program_mut(candidate.program).ok_or(no_program)?;
                let program: &mut BtfTracePoint =
                    program.try_into().map_err(|e: ProgramError| e.to_string())?;
                program.load(candidate.target, kernel_types).map_err(|e| describe(&e))?;
                program.attach().map_err(|e| describe(&e))?;
            }
        }
        Ok(())
    }

    fn uprobe(&mut self, name: &'static str) -> Result<&mut UProbe, String> {
        let program = self.ebpf.program_mut(name).ok_or("no such program in the object")?;
        program.try_into().map_err(|e: ProgramError| e.to_string())
    }

    /// Loads the programs for links of their own, unless they are.
    fn load_uprobes(&mut self) -> Result<(), String> {
        for name in [CALL_ENTER, CALL_RETURN] {
            let program = self.uprobe(name)?;
            if program.fd().is_err() {
                program.load().map_err(|e| describe(&e))?;
            }
        }
        Ok(())
    }

    /// Whether library functions can be attached to.
    pub fn watches_libraries(&self) -> bool {
        self.hooks.iter().any(is_of_files)
    }

    /// Attaches to functions of the file at `path`, each with its offset in the file and its cookie, for all
    /// processes. Gives those that it could not attach to, with the reason.
    pub fn attach_functions(&mut self, path: &Path, functions: &[(u64, u64)]) -> Vec<(u64, String)> {
        let mut failed = Vec::new();
        match self.multi.as_mut().map(|multi| multi.attach(path, functions)) {
            Some(Ok(())) => (),
            // What one library does not allow, another may.
            Some(Err(e)) => {
                let reason = format!("{}: {e}", Mechanism::UprobeMulti.as_str());
                failed = self.attach_one_by_one(path, functions);
                for (_, why) in &mut failed {
                    *why = format!("{reason}; {}: {why}", Mechanism::Uprobe.as_str());
                }
                if !self.not_multi.contains(&reason) {
                    self.not_multi.push(reason);
                }
            }
            None => failed = self.attach_one_by_one(path, functions),
        }
        let multi = self.multi.as_ref().is_some_and(Multi::is_attached);
        if (multi || !self.functions.is_empty())
            && let Some(hook) = self.hooks.iter_mut().find(|hook| is_of_files(hook))
        {
            hook.mechanism = Some(if multi { Mechanism::UprobeMulti } else { Mechanism::Uprobe });
            hook.verdict = Verdict::Ok;
            hook.reason = reason(&self.not_multi);
        }
        failed
    }

    fn attach_one_by_one(&mut self, path: &Path, functions: &[(u64, u64)]) -> Vec<(u64, String)> {
        let attach = |&(offset, cookie): &(u64, u64)| {
            self.attach_function(path, offset, cookie).err().map(|reason| (offset, reason))
        };
        functions.iter().filter_map(attach).collect()
    }

    fn attach_function(&mut self, path: &Path, offset: u64, cookie: u64) -> Result<(), String> {
        self.load_uprobes()?;
        let mut links = Vec::new();
        // The return first: an entry without its return would leave a call under way for ever.
        for name in [CALL_RETURN, CALL_ENTER] {
            let point = UProbeAttachPoint { location: offset.into(), cookie: Some(cookie) };
            let program = self.uprobe(name)?;
            let link = program.attach(point, path, UProbeScope::AllProcesses).map_err(|e| describe(&e))?;
            links.push(program.take_link(link).map_err(|e| describe(&e))?);
        }
        self.functions.extend(links);
        Ok(())
    }

    /// Detaches from all library functions. Where each has a link of its own, the kernel waits for a grace period at
    /// each, a tenth of a second, one after the other.
    pub fn detach_functions(&mut self) {
        if let Some(multi) = &mut self.multi {
            multi.detach();
        }
        self.functions.clear();
    }

    /// Retires kernel pages that are no longer in use, so that the totals are right now.
    pub fn sweep_pages(&self) -> Result<(), ObjectError> {
        const PROGRAM: &str = "page_sweep";
        if !self.hooks.iter().any(|h| h.program == Some(PROGRAM)) {
            return Ok(());
        }
        let program = self.ebpf.program(PROGRAM).ok_or(ObjectError::NoMap(PROGRAM))?;
        let program: &RawTracePoint = program.try_into().map_err(|e| ObjectError::Sweep(Box::new(e)))?;
        program.test_run(RawTracePointRunOptions::default()).map_err(|e| ObjectError::Sweep(Box::new(e)))?;
        Ok(())
    }

    pub fn hooks(&self) -> &[Attached] {
        &self.hooks
    }

    /// Verdicts with what each program did, for the recording. `share` is the part of the time in which
    /// the kernel's BPF statistics were on.
    pub fn hook_rows(&self, share: Option<f64>) -> Vec<Hook> {
        let hits_of = self.hits().unwrap_or_default();
        self.hooks
            .iter()
            .map(|attached| {
                let index = HOOKS.iter().position(|h| h.name == attached.name);
                let ran = attached.verdict == Verdict::Ok;
                // It is skipped while it looks whether it is needed, which loses nothing.
                let stands_in = index.is_some_and(|i| HOOKS[i].stands_in_for.is_some());
                let hits = index.and_then(|i| hits_of.get(i).copied()).filter(|_| ran);
                let info = if is_of_files(attached) {
                    self.call_stats()
                } else {
                    attached.program.and_then(|name| self.program_stats(name))
                };
                let run_time_ns =
                    info.zip(share).map(|(info, share)| (info.run_time_ns as f64 / share).round() as u64);
                // What a stand-in took was not lost.
                let taken = stand_in_of(attached.name).and_then(|i| hits_of.get(i).copied()).unwrap_or(0);
                Hook {
                    name: attached.name.to_owned(),
                    mechanism: attached.mechanism.map(|m| m.as_str().to_owned()),
                    verdict: attached.verdict.as_str().to_owned(),
                    reason: attached.reason.clone(),
                    hits,
                    lost: info.filter(|_| !stands_in).map(|i| i.recursion_misses.saturating_sub(taken)),
                    run_time_ns,
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

    fn program_stats(&self, name: &str) -> Option<ProgramStats> {
        ProgramStats::read(self.ebpf.program(name)?.fd().ok()?.as_fd())
    }

    /// Of all programs at library functions, however attached.
    fn call_stats(&self) -> Option<ProgramStats> {
        let single = [CALL_ENTER, CALL_RETURN].map(|name| self.program_stats(name));
        let multi = self.multi.iter().flat_map(Multi::programs).map(ProgramStats::read);
        single.into_iter().chain(multi).flatten().reduce(|a, b| ProgramStats {
            run_time_ns: a.run_time_ns + b.run_time_ns,
            recursion_misses: a.recursion_misses + b.recursion_misses,
        })
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

    /// Takes the event ring buffer out.
    pub fn take_events(&mut self) -> Result<RingBuf<MapData>, ObjectError> {
        let map = self.ebpf.take_map(EVENTS).ok_or(ObjectError::NoMap(EVENTS))?;
        RingBuf::try_from(map).map_err(|e| map_error(EVENTS, e))
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

    /// Kernel memory of all maps and programs, from their /proc fdinfo.
    pub fn memory(&self) -> Option<u64> {
        let maps = self.ebpf.maps().filter(|(name, _)| *name != EVENTS).filter_map(|(_, map)| map_fd(map));
        let programs = self.ebpf.programs().filter_map(|(_, program)| program.fd().ok().map(|fd| fd.as_fd()));
        let multi = self.multi.iter().flat_map(Multi::programs);
        let all = maps.chain([self.events.as_fd()]).chain(programs).chain(multi);
        all.map(memlock).try_fold(0u64, |sum, bytes| Some(sum + bytes?))
    }
}

impl Drop for Object {
    fn drop(&mut self) {
        self.detach_functions();
    }
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

fn memlock(fd: BorrowedFd) -> Option<u64> {
    let text = fdinfo(fd)?;
    text.lines().find_map(|l| l.strip_prefix("memlock:"))?.trim().parse().ok()
}

fn fdinfo(fd: BorrowedFd) -> Option<String> {
    std::fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd())).ok()
}

fn is_of_files(hook: &Attached) -> bool {
    hook.mechanism.is_some_and(Mechanism::is_of_files)
}

fn reason(failures: &[String]) -> Option<String> {
    (!failures.is_empty()).then(|| failures.join("; "))
}

fn is_root() -> bool {
    // SAFETY: no arguments, cannot fail.
    unsafe { libc::geteuid() == 0 }
}

fn map_error(name: &'static str, e: aya::maps::MapError) -> ObjectError {
    ObjectError::Map { name, cause: Box::new(e) }
}

/// A load error with the end of the verifier's log, which is where it says why.
fn describe(error: &ProgramError) -> String {
    match error {
        ProgramError::LoadError { io_error, verifier_log } => {
            format!("load: {io_error}{}", end_of_log(&verifier_log.to_string()))
        }
        other => other.to_string(),
    }
}

/// The part of `struct bpf_prog_info` that says what a program did (include/uapi/linux/bpf.h).
#[derive(Debug, Clone, Copy)]
struct ProgramStats {
    run_time_ns: u64,
    recursion_misses: u64,
}

impl ProgramStats {
    fn read(program: BorrowedFd) -> Option<Self> {
        // fdinfo has the same figures as bpf_prog_info, in text that does not change with its layout.
        let text = fdinfo(program)?;
        let field = |name: &str| {
            text.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(':'))?.trim().parse().ok()
        };
        Some(Self { run_time_ns: field("run_time_ns")?, recursion_misses: field("recursion_misses")? })
    }
}

#[cfg(test)]
mod tests {
    use spark_trace_common::hook::Profile;

    use super::*;
    use crate::live::{cgroup::Layout, offsets};

    #[test]
    #[ignore = "kernel: needs root"]
    fn every_hook_attaches_or_says_why() {
        let btf = Btf::from_kernel().unwrap();
        let layout = Layout::detect().unwrap();
        let settings = offsets::Settings { whole_system: false, all_pages: false, min_region: 1 << 20 };
        let config = offsets::resolve(&btf, &layout, settings).unwrap();
        let mut object = Object::load(&config, Sizes { ring_bytes: 1 << 16, live_pages: 1024 }).unwrap();
        object.attach(&Profile::Deep.into(), &btf).unwrap();
        for hook in object.hooks() {
            println!("{hook:?}");
        }
    }
}
