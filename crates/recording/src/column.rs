//! The readings of one counter. Most of a recording is these: a bit each for whether it was read, and a word each if
//! they are not all the same.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

const BITS: usize = u64::BITS as usize;

/// What a column's values are.
pub trait Value: Copy + Default + PartialEq {}

impl<T: Copy + Default + PartialEq> Value for T {}

/// One value per reading, absent where it could not be read.
#[derive(Clone)]
pub struct Column<T = u64> {
    len: usize,
    known: Vec<u64>,
    values: Values<T>,
}

/// Many counters of a kernel never move while a run lasts.
#[derive(Clone)]
enum Values<T> {
    /// All readings that have a value have this one; none has where there is none.
    Same(Option<T>),
    /// Anything where a reading has none.
    Each(Vec<T>),
}

impl<T> Default for Column<T> {
    fn default() -> Self {
        Self { len: 0, known: Vec::new(), values: Values::Same(None) }
    }
}

impl<T: Value> Column<T> {
    pub fn absent(readings: usize) -> Self {
        Self { len: readings, known: vec![0; readings.div_ceil(BITS)], values: Values::Same(None) }
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The value of a reading; absent too where there is no such reading.
    pub fn get(&self, index: usize) -> Option<T> {
        if index >= self.len || self.known[index / BITS] >> (index % BITS) & 1 == 0 {
            return None;
        }
        match &self.values {
            Values::Same(value) => *value,
            Values::Each(values) => values.get(index).copied(),
        }
    }

    pub fn first(&self) -> Option<T> {
        self.get(0)
    }

    pub fn last(&self) -> Option<T> {
        self.get(self.len().checked_sub(1)?)
    }

    pub fn iter(&self) -> impl DoubleEndedIterator<Item = Option<T>> + ExactSizeIterator + Clone + '_ {
        (0..self.len()).map(|index| self.get(index))
    }

    /// The readings that have a value.
    pub fn known(&self) -> impl DoubleEndedIterator<Item = T> + Clone + '_ {
        self.iter().flatten()
    }

    pub fn push(&mut self, value: Option<T>) {
        self.set(self.len(), value);
    }

    /// Cuts off what is beyond `readings`, or makes up for it with readings that are absent.
    pub fn resize(&mut self, readings: usize) {
        let beyond = readings.min(self.len())..self.len();
        beyond.for_each(|index| self.set(index, None));
        self.known.resize(readings.div_ceil(BITS), 0);
        self.len = readings;
        if let Values::Each(values) = &mut self.values {
            values.resize(readings, T::default());
        }
    }

    /// Sets the same value of several readings.
    pub fn set_each(&mut self, indices: &[usize], value: Option<T>) {
        indices.iter().for_each(|&index| self.set(index, value));
    }

    /// Sets the value of a reading, making room for it.
    pub fn set(&mut self, index: usize, value: Option<T>) {
        if index >= self.len() {
            self.resize(index + 1);
        }
        let bit = 1 << (index % BITS);
        let Some(value) = value else {
            self.known[index / BITS] &= !bit;
            return;
        };
        self.known[index / BITS] |= bit;
        match &mut self.values {
            Values::Each(values) => values[index] = value,
            Values::Same(same) if same.is_none_or(|same| same == value) => *same = Some(value),
            Values::Same(same) => {
                let mut values = vec![same.unwrap_or_default(); self.len];
                values[index] = value;
                self.values = Values::Each(values);
            }
        }
    }

    /// Takes away the first readings.
    pub fn drop_first(&mut self, readings: usize) {
        *self = self.iter().skip(readings).collect();
    }

    /// Keeps the readings that are chosen; `keeps` has an element for each.
    pub fn keep(&mut self, keeps: &[bool]) {
        let chosen =
            || keeps.iter().enumerate().take(self.len).filter(|(_, keep)| **keep).map(|(index, _)| index);
        let len = chosen().count();
        let mut known = vec![0; len.div_ceil(BITS)];
        for (new, old) in chosen().enumerate() {
            known[new / BITS] |= (self.known[old / BITS] >> (old % BITS) & 1) << (new % BITS);
        }
        if let Values::Each(values) = &mut self.values {
            let mut keep = keeps.iter();
            values.retain(|_| keep.next() == Some(&true));
            values.shrink_to_fit();
        }
        (self.len, self.known) = (len, known);
    }

    /// Replaces each value that is there.
    pub fn map(&mut self, mut with: impl FnMut(T) -> T) {
        for index in 0..self.len() {
            let value = self.get(index);
            self.set(index, value.map(&mut with));
        }
    }
}

