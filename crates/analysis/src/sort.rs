//! The order of a report's rows, and how many of its lists are shown.

use std::cmp::Reverse;

use spark_trace_common::source::UNATTRIBUTED;

use crate::{attribution, diff};

/// What source rows are ordered by. `unattributed` is last in any case: it is what the others leave.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Sort {
    /// The taxonomy's order.
    #[default]
    Source,
    /// The largest at the instant first; of two recordings by the larger side.
    Bytes,
    /// The largest change first: since the start, or from one recording to the other.
    Delta,
}

impl Sort {
    pub const ALL: [Self; 3] = [Self::Source, Self::Bytes, Self::Delta];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Bytes => "bytes",
            Self::Delta => "delta",
        }
    }
}

/// A report that can be put in order.
pub trait Arrange {
    fn sort(&mut self, sort: Sort);
    /// Shortens every list of details; they have their largest first.
    fn keep(&mut self, top: usize);
}

impl Arrange for attribution::Report {
    fn sort(&mut self, sort: Sort) {
        for plane in self.planes.iter_mut() {
            sort_rows(&mut plane.sources, sort, |row| (row.source, row.bytes, row.growth));
        }
    }

    fn keep(&mut self, top: usize) {
        self.stacks.truncate(top);
        self.files.truncate(top);
        self.cgroups.truncate(top);
        self.processes.truncate(top);
        self.regions.truncate(top);
        self.mappings.truncate(top);
        self.contexts.truncate(top);
        self.tmpfs.truncate(top);
        self.log_lines.truncate(top);
        if let Some(cuda) = &mut self.cuda {
            cuda.processes.truncate(top);
            cuda.stacks.truncate(top);
            cuda.failures.truncate(top);
            cuda.events.truncate(top);
        }
        if let Some(queries) = &mut self.queries {
            queries.summaries.truncate(top);
            queries.rows.truncate(top);
            queries.folded.truncate(top);
        }
    }
}

impl Arrange for diff::Report {
    fn sort(&mut self, sort: Sort) {
        sort_rows(&mut self.sources, sort, |row| (row.source, row.a_bytes.max(row.b_bytes), row.delta_bytes));
    }

    fn keep(&mut self, top: usize) {
        self.files.truncate(top);
        self.stacks.truncate(top);
        self.regions.truncate(top);
        if let Some(cuda) = &mut self.cuda {
            cuda.queries.truncate(top);
        }
    }
}

/// Orders rows by what `of` takes from them: source, size and change. Stable, so equals stay in the taxonomy's order.
fn sort_rows<T>(rows: &mut [T], sort: Sort, of: impl Fn(&T) -> (&'static str, Option<i64>, Option<i64>)) {
    let size = |bytes: Option<i64>| Reverse(bytes.map(i64::unsigned_abs));
    rows.sort_by_key(|row| {
        let (source, bytes, delta) = of(row);
        let key = match sort {
            Sort::Source => return (source == UNATTRIBUTED, size(None)),
            Sort::Bytes => bytes,
            Sort::Delta => delta,
        };
        (source == UNATTRIBUTED, size(key))
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::instant_spec::InstantSpec;
    use spark_trace_testing as testing;

    #[test]
    fn the_largest_come_first_and_unattributed_last() {
        let mut report = attribution::report(&testing::container(), InstantSpec::Peak);
        let mut order = |sort| {
            report.sort(sort);
            let rows = &report.planes.system.as_ref().unwrap().sources;
            let slugs: Vec<_> = rows.iter().map(|row| row.source).collect();
            (slugs[0], slugs[1], *slugs.last().unwrap())
        };
        assert_eq!(order(Sort::Bytes), ("file-clean", "anon", UNATTRIBUTED));
        assert_eq!(order(Sort::Delta), ("file-clean", "anon", UNATTRIBUTED));
    }

    #[test]
    fn lists_are_shortened() {
        let (a, b) = (testing::native(), testing::container());
        let mut report = diff::report(&a, &b, None, InstantSpec::Peak).unwrap();
        report.keep(1);
        report.sort(Sort::Delta);
        assert_eq!(report.files.len(), 1);
        assert_eq!(report.sources[0].source, "file-clean");
    }
}
