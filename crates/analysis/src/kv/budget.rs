//! The arithmetic of one run: what the framework computed, and what the trace says it should have.

use crate::files;
use crate::kv::{Agreement, Budget, CachedFile, Figures, Reading, Used, WhatIf, reading};
use crate::view::{Scope, View};
use spark_trace_common::source::Reclaimable;
use spark_trace_recording::Recording;
use spark_trace_recording::framework_log::{self as log, LogFigures};
use spark_trace_recording::ledger::Balance;

/// TensorRT-LLM's free_gpu_memory_fraction where nobody sets it (tensorrt_llm/llmapi/llm_args.py, KvCacheConfig).
const DEFAULT_FRACTION: f64 = 0.9;
const FRACTIONS: &[f64] = &[0.8, 0.85, 0.95];
/// Files that are told.
const FILES: usize = 10;

/// `log` is what was read of a log beside the recording; its own lines count where there is none.
pub fn of(recording: &Recording, log: Option<LogFigures>, fraction: Option<f64>) -> Option<Budget> {
    let reading = reading::of(recording)?;
    let lines = recording.provenance.log_lines.iter().map(|line| line.text.as_str());
    let log = log.unwrap_or_else(|| log::parse(lines));
    let system = View::new(recording, Scope::System).map(|view| view.at(reading.at_ns));
    let shared = reading.signal != Some(reading::GPU_MEMORY);
    let figures = figures(recording, &reading, &log, fraction);
    // On a GPU with memory of its own, what the kernel could reclaim is no memory for the cache.
    let reclaimable = if shared { system.as_ref().map_or(0, given_up) } else { 0 };
    let mut notes = Vec::new();
    if !shared {
        notes.push("the GPU has memory of its own: page cache does not reduce its KV cache".to_owned());
    }
    if recording.provenance.log_lines.is_empty() && log == LogFigures::default() {
        notes.push(
            "no lines of the framework's log: its figures are computed from the trace (record with --log, or use \
             --log FILE)"
                .to_owned(),
        );
    }
    let later = reading.query.state.as_ref().and_then(|state| state.later.as_ref());
    Some(Budget {
        used: system.as_ref().map(used).unwrap_or_default(),
        used_total: system.as_ref().and_then(|balance| balance.expected),
        reclaimable,
        available: later.and_then(|later| later.mem_available),
        what_if: what_if(&reading, &figures, reclaimable),
        agreement: agreement(&figures),
        files: cached(recording, reading.at_ns),
        figures,
        reading,
        notes,
    })
}

fn used(balance: &Balance) -> Vec<Used> {
    let rows =
        balance.rows.iter().filter_map(|row| Some((row.source, row.bytes.filter(|bytes| *bytes > 0)?)));
    let mut used: Vec<_> = rows
        .map(|(source, bytes)| Used {
            source: source.slug,
            title: source.title,
            bytes,
            reclaimable: source.reclaimable.as_str(),
        })
        .collect();
    used.sort_by_key(|row| std::cmp::Reverse(row.bytes));
    used
}

/// What the kernel would have given up.
fn given_up(balance: &Balance) -> u64 {
    let rows = balance.rows.iter().filter(|row| row.source.reclaimable == Reclaimable::Yes);
    rows.filter_map(|row| row.bytes).fold(0, u64::saturating_add)
}

fn figures(recording: &Recording, reading: &Reading, log: &LogFigures, fraction: Option<f64>) -> Figures {
    let (fraction, fraction_from) = match (log.fraction, fraction) {
        (Some(fraction), _) => (fraction, "log"),
        (None, Some(fraction)) => (fraction, "option"),
        (None, None) => (DEFAULT_FRACTION, "default"),
    };
    let allocated = reading::live_at(recording, &reading.query);
    let allocated_peak = allocated
        .map(|now| reading::highest(recording, 0, reading.at_ns).map_or(now, |highest| highest.max(now)));
    let used = reading.total.map(|total| total.saturating_sub(reading.free));
    let outside = used.zip(allocated).map(|(used, own)| used.saturating_sub(own));
    let after = reading::highest(recording, reading.at_ns, u64::MAX);
    let temporary_kv = log.temporary_kv.unwrap_or(0);
    let kv_taken =
        after.zip(allocated).map(|(after, now)| after.saturating_sub(now.saturating_sub(temporary_kv)));
    let mut figures = Figures {
        fraction,
        fraction_from,
        allocated,
        allocated_peak,
        temporary_kv,
        outside,
        peak: allocated_peak.zip(outside).map(|(own, outside)| own.saturating_add(outside)),
        kv: None,
        kv_taken,
        logged_peak: log.peak,
        logged_kv: log.available_kv.or(log.estimated_kv),
        logged_allocated: log.allocated_kv,
        logged_outside: log.outside,
    };
    figures.kv = outside
        .zip(reading.total)
        .and_then(|(outside, total)| figures.with_outside(outside, total, fraction));
    figures
}

fn what_if(reading: &Reading, figures: &Figures, reclaimable: u64) -> Vec<WhatIf> {
    let (Some(outside), Some(total), Some(now)) = (figures.outside, reading.total, figures.kv) else {
        return vec![];
    };
    let row = |what: String, outside: u64, fraction: f64| {
        let kv = figures.with_outside(outside, total, fraction)?;
        let signed = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        Some(WhatIf { what, kv, delta: signed(kv) - signed(now) })
    };
    let reclaimed = (reclaimable > 0).then(|| {
        row(
            "reclaimable memory dropped before the reading".to_owned(),
            outside.saturating_sub(reclaimable),
            figures.fraction,
        )
    });
    let others = FRACTIONS.iter().filter(|fraction| (**fraction - figures.fraction).abs() > 1e-6);
    let others = others.map(|fraction| row(format!("fraction {fraction}"), outside, *fraction));
    reclaimed.into_iter().chain(others).flatten().collect()
}

fn agreement(figures: &Figures) -> Vec<Agreement> {
    let pairs = [
        ("peak", figures.logged_peak, figures.peak),
        ("outside the framework's allocator", figures.logged_outside, figures.outside),
        ("KV cache, computed", figures.logged_kv, figures.kv),
        ("KV cache, allocated", figures.logged_allocated, figures.kv_taken),
    ];
    let known = pairs.into_iter().filter_map(|(figure, logged, traced)| Some((figure, logged?, traced?)));
    known
        .filter(|(_, logged, _)| *logged > 0)
        .map(|(figure, logged, traced)| Agreement {
            figure,
            logged,
            traced,
            percent: (traced as f64 - logged as f64) / logged as f64 * 100.0,
        })
        .collect()
}

fn cached(recording: &Recording, at_ns: u64) -> Vec<CachedFile> {
    let rows = files::largest(recording, at_ns).into_iter().filter(|row| row.bytes > 0).take(FILES);
    rows.map(|row| CachedFile {
        path: row.shown,
        opens_at: row.opens_at,
        bytes: row.bytes,
        first_touch: row.first_touch.map(|touch| format!("{} ({})", touch.comm, touch.pid)),
        charged_to: row.charged_to,
    })
    .collect()
}
