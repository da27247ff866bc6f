//! What surrounds a container's processes, and what its client prints.

use std::fs;
use std::process::Command;

use serde_json::Value;

use crate::support::clock::monotonic_ns;
use crate::support::docker::{Named, docker, image, workload_with};
use crate::support::{self, Running, array, int, record, record_words, text, workload};

const SECRET: &str = "do-not-write-this-down";
/// The container's only process is its program; the runtime's were there before it.
const COMM: &str = "workload";

fn context(recording: &Value) -> &Value {
    let mut processes = array(&recording["provenance"]["processes"]).iter();
    let process = processes.find(|process| process["comm"] == COMM && process["context"].is_u64());
    let index = int(&process.expect("the container's program has a context")["context"]);
    &recording["provenance"]["contexts"][usize::try_from(index).unwrap()]
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_container_s_process_has_its_own_environment_rights_and_limits() {
    let dir = support::disk_dir();
    let (shared, input) = (dir.path().display().to_string(), support::path(&dir, "input"));
    support::cold_file(&input, 4);
    let line = format!(
        "-- docker run --rm --network=none --ulimit memlock=65536:65536 --cap-add IPC_LOCK -e CUDA_MODULE_LOADING=LAZY \
         -e HF_TOKEN={SECRET} -v {shared}:{shared}:ro {} /workload alloc --anon 32M --file-read 4M --file {input} \
         --hold 400ms --jsonl",
        image()
    );
    let words: Vec<_> = line.split_whitespace().collect();
    let mut running = Running::start(&support::path(&dir, "container.json"), &words);
    running.phase("hold");
    let (pid, _) = workload_with(&input);
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let truth = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.unwrap().trim().to_owned()
    };
    let container = running.finish().exited(0);
    let recording = container.recording();
    let found = context(&recording);
    let capabilities = i64::from_str_radix(&truth("CapEff"), 16).unwrap();
    assert_eq!(int(&found["capabilities"]), capabilities);
    assert_eq!(found["seccomp"].to_string(), truth("Seccomp"));
    assert_eq!(int(&found["limits"]["Max locked memory"]), 65536);
    assert_eq!(found["environment"]["CUDA_MODULE_LOADING"], "LAZY");
    // What was typed is in the recording, secrets too; what the process got is not taken from it.
    assert_eq!(found["environment"].get("HF_TOKEN"), None);

    let line = format!("-- {} alloc --anon 32M --hold 100ms", workload());
    let native = record(&support::path(&dir, "native.json"), &line).exited(0);
    let diff = native.diff(&container);
    let notes: Vec<_> = array(&diff["comparable"]["notes"]).iter().map(text).collect();
    for wanted in [
        "environment variable differs: CUDA_MODULE_LOADING: nothing in A, \"LAZY\" in B",
        "capabilities differ: only A has ",
        "limit differs: Max locked memory: ",
    ] {
        assert!(notes.iter().any(|note| note.starts_with(wanted)), "{wanted}: {notes:?}");
    }
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_client_s_output_is_passed_on_and_looked_through() {
    let dir = support::disk_dir();
    let log = support::path(&dir, "log");
    let output = support::path(&dir, "r.json");
    // The program says what it does not understand, on its standard error.
    let line = "Estimated max memory in KV cache : 1.5 GiB";
    let image = image();
    let words =
        ["--log-file", &log, "--", "docker", "run", "--rm", "--network=none", &image, "/workload", line];
    let recorded = record_words(&output, &words).exited(2);
    assert!(recorded.stderr.contains(line), "{}", recorded.stderr);
    let recording = recorded.recording();
    let lines = array(&recording["provenance"]["log_lines"]);
    assert!(lines.iter().any(|found| found["stream"] == "stderr" && text(&found["text"]).contains(line)));
    assert!(recorded.stderr.contains(&fs::read_to_string(&log).unwrap()), "what the client wrote, as it was");
    assert_eq!(recording["target"]["kind"], "container");
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn the_log_of_a_running_container_is_read_with_its_own_times() {
    let dir = support::disk_dir();
    let name = Named::new("log");
    // Its report, which it writes when it is stopped, names the file.
    let line = "Estimated max memory in KV cache : 1.5 GiB";
    let file = format!("/tmp/{line}");
    let image = image();
    let words = ["run", "-d", "--name", &name.0, "--network=none", &image, "/workload", "alloc"];
    let alloc = ["--file-write", "4K", "--write-file", &file, "--hold", "600s"];
    assert!(Command::new("docker").args(words).args(alloc).output().unwrap().status.success());
    let running = Running::start(&support::path(&dir, "r.json"), &["--log", "--container", &name.0]);
    running.follows(name.pid());
    let stopped_ns = monotonic_ns();
    docker(&format!("kill --signal TERM {}", name.0));
    docker(&format!("wait {}", name.0));
    let ended_ns = monotonic_ns();
    let recorded = running.finish().exited(0);
    let recording = recorded.recording();
    let lines = array(&recording["provenance"]["log_lines"]);
    let found: Vec<_> = lines.iter().filter(|found| text(&found["text"]).contains(line)).collect();
    assert!(!found.is_empty() && found.iter().all(|found| found["stream"] == "container"), "{lines:?}");
    for found in found {
        let at_ns = int(&found["at_ns"]);
        assert!((stopped_ns..ended_ns).contains(&at_ns), "{stopped_ns} {at_ns} {ended_ns}");
    }
    assert_eq!(array(&recording["health"]["warnings"]).len(), 0, "{}", recording["health"]["warnings"]);
}
