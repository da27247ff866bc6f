use super::*;
use crate::callers::{THROUGH_OTHER, THROUGH_RUNTIME};
use spark_trace_recording::{LaterState, MemoryQuery, MemoryState};
use spark_trace_testing as testing;
use spark_trace_testing::{MIB, SECOND, START};

fn at(seconds: u64) -> CudaReport {
    report(&testing::cuda(), START + seconds * SECOND).unwrap()
}

#[test]
fn a_run_without_the_driver_has_no_report() {
    assert_eq!(report(&testing::native(), START), None);
}

#[test]
fn totals_are_those_of_the_instant_with_the_peaks_of_the_run() {
    let live = |report: &CudaReport| -> Vec<(String, u64)> {
        report.totals.iter().map(|row| (row.kind.clone(), row.live.unwrap() / MIB)).collect()
    };
    let kinds = |rows: [(&str, u64); 6]| rows.map(|(kind, mib)| (kind.to_owned(), mib)).to_vec();
    let peak = [
        ("device", 512),
        ("async", 32),
        ("device-all", 544),
        ("managed", 40),
        ("pinned", 80),
        ("registered", 100),
    ];
    assert_eq!(live(&at(5)), kinds(peak));
    let end = at(10);
    assert_eq!((end.totals[0].live, end.totals[0].live_at_end), (Some(256 * MIB), 256 * MIB));
    assert_eq!((end.totals[0].peak, end.totals[0].peak_ns), (512 * MIB, START + 4 * SECOND));
    assert_eq!(live(&at(0)), kinds(peak.map(|(kind, _)| (kind, 0))), "nothing before the first call");
}

/// The nearest sample is of after the next allocation.
#[test]
fn at_a_query_the_totals_are_those_of_its_answer() {
    let mut recording = testing::cuda();
    let answered_ns = START + 5 * SECOND + 1;
    let later = LaterState {
        cuda_live: [("device", 300), ("async", 32), ("pinned", 80)]
            .map(|(kind, mib)| (kind.to_owned(), mib * MIB))
            .into(),
        ..LaterState::default()
    };
    let state = MemoryState { later: Some(later), ..MemoryState::default() };
    recording.provenance.queries =
        vec![MemoryQuery { at_ns: answered_ns, state: Some(state), ..MemoryQuery::default() }];
    let report = report_with(&recording, START + 5 * SECOND, Some(answered_ns)).unwrap();
    let live = |kind: &str| report.totals.iter().find(|row| row.kind == kind).and_then(|row| row.live);
    let kinds = ["device", "device-all", "managed", "pinned"].map(|kind| live(kind).map(|bytes| bytes / MIB));
    assert_eq!(kinds, [Some(300), Some(332), Some(0), Some(80)]);
    assert_eq!(report.at_ns, answered_ns);
}

#[test]
fn without_readings_the_instant_is_unknown_and_not_zero() {
    let mut recording = testing::cuda();
    recording.samples.cuda = Default::default();
    let report = report(&recording, START + 5 * SECOND).unwrap();
    assert_eq!((report.totals[0].live, report.totals[0].peak), (None, 512 * MIB));
}

#[test]
fn stacks_say_who_called_and_how() {
    let report = at(5);
    let rows: Vec<_> = report
        .stacks
        .iter()
        .map(|row| (row.kind.as_str(), row.live.unwrap() / MIB, row.caller.through.unwrap()))
        .collect();
    assert_eq!(
        rows,
        [
            ("device", 512, THROUGH_RUNTIME),
            ("registered", 100, THROUGH_OTHER),
            ("pinned", 64, THROUGH_RUNTIME),
            ("managed", 40, THROUGH_OTHER),
            ("async", 32, THROUGH_OTHER),
            ("pinned", 16, THROUGH_OTHER),
        ]
    );
    assert_eq!(
        report.stacks[0].caller.label,
        "alloc_block [libc10_cuda.so] <- empty_cuda [libtorch_cuda.so]"
    );
}

#[test]
fn the_same_stack_in_several_processes_is_one_row() {
    let mut recording = testing::cuda();
    let mut other = recording.provenance.cuda_allocs[0].clone();
    (other.pid, other.stack) = (77, other.stack);
    recording.provenance.cuda_allocs.push(other);
    let report = report(&recording, START + 5 * SECOND).unwrap();
    assert_eq!((report.stacks[0].live, &report.stacks[0].pids[..]), (Some(1024 * MIB), &[77, 4242][..]));
}

#[test]
fn the_ways_of_pinning_have_rows_of_their_own() {
    let rows: Vec<_> = at(5)
        .host
        .iter()
        .map(|row| (row.kind.clone(), row.source, row.charged, row.live.unwrap() / MIB))
        .collect();
    let row = |kind: &str, source, charged, mib| (kind.to_owned(), Some(source), Some(charged), mib);
    assert_eq!(
        rows,
        [
            row("pinned", "nvidia-sysmem", "no", 16),
            row("pinned", "shmem-pinned", "yes", 64),
            row("registered", "anon-pinned", "yes", 100),
        ]
    );
}

#[test]
fn processes_sum_their_rows() {
    let report = at(5);
    let all = report.processes.iter().find(|row| row.total.kind == DEVICE_ALL).unwrap();
    assert_eq!((all.comm.as_str(), all.total.live), ("python3", Some(544 * MIB)));
}

#[test]
fn calls_are_counted_and_failures_kept() {
    let report = at(5);
    assert_eq!(report.failures[0].result_name.as_deref(), Some("CUDA_ERROR_OUT_OF_MEMORY"));
    let events: Vec<_> =
        report.events.iter().map(|row| (row.event.as_str(), row.count, row.total_ns / 1_000_000)).collect();
    assert_eq!(events, [("primary-context-retain", 1, 210), ("module-load", 2, 65)]);
    assert_eq!(report.libraries.iter().map(|row| row.late_ns).collect::<Vec<_>>(), [None, Some(12_000_000)]);
}

#[test]
fn every_backing_names_a_source() {
    for (_, _, source) in BACKINGS {
        assert!(spark_trace_common::source::by_slug(source).is_some(), "{source}");
    }
}
