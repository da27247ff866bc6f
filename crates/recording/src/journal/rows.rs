//! Readings as they stand in a journal. The first of a series has the names of its columns and a number. Those after it have
//! that number and what has changed since, and now and then one is whole again.
//!
//! A row of changes is `[number, begin, length, [column, difference, ...], [column, ...]]`: nanoseconds since the end of the
//! reading in the line before (of any series), nanoseconds that it took, differences of values by the place of the column among
//! the names in their order, and columns that had a value and have none, or the other way round. Differences wrap.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Write};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::super::entry::{Sample, SeriesId};

/// Series with a number at the same time. Processes come and go: a number is given again.
const MOST_SERIES: u32 = 8192;
/// After so many rows of changes one is whole.
const CHANGES: u32 = 1000;
/// Sets of names that are kept once for all series that have them.
const MOST_LAYOUTS: usize = 32;

/// What changed since the reading of the same series before.
#[derive(Debug, Serialize, Deserialize)]
struct Changes(u32, i64, i64, Vec<i64>, Vec<u32>);

/// A whole row: the entry of a sample, and its number.
#[derive(Serialize)]
struct Whole<'a> {
    entry: &'static str,
    row: u32,
    series: &'a SeriesId,
    begin_ns: u64,
    end_ns: u64,
    values: &'a BTreeMap<String, u64>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    absent: &'a [(String, String)],
}

/// The number in a whole row. Journals had none once.
#[derive(Deserialize)]
struct Number {
    row: Option<u32>,
}

/// Names of columns, in their order.
type Names = Arc<[String]>;

/// Names that were used lately.
#[derive(Debug, Default)]
struct Layouts(Vec<Names>);

impl Layouts {
    fn get(&mut self, names: Vec<String>) -> Names {
        if let Some(known) = self.0.iter().find(|known| ***known == *names) {
            return Arc::clone(known);
        }
        if self.0.len() >= MOST_LAYOUTS {
            self.0.remove(0);
        }
        let names: Names = names.into();
        self.0.push(Arc::clone(&names));
        names
    }
}

/// The latest reading of a series, as far as it is known.
#[derive(Debug, Default)]
struct Latest {
    names: Names,
    /// Of each column the latest value, and whether the latest reading has one.
    values: Vec<(u64, bool)>,
    absent: Vec<(String, String)>,
}

impl Latest {
    /// Takes a whole reading in. Columns that it does not have keep their place and their value: some are read seldom.
    fn take_whole(&mut self, sample: &Sample, layouts: &mut Layouts) {
        let known =
            self.names.iter().zip(&self.values).map(|(name, (value, _))| (name.as_str(), (*value, false)));
        let mut columns: BTreeMap<&str, (u64, bool)> = known.collect();
        columns.extend(sample.values.iter().map(|(name, value)| (name.as_str(), (*value, true))));
        let values = columns.values().copied().collect();
        let names = columns.into_keys().map(str::to_owned).collect();
        *self = Self { names: layouts.get(names), values, absent: sample.absent.clone() };
    }

    /// What is different in a sample; `None` where only a whole row can say it.
    fn changes(&mut self, sample: &Sample) -> Option<(Vec<i64>, Vec<u32>)> {
        if self.absent != sample.absent {
            return None;
        }
        let (mut differences, mut toggled) = (Vec::new(), Vec::new());
        let mut new = sample.values.iter().peekable();
        let mut latest = Vec::with_capacity(self.values.len());
        for (index, (name, &(value, there))) in self.names.iter().zip(&self.values).enumerate() {
            let now = new.next_if(|(new, _)| *new == name).map(|(_, value)| *value);
            if now.is_some() != there {
                toggled.push(u32::try_from(index).ok()?);
            }
            if let Some(now) = now.filter(|now| *now != value) {
                differences.extend([i64::try_from(index).ok()?, now.wrapping_sub(value).cast_signed()]);
            }
            latest.push((now.unwrap_or(value), now.is_some()));
        }
        if new.next().is_some() {
            return None;
        }
        self.values = latest;
        Some((differences, toggled))
    }

    /// Takes changes in; `None` where they name a column that there is not.
    fn apply(&mut self, differences: &[i64], toggled: &[u32]) -> Option<()> {
        let (pairs, rest) = differences.as_chunks::<2>();
        for &[index, difference] in pairs {
            let (value, _) = self.values.get_mut(usize::try_from(index).ok()?)?;
            *value = value.wrapping_add_signed(difference);
        }
        for &index in toggled {
            let (_, there) = self.values.get_mut(usize::try_from(index).ok()?)?;
            *there = !*there;
        }
        rest.is_empty().then_some(())
    }

