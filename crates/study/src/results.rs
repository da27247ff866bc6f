//! What a study has found out, run by run: what is analysed, whether it was run here or imported.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::plan::Order;
use super::primary::Primary;
use super::traits::Traits;

pub const SCHEMA: &str = "spark-trace/study";
pub const SCHEMA_VERSION: u32 = 1;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Results {
    pub schema: String,
    pub schema_version: u32,
    pub name: String,
    #[serde(default)]
    pub description: String,
    pub origin: Origin,
    /// The first is what the others are compared with.
    pub environments: Vec<String>,
    pub models: Vec<String>,
    /// Environments that are the same but for their names: what differs between them is noise.
    #[serde(default)]
    pub alike: Vec<(String, String)>,
    /// As planned; absent where nobody said.
    pub order: Option<Order>,
    /// The metrics that the study is about, as declared before it; empty where nobody did.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub primary: Vec<Primary>,
    /// Measured runs of each model in each environment; absent where there is no plan.
    #[serde(default)]
    pub planned: Option<u32>,
    /// Rounds after which the plan states that the data are looked at before the last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub looks: Vec<u32>,
    /// By model, the rounds from the first on in which no run is left to be made; empty where there is no plan.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub rounds_over: BTreeMap<String, u32>,
    /// What the plan says of each model.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub traits: BTreeMap<String, Traits>,
    /// Units of metrics that the plan describes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub units: BTreeMap<String, String>,
    /// What it ran on and with.
    #[serde(default)]
    pub machine: BTreeMap<String, String>,
    /// In the order in which they were run.
    pub runs: Vec<Run>,
    /// What happened besides them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub happenings: Vec<Happening>,
}

/// What happened to a study between its runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Happening {
    /// Seconds since 1970.
    pub at_s: f64,
    /// The run before it; absent before the first.
    pub after: Option<u32>,
    #[serde(flatten)]
    pub what: What,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "what")]
pub enum What {
    /// The runner began again, and found these facts of the machine changed.
    Resumed { changed: Vec<Change> },
    /// A gate was closed for longer than the plan's `wait`, and the runner went on waiting.
    GateClosed { gate: String, reason: String, waited_s: f64 },
    /// Runs were left out.
    LeftOut { numbers: Vec<u32>, why: Why },
}

/// A fact of the machine: absent where it could not be found out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    pub fact: String,
    pub before: Option<String>,
    pub now: Option<String>,
}

/// Why runs were left out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "why")]
pub enum Why {
    /// A gate stayed closed.
    Gate { gate: String, reason: String, waited_s: f64 },
    /// So many runs of the model in the environment failed one after the other.
    GivenUp { environment: String, model: String, failures: u32 },
    /// A look of the plan has decided all primary metrics of the model.
    Decided { model: String, round: u32, number: usize, looks: usize, because: String },
}

/// The fact by which a start of the machine is told from the one before: a new one for each boot.
pub const BOOT: &str = "boot-id";

/// The fact of a run that has its engine's version, by its log.
pub const APPLICATION: &str = "application";
/// Ends the fact of a model's file that says when it was changed: a copy of the same bytes has another time.
pub const MODIFIED: &str = ".modified";

/// Whether it is another one at each look at the same machine.
pub fn is_momentary(fact: &str) -> bool {
    fact.ends_with("-now")
}

/// Where the figures come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Origin {
    /// Run by `spark-trace study run`.
    Run,
    /// Read from another study's results.
    Imported { format: String, file: String },
    /// Random numbers.
    Simulated,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// Place in the order of running, from 1.
    pub number: u32,
    /// From 1; larger ones repeat a run that failed or was lost.
    #[serde(default = "first")]
    pub attempt: u32,
    pub environment: String,
    pub model: String,
    pub iteration: u32,
    #[serde(default)]
    pub warmup: bool,
    /// Runs of one round are next to each other.
    pub round: Option<u32>,
    /// How often the machine was started again in this study before the run.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub boots: u32,
    /// Seconds since 1970; of imported runs in the clock of their files.
    pub started_s: Option<f64>,
    pub ended_s: Option<f64>,
    /// Absent of a run that succeeded.
    pub failure: Option<String>,
    /// By name; units are those of the metric.
    #[serde(default)]
    pub metrics: BTreeMap<String, f64>,
    /// Of the machine when it began.
    #[serde(default)]
    pub state: BTreeMap<String, f64>,
    /// Level of each source of the system plane at its peak, bytes.
    #[serde(default)]
    pub sources: BTreeMap<String, f64>,
    /// The same at the run's KV-cache reading; empty where it has none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub kv_sources: BTreeMap<String, f64>,
    /// Below the study's folder.
    pub recording: Option<String>,
    /// What else is known: the model's identifier, the end of a failed run's log.
    #[serde(default)]
    pub facts: BTreeMap<String, String>,
}

const fn first() -> u32 {
    1
}

fn is_zero(boots: &u32) -> bool {
    *boots == 0
}

impl Run {
    /// Whether it is one of those that are compared.
    pub fn counts(&self) -> bool {
        self.failure.is_none() && !self.warmup
    }
}

impl Results {
    /// Whether sources are compared at the KV-cache reading: every run that counts has one.
    pub fn has_kv_readings(&self) -> bool {
        let mut counted = self.runs.iter().filter(|run| run.counts()).peekable();
        counted.peek().is_some() && counted.all(|run| !run.kv_sources.is_empty())
    }

    /// Measured runs of one model in one environment, in the order of running.
    pub fn cell<'a>(&'a self, model: &'a str, environment: &'a str) -> impl Iterator<Item = &'a Run> + Clone {
        self.runs
            .iter()
            .filter(move |run| run.counts() && run.model == model && run.environment == environment)
    }

    pub fn are_alike(&self, a: &str, b: &str) -> bool {
        self.alike.iter().any(|(one, other)| (one == a && other == b) || (one == b && other == a))
    }

    /// Measured runs of one model, in the order of running.
    pub fn of_model<'a>(&'a self, model: &'a str) -> impl Iterator<Item = &'a Run> + Clone {
        self.runs.iter().filter(move |run| run.counts() && run.model == model)
    }
}
