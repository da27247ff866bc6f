//! What the capture of graphs took, as engines measure it: by how much the driver's free memory fell between two readings. A
//! graph that is instantiated takes device memory of the driver's own, which is in no call.

use serde::Serialize;
use spark_trace_engines::{EngineLog, Figure, Stage};

use super::span::Span;
use crate::derived::Derived;
use crate::memory_queries::MemoryQueryRow;
use crate::signed::signed;

const CUDA: &str = "cuMemGetInfo_v2";

/// Negative where memory was given back meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct FreeFall {
    pub bytes: i64,
    /// The same in the log, rounded as it is there.
    pub logged_bytes: Option<i64>,
}

/// Engines read right before the capture and right after it (vllm/v1/worker/gpu_model_runner.py, capture_model;
/// sglang/srt/model_executor/model_runner.py, init_device_graphs): the stage begins with the one, not with the first sign of it
/// in the log. What came before it ends there.
pub fn in_capture(run: &Derived<'_>, log: &EngineLog, spans: &mut [(Stage, Span)]) -> Option<FreeFall> {
    let logged_bytes = log.bytes(Figure::GraphsTaken);
    logged_bytes?;
    let at = spans.iter().position(|(stage, _)| *stage == Stage::GraphCapture)?;
    let (before, after) = spans.split_at_mut(at);
    let ((_, span), _) = after.split_first_mut()?;
    let (_, previous) = before.last_mut()?;
    let answers = |row: &&MemoryQueryRow| row.interface == CUDA && row.result == 0;
    let rows = run.queries()?.rows.iter().filter(answers);
    let last = { rows.clone() }.rfind(|row| row.at_ns > span.begin_ns && Some(row.at_ns) <= span.end_ns)?;
    let first = { rows }
        .rfind(|row| row.pid == last.pid && row.at_ns <= span.begin_ns && row.at_ns > previous.begin_ns)?;
    let free = |row: &MemoryQueryRow| row.values.get("free").copied().map(signed);
    let bytes = free(first)?.checked_sub(free(last)?)?;
    if previous.end_ns.is_some_and(|end_ns| end_ns > first.at_ns && end_ns <= span.begin_ns) {
        previous.end_ns = Some(first.at_ns);
    }
    span.begin_ns = first.at_ns;
    Some(FreeFall { bytes, logged_bytes })
}
