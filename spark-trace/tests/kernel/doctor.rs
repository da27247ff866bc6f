//! `doctor` on this kernel, with and without root.

use std::{
    fs,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::Path,
    process::{Command, Output},
};

use serde_json::Value;

use crate::support;

const NOBODY: u32 = 65534;

fn report(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap()
}

fn row<'a>(rows: &'a Value, name: &str) -> &'a Value {
    rows.as_array().unwrap().iter().find(|row| row["name"] == name).unwrap()
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn as_root_the_hooks_attach_and_run_and_nothing_stays() {
    let output = support::spark_trace().args(["doctor", "--format", "json"]).output().unwrap();
    let report = report(&output);
    assert_eq!(output.status.code(), Some(0), "{}", report["obstacle"]);
    for hook in report["hooks"].as_array().unwrap().iter().filter(|hook| hook["required"] == true) {
        assert_eq!(hook["verdict"], "ok", "{hook}");
        assert!(hook["target"].is_string() && hook["hits"].as_u64().unwrap() > 0, "{hook}");
    }
    assert_eq!(row(&report["checks"], "kernel-members")["status"], "ok");
    let leaf = row(&report["checks"], "cgroup-leaf");
    assert_eq!(leaf["status"], "ok", "{leaf}");
    // `made, used and removed /spark-trace-PID-TIME`
    let path = leaf["found"].as_str().unwrap().rsplit(" /").next().unwrap();
    let root = report["host"]["memory_controller"].as_str().unwrap();
    assert!(!Path::new(root).join(path).exists(), "{path} is still there");
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_recording_attaches_what_doctor_says() {
    let output = support::spark_trace().args(["doctor", "--format", "json"]).output().unwrap();
    let dir = support::disk_dir();
    let words = ["--profile", "deep", "--", "true"];
    let recorded = support::record_words(&support::path(&dir, "deep.json"), &words).exited(0);
    let facts = |hooks: &Value| -> Vec<[Value; 3]> {
        let facts = |hook: &Value| ["name", "verdict", "mechanism"].map(|field| hook[field].clone());
        // Attached to libraries as they are found: `true` brings none.
        let hooks = hooks.as_array().unwrap().iter().filter(|hook| hook["name"] != "library-call");
        hooks.map(facts).collect()
    };
    assert_eq!(facts(&report(&output)["hooks"]), facts(&recorded.recording()["health"]["hooks"]));
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn without_root_it_says_what_could_not_be_tried() {
    // Built below directories that may be closed to others.
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let program = directory.path().join("spark-trace");
    fs::copy(support::spark_trace().get_program(), &program).unwrap();
    let run = |args: &[&str]| {
        let mut command = Command::new(&program);
        command.args(args).current_dir("/").uid(NOBODY).gid(NOBODY).output().unwrap()
    };
    let output = run(&["doctor", "--format", "json"]);
    let report = report(&output);
    assert_eq!(output.status.code(), Some(1));
    assert!(report["obstacle"].as_str().unwrap().contains("CAP_BPF"), "{}", report["obstacle"]);
    assert!(report["hooks"].as_array().unwrap().iter().all(|hook| hook["verdict"] == "untried"));
    for name in ["user", "capabilities", "cgroup-leaf"] {
        assert_eq!(row(&report["checks"], name)["status"], "missing", "{name}");
    }

    let demo = run(&["demo"]);
    let error = String::from_utf8(demo.stderr).unwrap();
    assert_eq!(demo.status.code(), Some(1), "{error}");
    assert!(error.contains("sudo") && error.lines().count() == 1, "{error}");
}
