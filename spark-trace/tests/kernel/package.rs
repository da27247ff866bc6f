//! The Debian packages, installed and used. Only in a test machine: nothing is installed where people work.

use std::{
    fs,
    path::PathBuf,
    process::{Command, Stdio},
};

use crate::support::{self, MIB, json, source};

/// Output of a command that must succeed.
fn must(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{command:?}: {}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

/// The packages that `cargo xtask vm --packages DIR` has brought.
fn packages() -> Vec<PathBuf> {
    let Some(dir) = std::env::var_os("SPARK_TRACE_PACKAGES") else { return Vec::new() };
    let entries = fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.filter(|path| path.extension().is_some_and(|extension| extension == "deb")).collect()
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn installed_it_records_and_removed_it_is_gone() {
    let packages = packages();
    if packages.is_empty() {
        println!("SKIPPED: packages: off: none were brought along; `cargo xtask vm --packages DIR` does");
        return;
    }
    must(Command::new("dpkg").arg("--install").args(&packages));
    let dir = support::disk_dir();
    let recording = support::path(&dir, "r.json");
    let line =
        ["record", "--quiet", "--output", &recording, "--", "spark-trace-workload", "alloc", "--anon", "64M"];
    must(Command::new("spark-trace").args(line).args(["--hold", "300ms"]));
    let show = must(Command::new("spark-trace").args(["show", "--format", "json", &recording]));
    let anon = source(&serde_json::from_str(&show).unwrap(), "cgroup", "anon");
    assert!((anon - 64 * MIB).abs() <= MIB, "{anon} bytes of anonymous memory");
    assert_eq!(support::losses(&json(&recording)["health"]).0, 0);
    must(Command::new("spark-trace").args(["doctor", "--format", "json"]));
    for file in ["share/man/man1/spark-trace.1.gz", "share/bash-completion/completions/spark-trace"] {
        assert!(PathBuf::from("/usr").join(file).is_file(), "no {file}");
    }
    let files = must(Command::new("dpkg").args(["--listfiles", "spark-trace", "spark-trace-workload"]));
    must(Command::new("dpkg").args(["--purge", "spark-trace", "spark-trace-workload"]));
    let left: Vec<_> = files.lines().filter(|path| PathBuf::from(path).is_file()).collect();
    assert!(left.is_empty(), "left behind: {left:?}");
}
