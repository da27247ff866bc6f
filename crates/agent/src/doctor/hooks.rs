//! Loads and attaches every hook as a recording of profile `deep` does, has them see something happen,
//! and detaches them again.

use serde::Serialize;
use spark_trace_common::{
    capacities,
    config::Config,
    hook::{HOOKS, Hook, Profile},
};

use super::exercise::{self, Exercise};
use crate::attach_plan::{Exclusion, HookSelection};
use crate::{
    bpf::{Attached, Object},
    btf::Btf,
    cgroup::Layout,
    library::Libraries,
    offsets::{self, Settings},
    statistics::Statistics,
};
use spark_trace_recording::LibraryFile;
use spark_trace_recording::verdict::Verdict;

/// Verdict on a hook that could not even be tried.
pub const UNTRIED: &str = "untried";

/// One row of HOOKS with what became of it.
#[derive(Debug, Clone, Serialize)]
pub struct HookRow {
    pub name: &'static str,
    pub purpose: &'static str,
    /// The least profile that wants it.
    pub profile: &'static str,
    /// Without it nothing is recorded.
    pub required: bool,
    /// A [`Verdict`], or [`UNTRIED`].
    pub verdict: &'static str,
    pub mechanism: Option<&'static str>,
    /// Tracepoint or kernel function it is attached to.
    pub target: Option<&'static str>,
    pub reason: Option<String>,
    /// Times it ran while it was attached, whoever made it.
    pub hits: Option<u64>,
    /// What a recording lacks without it.
    pub without: &'static str,
}

/// What the trial showed.
pub struct Trial {
    pub hooks: Vec<HookRow>,
    /// The first thing that keeps a recording from being made.
    pub obstacle: Option<String>,
    /// Whether the kernel's structures are as the programs need them.
    pub members: Result<(), String>,
    /// Whether the kernel counts run times of programs; absent where programs cannot be loaded.
    pub statistics: Option<bool>,
    /// Kernel memory of the programs and their maps.
    pub memory: Option<u64>,
    pub exercise: Exercise,
    /// CUDA drivers and NVML libraries that were found and attached to.
    pub libraries: Vec<LibraryFile>,
}

impl Trial {
    /// `without`: mechanisms to leave out.
    pub fn run(btf: Result<&Btf, &String>, layout: Result<&Layout, &String>, without: &[Exclusion]) -> Self {
        let settings = Settings {
            whole_system: false,
            all_pages: true,
            min_region: 1 << 20,
            python_min: Some(1 << 20),
            unwind_min: Some(1 << 20),
        };
        let config = match (btf, layout) {
            (Ok(btf), Ok(layout)) => offsets::resolve(btf, layout, settings).map_err(|e| e.to_string()),
            (Err(e), _) | (_, Err(e)) => Err(e.clone()),
        };
        // On before attaching, as in a recording.
        let statistics = Statistics::begin();
        let mut loaded = match (&config, btf) {
            (Ok(config), Ok(btf)) => load(config, btf, without),
            (Err(e), _) => Err(e.clone()),
            (_, Err(e)) => Err(e.clone()),
        };
        let libraries = loaded.as_mut().map(present).unwrap_or_default();
        let exercise = exercise::run(layout.ok());
        let hooks = match &loaded {
            Ok(object) => rows(object, exercise.leaf.is_ok()),
            Err(e) => HOOKS.iter().map(|hook| HookRow::untried(hook, e.clone())).collect(),
        };
        let obstacle = match &loaded {
            Ok(_) => obstacle(&hooks),
            Err(e) => Some(e.clone()),
        };
        Self {
            hooks,
            obstacle,
            members: config.map(drop),
            statistics: loaded.is_ok().then_some(statistics.available()),
            memory: loaded.ok().and_then(|object| object.memory()),
            exercise,
            libraries,
        }
    }
}

/// The required hook that does not do its work.
fn obstacle(hooks: &[HookRow]) -> Option<String> {
    let broken = hooks.iter().find(|hook| hook.required && hook.verdict != Verdict::Ok.as_str())?;
    let reason = broken.reason.as_deref().unwrap_or("no reason given");
    Some(format!("hook {} is {}: {reason}", broken.name, broken.verdict))
}

