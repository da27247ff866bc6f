//! One metric of one model in two environments: every figure, and the verdict.

use serde::Serialize;
use spark_trace_statistics::bootstrap::{self, Bootstrap, Statistic};
use spark_trace_statistics::dependence::Dependence;
use spark_trace_statistics::effect::{self, EffectSize};
use spark_trace_statistics::equivalence::Tost;
use spark_trace_statistics::normality::{self, ShapiroWilk};
use spark_trace_statistics::power;
use spark_trace_statistics::rank::{self, MannWhitney, Shift, Wilcoxon};
use spark_trace_statistics::ratio::Ratio;
use spark_trace_statistics::spread::{self, BrownForsythe};
use spark_trace_statistics::t::{self, TTest};
use spark_trace_statistics::trimmed::{self, TRIM};
use spark_trace_statistics::{Description, LEVEL, describe};

use super::attrition::{self, Attrition, Bounds};
use super::diagnostics::{self, Diagnostics};
use super::looks::Look;
use super::role::Role;
pub use super::sample::Point;
use super::sample::{Sample, points};
use super::{Options, Subject, Verdict};
use crate::primary::{Margin, Primary};
use crate::results::{Results, Run};

/// Differences are B minus A. What a figure is not defined for is absent. Means, difference, interval, p, tests, effects, power
/// and bootstrap are of the same runs: of the rounds that both environments have, or of all runs where these are too few.
#[derive(Debug, Clone, Serialize)]
pub struct Comparison {
    pub model: String,
    pub a_name: String,
    pub b_name: String,
    pub subject: Subject,
    pub role: Role,
    /// Which one of other metrics, where it is a function of such.
    pub function: Option<String>,
    /// What the plan expects of a primary metric.
    pub hypothesis: Option<String>,
    pub a: Description,
    pub b: Description,
    /// All runs that have the metric, in the order of running.
    pub a_values: Vec<Point>,
    pub b_values: Vec<Point>,
    /// Runs of both without a partner in their round; they are in no figure but the diagnostics.
    pub unpaired: usize,
    /// Mean of B minus mean of A.
    pub difference: f64,
    /// Its interval by the test that the verdict rests on: at 95 %, over all looks at the study.
    pub ci: Option<(f64, f64)>,
    /// The same of a primary metric at 1 - alpha / size of the family (Bonferroni): all of them hold at once.
    pub ci_simultaneous: Option<(f64, f64)>,
    /// Mean of B over mean of A, with its interval (Fieller); absent where zero of the metric means nothing.
    pub ratio: Option<Ratio>,
    /// Of Hodges and Lehmann: a single wild run moves it little.
    pub shift: Option<Shift>,
    /// Of means without the fifth of the runs, or pairs, at either end (Yuen).
    pub trimmed: Option<TTest>,
    /// Of A's mean.
    pub relative: Option<f64>,
    pub welch: Option<TTest>,
    pub student: Option<TTest>,
    /// Of runs of one round.
    pub paired: Option<TTest>,
    /// What pairs have in common, for which p, interval and equivalence allow; absent where there are none.
    pub dependence: Option<Dependence>,
    pub wilcoxon: Option<Wilcoxon>,
    pub mann_whitney: Option<MannWhitney>,
    pub shapiro_a: Option<ShapiroWilk>,
    pub shapiro_b: Option<ShapiroWilk>,
    /// The paired test needs differences that are about normal.
    pub shapiro_differences: Option<ShapiroWilk>,
    pub brown_forsythe: Option<BrownForsythe>,
    pub cohen_d: Option<EffectSize>,
    pub hedges_g: Option<EffectSize>,
    pub cohen_dz: Option<EffectSize>,
    /// To find an effect as large as this one.
    pub power: Option<f64>,
    /// Runs of each environment that would find it with a power of 0.8.
    pub n_for_080: Option<usize>,
    pub bootstrap: Option<Bootstrap>,
    /// Means that differ by no more are the same, in the metric's unit.
    pub margin: Option<f64>,
    /// The same as the plan or the option says it.
    pub margin_written: Option<String>,
    /// Whether the means are the same within the margin.
    pub equivalence: Option<Tost>,
    /// Its p, adjusted as `p` is.
    pub equivalence_p: Option<f64>,
    /// What runs without a result could have made of the difference; absent where there are none.
    pub bounds: Option<Bounds>,
    /// Which test the verdict rests on.
    pub test: &'static str,
    /// False where the values, or the differences of pairs, are all the same, so that there is no standard error.
    pub varies: bool,
    pub p: Option<f64>,
    /// The level that decides: of this look, where the study is looked at more than once.
    pub alpha: f64,
    /// The level is that of a look.
    pub at_look: bool,
    /// Of primary metrics.
    pub p_holm: Option<f64>,
    pub p_bonferroni: Option<f64>,
    /// Of exploratory metrics: the false discovery rate (Benjamini and Hochberg).
    pub p_fdr: Option<f64>,
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

/// Why there is none: in words that follow the metric's name.
pub type Absent = String;

pub fn compare(
    results: &Results,
    attrition: &Attrition,
    subject: Subject,
    primary: Option<&Primary>,
    value: &impl Fn(&Run) -> Option<f64>,
    (options, look): (Options, Option<&Look>),
) -> Result<Comparison, Absent> {
    let alpha = look.map_or(options.alpha, |look| look.level);
    // Intervals that hold at all looks at once, where the study is looked at more than once (Jennison & Turnbull 1989).
    let level = look.filter(|look| look.level > 0.0).map_or(LEVEL, |look| 1.0 - look.level);
    let Attrition { model, a_name, b_name, .. } = attrition;
    let points = |environment: &str| points(results.cell(model, environment), value);
    let (a_values, b_values) = (points(a_name), points(b_name));
    let without: Vec<&str> = [(a_name, &a_values), (b_name, &b_values)]
        .into_iter()
        .filter(|(_, values)| values.is_empty())
        .map(|(name, _)| name.as_str())
        .collect();
    if !without.is_empty() {
        return Err(format!("no run of {} has a value", without.join(" and ")));
    }
    let sample = Sample::of(&a_values, &b_values);
    let Sample { a, b, paired: are_pairs, .. } = &sample;
    let computed = describe(a).zip(describe(b)).zip(t::mean_difference(a, b).ok());
    let Some(((described_a, described_b), means_differ_by)) = computed else {
        return Err("the values are too large or too small to compute with".to_owned());
    };
    let outcome = sample.outcome(level);
    let difference = outcome.as_ref().map_or(means_differ_by, |outcome| outcome.difference);
    let has_zero = has_zero(&subject);
    // A part of a mean means nothing where zero does not.
    let declared =
        primary.and_then(|primary| primary.margin).filter(|margin| has_zero || margin.is_absolute());
    let margin = declared.or_else(|| has_zero.then_some(Margin::Percent(options.margin * 100.0)));
    let margin_written = margin.map(|margin| margin.written(&subject.unit));
    let margin = margin.map(|margin| margin.of(described_a.mean)).filter(|margin| margin.is_finite());
    let ratio = sample.ratio(level);
    let shift = match are_pairs {
        true => rank::shift_of_pairs(&sample.differences(), level),
        false => rank::shift_of_samples(a, b, level),
    };
    let trimmed = match are_pairs {
        true => trimmed::yuen_of_pairs(a, b, TRIM, level),
        false => trimmed::yuen(a, b, TRIM, level),
    };
    let paired = if *are_pairs { t::paired(a, b, LEVEL).ok() } else { None };
    let cohen_dz = if *are_pairs { effect::cohen_dz(a, b, LEVEL).ok() } else { None };
    let cohen_d = effect::cohen_d(a, b, LEVEL).ok();
    // The power of the test that the verdict rests on.
    let (power, n_for_080) = match (&cohen_dz, &cohen_d) {
        (Some(dz), _) => (
            power::paired(dz.value, a.len(), options.alpha).ok(),
            power::n_for_paired(dz.value, 0.8, options.alpha).ok(),
        ),
        (None, Some(d)) if !are_pairs => (
            power::two_sample(d.value, a.len(), b.len(), options.alpha).ok(),
            power::n_for(d.value, 0.8, options.alpha).ok(),
        ),
        _ => (None, None),
    };
    let resampled = || match are_pairs {
        true => bootstrap::ci_of_pairs(a, b, options.resamples, level, options.seed),
        false => bootstrap::ci(a, b, Statistic::DifferenceOfMedians, options.resamples, level, options.seed),
    };
    Ok(Comparison {
        model: model.clone(),
        a_name: a_name.clone(),
        b_name: b_name.clone(),
        difference,
        unpaired: a_values.len() + b_values.len() - a.len() - b.len(),
        // Before the first look there is none that could hold.
        ci: outcome.as_ref().ok().and_then(|outcome| outcome.ci).filter(|_| alpha > 0.0),
        ci_simultaneous: None,
        relative: Some(difference / described_a.mean.abs())
            .filter(|relative| has_zero && relative.is_finite()),
        ratio: ratio.ok().filter(|_| has_zero),
        shift: shift.ok(),
        trimmed: trimmed.ok(),
        role: if primary.is_some() { Role::Primary } else { Role::Exploratory },
        function: None,
        hypothesis: primary.and_then(|primary| primary.hypothesis.clone()),
        p: outcome.as_ref().ok().map(|outcome| outcome.p),
        test: outcome.as_ref().map_or("no test", |outcome| outcome.test),
        dependence: sample.dependence,
        varies: outcome.as_ref().is_ok_and(|outcome| outcome.varies),
        welch: t::welch(a, b, LEVEL).ok(),
        student: t::student(a, b, LEVEL).ok(),
        wilcoxon: rank::wilcoxon(&sample.differences()).ok(),
        mann_whitney: rank::mann_whitney(a, b).ok(),
        shapiro_a: normality::shapiro_wilk(a).ok(),
        shapiro_b: normality::shapiro_wilk(b).ok(),
        shapiro_differences: normality::shapiro_wilk(&sample.differences()).ok(),
        brown_forsythe: spread::brown_forsythe(&[a, b]).ok(),
        hedges_g: effect::hedges_g(a, b, LEVEL).ok(),
        power,
        n_for_080,
        bootstrap: (options.resamples > 0).then(|| resampled().ok()).flatten(),
        diagnostics: diagnostics::of(
            results,
            model,
            (a_name, b_name),
            &subject,
            value,
            (difference, *are_pairs),
            options,
        ),
        equivalence: margin.and_then(|margin| sample.equivalence(margin, options.alpha)),
        bounds: attrition::bounds(results, attrition, (&a_values, &b_values), margin, options.alpha),
        margin,
        margin_written,
        equivalence_p: None,
        p_fdr: None,
        alike: results.are_alike(a_name, b_name),
        noise: None,
        p_holm: None,
        p_bonferroni: None,
        alpha,
        at_look: look.is_some(),
        verdict: Verdict::Undecided,
        because: String::new(),
        overhead: None,
        a: described_a,
        b: described_b,
        paired,
        cohen_d,
        cohen_dz,
        a_values,
        b_values,
        subject,
    })
}

/// Metrics whose zero is arbitrary, or near which they lie: no part and no ratio of them means anything.
const WITHOUT_ZERO: &[&str] = &["unattributed"];

pub fn has_zero(subject: &Subject) -> bool {
    let temperature =
        ["degC", "°C", "C", "celsius"].iter().any(|unit| subject.unit.eq_ignore_ascii_case(unit));
    !temperature && !WITHOUT_ZERO.contains(&subject.name.as_str())
}

impl Comparison {
    /// Adjusted for the other comparisons of its family.
    pub fn p_adjusted(&self) -> Option<f64> {
        self.p_holm.or(self.p_fdr).or(self.p)
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
pub(super) fn overhead(subject: &Subject, difference: f64, baseline: f64) -> Option<String> {
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
