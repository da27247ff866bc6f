//! What became of each hook, and of each library that is asked for levels.

use std::fmt;

/// How the reason of a value begins that NVML does not give for a device, now or ever. A GPU that shares the
/// system's memory answers so when asked for the size of its own.
pub const NVML_NOT_SUPPORTED: &str = "NVML: not supported";

/// Verdict on one hook or source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Attached.
    Ok,
    /// This kernel has nothing the hook could attach to.
    Unsupported,
    /// There is nothing for it to see here.
    NotApplicable,
    /// It should have attached and did not.
    Broken,
    /// The profile leaves it out.
    Off,
}

impl Verdict {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Unsupported => "unsupported",
            Self::NotApplicable => "not-applicable",
            Self::Broken => "broken",
            Self::Off => "off",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
