//! What to do about a KV cache that is smaller than it could be: for each cause what the engine's row of the table has.

use spark_trace_engines::{Action, AdviceRow, Cause};
use spark_trace_recording::words;

use super::what_if::WhatIfKind;
use super::{Advice, Budget, WhatIf, reading};
use crate::paths;
use crate::signed::signed;

/// Less than this is not worth anybody's trouble, unless it is this part of the cache.
const WORTH_BYTES: u64 = 64 << 20;
const WORTH_PART: u64 = 100;
/// Files that have a command of their own.
const FILES: usize = 3;

words! {
    /// What a user can do that is no engine's own.
    pub enum Step {
        DropFile = "drop-file",
        ShareWorkspace = "share-workspace",
        CheckSharedMemory = "check-shared-memory",
        EmptyPools = "empty-pools",
    }
}

/// The largest gain first, as the rows of what-if are.
pub fn of(budget: &Budget) -> Vec<Advice> {
    let mut advice: Vec<Advice> = budget.what_if.iter().flat_map(|row| of_row(budget, row)).collect();
    advice.extend(page_cache_of_unknown(budget));
    advice.extend(negative_graphs(budget));
    advice.extend(watermark(budget));
    advice.extend(container_charge(budget));
    if counts_page_cache(budget) {
        advice.extend(drop_files(budget));
        advice.extend(one_workspace(budget));
    }
    advice.extend(shared(budget));
    advice
}

fn counts_page_cache(budget: &Budget) -> bool {
    budget.reading.signal == Some(reading::FREE)
}

/// Absent of what engines have no advice of their own about.
const fn cause(kind: WhatIfKind) -> Option<Cause> {
    Some(match kind {
        WhatIfKind::Pool => return None,
        WhatIfKind::Reclaimable => Cause::PageCache,
        WhatIfKind::Dirty => Cause::Dirty,
        WhatIfKind::Child => Cause::Compiler,
        WhatIfKind::Process | WhatIfKind::OutsideProcess | WhatIfKind::Outside => Cause::Others,
        WhatIfKind::Pinned => Cause::Pinned,
        WhatIfKind::Transient => Cause::Activations,
        WhatIfKind::Graphs => Cause::Graphs,
        WhatIfKind::Fraction => Cause::Fraction,
    })
}

/// Bytes of a cache that make advice worth anybody's trouble.
fn least(budget: &Budget) -> u64 {
    let cache = budget.figures.kv.and_then(|kv| u64::try_from(kv).ok()).unwrap_or(0);
    WORTH_BYTES.min(cache / WORTH_PART).max(1)
}

fn of_row(budget: &Budget, row: &WhatIf) -> Vec<Advice> {
    let Some(gains) = u64::try_from(row.delta).ok().filter(|gains| *gains >= least(budget)) else {
        return vec![];
    };
    let is_best = || {
        let mut fractions =
            budget.what_if.iter().filter(|row| row.kind == WhatIfKind::Fraction && row.delta > 0);
        fractions.next().is_some_and(|first| first.fraction == row.fraction)
    };
    if row.kind == WhatIfKind::Fraction && !is_best() {
        return vec![];
    }
    let Some(cause) = cause(row.kind) else { return vec![empty_pools(row, gains)] };
    let rows = of_cause(budget, cause);
    rows.map(|advice| Advice {
        cause: advice.cause.as_str(),
        action: advice.action.as_str(),
        subject: row.subject.clone(),
        bytes: row.bytes,
        flag: advice.flag.map(|flag| valued(flag, advice.action, row)),
        command: command(advice.action).map(ToOwned::to_owned),
        gains_bytes: Some(gains),
    })
    .collect()
}

fn empty_pools(row: &WhatIf, gains: u64) -> Advice {
    Advice {
        bytes: row.bytes,
        command: Some("sudo spark-trace reclaim --driver-pools --apply".to_owned()),
        gains_bytes: Some(gains),
        ..step(Step::EmptyPools, Cause::Others)
    }
}

/// What the engine's row has against a cause, in its version.
fn of_cause(budget: &Budget, cause: Cause) -> impl Iterator<Item = &'static AdviceRow> {
    let (variant, version) = (budget.engine.variant, budget.engine.version);
    let rows = budget.engine.row.into_iter().flat_map(|engine| engine.advice);
    rows.filter(move |advice| {
        advice.cause == cause
            && variant.is_none_or(|variant| advice.versions.overlaps(&variant.versions))
            && version.is_none_or(|version| advice.versions.contains(version))
    })
}

/// A cache that is too large by an estimate below zero is to be smaller: nothing is gained, but what is there is enough.
fn negative_graphs(budget: &Budget) -> Vec<Advice> {
    let Some(bytes) = budget.figures.graphs.filter(|bytes| *bytes < 0) else { return vec![] };
    let rows = of_cause(budget, Cause::Graphs).filter(|row| row.action == Action::DisableGraphEstimate);
    rows.map(|row| Advice {
        cause: row.cause.as_str(),
        action: row.action.as_str(),
        subject: None,
        bytes: Some(bytes.unsigned_abs()),
        flag: row.flag.map(ToOwned::to_owned),
        command: None,
        gains_bytes: None,
    })
    .collect()
}

