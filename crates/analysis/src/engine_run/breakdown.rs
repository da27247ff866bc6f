//! The account of device memory that an engine logs, beside what was traced.

use serde::{Serialize, Serializer};
use spark_trace_common::cuda::LIVE_ON_GPU;
use spark_trace_engines::{EngineLog, Figure};
use spark_trace_recording::ledger::time_of;
use spark_trace_recording::{Recording, words};

use super::buffers::{Buffers, Known};
use super::part_name::PartName;
use crate::signed::signed;

words! {
    /// A row of it. Total = free + own + unaccounted; own = model + context + compute.
    pub enum BreakdownOf {
        Total = "total",
        Free = "free",
        Own = "own",
        Model = "model",
        Context = "context",
        Compute = "compute",
        /// What is neither free nor the engine's.
        Unaccounted = "unaccounted",
    }
}

impl Serialize for BreakdownOf {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// Of all GPUs together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct BreakdownRow {
    pub of: BreakdownOf,
    pub logged_bytes: i64,
    /// Absent where the recording does not have it.
    pub traced_bytes: Option<i64>,
}

/// Rows that are sums of the engine's buffers.
const PARTS: [(BreakdownOf, Figure, PartName); 3] = [
    (BreakdownOf::Model, Figure::OwnWeights, PartName::Weights),
    (BreakdownOf::Context, Figure::OwnContext, PartName::KvCache),
    (BreakdownOf::Compute, Figure::OwnCompute, PartName::Compute),
];

pub fn rows(recording: &Recording, log: &EngineLog, buffers: &Buffers) -> Vec<BreakdownRow> {
    read(recording, log, buffers).unwrap_or_default()
}

fn read(recording: &Recording, log: &EngineLog, buffers: &Buffers) -> Option<Vec<BreakdownRow>> {
    let read_ns = recording.provenance.log_lines.get(log.line_of(Figure::Own)?)?.at_ns;
    let at_ns = buffers.before_their_end(read_ns);
    let [free, own, unaccounted] =
        [log.bytes(Figure::FreeAtBreakdown)?, log.bytes(Figure::Own)?, log.bytes(Figure::Unaccounted)?];
    let traced = |logged: i64, part: PartName| match buffers.of(part, at_ns) {
        // The log's own sizes say nothing new.
        Some(Known::Allocations(bytes)) => Some(signed(bytes)),
        Some(Known::Sum(_)) => None,
        None => (logged == 0).then_some(0),
    };
    let parts: Vec<BreakdownRow> = PARTS
        .iter()
        .filter_map(|(of, figure, part)| {
            let logged_bytes = log.bytes(*figure)?;
            Some(BreakdownRow { of: *of, logged_bytes, traced_bytes: traced(logged_bytes, *part) })
        })
        .collect();
    let own_traced = parts.iter().try_fold(0_i64, |sum, row| sum.checked_add(row.traced_bytes?));
    let devices = devices(recording, log.of(Figure::Own).count(), read_ns);
    // A reading from before its last buffers says nothing of what it left free.
    let with_all =
        |devices: &Devices| devices.live.is_none_or(|live| own_traced.is_none_or(|own| live >= own));
    let free_traced = devices.filter(with_all).map(|devices| devices.free);
    let total_traced = devices.map(|devices| devices.total);
    let taken = total_traced.zip(free_traced).map(|(total, free)| total.saturating_sub(free));
    let row = |of, logged_bytes, traced_bytes| BreakdownRow { of, logged_bytes, traced_bytes };
    let total = free.saturating_add(own).saturating_add(unaccounted);
    let mut rows = vec![
        row(BreakdownOf::Total, total, total_traced),
        row(BreakdownOf::Free, free, free_traced),
        row(BreakdownOf::Own, own, own_traced),
    ];
    rows.extend(parts);
    let rest = taken.zip(own_traced).map(|(taken, own)| taken.saturating_sub(own));
    rows.push(row(BreakdownOf::Unaccounted, unaccounted, rest));
    Some(rows)
}

/// Memory of all GPUs, in bytes.
#[derive(Debug, Clone, Copy)]
struct Devices {
    total: i64,
    free: i64,
    /// What the target had allocated; absent in recordings that lack it.
    live: Option<i64>,
}

/// Absent unless the engine uses all GPUs: its names of them are its own. What driver and firmware set aside is not in
/// CUDA's total.
fn devices(recording: &Recording, used: usize, at_ns: u64) -> Option<Devices> {
    let devices = &recording.samples.devices;
    if devices.len() != used {
        return None;
    }
    let none = Devices { total: 0, free: 0, live: Some(0) };
    devices.iter().try_fold(none, |sum, device| {
        let series = &device.series;
        // The engine prints what it has just read, and a container's client passes that on later: it may have ended.
        let in_use = series.columns.get(LIVE_ON_GPU);
        let is_used = |index: &usize| in_use.is_none_or(|live| live.get(*index).is_some_and(|live| live > 0));
        let by_then = |index: &usize| time_of(series, *index).is_some_and(|time| time <= at_ns);
        let index = (0..series.begin_ns.len()).rev().filter(by_then).find(is_used)?;
        let column = |name: &str| series.columns.get(name)?.get(index).map(signed);
        let usable = column("memory.total")?.checked_sub(column("memory.reserved").unwrap_or(0))?;
        Some(Devices {
            total: sum.total.checked_add(usable)?,
            free: sum.free.checked_add(column("memory.free")?)?,
            live: sum.live.zip(column(LIVE_ON_GPU)).and_then(|(sum, live)| sum.checked_add(live)),
        })
    })
}
