//! What a comparison comes to.

use serde::Serialize;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    Different,
    Equivalent,
    /// Neither shown to differ nor to be the same.
    Undecided,
    /// Something else has changed with the environment.
    Confounded,
    /// The runs did not begin alike, or are too few.
    NotComparable,
}

impl Verdict {
    /// In the order in which reports count them.
    pub const ALL: [Self; 5] =
        [Self::Different, Self::Equivalent, Self::Undecided, Self::Confounded, Self::NotComparable];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Different => "different",
            Self::Equivalent => "equivalent",
            Self::Undecided => "undecided",
            Self::Confounded => "confounded",
            Self::NotComparable => "not comparable",
        }
    }
}
