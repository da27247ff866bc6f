//! What became of each hook, and of each library that is read for levels.

use crate::words;

/// How the reason of a value begins that NVML does not give for a device, now or ever. A GPU that shares the
/// system's memory answers so to a query for the size of its own.
pub const NVML_NOT_SUPPORTED: &str = "NVML: not supported";

words! {
    /// Verdict on one hook or source.
    pub enum Verdict {
        /// Attached.
        Ok = "ok",
        /// This kernel has nothing the hook could attach to.
        Unsupported = "unsupported",
        /// There is nothing for it to see here.
        NotApplicable = "not-applicable",
        /// It should have attached and did not.
        Broken = "broken",
        /// The profile leaves it out.
        Off = "off",
    }
}
