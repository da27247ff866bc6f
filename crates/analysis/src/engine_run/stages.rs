//! The stages of an engine's start, by the lines of its log; where those tell nothing, by its readings of free memory.

use std::collections::BTreeMap;

use serde::Serialize;
use spark_trace_engines::{self as engines, Engine, EngineLog, Figure, Mark, Moment, Stage};
use spark_trace_recording::Recording;

use super::device_level::DeviceLevel;
use super::free_fall::{self, FreeFall};
use super::span::Span;
use crate::derived::Derived;
use crate::memory_queries::MemoryQueryRow;

/// What a stage, or a part of device memory, is known by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Evidence {
    /// Lines of the engine's log.
    Log,
    /// Its readings of free memory, and what it allocated between them.
    Calls,
    /// Of a part: traced buffers of the sizes that the log states.
    Allocations,
    /// Of a part: sizes in the log, of which the recording has the sum alone.
    Sum,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StageRow {
    pub stage: Stage,
    #[serde(flatten)]
    pub span: Span,
    pub evidence: Evidence,
    /// By how much device memory grew in it; absent where no device memory was seen.
    pub growth_bytes: Option<i64>,
    /// By how much free memory fell in it, where the engine measures that.
    pub free_fall: Option<FreeFall>,
}

/// Seconds that a line states of the stage which it ends.
const DURATIONS: &[(Stage, Figure)] =
    &[(Stage::Weights, Figure::WeightsSeconds), (Stage::GraphCapture, Figure::GraphSeconds)];

/// All stages in the order in which they begin. A stage is there once for each time that the engine went through it.
pub fn all(run: &Derived<'_>, log: &EngineLog, engine: Option<Engine>) -> Vec<StageRow> {
    let recording = run.recording;
    let level = DeviceLevel::new(recording);
    let mut by_log = by_log(recording, log);
    let free_fall = free_fall::in_capture(run, log, &mut by_log);
    let mut found: Vec<(Stage, Span, Evidence)> =
        by_log.into_iter().map(|(stage, span)| (stage, span, Evidence::Log)).collect();
    let by_calls = level.as_ref().map(|level| by_calls(run, level, engine)).unwrap_or_default();
    for (stage, span) in by_calls {
        if !found.iter().any(|(known, ..)| *known == stage) {
            found.push((stage, span, Evidence::Calls));
        }
    }
    found.sort_by_key(|(stage, span, _)| (span.begin_ns, *stage));
    let rows = found.into_iter().map(|(stage, span, evidence)| StageRow {
        stage,
        span,
        evidence,
        growth_bytes: level.as_ref().and_then(|level| growth(level, span, u64::MAX)),
        free_fall: free_fall.filter(|_| stage == Stage::GraphCapture),
    });
    rows.collect()
}

/// What device memory grew by in a span, up to a time; absent where it was not read in it.
pub fn growth(level: &DeviceLevel, span: Span, until_ns: u64) -> Option<i64> {
    let end_ns = span.end_ns?.min(until_ns).max(span.begin_ns);
    if !level.is_read(span.begin_ns, end_ns) {
        return None;
    }
    i64::try_from(level.at(end_ns)).ok()?.checked_sub(i64::try_from(level.at(span.begin_ns)).ok()?)
}

/// A stage begins with its first mark, and ends with its own mark or when another begins.
fn by_log(recording: &Recording, log: &EngineLog) -> Vec<(Stage, Span)> {
    // A line that many programs write tells nothing alone.
    if log.engine.is_none() && log.candidates.is_empty() {
        return Vec::new();
    }
    let time = |line: usize| recording.provenance.log_lines.get(line).map(|line| line.at_ns);
    let mut spans: Vec<(Stage, Span)> = Vec::new();
    let mut open: BTreeMap<Stage, u64> = BTreeMap::new();
    for mark in &log.marks {
        let Some(at_ns) = time(mark.line) else { continue };
        if mark.begins {
            close_others(&mut spans, &mut open, mark.stage, at_ns);
            open.entry(mark.stage).or_insert(at_ns);
        } else if !close(&mut spans, &mut open, mark.stage, at_ns)
            && let Some(begin_ns) = stated_begin(log, mark, at_ns)
        {
            close_others(&mut spans, &mut open, mark.stage, begin_ns);
            spans.push((mark.stage, Span { begin_ns, end_ns: Some(at_ns) }));
        }
    }
    spans.extend(open.into_iter().map(|(stage, begin_ns)| (stage, Span { begin_ns, end_ns: None })));
    joined(spans)
}

