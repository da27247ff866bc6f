//! `diff`: who holds more in one run than in another.

use serde::Serialize;

use crate::attribution::answer;
use crate::attribution::bytes;
use crate::comparability::{Comparable, comparable};
use crate::delta::Rows;
pub use crate::delta::SourceDelta;
use crate::derived::Derived;
use crate::findings::{self, Findings};
use crate::instant_spec::InstantSpec;
use crate::moment::{Moment, Moments};
use crate::nearest_instant;
use crate::view::{Scope, View};
use spark_trace_recording::ledger::Balance;
use spark_trace_recording::{Instant, Recording};

pub mod cuda;
pub mod detail;
pub mod engine;

use cuda::CudaDelta;
use detail::{ChargeDelta, FileDelta, RegionDelta, StackDelta};
use engine::PartDelta;

pub const SCHEMA: &str = "spark-trace/diff";
pub const SCHEMA_VERSION: u32 = 1;

/// Differences are B minus A. Sizes are bytes.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    pub schema: &'static str,
    pub schema_version: u32,
    pub plane: Scope,
    /// Which instant of each run is compared, and why that one.
    pub at: InstantSpec,
    pub at_reason: String,
    /// What makes the instants of A and B differ in kind.
    pub warnings: Vec<String>,
    pub a: Side,
    pub b: Side,
    /// Every source and `unattributed`, whose difference is the residual: together they are the total.
    pub sources: Vec<SourceDelta>,
    /// Difference of the plane's own counters.
    pub total_delta_bytes: Option<i64>,
    /// The total less the differences of all sources but `unattributed`.
    pub residual_bytes: Option<i64>,
    pub comparable: Comparable,
    pub files: Vec<FileDelta>,
    pub stacks: Vec<StackDelta>,
    /// What kernel paths charged the target's cgroups; empty where hooks on page counters did not run in both.
    pub charges: Vec<ChargeDelta>,
    pub regions: Vec<RegionDelta>,
    /// Absent where neither run used the CUDA driver or made a memory query.
    pub cuda: Option<CudaDelta>,
    /// What the device memory of the engines is for; empty where no stage of theirs is known.
    pub engine: Vec<PartDelta>,
    /// Why: hypotheses with their verdicts, plane by plane. The target's come first, the machine's last.
    pub findings: Vec<Findings>,
}

/// One of the two runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Side {
    /// What ran: command line, container or cgroup.
    pub target: String,
    pub kind: String,
    pub at_ns: u64,
    /// When its stacks and files were read, to be shown for that time; absent where nothing of what is in use was.
    pub details_instant: Option<Instant>,
    /// The plane's own counter.
    pub expected: Option<i64>,
}

#[derive(Debug, thiserror::Error)]
pub enum DiffError {
    #[error("{which} has no readings of the {plane} plane; choose another --plane")]
    NoPlane { which: &'static str, plane: &'static str },
    #[error("{which} has no readings of any plane")]
    Nothing { which: &'static str },
}

/// Compares two recordings on `plane`, by default on the target's own where both have it.
pub fn report<'a, R: Into<Derived<'a>>>(
    a: R,
    b: R,
    plane: Option<Scope>,
    moment: impl Into<Moment>,
) -> Result<Report, DiffError> {
    let (a, b, moment) = (a.into(), b.into(), moment.into());
    let at = moment.at;
    with_findings(&a, &b, plane, moment, || findings::judge(Some(&a), &b, at))
}

/// The same with findings that are known: those of several planes are the same.
pub fn with_findings(
    derived_a: &Derived<'_>,
    derived_b: &Derived<'_>,
    plane: Option<Scope>,
    moment: Moment,
    findings: impl FnOnce() -> Vec<Findings>,
) -> Result<Report, DiffError> {
    let (a, b) = (derived_a.recording, derived_b.recording);
    let (view_a, view_b) = views(a, b, plane)?;
    let Moments { a: at_a, b: at_b } = moment.at;
    let (balance_a, balance_b) = (view_a.choose(at_a), view_b.choose(at_b));
    let scope = view_a.scope;
    let rows = Rows::new((view_a.plane, &balance_a), (view_b.plane, &balance_b));
    Ok(Report {
        schema: SCHEMA,
        schema_version: SCHEMA_VERSION,
        plane: scope,
        at: at_b,
        at_reason: moment.reason,
        warnings: moment.warnings,
        a: side(a, &balance_a),
        b: side(b, &balance_b),
        total_delta_bytes: rows.total,
        residual_bytes: rows.residual,
        sources: rows.sources,
        comparable: comparable(a, b),
        files: detail::files(scope, (a, balance_a.at_ns), (b, balance_b.at_ns)),
        stacks: detail::stacks(scope, (a, balance_a.at_ns), (b, balance_b.at_ns)),
        charges: detail::charges(scope, (a, balance_a.at_ns), (b, balance_b.at_ns)),
        regions: detail::regions(scope, (a, balance_a.at_ns), (b, balance_b.at_ns)),
        cuda: cuda::compare(
            (derived_a, balance_a.at_ns, at_a.answered()),
            (derived_b, balance_b.at_ns, at_b.answered()),
        ),
        engine: engine::compare((derived_a, balance_a.at_ns), (derived_b, balance_b.at_ns)),
        findings: findings(),
    })
}

/// Both recordings seen on the same plane.
fn views<'a>(
    a: &'a Recording,
    b: &'a Recording,
    plane: Option<Scope>,
) -> Result<(View<'a>, View<'a>), DiffError> {
    let scopes: &[Scope] = match &plane {
        Some(scope) => std::slice::from_ref(scope),
        None => &[Scope::Cgroup, Scope::System],
    };
    let both = |scope: &Scope| View::new(a, *scope).zip(View::new(b, *scope));
    scopes.iter().find_map(both).ok_or_else(|| {
        let has = |recording, scope: &Scope| View::new(recording, *scope).is_some();
        let which = if scopes.iter().any(|scope| has(a, scope)) { "B" } else { "A" };
        match plane {
            Some(scope) => DiffError::NoPlane { which, plane: scope.as_str() },
            None => DiffError::Nothing { which },
        }
    })
}

fn side(recording: &Recording, balance: &Balance) -> Side {
    let target = &recording.target;
    let name = answer::container_names(target);
    let command = (!target.argv.is_empty()).then(|| target.argv.join(" "));
    let cgroup = target.cgroups.first().map(|cgroup| cgroup.path.clone());
    Side {
        target: name.or(command).or(cgroup).unwrap_or_else(|| target.kind.to_string()),
        kind: target.kind.to_string(),
        at_ns: balance.at_ns,
        details_instant: nearest_instant::instant(recording, balance.at_ns).cloned(),
        expected: bytes(balance.expected),
    }
}

#[cfg(test)]
mod tests;
