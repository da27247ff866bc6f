//! The budget of one run, put together.

use spark_trace_common::source::Reclaimable;
use spark_trace_engines::{EngineLog, Figure, Formula, parse_text};
use spark_trace_recording::Recording;
use spark_trace_recording::ledger::Balance;

use super::arithmetic::{self, Inputs, Worth};
use super::changes::{self, Moment};
use super::identity::{self, Identity};
use super::outside;
use super::own;
use super::reading::{self, Found};
use super::what_if::Otherwise;
use super::{Budget, CachedFile, Failure, Figures, Note, Options, Reading, Run, Used, WhatIf, figures};
use crate::attribution::gaps;
use crate::containers;
use crate::files::{self, FileRow};

/// Files that are listed.
const FILES: usize = 10;

/// `log` is the text of a log beside the recording; the recording's own lines count where there is none.
pub fn of(run: Run<'_>, log: Option<&str>, options: Options<'_>) -> Option<Budget> {
    let Run { recording, log: own, queries } = run;
    let beside = log.map(parse_text);
    // Times are of the recording's own lines alone.
    let timed = identity::of(recording, own, options.engine);
    let log = beside.as_ref().unwrap_or(own);
    let identity = if beside.is_some() { identity::of(recording, log, options.engine) } else { timed };
    let found = reading::of(recording, queries?, &identity, own)?;
    let mut identity = identity.with_candidates(found.reading.signal);
    identity.formula = figures::formula(recording, &identity);
    let mut figures = figures::of(recording, &identity, &found, log, options.fraction);
    let at = Moment::new(recording, &found.reading);
    let before = found.baseline.as_ref().map(|reading| Moment::new(recording, reading));
    let shared = found.reading.signal != Some(reading::GPU_MEMORY);
    let balance = at.state.balance.as_ref();
    // On a GPU with memory of its own, what the kernel could reclaim is no memory for the cache.
    let reclaimable = if shared { balance.map_or(0, given_up) } else { 0 };
    let inputs = figures::inputs(&figures, &found.reading, found.baseline.as_ref());
    let worth = identity.formula.and_then(|formula| arithmetic::worth(formula, &inputs));
    let mut processes = changes::processes(recording, before.as_ref(), &at, worth.filter(|_| shared));
    processes.retain(|process| process.at.max(process.before.unwrap_or(0)) >= WORTH_NAMING);
    let what_if = otherwise(&identity, &figures, inputs, before.as_ref(), &at, &processes);
    let failure = failure(recording, log, beside.is_some());
    if failure.is_some() && found.reading.found_by == "failure" {
        // It ended before it had a reading to compute from.
        figures.kv_taken = None;
    }
    let later = found.reading.query.state.as_ref().and_then(|state| state.later.as_ref());
    let available = at.state.counter(reading::AVAILABLE).filter(|_| at.is_available());
    let notes = notes(recording, &identity, &found, &figures, log, beside.is_some());
    Some(Budget {
        used: balance.map(|balance| used(balance, found.reading.signal)).unwrap_or_default(),
        used_total: balance.and_then(|balance| balance.expected),
        reserve: at.state.reserve().filter(|_| at.is_available()),
        reclaimable,
        available: available.or(later.and_then(|later| later.mem_available)),
        changes: before.as_ref().map(|before| changes::between(recording, before, &at)).unwrap_or_default(),
        processes,
        outside: outside::processes(recording),
        what_if,
        agreement: figures::agreement(&figures),
        files: cached(recording, &found, worth.filter(|_| found.reading.signal == Some(reading::FREE))),
        failure,
        containers: figures
            .allocated
            .map_or_else(Vec::new, |live| containers::with(recording, found.reading.at_ns, live)),
        figures,
        engine: identity,
        reading: found.reading.clone(),
        baseline: found.baseline.clone(),
        notes,
    })
}

/// A process that has no more is not named.
const WORTH_NAMING: u64 = 1 << 20;

fn used(balance: &Balance, signal: Option<&str>) -> Vec<Used> {
    let rows =
        balance.rows.iter().filter_map(|row| Some((row.source, row.bytes.filter(|bytes| *bytes > 0)?)));
    let mut used: Vec<_> = rows
        .map(|(source, bytes)| Used {
            source: source.slug,
            title: source.title,
            bytes,
            reclaimable: source.reclaimable.as_str(),
            lowers: changes::lowers(source.slug, signal),
        })
        .collect();
    used.sort_by_key(|row| std::cmp::Reverse(row.bytes));
    used
}

