//! Containers that end as nobody wanted: killed for memory, or left alone by their daemon.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::support::bpf::{self, Ids};
use crate::support::docker::{image, workload_with};
use crate::support::{self, MIB, Running, array, int, record, spark_trace, text, wait_for};

/// 128 + SIGKILL.
const KILLED: i32 = 137;
/// What docker's client ends with where the daemon is gone.
const CLIENT_FAILED: i32 = 125;

fn roots(recording: &Value) -> Vec<&Value> {
    array(&recording["target"]["cgroups"]).iter().filter(|cgroup| cgroup["root"] == true).collect()
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_container_that_is_killed_for_memory_has_its_limit_and_the_kill_on_the_first_screen() {
    let (dir, before) = (support::disk_dir(), bpf::ids());
    let line = format!(
        "-- docker run --rm --network=none --memory 32m --memory-swap 32m {} /workload alloc --anon 64M",
        image()
    );
    let recorded = record(&support::path(&dir, "r.json"), &line).exited(KILLED);
    let recording = recorded.recording();
    let roots = roots(&recording);
    assert_eq!(roots.len(), 1, "{}", recording["target"]);
    // The kernel's own figure: it killed because there was no more to give.
    let peak = int(&roots[0]["peak_at_removal"]);
    assert!((31 * MIB..=32 * MIB).contains(&peak), "{peak}");
    let screen = first_screen(&recorded.output);
    assert!(screen.contains("32.0 MiB"), "{screen}");
    assert!(screen.contains("killed"), "{screen}");
    assert_eq!(bpf::left_behind(&before, "workload"), Ids::default());
}

fn first_screen(recording: &Path) -> String {
    let output = spark_trace().arg("show").arg(recording).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// A daemon of the test's own, with its containerd.
struct Daemon {
    child: Child,
    dir: PathBuf,
}

impl Daemon {
    fn start(dir: &Path) -> Self {
        let dir = dir.join("d");
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("none.json"), "{}").unwrap();
        let mut command = Command::new(support::in_path("dockerd"));
        for (option, name) in [
            ("--data-root", "data"),
            ("--exec-root", "exec"),
            ("--pidfile", "pid"),
            ("--config-file", "none.json"),
        ] {
            command.arg(option).arg(dir.join(name));
        }
        command.arg("--host").arg(format!("unix://{}", dir.join("s").display()));
        command.args([
            "--iptables=false",
            "--ip6tables=false",
            "--ip-forward=false",
            "--bridge=none",
            "--storage-driver=vfs",
        ]);
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let daemon = Self { child, dir };
        wait_for("the daemon to answer", || {
            let mut version = daemon.docker();
            let answered = version.arg("version").stdout(Stdio::null()).stderr(Stdio::null()).status();
            answered.is_ok_and(|status| status.success()).then_some(())
        });
        daemon
    }

    fn docker(&self) -> Command {
        let mut docker = Command::new("docker");
        docker.env("DOCKER_HOST", format!("unix://{}", self.dir.join("s").display()));
        docker
    }
}

impl Drop for Daemon {
    /// What the daemon has started has its directory among its words.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let dir = self.dir.to_str().unwrap().to_owned();
        wait_for("what the daemon started to end", || {
            let ours = |pid: &u32| {
                let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                *pid != std::process::id() && String::from_utf8_lossy(&line).contains(&dir)
            };
            let left: Vec<_> = support::pids().filter(ours).collect();
            left.iter().for_each(|pid| support::process::signal(*pid, libc::SIGKILL));
            left.is_empty().then_some(())
        });
        // File systems of the container that nobody unmounts now.
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let ours = mounts.lines().filter_map(|line| line.split(' ').nth(1)).filter(|at| at.starts_with(&dir));
        for place in ours.collect::<Vec<_>>().into_iter().rev() {
            let _ = Command::new("umount").args(["--lazy", place]).status();
        }
    }
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_daemon_that_is_killed_ends_the_trace_with_what_was_seen() {
    let (dir, before) = (support::disk_dir(), bpf::ids());
    // A socket's path may have 107 bytes.
    let short = tempfile::tempdir_in("/var/tmp").unwrap();
    let mut daemon = Daemon::start(short.path());
    let archive = support::path(&dir, "image.tar");
    let saved = Command::new("docker").args(["save", "-o", &archive, &image()]).status().unwrap();
    assert!(saved.success());
    assert!(daemon.docker().args(["load", "-q", "-i", &archive]).status().unwrap().success());

    let mut command = spark_trace();
    command.env("DOCKER_HOST", format!("unix://{}", daemon.dir.join("s").display()));
    let (output, image) = (support::path(&dir, "r.json"), image());
    let line = format!("-- docker run --rm --network=none {image} /workload alloc --anon 37M --hold 300s");
    let words: Vec<_> = line.split(' ').collect();
    let running = Running::start_as(command, &output, &words);
    let (pid, path) = workload_with("37M");
    running.has_entry("the container's cgroup", |entry| {
        let cgroups = entry["cgroups"].as_array();
        entry["entry"] == "target"
            && cgroups.is_some_and(|all| all.iter().any(|c| c["root"] == true && c["path"] == path.as_str()))
    });
    wait_for("the container's memory", || (support::cgroup::charged(&path).anon > 36 * MIB).then_some(()));
    running.reads(3);

    daemon.child.kill().unwrap();
    daemon.child.wait().unwrap();
    // The client goes with its daemon; the container does not, and is part of the target as long as it lives.
    running.has_entry("the end of the client", |entry| entry["entry"] == "phase" && entry["name"] == "exit");
    running.reads(3);
    assert!(Path::new(&format!("/proc/{pid}")).exists(), "the container has ended with its daemon");
    support::process::signal(pid, libc::SIGKILL);
    let recorded = running.finish().exited(CLIENT_FAILED);

    let recording = recorded.recording();
    let roots = roots(&recording);
    assert_eq!(roots.len(), 1, "{}", recording["target"]);
    assert_eq!(text(&roots[0]["path"]), path);
    let show = recorded.show();
    let anon = support::source(&show, "cgroup", "anon");
    assert!((37 * MIB..39 * MIB).contains(&anon), "{anon}");
    assert_eq!(bpf::left_behind(&before, "workload"), Ids::default());
}
