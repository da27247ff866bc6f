//! Attaching what the plan says: at once, or when what a hook waits for has happened.

use aya::maps::Array;
use aya::programs::{
    BtfTracePoint, FEntry, FExit, KProbe, Program, ProgramError, RawTracePoint, RawTracePointRunOptions,
    TestRun,
};
use spark_trace_common::{
    config::CONTROL_ENDED,
    hook::{Candidate, Hook, Mechanism},
};
use tracing::debug;

use super::{Attached, Object, ObjectError, begun::types_of_hooks};
use crate::attach_plan::{self, HookSelection, Step, reason_at};
use crate::{
    btf::Btf,
    facts::KernelFacts,
    uprobe_multi::{end_of_log, log_verifier},
};
use spark_trace_recording::verdict::Verdict;

/// The hook that sees programs change their address space, and read the files that say how much memory there is.
pub(super) const MAPPING: &str = "mapping";

/// The hook that sees pages freed as it happens.
const PAGE_FREE: &str = "page-free";

/// How far a program is to be brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Extent {
    /// So that attaching it later is quick and sure.
    Load,
    Attach,
}

impl Object {
    /// Attaches every chosen hook that this kernel can carry.
    pub fn attach(&mut self, choice: &HookSelection, btf: &Btf) -> Result<(), ObjectError> {
        let plan = attach_plan::plan(choice, &KernelFacts::new(btf));
        let first = |step: &Step| Some(step.candidates.first()?.mechanism);
        if plan.iter().any(|step| first(step) == Some(Mechanism::UprobeMulti)) {
            self.begin_multi();
        }
        let frames = self.find_frames();
        let kernel_types = types_of_hooks(btf)?;
        let is_tried = |step: &&Step| step.verdict.is_none() && (frames.is_ok() || !step.hook.follows_frames);
        self.ahead = self.load_ahead(plan.iter().filter(is_tried), &kernel_types);
        for step in plan {
            let attached = match &frames {
                Err(reason) if step.hook.follows_frames && step.verdict.is_none() => {
                    Attached::without(step.hook, Verdict::Unsupported, reason.clone())
                }
                _ => self.attach_step(&step, &kernel_types),
            };
            attached.log();
            self.hooks.push(attached);
        }
        Ok(())
    }