    fn sample(&self, series: SeriesId, begin_ns: u64, end_ns: u64) -> Sample {
        let there = self.names.iter().zip(&self.values).filter(|(_, (_, there))| *there);
        let values = there.map(|(name, (value, _))| (name.clone(), *value)).collect();
        Sample { series, begin_ns, end_ns, values, absent: self.absent.clone() }
    }
}

/// Writes readings as rows.
#[derive(Debug, Default)]
pub(super) struct Writer {
    numbers: HashMap<SeriesId, u32>,
    rows: Vec<(SeriesId, Latest, u32)>,
    /// Whose number is given again next.
    next: u32,
    layouts: Layouts,
    last_ns: u64,
}

impl Writer {
    pub(super) fn write(&mut self, out: &mut impl Write, sample: &Sample) -> io::Result<()> {
        let (begin, length) =
            (difference(sample.begin_ns, self.last_ns), difference(sample.end_ns, sample.begin_ns));
        self.last_ns = sample.end_ns;
        let number = self.number(&sample.series);
        let Some((_, latest, since)) = self.rows.get_mut(number as usize) else {
            return Err(io::Error::other("a row without a number"));
        };
        let changes = if *since < CHANGES { latest.changes(sample) } else { None };
        if let Some((differences, toggled)) = changes {
            *since += 1;
            return Ok(serde_json::to_writer(out, &Changes(number, begin, length, differences, toggled))?);
        }
        *since = 0;
        latest.take_whole(sample, &mut self.layouts);
        let Sample { series, begin_ns, end_ns, values, absent } = sample;
        let whole = Whole {
            entry: "sample",
            row: number,
            series,
            begin_ns: *begin_ns,
            end_ns: *end_ns,
            values,
            absent,
        };
        Ok(serde_json::to_writer(out, &whole)?)
    }

    fn number(&mut self, series: &SeriesId) -> u32 {
        if let Some(number) = self.numbers.get(series) {
            return *number;
        }
        // A whole row comes first: nothing is known of it.
        let new = (series.clone(), Latest::default(), CHANGES);
        let number = self.next;
        match self.rows.get_mut(number as usize) {
            Some(row) => {
                let former = std::mem::replace(row, new);
                self.numbers.remove(&former.0);
            }
            None => self.rows.push(new),
        }
        self.next = (number + 1) % MOST_SERIES;
        self.numbers.insert(series.clone(), number);
        number
    }
}

/// Reads them again.
#[derive(Debug, Default)]
pub(super) struct Reader {
    rows: HashMap<u32, (SeriesId, Latest)>,
    layouts: Layouts,
    last_ns: u64,
}

/// Why a row cannot be read.
#[derive(Debug)]
pub(super) enum Fault {
    Json(serde_json::Error),
    /// It has the number of no series, or names a column that there is not.
    Unknown,
}

impl Reader {
    /// Notes a whole row, that of `sample`.
    pub(super) fn note(&mut self, line: &[u8], sample: &Sample) -> Result<(), Fault> {
        let Number { row } = serde_json::from_slice(line).map_err(Fault::Json)?;
        self.last_ns = sample.end_ns;
        let Some(row) = row else { return Ok(()) };
        let (series, latest) =
            self.rows.entry(row).or_insert_with(|| (sample.series.clone(), Latest::default()));
        if *series != sample.series {
            (*series, *latest) = (sample.series.clone(), Latest::default());
        }
        latest.take_whole(sample, &mut self.layouts);
        Ok(())
    }

    /// The reading of a row of changes.
    pub(super) fn read(&mut self, line: &[u8]) -> Result<Sample, Fault> {
        let Changes(number, begin, length, differences, toggled) =
            serde_json::from_slice(line).map_err(Fault::Json)?;
        let (series, latest) = self.rows.get_mut(&number).ok_or(Fault::Unknown)?;
        latest.apply(&differences, &toggled).ok_or(Fault::Unknown)?;
        let begin_ns = self.last_ns.wrapping_add_signed(begin);
        self.last_ns = begin_ns.wrapping_add_signed(length);
        Ok(latest.sample(series.clone(), begin_ns, self.last_ns))
    }
}

/// From one time to another.
const fn difference(to: u64, from: u64) -> i64 {
    to.wrapping_sub(from).cast_signed()
}

