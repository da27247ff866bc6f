//! `study.toml`: what is compared, how often, in which order, and what must hold before each run.
//!
//! [`Plan::parse`] refuses what could not be run or would answer another question, and says where it stands.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize};
use thiserror::Error;

use spark_trace_recording::parse;

use super::primary::Primary;
use super::traits::Traits;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Plan {
    pub name: String,
    #[serde(default)]
    pub description: String,
    #[serde(default)]
    pub order: Order,
    /// Of the order's random numbers.
    #[serde(default)]
    pub seed: u64,
    /// Measured runs of each model in each environment.
    pub runs: u32,
    /// Rounds after which the data are looked at before the last one, so that the study may end early: they share the level of the tests.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub looks: Vec<u32>,
    /// A model's other rounds are left out when a look has decided: see [`crate::analysis::ending`].
    #[serde(default, skip_serializing_if = "is_off")]
    pub end_at_looks: bool,
    /// Runs before them that are recorded and left out of the analysis.
    #[serde(default)]
    pub warmups: u32,
    /// A run that takes longer is ended, and counts as failed.
    #[serde(default = "hours", deserialize_with = "time", serialize_with = "seconds")]
    pub timeout: Duration,
    /// Times that a failed run is tried again; the failure stays in the study.
    #[serde(default)]
    pub retries: u32,
    /// Failures one after the other of a model in an environment after which its other runs are left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub give_up_after: Option<u32>,
    /// Free space that the study's folder must have before each run.
    #[serde(default, deserialize_with = "some_size")]
    pub disk_space: Option<u64>,
    /// The first is what the others are compared with.
    pub environments: Vec<Environment>,
    pub models: Vec<Model>,
    pub workload: Workload,
    /// How long a run takes, before one was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub estimate: Option<Estimate>,
    /// Requests that the benchmark reads, a file for each model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dataset: Option<Dataset>,
    #[serde(default)]
    pub gates: Gates,
    /// Figures in the log besides those that are known.
    #[serde(default)]
    pub metrics: Vec<Metric>,
    /// The metrics that the study is about; the others are exploratory. Absent for one each of speed, memory and KV cache.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub primary: Vec<Primary>,
    /// For placeholders; environments and models override them.
    #[serde(default)]
    pub values: BTreeMap<String, String>,
}

fn is_off(option: &bool) -> bool {
    !option
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    /// A B, B A, A B, ... for two environments. For more of them Williams squares: each follows each other one equally often.
    #[default]
    Balanced,
    /// A B C, C B A, A B C, ...: what drifts steadily hits all environments alike. With more than two each has the same
    /// neighbours in all rounds.
    Abba,
    /// In each round all environments once, in random order.
    Randomized,
    /// One environment after the other: what drifts is taken for the environment. Flagged in every result.
    Blocked,
}

