//! Two native runs compared: what the workload took more is what the difference is attributed to.

use serde_json::Value;
use tempfile::TempDir;

use crate::support::ledger::source_row;
use crate::support::{self, Faults, MIB, Recorded, array, int, json, record, text, workload};

/// Longer than memory.stat may be behind memory.current: FLUSH_TIME in mm/memcontrol.c is two seconds.
const HOLD: &str = "2500ms";

/// A run of the workload with what it says itself.
fn run(dir: &TempDir, name: &str, line: &str) -> (Recorded, Value) {
    let truth = support::path(dir, &format!("{name}.truth.json"));
    let line = format!("-- {} alloc {line} --hold {HOLD} --output {truth}", workload());
    let recorded = record(&support::path(dir, &format!("{name}.json")), &line).exited(0);
    (recorded, json(&truth))
}

/// All sources but those named differ by less than 1 MiB, and what is left unexplained, too; with pages of 16 KiB by less
/// than CPUs may have charged in advance.
fn rest_is_equal(diff: &Value, runs: [&Recorded; 2], but: &[&str], faults: &mut Faults) {
    let slack = if support::oracle::page_size() > 4096 { support::oracle::stock().max(MIB) } else { MIB };
    for row in array(&diff["sources"]) {
        let delta = row["delta_bytes"].as_i64().unwrap_or(0);
        let meant = but.iter().any(|slug| row["source"] == *slug);
        faults.expect(meant || delta.abs() < slack, || format!("{} differs by {delta}", row["source"]));
    }
    let residual = int(&diff["residual_bytes"]);
    faults.expect(residual.abs() < slack, || format!("residual {residual}"));
    let losses = runs.map(|run| run.recording()["health"]["losses"].clone());
    let counts = runs.map(|run| support::losses(&run.recording()["health"]));
    faults.expect(counts.iter().all(|(lost, _)| *lost == 0), || format!("lost: {losses:?}"));
    // A kernel that preempts lazily (7.x) skips some runs: if any, those are reported, and nothing else makes them hard to
    // compare.
    let skipped = counts.iter().any(|(_, skipped)| *skipped > 0);
    let lines_of = |list: &str| -> Vec<&str> { array(&diff["comparable"][list]).iter().map(text).collect() };
    let (reasons, notes) = (lines_of("reasons"), lines_of("notes"));
    let missed = |line: &&str| line.starts_with("hook ") && line.contains(" missed ");
    faults.expect(reasons.iter().all(missed) && reasons.iter().chain(&notes).any(missed) == skipped, || {
        format!("comparable: {}, lost: {losses:?}", diff["comparable"])
    });
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn more_anonymous_memory_is_attributed_to_anon() {
    let dir = support::disk_dir();
    let input = support::path(&dir, "input");
    support::cold_file(&input, 64);
    let shared = format!("--shmem 32M --file-read 64M --file {input}");
    let (a, _) = run(&dir, "a", &format!("--anon 64M {shared}"));
    // Cold again: both runs pay for the file.
    support::drop_from_cache(&input);
    let (b, _) = run(&dir, "b", &format!("--anon 128M {shared}"));
    let diff = a.diff(&b);

    let mut faults = Faults::default();
    assert_eq!(diff["plane"], "cgroup");
    let delta = int(&source_row(&diff, "anon")["delta_bytes"]);
    faults.expect((delta - 64 * MIB).abs() <= MIB, || format!("anon differs by {delta}, 64 MiB more taken"));
    let total = int(&diff["total_delta_bytes"]);
    faults.expect((total - 64 * MIB).abs() <= 2 * MIB, || format!("the total differs by {total}"));
    // What a page table for 64 MiB more takes is far below 1 MiB.
    rest_is_equal(&diff, [&a, &b], &["anon"], &mut faults);
    let share = source_row(&diff, "anon")["share"].as_f64().unwrap();
    faults.expect((share - 1.0).abs() < 0.03, || format!("share {share}"));
    let back = b.diff(&a);
    faults.expect(int(&source_row(&back, "anon")["delta_bytes"]) == -delta, || "B to A is not A to B".into());
    println!("anon {} total {} residual {}", delta - 64 * MIB, total - 64 * MIB, diff["residual_bytes"]);
    faults.finish();
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_file_that_a_has_read_is_charged_to_a_and_absent_from_b() {
    let dir = support::disk_dir();
    let input = support::path(&dir, "input");
    support::cold_file(&input, 64);
    let line = format!("--anon 32M --file-read 64M --file {input}");
    let (a, _) = run(&dir, "a", &line);
    let (b, b_truth) = run(&dir, "b", &line);
    let diff = a.diff(&b);

    // What of it B found in the cache, and what little a daemon of the machine may have taken since A.
    let read = array(&b_truth["sources"]).iter().find(|source| source["kind"] == "file-read").unwrap();
    let resident = |when: &str| int(&read["detail"][when]["resident"]);
    let own = resident("cache_after") - resident("cache_before");
    assert!(own <= 8 * MIB, "what A has read was not cached any more: B has read {own} bytes again");

    let mut faults = Faults::default();
    let file = |plane: &Value| int(&source_row(plane, "file-clean")["delta_bytes"]);
    let truth = own - 64 * MIB;
    faults.expect((file(&diff) - truth).abs() <= MIB, || {
        format!("page cache differs by {}, not by {truth}", file(&diff))
    });
    rest_is_equal(&diff, [&a, &b], &["file-clean", "file-dirty"], &mut faults);

    let rows: Vec<_> = array(&diff["files"]).iter().filter(|row| row["path"] == input.as_str()).collect();
    let [row] = rows[..] else { panic!("rows of the file: {rows:#?}") };
    faults.near("in A", int(&row["a_bytes"]), 64 * MIB);
    faults.expect(own > 0 || row["b_bytes"] == 0 && row["only_in"] == "a", || format!("in B: {row}"));
    faults.near("in B", int(&row["b_bytes"]), own);
    let a_cgroup = &a.recording()["target"]["cgroups"][0]["path"];
    let holders = array(&row["a_holders"]);
    faults.expect(holders.len() == 1 && holders[0]["charged_to"] == *a_cgroup, || {
        format!("holders in A, whose cgroup is {a_cgroup}: {holders:?}")
    });
    faults.expect(own > 0 || array(&row["b_holders"]).is_empty(), || {
        format!("holders in B: {}", row["b_holders"])
    });
    faults.finish();
}
