//! What `show` and `diff` say of the CUDA driver.

use super::document::{Cell, Document, Fit, Table};
use spark_trace_analysis::callers::{Caller, THROUGH_RUNTIME};
use spark_trace_analysis::cuda::{
    AllocRow, CudaReport, DEVICE_ALL, EventRow, FailureRow, GpuRow, HostRow, LibraryRow, ProcessTotals,
    TotalRow,
};
use spark_trace_analysis::diff::cuda::{CudaDelta, GpuDelta, KindDelta, QueryDelta};
use spark_trace_common::cuda::Kind;
use spark_trace_recording::units::{UNKNOWN, delta, duration, known, seconds, unsigned};
use spark_trace_recording::verdict::Verdict;

/// What the names of all errors of the driver begin with.
const ERROR: &str = "CUDA_ERROR_";

/// A row with its times as text, counted from the target's start.
type Timed<T> = (T, String);

/// What is in use through the driver, and by whom.
pub fn in_use(document: &mut Document, report: &CudaReport, started_ns: u64) {
    let after = |at_ns: u64| seconds(at_ns.saturating_sub(started_ns));
    let totals: Vec<_> =
        shown(&report.totals, |row| &row.kind).map(|row| (row.clone(), after(row.peak_ns))).collect();
    let at = after(report.at_ns);
    document
        .section(format!("CUDA: memory in use through the driver after {at}"), Table::of(TOTALS, &totals));
    document.section("CUDA host memory by mapping", Table::of(HOST, &report.host));
    by_process(document, report);
    let details =
        report.details_at_ns.map_or_else(String::new, |at_ns| format!(", in use after {}", after(at_ns)));
    let mut stacks = STACKS.to_vec();
    if report.several_gpus {
        let gpus: Vec<_> = report.gpus.iter().map(|row| (row.clone(), after(row.total.peak_ns))).collect();
        document.section(format!("CUDA device memory by GPU{details}"), Table::of(GPUS, &gpus));
        stacks.insert(AFTER_KIND, STACK_GPU);
    }
    document.section(format!("CUDA memory by user stack{details}"), Table::of(&stacks, &report.stacks));
    if report.stacks.iter().any(|row| row.caller.through.is_some_and(|through| through != THROUGH_RUNTIME)) {
        document.line("by driver: called directly, or by a statically linked runtime");
    }
    let failures: Vec<_> = report.failures.iter().map(|row| (row.clone(), after(row.at_ns))).collect();
    document.section("CUDA allocations that failed", Table::of(FAILURES, &failures));
    missing_calls(document, report);
}

/// The libraries that are in use, and what else went through them.
pub fn libraries(document: &mut Document, report: &CudaReport) {
    let (unused, used): (Vec<_>, Vec<_>) =
        report.libraries.iter().partition(|row| row.file.in_use == Some(false));
    document.section("CUDA libraries", Table::of(LIBRARIES, used.iter().copied()));
    for row in used.iter().filter(|row| !row.file.missing.is_empty()) {
        let (library, missing) = (&row.file.library, row.file.missing.join(", "));
        document.line(format!("{library} does not have {missing}"));
    }
    if !unused.is_empty() {
        let paths: Vec<_> = unused.iter().map(|row| row.file.path.as_str()).collect();
        document.line(format!("also watched, but mapped by no process: {}", paths.join(", ")));
    }
    document.section("CUDA contexts, modules and pools", Table::of(EVENTS, &report.events));
}

/// What is known to be missing of the calls, and what kept them from it.
fn missing_calls(document: &mut Document, report: &CudaReport) {
    for row in report.libraries.iter().filter(|row| row.file.in_use != Some(false)) {
        let (library, by) = (&row.file.library, row.file.mapped_by.unwrap_or_default());
        if let Some(paused_ns) = row.file.paused_ns {
            let paused = duration(paused_ns);
            document.line(format!(
                "process {by} was paused for {paused} until its {library} was watched: no call is missing"
            ));
        }
        if let Some(late_ns) = row.late_ns {
            let late = duration(late_ns);
            document.line(format!(
                "calls of process {by} are missing: its {library} was watched {late} after it was mapped; record with \
                 --cuda-library PATH, the path of that file on the host"
            ));
        }
    }
    if let Some(frees) = report.unknown_frees.filter(|frees| *frees > 0) {
        let (memory, was) = if frees == 1 {
            ("free of memory", "allocation was")
        } else {
            ("frees of memory", "allocations were")
        };
        document.line(format!(
            "{frees} {memory} whose {was} not seen: it is older than the trace, or calls are missing"
        ));
    }
}

/// All kinds of device memory together only where there are several: else it says the same twice.
fn shown<'a, T>(rows: &'a [T], kind: impl Fn(&T) -> &str + 'a) -> impl Iterator<Item = &'a T> {
    let several = rows.iter().filter(|row| is_device(kind(row))).count() > 1;
    rows.iter().filter(move |row| several || kind(row) != DEVICE_ALL)
}

