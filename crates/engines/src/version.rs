//! Versions of engines. llama.cpp's builds (`b7166`) are versions with one number.

use std::fmt;

use serde::{Serialize, Serializer};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(pub u32, pub u32, pub u32);

impl Version {
    /// `0.25.1`, `v0.29.1rc1`, `1.3.0rc0`, `b7166`; what follows the numbers is left out.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.strip_prefix(['v', 'b']).unwrap_or(text);
        let mut numbers = text.split('.').map(|part| {
            let end = part.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(part.len());
            part.get(..end)?.parse().ok()
        });
        let major = numbers.next()??;
        let mut rest = || numbers.next().flatten().unwrap_or(0);
        Some(Self(major, rest(), rest()))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(major, minor, patch) = self;
        match (minor, patch) {
            // A build of llama.cpp.
            (0, 0) if *major > 999 => write!(f, "b{major}"),
            _ => write!(f, "{major}.{minor}.{patch}"),
        }
    }
}

impl Serialize for Version {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// From the first that has it, up to the first that has it no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct VersionRange {
    pub from: Option<Version>,
    pub before: Option<Version>,
}

pub const ALL: VersionRange = VersionRange { from: None, before: None };

pub const fn from(major: u32, minor: u32, patch: u32) -> VersionRange {
    VersionRange { from: Some(Version(major, minor, patch)), before: None }
}

pub const fn before(major: u32, minor: u32, patch: u32) -> VersionRange {
    VersionRange { from: None, before: Some(Version(major, minor, patch)) }
}

pub const fn between(from: (u32, u32, u32), before: (u32, u32, u32)) -> VersionRange {
    VersionRange {
        from: Some(Version(from.0, from.1, from.2)),
        before: Some(Version(before.0, before.1, before.2)),
    }
}

impl VersionRange {
    /// One version.
    pub fn only(version: Version) -> Self {
        let Version(major, minor, patch) = version;
        Self { from: Some(version), before: Some(Version(major, minor, patch.saturating_add(1))) }
    }

    /// What is in both.
    pub fn and(&self, other: &Self) -> Self {
        let from = self.from.max(other.from);
        let before = match (self.before, other.before) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
        Self { from, before }
    }

    pub fn overlaps(&self, other: &Self) -> bool {
        let both = self.and(other);
        both.from.zip(both.before).is_none_or(|(from, before)| from < before)
    }

    pub fn contains(&self, version: Version) -> bool {
        self.from.is_none_or(|from| version >= from) && self.before.is_none_or(|before| version < before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_as_engines_write_them() {
        for (text, wanted) in [
            ("0.25.1", Version(0, 25, 1)),
            ("v0.29.1rc1", Version(0, 29, 1)),
            ("1.3.0rc0", Version(1, 3, 0)),
            ("0.20", Version(0, 20, 0)),
            ("0.19.2rc1.dev21+g893611813", Version(0, 19, 2)),
            ("b7166", Version(7166, 0, 0)),
        ] {
            assert_eq!(Version::parse(text), Some(wanted), "{text}");
        }
        for text in ["", "dev", "v", "99999999999.0"] {
            assert_eq!(Version::parse(text), None, "{text}");
        }
        assert_eq!(Version(7166, 0, 0).to_string(), "b7166");
        assert_eq!(Version(1, 0, 0).to_string(), "1.0.0");
    }

    #[test]
    fn a_range_has_its_first_and_not_its_end() {
        let range = between((0, 20, 0), (0, 27, 0));
        let contained = [(0, 19, 1), (0, 20, 0), (0, 26, 9), (0, 27, 0)]
            .map(|(a, b, c)| range.contains(Version(a, b, c)));
        assert_eq!(contained, [false, true, true, false]);
        assert!(ALL.contains(Version(0, 0, 0)));
    }
}
