//! `record --log`: the command's output goes on unchanged, and the recording has what frameworks say of their memory.

use std::fs;
use std::io::Read;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::process::partial;
use crate::support::{self, Running, array, int, json, record, text};

const USAGE: i32 = 64;
const KV: &str = "[TRT-LLM] [I] [RANK 0] Estimated max memory in KV cache : 5.95 GiB";
const ALLOCATED: &str = "[MemUsageChange] Allocated 5.95 GiB for max tokens in paged KV cache (111392).";

/// Bytes of any value, without order but always the same (Knuth's MMIX generator).
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x5eed_u64;
    let next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}

/// `record -q OPTIONS -- sh -c SCRIPT`, under way.
fn start(output: &str, options: &[&str], script: &str) -> Child {
    let mut command = support::spark_trace();
    command.args(["record", "-q", "-o", output]).args(options).args(["--", "sh", "-c", script]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Whether the process that has `word` in its command line, and writes to a pipe, waits for who reads that: over some
/// looks it has written nothing more.
fn is_stuck(word: &str) -> bool {
    const LOOKS: usize = 20;
    let writer = support::processes_with(word).into_iter().next();
    let written = || fs::read_to_string(format!("/proc/{}/io", writer?)).ok();
    let Some(first) = written().filter(|io| !io.contains("wchar: 0\n")) else { return false };
    (0..LOOKS).all(|_| {
        std::thread::sleep(Duration::from_millis(10));
        written().as_ref() == Some(&first)
    })
}

fn run(output: &str, options: &[&str], script: &str) -> Output {
    start(output, options, script).wait_with_output().unwrap()
}

fn lines(recording: &Value) -> Vec<(&str, &str)> {
    let lines = array(&recording["provenance"]["log_lines"]).iter();
    lines.map(|line| (text(&line["stream"]), text(&line["text"]))).collect()
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn every_byte_is_passed_on() {
    let dir = support::disk_dir();
    let path = |name: &str| support::path(&dir, name);
    // Binary, with lines of megabytes and a last line without an end.
    let mut out = noise(3 << 20);
    out.extend(std::iter::repeat_n(b'x', 2 << 20));
    out.extend_from_slice(format!("\n{KV}\r\nno end").as_bytes());
    let mut err = noise(300_001);
    err.extend_from_slice(format!("\n{ALLOCATED}").as_bytes());
    fs::write(path("out"), &out).unwrap();
    fs::write(path("err"), &err).unwrap();
    let script = format!("cat {}; cat {} >&2; exit 5", path("out"), path("err"));
    let done = run(&path("r.json"), &["--log-file", &path("log")], &script);
    assert_eq!(done.status.code(), Some(5));
    assert!(done.stdout == out, "{} of {} bytes", done.stdout.len(), out.len());
    assert!(done.stderr == err, "{} of {} bytes", done.stderr.len(), err.len());
    let recording = json(path("r.json"));
    assert_eq!(lines(&recording), [("stdout", KV), ("stderr", ALLOCATED)]);
    // Runs that a kernel skips (7.x preempts lazily) are of others on the machine as well.
    assert_eq!(support::losses(&recording["health"]).0, 0, "{}", recording["health"]["losses"]);
    let log = fs::metadata(path("log")).unwrap();
    assert_eq!((log.len(), log.permissions().mode() & 0o777), ((out.len() + err.len()) as u64, 0o600));
    // The program of one stream, whole and in order.
    let script = format!("cat {}", path("out"));
    run(&path("one.json"), &["--log-file", &path("log"), "--force"], &script);
    assert!(fs::read(path("log")).unwrap() == out);
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn known_lines_are_kept_with_their_times() {
    let dir = support::disk_dir();
    let output = support::path(&dir, "r.json");
    let long = format!("{KV} {}", "y".repeat(9000));
    let script = format!(
        "echo 'nothing to keep'; echo '{KV}'; sleep 0.4; printf 'Loading 10%%\\rLoading 20%%\\r{ALLOCATED}\\r\\n' >&2; \
         sleep 0.4; echo '{long}'; printf '[Latency] P99    : 12.5'"
    );
    let done = run(&output, &["--log"], &script);
    assert_eq!(done.status.code(), Some(0));
    let recording = json(&output);
    let cut = &long[..4096];
    let wanted =
        [("stdout", KV), ("stderr", ALLOCATED), ("stdout", cut), ("stdout", "[Latency] P99    : 12.5")];
    assert_eq!(lines(&recording), wanted);
    let times: Vec<_> =
        array(&recording["provenance"]["log_lines"]).iter().map(|line| int(&line["at_ns"])).collect();
    let apart = |index: usize| (times[index + 1] - times[index]) / 1_000_000;
    assert!(apart(0) >= 380 && apart(1) >= 380, "{times:?}");
    let target = &recording["target"];
    assert!(times[0] > int(&target["started_ns"]) && times[3] < int(&target["ended_ns"]));
    assert_eq!(array(&json_show(&output)["log_lines"]).len(), 4);
}

fn json_show(file: &str) -> Value {
    let output = support::spark_trace().args(["show", file, "--format", "json"]).output().unwrap();
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn without_the_option_the_output_is_left_alone() {
    let dir = support::disk_dir();
    let output = support::path(&dir, "r.json");
    let file = fs::File::create(dir.path().join("out")).unwrap();
    let mut command = support::spark_trace();
    command.args([
        "record",
        "-q",
        "-o",
        &output,
        "--",
        "sh",
        "-c",
        &format!("test -f /proc/self/fd/1 && echo '{KV}'"),
    ]);
    assert!(command.stdout(file).status().unwrap().success());
    assert_eq!(fs::read_to_string(dir.path().join("out")).unwrap().trim_end(), KV);
    assert!(lines(&json(&output)).is_empty());
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_slow_reader_holds_up_the_command_and_gets_everything() {
    let dir = support::disk_dir();
    let mark = support::path(&dir, "written");
    // Of its own name, to be found by it.
    let zeros = support::path(&dir, "zeros");
    symlink("/dev/zero", &zeros).unwrap();
    let script = format!("head -c 3145728 {zeros}; echo; echo '{KV}'; touch {mark}");
    let output = support::path(&dir, "r.json");
    let mut child = start(&output, &["--log"], &script);
    support::wait_for("the command to wait for its reader", || {
        (Path::new(&mark).exists() || is_stuck(&zeros)).then_some(())
    });
    assert!(!Path::new(&mark).exists(), "the command waits, as it would for a reader of its own");
    let mut all = Vec::new();
    child.stdout.take().unwrap().read_to_end(&mut all).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_eq!(all.len(), (3 << 20) + 1 + KV.len() + 1);
    assert_eq!(lines(&json(&output)), [("stdout", KV)]);
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn the_last_bytes_wait_for_their_reader_and_the_recording_does_not() {
    let dir = support::disk_dir();
    let output = support::path(&dir, "r.json");
    // More than the reader's pipe holds, not more than both.
    let mut child = start(&output, &["--log"], "head -c 100000 /dev/zero");
    support::wait_for("the recording", || Path::new(&output).exists().then_some(()));
    assert!(child.try_wait().unwrap().is_none(), "it still has something to pass on");
    let mut all = Vec::new();
    child.stdout.take().unwrap().read_to_end(&mut all).unwrap();
    assert_eq!((child.wait().unwrap().code(), all.len()), (Some(0), 100_000));
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn an_interrupt_ends_a_command_whose_reader_is_stuck() {
    let dir = support::disk_dir();
    let output = support::path(&dir, "r.json");
    let zeros = support::path(&dir, "zeros");
    symlink("/dev/zero", &zeros).unwrap();
    let mut child = start(&output, &["--log"], &format!("trap 'exit 7' INT; cat {zeros}"));
    support::wait_for("the command to wait for its reader", || is_stuck(&zeros).then_some(()));
    // The shell waits for its child, which waits for its reader: the second interrupt ends it. Two that come at once may
    // be one for who gets them, so this presses on as people do.
    let status = support::wait_for("the end", || {
        support::process::signal(child.id(), libc::SIGINT);
        child.try_wait().unwrap()
    });
    assert!(status.code().is_some(), "{status:?}");
    assert_eq!(json(&output)["health"]["complete"], true);
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_reader_that_goes_is_the_commands_broken_pipe() {
    let dir = support::disk_dir();
    let output = support::path(&dir, "r.json");
    let mut command = support::spark_trace();
    command.args(["record", "-q", "-o", &output, "--log", "--", "yes"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut some = [0; 4];
    child.stdout.take().unwrap().read_exact(&mut some).unwrap();
    assert_eq!(&some, b"y\ny\n");
    let status = support::wait_for("the end", || child.try_wait().unwrap());
    assert_eq!((status.code(), status.signal()), (Some(128 + libc::SIGPIPE), None));
    assert_eq!(json(&output)["target"]["exit_code"], 128 + libc::SIGPIPE);
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn what_the_command_leaves_running_holds_up_nobody() {
    let dir = support::disk_dir();
    let start = Instant::now();
    let done = run(&support::path(&dir, "r.json"), &["--log"], "sleep 37 & echo 'done'");
    support::kill_children_named(&["sleep", "37"]);
    assert_eq!((done.status.code(), done.stdout.as_slice()), (Some(0), &b"done\n"[..]));
    assert!(start.elapsed() < Duration::from_secs(30));
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn too_many_lines_are_counted() {
    let dir = support::disk_dir();
    let output = support::path(&dir, "r.json");
    let done = run(&output, &["--log"], &format!("yes '{KV}' | head -n 10500"));
    assert_eq!((done.status.code(), done.stdout.len()), (Some(0), 10_500 * (KV.len() + 1)));
    let recording = json(&output);
    assert_eq!(lines(&recording).len(), 10_000);
    let losses = array(&recording["health"]["losses"]);
    let lost = losses.iter().find(|loss| loss["what"] == "log_lines").expect("the loss is reported");
    assert_eq!(lost["count"], 500);
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_killed_recording_has_its_surroundings() {
    let dir = support::disk_dir();
    let output = support::path(&dir, "r.json");
    let script = format!("echo '{KV}'; exec sleep 41");
    let running = Running::start(&output, &["--log", "--", "env", "NCCL_DEBUG=INFO", "sh", "-c", &script]);
    running.has_entry("the line", |entry| entry["entry"] == "log-line");
    running.has_entry("the context", |entry| {
        entry["entry"] == "context" && entry["environment"]["NCCL_DEBUG"] == "INFO"
    });
    running.signal(libc::SIGKILL);
    running.finish();
    support::kill_children_named(&["sleep", "41"]);
    let journal = partial(Path::new(&output));
    assert!(support::spark_trace().arg("recover").arg(&journal).output().unwrap().status.success());
    let recording = json(&output);
    assert_eq!(lines(&recording), [("stdout", KV)]);
    assert!(!array(&recording["provenance"]["contexts"]).is_empty());
    assert!(!array(&recording["provenance"]["tmpfs"]).is_empty());
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_log_is_of_a_command_and_replaces_nothing() {
    let dir = support::disk_dir();
    let (output, log) = (support::path(&dir, "r.json"), support::path(&dir, "log"));
    for line in [
        format!("--log --pid {} --duration 1s", std::process::id()),
        format!("--log-file {log} --cgroup / --duration 1s"),
        "--log --system --duration 1s".to_owned(),
        format!("--log-file {output} -- true"),
    ] {
        let recorded = record(&output, &line);
        assert_eq!(recorded.code, Some(USAGE), "{line}: {}", recorded.stderr);
        assert!(!recorded.output.exists() && !Path::new(&log).exists(), "{line}");
    }
    fs::write(&log, "mine").unwrap();
    let refused = record(&output, &format!("--log-file {log} -- true"));
    assert!(refused.code != Some(0) && refused.stderr.contains("--force"), "{}", refused.stderr);
    assert_eq!(fs::read_to_string(&log).unwrap(), "mine");
    fs::remove_file(&log).unwrap();
    record(&output, &format!("--log-file {log} -- /no/such/program")).exited(127);
    assert!(!Path::new(&log).exists(), "a log of nothing");
}
