//! Whether a comparison answers a question that was put before the runs.

use serde::Serialize;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Declared before the runs, or one of three if nothing was declared.
    Primary,
    Exploratory,
    /// A function of other metrics of the study: reported, and in no family of theirs.
    Derived,
}

impl Role {
    /// In the order in which reports have them.
    pub const ALL: [Self; 3] = [Self::Primary, Self::Exploratory, Self::Derived];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Exploratory => "exploratory",
            Self::Derived => "derived",
        }
    }
}