impl<T: Value> FromIterator<Option<T>> for Column<T> {
    fn from_iter<I: IntoIterator<Item = Option<T>>>(values: I) -> Self {
        let mut column = Self::default();
        column.extend(values);
        column
    }
}

impl<T: Value> Extend<Option<T>> for Column<T> {
    fn extend<I: IntoIterator<Item = Option<T>>>(&mut self, values: I) {
        values.into_iter().for_each(|value| self.push(value));
    }
}

impl<T: Value> From<Vec<Option<T>>> for Column<T> {
    fn from(values: Vec<Option<T>>) -> Self {
        values.into_iter().collect()
    }
}

impl<T: Value, const N: usize> From<[Option<T>; N]> for Column<T> {
    fn from(values: [Option<T>; N]) -> Self {
        values.into_iter().collect()
    }
}

impl<T: Value> PartialEq for Column<T> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl<T: Value, const N: usize> PartialEq<[Option<T>; N]> for Column<T> {
    fn eq(&self, other: &[Option<T>; N]) -> bool {
        self.iter().eq(other.iter().copied())
    }
}

impl<T: Value + fmt::Debug> fmt::Debug for Column<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl<T: Value + Serialize> Serialize for Column<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

impl<'de, T: Value + Deserialize<'de>> Deserialize<'de> for Column<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(Array(PhantomData))
    }
}

struct Array<T>(PhantomData<T>);

impl<'de, T: Value + Deserialize<'de>> Visitor<'de> for Array<T> {
    type Value = Column<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of numbers, null where a counter could not be read")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut values: A) -> Result<Column<T>, A::Error> {
        let mut column = Column::default();
        while let Some(value) = values.next_element()? {
            column.push(value);
        }
        // Columns live as long as the recording, and growing has left up to as much again.
        if let Values::Each(values) = &mut column.values {
            values.shrink_to_fit();
        }
        Ok(column)
    }
}

impl<T: JsonSchema> JsonSchema for Column<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("Column_of_{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        Vec::<Option<T>>::json_schema(generator)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_column_is_the_vector_that_it_was_made_of(values: Vec<Option<u64>>) {
            let column = Column::from(values.clone());
            prop_assert_eq!(column.len(), values.len());
            prop_assert_eq!(column.iter().collect::<Vec<_>>(), values.clone());
            prop_assert_eq!(column.last(), values.last().copied().flatten());
            prop_assert_eq!(column.get(values.len()), None);
            let text = serde_json::to_string(&values).unwrap();
            prop_assert_eq!(&serde_json::to_string(&column).unwrap(), &text);
            prop_assert_eq!(serde_json::from_str::<Column>(&text).unwrap(), column);
        }

        #[test]
        fn keeping_some_is_what_it_is_of_the_vector(values: Vec<(Option<u64>, bool)>) {
            let mut column: Column = values.iter().map(|(value, _)| *value).collect();
            column.keep(&values.iter().map(|(_, keep)| *keep).collect::<Vec<_>>());
            let kept: Vec<_> = values.iter().filter(|(_, keep)| *keep).map(|(value, _)| *value).collect();
            prop_assert_eq!(column, Column::from(kept));
        }

        #[test]
        fn setting_one_reading_leaves_the_others(values: Vec<Option<u64>>, at: prop::sample::Index, to: Option<u64>) {
            prop_assume!(!values.is_empty());
            let (mut column, mut expected) = (Column::from(values.clone()), values.clone());
            column.set(at.index(values.len()), to);
            expected[at.index(values.len())] = to;
            prop_assert_eq!(column, Column::from(expected));
        }
    }

    #[test]
    fn what_is_no_column_is_an_error() {
        for text in ["{}", "[-1]", "[1.5]", "[\"1\"]", "[18446744073709551616]"] {
            assert!(serde_json::from_str::<Column>(text).is_err(), "{text}");
        }
    }
}