impl Order {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Balanced => "balanced",
            Self::Abba => "abba",
            Self::Randomized => "randomized",
            Self::Blocked => "blocked",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Environment {
    pub name: String,
    pub kind: Kind,
    /// This environment's own command line instead of the plan's, as it stands: a container's that a script or another engine
    /// starts, or one whose paths differ.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// Image of a container.
    pub image: Option<String>,
    /// Flags of `run`, one argument each.
    #[serde(default)]
    pub flags: Vec<String>,
    /// Root directory of a chroot, as `spark-trace study rootfs` makes it.
    pub rootfs: Option<String>,
    /// A static program that the image is made of, with `import`, where the engine does not have it.
    pub import_program: Option<String>,
    /// Limits of what has no engine to set them, as `--ulimit` of containers: `memlock=-1`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ulimits: Vec<String>,
    /// Bind mounts of a chroot, as `-v` of containers: `SOURCE:TARGET` or `SOURCE:TARGET:ro`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mounts: Vec<String>,
    #[serde(default)]
    pub values: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    Native,
    Chroot,
    Docker,
    Podman,
}

impl Kind {
    /// The container engine's program.
    pub const fn engine(self) -> Option<&'static str> {
        match self {
            Self::Docker => Some("docker"),
            Self::Podman => Some("podman"),
            Self::Native | Self::Chroot => None,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Model {
    pub name: String,
    /// Files and folders of the model: their sizes are kept, and a study without them is refused.
    #[serde(default)]
    pub files: Vec<String>,
    /// How many parameters it has, such as `"7B"`; of a mixture of experts all of them.
    #[serde(default, deserialize_with = "some_count", skip_serializing_if = "Option::is_none")]
    pub parameters: Option<f64>,
    /// Such as `dense` or `mixture-of-experts`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub architecture: Option<String>,
    /// Why it is in the study, or which model it replaces and why. For readers.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
    /// Instead of the plan's.
    #[serde(
        default,
        deserialize_with = "some_time",
        serialize_with = "some_seconds",
        skip_serializing_if = "Option::is_none"
    )]
    pub timeout: Option<Duration>,
    #[serde(default)]
    pub values: BTreeMap<String, String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Workload {
    /// One argument each, with placeholders in braces; `{{` is a brace.
    pub command: Vec<String>,
    /// Commands on the host before the first run.
    #[serde(default)]
    pub prepare: Vec<Vec<String>>,
    /// Commands on the host before each run, outside of its recording.
    #[serde(default)]
    pub before: Vec<Vec<String>>,
    /// Further options of `spark-trace record`.
    #[serde(default)]
    pub record: Vec<String>,
    /// Files in `{run.dir}` into which the benchmark writes its results.
    #[serde(default)]
    pub results: Vec<String>,
}

/// How long a run takes: a time that the plan states, or what reading the weights takes. Texts may hold placeholders.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Estimate {
    /// A whole run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    /// Until the first request: loading, compiling, warm-up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decoding: Option<Decoding>,
}

/// Text generation at the speed of memory: each pass reads the weights once and makes one token for each request of a batch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Decoding {
    pub requests: String,
    /// Of each request.
    pub output_tokens: String,
    pub batch: String,
    /// Bytes that a pass reads; of a mixture of experts, those of the experts that a batch uses.
    pub weights: String,
    /// Bytes per second.
    pub bandwidth: String,
}

/// A file of requests, made before the first run where it is not there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Dataset {
    /// On the host.
    pub file: String,
    /// In which the commands run.
    pub environment: String,
    /// Ways to make it: the first counts whose `probe` succeeds.
    pub ways: Vec<DatasetWay>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct DatasetWay {
    /// Succeeds where the image has this way; absent where it needs no question.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub probe: Vec<String>,
    /// Writes the requests into the file's name with `.part` behind it, which then loses that ending.
    pub command: Vec<String>,
}

/// What must hold before a run begins.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Gates {
    /// Highest temperature of any GPU, degrees Celsius.
    pub gpu_temperature: Option<u32>,
    /// No process on any GPU.
    pub gpu_idle: bool,
    /// Time between runs.
    #[serde(deserialize_with = "time", serialize_with = "seconds")]
    pub cooldown: Duration,
    /// Write back, then drop clean page cache, dentries and inodes.
    pub drop_caches: bool,
    /// Least free memory (MemFree).
    #[serde(deserialize_with = "some_size")]
    pub mem_free: Option<u64>,
    /// Most page cache (Cached).
    #[serde(deserialize_with = "some_size")]
    pub cached: Option<u64>,
    /// Names of processes that must not run.
    pub no_processes: Vec<String>,
    /// No files in /dev/shm.
    pub shm_empty: bool,
    /// How long is waited for all of it.
    #[serde(deserialize_with = "time", serialize_with = "seconds")]
    pub wait: Duration,
    /// What happens when that time is over.
    #[serde(skip_serializing_if = "is_usual")]
    pub on_closed: OnClosed,
}

/// What a study does when a gate stays closed longer than `wait`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnClosed {
    /// The runner ends; `study resume` goes on.
    #[default]
    Stop,
    /// It goes on waiting, and writes into the journal how long.
    Wait,
    /// What is left of the round is left out.
    Skip,
}

fn is_usual(on_closed: &OnClosed) -> bool {
    *on_closed == OnClosed::default()
}

impl Default for Gates {
    fn default() -> Self {
        Self {
            gpu_temperature: None,
            gpu_idle: false,
            cooldown: Duration::ZERO,
            drop_caches: false,
            mem_free: None,
            cached: None,
            no_processes: vec![],
            shm_empty: false,
            wait: Duration::from_secs(600),
            on_closed: OnClosed::default(),
        }
    }
}