/// The container's counter decides what stays loaded, not how large a cache is: nothing is gained that could be counted.
fn container_charge(budget: &Budget) -> Vec<Advice> {
    let figures = &budget.figures;
    let is_less = figures.container_free.is_some_and(|free| free < budget.reading.free);
    let Some(cached) = figures.container_cached.filter(|bytes| is_less && *bytes >= WORTH_BYTES) else {
        return vec![];
    };
    let rows = of_cause(budget, Cause::ContainerCharge);
    rows.map(|advice| Advice {
        cause: advice.cause.as_str(),
        action: advice.action.as_str(),
        subject: None,
        bytes: Some(cached),
        flag: advice.flag.map(ToOwned::to_owned),
        command: command(advice.action).map(ToOwned::to_owned),
        gains_bytes: None,
    })
    .collect()
}

/// A flag with the value that the gain is for.
fn valued(flag: &str, action: Action, row: &WhatIf) -> String {
    match (action, row.fraction) {
        (Action::RaiseFraction, Some(fraction)) => format!("{flag} {fraction}"),
        _ => flag.to_owned(),
    }
}

const DROP: &str = "sync; echo 3 | sudo tee /proc/sys/vm/drop_caches";

const fn command(action: Action) -> Option<&'static str> {
    match action {
        Action::DropPageCache => Some(DROP),
        Action::WriteBack => Some("sync"),
        _ => None,
    }
}

/// Of an engine that is not known: its signal is, and page cache counts against that.
fn page_cache_of_unknown(budget: &Budget) -> Option<Advice> {
    let applies =
        budget.engine.engine.is_none() && counts_page_cache(budget) && budget.reclaimable >= WORTH_BYTES;
    applies.then(|| Advice {
        cause: Cause::PageCache.as_str(),
        action: Action::DropPageCache.as_str(),
        subject: None,
        bytes: Some(budget.reclaimable),
        flag: None,
        command: Some(DROP.to_owned()),
        gains_bytes: None,
    })
}

/// The kernel keeps back what vm.min_free_kbytes says, times what it makes of it; only part of it is the user's choice.
fn watermark(budget: &Budget) -> Option<Advice> {
    /// Of the total: the kernel's own choice is far below.
    const MUCH_PERCENT: u64 = 3;
    let much = budget.reading.total? / 100 * MUCH_PERCENT;
    let reserve = budget.reserve.filter(|bytes| *bytes > much)?;
    let row = budget.engine.row?.advice.iter().find(|advice| advice.action == Action::LowerWatermark)?;
    Some(Advice {
        cause: row.cause.as_str(),
        action: row.action.as_str(),
        subject: None,
        bytes: Some(reserve),
        flag: None,
        command: Some("sysctl vm.min_free_kbytes vm.watermark_scale_factor".to_owned()),
        gains_bytes: None,
    })
}

fn step(step: Step, cause: Cause) -> Advice {
    Advice {
        cause: cause.as_str(),
        action: step.as_str(),
        subject: None,
        bytes: None,
        flag: None,
        command: None,
        gains_bytes: None,
    }
}

fn drop_files(budget: &Budget) -> Vec<Advice> {
    let size = |bytes: i64| u64::try_from(bytes).unwrap_or(0);
    let least = least(budget);
    let large = budget.files.iter().filter(|file| {
        size(file.bytes) >= WORTH_BYTES && file.costs.is_none_or(|bytes| size(bytes) >= least)
    });
    let advice = large.take(FILES).map(|file| Advice {
        subject: Some(file.path.clone()),
        bytes: Some(size(file.bytes)),
        command: file
            .opens_at
            .as_deref()
            .and_then(quoted)
            .map(|path| format!("sync {path}; dd if={path} iflag=nocache count=0 status=none")),
        gains_bytes: file.costs.map(size),
        ..step(Step::DropFile, Cause::PageCache)
    });
    advice.collect()
}

/// A path as one word of a shell; nothing for one that could not be typed.
fn quoted(path: &str) -> Option<String> {
    let typed = path.starts_with('/') && !path.chars().any(|c| c.is_control() || c == '\u{fffd}');
    typed.then(|| format!("'{}'", path.replace('\'', "'\\''")))
}

fn one_workspace(budget: &Budget) -> Option<Advice> {
    // Below a container engine's storage: the file dies with the container, and its pages with it.
    let inside = budget
        .files
        .iter()
        .filter(|file| file.opens_at.as_deref().is_some_and(|path| paths::inner(path) != path))
        .filter(|file| file.costs.is_none_or(|bytes| bytes > 0));
    let bytes: u64 = inside.filter_map(|file| u64::try_from(file.bytes).ok()).sum();
    (bytes >= WORTH_BYTES).then(|| Advice {
        bytes: Some(bytes),
        command: Some("docker run -v \"$PWD/workspace:/workspace\" ...".to_owned()),
        ..step(Step::ShareWorkspace, Cause::PageCache)
    })
}

/// Shared memory that is left behind lowers both of the system's signals.
fn shared(budget: &Budget) -> Option<Advice> {
    let of_system = matches!(budget.reading.signal, Some(reading::FREE | reading::AVAILABLE));
    let bytes = budget.used.iter().find(|row| row.source == "shmem").map(|row| row.bytes)?;
    let before = budget.changes.iter().find(|row| row.source == "shmem").map_or(0, |row| row.before);
    let costs = budget.worth().map(|worth| worth.of(signed(bytes), before));
    let is_known_to_be_little = costs.is_some_and(|costs| u64::try_from(costs).unwrap_or(0) < least(budget));
    (of_system && bytes >= WORTH_BYTES && !is_known_to_be_little).then(|| Advice {
        bytes: Some(bytes),
        command: Some("ls -la /dev/shm; ipcs -m".to_owned()),
        ..step(Step::CheckSharedMemory, Cause::Others)
    })
}
