//! Two stored studies against each other: which cells are the same, what changed, and what else differs between them.
//!
//! The runs of two studies are two blocks: nothing separates what is between them from time. So each row comes with the facts that differ, and
//! where what was measured differs, with no verdict. What the environments of a study differ by is compared as well: a change that hits both of
//! them alike is gone from it.

mod facts;
mod rows;

use serde::Serialize;
use spark_trace_statistics::{LEVEL, describe, t};

use super::attrition;
use super::compare::has_zero;
use super::sample::{Point, Sample, points};
use super::{GIB, Options, SourcesAt, Subject, Verdict, source, subject};
use crate::figures;
use crate::plan::Plan;
use crate::primary;
use crate::results::{Change, Origin, Results, Run};
pub use rows::Row;
use rows::adjust;

/// A study, and its plan where it has one.
#[derive(Debug)]
pub struct Stored {
    pub results: Results,
    pub plan: Option<Plan>,
}

#[derive(Debug, Clone, Serialize)]
pub struct Across {
    pub schema: &'static str,
    pub schema_version: u32,
    /// Names of the studies.
    pub a: String,
    pub b: String,
    pub options: Options,
    /// Facts that differ.
    pub changes: Vec<Difference>,
    /// Figures of one model in one environment.
    pub cells: Vec<Row>,
    /// What an environment differs from the baseline by.
    pub overheads: Vec<Row>,
    /// At which instant of each run the ledger's sources are compared.
    pub sources_at: SourcesAt,
    /// Sources of memory of one model in one environment, GiB; a family of their own.
    pub sources: Vec<Row>,
    /// Models, environments, metrics and sources that one of both has alone.
    pub only_a: Vec<String>,
    pub only_b: Vec<String>,
}

pub const SCHEMA: &str = "spark-trace/study-comparison";
pub const SCHEMA_VERSION: u32 = 1;

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Difference {
    pub kind: Kind,
    /// The environment or the model that it is of; absent where it is of all.
    pub of: Option<Of>,
    #[serde(flatten)]
    pub change: Change,
}

/// What a fact that differs does to a comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Where it was measured: a difference may come from it.
    Machine,
    /// How often, and in which order.
    Course,
    /// What was measured: figures of different things have no difference.
    Work,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Of {
    Environment(String),
    Model(String),
}

/// Of two studies each has a drift and a dependence to look for: together they spoil no more rows than one test.
const COURSES: f64 = 4.0;

/// Why two studies have nothing to compare.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unequal {
    #[error("one of the studies is of random numbers, the other was measured")]
    Simulated,
    #[error("they have no {what} in common: {a} in one, {b} in the other")]
    Nothing { what: &'static str, a: String, b: String },
}

pub fn compare(a: &Stored, b: &Stored, options: Options) -> Result<Across, Unequal> {
    let simulated = |study: &Stored| study.results.origin == Origin::Simulated;
    if simulated(a) != simulated(b) {
        return Err(Unequal::Simulated);
    }
    let (models, ..) = common("model", &a.results.models, &b.results.models)?;
    let (environments, ..) = common("environment", &a.results.environments, &b.results.environments)?;
    let of = |study: &Stored| {
        figures::in_order(
            study.results.runs.iter().filter(|run| run.counts()).flat_map(|run| run.metrics.keys()),
        )
    };
    let (metrics, ..) = common("metric", &of(a), &of(b))?;
    let changes = facts::changes(a, b);
    let names: Vec<primary::Primary> = primary::of(&a.results.primary, &metrics);
    let questions = Questions { a: &a.results, b: &b.results, primary: &names, changes: &changes, options };
    let (mut cells, mut overheads) = (vec![], vec![]);
    let baseline =
        a.results.environments.first().filter(|first| b.results.environments.first() == Some(first));
    for model in &models {
        for metric in &metrics {
            cells.extend(
                environments.iter().filter_map(|environment| questions.cell(model, environment, metric)),
            );
            let Some(baseline) = baseline else { continue };
            let others = environments.iter().filter(|environment| *environment != baseline);
            overheads.extend(others.filter_map(|other| questions.overhead(model, (baseline, other), metric)));
        }
    }
    let sources_at = match a.results.has_kv_readings() && b.results.has_kv_readings() {
        true => SourcesAt::KvReading,
        false => SourcesAt::Peak,
    };
    let of_sources = |study: &Stored| {
        let counted = study.results.runs.iter().filter(|run| run.counts());
        figures::in_order(counted.flat_map(|run| sources_at.of(run).keys()))
    };
    let in_both = (of_sources(a), of_sources(b));
    let mut sources = vec![];
    // A study that was imported has none.
    if let Ok((names, ..)) = common("source", &in_both.0, &in_both.1) {
        for model in &models {
            for environment in &environments {
                let cell = |name: &String| questions.source(model, environment, name, sources_at);
                sources.extend(names.iter().filter_map(cell));
            }
        }
    }
    for rows in [&mut cells, &mut overheads, &mut sources] {
        adjust(rows);
        rows.iter_mut().for_each(|row| row.judge(options));
    }
    let (only_a, only_b) = alone(a, b, [("metric", (&of(a), &of(b))), ("source", (&in_both.0, &in_both.1))]);
    Ok(Across {
        schema: SCHEMA,
        schema_version: SCHEMA_VERSION,
        a: a.results.name.clone(),
        b: b.results.name.clone(),
        options,
        changes,
        cells,
        overheads,
        sources_at,
        sources,
        only_a,
        only_b,
    })
}