fn present(object: &mut Object) -> Vec<LibraryFile> {
    if object.watches_libraries() { Libraries::default().present(object, &[]) } else { Vec::new() }
}

/// Everything as large as a recording has it: room in the kernel is part of what is tried.
fn load(config: &Config, btf: &Btf, without: &[Exclusion]) -> Result<Object, String> {
    let mut object = Object::load(None, config, capacities::RING_BYTES).map_err(|e| e.to_string())?;
    let choice = HookSelection { exclude_mechanisms: without.to_vec(), ..Profile::Deep.into() };
    object.attach(&choice, btf).map_err(|e| e.to_string())?;
    Ok(object)
}

/// What became of each hook. `exercised`: a process was run in a new cgroup, which all required hooks must
/// have seen.
fn rows(object: &Object, exercised: bool) -> Vec<HookRow> {
    let counted = object.hook_rows(None);
    let row = |hook: &'static Hook| {
        let hits = counted.iter().find(|row| row.name == hook.name).and_then(|row| row.hits);
        match object.hooks().iter().find(|attached| attached.name == hook.name) {
            Some(attached) => HookRow::new(hook, attached, hits).unless_blind(exercised),
            None => HookRow::untried(hook, "the planner left it out".to_owned()),
        }
    };
    HOOKS.iter().map(row).collect()
}

impl HookRow {
    fn new(hook: &'static Hook, attached: &Attached, hits: Option<u64>) -> Self {
        let candidate = hook.candidates.iter().find(|candidate| {
            attached.program == Some(candidate.program) && attached.mechanism == Some(candidate.mechanism)
        });
        Self {
            verdict: attached.verdict.as_str(),
            mechanism: attached.mechanism.map(|mechanism| mechanism.as_str()),
            target: candidate.map(|candidate| candidate.target),
            reason: attached.reason.clone(),
            hits,
            ..Self::untried(hook, String::new())
        }
    }

    /// A program can be attached and yet never run: some kernels accept what they cannot do.
    fn unless_blind(self, exercised: bool) -> Self {
        let blind = self.required && self.verdict == Verdict::Ok.as_str() && self.hits == Some(0);
        if !(blind && exercised) {
            return self;
        }
        let reason = "it is attached, but did not run when a process was started in a new cgroup";
        Self { verdict: Verdict::Broken.as_str(), reason: Some(reason.to_owned()), ..self }
    }

    fn untried(hook: &'static Hook, reason: String) -> Self {
        Self {
            name: hook.name,
            purpose: hook.purpose,
            profile: hook.profile.as_str(),
            required: hook.required,
            verdict: UNTRIED,
            mechanism: None,
            target: None,
            reason: Some(reason),
            hits: None,
            without: hook.without,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_attached_names_its_target() {
        let hook = &HOOKS[0];
        let candidate = &hook.candidates[0];
        let attached = Attached {
            name: hook.name,
            program: Some(candidate.program),
            mechanism: Some(candidate.mechanism),
            verdict: Verdict::Ok,
            reason: None,
        };
        let row = HookRow::new(hook, &attached, Some(3));
        assert_eq!((row.verdict, row.target, row.hits), ("ok", Some(candidate.target), Some(3)));
        assert_eq!(row.reason, None);
        assert_eq!(row.unless_blind(true).verdict, "ok");
    }

    #[test]
    fn a_required_hook_that_sees_nothing_is_an_obstacle() {
        let required = HOOKS.iter().find(|hook| hook.required).unwrap();
        let silent = || HookRow { verdict: "ok", hits: Some(0), ..HookRow::untried(required, String::new()) };
        assert_eq!(obstacle(&[silent().unless_blind(false)]), None);
        let text = obstacle(&[silent().unless_blind(true)]).unwrap();
        assert!(text.contains(required.name) && text.contains("did not run"), "{text}");
    }

    #[test]
    fn a_kernel_without_types_leaves_every_hook_untried_and_says_why() {
        let reason = "no BTF".to_owned();
        let trial = Trial::run(Err(&reason), Err(&reason), &[]);
        assert_eq!(trial.obstacle.as_deref(), Some("no BTF"));
        assert!(trial.hooks.len() == HOOKS.len() && trial.hooks.iter().all(|hook| hook.verdict == UNTRIED));
        assert!(trial.members.is_err() && trial.exercise.leaf.is_err());
    }
}
