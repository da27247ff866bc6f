//! Claims about what surrounds the runs: what was there before, what they were given, which answers they got.

use crate::signed::signed;
use std::collections::{BTreeMap, BTreeSet};

use super::because::Reason;
use super::case::{Case, Judgement};
use super::run::Run;
use super::{Evidence, Side, Unit, Verdict};
use crate::view::Scope;
use crate::{limits, process_env};
use spark_trace_recording::Recording;
use spark_trace_recording::TargetKind;
use spark_trace_recording::verdict::Verdict as Health;

const TMPFS_PLACE: &str = "provenance.tmpfs";
/// Rows shown as evidence.
const MOST: usize = 5;

/// Shared memory that was there when the run began, more in B than in A; of one run what it found.
pub fn left_behind(case: &Case<'_>) -> Option<i64> {
    // Of one run only growth is to be explained, and what it found has not grown. A cgroup is charged for what its own
    // processes took.
    if case.scope != Scope::System {
        return None;
    }
    case.a.as_ref()?;
    case.start_of("shmem")
}

pub fn leftovers(case: &Case<'_>) -> Judgement {
    let mut evidence = Vec::new();
    for run in case.runs() {
        let Some(found) = run.counter_at_start("meminfo.Shmem") else { continue };
        let place = "samples.system: meminfo.Shmem";
        evidence.push(run.evidence("shared memory and tmpfs files before the run began", Some(found), place));
        let started = run.recording.target.started_ns;
        let before = run.recording.provenance.tmpfs.iter().filter(|tmpfs| tmpfs.at_ns <= started);
        for tmpfs in before {
            let files = tmpfs.files.iter().filter(|file| signed(file.bytes) >= case.material / 4).take(MOST);
            evidence.extend(files.map(|file| {
                run.evidence(
                    format!("{}: there before the run began", file.path),
                    Some(signed(file.bytes)),
                    TMPFS_PLACE,
                )
            }));
        }
    }
    match (&case.a, left_behind(case)) {
        (Some(_), left) => case.weigh(left, "shared memory from before the run", evidence),
        (None, _) => {
            // Of one run: it found something, which is in its level and not in its growth.
            let found = case.b().and_then(|b| b.counter_at_start("meminfo.Shmem")).unwrap_or(0);
            let (verdict, reason) = match found >= case.material {
                true => (Verdict::Inconclusive, Reason::FoundBefore(found)),
                false => (Verdict::Refuted, Reason::FoundLittleBefore(found)),
            };
            Judgement::new(verdict, reason, evidence)
        }
    }
}

pub fn environment(case: &Case<'_>) -> Judgement {
    let (Some(a), Some(b)) = (&case.a, case.b()) else {
        return Judgement::untestable(Reason::NeedsTwoRuns);
    };
    let mut differences = libraries(a, b);
    let both = process_env::principal(a.recording).zip(process_env::principal(b.recording));
    differences.extend(process_env::differences(a.recording, b.recording));
    let seen_libraries = [a, b].iter().all(|run| !run.recording.health.libraries.is_empty());
    let evidence = differences.iter().map(|text| Evidence {
        what: text.clone(),
        value: None,
        unit: Unit::None,
        side: Side::Both,
        place: "health.libraries, provenance.contexts".to_owned(),
    });
    let evidence: Vec<_> = evidence.collect();
    let (verdict, reason) = match (&differences[..], both.is_some(), seen_libraries) {
        ([], true, _) => (Verdict::Refuted, Reason::SameEnvironment),
        ([], false, true) => (Verdict::Inconclusive, Reason::SameLibraries),
        ([], false, false) => return Judgement::untestable(Reason::EnvironmentNotRecorded),
        ([one], ..) => (Verdict::Supported, Reason::OneDifference(one.clone())),
        (many, ..) => (Verdict::Supported, Reason::Differences(many.len())),
    };
    Judgement::new(verdict, reason, evidence)
}

/// The CUDA libraries that only one of the runs used, distinguished by build id, else by path.
fn libraries(a: &Run<'_>, b: &Run<'_>) -> Vec<String> {
    let of = |recording: &Recording| -> BTreeMap<String, BTreeSet<String>> {
        let mut by_name: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        // What is on the host and was never mapped was used by nobody.
        let used = recording.health.libraries.iter().filter(|library| library.verdict == Health::Ok);
        for library in used {
            let id = match &library.build_id {
                Some(id) => format!("{} (build id {})", library.path, id.get(..12).unwrap_or(id)),
                None => format!("{} (inode {} of {})", library.path, library.inode, library.device),
            };
            by_name.entry(library.library.clone()).or_default().insert(id);
        }
        by_name
    };
    let (a, b) = (of(a.recording), of(b.recording));
    let list = |set: Option<&BTreeSet<String>>| {
        set.map_or_else(|| "none".to_owned(), |set| set.iter().cloned().collect::<Vec<_>>().join(", "))
    };
    let names: BTreeSet<_> = a.keys().chain(b.keys()).collect();
    let differing = names.into_iter().filter(|name| a.get(*name) != b.get(*name));
    differing.map(|name| format!("{name}: {} in A, {} in B", list(a.get(name)), list(b.get(name)))).collect()
}

