//! Which hook by which mechanism: facts about the kernel in, a plan out. Pure.

use spark_trace_common::hook::{Candidate, HOOKS, Hook, Mechanism, Profile, TRIGGERS};

use crate::health::Verdict;

/// What the planner needs to know of a kernel.
pub trait Facts {
    /// BTF-typed programs can attach to this tracepoint.
    fn has_btf_tracepoint(&self, name: &str) -> bool;
}

/// What to do about one hook.
#[derive(Debug, Clone)]
pub struct Step {
    pub hook: &'static Hook,
    /// Candidates this kernel should be able to carry, best first; empty where there are none.
    pub candidates: Vec<&'static Candidate>,
    /// Verdict where there is nothing to attach, with its reason.
    pub verdict: Option<(Verdict, String)>,
    /// The trigger that it is attached by, and what is told until then; none where it is attached at once.
    pub waits: Option<(&'static str, &'static str)>,
}

/// What the user chose.
#[derive(Debug, Clone)]
pub struct Choice {
    pub profile: Profile,
    /// Names of hooks to leave out.
    pub without: Vec<String>,
}

impl From<Profile> for Choice {
    fn from(profile: Profile) -> Self {
        Self { profile, without: Vec::new() }
    }
}

/// Plans all hooks.
pub fn plan(choice: &Choice, facts: &impl Facts) -> Vec<Step> {
    HOOKS.iter().map(|hook| step(hook, choice, facts)).collect()
}

fn step(hook: &'static Hook, choice: &Choice, facts: &impl Facts) -> Step {
    let profile = choice.profile;
    if choice.without.iter().any(|name| name == hook.name) {
        let reason = "left out by --without-hook".to_owned();
        return Step { hook, candidates: Vec::new(), verdict: Some((Verdict::Off, reason)), waits: None };
    }
    if hook.profile > profile {
        let reason =
            format!("profile {} leaves it out; --profile {} has it", profile.as_str(), hook.profile.as_str());
        return Step { hook, candidates: Vec::new(), verdict: Some((Verdict::Off, reason)), waits: None };
    }
    let candidates: Vec<_> = hook.candidates.iter().filter(|c| possible(c, facts)).collect();
    let verdict = candidates.is_empty().then(|| {
        let tried: Vec<_> =
            hook.candidates.iter().map(|c| format!("{} {}", c.mechanism.as_str(), c.target)).collect();
        (Verdict::Unsupported, format!("this kernel has none of: {}", tried.join(", ")))
    });
    let trigger = hook.waits_for.filter(|_| profile < Profile::Deep);
    let waits = TRIGGERS.iter().copied().find(|(name, _)| trigger == Some(*name));
    Step { hook, candidates, verdict, waits }
}

fn possible(candidate: &Candidate, facts: &impl Facts) -> bool {
    match candidate.mechanism {
        Mechanism::TpBtf => facts.has_btf_tracepoint(candidate.target),
        // Whether the kernel can run it shows when it is run.
        Mechanism::OnDemand => true,
        // Every kernel we know has them; what there is to attach to shows when a library is found.
        Mechanism::Uprobe => true,
        // No row of HOOKS has these yet.
        Mechanism::RawTp | Mechanism::Tracepoint | Mechanism::Fentry | Mechanism::Kprobe => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Kernel(&'static [&'static str]);

    impl Facts for Kernel {
        fn has_btf_tracepoint(&self, name: &str) -> bool {
            !self.0.contains(&name)
        }
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
        let choice = Choice { without: vec!["file-remove".to_owned()], ..Profile::Default.into() };
        let steps = plan(&choice, &Kernel(&[]));
        assert_eq!(verdict_of(&steps, "file-remove"), Some(Verdict::Off));
        assert_eq!(verdict_of(&steps, "file-add"), None);
    }

    #[test]
    fn what_a_kernel_lacks_is_unsupported_with_the_reason() {
        let steps = plan(&Profile::Deep.into(), &Kernel(&["mod_memcg_state"]));
        let step = steps.iter().find(|s| s.hook.name == "charge").unwrap();
        let (verdict, reason) = step.verdict.as_ref().unwrap();
        assert_eq!(*verdict, Verdict::Unsupported);
        assert!(reason.contains("tp_btf mod_memcg_state"), "{reason}");
    }
}