fn close_others(spans: &mut Vec<(Stage, Span)>, open: &mut BTreeMap<Stage, u64>, but: Stage, at_ns: u64) {
    let others = open.iter().filter(|(stage, begin_ns)| **stage != but && **begin_ns <= at_ns);
    let others: Vec<_> = others.map(|(stage, _)| *stage).collect();
    for stage in others {
        close(spans, open, stage, at_ns);
    }
}

fn close(spans: &mut Vec<(Stage, Span)>, open: &mut BTreeMap<Stage, u64>, stage: Stage, at_ns: u64) -> bool {
    let Some(begin_ns) = open.remove(&stage) else { return false };
    spans.push((stage, Span { begin_ns, end_ns: Some(at_ns) }));
    true
}

/// The line that ends a stage may say how long it took.
fn stated_begin(log: &EngineLog, mark: &Mark, at_ns: u64) -> Option<u64> {
    let (_, figure) = DURATIONS.iter().find(|(stage, _)| *stage == mark.stage)?;
    let stated = log.of(*figure).find(|found| found.line == mark.line)?;
    let ns = stated.value.real() * 1e9;
    (ns >= 0.0 && ns < at_ns as f64).then(|| at_ns.saturating_sub(ns as u64))
}

/// Each rank writes its own line: spans of a stage that follow one another with nothing between them are one.
fn joined(mut spans: Vec<(Stage, Span)>) -> Vec<(Stage, Span)> {
    spans.sort_by_key(|(_, span)| span.begin_ns);
    let mut all: Vec<(Stage, Span)> = Vec::new();
    for (stage, span) in spans {
        match all.last_mut() {
            Some((last, known)) if *last == stage => {
                known.end_ns = known.end_ns.zip(span.end_ns).map(|(one, other)| one.max(other));
            }
            _ => all.push((stage, span)),
        }
    }
    all
}

/// The reading that sized the cache ends what came before it; what follows it is the cache.
fn by_calls(run: &Derived<'_>, level: &DeviceLevel, engine: Option<Engine>) -> Vec<(Stage, Span)> {
    let (Some(reading), Some(queries)) = (run.reading(), run.queries()) else { return Vec::new() };
    let own: Vec<&MemoryQueryRow> = queries
        .rows
        .iter()
        .filter(|row| row.pid == reading.query.pid && row.interface == reading.query.interface)
        .collect();
    let Some(decided) = own.iter().position(|row| row.at_ns == reading.at_ns) else { return Vec::new() };
    let time = |index: Option<usize>| index.and_then(|index| own.get(index)).map(|row| row.at_ns);
    let risen_ns = level.risen(reading.at_ns);
    let next_ns = time(Some(decided + 1)).filter(|next_ns| level.at(*next_ns) > level.at(reading.at_ns));
    let mut spans = Vec::new();
    if let Some(end_ns) = next_ns.or(risen_ns) {
        spans.push((Stage::KvAllocation, Span { begin_ns: reading.at_ns, end_ns: Some(end_ns) }));
    }
    // What comes before it depends on the engine: where that is unknown, nothing is said of it.
    let moments = engine.and_then(engines::row).and_then(|row| row.variants.last());
    let decides = moments.and_then(|variant| variant.readings.last()).map(|reading| reading.moment);
    let (weights_end, profiling) = match decides {
        Some(Moment::AfterProfiling) => (time(decided.checked_sub(1)), true),
        Some(Moment::AfterWeights) => (Some(reading.at_ns), false),
        _ => return spans,
    };
    let Some((begin_ns, end_ns)) = level.first_use().zip(weights_end) else { return spans };
    if begin_ns < end_ns && level.at(end_ns) > 0 {
        spans.push((Stage::Weights, Span { begin_ns, end_ns: Some(end_ns) }));
        if profiling {
            spans.push((Stage::Profiling, Span { begin_ns: end_ns, end_ns: Some(reading.at_ns) }));
        }
    }
    spans
}
