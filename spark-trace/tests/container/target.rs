//! What the target is, and what is not, where containers are started by way of something else and beside others.

use std::fs;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::Value;

use crate::support::cgroup;
use crate::support::docker::{Named, docker, image, workload_with};
use crate::support::process::Other;
use crate::support::{
    self, Faults, MIB, Recorded, Running, array, int, record_words, source, text, wait_for, workload,
};

/// Recordings beside others that come and go; more with this variable.
const RUNS: usize = 5;
/// How long a container holds what it has taken.
const HOLD_NS: i64 = 1_500_000_000;
const RUNS_VARIABLE: &str = "SPARK_TRACE_NEIGHBOUR_RUNS";

/// Roots of a recording's target: the container of each, or nothing.
fn roots(recording: &Value) -> Vec<Option<String>> {
    let roots = array(&recording["target"]["cgroups"]).iter().filter(|cgroup| cgroup["root"] == true);
    roots.map(|root| root["container"].as_str().map(ToOwned::to_owned)).collect()
}

fn warnings(recording: &Value) -> Vec<String> {
    array(&recording["health"]["warnings"]).iter().map(|warning| text(warning).to_owned()).collect()
}

/// Containers that others start and stop, one after the other, until it is dropped.
struct Neighbours {
    stop: Arc<AtomicBool>,
    started: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Neighbours {
    fn start(which: usize) -> Self {
        let (stop, started) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, count) = (Arc::clone(&stop), Arc::clone(&started));
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let name = Named::new(&format!("neighbour-{which}"));
                let line = format!(
                    "run --rm --name {} --network=none {} /workload alloc --anon 40M --hold 200ms",
                    name.0,
                    image()
                );
                if Command::new("docker").args(line.split_whitespace()).output().unwrap().status.success() {
                    count.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        Self { stop, started, thread: Some(thread) }
    }
}

impl Drop for Neighbours {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().map(JoinHandle::join);
    }
}

