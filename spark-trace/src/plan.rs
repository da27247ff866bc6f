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
    /// Candidates the user left out, as part of a reason.
    pub left_out: Vec<String>,
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
    /// Mechanisms to leave out, so that the next candidate is tried on a kernel that has them.
    pub without_mechanisms: Vec<Mechanism>,
}

impl From<Profile> for Choice {
    fn from(profile: Profile) -> Self {
        Self { profile, without: Vec::new(), without_mechanisms: Vec::new() }
    }
}

/// Plans all hooks.
pub fn plan(choice: &Choice, facts: &impl Facts) -> Vec<Step> {
    HOOKS.iter().map(|hook| step(hook, choice, facts)).collect()
}

fn step(hook: &'static Hook, choice: &Choice, facts: &impl Facts) -> Step {
    let profile = choice.profile;
    let nothing = |verdict, reason| Step {
        hook,
        candidates: Vec::new(),
        left_out: Vec::new(),
        verdict: Some((verdict, reason)),
        waits: None,
    };
    if choice.without.iter().any(|name| name == hook.name) {
        return nothing(Verdict::Off, "left out by --without-hook".to_owned());
    }
    if hook.profile > profile {
        return nothing(
            Verdict::Off,
            format!("profile {} leaves it out; --profile {} has it", profile.as_str(), hook.profile.as_str()),
        );
    }
    let is_left_out = |candidate: &&Candidate| choice.without_mechanisms.contains(&candidate.mechanism);
    let (left_out, wanted): (Vec<&Candidate>, Vec<&Candidate>) =
        hook.candidates.iter().partition(is_left_out);
    let left_out: Vec<_> =
        left_out.iter().map(|c| format!("{}: left out by --without-mechanism", name_of(c))).collect();
    if wanted.is_empty() {
        return nothing(Verdict::Off, left_out.join("; "));
    }
    let tried: Vec<_> = wanted.iter().map(|c| name_of(c)).collect();
    let candidates: Vec<_> = wanted.into_iter().filter(|c| possible(c, facts)).collect();
    if candidates.is_empty() {
        return nothing(Verdict::Unsupported, format!("this kernel has none of: {}", tried.join(", ")));
    }
    let trigger = hook.waits_for.filter(|_| profile < Profile::Deep);
    let waits = TRIGGERS.iter().copied().find(|(name, _)| trigger == Some(*name));
    Step { hook, candidates, left_out, verdict: None, waits }
}

/// What a candidate is called in reasons.
pub fn name_of(candidate: &Candidate) -> String {
    format!("{} {}", candidate.mechanism.as_str(), candidate.target).trim_end().to_owned()
}

fn possible(candidate: &Candidate, facts: &impl Facts) -> bool {
    match candidate.mechanism {
        Mechanism::TpBtf => facts.has_btf_tracepoint(candidate.target),
        // Whether the kernel can run it shows when it is run.
        Mechanism::OnDemand => true,
        // Every kernel we know has the one; whether it has the other shows when it is asked to attach.
        Mechanism::Uprobe | Mechanism::UprobeMulti => true,
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
    fn without_a_mechanism_the_next_candidate_is_left_and_the_reason_kept() {
        let without = |mechanisms: &[Mechanism]| {
            let choice = Choice { without_mechanisms: mechanisms.to_vec(), ..Profile::Default.into() };
            let mut steps = plan(&choice, &Kernel(&[]));
            steps.swap_remove(steps.iter().position(|s| s.hook.name == "library-call").unwrap())
        };
        let mechanisms = |step: &Step| step.candidates.iter().map(|c| c.mechanism).collect::<Vec<_>>();
        let (multi, single) = (Mechanism::UprobeMulti, Mechanism::Uprobe);
        assert_eq!(mechanisms(&without(&[])), [multi, single]);
        let step = without(&[multi]);
        assert_eq!(mechanisms(&step), [single]);
        assert_eq!(step.left_out, ["uprobe.multi: left out by --without-mechanism"]);
        let (verdict, reason) = without(&[multi, single]).verdict.unwrap();
        assert_eq!(verdict, Verdict::Off);
        assert!(reason.contains("uprobe.multi") && reason.contains("uprobe:"), "{reason}");
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
