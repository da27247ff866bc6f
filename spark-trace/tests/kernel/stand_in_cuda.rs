//! Programs that call the simulated CUDA driver where its memory is pages of the modules that stand in for NVIDIA's
//! (testing/stand-in/): from the call in the program to the page of the kernel. Emulated, simulated driver. Truth is the
//! modules' own counters, MemFree, and the workload's report.

use std::fs;

use serde_json::Value;
use tempfile::TempDir;

use crate::support::ledger::source_row;
use crate::support::stand_in::{during, held_by_modules, pooled, stand_in};
use crate::support::{self, Faults, MIB, Recorded, Running, array, cgroup, cuda_workload, int, json, text};

/// What a context takes for itself, in runs of pages (testing/simulated-cuda/src/stand_in.rs).
const CHANNELS: i64 = 4 * MIB;
const UNIFIED: &str = "gpus 1\nunified 0\n";

struct Held {
    recorded: Recorded,
    truth: Value,
    /// Of the modules, while the program held everything.
    sysmem: i64,
    pinned: i64,
    managed: i64,
}

/// Records `cuda-alloc LINE` with a GPU that NVML knows no memory of.
fn held(dir: &TempDir, name: &str, page_size: i64, line: &str) -> Held {
    let path = |end: &str| support::path(dir, &format!("{name}.{end}"));
    let (state, report) = (path("nvml"), path("report"));
    fs::write(&state, UNIFIED).unwrap();
    let workload = std::path::PathBuf::from(cuda_workload());
    let driver = workload.with_file_name("libspark_trace_simulated_cuda.so");
    let mut command = support::spark_trace();
    command.env("SPARK_TRACE_SIMULATED_STAND_IN", "1").env("SPARK_TRACE_SIMULATED_NVML", &state);
    command
        .env("SPARK_TRACE_SIMULATED_GPUS", "1")
        .env("SPARK_TRACE_SIMULATED_PAGE_SIZE", page_size.to_string());
    let line = format!(
        "--gpu-interval 50ms --nvml {} --cuda-library {} -- {} cuda-alloc --driver simulated --query --jsonl --output {report} \
         {line}",
        super::nvml::library().display(),
        driver.display(),
        workload.display(),
    );
    let words: Vec<&str> = line.split_whitespace().collect();
    let mut running = Running::start_as(command, &path("json"), &words);
    running.phase("hold");
    let [sysmem, pinned, managed] = held_by_modules();
    let recorded = running.finish().exited(0);
    Held { recorded, truth: json(report), sysmem, pinned, managed }
}

