//! Device memory by GPU, on simulated drivers. Truth is the account that the simulated CUDA driver keeps of each GPU,
//! which the simulated NVML tells; how a call means a GPU is real.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;
use tempfile::TempDir;

use crate::support::clock::monotonic_ns;
use crate::support::ledger::source_row;
use crate::support::{self, MIB, Recorded, Running, array, cuda_workload, int, spark_trace};

/// What the simulated driver counts for a context.
const CONTEXT: i64 = 64 * MIB;

/// Bytes of each GPU at the last time that a process changed them.
type Account = BTreeMap<i64, i64>;

struct Held {
    recorded: Recorded,
    /// Of each GPU, while everything was held.
    account: Account,
    /// The first reading of each GPU after everything was held.
    at: BTreeMap<i64, usize>,
}

impl Held {
    fn device(&self, gpu: i64) -> Value {
        self.recorded.recording()["samples"]["devices"][gpu as usize].clone()
    }

    /// A column at that reading.
    fn column(&self, gpu: i64, name: &str) -> i64 {
        int(&array(&self.device(gpu)["columns"][name])[self.at[&gpu]])
    }

    /// Rows of the plane at that time.
    fn rows(&self, gpu: i64, slugs: &[&str]) -> Vec<i64> {
        let at_ns = int(&array(&self.device(gpu)["end_ns"])[self.at[&gpu]]);
        let show = self.recorded.show_with(&["--at", &format!("@{at_ns}")]);
        let plane = &show["planes"]["devices"][gpu as usize];
        slugs.iter().map(|slug| int(&source_row(plane, slug)["bytes"])).collect()
    }

    /// Live bytes of the target's device memory by GPU, at their highest.
    fn peaks(&self) -> BTreeMap<Option<i64>, i64> {
        let recording = self.recorded.recording();
        let totals = array(&recording["provenance"]["cuda_by_gpu"]).iter();
        let all = totals.filter(|total| total["kind"] == "device-all" && total["pid"].is_null());
        all.map(|total| (total["device"].as_i64(), int(&total["peak"]))).collect()
    }
}

/// Records `cuda-gpus` on two GPUs, until a reading of each has what the driver's account says while all is held.
fn held(dir: &TempDir, visible: &str, words: &str) -> Held {
    let (state, until, output) =
        (support::path(dir, "state"), support::path(dir, "until"), support::path(dir, "gpus.json"));
    std::fs::write(&state, "gpus 2\n").unwrap();
    let workload = cuda_workload();
    let beside = |name: &str| Path::new(&workload).with_file_name(name).to_str().unwrap().to_owned();
    let driver = beside("libspark_trace_simulated_cuda.so");
    let nvml = super::nvml::library();
    let mut command = spark_trace();
    command.env("SPARK_TRACE_SIMULATED_NVML", &state).env("SPARK_TRACE_SIMULATED_GPUS", "2");
    command.env("CUDA_VISIBLE_DEVICES", visible);
    let line = format!(
        "--gpu-interval 20ms --nvml {} --cuda-library {driver} -- {workload} cuda-gpus --driver simulated --until {until} \
         {words}",
        nvml.display()
    );
    let words: Vec<&str> = line.split_whitespace().collect();
    let mut running = Running::start_as(command, &output, &words);
    let said = running.line(|line| line.contains("\"held\":true"));
    let pid = int(&serde_json::from_str::<Value>(&said).unwrap()["pid"]);
    let account = account(&state, pid);
    let used = format!("process.{pid}.used");
    let held_ns = monotonic_ns();
    for (gpu, bytes) in &account {
        running.has_entry(&format!("{bytes} bytes of GPU {gpu}"), |entry| {
            entry["series"]["device"] == *gpu
                && entry["begin_ns"].as_i64().is_some_and(|begin| begin > held_ns)
                && entry["values"][&used] == *bytes
        });
    }
    std::fs::write(&until, "").unwrap();
    let recorded = running.finish().exited(0);
    let recording = recorded.recording();
    // The one that was waited for: a later one may have begun while all was held, and ended after it was given back.
    let whole = |gpu: i64, bytes: i64| {
        let device = &recording["samples"]["devices"][gpu as usize];
        let begins = array(&device["begin_ns"]).iter().map(int);
        let mut readings = begins.zip(array(&device["columns"][&used]));
        readings.position(|(begin_ns, value)| begin_ns > held_ns && value.as_i64() == Some(bytes)).unwrap()
    };
    let at = account.iter().map(|(gpu, bytes)| (*gpu, whole(*gpu, *bytes))).collect();
    Held { recorded, account, at }
}

