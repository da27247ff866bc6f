//! Whether a plan can run on this machine, and how long it takes: everything that can be known before the first run.
//!
//! A check is a function and a row of [`CHECKS`]. It looks, and changes nothing.

mod containers;
mod limits;
mod machine;
mod models;
mod places;
mod time;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::command::{self, Values};
use super::estimate::{self, ModelTime};
use super::plan::{Environment, Model, Plan};
use super::results::Run;
use super::run::Options;
use super::schedule::Slot;
pub use machine::Here;

/// What a finding means for the study.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    Fine,
    /// It runs; look whether the result is what is wanted.
    Warning,
    /// Runs would fail, or compare what is not comparable.
    Fatal,
}

impl Severity {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Fine => "ok",
            Self::Warning => "warning",
            Self::Fatal => "fatal",
        }
    }
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub severity: Severity,
    pub check: &'static str,
    /// An environment, a model, or both; empty where it is the whole plan.
    pub subject: String,
    pub found: String,
    /// What to do.
    pub next: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    pub name: String,
    pub can_run: bool,
    pub findings: Vec<Finding>,
    /// Runs that are still to be made.
    pub runs: usize,
    pub times: Vec<ModelTime>,
    /// Of all models; absent where the time of one is unknown.
    pub hours: Option<f64>,
}

/// What a check looks at besides the plan.
pub trait Machine {
    /// Below which the machine's files are: `/`.
    fn root(&self) -> &Path;
    /// What an engine's client prints; why there is nothing, in a line.
    fn engine(&self, engine: &str, args: &[&str]) -> Result<String, String>;
    /// How many GPUs the driver has.
    fn gpus(&self) -> Result<usize, String>;
    /// Soft and hard limit that a command started here would have, as `getrlimit` numbers them.
    fn limit(&self, resource: u32) -> Option<(u64, u64)>;
    /// Whether a command started here may raise its hard limits; unknown to a user who is not root.
    fn may_raise_limits(&self) -> Option<bool>;
    /// Gates of the plan that are closed now, with the reason.
    fn closed(&self, plan: &Plan) -> Vec<(&'static str, String)>;
    /// Bytes that are free where a folder lies.
    fn free_space(&self, dir: &Path) -> std::io::Result<u64>;
    /// Directories of programs, for commands without an engine.
    fn path(&self) -> Vec<PathBuf>;

    fn file(&self, path: &str) -> PathBuf {
        self.root().join(path.trim_start_matches('/'))
    }
}

/// A plan, this machine, and what was run already.
pub struct Subject<'a> {
    pub plan: &'a Plan,
    pub options: &'a Options,
    pub machine: &'a dyn Machine,
    /// Runs that are still to be made.
    pub left: &'a [Slot],
    pub done: &'a [Run],
}

impl Subject<'_> {
    fn values(&self, environment: &Environment, model: &Model) -> Values {
        let run = self.options.dir.join("runs/check");
        self.options.values(self.plan, environment, model, 1, &run)
    }

    /// Values of an environment, with its first model: for what does not depend on models.
    fn values_of(&self, environment: &Environment) -> Option<Values> {
        Some(self.values(environment, self.plan.models.first()?))
    }

    fn cells(&self) -> impl Iterator<Item = (&Environment, &Model)> {
        let models = |environment| self.plan.models.iter().map(move |model| (environment, model));
        self.plan.environments.iter().flat_map(models)
    }

    /// An environment's flags with their values. What cannot be filled in is a finding of `commands`.
    fn flags(&self, environment: &Environment) -> Vec<String> {
        let Some(values) = self.values_of(environment) else { return vec![] };
        environment.flags.iter().filter_map(|flag| values.fill(flag).ok()).collect()
    }
}

/// Where findings of one check go.
pub(crate) struct Findings {
    check: &'static str,
    all: Vec<Finding>,
}

impl Findings {
    fn add(&mut self, severity: Severity, subject: &str, found: impl Into<String>, next: Option<String>) {
        let (check, subject, found) = (self.check, subject.to_owned(), found.into());
        self.all.push(Finding { severity, check, subject, found, next });
    }

    fn fine(&mut self, subject: &str, found: impl Into<String>) {
        self.add(Severity::Fine, subject, found, None);
    }

    fn warning(&mut self, subject: &str, found: impl Into<String>, next: impl Into<String>) {
        self.add(Severity::Warning, subject, found, Some(next.into()));
    }

    fn fatal(&mut self, subject: &str, found: impl Into<String>, next: impl Into<String>) {
        self.add(Severity::Fatal, subject, found, Some(next.into()));
    }
}

struct Check {
    name: &'static str,
    look: fn(&Subject<'_>, &mut Findings),
}

const CHECKS: &[Check] = &[
    Check { name: "order", look: order },
    Check { name: "commands", look: commands },
    Check { name: "programs", look: places::programs },
    Check { name: "engines", look: containers::engines },
    Check { name: "images", look: containers::images },
    Check { name: "rootfs", look: containers::rootfs },
    Check { name: "files", look: places::files },
    Check { name: "models", look: models::look },
    Check { name: "mounts", look: places::mounts },
    Check { name: "dataset", look: places::dataset },
    Check { name: "limits", look: limits::look },
    Check { name: "cores", look: machine::cores },
    Check { name: "cgroup", look: machine::cgroup },
    Check { name: "gpu", look: machine::gpu },
    Check { name: "disk", look: machine::disk },
    Check { name: "gates", look: machine::gates },
];

/// Looks at everything.
pub fn check(subject: &Subject<'_>) -> Report {
    let mut findings = vec![];
    for check in CHECKS {
        let mut of_check = Findings { check: check.name, all: vec![] };
        (check.look)(subject, &mut of_check);
        findings.append(&mut of_check.all);
    }
    let mut of_time = Findings { check: "time", all: vec![] };
    let values = |environment: &Environment, model: &Model| subject.values(environment, model);
    let times = match estimate::of(subject.plan, subject.left, subject.done, &values) {
        Ok(times) => times,
        Err(what) => {
            of_time.fatal("", what, "correct `[estimate]` in the plan");
            vec![]
        }
    };
    time::look(&times, &mut of_time);
    findings.append(&mut of_time.all);
    let hours = times.iter().map(ModelTime::hours).sum::<Option<f64>>().filter(|_| !times.is_empty());
    Report {
        name: subject.plan.name.clone(),
        can_run: findings.iter().all(|finding| finding.severity < Severity::Fatal),
        findings,
        runs: subject.left.len(),
        times,
        hours,
    }
}

/// Whether the order can tell environments from drift.
fn order(subject: &Subject<'_>, findings: &mut Findings) {
    use super::plan::Order;
    let several = subject.plan.environments.len() > 2;
    match subject.plan.order {
        Order::Blocked => findings.warning(
            "",
            "the order is `blocked`: drift looks like a difference of environments",
            "use another `order`, if the machine allows it",
        ),
        Order::Abba if several => findings.warning(
            "",
            "in the order `abba` with more than two environments each has the same neighbours in all rounds",
            "write `order = \"balanced\"`",
        ),
        order => findings.fine("", format!("`{}`", order.as_str())),
    }
}

/// Whether every command can be written down.
fn commands(subject: &Subject<'_>, findings: &mut Findings) {
    let mut fine = true;
    for (environment, model) in subject.cells() {
        let values = subject.values(environment, model);
        if let Err(what) = command::line(subject.plan, environment, &values) {
            let place = format!("{} of {}", environment.name, model.name);
            findings.fatal(&place, what, "correct it in the plan");
            fine = false;
        }
    }
    if fine {
        findings.fine("", "all placeholders have values");
    }
}
