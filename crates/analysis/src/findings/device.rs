//! Claims that sources of the GPUs' own memory hold the difference.

use super::case::{Case, Judgement};

/// What the target allocated through CUDA, and what is unknown from that: taken before the trace, or on one of several
/// GPUs.
pub const ALLOCATED: &[&str] = &["gpu-allocated", "gpu-shared-process", "gpu-before"];
/// What its processes hold on a GPU beyond that.
pub const CONTEXTS: &[&str] = &["gpu-context"];
/// What others hold.
pub const OTHERS: &[&str] = &["gpu-other-processes", "gpu-reserved"];
/// What of a GPU is the target's.
pub const OF_TARGET: &[&str] = &["gpu-allocated", "gpu-shared-process", "gpu-before", "gpu-context"];

pub fn allocated(case: &Case<'_>) -> Judgement {
    by_bytes(case, ALLOCATED, "memory allocated through CUDA")
}

pub fn contexts(case: &Case<'_>) -> Judgement {
    by_bytes(case, CONTEXTS, "memory of contexts, modules and the driver")
}

pub fn others(case: &Case<'_>) -> Judgement {
    by_bytes(case, OTHERS, "memory of other processes and the reserved part")
}

fn by_bytes(case: &Case<'_>, slugs: &[&str], what: &'static str) -> Judgement {
    case.by_bytes(case.delta_of(slugs), what, case.rows_evidence(slugs))
}
