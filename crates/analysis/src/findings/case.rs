//! What hypotheses are judged by: one run's growth, or two runs' difference, on one plane, at one instant of each run.

use super::because::{Because, Change, Outside, Reason};
use super::others;
use super::run::{MATERIAL_BYTES, Run};
use super::{Evidence, Side, Unit, Verdict};
use crate::attribution::{bytes, difference};
use crate::delta::{Rows, SourceDelta};
use crate::derived::Derived;
use crate::instant_spec::InstantSpec;
use crate::moment::Moments;
use crate::view::Scope;
use spark_trace_recording::ledger::Plane;
use spark_trace_recording::units;

/// What is charged to a cgroup or taken of a GPU is moved by nobody else: what remains is the kernel's own bookkeeping for
/// each CPU (mm/memcontrol.c MEMCG_CHARGE_BATCH).
const MATERIAL_BYTES_OF_TARGET: i64 = 4 << 20;
const MATERIAL_PERCENT: i64 = 2;
/// Everything is of one plane: what another plane did says nothing here.
pub struct Case<'a> {
    pub scope: Scope,
    pub(super) at: InstantSpec,
    pub a: Option<Run<'a>>,
    /// Absent where the recording has no readings of the plane.
    b: Option<Run<'a>>,
    rows: Vec<SourceDelta>,
    pub delta: Option<i64>,
    pub residual: Option<i64>,
    pub material: i64,
    /// Why levels of this plane say nothing of the runs: others changed them, or the runs began differently.
    pub untestable: Option<Outside>,
}

/// What a hypothesis makes of a case.
#[derive(Debug, Clone, PartialEq)]
pub struct Judgement {
    pub verdict: Verdict,
    pub because: Because,
    /// Bytes of the difference that are this hypothesis' own: no other row counts them.
    pub explains: Option<i64>,
    pub evidence: Vec<Evidence>,
}

impl Judgement {
    pub fn new(verdict: Verdict, because: impl Into<Because>, evidence: Vec<Evidence>) -> Self {
        Self { verdict, because: because.into(), explains: None, evidence }
    }

    pub fn untestable(reason: Reason) -> Self {
        Self::new(Verdict::Untestable, reason, vec![])
    }
}

impl<'a> Case<'a> {
    /// Both runs on one plane: B against A, or the growth of B alone.
    pub fn new(a: Option<&Derived<'a>>, b: &Derived<'a>, at: Moments, scope: Scope) -> Self {
        let compared = a.map(|a| (a.recording, b.recording));
        let a = a.and_then(|a| Run::new(a, Side::A, at.a, scope));
        let b = Run::new(b, Side::B, at.b, scope);
        let rows = b.as_ref().map(|b| {
            // Of one run: what has come since it began.
            let from = a.as_ref().map_or((b.view.plane, &b.start), |a| (a.view.plane, &a.balance));
            Rows::new(from, (b.view.plane, &b.balance))
        });
        let (rows, delta, residual) =
            rows.map_or((vec![], None, None), |rows| (rows.sources, rows.total, rows.residual));
        let least = if scope == Scope::System { MATERIAL_BYTES } else { MATERIAL_BYTES_OF_TARGET };
        let material = least.max(delta.unwrap_or(0).abs() / 100 * MATERIAL_PERCENT);
        let untestable = match scope {
            Scope::System => others::reason(compared, at, [a.as_ref(), b.as_ref()], delta, material),
            Scope::Cgroup | Scope::Device => None,
        };
        Self { scope, at: at.b, a, b, rows, delta, residual, material, untestable }
    }

