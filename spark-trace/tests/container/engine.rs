//! An engine in a container whose limit does not bound its device memory: the simulated driver takes huge pages, which no
//! memory cgroup counts, as NVIDIA's driver takes pages of a GPU that shares the machine's memory. Truth is the engine's own
//! report and the kernel's counter of the cgroup.

use std::fs;
use std::path::Path;

use serde_json::Value;
use tempfile::TempDir;

use crate::support::docker::{Named, tree_image};
use crate::support::oracle::{self, Files, names};
use crate::support::stand_in::during;
use crate::support::{
    self, MIB, Recorded, Running, array, cache, cgroup, cuda_workload, int, json, spark_trace, wait_for,
};

const LIMIT: i64 = 256 * MIB;
const WEIGHTS: i64 = 96 * MIB;
const OVERCOMMIT: &str = "/proc/sys/vm/nr_overcommit_hugepages";
/// More than the engine takes.
const PAGES: usize = 1 << 30;

/// Huge pages from free memory are allowed while this lives.
struct HugePages(String);

impl HugePages {
    /// Nothing where the kernel has none, or its free memory is in too small pieces.
    fn allow() -> Option<Self> {
        let before = fs::read_to_string(OVERCOMMIT).ok()?;
        fs::write(
            OVERCOMMIT,
            (PAGES / usize::try_from(support::meminfo("Hugepagesize")).unwrap()).to_string(),
        )
        .ok()?;
        let allowed = Self(before);
        cache::drop_unused();
        let (prot, flags) = (libc::PROT_READ, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_HUGETLB);
        // SAFETY: a new mapping at an address of the kernel's choice replaces nothing, and is removed untouched.
        let mapped = unsafe {
            let address = libc::mmap(std::ptr::null_mut(), PAGES, prot, flags, -1, 0);
            address != libc::MAP_FAILED && libc::munmap(address, PAGES) == 0
        };
        if !mapped {
            oracle::skip("hugetlb", "no huge pages in the free memory");
        }
        mapped.then_some(allowed)
    }
}

impl Drop for HugePages {
    fn drop(&mut self) {
        let _ = fs::write(OVERCOMMIT, &self.0);
    }
}

/// A staged engine in a container, what its cgroup was charged while it had everything, and what `kv` says.
struct Contained {
    recorded: Recorded,
    charged: i64,
    truth: Value,
    kv: Value,
}

fn words(dir: &TempDir, name: &str, options: &str, engine: &str) -> Vec<String> {
    let program = cuda_workload();
    let (shared, own) = (Path::new(&program).parent().unwrap().display(), dir.path().display());
    let line = format!(
        "-q --force --cuda-library {shared}/libspark_trace_simulated_cuda.so -- docker run --rm --name {name} --network=none \
         --memory {LIMIT} {options} -v /usr:/usr:ro -v /etc:/etc:ro -v {shared}:{shared}:ro -v {own}:{own} {} {program} engine \
         --engine {engine} --driver simulated --weights 96M --activations 32M --pause 600ms --hold 1500ms --jsonl \
         --output {own}/report",
        tree_image()
    );
    line.split_whitespace().map(str::to_owned).collect()
}

/// Nothing where the machine has no huge pages in its free memory.
fn contained(dir: &TempDir, engine: &str) -> Option<Contained> {
    let _pages = HugePages::allow()?;
    let output = support::path(dir, "recording.json");
    let name = Named::new("engine");
    let words = words(dir, &name.0, "-e SPARK_TRACE_SIMULATED_UNCHARGED=1", engine);
    let mut running = Running::start(&output, &words.iter().map(String::as_str).collect::<Vec<_>>());
    running.line(|line| line.contains("\"phase\":\"hold\""));
    let cgroup = wait_for("the container's cgroup", || cgroup::of_process(name.pid()));
    let charged = Files::of(&cgroup).number(names().usage);
    let recorded = running.finish().exited(0);
    let truth = json(support::path(dir, "report"));
    let log = support::path(dir, "log");
    fs::write(&log, &recorded.stdout).unwrap();
    let kv = spark_trace().args(["kv", &output, "--format", "json", "--log", &log]).output().unwrap();
    assert!(kv.status.success(), "{}", String::from_utf8_lossy(&kv.stderr));
    let kv = serde_json::from_slice(&kv.stdout).unwrap();
    Some(Contained { recorded, charged, truth, kv })
}

