//! One of the runs that hypotheses are judged by.

use std::collections::BTreeMap;

use super::because::{Missed, Unseen};
use super::{Evidence, Side, Unit};
use crate::attribution::{bytes, difference};
use crate::derived::Derived;
use crate::files::{self, FileRow};
use crate::instant_spec::InstantSpec;
use crate::losses::{self, SkippedRuns};
use crate::stacks::{self, Observed};
use crate::view::{Scope, View};
use spark_trace_recording::ledger::Balance;
use spark_trace_recording::verdict::Verdict as Health;
use spark_trace_recording::{Recording, Series};

/// Differences below this are what a machine does by itself, and so is this part of a larger one.
pub(super) const MATERIAL_BYTES: i64 = 16 << 20;
/// Free pages are reported to a hypervisor every two seconds (PAGE_REPORTING_DELAY in mm/page_reporting.c), and were seen
/// to be away for hundreds of milliseconds.
const PASSES_WITHIN_NS: u64 = 5_000_000_000;

/// One of the runs, at the instant it is looked at.
pub struct Run<'a> {
    pub recording: &'a Recording,
    pub derived: Derived<'a>,
    pub side: Side,
    pub view: View<'a>,
    pub at_ns: u64,
    pub balance: Balance,
    pub start: Balance,
    /// Page cache by file at the instant.
    pub files: Vec<FileRow>,
    observed: BTreeMap<&'static str, Observed>,
}

impl<'a> Run<'a> {
    pub(super) fn new(derived: &Derived<'a>, side: Side, at: InstantSpec, scope: Scope) -> Option<Self> {
        let recording = derived.recording;
        let view = View::new(recording, scope)?;
        let balance = view.choose(at);
        let (start, at_ns) = (view.start(), balance.at_ns);
        let observed = stacks::by_source(&stacks::rows(recording, scope, at_ns));
        let files = files::on(recording, scope, at_ns);
        Some(Self { recording, derived: derived.clone(), side, at_ns, balance, start, view, files, observed })
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
    /// reports at a time. What was less before may have come to stay, so readings before the instant say nothing.
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
    pub fn unseen(&self, hook: &str) -> Option<Unseen> {
        let run = self.name();
        let health = &self.recording.health;
        let Some(row) = health.hooks.iter().find(|row| row.name == hook) else {
            return Some(Unseen::NoHook { hook: hook.to_owned(), run });
        };
        match row.verdict.known() {
            // The part of the kernel that it watches is not there: nothing can have gone through it.
            Some(Health::NotApplicable) => None,
            Some(Health::Ok) => {
                let missed = SkippedRuns::of(row).filter(|missed| missed.matters());
                missed.map(|missed| Unseen::Missed(Missed::of(missed, run))).or_else(|| {
                    losses::touching(health, hook).map(|loss| Unseen::Lost {
                        entries: loss.count,
                        map: loss.what.clone(),
                        run,
                    })
                })
            }
            _ => Some(Unseen::NotAttached {
                hook: hook.to_owned(),
                verdict: row.verdict.clone(),
                reason: row.reason.clone(),
                run,
            }),
        }
    }

    /// The little that a hook missed, for the reader to know.
    pub(super) fn missed(&self, hook: &str) -> Option<Missed> {
        let row = self.recording.health.hooks.iter().find(|row| row.name == hook)?;
        SkippedRuns::of(row).map(|missed| Missed::of(missed, self.name()))
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