type Shared = (Vec<String>, Vec<String>, Vec<String>);

/// What both have, and each alone.
fn common(what: &'static str, a: &[String], b: &[String]) -> Result<Shared, Unequal> {
    let without = |these: &[String], those: &[String]| -> Vec<String> {
        these.iter().filter(|name| !those.contains(name)).cloned().collect()
    };
    let both: Vec<String> = a.iter().filter(|name| b.contains(name)).cloned().collect();
    match both.is_empty() {
        true => Err(Unequal::Nothing { what, a: a.join(", "), b: b.join(", ") }),
        false => Ok((both, without(a, b), without(b, a))),
    }
}

type Names<'a> = (&'static str, (&'a [String], &'a [String]));

fn alone(a: &Stored, b: &Stored, figures: [Names<'_>; 2]) -> (Vec<String>, Vec<String>) {
    let lists: [Names<'_>; 2] = [
        ("model", (&a.results.models, &b.results.models)),
        ("environment", (&a.results.environments, &b.results.environments)),
    ];
    let (mut of_a, mut of_b) = (vec![], vec![]);
    for (what, (in_a, in_b)) in lists.into_iter().chain(figures) {
        let without = |these: &[String], those: &[String], only: &mut Vec<String>| {
            let alone = these.iter().filter(|name| !those.contains(name));
            only.extend(alone.map(|name| format!("{what} {name}")));
        };
        without(in_a, in_b, &mut of_a);
        without(in_b, in_a, &mut of_b);
    }
    (of_a, of_b)
}

struct Questions<'a> {
    a: &'a Results,
    b: &'a Results,
    primary: &'a [primary::Primary],
    changes: &'a [Difference],
    options: Options,
}

/// What is compared: its name in each study, how a run has it, and the primary metric that it is.
struct Figure<'a> {
    subjects: [Subject; 2],
    value: &'a dyn Fn(&Run) -> Option<f64>,
    question: Option<&'a primary::Primary>,
}

