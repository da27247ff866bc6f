//! What the tracer cannot take is counted and told.

#![cfg(feature = "live")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on should stop")]

mod support;

use support::{Recorded, array, int, record, workload};

/// Each round is a fork and an exit: more than a small ring can hold until it is drained.
const ROUNDS: i64 = 3000;

fn storm(dir: &tempfile::TempDir, name: &str, options: &str) -> Recorded {
    let line = format!("{options} -- {} storm fork --rounds {ROUNDS}", workload());
    record(&support::path(dir, name), &line).exited(0)
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_ring_made_tiny_loses_and_says_so() {
    let dir = support::disk_dir();
    let recorded = storm(&dir, "tiny.json", "--ring-size 4096");
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
    // What is lost is not made up: forks seen and lost together are those that were.
    let seen = array(&recorded.show()["processes"]).len();
    assert!(i64::try_from(seen).unwrap() <= ROUNDS + 1, "{seen} processes of {}", ROUNDS + 1);
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn the_default_ring_loses_nothing() {
    let dir = support::disk_dir();
    let recorded = storm(&dir, "default.json", "");
    let show = recorded.show();
    assert_eq!(show["health"]["lost_total"], 0, "{}", show["health"]["losses"]);
    assert!(!recorded.stderr.contains("WARNING"), "{}", recorded.stderr);
    assert!(!recorded.table().contains("WARNING"), "{}", recorded.table());
    let target = array(&show["processes"]).iter().filter(|row| row["target"] == true).count();
    assert_eq!(i64::try_from(target).unwrap(), ROUNDS + 1);
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_page_map_made_tiny_loses_and_says_so() {
    let dir = support::disk_dir();
    let line = format!("--live-pages 16 -- {} alloc --small-mappings 2000 --hold 200ms", workload());
    let recorded = record(&support::path(&dir, "pages.json"), &line).exited(0);
    let recording = recorded.recording();
    let losses = array(&recording["health"]["losses"]);
    assert!(int(&recording["health"]["lost_total"]) > 0, "2000 page tables in 16 places: {losses:?}");
    assert!(recorded.stderr.contains("WARNING"), "{}", recorded.stderr);
}
