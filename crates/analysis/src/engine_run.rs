//! The inference engine of a run: which it was, what its log states, its stages, and what its device memory is for.

use serde::Serialize;
use spark_trace_engines::{self as engines, Check, Engine, Unit, Value, Version};

use crate::derived::Derived;
use crate::engine_evidence::recognise;

mod breakdown;
mod buffers;
mod device_level;
mod free_fall;
mod part_name;
mod parts;
mod span;
mod stages;

pub use breakdown::{BreakdownOf, BreakdownRow};
pub use buffers::{Buffer, Buffers, Together};
pub use free_fall::FreeFall;
pub use part_name::PartName;
pub use parts::{Part, Parts};
pub use span::Span;
pub use stages::{Evidence, StageRow};

/// An engine, or what looks like one.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct EngineRun {
    /// Absent where nothing tells which, or more than one fits.
    pub engine: Option<Engine>,
    /// As its makers write it.
    pub title: Option<&'static str>,
    /// Engines that some of the evidence fits.
    pub candidates: Vec<Engine>,
    pub version: Option<Version>,
    /// What its log states.
    pub figures: Vec<FigureRow>,
    /// Checks that ended it.
    pub failures: Vec<Check>,
    pub stages: Vec<StageRow>,
    /// What its device memory is for, at the time of the lists; absent where no stage is known.
    pub parts: Option<Parts>,
    /// Buffers whose sizes its log states, and their allocations.
    pub buffers: Buffers,
    /// The engine's own account of device memory beside that of the recording; empty where it logs none.
    pub breakdown: Vec<BreakdownRow>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FigureRow {
    pub figure: &'static str,
    pub unit: Unit,
    /// The device, pool or rank that it is of.
    pub subject: Option<String>,
    pub value: Value,
    pub at_ns: Option<u64>,
}

/// Of a recording without any sign of an engine there is none.
pub fn report<'a>(run: impl Into<Derived<'a>>, at_ns: u64) -> Option<EngineRun> {
    let run = run.into();
    let recording = run.recording;
    let log = run.log();
    let (engine, _, candidates) = recognise(recording, log);
    let stages = stages::all(&run, log, engine);
    if candidates.is_empty() && log.figures.is_empty() && stages.is_empty() {
        return None;
    }
    let buffers = buffers::find(recording, log);
    let line_ns = |line: usize| recording.provenance.log_lines.get(line).map(|line| line.at_ns);
    let figures = log.figures.iter().map(|found| FigureRow {
        figure: found.figure.as_str(),
        unit: found.figure.unit(),
        subject: found.subject.clone(),
        value: found.value,
        at_ns: line_ns(found.line),
    });
    Some(EngineRun {
        engine,
        title: engine.and_then(engines::row).map(|row| row.title),
        candidates,
        version: log.version,
        figures: figures.collect(),
        failures: log.failures.iter().map(|failure| failure.check).collect(),
        parts: parts::at(recording, log, &stages, &buffers, at_ns),
        breakdown: breakdown::rows(recording, log, &buffers),
        buffers,
        stages,
    })
}

/// The stages alone, for timelines.
pub fn stages_of<'a>(run: impl Into<Derived<'a>>) -> Vec<StageRow> {
    let run = run.into();
    let log = run.log();
    let (engine, _, _) = recognise(run.recording, log);
    stages::all(&run, log, engine)
}

#[cfg(test)]
mod tests;