/// The answer of cuMemGetInfo in a phase.
fn answer<'a>(truth: &'a Value, phase: &str) -> &'a Value {
    let answers = array(&truth["cuda"]["mem_get_info"]);
    answers.iter().find(|answer| answer["phase"] == phase).unwrap()
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn memory_of_cuda_is_followed_from_the_call_to_the_drivers_pages() {
    let Some(_modules) = stand_in(false) else { return };
    let dir = support::disk_dir();
    let (device, host, managed) = ((448 + 32 + 64) * MIB, 64 * MIB, 96 * MIB);
    let line = "--device 56Mx8 --pinned 32M --registered 32M --managed 96M --async 32M --vmm 64M --hold-each 500ms --hold 3s";
    let held = held(&dir, "a", support::oracle::page_size(), line);
    let (recording, truth) = (held.recorded.recording(), &held.truth);
    let mut faults = Faults::default();
    // The driver and the modules have what was requested of them.
    assert_eq!([held.sysmem, held.pinned, held.managed], [device + CHANNELS, host, managed]);
    assert_eq!(held_by_modules(), [0; 3], "all of it is given back");
    assert_eq!(truth["cuda"]["info"]["stand_in"], true);

    // At the answer of cuMemGetInfo, which is MemFree.
    let [before, then] = ["context", "hold"].map(|phase| answer(truth, phase));
    let mem_free = [&then["mem_free_before"], &then["mem_free_after"]].map(int);
    let free = int(&then["free"]);
    faults.expect((mem_free[0].min(mem_free[1])..=mem_free[0].max(mem_free[1])).contains(&free), || {
        format!("{free} bytes are free, MemFree is {mem_free:?}")
    });
    let (taken, fall) = (device + host + managed, int(&before["free"]) - free);
    // Lists of pages and page tables are 32 bytes for each, and the recorder takes some: the ledger has what.
    faults.expect((taken..taken + taken / 20).contains(&fall), || {
        format!("MemFree fell by {fall}, for {taken}")
    });
    let show = held.recorded.show_with(&["--at", &format!("@{}", int(&then["time_ns"]))]);
    let system = &show["planes"]["system"];
    let bytes = |plane: &str, slug: &str| int(&source_row(&show["planes"][plane], slug)["bytes"]);
    let sysmem = bytes("system", "nvidia-sysmem");
    let unexplained = int(&system["residual"]);
    println!(
        "nvidia-sysmem {sysmem} of {}, MemFree fell by {fall}, unattributed {unexplained} of growth {}",
        held.sysmem, system["expected"]
    );
    faults.near("nvidia-sysmem", sysmem, held.sysmem);
    faults.near("nvidia-managed", bytes("system", "nvidia-managed"), managed);
    faults.expect(unexplained.abs() <= fall / 200, || format!("{unexplained} of {fall} unattributed"));
    if cgroup::memory_root().1 {
        faults.near("nvidia-managed of the cgroup", bytes("cgroup", "nvidia-managed"), managed);
    }
    let charged = int(&show["planes"]["cgroup"]["expected"]);
    faults.expect((managed + host..managed + host + 64 * MIB).contains(&charged), || {
        format!("{charged} bytes are charged")
    });

    // By stacks of the kernel, of the target's cgroup alone; nobody is charged.
    let rows: Vec<_> = array(&show["stacks"]).iter().filter(|row| row["source"] == "nvidia-sysmem").collect();
    faults.near("by stacks of the driver", rows.iter().map(|row| int(&row["bytes"])).sum(), held.sysmem);
    let target = serde_json::json!([text(&recording["target"]["cgroups"][0]["path"])]);
    for row in rows {
        faults.expect(row["charged"] == false && row["cgroups"] == target, || format!("stack: {row}"));
    }
    // By process and call: all but what the context has for itself.
    let calls = array(&recording["provenance"]["cuda_allocs"]).iter();
    let of_device: Vec<_> =
        calls.filter(|row| ["device", "async", "physical"].contains(&text(&row["kind"]))).collect();
    let by_calls: i64 = of_device.iter().map(|row| int(&row["bytes_allocated"])).sum();
    for row in of_device {
        faults.expect(row["pid"] == truth["pid"] && !row["stack"].is_null(), || format!("call: {row}"));
    }
    faults.expect(by_calls == device, || format!("{by_calls} bytes by calls of {device}"));
    faults.expect(by_calls * 100 >= sysmem * 99, || format!("calls have {by_calls} of {sysmem}"));
    let requests = array(&show["driver_allocs"]).iter();
    let live: i64 = requests
        .filter(|row| row["pid"] == truth["pid"] && row["kind"] == "sysmem")
        .map(|row| int(&row["live"]))
        .sum();
    println!("{by_calls} bytes by calls of CUDA, {live} by requests to the driver");
    let hook =
        array(&recording["health"]["hooks"]).iter().find(|hook| hook["name"] == "nvidia-alloc").unwrap();
    if hook["verdict"] == "ok" {
        faults.near("requests to the driver", live, held.sysmem);
    }
    // NVML has no figure of the GPU, and one of the process.
    faults.expect(recording["host"]["gpus"][0]["memory_total"].is_null(), || {
        recording["host"]["gpus"].to_string()
    });
    let used = format!("process.{}.used", truth["pid"]);
    let by_nvml = array(&recording["samples"]["devices"][0]["columns"][&used]);
    let most = by_nvml.iter().filter_map(Value::as_i64).max();
    faults.expect(most == Some(held.sysmem), || format!("NVML has {most:?} of the process"));
    for said in [&held.recorded.stderr, &held.recorded.table()] {
        faults.expect(said.contains("STAND-IN"), || format!("does not say that it is a stand-in: {said}"));
    }
    faults.finish();
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn memory_of_cuda_that_was_freed_is_the_pools() {
    let Some(_modules) = stand_in(true) else { return };
    let dir = support::disk_dir();
    // The size that every page size has a pool for.
    let line = "--device 32Mx4 --vmm 64M --hold 1s --hold-release 1500ms";
    let held = held(&dir, "a", 64 << 10, line);
    let device = 192 * MIB;
    let mut faults = Faults::default();
    for (phase, in_use, in_pool) in [("hold", device + CHANNELS, 0), ("release", CHANNELS, device)] {
        let show = held.recorded.show_with(&["--at", &during(&held.truth, phase)]);
        let then = |slug| int(&source_row(&show["planes"]["system"], slug)["bytes"]);
        faults.near(&format!("{phase}: in use"), then("nvidia-sysmem"), in_use);
        faults.near(&format!("{phase}: in the pool"), then("nvidia-pool"), in_pool);
    }
    // The runs of pages of the context are of a size that has no pool.
    faults.expect(pooled() == device, || format!("{} bytes are in the pools", pooled()));
    fs::write("/proc/sys/vm/drop_caches", "2").unwrap();
    faults.finish();
}
