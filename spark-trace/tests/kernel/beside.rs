//! Several spark-traces at once: neither records the other, and each says that it is not alone.

use std::fs;
use std::os::fd::OwnedFd;
use std::process::Command;

use serde_json::Value;

use crate::support::ledger::phase_ns;
use crate::support::process::{Other, Running};
use crate::support::{self, MIB, Recorded, array, bpf, int, spark_trace, text, wait_for, workload};

/// How the warning begins.
const BESIDE: &str = "another spark-trace";

/// A recorder with a workload of its own, once that holds its memory.
fn start(dir: &tempfile::TempDir, name: &str, options: &[&str], mib: i64) -> Running {
    let (size, program) = (format!("{mib}M"), workload());
    let load = ["--", &program, "alloc", "--anon", &size, "--hold", "600s", "--jsonl"];
    let mut running = Running::start(&support::path(dir, name), &[options, &load].concat());
    running.phase("hold");
    running
}

/// Ends both while both still run, so that neither is alone before it has read the last.
fn end([first, second]: [Running; 2]) -> [Recorded; 2] {
    first.reads(2);
    second.reads(2);
    first.signal(libc::SIGTERM);
    let first = first.finish();
    second.signal(libc::SIGTERM);
    [first, second.finish()]
}

/// Whether a process is among the spark-traces that ran beside a recorder. Others may run on this machine, too.
fn is_beside(recording: &Value, pid: u32) -> bool {
    let beside = recording["health"].get("beside").map(array).unwrap_or_default();
    beside.iter().any(|other| int(other) == i64::from(pid))
}

/// Whether a text has a warning of another spark-trace. Long lines are broken.
fn warns_of(text: &str, pid: u32) -> bool {
    let words: Vec<&str> = text.split_whitespace().collect();
    let words = words.join(" ");
    words.split(BESIDE).skip(1).any(|rest| rest.split(')').next().is_some_and(|pids| names(pids, pid)))
}

fn names(text: &str, pid: u32) -> bool {
    let (pid, mut words) = (pid.to_string(), text.split(|c: char| !c.is_ascii_digit()));
    words.any(|word| word == pid)
}

/// Rows of `list` that are of a process, from a time on.
fn rows_of(recording: &Value, list: &str, pid: u32, from_ns: i64) -> usize {
    let rows = array(&recording["provenance"][list]).iter();
    rows.filter(|row| int(&row["pid"]) == i64::from(pid) && int(&row["at_ns"]) >= from_ns).count()
}

/// Whether a process has ended and is not yet waited for.
fn is_zombie(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status.lines().any(|line| line.starts_with("State:\tZ"))
}

