//! What became of each hook.

use std::fmt;

/// Verdict on one hook.
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
