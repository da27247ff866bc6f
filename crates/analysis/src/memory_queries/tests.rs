use super::*;
use spark_trace_testing as testing;
use spark_trace_testing::{MIB, SECOND, START};

fn queries() -> Queries {
    report(&testing::cuda()).unwrap()
}

#[test]
fn a_run_without_a_query_has_no_report() {
    assert_eq!(report(&testing::native()), None);
}

#[test]
fn the_queries_of_a_call_stand_under_it() {
    let rows = queries().rows;
    let interface: Vec<_> = rows.iter().map(|row| (row.interface.as_str(), row.nested.len())).collect();
    assert_eq!(
        interface,
        [
            ("cuMemGetInfo_v2", 1),
            ("sysinfo", 0),
            ("cuMemGetInfo_v2", 1),
            ("cuMemGetInfo_v2", 1),
            ("/proc/PID/statm", 0),
            ("/proc/PID/statm", 0),
            ("/proc/PID/statm", 0),
            ("memory.max", 0),
        ]
    );
    assert_eq!(rows[0].nested[0].interface, "/proc/meminfo");
}

#[test]
fn calls_within_calls_are_a_tree() {
    let call = |began_ns, at_ns, interface: &str| MemoryQueryRow {
        at_ns,
        began_ns: Some(began_ns),
        interface: interface.into(),
        ..MemoryQueryRow::default()
    };
    let read =
        |at_ns| MemoryQueryRow { at_ns, interface: "/proc/meminfo".into(), ..MemoryQueryRow::default() };
    // The outer and the inner call return at the same time, as does the reading.
    let rows =
        nest(vec![call(10, 40, "outer"), read(5), call(20, 40, "inner"), read(30), read(40), read(41)]);
    let shape: Vec<_> = rows.iter().map(|row| (row.at_ns, row.nested.len())).collect();
    assert_eq!(shape, [(5, 0), (40, 1), (41, 0)]);
    assert_eq!((rows[1].interface.as_str(), rows[1].nested[0].interface.as_str()), ("outer", "inner"));
    assert_eq!(rows[1].nested[0].nested.len(), 2);
}

#[test]
fn nested_queries_are_not_counted_twice() {
    let summaries = queries().summaries;
    let counts: Vec<_> =
        summaries.iter().map(|row| (row.interface.as_str(), row.count, row.inside)).collect();
    assert_eq!(
        counts,
        [
            ("cuMemGetInfo_v2", 3, 0),
            ("/proc/PID/statm", 3, 0),
            ("memory.max", 1, 0),
            ("sysinfo", 1, 0),
            ("/proc/meminfo", 0, 3),
        ]
    );
    let free = |answer: &Option<Answer>| answer.as_ref().unwrap().values["free"] / MIB;
    assert_eq!((free(&summaries[0].first), free(&summaries[0].last)), (12000, 11190));
    assert_eq!(summaries[0].processes, ["python3 (4242)"]);
    assert_eq!(summaries[4].first, None);
}

#[test]
fn alike_in_a_row_are_one_with_their_range() {
    let folded = queries().folded;
    let lines: Vec<_> = folded.iter().map(|row| (row.interface.as_str(), row.count)).collect();
    assert_eq!(
        lines,
        [
            ("cuMemGetInfo_v2", 1),
            ("sysinfo", 1),
            ("cuMemGetInfo_v2", 2),
            ("/proc/PID/statm", 3),
            ("memory.max", 1),
        ]
    );
    assert_eq!(folded[2].values["free"], Range { least: 11190 * MIB, most: 11200 * MIB });
    assert_eq!((folded[2].first_ns, folded[2].last_ns), (START + 4 * SECOND, START + 4200 * 1_000_000));
    assert_eq!((folded[2].nested.len(), folded[2].nested[0].count), (1, 2));
}

#[test]
fn another_process_in_between_does_not_split_a_row() {
    let row =
        |at_ns, pid| MemoryQueryRow { at_ns, pid, interface: "sysinfo".into(), ..MemoryQueryRow::default() };
    let folded = fold(&[row(1, 1), row(2, 2), row(3, 1), row(4, 2)]);
    assert_eq!(folded.iter().map(|row| (row.pid, row.count)).collect::<Vec<_>>(), [(1, 2), (2, 2)]);
    let mut failed = row(5, 1);
    failed.result = 2;
    assert_eq!(fold(&[row(1, 1), failed, row(6, 1)]).len(), 3, "another answer");
}

#[test]
fn a_failed_query_has_no_answer() {
    let mut recording = testing::cuda();
    for query in &mut recording.provenance.queries {
        if query.interface == "cuMemGetInfo_v2" {
            (query.result, query.values) = (201, BTreeMap::new());
        }
    }
    let queries = report(&recording).unwrap();
    assert_eq!((queries.summaries[0].failed, &queries.summaries[0].first), (3, &None));
    assert_eq!(queries.rows[0].result_name, Some("CUDA_ERROR_INVALID_CONTEXT"));
}

#[test]
fn every_queried_function_has_its_figures() {
    for function in FUNCTIONS.iter().filter(|function| function.op == spark_trace_common::cuda::Op::Query) {
        for figure in function.figures {
            assert!(figures(function.symbol).contains(figure), "{} {figure}", function.symbol);
        }
    }
}
