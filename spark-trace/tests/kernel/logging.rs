//! `-v` and `--log-level`: what the agent and the programs do, line by line on standard error.

use std::fs;
use std::io::{Read, Write};
use std::process::Stdio;

use serde_json::Value;

use crate::support::{self, array, int, record, record_words, text, workload};

/// Lines of a log, without its time.
fn lines<'a>(stderr: &'a str, level: &str) -> Vec<&'a str> {
    let separator = format!(" {level} ");
    let lines = stderr.lines().filter(|line| line.starts_with("spark-trace: "));
    lines.filter_map(|line| Some(line.split_once(&separator)?.1)).collect()
}

fn logged(stderr: &str, words: &[&str]) -> bool {
    let lines = [lines(stderr, "DEBUG"), lines(stderr, "TRACE")].concat();
    lines.iter().any(|line| words.iter().all(|word| line.contains(word)))
}

/// Name, verdict and mechanism of each hook.
fn hooks(recording: &Value) -> Vec<String> {
    let hooks = array(&recording["health"]["hooks"]).iter();
    hooks.map(|hook| format!("{} {} {}", hook["name"], hook["verdict"], hook["mechanism"])).collect()
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_log_shows_how_each_hook_was_attached_and_only_an_option_writes_one() {
    let dir = support::disk_dir();
    let line = |option: &str| format!("-q {option} --exclude-mechanism uncharge:fentry -- true");
    let verbose = record(&support::path(&dir, "v.json"), &line("-v")).exited(0);
    let stderr = &verbose.stderr;
    let reason = "fentry page_counter_uncharge: left out by --exclude-mechanism";
    assert!(logged(stderr, &["hook uncharge", reason]), "{stderr}");
    let recording = verbose.recording();
    let rows = array(&recording["health"]["hooks"]);
    assert!(rows.len() > 10, "{rows:?}");
    for row in rows {
        let (name, mechanism) = (text(&row["name"]), row["mechanism"].as_str());
        // The recording was made by the same decision; a hook that waits is decided once more.
        let decision = format!("hook {name}: {}", text(&row["verdict"]));
        let by = mechanism.map_or_else(String::new, |mechanism| format!("by {mechanism}"));
        // Library functions are attached to when a library is found.
        if !mechanism.is_some_and(|mechanism| mechanism.starts_with("uprobe")) {
            assert!(logged(stderr, &[&decision, &by]), "{row}: {stderr}");
        }
    }
    assert!(logged(stderr, &["the command has ended", "exit status: 0"]), "{stderr}");

    let silent = record(&support::path(&dir, "s.json"), &line("")).exited(0);
    for level in ["ERROR", "WARN", "INFO", "DEBUG", "TRACE"] {
        assert_eq!(lines(&silent.stderr, level), Vec::<&str>::new(), "{}", silent.stderr);
    }
    assert_eq!(hooks(&recording), hooks(&silent.recording()));
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn programs_say_what_they_lose_at_the_most_detailed_level_only() {
    let dir = support::disk_dir();
    // A tracer that gets no time to drain the ring, which is the least that there can be: a page.
    let script = format!("kill -STOP $PPID; {} storm fork --rounds 3000; kill -CONT $PPID", workload());
    // SAFETY: no pointers.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) }.to_string();
    let with = |level: &str| {
        let words = ["-q", "--log-level", level, "--ring-size", &page, "--", "sh", "-c", &script];
        record_words(&support::path(&dir, &format!("{level}.json")), &words).exited(0)
    };
    let (trace, debug) = (with("trace"), with("debug"));
    let lost = |recording: &Value| {
        let losses = array(&recording["health"]["losses"]).iter();
        losses.filter(|loss| loss["what"] == "events").map(|loss| int(&loss["count"])).sum::<i64>()
    };
    let message = "spark_trace_ebpf: lost events: the event buffer is full; ";
    let said: Vec<i64> = lines(&trace.stderr, "DEBUG")
        .iter()
        .filter_map(|line| line.strip_prefix(message)?.split(' ').next()?.parse().ok())
        .collect();
    let counted = lost(&trace.recording());
    // At 1, 2, 4, ... of a CPU: few lines for many losses, and none of more than there were.
    assert!(said.contains(&1) && said.iter().all(|count| *count <= counted), "{said:?} {counted}");
    assert!(counted > 100 && (said.len() as i64) < counted / 2, "{said:?} {counted}");
    for recorded in [&trace, &debug] {
        let counted = format!("{} in all", lost(&recorded.recording()));
        assert!(logged(&recorded.stderr, &["lost events", &counted]), "{counted}: {}", recorded.stderr);
    }
    assert!(!debug.stderr.contains("spark_trace_ebpf"), "{}", debug.stderr);
    // The programs that send messages attach as the others do.
    assert_eq!(hooks(&trace.recording()), hooks(&debug.recording()));
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_reader_that_does_not_read_the_log_holds_up_no_recording() {
    let dir = support::disk_dir();
    let output = support::path(&dir, "r.json");
    let (mut reader, mut stderr) = std::io::pipe().unwrap();
    // SAFETY: no pointers involved; the descriptor is open.
    let room = unsafe { libc::fcntl(std::os::fd::AsRawFd::as_raw_fd(&stderr), libc::F_GETPIPE_SZ) };
    stderr.write_all(&vec![b'.'; usize::try_from(room).unwrap()]).unwrap();
    let mut command = support::spark_trace();
    command.args(["record", "-q", "--log-level", "trace", "-o", &output, "--", "true"]);
    let mut child = command.stderr(Stdio::from(stderr)).spawn().unwrap();
    drop(command);
    let recording = support::wait_for("the recording", || {
        serde_json::from_slice::<Value>(&fs::read(&output).unwrap_or_default()).ok()
    });
    assert_eq!(recording["health"]["complete"], true);
    let mut log = String::new();
    reader.read_to_string(&mut log).unwrap();
    assert!(child.wait().unwrap().success());
    assert!(
        log.trim_start_matches('.').starts_with("spark-trace: "),
        "what was there when it was read: {log}"
    );
}
