//! `demo` from beginning to end, in a container and in the sandbox that stands in for one.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

use crate::support::{MIB, disk_dir as directory, spark_trace};

fn demo(args: &[&str]) -> std::process::Output {
    spark_trace().arg("demo").args(args).output().unwrap()
}

fn json(dir: &Path, place: &str) -> Value {
    let output = demo(&["--format", "json", "--place", place, "--dir", dir.to_str().unwrap()]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn check(result: &Value, dir: &Path) {
    let mut names: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.sort();
    let mut recordings = ["native", "container", "inference"]
        .map(|side| PathBuf::from(result[side].as_str().unwrap()))
        .to_vec();
    recordings.sort();
    assert_eq!(names, recordings, "only the recordings stay");

    let diff = &result["diff"];
    assert_eq!(diff["plane"], "cgroup");
    let sources = diff["sources"].as_array().unwrap();
    let of = |slug: &str| sources.iter().find(|row| row["source"] == slug).unwrap();
    let anon = of("anon")["delta_bytes"].as_i64().unwrap();
    assert!((anon - 64 * MIB).abs() <= MIB, "{anon}");
    assert!(of("file-clean")["a_bytes"].as_i64().unwrap() >= 95 * MIB, "{}", of("file-clean"));
    assert!(diff["residual_bytes"].as_i64().unwrap().abs() < MIB, "{diff}");
    let files = diff["files"].as_array().unwrap();
    let file = files.iter().find(|row| row["path"].as_str().unwrap().ends_with("/weights.bin")).unwrap();
    assert!(file["a_bytes"].as_i64().unwrap() >= 95 * MIB, "{file}");
    assert_eq!(file["a_holders"][0]["charged_to_target"], true);
    // Cached since the first run. The kernel may have taken some of it back meanwhile.
    assert!(file["b_bytes"].as_i64().unwrap() <= 24 * MIB, "{file}");
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_container_is_recorded_beside_a_native_run() {
    let dir = directory();
    let result = json(dir.path(), "docker");
    assert_eq!(result["container_kind"], "docker");
    check(&result, dir.path());
    let images = Command::new("docker").args(["images", "-q", "spark-trace-demo"]).output().unwrap();
    assert!(images.status.success() && images.stdout.is_empty(), "the image is still there");
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_sandbox_stands_in_and_is_called_so() {
    let dir = directory();
    let result = json(dir.path(), "sandbox");
    assert_eq!(result["container_kind"], "sandbox");
    assert!(result["container"].as_str().unwrap().ends_with("/sandbox.json"));
    check(&result, dir.path());

    // The same directory again: only with --force.
    let path = dir.path().to_str().unwrap();
    let again = demo(&["--place", "sandbox", "--dir", path]);
    assert_eq!(again.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&again.stderr).contains("--force"));
    let output = demo(&["--place", "sandbox", "--dir", path, "--force"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for part in [
        "1/6 native run",
        "2/6 sandbox run",
        "3/6 inference",
        "more in the sandbox",
        "6/6 the memory queries of the inference",
        "cuMemGetInfo returned",
        "sandbox.json",
    ] {
        assert!(text.contains(part), "no {part:?} in {text}");
    }
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_named_engine_that_does_not_answer_is_not_replaced() {
    let dir = directory();
    let mut command = spark_trace();
    command.args(["demo", "--place", "docker", "--dir", dir.path().to_str().unwrap()]);
    let output = command.env("DOCKER_HOST", "unix:///does/not/exist").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("docker does not answer"), "{error}");
}
