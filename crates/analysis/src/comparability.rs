//! Whether two recordings may be compared: what differs besides what is meant to differ.

use std::collections::BTreeMap;

use serde::Serialize;
use spark_trace_common::hook::TRIGGERS;

use crate::attribution::gaps;
use crate::losses::{self, SkippedRuns};
use crate::process_env;
use crate::view::{Scope, View};
use spark_trace_recording::verdict::Verdict;
use spark_trace_recording::word::Word;
use spark_trace_recording::{Hook, Nvidia, Recording};

/// Start states may differ by this part of all memory...
const START_PERCENT: u64 = 2;
/// ...or by this much, whichever is more: machines are never quite at rest.
const START_BYTES: u64 = 256 << 20;
/// What of the start state decides what a run can find cached or free.
const START_COLUMNS: [&str; 3] = ["meminfo.MemFree", "meminfo.Cached", "meminfo.Dirty"];

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Comparable {
    /// There are no reasons against it.
    pub ok: bool,
    pub reasons: Vec<String>,
    /// Differences that are likely what the comparison is about.
    pub notes: Vec<String>,
}

/// A fact that two runs should share.
type Fact = (&'static str, fn(&Recording) -> String);

const FACTS: &[Fact] = &[
    ("kernel", |r| r.host.kernel.clone()),
    ("architecture", |r| r.host.arch.clone()),
    ("page size", |r| r.host.page_size.to_string()),
    ("number of CPUs", |r| r.host.cpus.to_string()),
    ("cgroup version", |r| r.host.cgroup_version.clone()),
    ("provenance", |r| r.host.provenance.clone()),
    ("profile", |r| r.tool.profile.clone()),
    ("GPUs", gpus),
    ("NVIDIA driver", |r| {
        let version = r.host.nvidia.as_ref().and_then(|nvidia| nvidia.driver_version.clone());
        version.unwrap_or_else(|| "none".to_owned())
    }),
];

const NOTES: &[Fact] = &[
    ("kind of target", |r| r.target.kind.to_string()),
    ("version of spark-trace", |r| r.tool.version.clone()),
    ("interval", |r| format!("{} ms", r.tool.interval_ns / 1_000_000)),
];

/// Names of the GPUs; a trace that found no NVML has none to name.
fn gpus(recording: &Recording) -> String {
    let names = recording.host.gpus.iter().map(|gpu| gpu.name.as_deref().unwrap_or("unnamed"));
    let names: Vec<_> = names.collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

/// Compares what surrounds two recordings.
pub fn comparable(a: &Recording, b: &Recording) -> Comparable {
    let mut reasons = differing(FACTS, a, b);
    reasons.extend(hooks(a, b));
    for (name, recording) in [("A", a), ("B", b)] {
        let entries = losses::entries(&recording.health);
        if entries > 0 {
            reasons.push(format!("{name} lost {entries} events or entries"));
        }
        if !recording.health.complete {
            reasons.push(format!("{name} is incomplete"));
        }
    }
    reasons.extend(start_state(a, b));
    let mut notes = differing(NOTES, a, b);
    for (name, recording) in [("A", a), ("B", b)] {
        for hook in &recording.health.hooks {
            let Some(missed) = SkippedRuns::of(hook) else { continue };
            let list = if missed.matters() { &mut reasons } else { &mut notes };
            list.push(format!("{missed} in {name}"));
        }
    }
    for (name, recording) in [("A", a), ("B", b)] {
        notes.extend(gaps::counted(&recording.health).map(|gap| format!("{name}: {gap}")));
    }
    notes.extend(stand_ins(a, b));
    notes.extend(process_env::differences(a, b));
    Comparable { ok: reasons.is_empty(), reasons, notes }
}

fn differing(facts: &[Fact], a: &Recording, b: &Recording) -> Vec<String> {
    let differences = facts.iter().map(|(name, fact)| (name, fact(a), fact(b))).filter(|(_, a, b)| a != b);
    differences.map(|(name, a, b)| format!("{name} differs: {a} in A, {b} in B")).collect()
}

/// Runs whose kernel modules are not NVIDIA's: no difference between two of them, but to be known.
fn stand_ins(a: &Recording, b: &Recording) -> impl Iterator<Item = String> {
    let stood_in = |recording: &Recording| recording.host.nvidia.as_ref().is_some_and(Nvidia::is_stand_in);
    let runs = [("A", stood_in(a)), ("B", stood_in(b))].into_iter().filter(|(_, stood_in)| *stood_in);
    runs.map(|(name, _)| {
        format!("{name} ran on a STAND-IN for NVIDIA's kernel modules: its nvidia-* rows are not those of a driver")
    })
}

/// A hook that worked in one run only leaves the other without its part of the provenance.
fn hooks(a: &Recording, b: &Recording) -> Vec<String> {
    let verdicts = |recording: &Recording| -> BTreeMap<String, (Word<Verdict>, bool)> {
        let hooks = recording.health.hooks.iter();
        hooks.map(|hook| (hook.name.clone(), (hook.verdict.clone(), has_missed_nothing(hook)))).collect()
    };
    let (a, b) = (verdicts(a), verdicts(b));
    let mut names: Vec<_> = a.keys().chain(b.keys()).collect();
    names.sort();
    names.dedup();
    let verdict = |verdicts: &BTreeMap<String, (Word<Verdict>, bool)>, name: &String| {
        verdicts.get(name).map_or_else(|| (Word::from("absent"), false), Clone::clone)
    };
    let differing = names.into_iter().map(|name| (name, verdict(&a, name), verdict(&b, name)));
    differing
        .filter(|(_, (a, all_of_a), (b, all_of_b))| a != b && !(*all_of_a && *all_of_b))
        .map(|(name, (a, _), (b, _))| format!("hook {name} differs: {a} in A, {b} in B"))
        .collect()
}

/// Whether all there was to see for a hook was seen. One that has nothing to see, or waits for something that has not
/// happened, misses nothing: what it does in the other run may be due to other programs of the machine.
fn has_missed_nothing(hook: &Hook) -> bool {
    match hook.verdict.known() {
        Some(Verdict::Ok | Verdict::NotApplicable) => true,
        Some(Verdict::Off) => TRIGGERS.iter().any(|(_, waits)| hook.reason.as_deref() == Some(*waits)),
        _ => false,
    }
}

/// What the runs found differently when they began.
pub fn start_state(a: &Recording, b: &Recording) -> Vec<String> {
    let total = a.host.memory_total.max(b.host.memory_total);
    let limit = (total / 100 * START_PERCENT).max(START_BYTES);
    let at_start = |recording: &Recording, column: &str| {
        View::new(recording, Scope::System)?;
        recording.samples.system.columns.get(column)?.first()
    };
    let differing = START_COLUMNS.into_iter().filter_map(|column| {
        let (a, b) = (at_start(a, column)?, at_start(b, column)?);
        (a.abs_diff(b) > limit).then(|| {
            let name = column.strip_prefix("meminfo.").unwrap_or(column);
            format!(
                "start state differs: {name} was {} MiB in A, {} MiB in B (more than {} MiB apart)",
                a >> 20,
                b >> 20,
                limit >> 20
            )
        })
    });
    differing.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use spark_trace_recording::{Gaps, Loss, STAND_IN};
    use spark_trace_testing as testing;
    use spark_trace_testing::MIB;

    const PAGES: &str = "page-alloc";

    #[test]
    fn times_without_readings_are_known_of_each_run() {
        let (a, mut b) = (testing::native(), testing::native());
        b.health.gaps = Some(Gaps { count: 2, longest_ns: 1_500_000_000, total_ns: 2_000_000_000 });
        let notes = comparable(&a, &b).notes;
        let [note] = notes.as_slice() else { panic!("{notes:?}") };
        assert!(note.starts_with("B: the memory levels were not read for 1.5 s at a time (2 gaps"), "{note}");
    }

    #[test]
    fn runs_on_the_same_machine_are_comparable() {
        let result = comparable(&testing::native(), &testing::container());
        assert_eq!((result.ok, result.reasons), (true, vec![]));
        assert_eq!(result.notes, ["kind of target differs: command in A, container in B"]);
    }

    #[test]
    fn every_difference_is_a_reason() {
        type Change = (&'static str, fn(&mut Recording));
        let changes: &[Change] = &[
            ("kernel differs", |r| r.host.kernel = "6.12".into()),
            ("architecture differs", |r| r.host.arch = "x86_64".into()),
            ("page size differs: 4096 in A, 65536 in B", |r| r.host.page_size = 65536),
            ("number of CPUs differs", |r| r.host.cpus = 8),
            ("cgroup version differs", |r| r.host.cgroup_version = "v1".into()),
            ("profile differs", |r| r.tool.profile = "deep".into()),
            ("B lost 7", |r| r.health.losses.push(Loss { what: "files".into(), count: 7 })),
            ("hook page-alloc missed 2000 of", |r| testing::hook(r, PAGES).lost = Some(2000)),
            ("B is incomplete", |r| r.health.complete = false),
            ("hook page-alloc differs: ok in A, broken in B", |r| {
                testing::hook(r, PAGES).verdict = "broken".into()
            }),
            ("hook page-alloc differs: ok in A, absent in B", |r| {
                r.health.hooks.retain(|hook| hook.name != PAGES)
            }),
        ];
        for (reason, change) in changes {
            let mut b = testing::container();
            change(&mut b);
            let result = comparable(&testing::container(), &b);
            assert!(!result.ok);
            assert!(
                result.reasons.len() == 1 && result.reasons[0].starts_with(reason),
                "{:?}",
                result.reasons
            );
        }
    }

    #[test]
    fn a_few_skipped_runs_are_a_note() {
        let mut b = testing::container();
        let hook = testing::hook(&mut b, PAGES);
        (hook.hits, hook.lost) = (Some(9_997), Some(3));
        b.health.losses.push(Loss { what: "skipped_runs".into(), count: 3 });
        b.health.lost_total = 3;
        let result = comparable(&testing::container(), &b);
        assert_eq!((result.ok, result.reasons), (true, vec![]));
        assert_eq!(result.notes, ["hook page-alloc missed 3 of 10000 events in B"]);
    }

    #[test]
    fn hooks_that_had_nothing_to_see_or_nothing_to_wait_for_differ_by_what_others_did() {
        let with = |verdict: &str, reason: &str| {
            let mut recording = testing::container();
            let hook = testing::hook(&mut recording, PAGES);
            (hook.verdict, hook.reason) = (verdict.into(), Some(reason.into()));
            comparable(&testing::container(), &recording).reasons
        };
        assert!(with("not-applicable", "no CUDA library").is_empty());
        assert!(with("off", TRIGGERS[0].1).is_empty());
        assert_eq!(with("off", "left out by --exclude-hook").len(), 1);
        assert_eq!(with("unsupported", "no tracepoint").len(), 1);
    }

    #[test]
    fn a_stand_in_is_named() {
        let mut b = testing::native();
        let nvidia = Nvidia { kernel_module: Some(STAND_IN.into()), simulated: true, ..Nvidia::default() };
        b.host.nvidia = Some(nvidia);
        let result = comparable(&testing::native(), &b);
        assert!(
            result.notes.iter().any(|note| note.starts_with("B ran on a STAND-IN")),
            "{:?}",
            result.notes
        );
        assert!(!result.notes.iter().any(|note| note.starts_with("A ran")));
    }

    #[test]
    fn start_states_may_differ_a_little() {
        let with_cached = |mib: u64| {
            let mut recording = testing::container();
            recording.samples.system.columns.get_mut("meminfo.Cached").unwrap().set(0, Some(mib * MIB));
            comparable(&testing::container(), &recording).reasons
        };
        // 2 % of 16 GiB are 327 MiB; the recording starts with 2048 MiB cached.
        assert!(with_cached(2048 + 320).is_empty());
        let reasons = with_cached(2048 - 330);
        assert!(
            reasons[0].starts_with("start state differs: Cached was 2048 MiB in A, 1718 MiB in B"),
            "{reasons:?}"
        );
    }
}
