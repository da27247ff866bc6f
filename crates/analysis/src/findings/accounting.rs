//! Whether the kernel counts memory twice.

use super::because::{Answers, Because, Note, Open, Reason, Twice};
use super::case::{Case, Judgement};
use super::run::Run;
use super::{Evidence, Verdict};
use crate::signed::signed;
use spark_trace_recording::Recording;
use spark_trace_recording::verdict::Verdict as Health;

/// Counters are read one after the other: so much of what is in use may move between two of them.
const SLACK_PERCENT: i64 = 1;
const SLACK_BYTES: i64 = 32 << 20;
/// It decides where so much of the difference is attributed.
const ATTRIBUTED_PERCENT: i64 = 98;

/// Answers of cuMemGetInfo and MemFree are read at times a little apart.
const SAME_ANSWER_BYTES: i64 = 64 << 20;

/// How one test ended.
enum Tested {
    Holds(Twice),
    Fails,
    /// There is nothing that it could be tested with, and no reason to miss it.
    NotApplicable,
    /// With what the reader should know beside.
    FailsBut(Note),
    Unknown(Open),
}

type Test = fn(&Case<'_>, &mut Vec<Evidence>) -> Tested;

/// What each test is about, as a reader knows it.
const TESTS: &[(&str, Test)] = &[
    ("sum of the sources", sum),
    ("charges of the driver's pages", charges),
    ("memory in no source", unexplained),
    (ANSWERS, answers),
];

/// It needs a GPU's library that answered; the kernel's side of the claim does not.
const ANSWERS: &str = "answers of cuMemGetInfo";

pub fn double_counting(case: &Case<'_>) -> Judgement {
    let mut evidence = Vec::new();
    let (mut holds, mut notes, mut unknown, mut fails) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (name, test) in TESTS {
        match test(case, &mut evidence) {
            Tested::Holds(sign) => holds.push(sign),
            Tested::Fails => fails.push(*name),
            Tested::NotApplicable => {}
            Tested::FailsBut(note) => notes.push(note),
            Tested::Unknown(why) => unknown.push((*name, why)),
        }
    }
    if !holds.is_empty() {
        return Judgement::new(Verdict::Supported, Reason::CountedTwice(holds), evidence);
    }
    if let Some(place) = unknown.iter().position(|(name, _)| *name != ANSWERS) {
        let (test, why) = unknown.swap_remove(place);
        return Judgement::new(Verdict::Inconclusive, Reason::Undecided { test, why }, evidence);
    }
    let answers = match unknown.pop() {
        Some((_, why)) => Answers::NotCompared(why),
        None if fails.contains(&ANSWERS) => Answers::Same,
        None => Answers::NoGpu,
    };
    Judgement::new(Verdict::Refuted, Because { reason: Reason::CountedOnce(answers), notes }, evidence)
}

/// The sources add up to more than is in use.
fn sum(case: &Case<'_>, evidence: &mut Vec<Evidence>) -> Tested {
    let mut worst: Option<(i64, &'static str)> = None;
    for run in case.runs() {
        let (Some(used), Some(residual)) = (run.balance.expected, run.balance.residual) else {
            return Tested::Unknown(Open::NotRead(run.name()));
        };
        let used = signed(used);
        evidence.push(run.evidence(
            "in use (MemTotal - MemFree)",
            Some(used),
            "samples.system: meminfo.MemTotal -meminfo.MemFree",
        ));
        evidence.push(run.evidence(
            "of it unattributed; negative if the sources exceed it",
            Some(residual),
            "samples.system",
        ));
        let surplus = -residual - SLACK_BYTES.max(used / 100 * SLACK_PERCENT);
        if surplus > 0 {
            worst = worst.max(Some((surplus, run.name())));
        }
    }
    match worst {
        Some((bytes, run)) => Tested::Holds(Twice::Surplus { bytes, run }),
        None => Tested::Fails,
    }
}

/// Pages of the driver that no cgroup should be charged for are charged.
fn charges(case: &Case<'_>, evidence: &mut Vec<Evidence>) -> Tested {
    for run in case.runs() {
        let loaded = run.recording.host.nvidia.as_ref().is_some_and(|nvidia| nvidia.kernel_module.is_some());
        if !loaded {
            continue;
        }
        if let Some(unseen) = run.unseen("page-alloc") {
            return Tested::Unknown(Open::Unseen(unseen));
        }
        let seen = run.observed("nvidia-sysmem");
        let charged = signed(seen.charged);
        evidence.push(run.evidence(
            "system memory of the driver that a cgroup is charged for",
            Some(charged),
            "provenance.page_allocs",
        ));
        if charged > case.material {
            return Tested::Holds(Twice::DriverPagesCharged { bytes: charged, run: run.name() });
        }
    }
    Tested::Fails
}

/// MemFree has fallen by more than the sources have grown.
fn unexplained(case: &Case<'_>, evidence: &mut Vec<Evidence>) -> Tested {
    let (Some(delta), Some(residual)) = (case.delta, case.residual) else {
        return Tested::Unknown(Open::NoDifference);
    };
    let Some(b) = case.b() else { return Tested::Unknown(Open::NoReadings) };
    evidence.push(b.evidence("of the difference in use, unattributed", Some(residual), "samples.system"));
    let slack = case.material.max(delta.abs() / 100 * (100 - ATTRIBUTED_PERCENT));
    if residual.abs() <= slack {
        return Tested::Fails;
    }
    // Data in sockets has no counter on this plane, but kernel stacks.
    let seen = |run: &Run<'_>| match run.unseen("page-alloc") {
        None => signed(run.observed("sock").bytes()),
        Some(_) => 0,
    };
    let in_sockets = seen(b).saturating_sub(case.a.as_ref().map_or(0, seen));
    if in_sockets.abs() > slack && residual.saturating_sub(in_sockets).abs() <= slack {
        evidence.push(b.evidence(
            "of the difference, pages of socket buffers by kernel stacks",
            Some(in_sockets),
            "provenance.page_allocs",
        ));
        return Tested::FailsBut(Note::SocketBuffers(in_sockets));
    }
    // Of the run that has more in no source.
    let run = if residual > 0 { Some(b) } else { case.a.as_ref() };
    let passing = run.map_or(0, Run::passing);
    if let Some(run) = run.filter(|_| residual.abs() - passing <= slack) {
        evidence.push(run.evidence(
            "free again soon after, like free pages that the kernel reports to a hypervisor",
            Some(passing),
            "samples.system; host.page_reporting_bytes",
        ));
        return Tested::FailsBut(Note::Passing { bytes: passing, run: run.name() });
    }
    Tested::Unknown(Open::Unattributed(residual))
}

/// cuMemGetInfo answers something else than what is free, in one run only.
fn answers(case: &Case<'_>, evidence: &mut Vec<Evidence>) -> Tested {
    if !case.runs().any(|run| shares_memory(run.recording)) {
        return Tested::NotApplicable;
    }
    let mut differing = Vec::new();
    for run in case.runs() {
        let Some(gap) = answer_minus_free(run) else {
            return Tested::Unknown(Open::NoAnswer(run.name()));
        };
        evidence.push(run.evidence(
            "last cuMemGetInfo answer minus MemFree at that time",
            Some(gap),
            "provenance.queries",
        ));
        differing.push(gap.abs() > SAME_ANSWER_BYTES.max(case.material));
    }
    match differing[..] {
        [false, true] => Tested::Holds(Twice::AnswersDiffer { same: "A", other: "B" }),
        [true, false] => Tested::Holds(Twice::AnswersDiffer { same: "B", other: "A" }),
        [true, ..] => Tested::Unknown(Open::OtherValue),
        _ => Tested::Fails,
    }
}

/// A CUDA driver was used, on GPUs that have no memory of their own.
fn shares_memory(recording: &Recording) -> bool {
    let used = recording.provenance.queries.iter().any(|query| query.interface == "cuMemGetInfo_v2")
        || recording.health.libraries.iter().any(|library| library.verdict == Health::Ok);
    used && !recording.host.gpus.iter().any(|gpu| gpu.memory_total.is_some())
}

/// Of GPUs without memory of their own: what was answered minus what was free then.
fn answer_minus_free(run: &Run<'_>) -> Option<i64> {
    let host = &run.recording.host;
    if host.gpus.iter().any(|gpu| gpu.memory_total.is_some()) {
        return None;
    }
    let queries = run.derived.queries()?;
    let queries =
        queries.rows.iter().rev().find(|row| row.interface == "cuMemGetInfo_v2" && row.result == 0)?;
    let answered = i64::try_from(*queries.values.get("free")?).ok()?;
    let state = queries.state.as_ref()?;
    let free = i64::try_from(state.mem_free.unwrap_or(state.free)).ok()?;
    Some(answered - free)
}
