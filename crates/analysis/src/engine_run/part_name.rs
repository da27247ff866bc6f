//! What device memory is for.

use serde::Serialize;

/// A use of device memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum PartName {
    Weights,
    KvCache,
    /// Buffers for activations, where an engine allocates and logs them by themselves.
    Compute,
    Graphs,
    /// What is in use beside those: buffers for activations, caches of libraries.
    Workspace,
}

impl PartName {
    pub const ALL: [Self; 5] = [Self::Weights, Self::KvCache, Self::Compute, Self::Graphs, Self::Workspace];
}
