//! What a study shows. Diagnostics come first: where the order of the runs, a drift or the state they began in could
//! have made a difference, the verdict says so, whatever p is. Pure.

pub mod across;
pub mod attrition;
pub mod compare;
pub mod diagnostics;
pub mod ending;
pub mod families;
pub mod indistinct;
pub mod influence;
mod judge;
pub mod looks;
pub mod overheads;
pub mod planning;
pub mod relations;
pub mod role;
pub mod sample;
pub mod verdict;

use std::collections::BTreeMap;

use serde::Serialize;

use super::figures::{self, Better};
use super::plan::Order;
use super::primary::{self, Primary};
use super::results::{Happening, Origin, Results, Run};
pub use attrition::Attrition;
pub use compare::Comparison;
pub use indistinct::Indistinct;
pub use relations::Relation;
use role::Role;
pub use verdict::Verdict;

pub const SCHEMA: &str = "spark-trace/study-report";
pub const SCHEMA_VERSION: u32 = 1;

/// How it is analysed; part of the report.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Options {
    /// A difference is reported where the adjusted p is below this.
    pub alpha: f64,
    /// Of diagnostics: they are many, and each can spoil a verdict.
    pub diagnostic_alpha: f64,
    /// Equivalence is within this part of the baseline's mean.
    pub margin: f64,
    /// Of the bootstrap; none where 0.
    pub resamples: usize,
    pub seed: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { alpha: 0.05, diagnostic_alpha: 0.01, margin: 0.02, resamples: 10_000, seed: 1 }
    }
}

#[derive(Debug, Clone, Serialize)]
pub struct Report {
    pub schema: &'static str,
    pub schema_version: u32,
    pub name: String,
    pub description: String,
    pub origin: Origin,
    pub options: Options,
    pub environments: Vec<String>,
    pub models: Vec<String>,
    pub order: Option<Order>,
    pub machine: BTreeMap<String, String>,
    pub counts: Counts,
    /// The metrics that the study is about.
    pub primary: Vec<Primary>,
    /// False where nobody declared them before the runs.
    pub declared: bool,
    /// What the adjusted p of metrics are adjusted for.
    pub family: String,
    pub families: families::Sizes,
    /// What the planned runs can find; absent for fewer than two.
    pub planning: Option<planning::Detectable>,
    /// Models whose rounds are not over, or whose plan states looks.
    pub looks: Vec<looks::Look>,
    pub comparisons: Vec<Comparison>,
    /// How differences go with size and architecture of the models.
    pub overheads: Vec<overheads::Overhead>,
    /// At which instant of each run the ledger's sources are compared.
    pub sources_at: SourcesAt,
    /// The same of the ledger's sources; a family of its own.
    pub sources: Vec<Comparison>,
    /// Comparisons of metrics that cannot be computed, and why.
    pub absent: Vec<Absent>,
    /// Every model in every environment but the baseline: how many of its runs have a result.
    pub attrition: Vec<Attrition>,
    /// Metrics that are functions of others: they are no further evidence.
    pub relations: Vec<Relation>,
    /// Models whose figures are the same.
    pub indistinct: Vec<Indistinct>,
    /// Runs that do not count, and why.
    pub failures: Vec<Failure>,
    /// What happened besides the runs.
    pub happenings: Vec<Happening>,
}

/// A comparison without figures.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Absent {
    pub model: String,
    pub a_name: String,
    pub b_name: String,
    pub subject: Subject,
    pub verdict: Verdict,
    pub because: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Measured runs of the whole plan; absent where there is none.
    pub planned: Option<usize>,
    pub measured: usize,
    pub warmups: usize,
    pub failed: usize,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Failure {
    pub number: u32,
    pub attempt: u32,
    pub environment: String,
    pub model: String,
    pub why: String,
}

/// The instant of each run that its sources are of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum SourcesAt {
    Peak,
    /// Every run has one.
    KvReading,
}

impl SourcesAt {
    /// Bytes of each source.
    pub const fn of(self, run: &Run) -> &BTreeMap<String, f64> {
        match self {
            Self::Peak => &run.sources,
            Self::KvReading => &run.kv_sources,
        }
    }
}

/// What is compared.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Subject {
    pub name: String,
    pub title: String,
    pub unit: String,
    /// `more`, `less`, or absent where neither is better.
    pub better: Option<&'static str>,
}

