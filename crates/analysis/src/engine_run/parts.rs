//! What an engine's device memory is for: by its buffers, else by the stage in which it grew.

use serde::Serialize;
use spark_trace_engines::{EngineLog, Figure, Stage};
use spark_trace_recording::Recording;

use super::buffers::{Buffers, Known};
use super::device_level::DeviceLevel;
use super::part_name::PartName;
use super::span::Span;
use super::stages::{Evidence, StageRow, growth};

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Part {
    pub part: PartName,
    pub bytes: u64,
    /// What it is known by; absent for the rest.
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
const PARTS: &[(PartName, Option<Stage>, &[Figure])] = &[
    (PartName::Weights, Some(Stage::Weights), &[Figure::Weights]),
    (
        PartName::KvCache,
        Some(Stage::KvAllocation),
        &[Figure::KvAllocated, Figure::KvStated, Figure::KvBudget],
    ),
    (PartName::Compute, None, &[Figure::Compute]),
    (PartName::Graphs, Some(Stage::GraphCapture), &[Figure::GraphsPool, Figure::GraphsTaken]),
];

/// Absent where no part is known, and where more was given back since than what is in no part.
pub fn at(
    recording: &Recording,
    log: &EngineLog,
    stages: &[StageRow],
    buffers: &Buffers,
    at_ns: u64,
) -> Option<Parts> {
    let level = DeviceLevel::new(recording)?;
    let by_stage = |stage: Stage| {
        let own = stages.iter().filter(|row| row.stage == stage && row.span.begin_ns < at_ns);
        let grown = own.clone().filter_map(|row| growth(&level, closed(row.span, at_ns), at_ns));
        let bytes = u64::try_from(grown.fold(0, i64::saturating_add)).ok()?;
        Some((bytes, own.map(|row| row.evidence).next()?))
    };
    let mut parts: Vec<Part> = PARTS
        .iter()
        .filter_map(|(part, stage, figures)| {
            let (bytes, evidence) = match buffers.of(*part, at_ns) {
                Some(Known::Allocations(bytes)) => (bytes, Evidence::Allocations),
                Some(Known::Sum(bytes)) => (bytes, Evidence::Sum),
                None => by_stage((*stage)?)?,
            };
            let logged_bytes = figures.iter().find_map(|figure| log.size(*figure));
            (bytes > 0).then_some(Part { part: *part, bytes, evidence: Some(evidence), logged_bytes })
        })
        .collect();
    if parts.is_empty() {
        return None;
    }
    let named = parts.iter().map(|part| part.bytes).fold(0, u64::saturating_add);
    let bytes = level.at(at_ns);
    let rest = bytes.checked_sub(named)?;
    parts.push(Part { part: PartName::Workspace, bytes: rest, evidence: None, logged_bytes: None });
    Some(Parts { at_ns, bytes, parts })
}

/// A stage that goes on has come this far.
fn closed(span: Span, at_ns: u64) -> Span {
    Span { end_ns: Some(span.end_ns.unwrap_or(at_ns)), ..span }
}
