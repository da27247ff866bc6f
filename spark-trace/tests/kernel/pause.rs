//! Processes that are paused when they map a CUDA library which nobody watches: no call is missed, and none stays
//! stopped, whatever becomes of spark-trace. On the simulated driver; everything else is real.

use std::fs;

use serde_json::Value;
use tempfile::TempDir;

use crate::support::{self, MIB, Recorded, Running, array, cuda_workload, int, json, wait_for};

/// A CUDA driver that no recording has seen: a copy of the simulated one, which lies beside the workload.
fn new_driver(dir: &TempDir) -> String {
    let simulated =
        std::path::PathBuf::from(cuda_workload()).with_file_name("libspark_trace_simulated_cuda.so");
    let copy = support::path(dir, "libspark_trace_simulated_cuda.so");
    fs::copy(simulated, &copy).unwrap();
    copy
}

/// A command that waits for the file `go`, writes its pid to `pid`, and then takes memory through the driver.
fn waiting(dir: &TempDir) -> [String; 4] {
    let [go, pid, report] = ["go", "pid", "report.json"].map(|name| support::path(dir, name));
    let (workload, driver) = (cuda_workload(), new_driver(dir));
    let script = format!(
        "echo $$ > {pid}.new; mv {pid}.new {pid}; until [ -e {go} ]; do sleep 0.02; done; exec {workload} cuda-alloc \
         --driver {driver} --device 16M --managed 4M --query --hold 100ms --output {report}"
    );
    ["--".to_owned(), "/bin/sh".to_owned(), "-c".to_owned(), script]
}

fn start(dir: &TempDir, options: &[&str]) -> Running {
    let command = waiting(dir);
    let words: Vec<_> = options.iter().copied().chain(command.iter().map(String::as_str)).collect();
    Running::start(&support::path(dir, "paused.json"), &words)
}

fn pid_of_command(dir: &TempDir) -> u32 {
    let file = support::path(dir, "pid");
    wait_for("the command to start", || fs::read_to_string(&file).ok()?.trim().parse().ok())
}