/// Whether a line is a row of changes.
pub(super) fn is_changes(line: &[u8]) -> bool {
    line.first() == Some(&b'[')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::super::entry::Entry;
    use super::*;

    fn read(reader: &mut Reader, line: &[u8]) -> Sample {
        if is_changes(line) {
            return reader.read(line).unwrap();
        }
        let Entry::Sample(sample) = serde_json::from_slice(line).unwrap() else { panic!("no sample") };
        reader.note(line, &sample).unwrap();
        sample
    }

    fn sample() -> impl Strategy<Value = Sample> {
        let series = prop_oneof![
            Just(SeriesId::System),
            (0..3u64).prop_map(SeriesId::Cgroup),
            (0..3u32).prop_map(SeriesId::Process)
        ];
        // Few values, so that many stay; and those that any arithmetic breaks at.
        let value = prop_oneof![0..3u64, Just(u64::MAX), Just(1 << 63), any::<u64>()];
        let values = prop::collection::btree_map("[a-e]", value, 0..5);
        let absent = prop_oneof![4 => Just(Vec::new()), 1 => Just(vec![("x".to_owned(), "gone".to_owned())])];
        (series, any::<u64>(), any::<u64>(), values, absent).prop_map(
            |(series, begin_ns, end_ns, values, absent)| Sample { series, begin_ns, end_ns, values, absent },
        )
    }

    proptest! {
        #[test]
        fn rows_are_read_as_the_readings_that_were_written(samples in prop::collection::vec(sample(), 0..60)) {
            let (mut writer, mut reader) = (Writer::default(), Reader::default());
            for sample in samples {
                let mut line = Vec::new();
                writer.write(&mut line, &sample).unwrap();
                prop_assert_eq!(read(&mut reader, &line), sample);
            }
        }
    }

    fn system(at: u64, value: u64) -> Sample {
        let values = BTreeMap::from([("a".to_owned(), value), ("b".to_owned(), 7)]);
        Sample { series: SeriesId::System, begin_ns: at, end_ns: at + 5, values, absent: Vec::new() }
    }

    #[test]
    fn only_what_has_changed_is_written_and_now_and_then_all() {
        let mut writer = Writer::default();
        let mut line = |at, value| {
            let mut line = Vec::new();
            writer.write(&mut line, &system(at, value)).unwrap();
            String::from_utf8(line).unwrap()
        };
        assert!(line(100, 3).starts_with(r#"{"entry":"sample","row":0,"series":"system","#));
        assert_eq!(line(205, 1), "[0,100,5,[0,-2],[]]");
        assert_eq!(line(310, 1), "[0,100,5,[],[]]");
        let whole = (0..3 * u64::from(CHANGES)).filter(|reading| line(1000 + reading, 1).starts_with('{'));
        assert_eq!(whole.count(), 2, "the first is 998 rows away");
    }

    #[test]
    fn numbers_are_given_again_and_memory_is_bounded() {
        let (mut writer, mut reader) = (Writer::default(), Reader::default());
        for round in 0..2 {
            for pid in 0..MOST_SERIES * 2 {
                let sample = Sample { series: SeriesId::Process(pid), ..system(u64::from(pid), round) };
                let mut line = Vec::new();
                writer.write(&mut line, &sample).unwrap();
                assert_eq!(read(&mut reader, &line), sample);
            }
        }
        let most = MOST_SERIES as usize;
        assert_eq!((writer.rows.len(), writer.numbers.len(), reader.rows.len()), (most, most, most));
        assert_eq!(writer.layouts.0.len(), 1);
    }

    #[test]
    fn rows_of_nothing_known_are_refused() {
        let mut reader = Reader::default();
        assert!(matches!(reader.read(b"[0,1,1,[],[]]"), Err(Fault::Unknown)));
        let mut line = Vec::new();
        Writer::default().write(&mut line, &system(1, 1)).unwrap();
        read(&mut reader, &line);
        for line in
            ["[0,1,1,[2,1],[]]", "[0,1,1,[-1,1],[]]", "[0,1,1,[0],[]]", "[0,1,1,[],[2]]", "[1,1,1,[],[]]"]
        {
            assert!(matches!(reader.read(line.as_bytes()), Err(Fault::Unknown)), "{line}");
        }
        for line in ["[", "[0,1,1,[],[]", "[0,1,1]", "[0,1.5,1,[],[]]"] {
            assert!(matches!(reader.read(line.as_bytes()), Err(Fault::Json(_))), "{line}");
        }
    }
}