/// Charge and anonymous memory of each reading of a cgroup whose window lies in the hold that `from_ns` is in.
fn during_hold(recording: &Value, path: &str, from_ns: i64) -> Vec<(i64, i64)> {
    let mut all = array(&recording["samples"]["cgroups"]).iter();
    let Some(series) = all.find(|series| series["path"] == path) else { return Vec::new() };
    let columns = &series["columns"];
    let column = |names: [&str; 2]| names.into_iter().find_map(|name| columns[name].as_array());
    let usage = column(["memory.usage_in_bytes", "memory.current"]).expect("usage");
    let anon = column(["stat.total_rss", "stat.anon"]).expect("anonymous memory");
    let windows = array(&series["begin_ns"]).iter().zip(array(&series["end_ns"]));
    // Its end is left out: there the container has begun to let go.
    let hold = from_ns..from_ns + HOLD_NS * 3 / 4;
    let inside = windows
        .enumerate()
        .filter(|(_, (begin, end))| hold.contains(&int(begin)) && hold.contains(&int(end)));
    inside.map(|(at, _)| (int(&usage[at]), int(&anon[at]))).collect()
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn containers_that_come_and_go_beside_it_are_not_part_of_the_target() {
    let runs = std::env::var(RUNS_VARIABLE).map_or(RUNS, |runs| runs.parse().unwrap());
    let neighbours: Vec<_> = (0..3).map(Neighbours::start).collect();
    let dir = support::disk_dir();
    let (mut faults, mut worst) = (Faults::default(), (0, 0));
    for run in 0..runs {
        // Each differs from other workloads by a word of its own.
        let bytes = format!("{}K", (64 << 10) + run * 4);
        let name = Named::new(&format!("mine-{run}"));
        let wrapped = run % 2 == 1;
        let words = format!(
            "-- {} --name {} --network=none {} /workload alloc --anon {bytes} --hold {}ms --jsonl",
            if wrapped { "timeout 60 docker run" } else { "docker run" },
            name.0,
            image(),
            HOLD_NS / 1_000_000
        );
        let words: Vec<_> = words.split_whitespace().collect();
        let mut running = Running::start(&support::path(&dir, &format!("{run}.json")), &words);
        running.phase("hold");
        let (_, path) = workload_with(&bytes);
        // The kernel's own figures, while it holds still.
        let read_ns = support::oracle::monotonic_ns();
        let cgroup::Charged { usage, anon, .. } = cgroup::charged(&path);
        let recorded = running.finish().exited(0);
        // At the time of the truth: memory.stat may be behind at the peak, which can be the end of allocating.
        let (recording, show) = (recorded.recording(), recorded.show());
        faults.expect(roots(&recording) == [Some(name.id())], || {
            format!("run {run}: roots {:?}", roots(&recording))
        });
        let foreign: Vec<_> = array(&recording["provenance"]["processes"])
            .iter()
            .filter(|process| {
                array(&process["argv"]).iter().any(|word| word == "40M")
                    && text(&process["comm"]) == "workload"
            })
            .collect();
        faults.expect(foreign.is_empty(), || format!("run {run}: processes of others: {foreign:?}"));
        let readings = during_hold(&recording, &path, read_ns);
        faults.expect(!readings.is_empty(), || format!("run {run}: no reading while it held still"));
        let worst_of = |which: fn(&(i64, i64)) -> i64, truth: i64| {
            readings.iter().map(|reading| which(reading) - truth).fold(0, support::worst)
        };
        let differs = (worst_of(|r| r.0, usage), worst_of(|r| r.1, anon));
        faults.expect(differs.0.abs() <= MIB && differs.1.abs() <= MIB, || {
            format!("run {run}: differs from the kernel's own by {differs:?}, which are {usage} and {anon}")
        });
        worst = (support::worst(worst.0, differs.0), support::worst(worst.1, differs.1));
        faults.expect(support::losses(&show["health"]).0 == 0, || {
            format!("run {run}: lost {}", show["health"]["losses"])
        });
    }
    let started: u64 = neighbours.iter().map(|n| n.started.load(Ordering::Relaxed)).sum();
    println!("{runs} recordings beside {started} other containers; worst: charge, anon: {worst:?}");
    faults.expect(started > runs as u64, || format!("only {started} neighbours"));
    faults.finish();
}

// Several readings see what it holds, also where one of them is late.
const ALLOC: &str = "alloc --anon 32M --hold 1s";

/// A recording of one container, which holds 32 MiB and is the only root.
fn is_one_container(way: &str, recorded: &Recorded, id: &str, faults: &mut Faults) {
    let (recording, show) = (recorded.recording(), recorded.show());
    faults.expect(
        recording["target"]["kind"] == "container" && roots(&recording) == [Some(id.to_owned())],
        || format!("{way}: {}", recording["target"]),
    );
    faults.near(&format!("{way}: anon"), source(&show, "cgroup", "anon"), 32 * MIB);
    faults.expect(warnings(&recording).is_empty(), || format!("{way}: {:?}", warnings(&recording)));
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn words_before_the_engine_change_nothing() {
    let dir = support::disk_dir();
    let mut faults = Faults::default();
    let ways = [
        "nohup",
        "timeout 60",
        "nice -n 10",
        "ionice -c 3",
        "taskset -c 0",
        "stdbuf -oL",
        "chrt -b 0",
        "setsid -w",
        "env A=b",
        "SPARK_TRACE_TEST=1",
        "xargs -a /dev/null",
        "nice -n 1 timeout -s INT 60 env C=d",
    ];
    for (number, way) in ways.iter().enumerate() {
        if Command::new("which").arg(way.split(' ').next().unwrap()).output().unwrap().stdout.is_empty()
            && !way.contains("TEST=")
        {
            println!("SKIPPED: {way}: not installed");
            continue;
        }
        let name = Named::new(&format!("way-{number}"));
        let line =
            format!("-- {way} docker run --name {} --network=none {} /workload {ALLOC}", name.0, image());
        let recorded = support::record(&support::path(&dir, &format!("{number}.json")), &line).exited(0);
        is_one_container(way, &recorded, &name.id(), &mut faults);
    }
    faults.finish();
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_script_s_container_is_found_without_a_name() {
    let dir = support::disk_dir();
    let mut faults = Faults::default();
    let (id, script) = (support::path(&dir, "id"), support::path(&dir, "run.sh"));
    let run = format!("docker run --network=none --cidfile {id} {} /workload {ALLOC}", image());
    fs::write(&script, format!("#!/bin/sh\necho begins\n{run}\necho ends\n")).unwrap();
    let own_script = ["--", "sh", &script];
    let in_line = ["--", "bash", "-c", &format!("{run}; true")];
    for (way, words) in [("script", &own_script[..]), ("bash -c", &in_line[..])] {
        let recorded = record_words(&support::path(&dir, &format!("{way}.json")), words).exited(0);
        let container = fs::read_to_string(&id).unwrap();
        fs::remove_file(&id).unwrap();
        is_one_container(way, &recorded, &container, &mut faults);
        let table = recorded.table().split_whitespace().collect::<Vec<_>>().join(" ");
        faults.expect(
            table.contains("The command started container ") && table.contains(&container[..12]),
            || table,
        );
        docker(&format!("rm --force {container}"));
    }
    faults.finish();
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn what_a_script_does_itself_counts_with_its_container() {
    let dir = support::disk_dir();
    let name = Named::new("both");
    let line = format!(
        "{} alloc --anon 48M --hold 300ms & docker run --name {} --network=none {} /workload alloc --anon 32M --hold 3s; wait",
        workload(),
        name.0,
        image()
    );
    let recorded = record_words(&support::path(&dir, "r.json"), &["--", "bash", "-c", &line]).exited(0);
    let recording = recorded.recording();
    let mut found = roots(&recording);
    found.sort();
    assert_eq!((text(&recording["target"]["kind"]), found), ("command", vec![None, Some(name.id())]));
    // Lines are broken where a terminal's width ends.
    let table = recorded.table().split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(table.contains("The target is the command with these containers"), "{table}");
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn several_containers_of_one_command_and_a_restart_are_followed() {
    let dir = support::disk_dir();
    let names: Vec<_> =
        ["one", "two"].into_iter().map(|name| Named::new(&format!("several-{name}"))).collect();
    for name in &names {
        docker(&format!("create --name {} --network=none {} /workload {ALLOC}", name.0, image()));
    }
    let mut ids: Vec<_> = names.iter().map(|name| Some(name.id())).collect();
    ids.sort();
    for verb in ["start", "restart"] {
        let line = format!("-- docker {verb} {} {}", names[0].0, names[1].id());
        let recorded = support::record(&support::path(&dir, &format!("{verb}.json")), &line).exited(0);
        let mut found = roots(&recorded.recording());
        found.sort();
        assert_eq!(found, ids, "{verb}");
        assert_eq!(array(&recorded.recording()["target"]["containers"]).len(), 2);
    }
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_project_s_containers_are_known_by_their_labels() {
    let dir = support::disk_dir();
    let project = format!("spark-trace-test-{}", std::process::id());
    // In the place of compose: a program of its name that requests the containers as it does, elsewhere in its own way.
    let compose = support::path(&dir, "docker-compose");
    let names: Vec<_> = ["web", "db"].into_iter().map(|service| (service, Named::new(service))).collect();
    let mut lines = vec!["#!/bin/sh".to_owned()];
    for (service, name) in &names {
        lines.push(format!(
            "env -i PATH=\"$PATH\" DOCKER_HOST=\"$DOCKER_HOST\" docker create --name {} --label com.docker.compose.project={project} \
             --label com.docker.compose.service={service} --network=none {} /workload {ALLOC} >/dev/null",
            name.0,
            image()
        ));
        lines.push(format!("docker container start {} >/dev/null", name.0));
    }
    fs::write(&compose, lines.join("\n") + "\n").unwrap();
    fs::set_permissions(&compose, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    // Another project's, at the same time.
    let other = Named::new("other-project");
    docker(&format!(
        "run -d --name {} --label com.docker.compose.project=other --network=none {} /workload alloc --anon 64M --hold 30s",
        other.0,
        image()
    ));
    let recorded =
        record_words(&support::path(&dir, "r.json"), &["--", &compose, "-p", &project, "up", "-d"]).exited(0);
    let recording = recorded.recording();
    let mut services: Vec<_> = array(&recording["target"]["containers"])
        .iter()
        .map(|c| (text(&c["service"]).to_owned(), text(&c["id"]).to_owned()))
        .collect();
    services.sort();
    let mut expected: Vec<_> =
        names.iter().map(|(service, name)| ((*service).to_owned(), name.id())).collect();
    expected.sort();
    assert_eq!(services, expected);
    assert_eq!(roots(&recording).len(), 2, "{}", recording["target"]);
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn where_two_could_be_meant_both_are_named() {
    let dir = support::disk_dir();
    let line = format!("docker run --rm --network=none {} /workload alloc --anon 33M --hold 4s", image());
    let words = format!("-- timeout 60 {line}");
    let running = Running::start(&support::path(&dir, "r.json"), &words.split(' ').collect::<Vec<_>>());
    // The client lives: somebody else requests the very same.
    wait_for("the command's client", || {
        let clients = support::processes_with("33M").into_iter();
        let comm = |pid: &u32| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        clients.into_iter().find(|pid| comm(pid).trim() == "docker")
    });
    let mut same = Command::new("docker");
    let mut other = Other::start(same.args(line.split(' ').skip(1)));
    let recorded = running.finish().exited(0);
    other.0.wait().unwrap();
    let recording = recorded.recording();
    let warnings = warnings(&recording);
    let warning = warnings.iter().find(|w| {
        w.contains("in the same way at the same time") && w.contains(" and ") && w.contains("--container")
    });
    assert!(warning.is_some(), "{warnings:?}: {}", recording["target"]);
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn an_engine_that_does_not_answer_is_a_warning() {
    let dir = support::disk_dir();
    let socket = support::path(&dir, "engine");
    let engine = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    // The command's client is answered once its engine is queried about it as well, and then by an end: until then it lives.
    std::thread::spawn(move || {
        let clients = [engine.accept(), engine.accept()];
        drop((engine, clients));
    });
    let line = format!("-- timeout 60 docker -H unix://{socket} run {} /workload", image());
    let recorded = support::record(&support::path(&dir, "r.json"), &line).exited(125);
    let warnings = warnings(&recorded.recording());
    assert!(warnings.iter().any(|w| w.contains("docker does not answer which")), "{warnings:?}");
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn an_engine_that_never_answers_delays_no_reading() {
    let dir = support::disk_dir();
    let socket = support::path(&dir, "engine");
    let engine = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    // The command's client and the query about it wait for the same engine. spark-trace gives its query up; then the
    // engine ends, and with it the client.
    std::thread::spawn(move || {
        let clients = [engine.accept().unwrap().0, engine.accept().unwrap().0];
        clients.iter().for_each(|client| client.set_nonblocking(true).unwrap());
        wait_for("the query to be given up", || {
            let is_closed = |mut client: &std::os::unix::net::UnixStream| loop {
                match std::io::Read::read(&mut client, &mut [0; 4096]) {
                    Ok(0) => return true,
                    Ok(_) => {}
                    Err(error) => return error.kind() != std::io::ErrorKind::WouldBlock,
                }
            };
            clients.iter().any(is_closed).then_some(())
        });
        drop((engine, clients));
    });
    let line = format!("-- timeout 120 docker -H unix://{socket} run {} /workload", image());
    let recorded = support::record(&support::path(&dir, "r.json"), &line).exited(125);
    let recording = recorded.recording();
    let warnings = warnings(&recording);
    assert!(warnings.iter().any(|w| w.contains("docker does not answer which")), "{warnings:?}");
    let begins = array(&recording["samples"]["system"]["begin_ns"]);
    let begins: Vec<_> = begins.iter().map(int).collect();
    let whole_s = (begins[begins.len() - 1] - begins[0]) as f64 / 1e9;
    let longest_s = begins.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap() as f64 / 1e9;
    // The query lasts 5 s. A reading may be late on a busy machine, but not by that.
    assert!(whole_s >= 5.0 && longest_s < 3.0, "{longest_s} of {whole_s} s without a reading");
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn containers_that_descend_from_their_client_are_followed() {
    let podman = |line: &str| Command::new("podman").args(line.split_whitespace()).output();
    // Its other runtime refuses machines with both cgroup versions.
    let Ok(version) = podman("--runtime runc --version") else {
        println!("SKIPPED: podman: not installed");
        return;
    };
    assert!(version.status.success());
    let dir = support::disk_dir();
    let archive = support::path(&dir, "image.tar");
    docker(&format!("save -o {archive} {}", image()));
    let loaded = podman(&format!("--runtime runc load -i {archive}")).unwrap();
    assert!(loaded.status.success(), "{}", String::from_utf8_lossy(&loaded.stderr));
    let name = format!("spark-trace-test-{}", std::process::id());
    let run = format!(
        "podman --runtime runc run --ulimit nofile=1024:1024 --ulimit nproc=1000:1000 --network=none --name {name} {} /workload {ALLOC}",
        image()
    );
    if !Command::new("sh").args(["-c", &run]).output().unwrap().status.success() {
        println!("SKIPPED: podman: it cannot run containers here");
        let _ = podman(&format!("--runtime runc rm --force {name}"));
        return;
    }
    let mut faults = Faults::default();
    let remove = || podman(&format!("--runtime runc rm --force {name}")).unwrap();
    for (way, line) in [
        ("run", format!("-- {run}")),
        ("wrapped", format!("-- nice -n 5 timeout 60 {run}")),
        ("start", format!("-- podman --runtime runc start -a {name}")),
        ("detached", format!("-- {}", run.replace(" run ", " run -d "))),
    ] {
        if way != "start" {
            remove();
        }
        let recorded = support::record(&support::path(&dir, &format!("{way}.json")), &line).exited(0);
        let id = podman(&format!("container inspect --format {{{{.Id}}}} {name}")).unwrap();
        let id = String::from_utf8(id.stdout).unwrap().trim().to_owned();
        is_one_container(way, &recorded, &id, &mut faults);
        let container = &recorded.recording()["target"]["container"];
        faults.expect(container["engine"] == "podman" && container["name"] == name.as_str(), || {
            format!("{way}: {container}")
        });
    }
    remove();
    faults.finish();
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn cgroups_that_are_no_container_s_never_join() {
    let dir = support::disk_dir();
    let name = Named::new("alone");
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let others = std::thread::spawn(move || {
        let mut number = 0;
        while !stopped.load(Ordering::Relaxed) {
            let own = cgroup::Own::create(&format!("beside-{number}"));
            let mut command = Command::new(workload());
            own.start_in(command.args(["alloc", "--anon", "40M", "--hold", "100ms"]));
            Other::start(&mut command).0.wait().unwrap();
            number += 1;
            std::thread::sleep(Duration::from_millis(1));
        }
        number
    });
    let line = format!("-- docker run --name {} --network=none {} /workload {ALLOC}", name.0, image());
    let recorded = support::record(&support::path(&dir, "r.json"), &line).exited(0);
    stop.store(true, Ordering::Relaxed);
    assert!(others.join().unwrap() > 2);
    let mut faults = Faults::default();
    is_one_container("alone", &recorded, &name.id(), &mut faults);
    let recording = recorded.recording();
    let marked = array(&recording["provenance"]["cgroups"]).iter().filter(|c| c["target"] == true).count();
    faults.expect(marked == 1, || format!("{marked} cgroups are marked as the target's"));
    faults.finish();
}