fn is_device(kind: &str) -> bool {
    Kind::ALL.into_iter().any(|known| known.is_device() && known.as_str() == kind)
}

/// One process holds what the target holds: then a line says who.
fn by_process(document: &mut Document, report: &CudaReport) {
    let (Some(first), Some(last)) = (report.processes.first(), report.processes.last()) else { return };
    if report.processes.iter().all(|row| row.pid == first.pid) && first.pid == last.pid {
        document.line(format!("all by {} ({})", first.comm, first.pid));
    } else {
        document.section("CUDA memory by process", Table::of(PROCESSES, &report.processes));
    }
}

fn kind(kind: &str) -> String {
    match kind {
        "reserved" => "addresses only".to_owned(),
        DEVICE_ALL => "all device".to_owned(),
        _ => kind.to_owned(),
    }
}

fn through(caller: &Caller) -> String {
    caller.through.map_or(UNKNOWN, |through| through.split(' ').next().unwrap_or(through)).to_owned()
}

const LIBRARIES: &[Cell<LibraryRow>] = &[
    ("LIBRARY", Fit::Name, |row| {
        let provenance = if row.file.simulated { " SIMULATED" } else { "" };
        format!("{}{provenance}", row.file.library)
    }),
    ("WATCHED", Fit::Name, |row| match row.file.verdict.known() {
        Some(Verdict::Ok) => format!("{} functions", row.file.attached),
        _ => row.file.verdict.to_string(),
    }),
    ("MISSING", Fit::Number, |row| row.file.missing.len().to_string()),
    ("LATE", Fit::Number, |row| row.late_ns.map_or_else(String::new, duration)),
    ("PATH", Fit::Path, |row| row.file.path.clone()),
];

const TOTALS: &[Cell<Timed<TotalRow>>] = &[
    ("KIND", Fit::Name, |(row, _)| kind(&row.kind)),
    ("IN USE", Fit::Number, |(row, _)| known(row.live, unsigned)),
    ("PEAK", Fit::Number, |(row, _)| unsigned(row.peak)),
    ("AFTER", Fit::Number, |(_, peak)| peak.clone()),
    ("ALLOCS", Fit::Number, |(row, _)| row.allocs.to_string()),
    ("FREES", Fit::Number, |(row, _)| row.frees.to_string()),
    ("IMPLICIT", Fit::Number, |(row, _)| row.implicit_frees.to_string()),
    ("FAILED", Fit::Number, |(row, _)| row.failures.to_string()),
];

const PROCESSES: &[Cell<ProcessTotals>] = &[
    ("PID", Fit::Number, |row| row.pid.to_string()),
    ("COMM", Fit::Name, |row| row.comm.clone()),
    ("KIND", Fit::Name, |row| kind(&row.total.kind)),
    ("IN USE", Fit::Number, |row| known(row.total.live, unsigned)),
    ("PEAK", Fit::Number, |row| unsigned(row.total.peak)),
    ("ALLOCS", Fit::Number, |row| row.total.allocs.to_string()),
    ("FAILED", Fit::Number, |row| row.total.failures.to_string()),
];

const GPUS: &[Cell<Timed<GpuRow>>] = &[
    ("GPU", Fit::Name, |(row, _)| gpu(row.device)),
    ("PROCESS", Fit::Name, |(row, _)| match (row.pid, &row.comm) {
        (Some(pid), Some(comm)) => format!("{comm} ({pid})"),
        (Some(pid), None) => pid.to_string(),
        _ => "all".to_owned(),
    }),
    ("IN USE", Fit::Number, |(row, _)| known(row.total.live, unsigned)),
    ("PEAK", Fit::Number, |(row, _)| unsigned(row.total.peak)),
    ("AFTER", Fit::Number, |(_, peak)| peak.clone()),
    ("ALLOCS", Fit::Number, |(row, _)| row.total.allocs.to_string()),
    ("FREES", Fit::Number, |(row, _)| row.total.frees.to_string()),
    ("FAILED", Fit::Number, |(row, _)| row.total.failures.to_string()),
];

fn gpu(device: Option<u32>) -> String {
    device.map_or_else(|| "unknown".to_owned(), |index| index.to_string())
}

/// Where there are several GPUs. Memory of the host has none.
const STACK_GPU: Cell<AllocRow> = ("GPU", Fit::Name, |row| match row.device {
    None if !is_device(&row.kind) => String::new(),
    device => gpu(device),
});
const AFTER_KIND: usize = 4;

