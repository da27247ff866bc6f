//! What the tracer cannot take is counted and reported.

use crate::support::{self, Recorded, array, int, record, record_words, workload};

/// Each round is a fork and an exit.
const ROUNDS: i64 = 3000;

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_ring_made_tiny_loses_and_says_so() {
    let dir = support::disk_dir();
    // A tracer that gets no time to drain the ring, as on a machine with more to do than it can.
    let script = format!("kill -STOP $PPID; {} storm fork --rounds {ROUNDS}; kill -CONT $PPID", workload());
    // The least that there can be: a page.
    // SAFETY: no pointers.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) }.to_string();
    // Quiet: a loss is reported all the same.
    let words = ["-q", "--ring-size", &page, "--", "sh", "-c", &script];
    let recorded: Recorded = record_words(&support::path(&dir, "tiny.json"), &words).exited(0);
    assert!(!recorded.stderr.contains("wrote"), "{}", recorded.stderr);
    let recording = recorded.recording();
    let health = &recording["health"];
    let lost = int(&health["lost_total"]);
    assert!(lost > 0);
    let losses = array(&health["losses"]);
    assert_eq!(losses.iter().map(|loss| int(&loss["count"])).sum::<i64>(), lost);
    assert!(losses.iter().any(|loss| loss["what"] == "events" && int(&loss["count"]) > 0), "{losses:?}");
    let lines = [&recorded.stderr, &recorded.table()].map(|text| {
        let mut lines = text.lines();
        lines.any(|line| line.contains("WARNING") && line.contains(&lost.to_string()))
    });
    assert_eq!(lines, [true, true], "warned by record and show: {}\n{}", recorded.stderr, recorded.table());
    assert!(!array(&recorded.show()["warnings"]).is_empty());
    // Not all of them can be there, and none that was not: the shell, the storm and its children.
    let seen = i64::try_from(array(&recorded.show()["processes"]).len()).unwrap();
    assert!(seen < ROUNDS, "{seen} processes of {}", ROUNDS + 2);
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn the_default_ring_loses_nothing() {
    let dir = support::disk_dir();
    let line = format!("-- {} storm fork --rounds {ROUNDS}", workload());
    let recorded = record(&support::path(&dir, "default.json"), &line).exited(0);
    let show = recorded.show();
    let (lost, skipped) = support::losses(&show["health"]);
    assert_eq!(lost, 0, "{}", show["health"]["losses"]);
    // Of other things it may warn: the storm's peak lies between two readings.
    let names_a_loss = |text: &str| ["lost", "losses", "left out"].iter().any(|word| text.contains(word));
    assert_eq!(names_a_loss(&recorded.stderr), skipped > 0, "{}", recorded.stderr);
    // A few of many events are no warning of `show`.
    assert!(skipped > 0 || !names_a_loss(&recorded.table()), "{}", recorded.table());
    let target = array(&show["processes"]).iter().filter(|row| row["target"] == true).count();
    let all = ROUNDS + 1;
    assert!((all - skipped..=all).contains(&i64::try_from(target).unwrap()), "{target} processes of {all}");
}

/// A program that does nothing but map and unmap: what is recorded grows with its places and not with its calls, and nothing
/// is lost of the sums.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_storm_of_mappings_is_counted_by_place() {
    const SIZE: i64 = 2 << 20;
    const ROUNDS: i64 = 20_000;
    let dir = support::disk_dir();
    let storm = format!("{} storm mmap --size {SIZE} --rounds {ROUNDS}", workload());
    // Room for all events: a tracer that gets no time loses nothing.
    let line = format!("--ring-size 64M -- {storm}");
    let recorded = record(&support::path(&dir, "mappings.json"), &line).exited(0);
    let report = recorded.said();
    let (pid, made) = (&report["pid"], int(&report["operations"]));
    assert_eq!(made, ROUNDS);
    let provenance = &recorded.recording()["provenance"];
    let of_storm = |list: &str| {
        let rows = provenance[list].as_array().cloned().unwrap_or_default();
        rows.into_iter().filter(|row| row["pid"] == *pid && row["length"] == SIZE).collect::<Vec<_>>()
    };
    let events = of_storm("mappings");
    let count = |op: &str| i64::try_from(events.iter().filter(|event| event["op"] == op).count()).unwrap();
    let brief: i64 = of_storm("brief_mappings").iter().map(|row| int(&row["calls"])).sum();
    assert_eq!([count("mmap") + brief, count("munmap") + brief], [made, made], "{brief} of them brief");
    // One mapping at a time.
    assert!(of_storm("brief_mappings").iter().all(|row| row["most"] == 1 && row["kind"] == "anon"));
    let shown = recorded.show_with(&["--at", "end"]);
    let shown: Vec<_> = array(&shown["mappings"]).iter().map(|row| int(&row["bytes_mapped"])).collect();
    assert!(shown.iter().any(|bytes| *bytes >= made * SIZE), "{shown:?}");
    assert_eq!(support::losses(&recorded.recording()["health"]).0, 0);
}