    /// Attaches the hooks that wait for `trigger`, one of [`spark_trace_common::hook::TRIGGERS`]. That it has
    /// happened may be said again and again; it counts once. One that cannot be attached is broken, as at the start.
    pub fn attach_waiting(&mut self, trigger: &str) {
        let (now, later): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.waiting).into_iter().partition(|(_, waits_for)| *waits_for == trigger);
        self.waiting = later;
        for (name, _) in now {
            let Some(index) = self.hooks.iter().position(|h| h.name == name) else { continue };
            let attached = match self.hooks[index].program {
                Some(program) => self.attach_loaded(program),
                None => Err("it is not loaded".to_owned()),
            };
            let hook = &mut self.hooks[index];
            (hook.verdict, hook.reason) = match attached {
                Ok(()) => (Verdict::Ok, None),
                Err(reason) => (Verdict::Broken, Some(reason)),
            };
            hook.log();
        }
    }

    /// Has hook `mapping` bring nothing from now on. At a tracepoint it is detached; its verdict and what it has counted
    /// stay. The kernel does not wait for programs that run (kernel/trace/bpf_trace.c bpf_probe_unregister), so this is
    /// quick. At functions it would wait, so there the programs leave at once.
    pub fn end_mapping(&mut self) {
        let name = MAPPING;
        if let Ok(mut map) = self.map_mut::<Array<_, u32>>("CONTROL") {
            // One that goes on costs time and nothing else.
            let _ = map.set(CONTROL_ENDED, 1, 0);
        }
        let Some(program) = self.hooks.iter().find(|hook| hook.name == name).and_then(|hook| hook.program)
        else {
            return;
        };
        if let Some(link) = self.tracepoints.remove(program)
            && let Ok(program) = self.program(program)
            && let Ok(program) = of_type::<BtfTracePoint>(program)
        {
            // One that stays attached costs time and nothing else.
            let _ = program.detach(link);
        }
    }

    /// Whether the hook called `name` is at work.
    pub(super) fn is_attached(&self, name: &str) -> bool {
        self.hooks.iter().any(|h| h.name == name && h.verdict == Verdict::Ok)
    }

    pub(super) fn sees_frees(&self) -> bool {
        self.is_attached(PAGE_FREE)
    }

    fn attach_step(&mut self, step: &Step, kernel_types: &aya::Btf) -> Attached {
        if let Some((verdict, reason)) = &step.verdict {
            return Attached::without(step.hook, *verdict, reason.clone());
        }
        let extent = if step.waits.is_some() { Extent::Load } else { Extent::Attach };
        let mut failures = step.passed_over.clone();
        for reason in &failures {
            debug!("hook {}: not tried: {reason}", step.hook.name);
        }
        for candidate in &step.candidates {
            if let Err(reason) = self.bring(candidate, extent, kernel_types) {
                let failure = format!("{}: {reason}", attach_plan::name_of(candidate));
                debug!("hook {}: tried and failed: {failure}", step.hook.name);
                failures.push(failure);
                continue;
            }
            let (verdict, reason) = match &step.waits {
                Some((trigger, reason)) => {
                    self.waiting.push((step.hook.name, *trigger));
                    (Verdict::Off, Some((*reason).to_owned()))
                }
                // Loaded, with nothing to attach to as yet.
                None if candidate.mechanism.is_of_files() => {
                    self.not_multi.clone_from(&failures);
                    failures.insert(0, "no CUDA driver or NVML library was found".to_owned());
                    (Verdict::NotApplicable, super::reason(&failures))
                }
                None => {
                    let loses =
                        candidate.loses.map(|loses| format!("{}: {loses}", attach_plan::name_of(candidate)));
                    failures.extend(loses);
                    (Verdict::Ok, super::reason(&failures))
                }
            };
            let (program, mechanism) = (Some(candidate.program), Some(candidate.mechanism));
            return Attached { name: step.hook.name, program, mechanism, verdict, reason };
        }
        failures.extend(step.below.iter().cloned());
        Attached::without(step.hook, Verdict::Broken, failures.join("; "))
    }

    fn bring(
        &mut self,
        candidate: &Candidate,
        extent: Extent,
        kernel_types: &aya::Btf,
    ) -> Result<(), String> {
        match candidate.mechanism {
            Mechanism::UprobeMulti => return self.load_multi(),
            Mechanism::Uprobe => return self.load_uprobes(),
            _ => {}
        }
        let attach = extent == Extent::Attach;
        // The return first: an entry without its return would leave a charge under way for ever.
        if let Some(on_return) = candidate.on_return {
            kprobe(self.program(on_return)?, candidate.target, attach)?;
        }
        let ahead = self.ahead.contains(candidate.program);
        let program = self.program(candidate.program)?;
        match candidate.mechanism {
            Mechanism::OnDemand => {
                let program: &mut RawTracePoint = of_type(program)?;
                loaded(ahead, program.load())?;
                program.test_run(RawTracePointRunOptions::default()).map_err(|e| describe(&e))?;
            }
            Mechanism::Fentry => {
                let program: &mut FEntry = of_type(program)?;
                loaded(ahead, program.load(candidate.target, kernel_types))?;
                if attach {
                    program.attach().map_err(|e| describe(&e))?;
                }
            }
            Mechanism::Fexit => self.bring_returns(candidate, attach, kernel_types)?,
            Mechanism::Kprobe => {
                let attached = kprobe(program, candidate.target, attach);
                if let (Err(_), Some(on_return)) = (&attached, candidate.on_return) {
                    let program: &mut KProbe = of_type(self.program(on_return)?)?;
                    program.unload().map_err(|e| describe(&e))?;
                }
                attached?;
            }
            Mechanism::TpBtf | Mechanism::Uprobe | Mechanism::UprobeMulti => {
                let program: &mut BtfTracePoint = of_type(program)?;
                loaded(ahead, program.load(candidate.target, kernel_types))?;
                if attach {
                    let link = program.attach().map_err(|e| describe(&e))?;
                    self.tracepoints.insert(candidate.program, link);
                }
            }
        }
        Ok(())
    }

    /// Brings programs at the returns of functions: all of them, or none. All are loaded before any is attached.
    fn bring_returns(
        &mut self,
        candidate: &Candidate,
        attach: bool,
        kernel_types: &aya::Btf,
    ) -> Result<(), String> {
        let mut all = || {
            for place in candidate.places() {
                let ahead = self.ahead.contains(place.program);
                let program: &mut FExit = of_type(self.program(place.program)?)?;
                loaded(ahead, program.load(place.target, kernel_types))
                    .map_err(|e| reason_at(candidate, place, e))?;
            }
            for place in candidate.places().filter(|_| attach) {
                let program: &mut FExit = of_type(self.program(place.program)?)?;
                program.attach().map_err(|e| reason_at(candidate, place, describe(&e)))?;
            }
            Ok(())
        };
        let brought = all();
        if brought.is_err() {
            for place in candidate.places() {
                let program: &mut FExit = of_type(self.program(place.program)?)?;
                // It may not have been reached.
                let _ = program.unload();
            }
        }
        brought
    }

    fn program(&mut self, name: &str) -> Result<&mut Program, String> {
        self.ebpf.program_mut(name).ok_or_else(|| format!("no program {name} in the object"))
    }

    fn attach_loaded(&mut self, program: &str) -> Result<(), String> {
        let program = self.ebpf.program_mut(program).ok_or("no such program in the object")?;
        let program: &mut BtfTracePoint = program.try_into().map_err(|e: ProgramError| e.to_string())?;
        program.attach().map(drop).map_err(|e| describe(&e))
    }
}

