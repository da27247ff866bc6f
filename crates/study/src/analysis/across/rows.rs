//! A figure of two studies, and its verdict.

use serde::Serialize;
use spark_trace_statistics::multiple;

use crate::analysis::compare::written_p;
use crate::analysis::{Options, Subject, Verdict};

/// B minus A, where A and B are studies.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    pub model: String,
    /// Of an overhead the environment that is compared with the baseline.
    pub environment: String,
    pub baseline: Option<String>,
    pub subject: Subject,
    pub primary: bool,
    pub a_n: usize,
    pub b_n: usize,
    pub a_mean: Option<f64>,
    pub b_mean: Option<f64>,
    pub difference: Option<f64>,
    pub ci: Option<(f64, f64)>,
    /// By Welch's t test.
    pub p: Option<f64>,
    /// Holm's of primary metrics, otherwise the false discovery rate; cells and overheads are families of their own.
    pub p_adjusted: Option<f64>,
    pub margin: Option<f64>,
    pub equivalence_p: Option<f64>,
    pub verdict: Verdict,
    pub because: String,
}

/// A p of a row, and where it goes when it is adjusted.
type Adjusted = (fn(&Row) -> Option<f64>, fn(&mut Row, f64));

pub(super) fn adjust(rows: &mut [Row]) {
    for primary in [true, false] {
        let method = if primary { multiple::holm } else { multiple::benjamini_hochberg };
        let of: [Adjusted; 2] = [
            (|row| row.p, |row, p| row.p_adjusted = Some(p)),
            (|row| row.equivalence_p, |row, p| row.equivalence_p = Some(p)),
        ];
        for (get, put) in of {
            let chosen = |row: &Row| row.primary == primary && row.verdict != Verdict::NotComparable;
            let (places, known): (Vec<usize>, Vec<f64>) = rows
                .iter()
                .enumerate()
                .filter(|(_, row)| chosen(row))
                .filter_map(|(place, row)| Some((place, get(row)?)))
                .unzip();
            let adjusted = method(&known).unwrap_or_default();
            places.into_iter().zip(adjusted).for_each(|(place, p)| put(&mut rows[place], p));
        }
    }
}

impl Row {
    pub(super) fn judge(&mut self, options: Options) {
        let Some(p) = self.p_adjusted.filter(|_| self.verdict == Verdict::Undecided) else { return };
        let different = p < options.alpha;
        let same = self.equivalence_p.is_some_and(|p| p < options.alpha);
        let failures = std::mem::take(&mut self.because);
        self.verdict = match (different, same) {
            (_, true) => Verdict::Equivalent,
            (true, false) => Verdict::Different,
            (false, false) => Verdict::Undecided,
        };
        let method = if self.primary { "Holm's method" } else { "the false discovery rate" };
        self.because = format!("p adjusted by {method} is {} by Welch's t test", written_p(p));
        if !failures.is_empty() {
            // Nobody knows what the runs would have shown that failed.
            (self.verdict, self.because) = (Verdict::Undecided, format!("{}, but {failures}", self.because));
        }
    }
}
