//! Comparisons as rows.

use crate::analysis::attrition::Course;
use crate::analysis::compare::written_p;
use crate::analysis::{Absent, Attrition, Comparison, Report};
use spark_trace_recording::units::UNKNOWN;
use spark_trace_render::csv::{self, Field};
use spark_trace_render::document::{Fit, Table};

type Cell = spark_trace_render::document::Cell<Comparison>;

/// A number with as many digits as matter beside the others of its metric.
pub fn number(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        size if size >= 1000.0 => format!("{value:.0}"),
        size if size >= 0.1 => format!("{value:.2}"),
        size if size >= 0.001 => format!("{value:.4}"),
        // Two digits that count, as long as a reader can count the zeros.
        size if size >= 1e-6 => {
            let decimals = (1.0 - size.log10().floor()) as usize;
            format!("{value:.decimals$}")
        }
        _ => format!("{value:.1e}"),
    }
}

/// With as many decimals as three digits of `spread` need.
pub fn to_spread(value: f64, spread: Option<f64>) -> String {
    match spread {
        // More decimals than nine are zeros that nobody counts.
        Some(spread) if spread >= 1e-7 && spread.is_normal() => {
            let decimals = (2.0 - spread.log10().floor()).clamp(0.0, 9.0) as usize;
            format!("{value:.decimals$}")
        }
        _ => number(value),
    }
}

/// A number of an axis, distinct from its neighbours.
pub fn step(value: f64, steps: &[f64]) -> String {
    to_spread(value, steps.get(1).zip(steps.first()).map(|(second, first)| (second - first) * 100.0))
}

pub fn signed(value: f64) -> String {
    let text = number(value);
    if value > 0.0 { format!("+{text}") } else { text }
}

fn known(value: Option<f64>, format: fn(f64) -> String) -> String {
    value.map_or_else(|| UNKNOWN.to_owned(), format)
}

fn mean(described: &spark_trace_statistics::Description) -> String {
    let sd = described.sd.map_or_else(|| UNKNOWN.to_owned(), |sd| to_spread(sd, described.sd));
    format!("{} ± {sd}", to_spread(described.mean, described.sd))
}

pub fn interval(ci: Option<(f64, f64)>) -> String {
    ci.map_or_else(|| UNKNOWN.to_owned(), |(low, high)| format!("{} to {}", signed(low), signed(high)))
}

/// What a reader looks at first.
pub const MAIN: &[Cell] = &[
    ("METRIC", Fit::Name, |row| row.subject.name.clone()),
    ("VERDICT", Fit::Name, |row| row.verdict.as_str().to_owned()),
    ("B - A", Fit::Number, |row| signed(row.difference)),
    ("UNIT", Fit::Name, |row| row.subject.unit.clone()),
    ("95 % CI", Fit::Number, |row| interval(row.ci)),
    ("OF A", Fit::Number, |row| known(row.relative, |part| format!("{:+.1} %", part * 100.0))),
    ("P (ADJUSTED)", Fit::Number, |row| known(row.p_adjusted(), written_p)),
    ("N", Fit::Number, |row| format!("{}+{}", row.a.n, row.b.n)),
    ("A MEAN ± SD", Fit::Number, |row| mean(&row.a)),
    ("B MEAN ± SD", Fit::Number, |row| mean(&row.b)),
    ("ROLE", Fit::Name, |row| row.role.as_str().to_owned()),
];

/// The same for 80 columns.
pub const BRIEF: &[Cell] = &[
    ("METRIC", Fit::Text, |row| row.subject.name.clone()),
    ("UNIT", Fit::Name, |row| row.subject.unit.clone()),
    ("A", Fit::Number, |row| to_spread(row.a.mean, row.a.sd)),
    ("B", Fit::Number, |row| to_spread(row.b.mean, row.b.sd)),
    ("B - A", Fit::Number, |row| signed(row.difference)),
    ("P", Fit::Number, |row| known(row.p_adjusted(), written_p)),
    ("VERDICT", Fit::Name, |row| row.verdict.as_str().to_owned()),
];