fn mapped(recording: &Value, mib: i64) -> usize {
    let mappings = array(&recording["provenance"]["mappings"]).iter();
    mappings.filter(|row| row["op"] == "mmap" && int(&row["length"]) == mib * MIB).count()
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn two_recorders_of_one_machine_do_not_record_each_other_and_say_so() {
    let dir = support::disk_dir();
    let options = ["--system", "--system-calls", "on"];
    let first = start(&dir, "first.json", &options, 65);
    let second = start(&dir, "second.json", &options, 97);
    let pids = [first.pid(), second.pid()];
    let doctor = spark_trace().args(["doctor", "--format", "json"]).output().unwrap();
    let doctor: Value = serde_json::from_slice(&doctor.stdout).unwrap();
    let row = array(&doctor["checks"]).iter().find(|row| row["name"] == "beside").unwrap();
    for pid in pids {
        assert!(names(text(&row["found"]), pid), "{row}");
    }
    let recorded = end([first, second]);
    let recordings = [0, 1].map(|index| recorded[index].recording());
    for (own, other) in [(0, 1), (1, 0)] {
        let pid = pids[other];
        assert!(is_beside(&recordings[own], pid), "{own}: {}", recordings[own]["health"]);
        assert!(warns_of(&recorded[own].stderr, pid), "{}", recorded[own].stderr);
        let table = recorded[own].table();
        let first_screen: Vec<&str> = table.lines().take(24).collect();
        assert!(warns_of(&first_screen.join(" "), pid), "{table}");
        // It has read the kernel's counters at each of its readings. What it did before it traced is any program's.
        let traced_ns = phase_ns(&recordings[other], "start");
        for list in ["queries", "mappings"] {
            assert_eq!(rows_of(&recordings[own], list, pid, traced_ns), 0, "{list} of {pid}");
        }
    }
    // The second never saw the first without knowing it.
    let ever = |list| rows_of(&recordings[1], list, pids[0], 0);
    assert_eq!((ever("mappings"), ever("queries")), (0, 0));
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn each_of_two_recorders_is_exact_about_its_own_workload() {
    let dir = support::disk_dir();
    let first = start(&dir, "first.json", &[], 65);
    let second = start(&dir, "second.json", &[], 97);
    let pids = [first.pid(), second.pid()];
    for (own, recorded) in end([first, second]).into_iter().enumerate() {
        let (recording, sizes) = (recorded.recording(), [65, 97]);
        assert!(is_beside(&recording, pids[1 - own]), "{own}: {}", recording["health"]);
        assert_eq!(mapped(&recording, sizes[own]), 1, "{own}");
        assert_eq!(mapped(&recording, sizes[1 - own]), 0, "{own}");
        let processes = array(&recording["provenance"]["processes"]);
        assert!(
            processes.iter().all(|process| !pids.contains(&(int(&process["pid"]) as u32))),
            "{processes:?}"
        );
        let anon = support::source(&recorded.show(), "cgroup", "anon");
        // The workload, and what its program and its loader have of their own.
        let slack = 4 * MIB;
        assert!((sizes[own] * MIB..sizes[own] * MIB + slack).contains(&anon), "{own}: {anon}");
    }
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_recorder_that_began_later_and_ended_is_named_and_its_number_is_free_again() {
    let dir = support::disk_dir();
    let first = start(&dir, "first.json", &["--system", "--system-calls", "on"], 65);
    let second = start(&dir, "second.json", &[], 97);
    let pid = second.pid();
    // It has no chance to say goodbye.
    second.signal(libc::SIGKILL);
    wait_for("its end", || is_zombie(pid).then_some(()));
    // Its pipes are open as long as its command has them.
    support::kill_children_named(&[&workload(), "alloc", "--anon", "97M", "--hold", "600s", "--jsonl"]);
    assert_eq!(second.finish().code, Some(128 + libc::SIGKILL));
    first.signal(libc::SIGTERM);
    let recording = first.finish().recording();
    assert!(is_beside(&recording, pid), "{}", recording["health"]);
    let later = support::record(&support::path(&dir, "later.json"), "-- true").exited(0);
    assert!(!is_beside(&later.recording(), pid) && !warns_of(&later.stderr, pid), "{}", later.stderr);
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_program_that_looks_like_spark_trace_is_recorded() {
    let dir = support::disk_dir();
    let (impostor, go) = (support::path(&dir, "spark-trace"), support::path(&dir, "go"));
    fs::copy(workload(), &impostor).unwrap();
    // What any user may have where the kernel lets users make maps: one of the same name, which says whose it is.
    let map = bpf::make_map("BESIDE");
    let line = ["alloc", "--anon-untouched", "64M", "--hold", "600s", "--wait-go", &go];
    let impostor = Other::start(Command::new(&impostor).args(line));
    bpf::set(&map, impostor.pid(), 1);
    let words = ["--system-calls", "on", "--pid", &impostor.pid().to_string()];
    let running = Running::start(&support::path(&dir, "impostor.json"), &words);
    running.follows(impostor.pid());
    fs::write(&go, "").unwrap();
    running.has_entry("the mapping", |entry| entry["entry"] == "mapping" && entry["length"] == 64 * MIB);
    running.signal(libc::SIGTERM);
    let recorded = running.finish();
    let recording = recorded.recording();
    assert!(!is_beside(&recording, impostor.pid()), "{}", recording["health"]);
    assert!(!warns_of(&recorded.stderr, impostor.pid()), "{}", recorded.stderr);
    assert_eq!(mapped(&recording, 64), 1);
    drop::<OwnedFd>(map);
}
