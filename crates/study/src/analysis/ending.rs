//! When a look ends a model: its other rounds could change nothing that the study is about.
//!
//! All primary metrics of the model must be decided, in all environments: the interval of the difference lies inside of the margin, or
//! outside of it, and the verdict says the same, so that diagnostics and failed runs have their say. The interval holds at all looks
//! and for all primary comparisons that the plan will have (Bonferroni), not only for those that there are yet.

use super::compare::Comparison;
use super::role::Role;
use super::sample::Sample;
use super::{Options, Report, Verdict, report};
use crate::results::Results;

/// A model that ends, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ending {
    /// The look, from 1.
    pub number: usize,
    pub looks: usize,
    /// Rounds that it is of.
    pub round: u32,
    pub because: String,
}

/// Nothing where the model is at none of the plan's looks, or one of its primary metrics is not decided.
pub fn of(results: &Results, model: &str, options: Options) -> Option<Ending> {
    let report = report(results, Options { resamples: 0, ..options });
    let look = report.looks.iter().find(|look| look.model == model)?;
    if !look.declared || look.level <= 0.0 || look.is_last() {
        return None;
    }
    // What cannot be compared is not decided.
    let is_primary = |name: &str| report.primary.iter().any(|primary| primary.metric == name);
    if report.absent.iter().any(|row| row.model == model && is_primary(&row.subject.name)) {
        return None;
    }
    let rows: Vec<&Comparison> = rows(&report, model).collect();
    let family = planned(results, &report);
    let decided: Option<Vec<String>> = rows.iter().map(|row| decided(row, look.level / family)).collect();
    let because = decided.filter(|decided| !decided.is_empty())?.join("; ");
    Some(Ending { number: look.number, looks: look.looks, round: look.round, because })
}

fn rows<'a>(report: &'a Report, model: &'a str) -> impl Iterator<Item = &'a Comparison> {
    report.comparisons.iter().filter(move |row| row.model == model && row.role == Role::Primary && !row.alike)
}

/// Primary comparisons of the whole plan.
fn planned(results: &Results, report: &Report) -> f64 {
    let others = results.environments.len().saturating_sub(1);
    (report.primary.len() * results.models.len() * others).max(1) as f64
}

/// Where the interval lies, in words; nothing where it lies across an end of the margin.
fn decided(row: &Comparison, alpha: f64) -> Option<String> {
    let margin = row.margin?;
    let (low, high) = Sample::of(&row.a_values, &row.b_values).test(1.0 - alpha).ok()?.ci;
    let place = if -margin < low && high < margin && row.verdict == Verdict::Equivalent {
        "inside of"
    } else if (low > margin || high < -margin) && row.verdict == Verdict::Different {
        "outside of"
    } else {
        return None;
    };
    let unit = &row.subject.unit;
    Some(format!(
        "the difference of {} in {}, {low:+.3} to {high:+.3} {unit}, is {place} the margin of {margin:.3}",
        row.subject.name, row.b_name
    ))
}