/// What the kernel would have given up.
fn given_up(balance: &Balance) -> u64 {
    let rows = balance.rows.iter().filter(|row| row.source.reclaimable == Reclaimable::Yes);
    rows.filter_map(|row| row.bytes).fold(0, u64::saturating_add)
}

fn otherwise(
    identity: &Identity,
    figures: &Figures,
    inputs: Inputs,
    before: Option<&Moment<'_>>,
    at: &Moment<'_>,
    processes: &[super::ProcessUse],
) -> Vec<WhatIf> {
    let known = || {
        let formula = identity.formula?;
        let worth = arithmetic::worth(formula, &inputs)?;
        Some(Otherwise { formula, inputs, worth, kv: figures.kv?, before, at, processes }.rows())
    };
    known().unwrap_or_default()
}

fn failure(recording: &Recording, log: &EngineLog, beside: bool) -> Option<Failure> {
    let failure = log.failures.first()?;
    let figure = |wanted: Figure| {
        let found = failure.figures.iter().find(|(figure, _)| *figure == wanted);
        found.and_then(|(_, value)| value.whole())
    };
    let line = recording.provenance.log_lines.get(failure.line).filter(|_| !beside);
    Some(Failure {
        check: failure.check,
        line: line.map(|line| line.text.clone()).unwrap_or_default(),
        free: figure(Figure::FreeAfterProfiling)
            .or(figure(Figure::KvBudget))
            .or(figure(Figure::FreeBaseline)),
        needed: figure(Figure::Requested).or(figure(Figure::KvNeeded)),
    })
}

fn notes(
    recording: &Recording,
    identity: &Identity,
    found: &Found,
    figures: &Figures,
    log: &EngineLog,
    beside: bool,
) -> Vec<Note> {
    let unknown = *log == EngineLog::default();
    let two = identity.variant.is_some_and(|variant| variant.readings.len() > 1);
    let needs_two = two && identity.formula.is_some_and(arithmetic::needs_baseline);
    let not_limited = figures.context.is_some() && figures.kv == figures.context;
    let fits = figures::inputs(figures, &found.reading, None).whole_context_fits();
    let on_host = identity.formula == Some(Formula::FitLayersWithinFree) && fits == Some(false);
    let rows = [
        (Note::OwnMemory, found.reading.signal == Some(reading::GPU_MEMORY)),
        (Note::NoLog, unknown && !beside && recording.provenance.log_lines.is_empty()),
        (Note::LogWithoutLines, unknown && beside),
        (Note::UnknownEngine, identity.engine.is_none()),
        (Note::UnknownVersion, identity.version_open),
        (Note::NoBaseline, needs_two && found.baseline.is_none()),
        (Note::OneOfSeveral, own::at(&found.reading.query).is_some() && own::processes(recording).len() > 1),
        (Note::OneOfSeveralGpus, own::gpus(recording, found.reading.query.pid).len() > 1),
        (Note::FractionFromAllocations, figures.fraction_from == Some("allocations")),
        (Note::NegativeGraphs, figures.graphs.is_some_and(|bytes| bytes < 0)),
        (Note::NotLimited, not_limited),
        (Note::LayersOnHost, on_host),
        (Note::ContainerCounter, figures.container_free.is_some_and(|free| free < found.reading.free)),
        (
            Note::GapAtReading,
            readings(found).any(|reading| gaps::at_time(recording, reading.at_ns).is_some()),
        ),
        (Note::Losses, recording.health.lost_total > 0),
    ];
    rows.into_iter().filter(|(_, applies)| *applies).map(|(note, _)| note).collect()
}

fn readings(found: &Found) -> impl Iterator<Item = &Reading> {
    found.baseline.iter().chain([&found.reading])
}

/// `worth` is that of a signal that counts page cache as used.
fn cached(recording: &Recording, found: &Found, worth: Option<Worth>) -> Vec<CachedFile> {
    let at_baseline = found.baseline.as_ref().map(|reading| files::largest(recording, reading.at_ns));
    let before = |row: &FileRow| {
        let same = |old: &&FileRow| (&old.device, old.inode) == (&row.device, row.inode);
        at_baseline.iter().flatten().find(same).map_or(0, |old| old.bytes)
    };
    let rows = files::largest(recording, found.reading.at_ns).into_iter();
    let rows = rows.filter(|row| row.bytes > 0).take(FILES);
    rows.map(|row| CachedFile {
        costs: worth.map(|worth| worth.of(row.bytes, before(&row))),
        path: row.shown,
        opens_at: row.opens_at,
        bytes: row.bytes,
        first_touch: row.first_touch.map(|touch| format!("{} ({})", touch.comm, touch.pid)),
        charged_to: row.charged_to,
    })
    .collect()
}
