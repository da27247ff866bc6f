//! What hypotheses are judged by: one run's growth, or two runs' difference, on one plane, at one instant of each run.

use std::collections::BTreeMap;

use super::others;
use super::{Evidence, Side, Unit, Verdict};
use crate::analysis::attribution::{bytes, difference};
use crate::analysis::delta::{Rows, SourceDelta};
use crate::analysis::files::{self, FileRow};
use crate::analysis::instant::At;
use crate::analysis::losses::{self, Missed};
use crate::analysis::moment::Moments;
use crate::analysis::stacks::{self, Observed};
use crate::analysis::view::{Scope, View};
use crate::ledger::{Balance, Plane};
use crate::recording::{Recording, Series};
use crate::units;

/// Differences below this are what a machine does by itself, and so is this part of a larger one.
const MATERIAL_BYTES: i64 = 16 << 20;
/// What is charged to a cgroup or taken of a GPU is moved by nobody else: what remains is the kernel's own bookkeeping for
/// each CPU (mm/memcontrol.c MEMCG_CHARGE_BATCH).
const MATERIAL_BYTES_OF_TARGET: i64 = 4 << 20;
const MATERIAL_PERCENT: i64 = 2;
/// Free pages are reported to a hypervisor every two seconds (PAGE_REPORTING_DELAY in mm/page_reporting.c), and were seen
/// to be away for hundreds of milliseconds.
const PASSES_WITHIN_NS: u64 = 5_000_000_000;

/// One of the runs, at the instant it is looked at.
pub struct Run<'a> {
    pub recording: &'a Recording,
    pub side: Side,
    pub view: View<'a>,
    pub at_ns: u64,
    pub balance: Balance,
    pub start: Balance,
    /// Page cache by file at the instant.
    pub files: Vec<FileRow>,
    observed: BTreeMap<&'static str, Observed>,
}

/// Everything is of one plane: what another plane did says nothing here.
pub struct Case<'a> {
    pub scope: Scope,
    pub(super) at: At,
    pub a: Option<Run<'a>>,
    /// Absent where the recording has no readings of the plane.
    b: Option<Run<'a>>,
    rows: Vec<SourceDelta>,
    pub delta: Option<i64>,
    pub residual: Option<i64>,
    pub material: i64,
    /// Why levels of this plane say nothing of the runs: others changed them, or the runs began differently.
    pub untestable: Option<String>,
}

impl<'a> Run<'a> {
    fn new(recording: &'a Recording, side: Side, at: At, scope: Scope) -> Option<Self> {
        let view = View::new(recording, scope)?;
        let balance = view.choose(at);
        let (start, at_ns) = (view.start(), balance.at_ns);
        let observed = stacks::by_source(&stacks::rows(recording, scope, at_ns));
        let files = files::on(recording, scope, at_ns);
        Some(Self { recording, side, at_ns, balance, start, view, files, observed })
    }

    /// A counter of the case's plane at the instant; of several cgroups or GPUs their sum. Absent where the plane has none
    /// of that name: `meminfo.*`, `vmstat.*` and `driver.*` are the machine's.
    pub fn counter(&self, column: &str) -> Option<i64> {
        self.column_at(column, self.at_ns)
    }

    /// The same when the target started.
    pub fn counter_at_start(&self, column: &str) -> Option<i64> {
        self.column_at(column, self.start.at_ns)
    }

    fn column_at(&self, column: &str, at_ns: u64) -> Option<i64> {
        let values = self.view.roots.iter().map(|root| {
            let value = root.series.columns.get(column)?.get(root.nearest(at_ns)?)?;
            i64::try_from(value).ok()
        });
        // A part that was not read makes the sum unknown.
        values.reduce(|a, b| Some(a?.saturating_add(b?))).flatten()
    }

    /// What of the residual at the instant is free again soon after it, while the sources stand as they did: free pages
    /// that were being reported to a hypervisor do that. Zero where the kernel reports none, and never more than it
    /// reports at a time. What was less before may have come to stay, so readings before the instant tell nothing.
    pub fn passing(&self) -> i64 {
        let Some(most) = bytes(self.recording.host.page_reporting_bytes) else { return 0 };
        let until_ns = self.at_ns.saturating_add(PASSES_WITHIN_NS);
        let soon = |at_ns: &u64| (self.at_ns..=until_ns).contains(at_ns);
        let freed = self.view.times().into_iter().filter(soon).filter_map(|at_ns| {
            let (then, later) = (&self.balance, self.view.at(at_ns));
            let same = later.attributed.abs_diff(then.attributed) <= MATERIAL_BYTES.unsigned_abs();
            let fewer_in_no_source = then.residual?.saturating_sub(later.residual?);
            let fewer_in_use = difference(bytes(then.expected), bytes(later.expected))?;
            same.then_some(fewer_in_no_source.min(fewer_in_use))
        });
        freed.max().unwrap_or(0).clamp(0, most)
    }

    /// How far a counter that only grows has come from the first reading to the last.
    pub fn grown(&self, column: &str) -> Option<i64> {
        grown(&self.recording.samples.system, column)
    }

    /// The same of the target's root cgroups, together. A cgroup that was created while tracing began at zero.
    pub fn grown_in_cgroups(&self, column: &str) -> Option<i64> {
        let roots = View::new(self.recording, Scope::Cgroup)?.roots;
        let grown = roots.iter().filter_map(|root| match root.created_ns() {
            Some(_) => i64::try_from(root.series.columns.get(column)?.known().next_back()?).ok(),
            None => grown(root.series, column),
        });
        grown.reduce(i64::saturating_add)
    }

