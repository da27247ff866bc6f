//! Which hook by which mechanism: facts about the kernel in, a plan out. Pure.

use spark_trace_common::hook::{
    Candidate, HOOKS, Hook, Mechanism, NOT_ON_A_WHOLE_MACHINE, Place, Profile, TRIGGERS,
};

use spark_trace_recording::verdict::Verdict;

/// What the planner needs to know of a kernel. What costs something to find out is looked at only where a candidate
/// depends on it.
pub trait Facts {
    /// BTF-typed programs can attach to this tracepoint.
    fn has_btf_tracepoint(&self, name: &str) -> bool;
    /// Number of arguments of a kernel function; `None` where the kernel's types do not have it.
    fn args_of(&self, function: &str) -> Option<u32>;
    /// The kernel knows a function's address by its name.
    fn has_symbol(&self, function: &str) -> bool;
    /// Whether programs can be attached to functions by a trampoline (fentry, fexit), or why not.
    fn trampolines(&self) -> Result<(), String>;
    /// Whether there are kprobes, or why not.
    fn kprobes(&self) -> Result<(), String>;
    /// Whether the kernel may preempt its own code, and how that is known.
    fn preemption(&self) -> Option<String>;
    /// A kernel module is loaded.
    fn has_module(&self, name: &str) -> bool;
}

/// What to do about one hook.
#[derive(Debug, Clone)]
pub struct Step {
    pub hook: &'static Hook,
    /// Candidates this kernel should be able to carry, best first; empty where there are none.
    pub candidates: Vec<&'static Candidate>,
    /// Candidates that are not tried, each with why: left out by the user, or not to be had here.
    pub passed_over: Vec<String>,
    /// The same of those that come after one of the candidates: shown only where none attaches.
    pub below: Vec<String>,
    /// Verdict where there is nothing to attach, with its reason.
    pub verdict: Option<(Verdict, String)>,
    /// The trigger that it is attached by, and what is shown until then; none where it is attached at once.
    pub waits: Option<(&'static str, &'static str)>,
}

/// What the user chose.
#[derive(Debug, Clone)]
pub struct HookSelection {
    pub profile: Profile,
    /// Names of hooks to leave out.
    pub without: Vec<String>,
    /// Mechanisms to leave out, so that the next candidate is tried on a kernel that has them.
    pub exclude_mechanisms: Vec<Exclusion>,
    pub system_calls: SystemCalls,
}

/// Whether a hook may run at every system call of the machine where nothing else carries it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SystemCalls {
    On,
    /// The user does not want it.
    Off,
    /// The target is the whole machine.
    OffForMachine,
}

impl SystemCalls {
    /// What the user chose, or else by whether the target is the whole machine.
    pub const fn of(chosen: Option<bool>, whole_machine: bool) -> Self {
        match (chosen, whole_machine) {
            (Some(true), _) | (None, false) => Self::On,
            (Some(false), _) => Self::Off,
            (None, true) => Self::OffForMachine,
        }
    }

    /// Why a candidate at every system call is not used.
    const fn refusal(self) -> Option<&'static str> {
        match self {
            Self::On => None,
            Self::Off => Some("left out by --system-calls off"),
            Self::OffForMachine => Some(NOT_ON_A_WHOLE_MACHINE),
        }
    }
}

/// A mechanism that is not to be used: for one hook, or for all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exclusion {
    pub hook: Option<&'static str>,
    pub mechanism: Mechanism,
}

impl From<Mechanism> for Exclusion {
    fn from(mechanism: Mechanism) -> Self {
        Self { hook: None, mechanism }
    }
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ExclusionError {
    #[error("no hook {0}; see `spark-trace doctor`")]
    Hook(String),
    #[error("no mechanism {0}; there are {known}", known = Mechanism::ALL.map(Mechanism::as_str).join(", "))]
    Mechanism(String),
}

/// `MECHANISM` or `HOOK:MECHANISM`.
impl std::str::FromStr for Exclusion {
    type Err = ExclusionError;

