//! The ways a container comes to be a target: command lines, attaching, and what goes wrong.

use std::fs::{self, File};
use std::process::Command;

use serde_json::Value;

use crate::support::docker::{Named, docker, image};
use crate::support::process::Other;
use crate::support::{self, Faults, MIB, Recorded, Running, array, record, source, text};

const ALLOC: &str = "/workload alloc --anon 32M --hold 1s";

fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}

/// The recording is of container `id`, and it has taken `mib` of anonymous memory.
fn is_of(recorded: &Recorded, id: &str, mib: i64) {
    let show = recorded.show();
    let target = &show["target"];
    assert_eq!((text(&target["kind"]), text(&target["container"]["id"])), ("container", id));
    assert!(text(&target["cgroups"][0]["path"]).contains(id), "{target}");
    let mut faults = Faults::default();
    faults.near("anon", source(&show, "cgroup", "anon"), mib * MIB);
    faults.expect(support::losses(&show["health"]).0 == 0, || format!("lost {}", show["health"]["losses"]));
    faults.finish();
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_run_is_recognised_however_it_is_written() {
    let dir = support::disk_dir();
    let absolute = support::in_path("docker").display().to_string();
    let host = std::env::var("DOCKER_HOST").unwrap();
    let own_cidfile = support::path(&dir, "own.cid");
    let options = format!("--network=none {}", image());
    for (way, line) in [
        ("bare", "docker run --name NAME".to_owned()),
        ("absolute", format!("{absolute} run --name NAME")),
        ("env", "env X=y docker run --name NAME".to_owned()),
        ("host", format!("env -u DOCKER_HOST docker -H {host} run --name NAME")),
        ("container", format!("docker --host={host} container run --name NAME")),
        ("cidfile", format!("docker run --cidfile {own_cidfile} --name NAME")),
    ] {
        let name = Named::new(way);
        let line = format!("-- {} {options} {ALLOC} --exit-code 3", line.replace("NAME", &name.0));
        let recorded = record(&support::path(&dir, &format!("{way}.json")), &line).exited(3);
        is_of(&recorded, &name.id(), 32);
    }
    assert_eq!(fs::read_to_string(own_cidfile).unwrap().len(), 64, "the user's own file stays");
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_stopped_container_is_started() {
    let dir = support::disk_dir();
    let name = Named::new("start");
    docker(&format!("create --name {} --network=none {} {ALLOC}", name.0, image()));
    let recorded =
        record(&support::path(&dir, "r.json"), &format!("-- docker start -a {}", name.0)).exited(0);
    is_of(&recorded, &name.id(), 32);
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_detached_container_is_followed_to_its_end() {
    let dir = support::disk_dir();
    let name = Named::new("detached");
    let line = format!("-- docker run -d --name {} --network=none {} {ALLOC}", name.0, image());
    let recorded = record(&support::path(&dir, "r.json"), &line).exited(0);
    assert_eq!(support::docker::inspect(&name.0, ".State.Running"), "false");
    assert_eq!(recorded.stdout.trim(), name.id());
    is_of(&recorded, &name.id(), 32);
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_running_container_is_attached_to_by_name_and_by_id() {
    let dir = support::disk_dir();
    let shared = dir.path().display();
    for by_name in [true, false] {
        let name = Named::new(&format!("attach-{by_name}"));
        let go = support::path(&dir, &format!("go-{by_name}"));
        let line = format!("run -d --name {} --network=none -v {shared}:{shared}", name.0);
        docker(&format!("{line} {} {ALLOC} --wait-go {go}", image()));
        let wanted = if by_name { name.0.clone() } else { name.id()[..12].to_owned() };
        let options = ["--container", &wanted];
        let running = Running::start(&support::path(&dir, &format!("{by_name}.json")), &options);
        running.follows(name.pid());
        File::create(go).unwrap();
        let recorded = running.finish().exited(0);
        is_of(&recorded, &name.id(), 32);
        assert_eq!(recorded.recording()["target"]["exit_code"], Value::Null);
    }
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_command_in_a_running_container_is_recorded_until_it_ends() {
    let dir = support::disk_dir();
    let name = Named::new("exec");
    let line = format!("run -d --name {} --network=none {}", name.0, image());
    docker(&format!("{line} /workload alloc --anon 16M --hold 60s"));
    let exec = format!("-- docker exec {} {ALLOC} --exit-code 3", name.0);
    let recorded = record(&support::path(&dir, "r.json"), &exec).exited(3);
    // With the container's memory from before.
    is_of(&recorded, &name.id(), 16 + 32);
    assert_eq!(support::docker::inspect(&name.0, ".State.Running"), "true");
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_container_that_is_not_there_is_a_failed_trace() {
    let dir = support::disk_dir();
    for line in ["--container no-such-container", "-- docker exec no-such-container /workload alloc"] {
        let recorded = record(&support::path(&dir, "r.json"), line).exited(1);
        assert!(recorded.stderr.contains("no-such-container"), "{}", recorded.stderr);
        assert!(!recorded.output.exists() && !recorded.partial().exists(), "{line}");
    }
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_run_that_fails_passes_its_code_on_and_the_recording_says_so() {
    let dir = support::disk_dir();
    let missing = format!("-- docker run --rm --network=none {} /no/such/program", image());
    for (name, line, code) in [
        ("image", "-- docker run --rm --pull=never no-such-image /workload", 125),
        ("option", "-- docker run --no-such-option x", 125),
        ("program", &missing, 127),
    ] {
        let recorded = record(&support::path(&dir, &format!("{name}.json")), line).exited(code);
        let show = recorded.show();
        assert_eq!(show["target"]["exit_code"], code, "{name}");
        if code == 125 {
            assert_eq!(show["planes"]["cgroup"], Value::Null, "{name}: there was no container");
            let warned = |text: &str| text.contains("no container");
            assert!(warned(&recorded.stderr), "{name}: {}", recorded.stderr);
            assert!(array(&show["warnings"]).iter().any(|w| warned(text(w))), "{name}: {}", show["warnings"]);
        }
    }
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn an_interrupt_reaches_the_container() {
    let dir = support::disk_dir();
    let name = Named::new("interrupt");
    let line = format!(
        "-- docker run --name {} --network=none {} /workload alloc --anon 32M --hold 60s --jsonl",
        name.0,
        image()
    );
    let mut running = Running::start(&support::path(&dir, "r.json"), &words(&line));
    running.phase("hold");
    running.signal(libc::SIGINT);
    let recorded = running.finish().exited(128 + libc::SIGINT);
    is_of(&recorded, &name.id(), 32);
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn another_container_that_starts_meanwhile_is_not_part_of_it() {
    let dir = support::disk_dir();
    for run in 0..3 {
        let (name, other) = (Named::new(&format!("one-{run}")), Named::new(&format!("other-{run}")));
        let line = format!("-- docker run --name {} --network=none {} {ALLOC}", name.0, image());
        let running = Running::start(&support::path(&dir, &format!("{run}.json")), &words(&line));
        // While the programs are attached and the container is awaited.
        let mut command = Command::new("docker");
        command.args(["run", "--name", &other.0, "--network=none", &image(), "/workload", "alloc"]);
        let mut others = Other::start(command.args(["--anon", "64M", "--hold", "300ms"]));
        let recorded = running.finish().exited(0);
        others.0.wait().unwrap();
        is_of(&recorded, &name.id(), 32);
        let cgroups = &recorded.recording()["target"]["cgroups"];
        assert!(!cgroups.to_string().contains(&other.id()), "{cgroups}");
    }
}
