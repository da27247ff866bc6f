//! What does not run at every system call of the machine, by the kernel's own list of what is attached.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use serde_json::Value;

use crate::support::process::Running;
use crate::support::{self, MIB, array, bpf, int, record, spark_trace, text, wait_for, workload};

/// The tracepoint at the end of every system call.
const EVERY_CALL: &str = "sys_exit";

/// The row of hook `mapping`.
fn mapping(recording: &Value) -> Value {
    let hooks = array(&recording["health"]["hooks"]);
    hooks.iter().find(|hook| hook["name"] == "mapping").unwrap().clone()
}

/// Whether the recording has the workload's mapping that nobody touched.
fn has_large_mapping(recording: &Value) -> bool {
    array(&recording["provenance"]["mappings"]).iter().any(|event| int(&event["length"]) == 64 * MIB)
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_whole_machine_is_recorded_without_a_hook_at_every_system_call() {
    let dir = support::disk_dir();
    for (options, wants_it) in [
        (&["--system"][..], Some(false)),
        // Where functions of system calls can be attached to, it is not needed.
        (&["--system", "--system-calls", "on"], None),
        (&["--system-calls", "off", "--", "sleep", "600"], Some(false)),
        (&["--", "sleep", "600"], None),
    ] {
        let running =
            Running::start(&support::path(&dir, "attached.json"), &[&["--force"], options].concat());
        running.reads(2);
        let attached = bpf::tracepoints_of(running.pid());
        running.signal(libc::SIGTERM);
        let recorded = running.finish();
        // The list is the right one.
        assert!(attached.contains("sched_process_exec"), "{attached:?}");
        let by_tracepoint = mapping(&recorded.recording())["mechanism"] == "tp_btf";
        assert_eq!(attached.contains(EVERY_CALL), by_tracepoint, "{options:?}: {attached:?}");
        assert!(wants_it.is_none_or(|wants| wants == by_tracepoint), "{options:?}: {attached:?}");
    }
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn what_is_not_seen_of_a_whole_machine_is_on_the_first_screen() {
    let dir = support::disk_dir();
    let command = format!("-- {} alloc --anon-untouched 64M --hold 300ms", workload());
    let recorded = record(&support::path(&dir, "auto.json"), &format!("--system {command}")).exited(0);
    let recording = recorded.recording();
    let hook = mapping(&recording);
    let says = recorded.table().lines().take(12).any(|line| line.contains("--system-calls"));
    match text(&hook["verdict"]) {
        "off" => {
            assert!(text(&hook["reason"]).contains("--system-calls on"), "{hook}");
            assert!(says && !has_large_mapping(&recording), "{}", recorded.table());
        }
        verdict => assert!(verdict == "ok" && !says && has_large_mapping(&recording), "{hook}"),
    }
    let line = format!("--system --system-calls on {command}");
    let recorded = record(&support::path(&dir, "on.json"), &line).exited(0);
    assert!(has_large_mapping(&recorded.recording()));
    assert!(!recorded.table().contains("--system-calls"), "{}", recorded.table());
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_service_attaches_nothing_at_every_system_call() {
    let dir = support::disk_dir();
    let mut command = spark_trace();
    command.args(["serve", "--listen", "127.0.0.1:0", "--state"]).arg(dir.path().join("state"));
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let line = lines.next().expect("it ended before it served").unwrap();
    let attached = bpf::tracepoints_of(child.id());
    support::process::signal(child.id(), libc::SIGTERM);
    let status = wait_for("serve to end", || child.try_wait().unwrap());
    assert!(status.success() && attached.contains("sched_process_exec"), "{line}: {attached:?}");
    assert!(!attached.contains(EVERY_CALL), "{attached:?}");
}