    /// What stacks hold of one source at the instant.
    pub fn observed(&self, slug: &str) -> Observed {
        self.observed.get(slug).copied().unwrap_or_default()
    }

    /// Why a hook's part cannot be relied on, if it cannot. What it missed is no reason while it is too little to matter,
    /// see [`Self::missed`].
    pub fn unseen(&self, hook: &str) -> Option<String> {
        let name = self.name();
        let health = &self.recording.health;
        let Some(row) = health.hooks.iter().find(|row| row.name == hook) else {
            return Some(format!("{name} has no hook {hook}"));
        };
        let reason = row.reason.as_deref().unwrap_or("no reason recorded");
        match row.verdict.as_str() {
            // The part of the kernel that it watches is not there: nothing can have gone through it.
            "not-applicable" => None,
            "ok" => {
                let missed = Missed::of(row).filter(|missed| missed.matters());
                missed.map(|missed| format!("{missed} in {name}")).or_else(|| {
                    losses::touching(health, hook)
                        .map(|loss| format!("{} entries were lost in {} in {name}", loss.count, loss.what))
                })
            }
            verdict => Some(format!("hook {hook} is {verdict} in {name}: {reason}")),
        }
    }

    /// The little that a hook missed, for the reader to know.
    pub(super) fn missed(&self, hook: &str) -> Option<String> {
        let row = self.recording.health.hooks.iter().find(|row| row.name == hook)?;
        Missed::of(row).map(|missed| format!("{missed} in {}", self.name()))
    }

    pub const fn name(&self) -> &'static str {
        match self.side {
            Side::A => "A",
            Side::B | Side::Both => "B",
        }
    }

    pub fn evidence(&self, what: impl Into<String>, value: Option<i64>, place: &str) -> Evidence {
        Evidence { what: what.into(), value, unit: Unit::Bytes, side: self.side, place: place.to_owned() }
    }
}

fn grown(series: &Series, column: &str) -> Option<i64> {
    let mut known = series.columns.get(column)?.known();
    let first = known.next()?;
    let last = known.next_back().unwrap_or(first);
    i64::try_from(last.saturating_sub(first)).ok()
}

/// What a hypothesis makes of a case.
#[derive(Debug, Clone, PartialEq)]
pub struct Judgement {
    pub verdict: Verdict,
    pub because: String,
    /// Bytes of the difference that are this hypothesis' own: no other row counts them.
    pub explains: Option<i64>,
    pub evidence: Vec<Evidence>,
}

impl Judgement {
    pub fn new(verdict: Verdict, because: impl Into<String>, evidence: Vec<Evidence>) -> Self {
        Self { verdict, because: because.into(), explains: None, evidence }
    }

    pub fn untestable(because: impl Into<String>) -> Self {
        Self::new(Verdict::Untestable, because, vec![])
    }
}

impl<'a> Case<'a> {
    /// Both runs on one plane: B against A, or the growth of B alone.
    pub fn new(a: Option<&'a Recording>, b: &'a Recording, at: Moments, scope: Scope) -> Self {
        let compared = a.zip(Some(b));
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

    /// How far something has come, in words: what it is, the finding's title says.
    fn found(&self, bytes: i64) -> String {
        let (amount, word) = (units::size(bytes.abs()), if bytes < 0 { "less" } else { "more" });
        match (bytes, self.a.is_some()) {
            (0, true) => "the same in A and B".to_owned(),
            (0, false) => "the same as at the start".to_owned(),
            (_, true) => format!("{amount} {word} in B"),
            (_, false) => format!("{amount} {word} than at the start"),
        }
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
    pub fn by_bytes(&self, explains: Option<i64>, what: &str, evidence: Vec<Evidence>) -> Judgement {
        match (&self.untestable, explains) {
            (Some(reason), Some(bytes)) => Judgement {
                explains,
                ..Judgement::new(
                    Verdict::Untestable,
                    format!("{}, but {reason}", self.found(bytes)),
                    evidence,
                )
            },
            _ => self.weigh(explains, what, evidence),
        }
    }

    /// The same of a part of what another row has: it may move against the whole.
    pub fn by_part(&self, explains: Option<i64>, what: &str, evidence: Vec<Evidence>) -> Judgement {
        let judged = self.by_bytes(explains, what, evidence);
        let counts = judged.explains.filter(|bytes| *bytes != 0 && bytes.abs() >= self.material);
        match (judged.verdict, counts) {
            (Verdict::Refuted, Some(bytes)) => {
                Judgement { verdict: Verdict::Supported, because: self.found(bytes), ..judged }
            }
            _ => judged,
        }
    }

    /// The same of claims about what was there before the runs, which are not harmed by runs that began differently.
    pub fn weigh(&self, explains: Option<i64>, what: &str, evidence: Vec<Evidence>) -> Judgement {
        let Some(explains) = explains else {
            return Judgement::untestable(format!("{what} was not read in both"));
        };
        let delta = self.delta.unwrap_or(0);
        let found = self.found(explains);
        let (verdict, because) = if explains == 0 {
            (Verdict::Refuted, found)
        } else if explains.abs() < self.material {
            (Verdict::Refuted, format!("{found}; below the threshold of {}", units::size(self.material)))
        } else if delta.abs() >= self.material && (explains < 0) != (delta < 0) {
            let whole = units::delta(delta);
            (Verdict::Refuted, format!("{found}, in the opposite direction of the total ({whole})"))
        } else {
            (Verdict::Supported, found)
        };
        Judgement { explains: Some(explains), ..Judgement::new(verdict, because, evidence) }
    }
}