/// A figure of the log, by a regular expression with one group.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Metric {
    pub name: String,
    /// Finds the number in a line; the last line that has one counts. Absent for figures that are known already.
    pub regex: Option<String>,
    #[serde(default)]
    pub unit: String,
    /// A run without it has failed.
    #[serde(default)]
    pub required: bool,
}

#[derive(Debug, Error)]
pub enum PlanError {
    #[error("{0}")]
    Form(String),
    #[error("`{place}`: {what}")]
    Content { place: String, what: String },
}

impl PlanError {
    /// In one line, with its place.
    pub(super) fn form(text: &str, error: &toml::de::Error) -> Self {
        let line =
            error.span().and_then(|span| text.get(..span.start)).map(|before| before.lines().count().max(1));
        let message = error.message().trim().replace('\n', ", ");
        Self::Form(line.map_or_else(|| message.clone(), |line| format!("line {line}: {message}")))
    }

    pub(super) fn at(place: impl Into<String>, what: impl Into<String>) -> Self {
        Self::Content { place: place.into(), what: what.into() }
    }
}

impl Model {
    pub fn traits(&self) -> Option<Traits> {
        let known = self.parameters.is_some() || self.architecture.is_some();
        known.then(|| Traits { parameters: self.parameters, architecture: self.architecture.clone() })
    }
}

impl Plan {
    /// Units that the plan states of its metrics.
    pub fn units(&self) -> BTreeMap<String, String> {
        let stated = self.metrics.iter().filter(|metric| !metric.unit.is_empty());
        stated.map(|metric| (metric.name.clone(), metric.unit.clone())).collect()
    }

    /// Environments that differ in nothing but their names.
    pub fn alike(&self) -> Vec<(String, String)> {
        let nameless = |environment: &Environment| Environment { name: String::new(), ..environment.clone() };
        let pairs = self.environments.iter().enumerate().flat_map(|(place, one)| {
            let others =
                self.environments[place + 1..].iter().filter(|other| nameless(other) == nameless(one));
            others.map(|other| (one.name.clone(), other.name.clone()))
        });
        pairs.collect()
    }

    pub fn environment(&self, name: &str) -> Option<&Environment> {
        self.environments.iter().find(|environment| environment.name == name)
    }

    pub fn model(&self, name: &str) -> Option<&Model> {
        self.models.iter().find(|model| model.name == name)
    }

    /// After which a run of the model is ended.
    pub fn timeout_of(&self, model: &Model) -> Duration {
        model.timeout.unwrap_or(self.timeout)
    }
}

const fn hours() -> Duration {
    Duration::from_secs(2 * 3600)
}

/// `"90s"` or a number of seconds.
#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    Number(f64),
    Text(String),
}

fn time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = match Written::deserialize(deserializer)? {
        Written::Number(seconds) => seconds.to_string(),
        Written::Text(text) => text,
    };
    parse::duration(&text).map_err(serde::de::Error::custom)
}

fn some_time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    time(deserializer).map(Some)
}

fn some_seconds<S: serde::Serializer>(time: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    time.map(|time| time.as_secs_f64()).serialize(serializer)
}

fn seconds<S: serde::Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(time.as_secs_f64())
}

/// `"7B"` or a number.
fn some_count<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f64>, D::Error> {
    let written = match Option::<Counted>::deserialize(deserializer)? {
        None => return Ok(None),
        Some(Counted::Number(number)) => Some(number),
        Some(Counted::Text(text)) => {
            let times = [("K", 1e3), ("M", 1e6), ("B", 1e9), ("T", 1e12), ("", 1.0)];
            let of = |(unit, times): (&str, f64)| {
                Some(text.strip_suffix(unit)?.trim().parse::<f64>().ok()? * times)
            };
            times.into_iter().find_map(of)
        }
    };
    match written.filter(|number| number.is_finite() && *number > 0.0) {
        Some(number) => Ok(Some(number)),
        None => Err(serde::de::Error::custom("is no number of parameters: write such as \"7B\"")),
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Counted {
    Number(f64),
    Text(String),
}

/// `"8G"` or a number of bytes.
fn some_size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    let text = match Option::<Written>::deserialize(deserializer)? {
        None => return Ok(None),
        Some(Written::Number(bytes)) => bytes.to_string(),
        Some(Written::Text(text)) => text,
    };
    parse::size(&text).map(Some).map_err(serde::de::Error::custom)
}