    fn from_str(text: &str) -> Result<Self, ExclusionError> {
        let (hook, name) = text.split_once(':').map_or((None, text), |(hook, name)| (Some(hook), name));
        let hook = match hook {
            Some(name) => {
                let found = HOOKS.iter().find(|hook| hook.name == name);
                Some(found.ok_or_else(|| ExclusionError::Hook(name.to_owned()))?.name)
            }
            None => None,
        };
        let mechanism = Mechanism::ALL.into_iter().find(|mechanism| mechanism.as_str() == name);
        Ok(Self { hook, mechanism: mechanism.ok_or_else(|| ExclusionError::Mechanism(name.to_owned()))? })
    }
}

impl Exclusion {
    fn covers(self, hook: &Hook, candidate: &Candidate) -> bool {
        self.mechanism == candidate.mechanism && self.hook.is_none_or(|name| name == hook.name)
    }
}

impl From<Profile> for HookSelection {
    fn from(profile: Profile) -> Self {
        let (without, exclude_mechanisms) = (Vec::new(), Vec::new());
        Self { profile, without, exclude_mechanisms, system_calls: SystemCalls::On }
    }
}

/// Plans all hooks.
pub fn plan(choice: &HookSelection, facts: &impl Facts) -> Vec<Step> {
    HOOKS.iter().map(|hook| step(hook, choice, facts)).collect()
}

fn step(hook: &'static Hook, choice: &HookSelection, facts: &impl Facts) -> Step {
    let profile = choice.profile;
    let nothing = |verdict, reason| Step {
        hook,
        candidates: Vec::new(),
        passed_over: Vec::new(),
        below: Vec::new(),
        verdict: Some((verdict, reason)),
        waits: None,
    };
    if choice.without.iter().any(|name| name == hook.name) {
        return nothing(Verdict::Off, "left out by --exclude-hook".to_owned());
    }
    if hook.profile > profile {
        return nothing(
            Verdict::Off,
            format!("not in profile {}; use --profile {}", profile.as_str(), hook.profile.as_str()),
        );
    }
    if let Some(module) = hook.module.filter(|module| !facts.has_module(module)) {
        return nothing(Verdict::NotApplicable, format!("module {module} is not loaded"));
    }
    let (mut candidates, mut passed_over, mut below) = (Vec::new(), Vec::new(), Vec::new());
    let mut by_choice = false;
    for candidate in hook.candidates {
        let excluded = choice.exclude_mechanisms.iter().any(|out| out.covers(hook, candidate));
        let left_out = match choice.system_calls.refusal() {
            _ if excluded => Some("left out by --exclude-mechanism"),
            refusal => refusal.filter(|_| candidate.every_call),
        };
        by_choice |= left_out.is_some();
        let verdict = match left_out {
            Some(reason) => Err(reason.to_owned()),
            None => possible(candidate, facts),
        };
        match verdict {
            Ok(()) => candidates.push(candidate),
            Err(reason) => {
                let reasons = if candidates.is_empty() { &mut passed_over } else { &mut below };
                reasons.push(format!("{}: {reason}", name_of(candidate)));
            }
        }
    }
    if candidates.is_empty() {
        // What the user left out might have carried it.
        let verdict = if by_choice { Verdict::Off } else { Verdict::Unsupported };
        return nothing(verdict, passed_over.join("; "));
    }
    if choice.system_calls == SystemCalls::On
        && candidates[0].skips_if_preempted
        && candidates.len() > 1
        && let Some(how) = facts.preemption()
    {
        // What is exact of the target comes before what costs others nothing.
        passed_over.push(format!("{}: would skip calls: {how}", name_of(candidates[0])));
        candidates.rotate_left(1);
    }
    let trigger = hook.waits_for.filter(|_| profile < Profile::Deep);
    let waits = TRIGGERS.iter().copied().find(|(name, _)| trigger == Some(*name));
    Step { hook, candidates, passed_over, below, verdict: None, waits }
}

/// What a candidate is called in reasons.
pub fn name_of(candidate: &Candidate) -> String {
    format!("{} {}", candidate.mechanism.as_str(), candidate.target).trim_end().to_owned()
}

fn possible(candidate: &Candidate, facts: &impl Facts) -> Result<(), String> {
    let possible_at = |place: Place| {
        possible_at(candidate.mechanism, place, facts).map_err(|reason| reason_at(candidate, place, reason))
    };
    candidate.places().try_for_each(possible_at)
}

/// A reason, with the place where that is not the one by which the candidate is called.
pub fn reason_at(candidate: &Candidate, place: Place, reason: String) -> String {
    if place.target == candidate.target { reason } else { format!("{}: {reason}", place.target) }
}

fn possible_at(mechanism: Mechanism, place: Place, facts: &impl Facts) -> Result<(), String> {
    let target = place.target;
    match mechanism {
        Mechanism::TpBtf if facts.has_btf_tracepoint(target) => Ok(()),
        Mechanism::TpBtf => Err("this kernel has no such tracepoint".to_owned()),
        Mechanism::Fentry | Mechanism::Fexit => {
            if facts.args_of(target).is_none() {
                return Err("this kernel's types have no such function".to_owned());
            }
            as_expected(place, facts)?;
            facts.trampolines()
        }
        Mechanism::Kprobe => {
            facts.kprobes()?;
            as_expected(place, facts)?;
            // The list of symbols is read only where types do not say: it takes long.
            let known = facts.args_of(target).is_some() || facts.has_symbol(target);
            if known { Ok(()) } else { Err("this kernel has no such function".to_owned()) }
        }
        // Whether the kernel can run it shows when it is run.
        Mechanism::OnDemand => Ok(()),
        // Every kernel we know has the one; whether it has the other shows when a program attaches.
        Mechanism::Uprobe | Mechanism::UprobeMulti => Ok(()),
    }
}

/// Refuses a function whose arguments are known to be others than the programs expect.
fn as_expected(place: Place, facts: &impl Facts) -> Result<(), String> {
    match (place.args, facts.args_of(place.target)) {
        (Some(expected), Some(found)) if expected != found => {
            Err(format!("it has {found} arguments in this kernel, not {expected}"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A kernel that has everything but what is named.
    struct Kernel(&'static [&'static str]);

    impl Kernel {
        fn has(&self, name: &str) -> bool {
            !self.0.contains(&name)
        }

        fn facility(&self, name: &str) -> Result<(), String> {
            if self.has(name) { Ok(()) } else { Err(format!("no {name}")) }
        }
    }

    impl Facts for Kernel {
        fn has_btf_tracepoint(&self, name: &str) -> bool {
            self.has(name)
        }

        fn args_of(&self, function: &str) -> Option<u32> {
            let mut places = HOOKS.iter().flat_map(|hook| hook.candidates).flat_map(Candidate::places);
            let expected = places.find(|place| place.target == function && place.args.is_some())?.args?;
            self.has(function).then_some(if self.has("the usual arguments") { expected } else { 9 })
        }

        fn has_symbol(&self, function: &str) -> bool {
            self.has(function)
        }

        fn trampolines(&self) -> Result<(), String> {
            self.facility("trampolines")
        }

        fn kprobes(&self) -> Result<(), String> {
            self.facility("kprobes")
        }

        fn preemption(&self) -> Option<String> {
            (!self.has("no preemption")).then(|| "preempt=full".to_owned())
        }

        fn has_module(&self, name: &str) -> bool {
            self.has(name)
        }
    }

    fn step_of(name: &str, choice: &HookSelection, kernel: &Kernel) -> Step {
        let mut steps = plan(choice, kernel);
        steps.swap_remove(steps.iter().position(|s| s.hook.name == name).unwrap())
    }

    fn mechanisms(step: &Step) -> Vec<Mechanism> {
        step.candidates.iter().map(|c| c.mechanism).collect()
    }

    fn verdict_of(steps: &[Step], name: &str) -> Option<Verdict> {
        steps.iter().find(|s| s.hook.name == name).unwrap().verdict.as_ref().map(|(v, _)| *v)
    }

    #[test]
    fn profiles_leave_out_what_costs_more() {
        let kernel = Kernel(&[]);
        assert_eq!(verdict_of(&plan(&Profile::Default.into(), &kernel), "page-alloc"), None);
        assert_eq!(verdict_of(&plan(&Profile::Light.into(), &kernel), "page-alloc"), Some(Verdict::Off));
        assert_eq!(verdict_of(&plan(&Profile::Light.into(), &kernel), "process-exec"), None);
        assert_eq!(verdict_of(&plan(&Profile::Default.into(), &kernel), "charge"), Some(Verdict::Off));
        assert_eq!(verdict_of(&plan(&Profile::Deep.into(), &kernel), "charge"), None);
    }

    #[test]
    fn a_hook_waits_for_its_trigger_below_deep() {
        let waits = |profile: Profile| {
            let steps = plan(&profile.into(), &Kernel(&[]));
            steps.iter().find(|s| s.hook.name == "page-free").unwrap().waits
        };
        assert_eq!(waits(Profile::Default).map(|(trigger, _)| trigger), Some("cuda"));
        assert_eq!(waits(Profile::Deep), None);
        let known = |name| TRIGGERS.iter().any(|(trigger, _)| *trigger == name);
        assert!(HOOKS.iter().filter_map(|hook| hook.waits_for).all(known));
    }

    #[test]
    fn hooks_can_be_left_out_by_name() {
        let choice = HookSelection { without: vec!["file-remove".to_owned()], ..Profile::Default.into() };
        let steps = plan(&choice, &Kernel(&[]));
        assert_eq!(verdict_of(&steps, "file-remove"), Some(Verdict::Off));
        assert_eq!(verdict_of(&steps, "file-add"), None);
    }

    #[test]
    fn on_a_whole_machine_nothing_runs_at_every_system_call_unless_wanted() {
        let mapping = |chosen, whole_machine| {
            let system_calls = SystemCalls::of(chosen, whole_machine);
            let choice = HookSelection { system_calls, ..Profile::Deep.into() };
            // The kernel of a machine without trampolines and kprobes.
            step_of("mapping", &choice, &Kernel(&["trampolines", "kprobes"])).verdict
        };
        for (chosen, whole_machine) in [(None, false), (Some(true), false), (Some(true), true)] {
            assert_eq!(mapping(chosen, whole_machine), None);
        }
        for (chosen, whole_machine, why) in [
            (None, true, NOT_ON_A_WHOLE_MACHINE),
            (Some(false), true, "--system-calls off"),
            (Some(false), false, "--system-calls off"),
        ] {
            let (verdict, reason) = mapping(chosen, whole_machine).unwrap();
            assert!(verdict == Verdict::Off && reason.contains(why), "{reason}");
        }
        let choice = HookSelection { system_calls: SystemCalls::OffForMachine, ..Profile::Deep.into() };
        let off = |step: &Step| matches!(&step.verdict, Some((Verdict::Off, _)));
        let left_out = plan(&choice, &Kernel(&[])).iter().filter(|step| off(step)).count();
        assert_eq!(
            left_out,
            HOOKS.iter().filter(|hook| hook.candidates.iter().all(|c| c.every_call)).count()
        );
    }

    #[test]
    fn a_kernel_without_one_of_several_functions_gets_the_next_candidate() {
        let mechanisms = |without| {
            let step = step_of("mapping", &Profile::Default.into(), &Kernel(without));
            (mechanisms(&step), step.passed_over)
        };
        assert_eq!(mechanisms(&[]).0, [Mechanism::Fexit, Mechanism::TpBtf]);
        let (left, why) = mechanisms(&["seq_read_iter"]);
        assert!(left == [Mechanism::TpBtf] && why[0].contains("seq_read_iter: "), "{why:?}");
    }

    /// Of a target, what skips nothing; of a whole machine, what does not tax all of it.
    #[test]
    fn where_the_kernel_preempts_itself_functions_of_system_calls_come_last() {
        let of = |system_calls, without| {
            let choice = HookSelection { system_calls, ..Profile::Default.into() };
            let step = step_of("mapping", &choice, &Kernel(without));
            (mechanisms(&step), step.passed_over)
        };
        let (order, why) = of(SystemCalls::On, &["no preemption"]);
        assert_eq!(order, [Mechanism::TpBtf, Mechanism::Fexit]);
        assert!(why[0].ends_with("would skip calls: preempt=full"), "{why:?}");
        assert_eq!(of(SystemCalls::On, &[]).0, [Mechanism::Fexit, Mechanism::TpBtf]);
        assert_eq!(of(SystemCalls::OffForMachine, &["no preemption"]).0, [Mechanism::Fexit]);
    }

    #[test]
    fn without_a_mechanism_the_next_candidate_is_left_and_the_reason_kept() {
        let without = |mechanisms: &[Mechanism]| {
            let choice = {
                let exclude_mechanisms = mechanisms.iter().map(|mechanism| (*mechanism).into()).collect();
                HookSelection { exclude_mechanisms, ..Profile::Default.into() }
            };
            step_of("library-call", &choice, &Kernel(&[]))
        };
        let (multi, single) = (Mechanism::UprobeMulti, Mechanism::Uprobe);
        assert_eq!(mechanisms(&without(&[])), [multi, single]);
        let step = without(&[multi]);
        assert_eq!(mechanisms(&step), [single]);
        assert_eq!(step.passed_over, ["uprobe.multi: left out by --exclude-mechanism"]);
        let (verdict, reason) = without(&[multi, single]).verdict.unwrap();
        assert_eq!(verdict, Verdict::Off);
        assert!(reason.contains("uprobe.multi") && reason.contains("uprobe:"), "{reason}");
    }

    #[test]
    fn a_mechanism_can_be_left_out_for_one_hook() {
        let choice = HookSelection {
            exclude_mechanisms: vec!["uncharge:fentry".parse().unwrap()],
            ..Profile::Default.into()
        };
        let of = |name| mechanisms(&step_of(name, &choice, &Kernel(&[])));
        assert_eq!(of("uncharge"), [Mechanism::Kprobe]);
        assert_eq!(of("charge-force"), [Mechanism::Fentry, Mechanism::Kprobe]);
        assert_eq!("kprobe".parse(), Ok(Exclusion::from(Mechanism::Kprobe)));
        assert_eq!("charge:ftrace".parse::<Exclusion>(), Err(ExclusionError::Mechanism("ftrace".to_owned())));
        assert!("x:kprobe".parse::<Exclusion>().unwrap_err().to_string().contains("no hook x"));
    }

    #[test]
    fn each_kernel_gets_the_best_that_it_has() {
        let step = |kernel| step_of("charge-try", &Profile::Default.into(), &Kernel(kernel));
        assert_eq!(mechanisms(&step(&[])), [Mechanism::Fexit, Mechanism::Kprobe]);
        let without_trampolines = step(&["trampolines"]);
        assert_eq!(mechanisms(&without_trampolines), [Mechanism::Kprobe]);
        assert_eq!(without_trampolines.passed_over, ["fexit page_counter_try_charge: no trampolines"]);
        let step = step(&["trampolines", "kprobes"]);
        let (verdict, reason) = step.verdict.unwrap();
        assert_eq!(verdict, Verdict::Unsupported);
        assert!(reason.contains("no trampolines; kprobe page_counter_try_charge: no kprobes"), "{reason}");
    }

    #[test]
    fn what_is_about_a_module_is_not_applicable_without_it() {
        let step = |kernel| step_of("nvidia-alloc", &Profile::Default.into(), &Kernel(kernel));
        assert_eq!(mechanisms(&step(&[])), [Mechanism::Kprobe]);
        let (verdict, reason) = step(&["nvidia"]).verdict.unwrap();
        assert_eq!((verdict, reason.as_str()), (Verdict::NotApplicable, "module nvidia is not loaded"));
    }

    #[test]
    fn a_function_with_other_arguments_is_left_alone() {
        let kernel = Kernel(&["the usual arguments"]);
        let (verdict, reason) = step_of("uncharge", &Profile::Default.into(), &kernel).verdict.unwrap();
        assert_eq!(verdict, Verdict::Unsupported);
        assert!(reason.contains("9 arguments in this kernel, not 2"), "{reason}");
    }

    #[test]
    fn what_a_kernel_lacks_is_unsupported_with_the_reason() {
        let deep = || Profile::Deep.into();
        let kernel = Kernel(&["mod_memcg_state"]);
        assert_eq!(mechanisms(&step_of("charge", &deep(), &kernel)), [Mechanism::Fentry, Mechanism::Kprobe]);
        let kernel = Kernel(&["mod_memcg_state", "__mod_memcg_state"]);
        let (verdict, reason) = step_of("charge", &deep(), &kernel).verdict.unwrap();
        assert_eq!(verdict, Verdict::Unsupported);
        assert!(reason.contains("tp_btf mod_memcg_state") && reason.contains("kprobe __mod"), "{reason}");
    }

    #[test]
    fn what_a_later_candidate_lacks_is_said_where_it_lacks_something() {
        for hook in HOOKS {
            for candidate in hook.candidates.iter().filter(|c| c.on_return.is_some()) {
                assert_eq!(candidate.mechanism, Mechanism::Kprobe, "{}", hook.name);
            }
            // Where that is the only one, it says what it costs others.
            let best = hook.candidates.first();
            assert!(best.is_none_or(|best| best.loses.is_none() || best.every_call), "{}", hook.name);
        }
    }
}