/// How the values lie.
pub const SPREAD: &[Cell] = &[
    ("METRIC", Fit::Name, |row| row.subject.name.clone()),
    ("A MEDIAN", Fit::Number, |row| number(row.a.median)),
    ("A QUARTILES", Fit::Number, |row| format!("{} to {}", number(row.a.q1), number(row.a.q3))),
    ("A RANGE", Fit::Number, |row| format!("{} to {}", number(row.a.min), number(row.a.max))),
    ("A CV", Fit::Number, |row| known(row.a.cv, |cv| format!("{:.2} %", cv * 100.0))),
    ("B MEDIAN", Fit::Number, |row| number(row.b.median)),
    ("B QUARTILES", Fit::Number, |row| format!("{} to {}", number(row.b.q1), number(row.b.q3))),
    ("B RANGE", Fit::Number, |row| format!("{} to {}", number(row.b.min), number(row.b.max))),
    ("B CV", Fit::Number, |row| known(row.b.cv, |cv| format!("{:.2} %", cv * 100.0))),
    ("OUTLIERS", Fit::Number, |row| {
        let outliers = row.a_values.iter().chain(&row.b_values).filter(|point| point.outlier);
        outliers.count().to_string()
    }),
];

fn p<T>(test: &Option<T>, p: fn(&T) -> f64) -> String {
    test.as_ref().map_or_else(|| UNKNOWN.to_owned(), |test| written_p(p(test)))
}

/// p of every test.
pub const TESTS: &[Cell] = &[
    ("METRIC", Fit::Name, |row| row.subject.name.clone()),
    ("WELCH", Fit::Number, |row| p(&row.welch, |test| test.p)),
    ("STUDENT", Fit::Number, |row| p(&row.student, |test| test.p)),
    ("PAIRED", Fit::Number, |row| p(&row.paired, |test| test.p)),
    ("WILCOXON", Fit::Number, |row| p(&row.wilcoxon, |test| test.p)),
    ("MANN-WHITNEY", Fit::Number, |row| p(&row.mann_whitney, |test| test.p)),
    ("BONFERRONI", Fit::Number, |row| known(row.p_bonferroni, written_p)),
    ("HOLM", Fit::Number, |row| known(row.p_holm, written_p)),
    ("FDR", Fit::Number, |row| known(row.p_fdr, written_p)),
    ("SHAPIRO A", Fit::Number, |row| p(&row.shapiro_a, |test| test.p)),
    ("SHAPIRO B - A", Fit::Number, |row| p(&row.shapiro_differences, |test| test.p)),
    ("SHAPIRO B", Fit::Number, |row| p(&row.shapiro_b, |test| test.p)),
    ("BROWN-FORSYTHE", Fit::Number, |row| p(&row.brown_forsythe, |test| test.p)),
];

fn effect(effect: &Option<spark_trace_statistics::effect::EffectSize>) -> String {
    effect.as_ref().map_or_else(
        || UNKNOWN.to_owned(),
        |effect| format!("{:+.2} ({:+.2} to {:+.2})", effect.value, effect.ci.0, effect.ci.1),
    )
}

/// How large, how sure, and whether the same.
pub const EFFECTS: &[Cell] = &[
    ("METRIC", Fit::Name, |row| row.subject.name.clone()),
    ("HEDGES' G (CI)", Fit::Number, |row| effect(&row.hedges_g)),
    ("COHEN'S D (CI)", Fit::Number, |row| effect(&row.cohen_d)),
    ("PAIRED DZ (CI)", Fit::Number, |row| effect(&row.cohen_dz)),
    ("POWER", Fit::Number, |row| known(row.power, |power| format!("{power:.3}"))),
    ("N FOR 0.8", Fit::Number, |row| row.n_for_080.map_or_else(|| UNKNOWN.to_owned(), |n| n.to_string())),
    ("MEDIANS, BOOTSTRAP CI", Fit::Number, |row| {
        interval(row.bootstrap.as_ref().map(|boot| boot.bca.unwrap_or(boot.percentile)))
    }),
    ("NOISE", Fit::Number, |row| known(row.noise, number)),
    ("OVERHEAD", Fit::Text, |row| row.overhead.clone().unwrap_or_else(|| UNKNOWN.to_owned())),
];

fn estimate(value: Option<(f64, (f64, f64))>, write: fn(f64) -> String) -> String {
    value.map_or_else(
        || UNKNOWN.to_owned(),
        |(value, (low, high))| format!("{} ({} to {})", write(value), write(low), write(high)),
    )
}