impl Questions<'_> {
    fn metric<'a>(&'a self, metric: &str, value: &'a dyn Fn(&Run) -> Option<f64>) -> Figure<'a> {
        let question = self.primary.iter().find(|primary| primary.metric == metric);
        Figure { subjects: [subject(self.a, metric), subject(self.b, metric)], value, question }
    }

    fn source(&self, model: &str, environment: &str, name: &str, at: SourcesAt) -> Option<Row> {
        let value = |run: &Run| at.of(run).get(name).map(|bytes| bytes / GIB);
        let figure = Figure { subjects: [source(name), source(name)], value: &value, question: None };
        self.figure(model, environment, &figure)
    }

    fn cell(&self, model: &str, environment: &str, metric: &str) -> Option<Row> {
        let value = |run: &Run| run.metrics.get(metric).copied();
        self.figure(model, environment, &self.metric(metric, &value))
    }

    /// Nothing where neither study has it there.
    fn figure(&self, model: &str, environment: &str, figure: &Figure<'_>) -> Option<Row> {
        let of = |results: &Results| points(results.cell(model, environment), &figure.value);
        let (a, b) = (of(self.a), of(self.b));
        let mut row = self.row(model, environment, None, figure, (&a, &b))?;
        let failures = [self.a, self.b].map(|results| attrition::course(results, model, environment));
        if row.verdict != Verdict::NotComparable && failures.iter().any(|course| course.disturbed() > 0) {
            let [a, b] = failures;
            let text =
                format!("{} of {} and {} of {} runs failed", a.disturbed(), a.begun, b.disturbed(), b.begun);
            row.because = text;
        }
        Some(row)
    }

    fn overhead(&self, model: &str, (baseline, other): (&str, &str), metric: &str) -> Option<Row> {
        let value = |run: &Run| run.metrics.get(metric).copied();
        let of = |results: &Results| {
            let of = |environment: &str| points(results.cell(model, environment), &value);
            let sample = Sample::of(&of(baseline), &of(other));
            let differences = sample.differences().into_iter().zip(1..);
            differences
                .map(|(value, number)| Point { number, round: None, boots: 0, value, outlier: false })
                .collect::<Vec<Point>>()
        };
        let figure = self.metric(metric, &value);
        self.row(model, other, Some(baseline), &figure, (&of(self.a), &of(self.b)))
    }

    fn row(
        &self,
        model: &str,
        environment: &str,
        baseline: Option<&str>,
        figure: &Figure<'_>,
        (a, b): (&[Point], &[Point]),
    ) -> Option<Row> {
        if a.is_empty() && b.is_empty() {
            return None;
        }
        let [in_a, in_b] = &figure.subjects;
        let values = |points: &[Point]| points.iter().map(|point| point.value).collect::<Vec<f64>>();
        let (of_a, of_b) = (values(a), values(b));
        let mean = |values: &[f64]| describe(values).map(|described| described.mean);
        // An overhead has no mean to take a part of: the margin is that of the baseline's level.
        let level = match baseline {
            None => mean(&of_a),
            Some(baseline) => {
                let known = self.a.cell(model, baseline).filter_map(figure.value);
                mean(&known.collect::<Vec<f64>>())
            }
        };
        let question = figure.question;
        let margin = question
            .and_then(|primary| primary.margin)
            .filter(|margin| has_zero(in_a) || margin.is_absolute());
        let margin = margin
            .or_else(|| has_zero(in_a).then_some(primary::Margin::Percent(self.options.margin * 100.0)));
        let margin =
            margin.zip(level).map(|(margin, level)| margin.of(level)).filter(|margin| margin.is_finite());
        let mut row = Row {
            model: model.to_owned(),
            environment: environment.to_owned(),
            baseline: baseline.map(str::to_owned),
            primary: question.is_some(),
            a_n: a.len(),
            b_n: b.len(),
            a_mean: mean(&of_a),
            b_mean: mean(&of_b),
            difference: t::mean_difference(&of_a, &of_b).ok(),
            ci: None,
            p: None,
            p_adjusted: None,
            margin,
            equivalence_p: None,
            verdict: Verdict::NotComparable,
            because: String::new(),
            subject: in_a.clone(),
        };
        if in_a.unit != in_b.unit {
            row.because = format!("its unit is {} in one study and {} in the other", unit(in_a), unit(in_b));
            row.difference = None;
            return Some(row);
        }
        if let Some(work) = self.work(model, environment, baseline) {
            row.because = work;
            return Some(row);
        }
        if a.len() < 2 || b.len() < 2 {
            let what = if baseline.is_some() { "pairs" } else { "runs" };
            row.because = format!("{} and {} {what} are too few", a.len(), b.len());
            return Some(row);
        }
        let sample = Sample { a: of_a, b: of_b, paired: false, dependence: None };
        match sample.outcome(LEVEL) {
            Ok(outcome) => {
                (row.difference, row.ci, row.p) = (Some(outcome.difference), outcome.ci, Some(outcome.p));
                row.equivalence_p = match (outcome.varies, margin) {
                    (true, Some(margin)) => sample.equivalence(margin, self.options.alpha).map(|tost| tost.p),
                    (false, Some(margin)) => Some(if outcome.difference.abs() <= margin { 0.0 } else { 1.0 }),
                    (_, None) => None,
                };
                row.verdict = Verdict::Undecided;
                if let Some(course) = self.course([a, b]) {
                    (row.verdict, row.because) = (Verdict::Confounded, course);
                }
            }
            Err(error) => row.because = format!("no test can be computed: {error}"),
        }
        Some(row)
    }

    /// What both studies measured is not the same.
    fn work(&self, model: &str, environment: &str, baseline: Option<&str>) -> Option<String> {
        let concerns = |of: &Option<Of>| match of {
            None => true,
            Some(Of::Model(name)) => name == model,
            Some(Of::Environment(name)) => name == environment || Some(name.as_str()) == baseline,
        };
        let facts: Vec<&str> = self
            .changes
            .iter()
            .filter(|change| change.kind == Kind::Work && concerns(&change.of))
            .map(|change| change.change.fact.as_str())
            .collect();
        (!facts.is_empty()).then(|| format!("what was measured differs: {}", facts.join(", ")))
    }

    /// Runs of a study that follow a course: their mean depends on when it ended.
    fn course(&self, sides: [&[Point]; 2]) -> Option<String> {
        let courses = sides.iter().zip([&self.a.name, &self.b.name]).filter_map(|(points, study)| {
            let values: Vec<f64> = points.iter().map(|point| point.value).collect();
            let found = super::diagnostics::course(&values, self.options.diagnostic_alpha / COURSES)?;
            Some(format!("within {study} {found}"))
        });
        let courses: Vec<String> = courses.collect();
        (!courses.is_empty()).then(|| courses.join("; "))
    }
}

fn unit(subject: &Subject) -> &str {
    if subject.unit.is_empty() { "not stated" } else { &subject.unit }
}

impl Kind {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Machine => "machine",
            Self::Course => "course",
            Self::Work => "work",
        }
    }
}
