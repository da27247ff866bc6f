//! What became of each hook of [`HOOKS`] in the profile `default`, in the words that a trace has for it.

use spark_trace_common::hook::{HOOKS, Hook as Row, Profile, TRIGGERS};
use spark_trace_recording::{Hook, verdict::Verdict};

/// The target maps no CUDA driver, and NVIDIA's module lacks the functions that hooks attach to.
pub(super) fn without_cuda() -> Vec<Hook> {
    HOOKS.iter().map(|row| of(row, nothing_of_cuda(row))).collect()
}

/// Everything that the profile has is attached.
pub(super) fn with_cuda() -> Vec<Hook> {
    HOOKS.iter().map(|row| of(row, None)).collect()
}

fn nothing_of_cuda(row: &Row) -> Option<(Verdict, String)> {
    if row.module.is_some() {
        let target = row.candidates[0].target;
        return Some((Verdict::Unsupported, format!("kprobe {target}: this kernel has no such function")));
    }
    if let Some(waits) = row.waits_for {
        let (_, reason) = TRIGGERS.iter().find(|(name, _)| *name == waits).unwrap();
        return Some((Verdict::Off, (*reason).to_owned()));
    }
    let of_files = row.candidates.iter().all(|candidate| candidate.mechanism.is_of_files());
    of_files.then(|| (Verdict::NotApplicable, "no CUDA driver or NVML library was found".to_owned()))
}

fn of(row: &Row, not_attached: Option<(Verdict, String)>) -> Hook {
    let by_profile = (row.profile > Profile::Default)
        .then(|| (Verdict::Off, format!("not in profile default; use --profile {}", row.profile.as_str())));
    // What waits, for its trigger or for a library, is loaded by a mechanism.
    let loaded = by_profile.is_none()
        && not_attached.as_ref().is_none_or(|(verdict, _)| *verdict != Verdict::Unsupported);
    let outcome = by_profile.or(not_attached);
    let counted = outcome.is_none();
    let (verdict, reason) = outcome.map_or((Verdict::Ok, None), |(verdict, reason)| (verdict, Some(reason)));
    Hook {
        name: row.name.to_owned(),
        mechanism: loaded.then(|| row.candidates[0].mechanism.as_str().into()),
        verdict: verdict.into(),
        reason,
        hits: counted.then_some(1_000),
        lost: counted.then_some(0),
        ..Hook::default()
    }
}
