//! Recordings that are written to standard output and to pipes: whole, and with nothing else among them.

use std::fs;
use std::io::Read;
use std::os::unix::fs::chown;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::support::{self, array, spark_trace, text, wait_for};

const USAGE: i32 = 64;
const BAD_INPUT: i32 = 2;
/// Says something on both streams and ends with a code of its own.
const SPEAKS: [&str; 4] = ["--", "sh", "-c", "echo to-output; echo to-error >&2; exit 7"];

fn fifo(dir: &TempDir) -> String {
    let fifo = support::path(dir, "fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    fifo
}

fn record(output: &str, words: &[&str]) -> Command {
    let mut command = spark_trace();
    command.args(["record", "-o", output]).args(words);
    command
}

fn finished(child: Child) -> Output {
    child.wait_with_output().unwrap()
}

/// It is a recording of that command, and nothing else.
fn is_recording(bytes: &[u8]) {
    let recording: Value = serde_json::from_slice(bytes).unwrap();
    assert_eq!(text(&recording["schema"]), "spark-trace/recording");
    assert_eq!(recording["target"]["exit_code"], 7);
    assert_eq!(recording["health"]["complete"], true);
    assert!(!array(&recording["samples"]["system"]["begin_ns"]).is_empty());
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn on_standard_output_there_is_the_recording_alone() {
    let dir = support::disk_dir();
    let log = support::path(&dir, "log");
    for (name, options) in [("-", &[][..]), ("/dev/stdout", &[]), ("-", &["--log-file", &log, "--force"])] {
        let output = record(name, &[options, &SPEAKS].concat()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(7), "{said}");
        is_recording(&output.stdout);
        for words in ["to-output", "to-error"] {
            assert_eq!(said.lines().filter(|line| *line == words).count(), 1, "{words}: {said}");
        }
        assert!(!said.contains("wrote"), "{said}");
    }
    assert_eq!(fs::read_to_string(log).unwrap().lines().count(), 2);
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn through_a_pipe_to_show_there_is_an_answer() {
    let mut recorder = record("-", &SPEAKS).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let pipe = recorder.stdout.take().unwrap();
    let shown = spark_trace().args(["show", "-", "--format", "json"]).stdin(pipe).output().unwrap();
    assert!(shown.status.success(), "{}", String::from_utf8_lossy(&shown.stderr));
    assert_eq!(recorder.wait().unwrap().code(), Some(7));
    let shown: Value = serde_json::from_slice(&shown.stdout).unwrap();
    assert_eq!(shown["target"]["exit_code"], 7);
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_fifo_and_a_descriptor_get_the_recording_and_standard_output_stays_the_commands() {
    let dir = support::disk_dir();
    let fifo = fifo(&dir);
    let mut reader = Command::new("cat").arg(&fifo).stdout(Stdio::piped()).spawn().unwrap();
    let output = record(&fifo, &SPEAKS).output().unwrap();
    let mut bytes = Vec::new();
    reader.stdout.take().unwrap().read_to_end(&mut bytes).unwrap();
    assert!(reader.wait().unwrap().success());
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(7), &b"to-output\n"[..]));
    is_recording(&bytes);

    // As a shell's >(...) gives it, with a process that the command leaves behind: it does not have the pipe.
    let binary = spark_trace().get_program().to_str().unwrap().to_owned();
    let script = r#""$0" record -q -o /dev/fd/9 -- sh -c 'sleep 600 & echo $! > "$0"; exit 7' "$1" 9>&1 >/dev/null 2>"$2""#;
    let (pid, said) = (support::path(&dir, "pid"), support::path(&dir, "said"));
    let output = Command::new("sh").args(["-c", script, &binary, &pid, &said]).output().unwrap();
    support::process::signal(fs::read_to_string(&pid).unwrap().trim().parse().unwrap(), libc::SIGKILL);
    assert_eq!(output.status.code(), Some(7), "{}", fs::read_to_string(said).unwrap());
    is_recording(&output.stdout);
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn what_would_be_mixed_is_refused_before_anything_runs() {
    let dir = support::disk_dir();
    let ran = support::path(&dir, "ran");
    let both = fs::File::create(support::path(&dir, "both")).unwrap();
    let touch = ["--", "touch", &ran];
    let refused = |mut command: Command, code: i32, words: &str| {
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert!(said.contains(words) || words.is_empty(), "{said}");
    };
    refused(record("/dev/stderr", &touch), USAGE, "messages go there");
    let mut mixed = record("-", &touch);
    mixed.stdout(both.try_clone().unwrap()).stderr(both);
    refused(mixed, USAGE, "");
    let said = fs::read_to_string(support::path(&dir, "both")).unwrap();
    assert!(said.contains("messages go there") && said.lines().count() == 1, "{said}");
    // Whoever may write to the directory could have put it there to read what is written.
    let fifo = fifo(&dir);
    chown(&fifo, Some(65_534), Some(65_534)).unwrap();
    refused(record(&fifo, &touch), BAD_INPUT, "a FIFO of another user");
    assert!(!Path::new(&ran).exists());
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_reader_that_never_comes_or_goes_early_holds_nobody_up() {
    let dir = support::disk_dir();
    let (fifo, done) = (fifo(&dir), support::path(&dir, "done"));
    // Nobody reads: after the command's end a signal ends the wait.
    let mut recorder = record(&fifo, &["--", "touch", &done]).stderr(Stdio::null()).spawn().unwrap();
    let waits = || {
        let at = fs::read_to_string(format!("/proc/{}/wchan", recorder.id())).ok()?;
        let status = fs::read_to_string(format!("/proc/{}/syscall", recorder.id())).ok()?;
        // openat of include/uapi/asm-generic/unistd.h, and of x86-64.
        let opens = status.split(' ').next().is_some_and(|number| ["56", "257"].contains(&number));
        (Path::new(&done).exists() && (opens || at.contains("fifo"))).then_some(())
    };
    wait_for("it to wait for a reader", waits);
    support::process::signal(recorder.id(), libc::SIGTERM);
    wait_for("its end", || recorder.try_wait().unwrap());
    // Gone before anything is written: the command's exit code is all there is to say.
    let mut child = record("-", &SPEAKS).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = finished(child);
    assert_eq!(output.status.code(), Some(7), "{}", String::from_utf8_lossy(&output.stderr));
}
