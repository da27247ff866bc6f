//! How large the cache would have been, had one thing been otherwise.

use serde::Serialize;
use spark_trace_common::source::Reclaimable;
use spark_trace_engines::Formula;
use spark_trace_recording::words;

use super::arithmetic::{self, Inputs, Worth};
use super::changes::Moment;
use super::{ProcessUse, Role, reading};
use crate::signed::signed;

words! {
    /// What would be otherwise.
    pub enum WhatIfKind {
        /// Reclaimable memory dropped before the reading.
        Reclaimable = "reclaimable",
        /// Dirty pages written back and dropped.
        Dirty = "dirty",
        /// Pools of NVIDIA's driver emptied before the reading.
        Pool = "pool",
        /// A process of the target's that is not the engine's.
        Process = "process",
        /// One that the engine started.
        Child = "child",
        /// A process outside of the target.
        OutsideProcess = "outside-process",
        /// Everything outside of the target.
        Outside = "outside",
        Pinned = "pinned",
        Graphs = "graphs",
        Transient = "transient",
        Fraction = "fraction",
    }
}

#[derive(Debug, Clone, Serialize)]
pub struct WhatIf {
    #[serde(serialize_with = "super::word")]
    pub kind: WhatIfKind,
    /// Of a process: its name and number.
    pub subject: Option<String>,
    pub fraction: Option<f64>,
    /// Bytes that it is about, at the reading.
    pub bytes: Option<u64>,
    pub kv: i64,
    /// More than it took, or less.
    pub delta: i64,
}

const FRACTIONS: &[f64] = &[0.8, 0.85, 0.9, 0.95];
const POOL: &str = "nvidia-pool";
/// Processes that are listed.
const PROCESSES: usize = 5;
/// Less than this part of the cache, or than this many bytes, makes no row.
const LEAST_PART: i64 = 200;
const LEAST: i64 = 1 << 20;

/// What rows are made of.
pub struct Otherwise<'a, 'b> {
    pub formula: Formula,
    pub inputs: Inputs,
    pub worth: Worth,
    pub kv: i64,
    pub before: Option<&'a Moment<'b>>,
    pub at: &'a Moment<'b>,
    pub processes: &'a [ProcessUse],
}

impl Otherwise<'_, '_> {
    /// The largest gain first; what nobody can end as a whole after the others, and fractions at the end.
    pub fn rows(&self) -> Vec<WhatIf> {
        let mut rows: Vec<WhatIf> = [self.cache(), self.pool(), self.processes(), self.pinned(), self.own()]
            .into_iter()
            .flatten()
            .collect();
        rows.retain(|row| row.delta.abs() >= (self.kv / LEAST_PART).max(LEAST));
        rows.sort_by_key(|row| (row.kind == WhatIfKind::Outside, std::cmp::Reverse(row.delta)));
        rows.extend(self.fractions());
        rows
    }

    fn row(&self, kind: WhatIfKind, bytes: u64, delta: i64) -> WhatIf {
        let kv = self.kv.saturating_add(delta);
        WhatIf { kind, subject: None, fraction: None, bytes: Some(bytes), kv, delta }
    }

    /// Bytes of sources at both readings, and what they cost.
    fn sources(&self, kind: WhatIfKind, slugs: &[&str]) -> Option<WhatIf> {
        let sum = |moment: &Moment<'_>| -> Option<u64> {
            let known: Vec<u64> = slugs.iter().filter_map(|slug| moment.state.bytes(slug)).collect();
            (!known.is_empty()).then(|| known.into_iter().sum())
        };
        let at = sum(self.at)?;
        let before = self.before.and_then(sum).unwrap_or(0);
        Some(self.row(kind, at, self.worth.of(signed(at), signed(before))))
    }

    /// Only a signal that counts page cache as used gains by its end.
    fn cache(&self) -> Vec<WhatIf> {
        if self.at.reading.signal != Some(reading::FREE) {
            return vec![];
        }
        let balance = self.at.state.balance.as_ref();
        let rows = balance.into_iter().flat_map(|balance| &balance.rows);
        let slugs: Vec<&str> = rows
            .filter(|row| row.source.reclaimable == Reclaimable::Yes && row.source.slug != POOL)
            .map(|row| row.source.slug)
            .collect();
        let clean = self.sources(WhatIfKind::Reclaimable, &slugs);
        clean.into_iter().chain(self.sources(WhatIfKind::Dirty, &["file-dirty"])).collect()
    }

    /// Neither signal counts its pages as free: no list of the kernel has them.
    fn pool(&self) -> Vec<WhatIf> {
        let of_system = self.is_of_system();
        let pool = || self.sources(WhatIfKind::Pool, &[POOL]);
        of_system.then(pool).flatten().into_iter().collect()
    }

    fn is_of_system(&self) -> bool {
        matches!(self.at.reading.signal, Some(reading::FREE | reading::AVAILABLE))
    }

    fn processes(&self) -> Vec<WhatIf> {
        if !self.is_of_system() {
            return vec![];
        }
        let others = self.processes.iter().filter(|process| process.role != Role::Engine);
        let rows = others.filter_map(|process| {
            let kind = match (process.role, process.pid) {
                (Role::Child, _) => WhatIfKind::Child,
                (Role::Outside, Some(_)) => WhatIfKind::OutsideProcess,
                (Role::Outside, None) => WhatIfKind::Outside,
                (Role::Engine | Role::Other, _) => WhatIfKind::Process,
            };
            let subject = process.pid.map(|pid| format!("{} ({pid})", process.comm));
            Some(WhatIf { subject, ..self.row(kind, process.at, process.costs?) })
        });
        let (outside, own): (Vec<WhatIf>, Vec<WhatIf>) =
            rows.partition(|row| row.kind == WhatIfKind::OutsideProcess);
        own.into_iter().take(PROCESSES).chain(outside.into_iter().take(PROCESSES)).collect()
    }

    fn pinned(&self) -> Vec<WhatIf> {
        let of_system = self.is_of_system();
        let pinned = || self.sources(WhatIfKind::Pinned, &["anon-pinned", "shmem-pinned"]);
        of_system.then(pinned).flatten().into_iter().collect()
    }

    /// Terms of the arithmetic that are the engine's own.
    fn own(&self) -> Vec<WhatIf> {
        let without = |inputs: Inputs| Some(arithmetic::kv(self.formula, &inputs)?.saturating_sub(self.kv));
        let transient = self.inputs.transient();
        let peak = without(Inputs { allocated_peak: self.inputs.allocated, ..self.inputs });
        let graphs = without(Inputs { graphs: 0, ..self.inputs });
        let rows =
            [(WhatIfKind::Transient, transient, peak), (WhatIfKind::Graphs, self.inputs.graphs, graphs)];
        let known = rows.into_iter().filter(|(_, bytes, _)| *bytes != 0);
        known.filter_map(|(kind, bytes, delta)| Some(self.row(kind, bytes.unsigned_abs(), delta?))).collect()
    }

    fn fractions(&self) -> Vec<WhatIf> {
        let Some(now) = self.inputs.fraction else { return vec![] };
        let others = FRACTIONS.iter().filter(|fraction| (**fraction - now).abs() > 1e-6);
        let rows = others.filter_map(|&fraction| {
            let kv = arithmetic::kv(self.formula, &Inputs { fraction: Some(fraction), ..self.inputs })?;
            Some(WhatIf {
                kind: WhatIfKind::Fraction,
                subject: None,
                fraction: Some(fraction),
                bytes: None,
                kv,
                delta: kv.saturating_sub(self.kv),
            })
        });
        rows.collect()
    }
}