/// Files of a cgroup that hold a limit.
const LIMITS: &[&str] = &["memory.max", "memory.high", "memory.limit_in_bytes"];

pub fn memory_limit(case: &Case<'_>) -> Judgement {
    let mut evidence = Vec::new();
    let mut limited = false;
    for run in case.runs() {
        let total = run.recording.host.memory_total;
        let Some(queries) = run.derived.queries() else { continue };
        let reads = queries.summaries.iter().filter(|row| LIMITS.contains(&row.interface.as_str()));
        for read in reads {
            let value = read.last.as_ref().and_then(|answer| answer.values.get("bytes")).copied();
            let below = value.is_some_and(|value| value < total);
            limited |= below;
            let found = if below { "a limit" } else { "no limit" };
            evidence.push(run.evidence(
                format!(
                    "{} in {}: {found}, read by {}",
                    read.interface,
                    text(read.directory.as_deref()),
                    read.processes.join(", ")
                ),
                value.filter(|_| below).map(signed),
                "provenance.queries",
            ));
        }
    }
    let (verdict, reason) = match (limited, evidence.is_empty()) {
        (true, _) => (Verdict::Supported, Reason::LimitRead),
        (false, true) => (Verdict::Refuted, Reason::NoLimitRead),
        (false, false) => (Verdict::Refuted, Reason::NoLimitBelowMemory),
    };
    Judgement::new(verdict, reason, evidence)
}

fn text(value: Option<&str>) -> &str {
    value.unwrap_or("?")
}

pub fn reclaim(case: &Case<'_>) -> Judgement {
    // These leave out what is reclaimed because a cgroup is at its limit (mm/vmscan.c shrink_inactive_list).
    const MACHINE: &[(&str, &str)] = &[
        ("vmstat.pgsteal_kswapd", "reclaimed in the background"),
        ("vmstat.pgsteal_direct", "reclaimed by processes that waited for it"),
        ("vmstat.pswpout", "swapped out"),
    ];
    // This has them all (mm/workingset.c workingset_refault counts on the node).
    const READ_AGAIN: &str = "vmstat.workingset_refault_file";
    let mut evidence = Vec::new();
    let (mut most, mut known) = (0, false);
    for run in case.runs() {
        let page = signed(run.recording.host.page_size);
        let amounts = MACHINE.iter().map(|(column, what)| (*column, *what, run.grown(column)));
        let limits = limits::rows(run.recording);
        let at_limit = limits.iter().filter(|limit| limit.reached != Some(0));
        let of_limits: i64 = at_limit.filter_map(|limit| limit.read_again).map(signed).sum();
        let others = run.grown(READ_AGAIN).map(|pages| (pages - of_limits / page).max(0));
        let others =
            (READ_AGAIN, "read again after being reclaimed, not because of the target's limit", others);
        for (column, what, pages) in amounts.chain([others]) {
            let Some(pages) = pages else { continue };
            known = true;
            let amount = pages.saturating_mul(page);
            most = most.max(amount);
            if amount > 0 {
                evidence.push(run.evidence(format!("{what} during the run"), Some(amount), column));
            }
        }
    }
    if !known {
        return Judgement::untestable(Reason::ReclaimNotRead);
    }
    let (verdict, reason) = if most >= case.material {
        (Verdict::Supported, Reason::Reclaimed(most))
    } else {
        (Verdict::Refuted, Reason::HardlyReclaimed(most))
    };
    Judgement::new(verdict, reason, evidence)
}

pub fn pin_leak(case: &Case<'_>) -> Judgement {
    const ACQUIRED: &str = "vmstat.nr_foll_pin_acquired";
    const RELEASED: &str = "vmstat.nr_foll_pin_released";
    let mut evidence = Vec::new();
    let mut most: Option<i64> = None;
    for run in case.runs() {
        let page = signed(run.recording.host.page_size);
        let Some((acquired, released)) = run.grown(ACQUIRED).zip(run.grown(RELEASED)) else { continue };
        let kept = (acquired - released).saturating_mul(page);
        most = most.max(Some(kept));
        evidence.push(run.evidence(
            "pinned during the run and not released by its end",
            Some(kept),
            ACQUIRED,
        ));
    }
    let Some(most) = most else {
        return Judgement::untestable(Reason::PinsNotCounted);
    };
    // Pins of a target that goes on, or of others, are no leak.
    let goes_on = case.runs().any(|run| {
        matches!(
            run.recording.target.kind.known(),
            Some(TargetKind::Pid | TargetKind::Cgroup | TargetKind::System)
        )
    });
    let (verdict, reason) = match (most >= case.material, goes_on) {
        (false, _) => (Verdict::Refuted, Reason::PinsReleased(most.max(0))),
        (true, false) => (Verdict::Supported, Reason::PinsLeft(most)),
        (true, true) => (Verdict::Inconclusive, Reason::PinsOfRunningTarget(most)),
    };
    Judgement::new(verdict, reason, evidence)
}
