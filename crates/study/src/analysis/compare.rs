//! One metric of one model in two environments: every figure, and the verdict.

use serde::Serialize;
use spark_trace_statistics::bootstrap::{self, Bootstrap, Statistic};
use spark_trace_statistics::effect::{self, EffectSize};
use spark_trace_statistics::equivalence::{self, Tost};
use spark_trace_statistics::normality::{self, ShapiroWilk};
use spark_trace_statistics::outliers::{self, Label};
use spark_trace_statistics::power;
use spark_trace_statistics::rank::{self, MannWhitney, Wilcoxon};
use spark_trace_statistics::spread::{self, BrownForsythe};
use spark_trace_statistics::t::{self, TTest};
use spark_trace_statistics::{Description, LEVEL, describe};

use super::diagnostics::{self, Diagnostics};
use super::{Options, Subject, Verdict};
use crate::results::{Results, Run};

/// Differences are B minus A. What a figure is not defined for is absent.
#[derive(Debug, Clone, Serialize)]
pub struct Comparison {
    pub model: String,
    pub a_name: String,
    pub b_name: String,
    pub subject: Subject,
    pub a: Description,
    pub b: Description,
    /// In the order of running.
    pub a_values: Vec<Point>,
    pub b_values: Vec<Point>,
    /// Mean of B less mean of A.
    pub difference: f64,
    /// Its interval by Welch's test; of pairs by theirs.
    pub ci: Option<(f64, f64)>,
    /// Of A's mean.
    pub relative: Option<f64>,
    pub welch: Option<TTest>,
    pub student: Option<TTest>,
    /// Of runs of one round.
    pub paired: Option<TTest>,
    /// Autocorrelation of the pairs' differences that p, interval and equivalence allow for; 0 where it is not positive.
    pub dependence: Option<f64>,
    pub wilcoxon: Option<Wilcoxon>,
    pub mann_whitney: Option<MannWhitney>,
    pub shapiro_a: Option<ShapiroWilk>,
    pub shapiro_b: Option<ShapiroWilk>,
    pub brown_forsythe: Option<BrownForsythe>,
    pub cohen_d: Option<EffectSize>,
    pub hedges_g: Option<EffectSize>,
    pub cohen_dz: Option<EffectSize>,
    /// To find an effect as large as this one.
    pub power: Option<f64>,
    /// Runs of each environment that would find it with a power of 0.8.
    pub n_for_080: Option<usize>,
    pub bootstrap: Option<Bootstrap>,
    /// Whether the means are the same within the margin.
    pub equivalence: Option<Tost>,
    /// Which test the verdict rests on.
    pub test: &'static str,
    pub p: Option<f64>,
    pub p_holm: Option<f64>,
    pub p_bonferroni: Option<f64>,
    /// Both environments are the same: the difference is noise.
    pub alike: bool,
    /// What environments that are the same differ by in this metric, where the study has such.
    pub noise: Option<f64>,
    pub diagnostics: Diagnostics,
    pub verdict: Verdict,
    pub because: String,
    /// In the classes of the published study's README; absent where neither is better.
    pub overhead: Option<String>,
}

/// One run's value.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Point {
    /// Place in the study's order.
    pub number: u32,
    pub round: Option<u32>,
    pub value: f64,
    /// By Tukey's fences within its environment: named, and kept.
    pub outlier: bool,
}

/// Nothing where one side has no values.
pub fn compare(
    results: &Results,
    model: &str,
    (a_name, b_name): (&str, &str),
    subject: Subject,
    value: &impl Fn(&Run) -> Option<f64>,
    options: Options,
) -> Option<Comparison> {
    let points = |environment: &str| points(results.cell(model, environment), value);
    let (a_values, b_values) = (points(a_name), points(b_name));
    let values = |points: &[Point]| points.iter().map(|point| point.value).collect::<Vec<_>>();
    let (a, b) = (values(&a_values), values(&b_values));
    let (described_a, described_b) = (describe(&a)?, describe(&b)?);
    let (pairs_a, pairs_b) = pairs(&a_values, &b_values);
    let difference = described_b.mean - described_a.mean;
    let welch = t::welch(&a, &b, LEVEL).ok();
    let paired = t::paired(&pairs_a, &pairs_b, LEVEL).ok().filter(|_| pairs_a.len() > 2);
    // Neighbouring pairs may have something in common.
    let in_order = t::paired_in_order(&pairs_a, &pairs_b, LEVEL).ok().filter(|_| pairs_a.len() > 2);
    let differences: Vec<f64> = pairs_a.iter().zip(&pairs_b).map(|(a, b)| b - a).collect();
    let cohen_d = effect::cohen_d(&a, &b, LEVEL).ok();
    // Runs of one round are next to each other: what they share drops out of their difference.
    let (test, chosen) = match &in_order {
        Some((paired, _)) => ("paired t test", Some(paired)),
        None => ("Welch's t test", welch.as_ref()),
    };
    let margin = (described_a.mean * options.margin).abs();
    let equivalence = match in_order {
        Some(_) => equivalence::tost_paired_in_order(&pairs_a, &pairs_b, -margin, margin, options.alpha),
        None => equivalence::tost(&a, &b, -margin, margin, options.alpha),
    };
    let resampled = |statistic| bootstrap::ci(&a, &b, statistic, options.resamples, LEVEL, options.seed).ok();
    Some(Comparison {
        model: model.to_owned(),
        a_name: a_name.to_owned(),
        b_name: b_name.to_owned(),
        difference,
        ci: chosen.map(|test| test.ci),
        relative: Some(difference / described_a.mean.abs()).filter(|relative| relative.is_finite()),
        p: chosen.map(|test| test.p),
        test,
        student: t::student(&a, &b, LEVEL).ok(),
        wilcoxon: rank::wilcoxon(&differences).ok(),
        mann_whitney: rank::mann_whitney(&a, &b).ok(),
        shapiro_a: normality::shapiro_wilk(&a).ok(),
        shapiro_b: normality::shapiro_wilk(&b).ok(),
        brown_forsythe: spread::brown_forsythe(&[&a, &b]).ok(),
        hedges_g: effect::hedges_g(&a, &b, LEVEL).ok(),
        cohen_dz: effect::cohen_dz(&pairs_a, &pairs_b, LEVEL).ok().filter(|_| paired.is_some()),
        power: cohen_d
            .as_ref()
            .and_then(|d| power::two_sample(d.value, a.len(), b.len(), options.alpha).ok()),
        n_for_080: cohen_d.as_ref().and_then(|d| power::n_for(d.value, 0.8, options.alpha).ok()),
        bootstrap: (options.resamples > 0).then(|| resampled(Statistic::DifferenceOfMedians)).flatten(),
        diagnostics: diagnostics::of(
            results,
            model,
            (a_name, b_name),
            &subject,
            value,
            (difference, paired.is_some()),
            options,
        ),
        dependence: in_order.as_ref().map(|(_, r)| *r),
        equivalence: equivalence.ok(),
        alike: results.are_alike(a_name, b_name),
        noise: None,
        p_holm: None,
        p_bonferroni: None,
        verdict: Verdict::Undecided,
        because: String::new(),
        overhead: overhead(&subject, difference, described_a.mean),
        a: described_a,
        b: described_b,
        welch,
        paired,
        cohen_d,
        a_values,
        b_values,
        subject,
    })
}

