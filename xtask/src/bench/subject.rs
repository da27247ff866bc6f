//! What a row of the benchmark is about.

/// What is timed.
#[derive(Debug, Clone, Copy)]
pub struct Subject {
    pub name: &'static str,
    pub what: &'static str,
    pub clock: &'static str,
    /// Highest ratio that is acceptable in the default profile.
    pub bound: Option<f64>,
}