    pub fn runs(&self) -> impl Iterator<Item = &Run<'a>> {
        self.a.iter().chain(&self.b)
    }

    pub fn b(&self) -> Option<&Run<'a>> {
        self.b.as_ref()
    }

    /// How far something has come: what it is, the finding's title says.
    const fn change(&self, bytes: i64) -> Change {
        Change { bytes, of_two: self.a.is_some() }
    }

    pub fn row(&self, slug: &str) -> Option<&SourceDelta> {
        self.rows.iter().find(|row| row.source == slug)
    }

    /// Difference of a group of sources; absent where none of them is known in both.
    pub fn delta_of(&self, slugs: &[&str]) -> Option<i64> {
        let known = slugs.iter().filter_map(|slug| self.row(slug)?.delta_bytes);
        known.reduce(i64::saturating_add)
    }

    /// Difference of what the runs found in use when they began; of one run what it found.
    pub fn start_of(&self, slug: &str) -> Option<i64> {
        let b = bytes(self.b.as_ref()?.start.bytes(slug));
        match &self.a {
            Some(a) => difference(b, bytes(a.start.bytes(slug))),
            None => b,
        }
    }

    /// Evidence for each source of a group that differs.
    pub fn rows_evidence(&self, slugs: &[&str]) -> Vec<Evidence> {
        let rows = slugs.iter().filter_map(|slug| self.row(slug));
        rows.filter(|row| row.delta_bytes.is_some_and(|delta| delta.abs() >= self.material / 16))
            .map(|row| Evidence {
                what: format!(
                    "{}: {} to {}",
                    row.source,
                    units::known(row.a_bytes, units::size),
                    units::known(row.b_bytes, units::size)
                ),
                value: row.delta_bytes,
                unit: Unit::DeltaBytes,
                side: Side::Both,
                place: self.place_of(row.source),
            })
            .collect()
    }

    /// Where a source's level stands in the recordings.
    pub fn place_of(&self, slug: &str) -> String {
        let plane = self.b.as_ref().map_or(Plane::System, |run| run.view.plane);
        let source = spark_trace_common::source::by_slug(slug);
        let terms = source.map_or(&[][..], |source| plane.terms(source)).iter();
        let terms = terms.map(|term| format!("{}{}", if term.negative { "-" } else { "" }, term.column));
        let samples = match self.scope {
            Scope::System => "samples.system",
            Scope::Cgroup => "samples.cgroups",
            Scope::Device => "samples.devices",
        };
        format!("{samples}: {}", terms.collect::<Vec<_>>().join(" "))
    }

    /// The judgement of a claim that a group of sources makes the difference, by how much of it they hold. It is
    /// `untestable` where the plane's levels say nothing of the runs.
    pub fn by_bytes(&self, explains: Option<i64>, what: &'static str, evidence: Vec<Evidence>) -> Judgement {
        match (&self.untestable, explains) {
            (Some(outside), Some(bytes)) => {
                let reason = Reason::ChangedBut(self.change(bytes), outside.clone());
                Judgement { explains, ..Judgement::new(Verdict::Untestable, reason, evidence) }
            }
            _ => self.weigh(explains, what, evidence),
        }
    }

    /// The same of a part of what another row has: it may move against the whole.
    pub fn by_part(&self, explains: Option<i64>, what: &'static str, evidence: Vec<Evidence>) -> Judgement {
        let judged = self.by_bytes(explains, what, evidence);
        let counts = judged.explains.filter(|bytes| *bytes != 0 && bytes.abs() >= self.material);
        match (judged.verdict, counts) {
            (Verdict::Refuted, Some(bytes)) => {
                let because = Reason::Changed(self.change(bytes)).into();
                Judgement { verdict: Verdict::Supported, because, ..judged }
            }
            _ => judged,
        }
    }

    /// The same of claims about what was there before the runs, which are not harmed by runs that began differently.
    pub fn weigh(&self, explains: Option<i64>, what: &'static str, evidence: Vec<Evidence>) -> Judgement {
        let Some(explains) = explains else { return Judgement::untestable(Reason::NotRead(what)) };
        let whole = self.delta.unwrap_or(0);
        let change = self.change(explains);
        let (verdict, reason) = if explains == 0 {
            (Verdict::Refuted, Reason::Changed(change))
        } else if explains.abs() < self.material {
            (Verdict::Refuted, Reason::BelowThreshold { change, threshold: self.material })
        } else if whole.abs() >= self.material && (explains < 0) != (whole < 0) {
            (Verdict::Refuted, Reason::Opposite { change, whole })
        } else {
            (Verdict::Supported, Reason::Changed(change))
        };
        Judgement { explains: Some(explains), ..Judgement::new(verdict, reason, evidence) }
    }
}
