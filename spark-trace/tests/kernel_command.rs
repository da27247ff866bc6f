//! `record -- COMMAND` as a user meets it: exit codes, files, where the command runs, signals.

#![cfg(feature = "live")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on should stop")]

mod support;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use support::ledger::held;
use support::{MIB, Recorded, Running, cgroup, int, json, record, record_words, source, text, workload};

const USAGE: i32 = 64;

#[test]
#[ignore = "needs root: cargo xtask test"]
fn the_exit_code_is_the_commands() {
    let dir = support::disk_dir();
    for (options, code) in [("", 0), ("--exit-code 3", 3), ("--abort", 128 + libc::SIGABRT)] {
        let output = support::path(&dir, &format!("{code}.json"));
        let recorded =
            record(&output, &format!("-- {} alloc --anon 4M --hold 50ms {options}", workload())).exited(code);
        assert_eq!(recorded.recording()["target"]["exit_code"], code);
    }
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn the_recording_is_private_and_the_journal_goes() {
    let dir = support::disk_dir();
    for name in ["r.json", "r.json.zst"] {
        let recorded = record(&support::path(&dir, name), "-- true").exited(0);
        assert_eq!(fs::metadata(&recorded.output).unwrap().mode() & 0o7777, 0o600);
        assert!(!recorded.partial().exists(), "the journal of {name}");
        assert_eq!(recorded.show()["health"]["complete"], true);
        assert!(recorded.stderr.contains(name), "says where it is: {}", recorded.stderr);
    }
    let left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "{left:?}");
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn the_command_runs_in_a_cgroup_of_its_own_that_is_gone_afterwards() {
    let dir = support::disk_dir();
    let output = support::path(&dir, "r.json");
    let recorded = record(&output, "-- cat /proc/self/cgroup").exited(0);
    let path = cgroup::path_in(&recorded.stdout).unwrap();
    assert!(path.starts_with(&format!("/spark-trace-{}-", recorded.pid)), "it ran in {path}");
    let recording = recorded.recording();
    assert_eq!(text(&recording["target"]["cgroups"][0]["path"]), path);
    assert!(cgroup::leaves_of(recorded.pid).is_empty());

    // Also where the command leaves processes and cgroups behind in it.
    let mark = support::path(&dir, "mark");
    let (root, _) = cgroup::memory_root();
    let script = format!(
        "mkdir {}$(grep -E '^0::|memory' /proc/self/cgroup | head -n 1 | cut -d: -f3)/below; sleep 30 & touch {mark}",
        root.display()
    );
    let output = support::path(&dir, "left.json");
    let recorded = record_words(&output, &["--", "sh", "-c", &script, &mark]).exited(0);
    assert!(Path::new(&mark).exists());
    let left = cgroup::leaves_of(recorded.pid);
    support::kill_children_named(&["sleep", "30"]);
    assert!(left.is_empty(), "{left:?} is left, with {:?}", recorded.stderr);
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn without_a_cgroup_the_command_stays_where_it_is_started() {
    let dir = support::disk_dir();
    let own = cgroup::of_process(std::process::id()).unwrap();
    let recorded = record(&support::path(&dir, "r.json"), "--no-cgroup -- cat /proc/self/cgroup").exited(0);
    assert_eq!(cgroup::path_in(&recorded.stdout).unwrap(), own);

    let truth = support::path(&dir, "truth.json");
    let line = format!(
        "--no-cgroup -- {} alloc --anon 64M --children 1 --child-anon 32M --hold 300ms --output {truth}",
        workload()
    );
    let show = record(&support::path(&dir, "w.json"), &line).exited(0).show();
    let truth = json(&truth);
    let row = |pid| support::array(&show["processes"]).iter().find(|row| row["pid"] == pid).unwrap();
    let parent = row(truth["pid"].clone());
    assert!(int(&parent["at_peak"]["rss_anon"]) >= 64 * MIB, "{parent}");
    let child = support::array(&truth["sources"]).iter().find(|s| s["kind"] == "child-anon").unwrap();
    let child = row(child["detail"]["pid"].clone());
    assert!(int(&child["at_peak"]["rss_anon"]) >= 32 * MIB, "{child}");
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn an_existing_file_is_kept_without_force() {
    let dir = support::disk_dir();
    let (output, ran) = (support::path(&dir, "r.json"), support::path(&dir, "ran"));
    fs::write(&output, "mine").unwrap();
    let refused = record(&output, &format!("-- touch {ran}"));
    assert_ne!(refused.code, Some(0));
    assert!(refused.stderr.contains("--force"), "{}", refused.stderr);
    assert_eq!(fs::read_to_string(&output).unwrap(), "mine");
    assert!(!Path::new(&ran).exists(), "the command must not run for nothing");
    assert!(!refused.partial().exists());

    record(&output, &format!("--force -- touch {ran}")).exited(0).show();
    assert!(Path::new(&ran).exists());
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn wrong_usage_is_told_before_anything_runs() {
    let dir = support::disk_dir();
    let ran = support::path(&dir, "ran");
    for line in [
        String::new(),
        "--".into(),
        format!("--fly -- touch {ran}"),
        format!("--ring-size 5000 -- touch {ran}"),
        format!("--ring-size 512 -- touch {ran}"),
        format!("--interval soon -- touch {ran}"),
        format!("--profile huge -- touch {ran}"),
        "--duration 100ms --pid 1 --system".into(),
        format!("--duration 100ms --pid {} -- touch {ran}", std::process::id()),
    ] {
        let recorded = record(&support::path(&dir, "r.json"), &line);
        assert_eq!(recorded.code, Some(USAGE), "{line}: {}", recorded.stderr);
        assert!(!Path::new(&ran).exists() && !recorded.output.exists(), "{line}");
    }
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_command_that_cannot_start_is_a_failed_trace_without_traces() {
    let dir = support::disk_dir();
    let directory = support::path(&dir, "");
    let mut faults = support::Faults::default();
    for command in ["/no/such/program", &directory] {
        let before = support::bpf::ids();
        let recorded = record(&support::path(&dir, "r.json"), &format!("-- {command}")).exited(1);
        assert!(recorded.stderr.contains(command), "{}", recorded.stderr);
        faults.expect(!recorded.output.exists(), || format!("{command}: a recording of nothing"));
        faults.expect(!recorded.partial().exists(), || format!("{command}: the journal is left"));
        let leaves = cgroup::leaves_of(recorded.pid);
        faults.expect(leaves.is_empty(), || format!("{command}: {leaves:?} is left"));
        let left = support::bpf::left_behind(&before, "");
        faults.expect(left == support::bpf::Ids::default(), || format!("{command}: attached: {left:?}"));
    }
    faults.finish();
    let nowhere = support::path(&dir, "no/such/directory/r.json");
    let recorded = record(&nowhere, "-- true");
    assert!(matches!(recorded.code, Some(1 | 2)), "{:?}: {}", recorded.code, recorded.stderr);
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn under_sudo_the_command_and_the_file_are_the_users() {
    const NOBODY: &str = "65534";
    let dir = support::disk_dir();
    let run = |name: &str, words: &[&str]| -> Recorded {
        let mut command = support::spark_trace();
        command.env("SUDO_UID", NOBODY).env("SUDO_GID", NOBODY).env("SUDO_USER", "nobody");
        Running::start_as(command, &support::path(&dir, name), words).finish().exited(0)
    };
    for (words, uid) in [(&["--", "id", "-u"][..], NOBODY), (&["--as-root", "--", "id", "-u"], "0")] {
        let recorded = run(&format!("{uid}.json"), words);
        assert_eq!(recorded.stdout.trim(), uid);
        let owner = fs::metadata(&recorded.output).unwrap();
        assert_eq!((owner.uid().to_string(), owner.gid().to_string()), (NOBODY.into(), NOBODY.into()));
        assert_eq!(owner.mode() & 0o7777, 0o600);
    }
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn an_interrupt_reaches_the_command_and_the_recording_is_finished() {
    let dir = support::disk_dir();
    for signal in [libc::SIGINT, libc::SIGTERM] {
        let truth = support::path(&dir, &format!("{signal}.truth.json"));
        let line = format!("-- {} alloc --anon 64M --hold 60s --jsonl --output {truth}", workload());
        let words: Vec<_> = line.split_whitespace().collect();
        let mut running = Running::start(&support::path(&dir, &format!("{signal}.json")), &words);
        running.phase("hold");
        running.signal(signal);
        let recorded = running.finish().exited(128 + signal);
        let truth = json(&truth);
        assert_eq!(truth["stopped_by_signal"], signal, "the workload's own word");
        let recording = recorded.recording();
        assert_eq!(recording["health"]["complete"], true);
        assert_eq!(recording["target"]["exit_code"], 128 + signal);
        let mut faults = support::Faults::default();
        faults.near("anon", source(&recorded.show(), "cgroup", "anon"), held(&truth, "anon"));
        faults.finish();
    }
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_second_interrupt_kills_the_command() {
    let dir = support::disk_dir();
    let script = "trap 'echo interrupted' INT; echo ready; while :; do sleep 0.05; done";
    let mut running = Running::start(&support::path(&dir, "r.json"), &["--", "sh", "-c", script]);
    running.line(|line| line == "ready");
    running.signal(libc::SIGINT);
    running.line(|line| line == "interrupted");
    running.signal(libc::SIGINT);
    let recorded = running.finish().exited(128 + libc::SIGKILL);
    let recording = recorded.recording();
    assert_eq!(recording["health"]["complete"], true);
    assert_eq!(recording["target"]["exit_code"], 128 + libc::SIGKILL);
    assert!(cgroup::leaves_of(recorded.pid).is_empty());
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn an_interrupt_at_any_moment_leaves_nothing_behind() {
    let dir = support::disk_dir();
    let mut faults = support::Faults::default();
    for moment in (0..12).map(|step| Duration::from_millis(75 * step)) {
        let mark = support::path(&dir, &format!("{}.truth.json", moment.as_millis()));
        let line = format!("-q -- {} alloc --anon 4M --hold 60s --output {mark}", workload());
        let words: Vec<_> = line.split_whitespace().collect();
        let running = Running::start(&support::path(&dir, &format!("{}.json", moment.as_millis())), &words);
        // The moment is the point; there is nothing to poll for.
        std::thread::sleep(moment);
        running.signal(libc::SIGINT);
        let recorded = running.finish();
        let left = support::processes_with(&mark).len();
        support::kill_all_with(&mark);
        faults.expect(left == 0, || format!("after {moment:?}: the command goes on"));
        faults.expect(recorded.code == Some(128 + libc::SIGINT), || {
            format!("after {moment:?}: exit code {:?}: {}", recorded.code, recorded.stderr)
        });
        let leaves = cgroup::leaves_of(recorded.pid);
        faults.expect(leaves.is_empty(), || format!("after {moment:?}: {leaves:?} is left"));
        faults.expect(!recorded.partial().exists(), || format!("after {moment:?}: the journal is left"));
    }
    faults.finish();
}
