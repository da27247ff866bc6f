//! The command line as a user meets it: exit codes, formats, help. Needs no root.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on should stop")]

use std::path::PathBuf;

use assert_cmd::Command;

mod doctor;
mod replay;
mod shown;
mod spark_report;
mod strangers;
mod study;
mod usage;
mod written;

const USAGE: i32 = 64;
const BAD_INPUT: i32 = 2;

fn spark_trace(args: &[&str]) -> Command {
    let mut command = assert_cmd::cargo::cargo_bin_cmd!("spark-trace");
    command.args(args).env("LC_ALL", "C.UTF-8").env_remove("COLUMNS");
    command
}

fn data(name: &str) -> String {
    let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "tests", "data", name].iter().collect();
    path.to_str().unwrap().to_owned()
}

fn native() -> String {
    data("synthetic-native.json")
}

fn container() -> String {
    data("synthetic-container.json")
}

fn stdout(args: &[&str]) -> String {
    let output = spark_trace(args).assert().code(0).get_output().clone();
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn cuda() -> String {
    data("synthetic-cuda.json")
}

/// The one line on standard error of a command that exits with `code`.
fn error(args: &[&str], code: i32) -> String {
    let output = spark_trace(args).assert().code(code).get_output().clone();
    assert!(output.stdout.is_empty());
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(text.lines().count(), 1, "{text}");
    text
}

/// Compares with a committed file.
fn golden(name: &str, text: &str) {
    spark_trace_testing::golden(data(name), text);
}
