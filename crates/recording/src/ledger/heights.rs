//! How high memory stands, for the question whether two times are alike.

use crate::Series;

/// Columns of the system plane's readings that have what the NVIDIA driver holds as its own, and what it has pinned. Where
/// free memory is in page cache, what it takes is taken from there: the machine stands no higher, and nobody is charged.
/// Pinning takes nothing at all.
const DRIVER_COLUMNS: [&[&str]; 2] =
    [&["driver.nvidia_sysmem", "driver.nvidia_managed"], &["driver.nvidia_pinned"]];

/// What the driver holds, and what it has pinned, in bytes.
pub type DriverHeights = [Option<u64>; 2];

/// What of the machine's memory the driver holds and has pinned at reading `index`.
pub fn driver_heights(system: &Series, index: usize) -> DriverHeights {
    DRIVER_COLUMNS.map(|columns| {
        let values = columns.iter().filter_map(|column| system.columns.get(*column)?.get(index));
        values.reduce(u64::saturating_add)
    })
}

/// Two levels that differ by no more than this are as good as one: readings of a machine that does nothing do.
/// `height` is the higher one.
pub fn margin(height: u64) -> u64 {
    (height >> 9).max(256 << 10)
}
