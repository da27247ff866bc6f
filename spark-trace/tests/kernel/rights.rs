//! What runs as whom: the command, engines' clients, and whose the files are. And what the recording does not keep.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use crate::support::{self, Recorded, Running};

const NOBODY: &str = "65534";
const USAGE: i32 = 64;
const BAD_INPUT: i32 = 2;

fn under_sudo() -> Command {
    let mut command = support::spark_trace();
    command.env("SUDO_UID", NOBODY).env("SUDO_GID", NOBODY).env("SUDO_USER", "nobody");
    command.env("HOME", "/root").env("USER", "root").env("LOGNAME", "root");
    command
}

fn record_under_sudo(output: &str, words: &[&str]) -> Recorded {
    Running::start_as(under_sudo(), output, words).finish()
}

/// A directory that everybody may use.
fn open_dir() -> TempDir {
    let dir = support::disk_dir();
    fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o777)).unwrap();
    dir
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn the_command_has_no_descriptor_of_the_tracers() {
    const SCRIPT: &str = "ls /proc/$$/fd; exit 0";
    let dir = support::disk_dir();
    // Whoever runs this test may have passed on some.
    let without = Command::new("sh").args(["-c", SCRIPT]).output().unwrap();
    for (name, options) in [("plain", &[][..]), ("log", &["--log"]), ("root", &["--as-root"])] {
        let words = [options, &["--", "sh", "-c", SCRIPT]].concat();
        let recorded = record_under_sudo(&support::path(&dir, &format!("{name}.json")), &words).exited(0);
        assert_eq!(recorded.stdout, String::from_utf8_lossy(&without.stdout), "{name}");
    }
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn the_command_has_the_users_groups() {
    let dir = support::disk_dir();
    let truth = Command::new("id").args(["-G", "nobody"]).output().unwrap();
    let recorded = record_under_sudo(&support::path(&dir, "r.json"), &["--", "id", "-G"]).exited(0);
    let sorted = |text: &str| {
        let mut groups: Vec<_> = text.split_whitespace().map(ToOwned::to_owned).collect();
        groups.sort();
        groups
    };
    assert_eq!(sorted(&recorded.stdout), sorted(&String::from_utf8(truth.stdout).unwrap()));
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn half_of_what_sudo_says_is_refused() {
    let dir = support::disk_dir();
    let (output, ran) = (support::path(&dir, "r.json"), support::path(&dir, "ran"));
    let cases: [&[(&str, &str)]; 4] = [
        &[("SUDO_UID", NOBODY), ("SUDO_GID", NOBODY)],
        &[("SUDO_UID", NOBODY), ("SUDO_USER", "nobody")],
        &[("SUDO_UID", "x1234"), ("SUDO_GID", NOBODY), ("SUDO_USER", "nobody")],
        &[("SUDO_USER", "nobody")],
    ];
    for variables in cases {
        let mut command = support::spark_trace();
        command.envs(variables.iter().copied()).args(["record", "-o", &output, "--", "touch", &ran]);
        let refused = command.output().unwrap();
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(USAGE), "{variables:?}: {said}");
        assert!(said.contains("SUDO_") && said.lines().count() == 1, "{said}");
        assert!(!Path::new(&ran).exists() && !Path::new(&output).exists());
    }
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_client_in_the_users_path_never_runs_as_root() {
    let dir = open_dir();
    let log = support::path(&dir, "log");
    fs::write(&log, "").unwrap();
    fs::set_permissions(&log, PermissionsExt::from_mode(0o666)).unwrap();
    let bin = support::path(&dir, "bin");
    fs::create_dir(&bin).unwrap();
    for client in ["docker", "podman", "nerdctl"] {
        let script = format!("#!/bin/sh\necho \"$(id -u) $0 $*\" >> {log}\nexit 1\n");
        fs::write(format!("{bin}/{client}"), script).unwrap();
        fs::set_permissions(format!("{bin}/{client}"), PermissionsExt::from_mode(0o755)).unwrap();
    }
    let path = format!("{bin}:{}", std::env::var("PATH").unwrap());
    let run = |words: &[&str]| {
        let output = under_sudo().env("PATH", &path).args(words).output().unwrap();
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let output = support::path(&dir, "r.json");
    run(&["record", "-o", &output, "--container", "none"]);
    run(&["record", "-o", &output, "--", &format!("{bin}/docker"), "exec", "none", "true"]);
    run(&["doctor", "--format", "json"]);
    run(&["study", "rootfs", "none", &support::path(&dir, "rootfs")]);
    let ran = fs::read_to_string(&log).unwrap();
    assert!(ran.lines().any(|line| line.contains("docker")), "{ran}");
    for line in ran.lines() {
        assert!(line.starts_with(NOBODY), "{line}");
    }
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn the_command_does_not_choose_where_root_writes() {
    let dir = open_dir();
    let path = |name: &str| support::path(&dir, name);
    fs::create_dir(path("private")).unwrap();
    fs::set_permissions(path("private"), PermissionsExt::from_mode(0o700)).unwrap();
    fs::write(path("private/run.json"), "theirs").unwrap();
    fs::create_dir(path("out")).unwrap();
    fs::set_permissions(path("out"), PermissionsExt::from_mode(0o777)).unwrap();
    let script = format!("mv {0} {1} && ln -s {2} {0}", path("out"), path("moved"), path("private"));
    record_under_sudo(&path("out/run.json"), &["--force", "--", "sh", "-c", &script]).exited(0);
    assert_eq!(fs::read_to_string(path("private/run.json")).unwrap(), "theirs");
    assert_eq!(fs::read_dir(path("private")).unwrap().count(), 1);
    let names: Vec<_> = fs::read_dir(path("moved")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names, ["run.json"], "the recording is whole, and its journal is gone");
    support::json(path("moved/run.json"));
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn what_lies_in_the_journals_place_is_not_written_to() {
    let dir = support::disk_dir();
    let path = |name: &str| support::path(&dir, name);
    fs::write(path("victim"), "theirs").unwrap();
    symlink(path("victim"), path("link.json.partial")).unwrap();
    assert!(Command::new("mkfifo").arg(path("fifo.json.partial")).status().unwrap().success());
    fs::create_dir(path("folder.json")).unwrap();
    let ran = path("ran");
    for name in ["link.json", "fifo.json", "folder.json"] {
        for force in [&[][..], &["--force"]] {
            let words = [force, &["--", "touch", &ran]].concat();
            let refused = support::record_words(&path(name), &words);
            assert_eq!(refused.code, Some(BAD_INPUT), "{name}: {}", refused.stderr);
        }
    }
    assert!(!Path::new(&ran).exists());
    assert_eq!(fs::read_to_string(path("victim")).unwrap(), "theirs");
    // What an earlier run has left is kept, under another name.
    fs::write(path("r.json.partial"), "readings").unwrap();
    let refused = support::record_words(&path("r.json"), &["--", "true"]);
    assert!(refused.stderr.contains("recover"), "{}", refused.stderr);
    let recorded = support::record_words(&path("r.json"), &["--force", "--", "true"]).exited(0);
    assert!(recorded.stderr.contains("r.json.partial.1"), "{}", recorded.stderr);
    assert_eq!(fs::read_to_string(path("r.json.partial.1")).unwrap(), "readings");
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn secrets_in_command_lines_are_not_recorded() {
    let dir = support::disk_dir();
    let words =
        ["--", "sh", "-c", "sleep 0.3; exit 0", "sh", "--api-key", "S3CRET", "HF_TOKEN=S3CRET", "plain"];
    let recorded = support::record_words(&support::path(&dir, "hidden.json"), &words).exited(0);
    let text = fs::read_to_string(&recorded.output).unwrap();
    assert!(!text.contains("S3CRET") && text.contains("HF_TOKEN=<hidden>") && text.contains("plain"));
    let words = [&["--keep-arguments"], &words[..]].concat();
    let recorded = support::record_words(&support::path(&dir, "kept.json"), &words).exited(0);
    assert!(fs::read_to_string(&recorded.output).unwrap().contains("HF_TOKEN=S3CRET"));
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn what_is_written_under_sudo_is_the_users() {
    let dir = support::disk_dir();
    // The command of no other test: it outlives its recorder and is killed by its words.
    let sleep = format!("600.{}", std::process::id());
    let path = |name: &str| support::path(&dir, name);
    record_under_sudo(&path("r.json"), &["--", "true"]).exited(0);
    for words in [
        &["report", &path("r.json"), "-o", &path("report.html")][..],
        &["export", &path("r.json"), "--to", "csv", "-o", &path("r.csv")],
        &["export", &path("r.json"), "--to", "recording", "--redact", "-o", &path("redacted.json.zst")],
    ] {
        let output = under_sudo().args(words).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    // And what is recovered of one that was killed, whose journal the user can read as well.
    let running = Running::start_as(under_sudo(), &path("killed.json"), &["--", "sleep", &sleep]);
    running.reads(2);
    running.signal(libc::SIGKILL);
    drop(running);
    support::kill_all_with(&sleep);
    let recovered = under_sudo().args(["recover", &path("killed.json.partial")]).output().unwrap();
    assert!(recovered.status.success(), "{}", String::from_utf8_lossy(&recovered.stderr));
    let written =
        ["r.json", "report.html", "r.csv", "redacted.json.zst", "killed.json.partial", "killed.json"];
    for name in written {
        let about = fs::metadata(path(name)).unwrap();
        assert_eq!((about.uid().to_string().as_str(), about.mode() & 0o7777), (NOBODY, 0o600), "{name}");
    }
    // With the names of this machine's user and of its files.
    let redacted = support::spark_trace().args(["show", &path("redacted.json.zst")]).output().unwrap();
    assert!(redacted.status.success(), "{}", String::from_utf8_lossy(&redacted.stderr));
}