/// The only row of containers.
fn beyond(report: &Value) -> &Value {
    let rows = array(&report["containers"]);
    let [row] = rows else { panic!("{rows:?}") };
    assert_eq!(int(&row["limit"]), LIMIT);
    row
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_limit_that_does_not_bound_device_memory_is_stated_beside_it() {
    let dir = support::disk_dir();
    let Some(run) = contained(&dir, "vllm") else { return };
    let cache = int(&run.truth["cuda"]["engine"]["kv"]);
    assert!(WEIGHTS + cache > 2 * LIMIT, "{}", run.truth);

    // After the dummy run the engine has its weights.
    let row = beyond(&run.kv["b"]);
    assert_eq!(int(&row["uncharged"]), WEIGHTS);
    assert!(int(&row["charged"]) < LIMIT, "{row}");
    let computed = int(&run.kv["b"]["figures"]["kv"]);
    assert!(computed.abs_diff(cache) <= (cache / 100).unsigned_abs(), "{computed}, {}", run.truth);

    let at = during(&run.truth, "hold");
    let show = run.recorded.show_with(&["--at", &at]);
    let row = beyond(&show);
    // In eight parts, each in whole huge pages.
    let taken = WEIGHTS + cache;
    assert!(int(&row["uncharged"]).abs_diff(taken) <= 16, "{row}: {taken}");
    let charged = int(&row["charged"]);
    let off = charged.abs_diff(run.charged);
    assert!(
        off <= (2 * oracle::stock() + 4 * MIB).unsigned_abs(),
        "{charged}, the kernel has {}",
        run.charged
    );
    let text = run.recorded.table();
    let wanted = "the limit does not bound CUDA memory";
    assert!(text.contains("limit 256.0 MiB, charged ") && text.contains(wanted), "{text}");
}

/// The same engine with memory that is charged does not get beyond the limit: what the test above sees is not for want of one.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn the_limit_ends_an_engine_whose_device_memory_is_charged() {
    let dir = support::disk_dir();
    let name = Named::new("engine");
    let words = words(&dir, &name.0, "", "vllm");
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let recorded = support::record_words(&support::path(&dir, "recording.json"), &words);
    assert_ne!(recorded.code, Some(0), "{}", recorded.stdout);
}

/// Ollama reads its container's counter where there is one at the place that it looks at: under version 2 alone.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn ollama_s_reading_of_its_container() {
    let dir = support::disk_dir();
    let Some(run) = contained(&dir, "ollama") else { return };
    let engine = &run.truth["cuda"]["engine"];
    let budget = &run.kv["b"];
    assert_eq!(budget["engine"]["engine"], "ollama");
    assert_eq!(int(&budget["reading"]["free"]), int(&engine["baseline"]["available"]));
    let container = &engine["container"];
    assert_eq!(container["current"].is_i64(), names().v2, "{container}");
    let notes = budget["notes"].to_string();
    if names().v2 {
        let free = LIMIT - int(&container["current"]);
        assert_eq!(int(&container["max"]), LIMIT);
        assert_eq!(int(&budget["figures"]["container_free"]), free);
        assert!(notes.contains("the container's counter"), "{notes}");
    } else {
        assert!(budget["figures"]["container_free"].is_null(), "{}", budget["figures"]);
        assert!(!notes.contains("the container's counter"), "{notes}");
    }
    // The cache is that of the context, whatever the counter has.
    assert_eq!(int(&budget["figures"]["kv"]), int(&engine["kv"]));
    // It reads before it takes anything.
    assert!(array(&budget["containers"]).is_empty(), "{}", budget["containers"]);
    let show = run.recorded.show_with(&["--at", &during(&run.truth, "hold")]);
    assert!(int(&beyond(&show)["uncharged"]).abs_diff(WEIGHTS + int(&engine["kv"])) <= 16, "{show}");
}