/// The driver's own account of a process.
fn account(state: &str, pid: i64) -> Account {
    let text = std::fs::read_to_string(state).unwrap();
    let lines = text.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let of_pid = lines.filter(|words| words[0] == "process" && words[2] == pid.to_string());
    of_pid.map(|words| (words[1].parse().unwrap(), words[3].parse().unwrap())).collect()
}

const ROWS: [&str; 3] = ["gpu-allocated", "gpu-shared-process", "gpu-context"];

#[test]
#[ignore = "needs root: cargo xtask test"]
fn every_way_in_which_a_call_means_a_gpu_is_followed_to_that_gpu() {
    let dir = support::disk_dir();
    // The process numbers them the other way round.
    let held = held(
        &dir,
        "1,0",
        "--on 0:set:1M --on 1:set:2M --on 1:push:3M --on 0:set:1M --on 1:thread:5M --on 1:async:6M --on 1:stream:7M \
         --on 1:pool:9M --on 1:vmm:12M --on 0:vmm:10M",
    );
    assert_eq!(held.account, BTreeMap::from([(0, 44 * MIB + CONTEXT), (1, 12 * MIB + CONTEXT)]));
    for (gpu, bytes) in &held.account {
        assert_eq!(held.column(*gpu, "cuda.live"), bytes - CONTEXT, "GPU {gpu}");
        assert_eq!(held.rows(*gpu, &ROWS), [bytes - CONTEXT, 0, CONTEXT], "GPU {gpu}");
    }
    let peaks = BTreeMap::from([(Some(0), 44 * MIB), (Some(1), 12 * MIB)]);
    assert_eq!(held.peaks(), peaks, "and none whose GPU is unknown");
    assert_eq!(support::losses(&held.recorded.recording()["health"]).0, 0);
    let rows = |report: &Value, bytes: &str| -> Vec<_> {
        let gpus = array(&report["cuda"]["gpus"]).iter();
        gpus.map(|row| (row["device"].as_i64(), int(&row[bytes]))).collect()
    };
    let peaks: Vec<_> = peaks.into_iter().collect();
    assert_eq!(rows(&held.recorded.show(), "peak"), peaks);
    assert_eq!(rows(&held.recorded.diff(&held.recorded), "b_peak"), peaks);
    assert!(held.recorded.table().contains("CUDA device memory by GPU"));
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn what_is_on_an_unknown_gpu_is_a_row_of_its_own() {
    let dir = support::disk_dir();
    let held = held(&dir, "0,1", "--nameless --on 0:set:2M --on 1:set:4M");
    assert_eq!(held.account, BTreeMap::from([(0, 2 * MIB + CONTEXT), (1, 4 * MIB + CONTEXT)]));
    for (gpu, bytes) in &held.account {
        // Its 6 MiB may be on either.
        assert_eq!(held.rows(*gpu, &ROWS), [0, 6 * MIB, bytes - 6 * MIB], "GPU {gpu}");
    }
    assert_eq!(held.peaks(), BTreeMap::from([(None, 6 * MIB)]));
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn what_a_process_on_one_of_two_gpus_takes_is_there_though_no_call_says_so() {
    let dir = support::disk_dir();
    let held = held(&dir, "1", "--nameless --on 0:set:2M");
    assert_eq!(held.account, BTreeMap::from([(1, 2 * MIB + CONTEXT)]));
    assert_eq!(held.rows(1, &ROWS), [2 * MIB, 0, CONTEXT]);
}
