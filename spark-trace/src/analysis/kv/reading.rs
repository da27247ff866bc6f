//! Which of many answers sized the KV cache.

use crate::analysis::kv::Reading;
use crate::analysis::log;
use crate::analysis::queries::{self, QueryRow};
use crate::recording::Recording;

/// What a framework may take for the memory that is free, and the figures of its answer; the first that anybody asked
/// counts.
const READERS: &[(&str, &str, &str)] = &[
    ("cuMemGetInfo_v2", "free", "total"),
    ("sysinfo", "freeram", "totalram"),
    ("/proc/meminfo", "MemAvailable", "MemTotal"),
];

/// The answer and the kernel's figure are read at times a little apart.
const SAME_BYTES: u64 = 64 << 20;
/// An answer that sized a cache is followed by at least this part of what was free.
const FOLLOWED_PERCENT: u64 = 5;

/// What an answer agrees with that no page cache counts against.
pub const GPU_MEMORY: &str = "the GPU's own memory";
/// Column of the target's device memory.
pub const DEVICE: &str = "live.device-all";

/// `budget_ns` is when the framework wrote its budget; looked up in the recording's own lines where not given.
pub fn of(recording: &Recording, budget_ns: Option<u64>) -> Option<Reading> {
    let queries = queries::report(recording)?;
    let reader = READERS.iter().find(|(asked, free, _)| {
        queries
            .rows
            .iter()
            .any(|row| row.asked == *asked && row.result == 0 && row.values.contains_key(*free))
    })?;
    let (asked, free, total) = *reader;
    let answers: Vec<&QueryRow> = queries
        .rows
        .iter()
        .filter(|row| row.asked == asked && row.result == 0 && row.values.contains_key(free))
        .collect();
    let budget_ns = budget_ns.or_else(|| logged_ns(recording));
    let before_log =
        budget_ns.and_then(|written_ns| answers.iter().rev().find(|row| row.at_ns <= written_ns).copied());
    let (query, found_by) = match before_log {
        Some(query) => (query, "log"),
        None => (followed_by_most(recording, &answers, free)?, "allocations"),
    };
    let free = *query.values.get(free)?;
    Some(Reading {
        at_ns: query.at_ns,
        since_start_ns: query.at_ns.saturating_sub(recording.target.started_ns),
        free,
        total: query.values.get(total).copied(),
        found_by,
        signal: signal(recording, query, free),
        query: query.clone(),
    })
}

/// When the framework wrote its budget for the last time.
fn logged_ns(recording: &Recording) -> Option<u64> {
    let lines = recording.provenance.log_lines.iter().rev();
    let budget = lines.filter(|line| log::is_budget(&line.text)).map(|line| line.at_ns);
    budget.into_iter().next()
}

/// The last answer that was followed by a growth of device memory worth a part of what it said is free; where none
/// was, the last.
fn followed_by_most<'a>(recording: &Recording, answers: &[&'a QueryRow], free: &str) -> Option<&'a QueryRow> {
    let growth = |index: usize| {
        let from = answers.get(index)?.at_ns;
        let to = answers.get(index + 1).map_or(u64::MAX, |next| next.at_ns);
        Some(highest(recording, from, to)?.saturating_sub(live_at(recording, answers.get(index)?)?))
    };
    let sized = (0..answers.len()).rev().find(|&index| {
        let told = answers.get(index).and_then(|row| row.values.get(free)).copied().unwrap_or(u64::MAX);
        growth(index).is_some_and(|growth| growth > 0 && growth >= told / 100 * FOLLOWED_PERCENT)
    });
    answers.get(sized.unwrap_or(answers.len().checked_sub(1)?)).copied()
}

/// Device memory of the target at an answer.
pub fn live_at(recording: &Recording, query: &QueryRow) -> Option<u64> {
    let told = query.state.as_ref().and_then(|state| state.later.as_ref());
    let kinds = ["device", "async", "physical"];
    match told {
        Some(later) => Some(kinds.iter().filter_map(|kind| later.cuda_live.get(*kind)).sum()),
        None => highest(recording, 0, query.at_ns),
    }
}

/// Most device memory that readings between two times show.
pub fn highest(recording: &Recording, from_ns: u64, to_ns: u64) -> Option<u64> {
    let series = &recording.samples.cuda;
    let column = series.columns.get(DEVICE)?;
    let readings = series.begin_ns.iter().zip(column.iter());
    readings.filter(|(at_ns, _)| (from_ns..=to_ns).contains(at_ns)).filter_map(|(_, live)| live).max()
}

/// Which figure of the kernel's, or the GPU's, the answer is.
fn signal(recording: &Recording, query: &QueryRow, free: u64) -> Option<&'static str> {
    if query.asked == "/proc/meminfo" {
        return Some("MemAvailable");
    }
    if recording.host.gpus.iter().any(|gpu| gpu.memory_total.is_some()) && query.asked != "sysinfo" {
        return Some(GPU_MEMORY);
    }
    let state = query.state.as_ref()?;
    let later = state.later.as_ref();
    let figures = [
        ("MemFree", state.mem_free.or(Some(state.free))),
        ("MemAvailable", later.and_then(|later| later.mem_available)),
    ];
    let near = figures.into_iter().filter_map(|(name, value)| Some((name, value?.abs_diff(free))));
    near.filter(|(_, gap)| *gap <= SAME_BYTES).min_by_key(|(_, gap)| *gap).map(|(name, _)| name)
}
