//! Whose a row of a list is: the target's, spark-trace's own, or somebody else's.

use serde::Serialize;

/// Rows of the target come first in every list; those of others are one sum.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Whose {
    #[default]
    Target,
    /// What spark-trace took itself: its own files, and those that it read for names.
    Tracer,
    Others,
}

impl Whose {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Target => "target",
            Self::Tracer => "spark-trace",
            Self::Others => "others",
        }
    }
}

/// Rows that are not listed one by one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Sum {
    pub rows: usize,
    pub bytes: i64,
}

/// What others have, in lists that name the target's rows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Sums {
    pub tracer: Sum,
    pub others: Sum,
}

impl Sums {
    /// Adds up the rows that are not the target's.
    pub fn of<T>(rows: &[T], whose: impl Fn(&T) -> Whose, bytes: impl Fn(&T) -> i64) -> Self {
        let mut sums = Self::default();
        for row in rows {
            let sum = match whose(row) {
                Whose::Target => continue,
                Whose::Tracer => &mut sums.tracer,
                Whose::Others => &mut sums.others,
            };
            sum.rows += 1;
            sum.bytes = sum.bytes.saturating_add(bytes(row));
        }
        sums
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_others_are_added_up_and_those_of_the_target_are_not() {
        let rows = [
            (Whose::Target, 5),
            (Whose::Others, 7),
            (Whose::Tracer, 1),
            (Whose::Others, -2),
            (Whose::Target, 9),
        ];
        let sums = Sums::of(&rows, |row| row.0, |row| row.1);
        assert_eq!(sums.others, Sum { rows: 2, bytes: 5 });
        assert_eq!(sums.tracer, Sum { rows: 1, bytes: 1 });
    }
}
