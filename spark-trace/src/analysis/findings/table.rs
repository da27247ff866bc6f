//! The hypotheses.
pub const HYPOTHESES: &[()] = &[];