fn points<'a>(runs: impl Iterator<Item = &'a Run>, value: &impl Fn(&Run) -> Option<f64>) -> Vec<Point> {
    let known = runs.filter_map(|run| Some((run, value(run).filter(|value| value.is_finite())?)));
    let mut points: Vec<Point> = known
        .map(|(run, value)| Point { number: run.number, round: run.round, value, outlier: false })
        .collect();
    let values: Vec<f64> = points.iter().map(|point| point.value).collect();
    if let Ok(tukey) = outliers::tukey(&values) {
        for (point, label) in points.iter_mut().zip(tukey.labels) {
            point.outlier = label != Label::Inside;
        }
    }
    points
}

/// Values of the rounds that both have.
fn pairs(a: &[Point], b: &[Point]) -> (Vec<f64>, Vec<f64>) {
    let of_round = |round: u32| b.iter().find(|point| point.round == Some(round));
    a.iter().filter_map(|point| Some((point.value, of_round(point.round?)?.value))).unzip()
}

impl Comparison {
    /// Decides, once p is adjusted.
    pub fn judge(&mut self, options: Options) {
        let (verdict, because) = self.verdict(options);
        (self.verdict, self.because) = (verdict, because);
    }

    fn verdict(&self, options: Options) -> (Verdict, String) {
        if self.a.n < 2 || self.b.n < 2 {
            return (Verdict::NotComparable, format!("{} and {} runs are too few", self.a.n, self.b.n));
        }
        if let Some(problem) = self.diagnostics.problems.iter().max_by_key(|problem| problem.verdict) {
            let all: Vec<_> = self.diagnostics.problems.iter().map(|problem| problem.what.as_str()).collect();
            return (problem.verdict, all.join("; "));
        }
        let Some(p) = self.p_holm.or(self.p) else {
            return match self.difference == 0.0 {
                true => (Verdict::Equivalent, "all runs have the same value".to_owned()),
                false => {
                    (Verdict::Different, "no run of one has the other's value, without any spread".to_owned())
                }
            };
        };
        let adjusted = if self.p_holm.is_some() { "p adjusted by Holm's method" } else { "p" };
        let p_value = format!("{adjusted} is {} by {}", written_p(p), self.test);
        let same = self.equivalence.as_ref().is_some_and(|tost| tost.equivalent);
        let margin = options.margin * 100.0;
        if let Some(noise) = self.noise.filter(|noise| p < options.alpha && self.difference.abs() <= *noise) {
            let unit = &self.subject.unit;
            return (
                Verdict::Undecided,
                format!("{p_value}, but environments that are the same differ by {noise:.3} {unit}"),
            );
        }
        match (p < options.alpha, same) {
            (true, false) => (Verdict::Different, p_value),
            // Found with certainty, and too small to matter.
            (true, true) => {
                (Verdict::Equivalent, format!("{p_value}, but the means are the same within {margin} %"))
            }
            (false, true) => {
                (Verdict::Equivalent, format!("the means are the same within {margin} %; {p_value}"))
            }
            (false, false) => (
                Verdict::Undecided,
                format!("{p_value}; nor are the means shown to be the same within {margin} %"),
            ),
        }
    }
}

/// A p as papers print it.
pub fn written_p(p: f64) -> String {
    match p {
        p if p < 1e-4 => format!("{p:.1e}"),
        p => format!("{p:.4}"),
    }
}

/// Of the classes below 10 %, 20 to 40 % and above 40 % two leave a gap, which is named.
fn overhead(subject: &Subject, difference: f64, baseline: f64) -> Option<String> {
    let worse = match subject.better? {
        "more" => -difference,
        _ => difference,
    };
    let percent = worse / baseline.abs() * 100.0;
    let class = match percent {
        percent if !percent.is_finite() => return None,
        percent if percent < 0.0 => "better than the baseline",
        percent if percent < 10.0 => "below 10 %",
        percent if percent < 20.0 => "between 10 and 20 %, which the published classes leave out",
        percent if percent <= 40.0 => "20 to 40 %",
        _ => "above 40 %",
    };
    Some(format!("{percent:+.1} %: {class}"))
}
