//! A time of the run.

use serde::Serialize;

/// From when to when. An end that is not known is that of the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Span {
    pub begin_ns: u64,
    pub end_ns: Option<u64>,
}