const HOST: &[Cell<HostRow>] = &[
    ("KIND", Fit::Name, |row| row.kind.clone()),
    ("LIES IN", Fit::Name, |row| row.backing.clone().unwrap_or_else(|| UNKNOWN.to_owned())),
    ("IN USE", Fit::Number, |row| known(row.live, unsigned)),
    ("ALLOCATED", Fit::Number, |row| unsigned(row.bytes_allocated)),
    ("ALLOCS", Fit::Number, |row| row.allocs.to_string()),
    ("CHARGED", Fit::Name, |row| row.charged.unwrap_or(UNKNOWN).to_owned()),
    ("SOURCE", Fit::Name, |row| row.source.unwrap_or(UNKNOWN).to_owned()),
];

const STACKS: &[Cell<AllocRow>] = &[
    ("IN USE", Fit::Number, |row| known(row.live, unsigned)),
    ("ALLOCATED", Fit::Number, |row| unsigned(row.bytes_allocated)),
    ("ALLOCS", Fit::Number, |row| row.allocs.to_string()),
    ("KIND", Fit::Name, |row| row.kind.clone()),
    ("FUNCTION", Fit::Text, |row| row.function.clone()),
    ("BY", Fit::Name, |row| through(&row.caller)),
    ("CALLER", Fit::Text, |row| row.caller.label.clone()),
];

const FAILURES: &[Cell<Timed<FailureRow>>] = &[
    ("AFTER", Fit::Number, |(_, at)| at.clone()),
    ("PROCESS", Fit::Text, |(row, _)| format!("{} ({})", row.comm, row.pid)),
    ("SIZE", Fit::Number, |(row, _)| known(row.size, unsigned)),
    ("RESULT", Fit::Text, |(row, _)| error(row.result_name.as_deref(), row.result)),
    ("FUNCTION", Fit::Text, |(row, _)| row.function.clone()),
    ("CALLER", Fit::Text, |(row, _)| match row.caller.through {
        Some(_) => format!("{}: {}", through(&row.caller), row.caller.label),
        None => UNKNOWN.to_owned(),
    }),
];

const EVENTS: &[Cell<EventRow>] = &[
    ("EVENT", Fit::Name, |row| row.event.clone()),
    ("CALLS", Fit::Number, |row| row.count.to_string()),
    ("FAILED", Fit::Number, |row| row.failed.to_string()),
    ("TOOK", Fit::Number, |row| duration(row.total_ns)),
    ("LONGEST", Fit::Number, |row| duration(row.longest_ns)),
    ("FUNCTION", Fit::Text, |row| row.function.clone()),
];

/// A result for a table: without what all of them begin with.
pub fn error(name: Option<&str>, result: i32) -> String {
    name.map_or_else(|| format!("error {result}"), |name| name.strip_prefix(ERROR).unwrap_or(name).to_owned())
}

pub fn diff(document: &mut Document, report: &CudaDelta) {
    let kinds: Vec<_> = shown(&report.kinds, |row| &row.kind).collect();
    document.section("CUDA memory by kind, in use at each instant", Table::of(KINDS, kinds));
    document
        .section("CUDA device memory by GPU, in use at each instant", Table::of(GPU_DELTAS, &report.gpus));
    document.section("Memory queries of each run", Table::of(QUERIES, &report.queries));
}

const KINDS: &[Cell<KindDelta>] = &[
    ("KIND", Fit::Name, |row| kind(&row.kind)),
    ("A", Fit::Number, |row| known(row.a_bytes, unsigned)),
    ("B", Fit::Number, |row| known(row.b_bytes, unsigned)),
    ("DELTA", Fit::Number, |row| known(row.delta_bytes, delta)),
    ("A PEAK", Fit::Number, |row| known(row.a_peak, unsigned)),
    ("B PEAK", Fit::Number, |row| known(row.b_peak, unsigned)),
];

const GPU_DELTAS: &[Cell<GpuDelta>] = &[
    ("GPU", Fit::Name, |row| gpu(row.device)),
    ("A", Fit::Number, |row| known(row.bytes.a_bytes, unsigned)),
    ("B", Fit::Number, |row| known(row.bytes.b_bytes, unsigned)),
    ("DELTA", Fit::Number, |row| known(row.bytes.delta_bytes, delta)),
    ("A PEAK", Fit::Number, |row| known(row.bytes.a_peak, unsigned)),
    ("B PEAK", Fit::Number, |row| known(row.bytes.b_peak, unsigned)),
];

const QUERIES: &[Cell<QueryDelta>] = &[
    ("QUERY", Fit::Text, |row| row.interface.clone()),
    ("FIGURE", Fit::Name, |row| row.figure.to_owned()),
    ("A FIRST", Fit::Number, |row| known(row.a.first, unsigned)),
    ("B FIRST", Fit::Number, |row| known(row.b.first, unsigned)),
    ("A LAST", Fit::Number, |row| known(row.a.last, unsigned)),
    ("B LAST", Fit::Number, |row| known(row.b.last, unsigned)),
];
