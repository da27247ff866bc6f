//! `diff`: who holds more in one run than in another.

use serde::Serialize;
use spark_trace_common::source::{SOURCES, Source, UNATTRIBUTED, counts_from_start};

use crate::analysis::attribution::{bytes, difference};
use crate::analysis::comparability::{Comparable, comparable};
use crate::analysis::details;
use crate::analysis::findings::{self, Findings};
use crate::analysis::instant::At;
use crate::analysis::kv;
use crate::analysis::view::{Scope, View};
use crate::ledger::{Balance, Plane, Row};
use crate::recording::{Instant, Recording};

pub mod cuda;
pub mod detail;

use cuda::CudaDelta;
use detail::{ChargeDelta, FileDelta, RegionDelta, StackDelta};

pub const SCHEMA: &str = "spark-trace/diff";
pub const SCHEMA_VERSION: u32 = 1;

/// Differences are B less A. Sizes are bytes.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    pub schema: &'static str,
    pub schema_version: u32,
    pub plane: Scope,
    /// The instant of each run that was asked for.
    pub at: At,
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
    /// Absent where neither run used the CUDA driver or asked for memory.
    pub cuda: Option<CudaDelta>,
    /// Why, of the system's memory: hypotheses with their verdicts.
    pub findings: Findings,
}

/// One of the two runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Side {
    /// What ran: command line, container or cgroup.
    pub target: String,
    pub kind: String,
    pub at_ns: u64,
    /// When its stacks and files were read, to be told of that time; absent where nothing of what is held was.
    pub details_instant: Option<Instant>,
    /// The plane's own counter.
    pub expected: Option<i64>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SourceDelta {
    pub source: &'static str,
    pub a_bytes: Option<i64>,
    pub b_bytes: Option<i64>,
    /// Absent where one of the kernels does not tell.
    pub delta_bytes: Option<i64>,
    /// Of the total difference; absent where there is none.
    pub share: Option<f64>,
}

#[derive(Debug, thiserror::Error)]
pub enum DiffError {
    #[error("{which} has no readings of the {plane} plane; choose another --plane")]
    NoPlane { which: &'static str, plane: &'static str },
    #[error("{which} has no readings of any plane")]
    Nothing { which: &'static str },
}

/// Compares two recordings on `plane`, by default on the target's own where both have it.
pub fn report(a: &Recording, b: &Recording, plane: Option<Scope>, at: At) -> Result<Report, DiffError> {
    with_findings(a, b, plane, at, || findings::judge(Some(a), b, at))
}

/// The same with findings that are known: those of several planes are the same.
pub fn with_findings(
    a: &Recording,
    b: &Recording,
    plane: Option<Scope>,
    at: At,
    findings: impl FnOnce() -> Findings,
) -> Result<Report, DiffError> {
    let (view_a, view_b) = views(a, b, plane)?;
    let (balance_a, balance_b) = (view_a.choose(at, a), view_b.choose(at, b));
    let scope = view_a.scope;
    let rows = Rows::new((view_a.plane, &balance_a), (view_b.plane, &balance_b));
    Ok(Report {
        schema: SCHEMA,
        schema_version: SCHEMA_VERSION,
        plane: scope,
        at,
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
        cuda: cuda::compare((a, balance_a.at_ns), (b, balance_b.at_ns)),
        findings: findings(),
    })
}

/// The instant to compare at where nobody asks for another: that of the reading which sized the KV cache, where both
/// have one; it is what a smaller cache is about.
pub fn instant(a: &Recording, b: &Recording) -> At {
    if kv::instant(a).and(kv::instant(b)).is_some() { At::Kv } else { At::Peak }
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
    let container = target.container.as_ref();
    let name = container.map(|container| container.name.clone().unwrap_or_else(|| container.id.clone()));
    let command = (!target.argv.is_empty()).then(|| target.argv.join(" "));
    let cgroup = target.cgroups.first().map(|cgroup| cgroup.path.clone());
    Side {
        target: name.or(command).or(cgroup).unwrap_or_else(|| target.kind.clone()),
        kind: target.kind.clone(),
        at_ns: balance.at_ns,
        details_instant: details::instant(recording, balance.at_ns).cloned(),
        expected: bytes(balance.expected),
    }
}

/// Two balances of one plane, compared.
pub(super) struct Rows {
    pub sources: Vec<SourceDelta>,
    pub total: Option<i64>,
    pub residual: Option<i64>,
}

impl Rows {
    pub fn new((plane_a, a): (Plane, &Balance), (plane_b, b): (Plane, &Balance)) -> Self {
        // A run that did not tell the part from its whole has it in the whole: so has the other one here.
        let (a, b) = (&joined(plane_a, a, b), &joined(plane_b, b, a));
        let level = |balance: &Balance, slug| bytes(balance.bytes(slug));
        let known = plane_a.sources().filter(|source| source.slug != UNATTRIBUTED);
        let mut sources: Vec<_> = known
            .map(|source| SourceDelta::new(source.slug, level(a, source.slug), level(b, source.slug)))
            .collect();
        // A row that only one of the kernels has cannot be compared: its bytes are unattributed in both.
        let compared = |side: fn(&SourceDelta) -> Option<i64>| {
            let rows = sources.iter().filter(|row| row.delta_bytes.is_some());
            rows.filter_map(side).fold(0, i64::saturating_add)
        };
        let rest_a = difference(bytes(a.expected), Some(compared(|row| row.a_bytes)));
        let rest_b = difference(bytes(b.expected), Some(compared(|row| row.b_bytes)));
        let unattributed = SourceDelta::new(UNATTRIBUTED, rest_a, rest_b);
        let total = difference(bytes(b.expected), bytes(a.expected));
        let residual = unattributed.delta_bytes;
        sources.push(unattributed);
        for row in &mut sources {
            row.share = share(row.delta_bytes, total);
        }
        Self { sources, total, residual }
    }
}

/// `balance` with the sources that `other` does not know put back into those that they were taken out of.
fn joined(plane: Plane, balance: &Balance, other: &Balance) -> Balance {
    let mut rows = balance.rows.clone();
    for part in 0..rows.len() {
        let Row { source, bytes } = rows[part];
        let Some((bytes, whole)) =
            bytes.filter(|_| other.bytes(source.slug).is_none()).zip(whole_of(plane, source))
        else {
            continue;
        };
        let Some(whole) = rows.iter_mut().find(|row| row.source.slug == whole.slug) else { continue };
        if let Some(level) = &mut whole.bytes {
            *level = level.saturating_add(bytes);
            rows[part].bytes = None;
        }
    }
    Balance::new(balance.at_ns, rows, balance.expected)
}

/// The source that has the bytes of `part` where nobody follows those.
fn whole_of(plane: Plane, part: &Source) -> Option<&'static Source> {
    let counted = plane.terms(part).iter().find(|term| !term.negative && counts_from_start(term.column))?;
    let takes_it_out = |source: &&Source| {
        plane.terms(source).iter().any(|term| term.negative && term.column == counted.column)
    };
    SOURCES.iter().find(takes_it_out)
}

impl SourceDelta {
    fn new(source: &'static str, a_bytes: Option<i64>, b_bytes: Option<i64>) -> Self {
        Self { source, a_bytes, b_bytes, delta_bytes: difference(b_bytes, a_bytes), share: None }
    }
}

fn share(part: Option<i64>, total: Option<i64>) -> Option<f64> {
    let total = total.filter(|&total| total != 0)?;
    Some(part? as f64 / total as f64)
}

#[cfg(test)]
mod tests;
