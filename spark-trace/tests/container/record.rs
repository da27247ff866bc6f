//! The ledger of a container, against what the workload in it says it took and what Docker says it is.

use serde_json::Value;

use crate::support::docker::{Named, docker, id_in, image, inspect, workload_with};
use crate::support::ledger::{allocated, cached, file_row, first_phase_ns, phase_ns, source_row};
use crate::support::{
    self, Faults, MIB, Recorded, Running, array, int, record, source, text, wait_for, workload,
};

const LIMIT: i64 = 1 << 30;

/// What a workload printed last: its report.
fn truth(recorded: &Recorded) -> Value {
    let truth = recorded.said();
    assert_eq!(truth["schema"], "spark-trace/workload");
    truth
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn ten_containers_in_a_row_are_found_and_agree_with_their_workload() {
    let dir = support::disk_dir();
    let (shared, input) = (dir.path().display().to_string(), support::path(&dir, "input"));
    support::cold_file(&input, 192);
    let mut faults = Faults::default();
    let mut worst = [0; 4];
    for run in 0..10 {
        support::drop_from_cache(&input);
        // With --rm, nobody can say what it was once it has ended: on a busy machine too soon for the question.
        let name = Named::new(&format!("row-{run}"));
        let line = format!(
            "-- docker run --name {} --network=none --memory=1g -v {shared}:{shared}:ro {} /workload alloc \
             --anon 256M --shmem 128M --file-read 192M --file {input} --hold 400ms --jsonl",
            name.0,
            image()
        );
        let words: Vec<_> = line.split_whitespace().collect();
        let mut running = Running::start(&support::path(&dir, &format!("{run}.json")), &words);
        running.phase("hold");
        let (pid, cgroup) = workload_with(&input);
        let recorded = running.finish().exited(0);
        let (show, recording, truth) = (recorded.show(), recorded.recording(), truth(&recorded));
        let run = format!("run {run}");
        check_container(&run, &recording, &cgroup, &mut faults);
        check_first_process(&run, &show, &recording, &truth, pid, &mut faults);
        let deviations = check_sources(&run, &show, &truth, &mut faults);
        for (worst, deviation) in worst.iter_mut().zip(deviations) {
            *worst = support::worst(*worst, deviation);
        }
        let row = file_row(&show["files"], |row| row["inode"] == support::inode(&input));
        let bytes = int(&row["bytes"]);
        faults.within(&format!("{run}: the file"), bytes, cached(&truth, "file-read"));
        faults.expect(row["path"] == input.as_str(), || format!("{run}: path {}", row["path"]));
        faults.expect(row["charged_to"] == cgroup.as_str() && row["first_touch"]["pid"] == pid, || {
            format!("{run}: process {pid} in {cgroup} has read it: {row}")
        });
    }
    println!("worst: anon, shmem, page cache, cgroup residual: {worst:?}");
    faults.finish();
}

fn check_container(run: &str, recording: &Value, cgroup: &str, faults: &mut Faults) {
    let target = &recording["target"];
    let container = &target["container"];
    let image_id = docker(&format!("image inspect --format {{{{.Id}}}} {}", image()));
    faults.expect(target["kind"] == "container", || format!("{run}: kind {}", target["kind"]));
    faults.expect(container["id"] == id_in(cgroup).as_str() && container["engine"] == "docker", || {
        format!("{run}: the container is {container}, it ran in {cgroup}")
    });
    faults
        .expect(container["image"] == image().as_str() && container["image_id"] == image_id.as_str(), || {
            format!("{run}: the container is {container}, its image {image_id}")
        });
    let roots: Vec<_> = array(&target["cgroups"]).iter().filter(|cgroup| cgroup["root"] == true).collect();
    faults.expect(roots.len() == 1 && roots[0]["path"] == cgroup, || format!("{run}: roots {roots:?}"));
    // It started from nothing, and is gone.
    faults
        .expect(roots.iter().all(|root| root["created_ns"].is_i64() && root["removed_ns"].is_i64()), || {
            format!("{run}: roots {roots:?}")
        });
    let columns = &recording["samples"]["cgroups"][0]["columns"];
    let limits = ["memory.max", "memory.limit_in_bytes"].map(|name| columns[name].as_array().cloned());
    let last = limits.into_iter().flatten().flatten().rfind(|value| !value.is_null());
    faults.expect(last == Some(LIMIT.into()), || format!("{run}: limit {last:?}"));
    let lost = &recording["health"];
    faults.expect(support::losses(lost).0 == 0, || format!("{run}: lost {}", lost["losses"]));
}

fn check_first_process(
    run: &str,
    show: &Value,
    recording: &Value,
    truth: &Value,
    pid: u32,
    faults: &mut Faults,
) {
    let (exec, first) = (phase_ns(recording, "exec"), first_phase_ns(truth));
    faults.expect(exec < first, || format!("{run}: exec at {exec}, the workload began at {first}"));
    let rows: Vec<_> = array(&show["processes"]).iter().filter(|row| row["pid"] == pid).collect();
    let [row] = rows[..] else {
        return faults.expect(false, || format!("{run}: {} rows of process {pid}", rows.len()));
    };
    faults.expect(row["comm"] == "workload" && row["target"] == true && row["exit"] == "exit 0", || {
        format!("{run}: the first process: {row}")
    });
    let peak = row["rss_peak"].as_i64().unwrap_or(0);
    let own = int(&truth["self"]["hwm"]);
    faults.near(&format!("{run}: rss_peak of process {pid}"), peak, own);
    // Its own mappings were seen from the first on.
    let source = array(&truth["sources"]).iter().find(|source| source["kind"] == "anon").unwrap();
    let mut mappings = array(&recording["provenance"]["mappings"]).iter();
    let seen = mappings.any(|m| m["op"] == "mmap" && m["pid"] == pid && m["address"] == source["address"]);
    faults.expect(seen, || format!("{run}: no mmap of its {} bytes", source["bytes"]));
}

fn check_sources(run: &str, show: &Value, truth: &Value, faults: &mut Faults) -> [i64; 4] {
    let plane = |slug: &str| source(show, "cgroup", slug);
    let file = plane("file-clean") + plane("file-dirty");
    let cgroup = &show["planes"]["cgroup"];
    let (residual, expected) = (int(&cgroup["residual"]), int(&cgroup["expected"]));
    faults.expect(residual.abs() <= (expected / 100).max(MIB), || format!("{run}: residual {residual}"));
    [
        faults.near(&format!("{run}: anon"), plane("anon"), allocated(truth, "anon")),
        faults.near(&format!("{run}: shmem"), plane("shmem"), allocated(truth, "shmem")),
        faults.within(&format!("{run}: page cache"), file, cached(truth, "file-read")),
        residual,
    ]
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_named_container_is_described_as_docker_does() {
    let dir = support::disk_dir();
    let name = Named::new("described");
    let line = format!(
        "-- docker run --name {} --network=none --memory=1g {} /workload alloc --anon 16M --hold 200ms",
        name.0,
        image()
    );
    let recording = record(&support::path(&dir, "r.json"), &line).exited(0).recording();
    let container = &recording["target"]["container"];
    assert_eq!(text(&container["id"]), name.id());
    assert_eq!(text(&container["name"]), name.0);
    assert_eq!(text(&container["image"]), inspect(&name.0, ".Config.Image"));
    assert_eq!(text(&container["image_id"]), inspect(&name.0, ".Image"));
    assert_eq!(inspect(&name.0, ".HostConfig.Memory"), LIMIT.to_string());
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_file_in_the_containers_own_layer_has_its_path_in_the_container() {
    let dir = support::disk_dir();
    let name = Named::new("layer");
    // Its first run makes the file, the second one finds it: the page cache of its making is not in it.
    docker(&format!(
        "run --detach --name {} --network=none {} /workload alloc --file-read 32M --file /tmp/input --create-files \
         --hold 600s --jsonl",
        name.0,
        image()
    ));
    wait_for("the file", || docker(&format!("logs {}", name.0)).contains(r#""phase":"hold""#).then_some(()));
    docker(&format!("stop {}", name.0));
    let mut running =
        Running::start(&support::path(&dir, "r.json"), &["--", "docker", "start", "-a", &name.0]);
    running.phase("hold");
    running.reads_details();
    support::process::signal(name.pid(), libc::SIGTERM);
    let recorded = running.finish().exited(128 + libc::SIGTERM);
    let (show, truth) = (recorded.show(), truth(&recorded));
    // What it drops first was charged to the cgroup of its first run: a row of its own.
    let ours = |row: &Value| row["inner_path"] == "/tmp/input" && row["charged_to_target"] == true;
    let row = file_row(&show["files"], ours);
    let mut faults = Faults::default();
    faults.within("the file", int(&row["bytes"]), cached(&truth, "file-read"));
    faults.within("the file, added", int(&row["bytes_added"]), cached(&truth, "file-read"));
    faults.finish();
}

/// What the machine begins a run with, as the test sees it.
fn start_state() -> [i64; 2] {
    ["MemFree", "Cached"].map(support::meminfo)
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn more_anonymous_memory_in_one_of_native_and_container_is_attributed_to_anon() {
    let dir = support::disk_dir();
    let (shared, input) = (dir.path().display().to_string(), support::path(&dir, "input"));
    support::cold_file(&input, 192);
    let rest = format!("--shmem 128M --file-read 192M --file {input} --hold 400ms");
    let line = format!("-- {} alloc --anon 320M {rest}", workload());
    let start_of_native = start_state();
    let native = record(&support::path(&dir, "native.json"), &line).exited(0);
    support::drop_from_cache(&input);
    let start_of_container = start_state();
    let docker = format!("docker run --rm --network=none --memory=1g -v {shared}:{shared}:ro");
    let line = format!("-- {docker} {} /workload alloc --anon 256M {rest}", image());
    let container = record(&support::path(&dir, "container.json"), &line).exited(0);

    let diff = container.diff(&native);
    let delta = |slug| source_row(&diff, slug)["delta_bytes"].as_i64().unwrap_or(0);
    let residual = int(&diff["residual_bytes"]);
    let mut faults = Faults::default();
    // What the kernel drops of the file meanwhile is in neither run.
    let dropping = pages_out_on_its_own();
    faults.expect((delta("anon") - 64 * MIB).abs() <= MIB, || format!("anon differs by {}", delta("anon")));
    faults.expect(residual.abs() < MIB, || format!("residual {residual}"));
    faults.expect(delta("shmem").abs() <= MIB, || format!("shmem differs by {}", delta("shmem")));
    let file = delta("file-clean") + delta("file-dirty");
    faults.expect(file.abs() <= if dropping { 32 } else { 2 } * MIB, || {
        format!("page cache differs by {file}")
    });
    // On a busy machine the runs begin from different states; then that is said, and nothing else.
    let apart = start_of_native.iter().zip(start_of_container).any(|(a, b)| (a - b).abs() > 128 * MIB);
    let reasons = array(&diff["comparable"]["reasons"]);
    let of_start = reasons.iter().all(|reason| text(reason).starts_with("start state differs"));
    faults.expect(reasons.is_empty() || apart && of_start, || format!("comparable: {}", diff["comparable"]));
    println!("anon {} residual {residual} file {file}", delta("anon") - 64 * MIB);

    // The container once more, with the file that it has read before still cached: its first toucher paid. What
    // the kernel has dropped of it meanwhile is nobody's fault, and the second one's to pay.
    let dropped = 192 * MIB - support::cache::resident(&input);
    let line = format!("-- {docker} {} /workload alloc --anon 256M {rest}", image());
    let warm = record(&support::path(&dir, "warm.json"), &line).exited(0);
    let diff = container.diff(&warm);
    let rows: Vec<_> = array(&diff["files"]).iter().filter(|row| row["path"] == input.as_str()).collect();
    faults.expect(
        rows.len() == 1 && rows[0]["a_bytes"].as_i64() > Some(if dropping { 160 } else { 190 } * MIB),
        || format!("{rows:?}"),
    );
    let paid = |row: &&Value| (int(&row["b_bytes"]) - dropped).abs() < if dropping { 32 } else { 8 } * MIB;
    faults
        .expect(dropped < 96 * MIB, || format!("nothing to report: {dropped} bytes are not cached any more"));
    faults.expect(rows.iter().all(paid), || format!("{dropped} bytes dropped, in B: {rows:?}"));
    faults.finish();
}

/// Whether DAMON pages out what is not used, on a machine with memory to spare: no counter of reclaim shows it.
fn pages_out_on_its_own() -> bool {
    std::fs::read_dir("/proc").unwrap().flatten().any(|entry| {
        std::fs::read_to_string(entry.path().join("comm")).is_ok_and(|comm| comm.starts_with("kdamond"))
    })
}