/// The difference as other estimates have it, and whether it matters.
pub const ESTIMATES: &[Cell] = &[
    ("METRIC", Fit::Name, |row| row.subject.name.clone()),
    ("ALL INTERVALS AT ONCE", Fit::Number, |row| interval(row.ci_simultaneous)),
    ("B / A (CI)", Fit::Number, |row| {
        estimate(row.ratio.as_ref().map(|ratio| (ratio.value, ratio.ci)), |ratio| format!("{ratio:.4}"))
    }),
    ("HODGES-LEHMANN (CI)", Fit::Number, |row| {
        estimate(row.shift.as_ref().map(|shift| (shift.estimate, shift.ci)), signed)
    }),
    ("TRIMMED MEANS (CI)", Fit::Number, |row| {
        estimate(row.trimmed.as_ref().map(|test| (test.difference, test.ci)), signed)
    }),
    ("TRIMMED P", Fit::Number, |row| p(&row.trimmed, |test| test.p)),
    ("MARGIN", Fit::Number, |row| row.margin_written.clone().unwrap_or_else(|| UNKNOWN.to_owned())),
    ("SAME WITHIN IT, P", Fit::Number, |row| p(&row.equivalence, |test| test.p)),
    ("ADJUSTED", Fit::Number, |row| known(row.equivalence_p, written_p)),
    ("WORST CASE", Fit::Number, |row| interval(row.bounds.as_ref().map(|bounds| (bounds.low, bounds.high)))),
];

/// Whether the comparison means anything.
pub const DIAGNOSTICS: &[Cell] = &[
    ("METRIC", Fit::Name, |row| row.subject.name.clone()),
    ("SWITCHES", Fit::Number, |row| {
        format!("{} of {}", row.diagnostics.switches, row.diagnostics.switches_at_most)
    }),
    ("DRIFT PER RUN", Fit::Number, |row| known(row.diagnostics.drift_per_run, signed)),
    ("MANN-KENDALL P", Fit::Number, |row| p(&row.diagnostics.drift, |test| test.p)),
    ("LAG-1 R", Fit::Number, |row| {
        known(row.diagnostics.lag1.as_ref().map(|lag| lag.r), |r| format!("{r:+.2}"))
    }),
    ("LAG-1 P", Fit::Number, |row| p(&row.diagnostics.lag1, |test| test.p)),
    ("VERDICT", Fit::Name, |row| row.verdict.as_str().to_owned()),
    ("BECAUSE", Fit::Text, |row| row.because.clone()),
];

/// How many runs have a result.
pub const ATTRITION: &[spark_trace_render::document::Cell<Attrition>] = &[
    ("ENVIRONMENTS", Fit::Name, |row| format!("A {}, B {}", row.a_name, row.b_name)),
    ("PLANNED", Fit::Number, |row| both(row, |course| course.planned.map(|planned| planned as usize))),
    ("BEGUN", Fit::Number, |row| both(row, |course| Some(course.begun))),
    ("MEASURED", Fit::Number, |row| both(row, |course| Some(course.measured))),
    ("FAILED", Fit::Number, |row| both(row, |course| Some(course.failed))),
    ("CUT OFF", Fit::Number, |row| both(row, |course| Some(course.lost))),
    ("FAIL EQUALLY OFTEN, P", Fit::Number, |row| known(row.p, written_p)),
];

fn both(row: &Attrition, of: fn(&Course) -> Option<usize>) -> String {
    let one = |course| of(course).map_or_else(|| UNKNOWN.to_owned(), |count| count.to_string());
    format!("{}+{}", one(&row.a), one(&row.b))
}

/// Comparisons and, below them, those that cannot be computed: their names, verdicts and reasons.
pub fn with_absent<'a>(
    cells: &[Cell],
    rows: impl IntoIterator<Item = &'a Comparison>,
    absent: impl Iterator<Item = &'a Absent>,
) -> Table {
    let mut table = table(cells, rows);
    for row in absent {
        let cell = |(title, ..): &Cell| match *title {
            "METRIC" => row.subject.name.clone(),
            "UNIT" => row.subject.unit.clone(),
            "VERDICT" => row.verdict.as_str().to_owned(),
            "BECAUSE" => row.because.clone(),
            _ => UNKNOWN.to_owned(),
        };
        table.rows.push(cells.iter().map(cell).collect());
    }
    table
}

