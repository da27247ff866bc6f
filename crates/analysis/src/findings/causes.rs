//! Claims that name one cause inside a larger one: their bytes are part of another row's, so they explain none of their
//! own.

use super::because::{LimitSeen, Note, Reason};
use super::case::{Case, Judgement};
use super::run::Run;
use super::{Evidence, Unit, Verdict};
use crate::limits::{self, Limit};
use crate::signed::signed;
use crate::stacks;
use crate::view::Scope;
use spark_trace_recording::Series;
use spark_trace_recording::classify::purpose::Purpose;
use spark_trace_recording::ledger;

/// Rows shown as evidence.
const MOST: usize = 5;
const STACKS_PLACE: &str = "provenance.page_allocs";

const UNMAPPED: &[&str] = &["anon-unmapped"];

/// What remains of huge pages of which parts were unmapped.
pub fn huge_page_rest(case: &Case<'_>) -> Judgement {
    const PARTLY: &str = "thp.anon_partially_mapped";
    const QUEUED: &str = "vmstat.thp_deferred_split_page";
    let mut evidence = case.rows_evidence(UNMAPPED);
    // Where a kernel does not count such pages, how many it has queued for splitting shows it.
    let mut huge = None;
    for run in case.runs() {
        let system = &run.recording.samples.system;
        if let Some(bytes) = nearest(system, PARTLY, run.at_ns) {
            huge = Some(huge.unwrap_or(false) || bytes > 0);
            evidence.push(run.evidence(
                "huge pages of the machine of which only parts are mapped, with their mapped parts",
                Some(bytes),
                "samples.system: thp.anon_partially_mapped",
            ));
        }
        if let Some(count) = run.grown(QUEUED) {
            huge = Some(huge.unwrap_or(false) || count > 0);
            let what = "huge pages of the machine that became partly mapped during the run";
            evidence.push(counted(run, what, count, QUEUED));
        }
    }
    let judged = case.by_bytes(case.delta_of(UNMAPPED), "memory that is in use and mapped nowhere", evidence);
    let judged = match (judged.verdict, huge, &judged.because.reason) {
        (Verdict::Supported, Some(false), &Reason::Changed(change)) => {
            Judgement { verdict: Verdict::Refuted, because: Reason::NoHugePage(change).into(), ..judged }
        }
        (Verdict::Supported, None, _) => {
            let mut judged = Judgement { verdict: Verdict::Inconclusive, ..judged };
            judged.because.notes.push(Note::HugePagesNotCounted);
            judged
        }
        _ => judged,
    };
    // It is memory of processes: that row has the bytes.
    Judgement { explains: None, ..judged }
}

/// The kernel takes pages of the target because its cgroup is at its limit.
pub fn limit(case: &Case<'_>) -> Judgement {
    let mut evidence = Vec::new();
    let mut judged: Vec<(Verdict, Reason)> = Vec::new();
    for run in case.runs() {
        if run.recording.samples.cgroups.is_empty() {
            return Judgement::untestable(Reason::CgroupNotRead);
        }
        let name = case.a.as_ref().map(|_| run.name());
        for limit in limits::rows(run.recording) {
            limit_evidence(run, &limit, &mut evidence);
            let files = read_again(run, case.material / 4);
            let (verdict, seen) = weigh_limit(&limit, &files, case.material);
            judged.push((verdict, Reason::Limit { bytes: limit.bytes, run: name, seen }));
            evidence.extend(files.into_iter().take(MOST).map(|(path, bytes)| {
                run.evidence(
                    format!("{path}: added to the page cache beyond its highest level there"),
                    Some(bytes),
                    "provenance.files",
                )
            }));
        }
    }
    // The worst that a run met.
    let rank = |verdict: Verdict| Verdict::ALL.iter().position(|other| *other == verdict);
    judged.sort_by_key(|(verdict, _)| rank(*verdict));
    match judged.into_iter().next() {
        Some((verdict, reason)) => Judgement::new(verdict, reason, evidence),
        None => Judgement::new(Verdict::Refuted, Reason::NoLimit, evidence),
    }
}

