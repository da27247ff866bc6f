//! One reading of the kernel's levels.

use crate::driver::DriverBytes;
use spark_trace_recording::journal::Sample;

/// Readings of the kernel's levels, made one after the other.
pub(super) struct Levels {
    pub system: Sample,
    pub cgroups: Vec<(u64, Sample)>,
    pub driver: Option<DriverBytes>,
    /// What is pinned was not known when it was read.
    pub is_early: bool,
}

impl Levels {
    /// How many series it is of.
    pub fn series(&self) -> usize {
        1 + self.cgroups.len()
    }
}

/// Column of what the driver holds of a source.
pub(super) fn driver_column(source: &str) -> String {
    format!("driver.{}", source.replace('-', "_"))
}