pub fn report(all: &Results, options: Options) -> Report {
    let looks = looks::of(all, options.alpha);
    let results = &looks::up_to(all, &looks);
    let metrics =
        figures::in_order(results.runs.iter().filter(|run| run.counts()).flat_map(|run| run.metrics.keys()));
    let sources_at = if results.has_kv_readings() { SourcesAt::KvReading } else { SourcesAt::Peak };
    let sources = figures::in_order(
        results.runs.iter().filter(|run| run.counts()).flat_map(|run| sources_at.of(run).keys()),
    );
    let primary = primary::of(&results.primary, &metrics);
    let attrition: Vec<Attrition> = pairs(results)
        .into_iter()
        .map(|(model, baseline, other)| attrition::of(results, model, (baseline, other)))
        .collect();
    // What the study is about comes first, so it is a function of nothing else.
    let is_primary = |name: &&String| primary.iter().any(|primary| primary.metric == **name);
    let (mut in_turn, others): (Vec<_>, Vec<_>) = metrics.iter().partition(is_primary);
    in_turn.extend(others);
    let (mut comparisons, mut of_sources, mut absent) = (vec![], vec![], vec![]);
    for runs in &attrition {
        let look = looks.iter().find(|look| look.model == runs.model);
        for &name in &in_turn {
            // A metric that the model has nowhere is none of its metrics.
            if !results.of_model(&runs.model).any(|run| run.metrics.contains_key(name)) {
                continue;
            }
            let value = |run: &Run| run.metrics.get(name).copied();
            let question = primary.iter().find(|primary| primary.metric == *name);
            match compare::compare(results, runs, subject(results, name), question, &value, (options, look)) {
                Ok(comparison) => comparisons.push(comparison),
                Err(because) => absent.push(Absent {
                    model: runs.model.clone(),
                    a_name: runs.a_name.clone(),
                    b_name: runs.b_name.clone(),
                    subject: subject(results, name),
                    verdict: Verdict::NotComparable,
                    because,
                }),
            }
        }
        for name in &sources {
            let value = |run: &Run| sources_at.of(run).get(name).map(|bytes| bytes / GIB);
            of_sources.extend(compare::compare(results, runs, source(name), None, &value, (options, look)));
        }
    }
    let noise: Vec<_> = comparisons
        .iter()
        .chain(&of_sources)
        .filter(|comparison| comparison.alike)
        .map(|comparison| {
            (comparison.model.clone(), comparison.subject.name.clone(), comparison.difference.abs())
        })
        .collect();
    for comparison in comparisons.iter_mut().chain(&mut of_sources).filter(|comparison| !comparison.alike) {
        let same = noise
            .iter()
            .filter(|(model, name, _)| *model == comparison.model && *name == comparison.subject.name);
        comparison.noise = same.map(|(.., by)| *by).reduce(f64::max);
    }
    let relations = relations::find(results, &in_turn);
    for comparison in &mut comparisons {
        let relation = relations.iter().find(|relation| relation.of == comparison.subject.name);
        if let Some(relation) = relation {
            comparison.function = Some(relation.written());
            comparison.role = Role::Derived;
        }
    }
    let sizes = families::adjust(&mut comparisons, &mut of_sources);
    for comparison in comparisons.iter_mut().chain(&mut of_sources) {
        comparison.judge(options);
    }
    Report {
        schema: SCHEMA,
        schema_version: SCHEMA_VERSION,
        name: results.name.clone(),
        description: results.description.clone(),
        origin: results.origin.clone(),
        options,
        environments: results.environments.clone(),
        models: results.models.clone(),
        order: results.order,
        machine: results.machine.clone(),
        counts: counts(all),
        family: sizes.written(),
        families: sizes,
        planning: planning::detectable(results, &comparisons, sizes.primary, options),
        declared: !results.primary.is_empty(),
        primary,
        indistinct: indistinct::of(results, options),
        failures: failures(all),
        happenings: results.happenings.clone(),
        overheads: overheads::of(results, &comparisons),
        looks,
        comparisons,
        absent,
        attrition,
        sources_at,
        sources: of_sources,
        relations,
    }
}

/// Each model with the baseline and another environment.
fn pairs(results: &Results) -> Vec<(&String, &String, &String)> {
    let Some((baseline, others)) = results.environments.split_first() else { return vec![] };
    let of_model = |model| others.iter().map(move |other| (model, baseline, other));
    results.models.iter().flat_map(of_model).collect()
}

const GIB: f64 = (1_u64 << 30) as f64;

fn subject(results: &Results, name: &str) -> Subject {
    let known = figures::known(name);
    Subject {
        name: name.to_owned(),
        title: figures::title(name).unwrap_or_else(|| name.to_owned()),
        unit: known.map_or_else(
            || results.units.get(name).cloned().unwrap_or_default(),
            |known| known.unit.to_owned(),
        ),
        better: match known.map(|known| known.better) {
            Some(Better::More) => Some("more"),
            Some(Better::Less) => Some("less"),
            Some(Better::None) | None => None,
        },
    }
}

fn source(name: &str) -> Subject {
    let title = figures::source_title(name).unwrap_or(name).to_owned();
    Subject { name: name.to_owned(), title, unit: "GiB".to_owned(), better: None }
}

fn counts(results: &Results) -> Counts {
    let count = |which: fn(&Run) -> bool| results.runs.iter().filter(|run| which(run)).count();
    let cells = results.models.len() * results.environments.len();
    Counts {
        planned: results.planned.map(|each| each as usize * cells),
        measured: count(Run::counts),
        warmups: count(|run| run.warmup && run.failure.is_none()),
        failed: count(|run| run.failure.is_some()),
    }
}

fn failures(results: &Results) -> Vec<Failure> {
    let failed = results.runs.iter().filter_map(|run| Some((run, run.failure.clone()?)));
    let failure = |(run, why): (&Run, String)| Failure {
        number: run.number,
        attempt: run.attempt,
        environment: run.environment.clone(),
        model: run.model.clone(),
        why,
    };
    failed.map(failure).collect()
}

#[cfg(test)]
mod tests;
