//! Processes outside of the target, by name, beside what the kernel says of them.

use std::process::Command;

use crate::support::process::Other;
use crate::support::{self, MIB, array, int, record, text, workload};

/// RssAnon and RssShmem of a process, as the kernel has them.
fn resident(pid: u32) -> i64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let kib = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap();
        line.trim_start_matches(':').split_whitespace().next().unwrap().parse::<i64>().unwrap()
    };
    (kib("RssAnon") + kib("RssShmem")) * 1024
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn the_largest_processes_outside_are_named_at_the_start_and_at_the_end() {
    let dir = support::disk_dir();
    let mut command = Command::new(workload());
    command.args(["alloc", "--anon", "256M", "--hold", "600s"]);
    let tenant = Other::holding(&mut command);
    let truth = resident(tenant.pid());
    assert!(truth >= 256 * MIB, "{truth}");
    let output = support::path(&dir, "r.json");
    let recorded = record(&output, &format!("-- {} alloc --anon 4M --hold 50ms", workload())).exited(0);
    let recording = recorded.recording();
    let own: Vec<i64> =
        array(&recording["provenance"]["processes"]).iter().map(|process| int(&process["pid"])).collect();
    for moment in ["start", "end"] {
        let rows: Vec<_> =
            array(&recording["provenance"]["outside"]).iter().filter(|row| row["moment"] == moment).collect();
        assert!(!rows.is_empty() && rows.len() <= 16, "{moment}: {rows:?}");
        assert!(rows.iter().all(|row| !own.contains(&int(&row["pid"]))), "{moment}: {rows:?} of {own:?}");
        match rows.iter().find(|row| int(&row["pid"]) == i64::from(tenant.pid())) {
            Some(row) => {
                assert_eq!(text(&row["comm"]), "spark-trace-wor");
                assert!((int(&row["bytes"]) - truth).abs() < MIB, "{row} of {truth}");
            }
            // Others of the machine may be larger.
            None => {
                assert!(rows.len() == 16 && rows.iter().all(|row| int(&row["bytes"]) >= truth), "{rows:?}")
            }
        }
    }
    let whole = record(&output, &format!("--force --system -- {} alloc --anon 4M", workload())).exited(0);
    assert!(whole.recording()["provenance"]["outside"].is_null(), "nothing is outside of the machine");
}
