//! Words of a recording: a field with one of a few words in it, which are known, or one that a newer version wrote.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The words that a field may have. An enum, so that code which decides by them has an arm for each.
pub trait Words: Copy + PartialEq + 'static {
    const ALL: &'static [Self];

    /// The word that stands for it in a recording.
    fn word(self) -> &'static str;
}

/// A word as it stands in a recording. One that this version does not know is kept as it is, so that what is read and
/// written again has lost nothing.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Word<T> {
    Known(T),
    Unknown(Box<str>),
}

impl<T: Words> Word<T> {
    pub fn as_str(&self) -> &str {
        match self {
            Self::Known(value) => value.word(),
            Self::Unknown(word) => word,
        }
    }

    /// What it means; absent if this version does not know the word.
    pub fn known(&self) -> Option<T> {
        match self {
            Self::Known(value) => Some(*value),
            Self::Unknown(_) => None,
        }
    }
}

impl<T> Default for Word<T> {
    /// No word at all.
    fn default() -> Self {
        Self::Unknown(Box::default())
    }
}

impl<T: Words> From<T> for Word<T> {
    fn from(value: T) -> Self {
        Self::Known(value)
    }
}

impl<T: Words> From<&str> for Word<T> {
    fn from(text: &str) -> Self {
        let known = T::ALL.iter().find(|value| value.word() == text);
        known.map_or_else(|| Self::Unknown(text.into()), |value| Self::Known(*value))
    }
}

impl<T: Words> PartialEq<T> for Word<T> {
    fn eq(&self, other: &T) -> bool {
        self.known() == Some(*other)
    }
}

impl<T: Words> fmt::Display for Word<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl<T: Words> Serialize for Word<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de, T: Words> Deserialize<'de> for Word<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self::from(&*Cow::<str>::deserialize(deserializer)?))
    }
}

/// Any text: a newer version may have more words.
impl<T> JsonSchema for Word<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        String::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        String::json_schema(generator)
    }
}

/// An enum whose variants stand for words: `words! { /// Doc. pub enum Name { Variant = "word", ... } }`.
#[macro_export]
macro_rules! words {
    ($(#[$about:meta])* $visibility:vis enum $name:ident { $($(#[$of:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        $visibility enum $name {
            $($(#[$of])* $variant,)+
        }

        impl $crate::word::Words for $name {
            const ALL: &'static [Self] = &[$(Self::$variant,)+];

            fn word(self) -> &'static str {
                self.as_str()
            }
        }

        impl $name {
            /// The word that stands for it in a recording.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)+
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.as_str())
            }
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    words! {
        /// A word of these tests.
        enum Colour {
            Red = "red",
            DarkBlue = "dark-blue",
        }
    }

    #[test]
    fn known_words_are_values_and_unknown_ones_are_kept() {
        let words: Vec<Word<Colour>> = serde_json::from_str(r#"["red","dark-blue","gr\u00fcn",""]"#).unwrap();
        assert_eq!(words[0], Colour::Red);
        assert_eq!(words[1].known(), Some(Colour::DarkBlue));
        assert_eq!(words[2], Word::Unknown("grün".into()));
        assert_eq!(words[3], Word::default());
        assert_eq!(serde_json::to_string(&words).unwrap(), r#"["red","dark-blue","grün",""]"#);
        assert!(serde_json::from_str::<Word<Colour>>("7").is_err());
    }

    #[test]
    fn a_word_is_padded_as_text_is() {
        assert_eq!(format!("{:>5}|{}", Word::from(Colour::Red), Colour::DarkBlue), "  red|dark-blue");
    }
}