fn state(pid: u32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

/// Lets the command go on to map its driver while spark-trace cannot answer; it is then stopped.
fn stopped_with(dir: &TempDir, running: &Running) -> u32 {
    let pid = pid_of_command(dir);
    running.follows(pid);
    running.signal(libc::SIGSTOP);
    wait_for("spark-trace to stand still", || (state(running.pid()) == Some('T')).then_some(()));
    fs::write(support::path(dir, "go"), "").unwrap();
    wait_for("the command to be paused", || (state(pid) == Some('T')).then_some(()));
    pid
}

/// The row of the library that was mapped: others of its name may lie in the loader's path.
fn library(recording: &Value) -> &Value {
    let mut all = array(&recording["health"]["libraries"]).iter();
    all.find(|library| library["in_use"] == true).expect("no library was mapped")
}

fn no_call_is_missing(dir: &TempDir, recorded: &Recorded) {
    let (recording, report) = (recorded.recording(), json(support::path(dir, "report.json")));
    let answers = array(&report["cuda"]["mem_get_info"]).len();
    let queries = array(&recording["provenance"]["queries"]);
    let seen = queries.iter().filter(|query| query["interface"] == "cuMemGetInfo_v2").count();
    assert!(answers >= 4 && seen == answers, "{seen} of {answers} answers");
    let totals = array(&recording["provenance"]["cuda_totals"]);
    let total = |kind: &str| totals.iter().find(|t| t["pid"].is_null() && t["kind"] == kind).unwrap();
    assert_eq!((int(&total("device")["peak"]), int(&total("device")["frees"])), (16 * MIB, 1));
    assert_eq!((int(&total("managed")["peak"]), int(&total("managed")["frees"])), (4 * MIB, 1));
    assert_eq!(recording["provenance"]["cuda_unknown_frees"], 0);
    assert_eq!(support::losses(&recording["health"]).0, 0, "{}", recording["health"]["losses"]);
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_library_that_a_process_brings_is_watched_before_its_first_call() {
    let dir = support::disk_dir();
    fs::write(support::path(&dir, "go"), "").unwrap();
    let recorded = start(&dir, &[]).finish().exited(0);
    no_call_is_missing(&dir, &recorded);
    let recording = recorded.recording();
    let library = library(&recording);
    assert_eq!((&library["verdict"], &library["in_use"]), (&"ok".into(), &true.into()), "{library}");
    assert!(int(&library["paused_ns"]) > 0 && int(&library["mapped_by"]) > 0, "{library}");
    let table = recorded.table();
    assert!(table.contains("was paused for") && !table.contains("after it was mapped"), "{table}");
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn who_refuses_gets_no_pause_and_a_line_of_what_may_be_missing() {
    let dir = support::disk_dir();
    let running = start(&dir, &["--no-pause"]);
    let pid = pid_of_command(&dir);
    running.follows(pid);
    running.signal(libc::SIGSTOP);
    fs::write(support::path(&dir, "go"), "").unwrap();
    // Nobody stops it, and nobody watches.
    wait_for("the command to end", || fs::read(support::path(&dir, "report.json")).ok());
    running.signal(libc::SIGCONT);
    let recorded = running.finish().exited(0);
    let recording = recorded.recording();
    let library = library(&recording);
    assert!(library["paused_ns"].is_null(), "{library}");
    let table = recorded.table();
    assert!(table.contains("--cuda-library"), "{table}");
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_process_goes_on_though_the_tracer_does_not_answer() {
    let dir = support::disk_dir();
    let running = start(&dir, &[]);
    let pid = stopped_with(&dir, &running);
    // Two seconds, and a quarter until the guard looks; the test waits as long as a busy machine may need.
    wait_for("the command to go on", || (state(pid) != Some('T')).then_some(()));
    wait_for("the command to report", || fs::read(support::path(&dir, "report.json")).ok());
    running.signal(libc::SIGCONT);
    let recorded = running.finish().exited(0);
    let recording = recorded.recording();
    assert!(library(&recording)["paused_ns"].is_null(), "it was not paused for long enough");
    let table = recorded.table();
    assert!(table.contains("--cuda-library") && !table.contains("was paused"), "{table}");
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_process_goes_on_though_the_tracer_is_killed() {
    let dir = support::disk_dir();
    let running = start(&dir, &[]);
    let pid = stopped_with(&dir, &running);
    running.signal(libc::SIGKILL);
    wait_for("the command to go on", || (state(pid) != Some('T')).then_some(()));
    wait_for("the command to report", || fs::read(support::path(&dir, "report.json")).ok());
    assert_eq!(running.finish().code, Some(128 + libc::SIGKILL));
    let left = || support::processes_with("let-paused-go-on");
    // Other tests' guards belong to tracers that live.
    wait_for("the guard to end", || left().iter().all(|guard| parent(*guard) != Some(1)).then_some(()));
}

fn parent(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_stop_that_others_sent_meanwhile_stays() {
    let dir = support::disk_dir();
    let running = start(&dir, &[]);
    let pid = stopped_with(&dir, &running);
    support::process::signal(pid, libc::SIGSTOP);
    running.signal(libc::SIGCONT);
    running.has_entry("the library", |entry| entry["entry"] == "library" && entry["in_use"] == true);
    // It goes on for us and stops for them.
    wait_for("the command to stop", || (state(pid) == Some('T') && !pending(pid)).then_some(()));
    support::process::signal(pid, libc::SIGCONT);
    running.finish().exited(0);
}

/// Whether a stop waits for it.
fn pending(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let sets = status.lines().filter_map(|line| line.strip_prefix("ShdPnd:"));
    sets.filter_map(|set| u64::from_str_radix(set.trim(), 16).ok())
        .any(|set| set & 1 << (libc::SIGSTOP - 1) != 0)
}