/// Loaded now, or `ahead` of its turn.
fn loaded(ahead: bool, result: Result<(), ProgramError>) -> Result<(), String> {
    match result {
        Err(ProgramError::AlreadyLoaded) if ahead => Ok(()),
        result => result.map_err(|e| describe(&e)),
    }
}

pub(super) fn of_type<'a, P>(program: &'a mut Program) -> Result<&'a mut P, String>
where
    &'a mut P: TryFrom<&'a mut Program, Error = ProgramError>,
{
    program.try_into().map_err(|e: ProgramError| e.to_string())
}

fn kprobe(program: &mut Program, function: &str, attach: bool) -> Result<(), String> {
    let program: &mut KProbe = of_type(program)?;
    program.load().map_err(|e| describe(&e))?;
    if attach {
        program.attach(function, 0).map_err(|e| describe(&e))?;
    }
    Ok(())
}

impl Attached {
    fn log(&self) {
        let Self { name, program, mechanism, verdict, reason } = self;
        let by = mechanism.zip(*program).map_or_else(String::new, |(mechanism, program)| {
            format!(" by {}, program {program}", mechanism.as_str())
        });
        let reason = reason.as_ref().map_or_else(String::new, |reason| format!(": {reason}"));
        debug!("hook {name}: {}{by}{reason}", verdict.as_str());
    }

    /// A hook that does no work.
    fn without(hook: &Hook, verdict: Verdict, reason: String) -> Self {
        Self { name: hook.name, program: None, mechanism: None, verdict, reason: Some(reason) }
    }
}

/// A load error with the end of the verifier's log, which is where it says why.
pub(super) fn describe(error: &ProgramError) -> String {
    match error {
        ProgramError::LoadError { io_error, verifier_log } => {
            let log = verifier_log.to_string();
            log_verifier(&log);
            format!("load: {io_error}{}", end_of_log(&log))
        }
        other => other.to_string(),
    }
}