pub fn table<'a>(cells: &[Cell], rows: impl IntoIterator<Item = &'a Comparison>) -> Table {
    Table::of(cells, rows)
}

const CSV: &[csv::Column<Comparison>] = &[
    ("model", |row| Field::Text(row.model.clone())),
    ("a", |row| Field::Text(row.a_name.clone())),
    ("b", |row| Field::Text(row.b_name.clone())),
    ("metric", |row| Field::Text(row.subject.name.clone())),
    ("unit", |row| Field::Text(row.subject.unit.clone())),
    ("a_n", |row| Field::Ratio(Some(row.a.n as f64))),
    ("a_mean", |row| Field::Ratio(Some(row.a.mean))),
    ("a_sd", |row| Field::Ratio(row.a.sd)),
    ("a_median", |row| Field::Ratio(Some(row.a.median))),
    ("b_n", |row| Field::Ratio(Some(row.b.n as f64))),
    ("b_mean", |row| Field::Ratio(Some(row.b.mean))),
    ("b_sd", |row| Field::Ratio(row.b.sd)),
    ("b_median", |row| Field::Ratio(Some(row.b.median))),
    ("difference", |row| Field::Ratio(Some(row.difference))),
    ("ci_low", |row| Field::Ratio(row.ci.map(|ci| ci.0))),
    ("ci_high", |row| Field::Ratio(row.ci.map(|ci| ci.1))),
    ("relative", |row| Field::Ratio(row.relative)),
    ("test", |row| Field::Text(row.test.to_owned())),
    ("p", |row| Field::Ratio(row.p)),
    ("p_holm", |row| Field::Ratio(row.p_holm)),
    ("p_bonferroni", |row| Field::Ratio(row.p_bonferroni)),
    ("hedges_g", |row| Field::Ratio(row.hedges_g.as_ref().map(|effect| effect.value))),
    ("power", |row| Field::Ratio(row.power)),
    ("tost_p", |row| Field::Ratio(row.equivalence.as_ref().map(|tost| tost.p))),
    ("role", |row| Field::Text(row.role.as_str().to_owned())),
    ("p_fdr", |row| Field::Ratio(row.p_fdr)),
    ("ci_all_low", |row| Field::Ratio(row.ci_simultaneous.map(|ci| ci.0))),
    ("ci_all_high", |row| Field::Ratio(row.ci_simultaneous.map(|ci| ci.1))),
    ("ratio", |row| Field::Ratio(row.ratio.as_ref().map(|ratio| ratio.value))),
    ("ratio_low", |row| Field::Ratio(row.ratio.as_ref().map(|ratio| ratio.ci.0))),
    ("ratio_high", |row| Field::Ratio(row.ratio.as_ref().map(|ratio| ratio.ci.1))),
    ("shift", |row| Field::Ratio(row.shift.as_ref().map(|shift| shift.estimate))),
    ("shift_low", |row| Field::Ratio(row.shift.as_ref().map(|shift| shift.ci.0))),
    ("shift_high", |row| Field::Ratio(row.shift.as_ref().map(|shift| shift.ci.1))),
    ("trimmed", |row| Field::Ratio(row.trimmed.as_ref().map(|test| test.difference))),
    ("trimmed_p", |row| Field::Ratio(row.trimmed.as_ref().map(|test| test.p))),
    ("margin", |row| Field::Ratio(row.margin)),
    ("tost_p_adjusted", |row| Field::Ratio(row.equivalence_p)),
    ("unpaired", |row| Field::Ratio(Some(row.unpaired as f64))),
    ("worst_low", |row| Field::Ratio(row.bounds.as_ref().map(|bounds| bounds.low))),
    ("worst_high", |row| Field::Ratio(row.bounds.as_ref().map(|bounds| bounds.high))),
    ("drift_p", |row| Field::Ratio(row.diagnostics.drift.as_ref().map(|drift| drift.p))),
    ("lag1_p", |row| Field::Ratio(row.diagnostics.lag1.as_ref().map(|lag| lag.p))),
    ("verdict", |row| Field::Text(row.verdict.as_str().to_owned())),
    ("because", |row| Field::Text(row.because.clone())),
];

pub fn csv(report: &Report) -> String {
    csv::render(CSV, report.comparisons.iter().chain(&report.sources))
}
