//! From readings to balances: which source holds how many bytes, and what the counters leave unexplained.
//!
//! A balance belongs to one plane. Planes overlap (a charged page is in both), so no sum crosses them.

use std::collections::BTreeSet;

use spark_trace_common::source::{SOURCES, Source, Term, UNATTRIBUTED, counts_from_start, expected};

use crate::{Column, Series};

mod derived;
mod device;
pub mod heights;

pub use device::processes as device_processes;

/// A set of counters that partition one amount of memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plane {
    /// MemTotal - MemFree of the machine.
    System,
    /// What is charged to a cgroup of the first hierarchy version.
    CgroupV1,
    /// What is charged to a cgroup of the second hierarchy version.
    CgroupV2,
    /// The memory of one GPU's own that is not free.
    Device,
}

/// What a balance needs to know beside the counters.
#[derive(Debug, Clone, Copy, Default)]
pub struct Facts<'a> {
    /// Kernel stacks lie in vmalloc space, as the recording's host says.
    pub vmap_stack: Option<bool>,
    /// The target's processes; absent where every process is the target's.
    pub target: Option<&'a BTreeSet<u32>>,
    /// Columns that were counted from the start of the trace, whether or not there was anything to count: a series
    /// without one of them has zero there.
    pub followed: Option<&'a BTreeSet<&'static str>>,
}

impl Facts<'_> {
    fn is_target(&self, pid: u32) -> bool {
        self.target.is_none_or(|pids| pids.contains(&pid))
    }
}

impl Plane {
    /// The cgroup plane whose charge counter `series` has.
    pub fn of_cgroup(series: &Series) -> Option<Self> {
        [Self::CgroupV2, Self::CgroupV1].into_iter().find(|plane| plane.is_in(series))
    }

    /// Whether `series` has the counters this plane's rows must add up to.
    pub fn is_in(self, series: &Series) -> bool {
        self.expected().iter().all(|term| series.columns.contains_key(term.column))
    }

    /// The counter that the rows must add up to.
    pub fn expected(self) -> &'static [Term] {
        match self {
            Self::System => expected::SYSTEM,
            Self::CgroupV1 => expected::CGROUP_V1,
            Self::CgroupV2 => expected::CGROUP_V2,
            Self::Device => expected::DEVICE,
        }
    }

    /// Whether `source` has a row on this plane. Memory of a device is no memory of the system: neither's rows
    /// are on the other's planes.
    pub fn has(self, source: &Source) -> bool {
        source.slug == UNATTRIBUTED || (self == Self::Device) != source.device.is_empty()
    }

    /// Sources with a row on this plane, in the order of [`SOURCES`]; `unattributed` is the last.
    pub fn sources(self) -> impl Iterator<Item = &'static Source> {
        SOURCES.iter().filter(move |source| self.has(source))
    }

    /// The counters that `source` is made of on this plane.
    pub fn terms(self, source: &Source) -> &'static [Term] {
        match self {
            Self::System => source.system,
            Self::CgroupV1 => source.cgroup_v1,
            Self::CgroupV2 => source.cgroup_v2,
            Self::Device => source.device,
        }
    }
}

/// Who holds the memory of one plane at one time.
#[derive(Debug, Clone)]
pub struct Balance {
    /// Middle of the reading's window.
    pub at_ns: u64,
    /// One row per source that counters can give, in the order of [`SOURCES`]; `unattributed` is the residual.
    pub rows: Vec<Row>,
    /// The plane's own counter; absent where it could not be read.
    pub expected: Option<u64>,
    /// Sum of the rows.
    pub attributed: u64,
    /// `expected - attributed`. Counters are read one after the other, so it may fall below zero.
    pub residual: Option<i64>,
}

#[derive(Debug, Clone, Copy)]
pub struct Row {
    pub source: &'static Source,
    /// Absent where the kernel does not say, or could not be read this time.
    pub bytes: Option<u64>,
}

impl Balance {
    /// A balance of rows that are known already.
    pub fn new(at_ns: u64, rows: Vec<Row>, expected: Option<u64>) -> Self {
        let attributed = rows.iter().filter_map(|row| row.bytes).fold(0, u64::saturating_add);
        let residual = expected.map(|expected| signed(i128::from(expected) - i128::from(attributed)));
        Self { at_ns, rows, expected, attributed, residual }
    }

    /// Level of the source called `slug`.
    pub fn bytes(&self, slug: &str) -> Option<u64> {
        self.rows.iter().find(|row| row.source.slug == slug)?.bytes
    }

    /// The same rows, all empty: the bytes of a cgroup before it was created.
    pub fn emptied(&self, at_ns: u64) -> Self {
        let rows = self.rows.iter().map(|row| Row { bytes: row.bytes.map(|_| 0), ..*row }).collect();
        Self::new(at_ns, rows, self.expected.map(|_| 0))
    }

