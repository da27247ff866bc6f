//! What an engine's device memory is for: by the stage in which it grew.

use serde::Serialize;
use spark_trace_engines::{EngineLog, Figure, Stage};
use spark_trace_recording::Recording;

use super::device_level::DeviceLevel;
use super::stages::{Evidence, Span, StageRow, growth};

/// A use of device memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum PartName {
    Weights,
    KvCache,
    Graphs,
    /// What is in use beside those: buffers for activations, caches of libraries.
    Workspace,
}

impl PartName {
    pub const ALL: [Self; 4] = [Self::Weights, Self::KvCache, Self::Graphs, Self::Workspace];
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Part {
    pub part: PartName,
    pub bytes: u64,
    /// What the stage is known by; absent for the rest.
    pub evidence: Option<Evidence>,
    /// The log's own figure of it.
    pub logged_bytes: Option<u64>,
}

/// They add up to what is in use.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Parts {
    pub at_ns: u64,
    pub bytes: u64,
    pub parts: Vec<Part>,
}

/// Parts with their stages, and the log's figure, the best first.
const STAGES: &[(PartName, Stage, &[Figure])] = &[
    (PartName::Weights, Stage::Weights, &[Figure::Weights]),
    (PartName::KvCache, Stage::KvAllocation, &[Figure::KvAllocated, Figure::KvStated, Figure::KvBudget]),
    (PartName::Graphs, Stage::GraphCapture, &[Figure::GraphsPool, Figure::GraphsTaken]),
];

/// Absent where no stage is known, and where more was given back since than what is in no part.
pub fn at(recording: &Recording, log: &EngineLog, stages: &[StageRow], at_ns: u64) -> Option<Parts> {
    let level = DeviceLevel::new(recording)?;
    let bytes = level.at(at_ns);
    let mut parts: Vec<Part> = STAGES
        .iter()
        .filter_map(|(part, stage, figures)| {
            let own = stages.iter().filter(|row| row.stage == *stage && row.span.begin_ns < at_ns);
            let grown = own.clone().filter_map(|row| growth(&level, closed(row.span, at_ns), at_ns));
            let bytes = u64::try_from(grown.fold(0, i64::saturating_add)).ok().filter(|bytes| *bytes > 0)?;
            Some(Part {
                part: *part,
                bytes,
                evidence: own.map(|row| row.evidence).next(),
                logged_bytes: figures.iter().find_map(|figure| log.size(*figure)),
            })
        })
        .collect();
    if parts.is_empty() {
        return None;
    }
    let named = parts.iter().map(|part| part.bytes).fold(0, u64::saturating_add);
    let rest = bytes.checked_sub(named)?;
    parts.push(Part { part: PartName::Workspace, bytes: rest, evidence: None, logged_bytes: None });
    Some(Parts { at_ns, bytes, parts })
}

/// A stage that goes on has come this far.
fn closed(span: Span, at_ns: u64) -> Span {
    Span { end_ns: Some(span.end_ns.unwrap_or(at_ns)), ..span }
}
