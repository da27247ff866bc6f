//! `doctor`: what this machine can record, tried for real.
//!
//! Hooks are loaded and attached ([`hooks`]), everything else is one row of [`table::CHECKS`]. Nothing is
//! concluded from version numbers or from being root: what works is what has just worked.

pub mod command;
pub mod engine;
mod exercise;
pub mod hooks;
pub mod table;

mod accounting;
mod kernel;
mod nvidia;
mod rights;

use std::{path::PathBuf, time::Duration};

use serde::Serialize;

use super::{
    btf::Btf,
    cgroup::Layout,
    host,
    source::{nvml, system::System},
};
use crate::attach_plan::Exclusion;
use hooks::{HookRow, Trial};
use spark_trace_recording::{Host, LibraryFile};
use table::CHECKS;

pub const SCHEMA: &str = "spark-trace/doctor";
pub const SCHEMA_VERSION: u32 = 1;

/// What was found on this machine.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    pub schema: &'static str,
    pub schema_version: u32,
    pub tool_version: &'static str,
    /// Absent where not even the cgroup hierarchies are known.
    pub host: Option<Host>,
    /// A recording can be made here.
    pub can_record: bool,
    /// Why not: the first thing in the way.
    pub obstacle: Option<String>,
    pub hooks: Vec<HookRow>,
    /// CUDA drivers and NVML libraries on this machine or mapped by its processes, attached to for a moment.
    pub libraries: Vec<LibraryFile>,
    pub checks: Vec<CheckRow>,
}

/// One row of [`CHECKS`] with what was found.
#[derive(Debug, Clone, Serialize)]
pub struct CheckRow {
    pub name: &'static str,
    /// How it is found out.
    pub probe: &'static str,
    pub status: Status,
    pub found: String,
    /// What it costs where it is missing.
    pub without: &'static str,
    /// How to get it.
    pub remedy: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    Ok,
    /// There, but recordings lack something.
    Warning,
    Missing,
    /// There is nothing here that would need it.
    NotApplicable,
}

impl Status {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Missing => "missing",
            Self::NotApplicable => "not-applicable",
        }
    }

    /// Whether there is something to say on what it costs.
    pub const fn is_fault(self) -> bool {
        matches!(self, Self::Warning | Self::Missing)
    }
}

/// What a probe found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub status: Status,
    pub found: String,
}

impl Finding {
    fn ok(found: impl Into<String>) -> Self {
        Self { status: Status::Ok, found: found.into() }
    }

    fn warning(found: impl Into<String>) -> Self {
        Self { status: Status::Warning, found: found.into() }
    }

    fn missing(found: impl Into<String>) -> Self {
        Self { status: Status::Missing, found: found.into() }
    }

    fn not_applicable(found: impl Into<String>) -> Self {
        Self { status: Status::NotApplicable, found: found.into() }
    }
}

/// What several probes look at, found once.
pub struct Machine {
    btf: Result<Btf, String>,
    layout: Result<Layout, String>,
    trial: Trial,
    nvml: nvml::Machine,
}

/// Tries everything. Takes about a second where container engines do not answer at once. `library`: NVML's, where
/// it is not to be looked for.
pub fn run(library: Option<PathBuf>, without: &[Exclusion]) -> Report {
    let mut nvml = nvml::Nvml::start(library, Duration::MAX);
    let btf = Btf::from_kernel().map_err(|e| e.to_string());
    let layout = Layout::detect().map_err(|e| e.to_string());
    let trial = Trial::run(btf.as_ref(), layout.as_ref(), without);
    let machine = Machine { btf, layout, trial, nvml: nvml.machine().clone() };
    let checks: Vec<_> = CHECKS
        .iter()
        .map(|check| {
            let Finding { status, found } = (check.run)(&machine);
            CheckRow {
                name: check.name,
                probe: check.probe,
                status,
                found,
                without: check.without,
                remedy: check.remedy,
            }
        })
        .collect();
    // What a recording does first fails first.
    let counters = || System::open().err().map(|e| format!("the kernel's counters cannot be read: {e}"));
    let obstacle = machine.trial.obstacle.clone().or_else(counters);
    Report {
        schema: SCHEMA,
        schema_version: SCHEMA_VERSION,
        tool_version: env!("CARGO_PKG_VERSION"),
        host: machine.layout.as_ref().ok().map(|layout| {
            let mut host = host::facts(layout);
            machine.nvml.describe(&mut host);
            host
        }),
        can_record: obstacle.is_none(),
        obstacle,
        hooks: machine.trial.hooks,
        libraries: machine.trial.libraries,
        checks,
    }
}

/// A size for people: nothing here is smaller or larger than MiB can say.
fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_check_says_what_it_is_about_and_comes_to_a_finding_for_anybody() {
        let report = run(None, &[]);
        assert_eq!(report.checks.len(), CHECKS.len());
        for check in &report.checks {
            let texts = [check.name, check.probe, check.found.as_str(), check.without, check.remedy];
            assert!(texts.iter().all(|text| !text.is_empty() && !text.contains('\n')), "{check:?}");
        }
        assert_eq!(report.can_record, report.obstacle.is_none());
        let names: std::collections::BTreeSet<_> = report.checks.iter().map(|check| check.name).collect();
        assert_eq!(names.len(), CHECKS.len(), "a name is used twice");
    }
}