    /// Both balances as one: cgroups that do not contain each other. What one of them does not know, nobody knows.
    pub fn plus(&self, other: &Self) -> Self {
        let sum = |a: Option<u64>, b: Option<u64>| Some(a?.saturating_add(b?));
        let rows =
            self.rows.iter().map(|row| Row { bytes: sum(row.bytes, other.bytes(row.source.slug)), ..*row });
        Self::new(self.at_ns, rows.collect(), sum(self.expected, other.expected))
    }
}

/// Middle of the window of reading `index`.
pub fn time_of(series: &Series, index: usize) -> Option<u64> {
    let (&begin, &end) = (series.begin_ns.get(index)?, series.end_ns.get(index)?);
    Some(begin + end.saturating_sub(begin) / 2)
}

/// The reading nearest to `at_ns`, in either direction: the planes are read one after the other, so the reading that
/// belongs to another plane's is as likely just after it as just before.
pub fn nearest(series: &Series, at_ns: u64) -> Option<usize> {
    let after = series.begin_ns.partition_point(|&begin_ns| begin_ns <= at_ns);
    let distance = |&index: &usize| time_of(series, index).map(|time| time.abs_diff(at_ns));
    [after.saturating_sub(1), after].into_iter().filter(|i| distance(i).is_some()).min_by_key(distance)
}

/// The last reading that had begun by `at_ns`; before all of them the first.
pub fn last_by(series: &Series, at_ns: u64) -> usize {
    series.begin_ns.partition_point(|&begin_ns| begin_ns <= at_ns).saturating_sub(1)
}

/// The balance of reading `index` of `series`.
pub fn balance(plane: Plane, facts: Facts<'_>, series: &Series, index: usize) -> Option<Balance> {
    let at_ns = time_of(series, index)?;
    let reading = Reading { plane, facts, series, index };
    let rows = plane
        .sources()
        .filter(|source| source.slug != UNATTRIBUTED)
        .map(|source| Row { source, bytes: reading.level(plane.terms(source)) })
        .collect();
    Some(Balance::new(at_ns, rows, reading.level(plane.expected())))
}

/// How high the plane stands at reading `index`, without its rows: its own counter, of the machine's memory what is in
/// use of it.
pub fn height_at(plane: Plane, series: &Series, index: usize) -> Option<u64> {
    let has = |term: &Term| series.columns.contains_key(term.column);
    let terms = match plane {
        Plane::System if expected::SYSTEM_USED.iter().all(has) => expected::SYSTEM_USED,
        plane => plane.expected(),
    };
    Reading { plane, facts: Facts::default(), series, index }.level(terms)
}

/// The plane's own counter at reading `index`, without its rows.
pub fn expected_at(plane: Plane, series: &Series, index: usize) -> Option<u64> {
    Reading { plane, facts: Facts::default(), series, index }.level(plane.expected())
}

/// What a column says at one reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cell {
    /// The kernel has no such counter: it counts as nothing where other counters of the row exist.
    NoColumn,
    /// It has one, but it was not read this time. Unknown is never zero.
    Unknown,
    Known(u64),
}

/// One reading of a series, as terms see it.
struct Reading<'a> {
    plane: Plane,
    facts: Facts<'a>,
    series: &'a Series,
    index: usize,
}

impl Reading<'_> {
    /// Sum of `terms`, not below zero; absent where no column that adds to it exists, or one was not read.
    fn level(&self, terms: &[Term]) -> Option<u64> {
        let mut sum = 0;
        let mut adds = false;
        for term in terms {
            match self.cell(term.column) {
                Cell::NoColumn => {}
                Cell::Unknown => return None,
                Cell::Known(value) if term.negative => sum -= i128::from(value),
                Cell::Known(value) => {
                    sum += i128::from(value);
                    adds = true;
                }
            }
        }
        adds.then(|| unsigned(sum))
    }

    fn cell(&self, column: &str) -> Cell {
        match derived::by_name(column) {
            Some(derive) => derive(self),
            None => self.recorded(column),
        }
    }

    fn recorded(&self, column: &str) -> Cell {
        match self.series.columns.get(column) {
            None if self.facts.followed.is_some_and(|followed| followed.contains(column)) => Cell::Known(0),
            None => Cell::NoColumn,
            Some(values) => match values.get(self.index) {
                Some(value) => Cell::Known(value),
                None if counts_from_start(column) && is_before_first(values, self.index) => Cell::Known(0),
                None => Cell::Unknown,
            },
        }
    }
}

fn is_before_first(values: &Column, index: usize) -> bool {
    values.iter().take(index).all(|value| value.is_none()) && values.known().next().is_some()
}

fn unsigned(bytes: i128) -> u64 {
    u64::try_from(bytes.max(0)).unwrap_or(u64::MAX)
}

fn signed(bytes: i128) -> i64 {
    // Only counters that no machine has come near the ends.
    i64::try_from(bytes).unwrap_or(if bytes < 0 { i64::MIN } else { i64::MAX })
}

#[cfg(test)]
mod tests;
