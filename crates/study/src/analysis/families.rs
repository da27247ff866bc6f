//! Which comparisons are adjusted for each other.
//!
//! The primary metrics of all models are one family under Holm's method. The others are exploratory: of those that are called different
//! a part of alpha at most is expected to be wrong (Benjamini and Hochberg), in each list. Metrics that are functions of others are
//! no further questions, and a list of their own.

use serde::Serialize;
use spark_trace_statistics::{Error, multiple};

use super::compare::Comparison;
use super::role::Role;
use super::sample::Sample;

/// How many comparisons each family has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Sizes {
    pub primary: usize,
    pub exploratory: usize,
    /// Of metrics that are functions of others: a list of their own, so they cost the others nothing.
    pub derived: usize,
}

impl Sizes {
    /// What p are adjusted for.
    pub fn written(self) -> String {
        let Self { primary, exploratory, derived } = self;
        let of_derived = match derived {
            0 => String::new(),
            _ => format!(
                "; the {derived} of functions of other metrics count in neither and have a rate of their own"
            ),
        };
        format!(
            "Holm's method over the {primary} comparisons of primary metrics; the false discovery rate over the {exploratory} \
             others{of_derived}"
        )
    }
}

type Method = fn(&[f64]) -> Result<Vec<f64>, Error>;

pub fn adjust(metrics: &mut [Comparison], sources: &mut [Comparison]) -> Sizes {
    let primary = |row: &Comparison| row.role == Role::Primary && !row.alike;
    let others = |row: &Comparison| row.role == Role::Exploratory && !row.alike;
    let derived = |row: &Comparison| row.role == Role::Derived && !row.alike;
    let sizes = Sizes {
        primary: holm(metrics, primary),
        exploratory: rates(metrics, others),
        derived: rates(metrics, derived),
    };
    rates(metrics, |row| row.alike);
    // A source that is the same in all runs is no question.
    rates(sources, |row| !row.alike && row.difference != 0.0);
    rates(sources, |row| row.alike && row.difference != 0.0);
    sizes
}

fn holm(rows: &mut [Comparison], of: fn(&Comparison) -> bool) -> usize {
    let many = set(rows, of, multiple::holm, |row| row.p, |row, p| row.p_holm = Some(p));
    set(rows, of, multiple::bonferroni, |row| row.p, |row, p| row.p_bonferroni = Some(p));
    set(rows, of, multiple::holm, raw_equivalence, |row, p| row.equivalence_p = Some(p));
    for row in rows.iter_mut().filter(|row| of(row) && row.p.is_some()) {
        let level = 1.0 - row.alpha / many as f64;
        let sample = Sample::of(&row.a_values, &row.b_values);
        row.ci_simultaneous = sample.test(level).ok().map(|test| test.ci);
    }
    many
}

fn rates(rows: &mut [Comparison], of: fn(&Comparison) -> bool) -> usize {
    set(rows, of, multiple::benjamini_hochberg, raw_equivalence, |row, p| row.equivalence_p = Some(p));
    set(rows, of, multiple::benjamini_hochberg, |row| row.p, |row, p| row.p_fdr = Some(p))
}

fn raw_equivalence(row: &Comparison) -> Option<f64> {
    row.equivalence.as_ref().map(|tost| tost.p)
}

/// Adjusts the p of one family; how large it is.
fn set(
    rows: &mut [Comparison],
    of: fn(&Comparison) -> bool,
    method: Method,
    p: fn(&Comparison) -> Option<f64>,
    put: fn(&mut Comparison, f64),
) -> usize {
    let (places, known): (Vec<usize>, Vec<f64>) = rows
        .iter()
        .enumerate()
        .filter(|(_, row)| of(row))
        .filter_map(|(place, row)| Some((place, p(row)?)))
        .unzip();
    let Ok(adjusted) = method(&known) else { return 0 };
    for (place, adjusted) in places.iter().zip(adjusted) {
        put(&mut rows[*place], adjusted);
    }
    places.len()
}