fn weigh_limit(limit: &Limit, files: &[(String, i64)], material: i64) -> (Verdict, LimitSeen) {
    let read_again = signed(limit.read_again.unwrap_or(0));
    let kills = limit.oom_kills.unwrap_or(0);
    let had_effect = read_again >= material || kills > 0;
    match limit.reached {
        None => {
            let verdict = if had_effect { Verdict::Inconclusive } else { Verdict::Refuted };
            (verdict, LimitSeen::Above { read_again })
        }
        Some(0) if limit.reached_by_its_end => (Verdict::Inconclusive, LimitSeen::AfterLastReading),
        Some(0) => (Verdict::Refuted, LimitSeen::NotReached),
        Some(times) => {
            let verdict = if had_effect { Verdict::Supported } else { Verdict::Inconclusive };
            let largest = files.first().map(|(path, _)| path.clone());
            (verdict, LimitSeen::Reached { times, kills, read_again, material, largest })
        }
    }
}

fn limit_evidence(run: &Run<'_>, limit: &Limit, evidence: &mut Vec<Evidence>) {
    let place = format!("samples.cgroups: {}", limit.file);
    evidence.push(run.evidence(format!("limit of {}", limit.cgroup), Some(signed(limit.bytes)), &place));
    if let Some(reached) = limit.reached {
        evidence.push(counted(run, "times that the limit was reached", signed(reached), "samples.cgroups"));
    }
    if let Some(kills) = limit.oom_kills.filter(|kills| *kills > 0) {
        let what = "processes that the kernel killed because memory had run out";
        evidence.push(counted(run, what, signed(kills), "samples.cgroups: events.oom_kill"));
    }
    if let Some(bytes) = limit.read_again {
        evidence.push(run.evidence(
            "of files read again in the target's cgroup after they had been reclaimed",
            Some(signed(bytes)),
            "samples.cgroups: stat.workingset_refault_file",
        ));
    }
}

/// Files whose pages came into the page cache more often than they can be there, by how many bytes more.
fn read_again(run: &Run<'_>, least: i64) -> Vec<(String, i64)> {
    let files = run.recording.provenance.files.iter().filter_map(|file| {
        let most = file.live.known().max()?.max(0);
        let again = signed(file.bytes_added).saturating_sub(most);
        Some((file.path.clone()?, again)).filter(|(_, again)| *again >= least)
    });
    let mut files: Vec<_> = files.collect();
    files.sort_by_key(|(_, again)| std::cmp::Reverse(*again));
    files
}

/// Data that waits in sockets.
pub fn sockets(case: &Case<'_>) -> Judgement {
    // What a cgroup of v1 is charged for TCP is counted apart from its memory (mm/memcontrol-v1.c
    // memcg1_charge_skmem).
    const CHARGED: &[&str] = &["stat.sock", "memory.kmem.tcp.usage_in_bytes"];
    const MACHINE: &[&str] = &["sockstat.TCP", "sockstat.UDP"];
    let by_counter = |run: &Run<'_>| -> Vec<(&'static str, i64)> {
        match run.view.scope {
            Scope::System => counters_grown(run, &[(&run.recording.samples.system, false)], MACHINE),
            Scope::Cgroup | Scope::Device => {
                let roots = run.view.roots.iter().map(|root| (root.series, root.created_ns().is_some()));
                counters_grown(run, &roots.collect::<Vec<_>>(), CHARGED)
            }
        }
    };
    let mut evidence = Vec::new();
    for run in case.runs() {
        for (column, bytes) in
            by_counter(run).into_iter().filter(|(_, bytes)| bytes.abs() >= case.material / 4)
        {
            evidence.push(run.evidence(
                "memory of socket buffers, growth since the start",
                Some(bytes),
                column,
            ));
        }
    }
    by_stacks(case, Purpose::Sockets, "socket buffers", evidence, |run| {
        // Counters and stacks are of the same pages.
        by_counter(run).into_iter().map(|(_, bytes)| bytes).reduce(i64::saturating_add)
    })
}

/// Names and inodes that the kernel keeps of files.
pub fn names(case: &Case<'_>) -> Judgement {
    const ENTRIES: &[(&str, &str)] = &[
        ("dentry.entries", "names of files added to the machine's cache since the start"),
        ("dentry.negative", "of those, names of files that do not exist"),
    ];
    let mut evidence = Vec::new();
    for run in case.runs() {
        for (column, what) in ENTRIES {
            let system = &run.recording.samples.system;
            if let Some((_, count)) = counters_grown(run, &[(system, false)], &[column]).first() {
                evidence.push(counted(run, *what, *count, column));
            }
        }
    }
    by_stacks(case, Purpose::Names, "cached names and inodes of files", evidence, |_| None)
}

/// Maps of eBPF programs.
pub fn bpf_maps(case: &Case<'_>) -> Judgement {
    by_stacks(case, Purpose::BpfMaps, "eBPF maps", vec![], |_| None)
}

/// The judgement of what kernel stacks hold for one purpose, or a counter of the same, whichever says more.
fn by_stacks(
    case: &Case<'_>,
    purpose: Purpose,
    what: &'static str,
    mut evidence: Vec<Evidence>,
    counter: impl Fn(&Run<'_>) -> Option<i64>,
) -> Judgement {
    let mut amounts = Vec::new();
    for run in case.runs() {
        let seen = run.unseen("page-alloc").is_none();
        let target_only = run.view.scope != Scope::System;
        let rows =
            if seen { stacks::for_purpose(run.recording, purpose, target_only, run.at_ns) } else { vec![] };
        let by_stacks = rows.iter().map(|(_, bytes)| *bytes).fold(0, u64::saturating_add);
        evidence.extend(
            rows.into_iter().take(MOST).filter(|(_, bytes)| signed(*bytes) >= case.material / 16).map(
                |(label, bytes)| {
                    run.evidence(
                        format!("{label}: in use by kernel stacks"),
                        Some(signed(bytes)),
                        STACKS_PLACE,
                    )
                },
            ),
        );
        let by_stacks = seen.then(|| signed(by_stacks));
        amounts.push(by_stacks.max(counter(run)));
    }
    let amount = match amounts[..] {
        [Some(a), Some(b)] => Some(b.saturating_sub(a)),
        [Some(of_one)] if case.a.is_none() => Some(of_one),
        _ => None,
    };
    // Kernel memory: that row has the bytes.
    Judgement { explains: None, ..case.by_bytes(amount, what, evidence) }
}

/// How far counters of a run had come at its instant since it began; of several cgroups together. A counter that was
/// not read is left out.
fn counters_grown(
    run: &Run<'_>,
    series: &[(&Series, bool)],
    columns: &[&'static str],
) -> Vec<(&'static str, i64)> {
    let grown = |column: &&'static str| {
        let of = series.iter().filter_map(|(series, created)| {
            let then = nearest(series, column, run.at_ns)?;
            // A cgroup that was created while tracing began at zero.
            let first = if *created { 0 } else { nearest(series, column, run.start.at_ns)? };
            Some(then.saturating_sub(first))
        });
        Some((*column, of.reduce(i64::saturating_add)?))
    };
    columns.iter().filter_map(grown).collect()
}

fn nearest(series: &Series, column: &str, at_ns: u64) -> Option<i64> {
    let value = series.columns.get(column)?.get(ledger::nearest(series, at_ns)?)?;
    i64::try_from(value).ok()
}

fn counted(run: &Run<'_>, what: impl Into<String>, count: i64, place: &str) -> Evidence {
    let mut evidence = run.evidence(what, Some(count), place);
    evidence.unit = Unit::Count;
    evidence
}
