//! A program that calls the simulated CUDA driver, natively and in a container, where the driver's memory is pages of the modules
//! that stand in for NVIDIA's (testing/stand-in/): found by process, container, call and stack in both, and charged to nobody.
//! Emulated, simulated driver. Truth is the modules' own counters, the kernel's counter of the cgroup, and the workload's report.

use std::path::Path;

use serde_json::Value;
use tempfile::TempDir;

use crate::support::docker::{Named, tree_image};
use crate::support::ledger::source_row;
use crate::support::oracle::{Files, names, page_size};
use crate::support::stand_in::{held_by_modules, stand_in};
use crate::support::{
    self, Faults, MIB, Recorded, Running, array, cgroup, cuda_workload, int, json, spark_trace, text,
    wait_for,
};

/// What the program takes of the device, of pinned host memory, and as managed memory.
const DEVICE: i64 = (448 + 32 + 64) * MIB;
const PINNED: i64 = 64 * MIB;
const MANAGED: i64 = 96 * MIB;
const LINE: &str = "cuda-alloc --driver simulated --query --jsonl --device 56Mx8 --pinned 32M --registered 32M --managed 96M \
                    --async 32M --vmm 64M --hold-each 500ms --hold 3s";
/// What a process has beside that, with its files.
const BESIDE: i64 = 96 * MIB;

struct Held {
    name: &'static str,
    recorded: Recorded,
    truth: Value,
    pid: i64,
    cgroup: String,
    /// Bytes of the driver, by the modules, while the program held everything.
    sysmem: i64,
    managed: i64,
    /// Bytes that the cgroup was charged then, by the kernel.
    charged: i64,
}

fn held(dir: &TempDir, name: &'static str, command: &str, container: Option<&Named>) -> Held {
    let path = |end: &str| support::path(dir, &format!("{name}.{end}"));
    let (report, page_size) = (path("report"), page_size().to_string());
    let library = Path::new(&cuda_workload()).with_file_name("libspark_trace_simulated_cuda.so");
    let line = format!("--cuda-library {} -- {command} {LINE} --output {report}", library.display());
    let words: Vec<&str> = line.split_whitespace().collect();
    let mut tracer = spark_trace();
    tracer.env("SPARK_TRACE_SIMULATED_STAND_IN", "1").env("SPARK_TRACE_SIMULATED_PAGE_SIZE", page_size);
    let mut running = Running::start_as(tracer, &path("json"), &words);
    let phase = running.phase("hold");
    // In a container it has another number by its own account.
    let pid = container.map_or_else(|| u32::try_from(int(&phase["pid"])).unwrap(), Named::pid);
    let cgroup = wait_for("the program's cgroup", || cgroup::of_process(pid));
    let [sysmem, _, managed] = held_by_modules();
    let charged = Files::of(&cgroup).number(names().usage);
    let recorded = running.finish().exited(0);
    Held { name, recorded, truth: json(report), pid: pid.into(), cgroup, sysmem, managed, charged }
}

/// The answer of cuMemGetInfo in a phase.
fn answer<'a>(truth: &'a Value, phase: &str) -> &'a Value {
    let answers = array(&truth["cuda"]["mem_get_info"]);
    answers.iter().find(|answer| answer["phase"] == phase).unwrap()
}

fn check(held: &Held, faults: &mut Faults) {
    let name = held.name;
    let (recording, then) = (held.recorded.recording(), answer(&held.truth, "hold"));
    let fall = int(&answer(&held.truth, "context")["free"]) - int(&then["free"]);
    let show = held.recorded.show_with(&["--at", &format!("@{}", int(&then["time_ns"]))]);
    let bytes = |plane: &str, slug: &str| int(&source_row(&show["planes"][plane], slug)["bytes"]);
    let (sysmem, unexplained) =
        (bytes("system", "nvidia-sysmem"), int(&show["planes"]["system"]["residual"]));

    // At the answer of cuMemGetInfo.
    faults.near(&format!("{name}: nvidia-sysmem"), sysmem, held.sysmem);
    faults.near(&format!("{name}: nvidia-managed"), bytes("system", "nvidia-managed"), MANAGED);
    faults
        .expect(unexplained.abs() <= fall / 200, || format!("{name}: {unexplained} of {fall} unattributed"));
    // Managed memory is the cgroup's, and the rest of the driver's is nobody's.
    if cgroup::memory_root().1 {
        faults.near(&format!("{name}: managed, charged"), bytes("cgroup", "nvidia-managed"), MANAGED);
    }
    let by_tool = int(&show["planes"]["cgroup"]["expected"]);
    for (whose, charged) in [("the kernel", held.charged), ("the ledger", by_tool)] {
        let expected = MANAGED + PINNED..MANAGED + PINNED + BESIDE;
        faults.expect(expected.contains(&charged), || format!("{name}: {charged} charged by {whose}"));
    }

    // By stack and container.
    let rows: Vec<_> = array(&show["stacks"]).iter().filter(|row| row["source"] == "nvidia-sysmem").collect();
    let by_stacks: i64 = rows.iter().map(|row| int(&row["bytes"])).sum();
    faults.near(&format!("{name}: by stacks of the driver"), by_stacks, held.sysmem);
    for row in rows {
        let is_its = row["charged"] == false && row["cgroups"] == serde_json::json!([held.cgroup]);
        faults.expect(is_its, || format!("{name}: {}: {row}", held.cgroup));
    }
    // By process and call.
    let calls = array(&recording["provenance"]["cuda_allocs"]).iter();
    let kinds = ["device", "async", "physical"];
    let calls: Vec<_> = calls.filter(|row| kinds.contains(&text(&row["kind"]))).collect();
    let by_calls: i64 = calls.iter().map(|row| int(&row["bytes_allocated"])).sum();
    for row in calls {
        faults.expect(row["pid"] == held.pid && !row["stack"].is_null(), || format!("{name}: call: {row}"));
    }
    faults.expect(by_calls == DEVICE, || format!("{name}: {by_calls} bytes by calls"));
    faults.expect(by_calls * 100 >= held.sysmem * 99, || format!("{name}: {by_calls} of {}", held.sysmem));
    let process = array(&show["processes"]).iter().find(|row| row["pid"] == held.pid);
    faults.expect(process.is_some_and(|row| row["target"] == true), || format!("{name}: {process:?}"));
    println!(
        "{name}: nvidia-sysmem {sysmem} of {}, {by_calls} by calls, {by_stacks} by stacks; {} charged; MemFree fell by {fall}, of \
         which {unexplained} unattributed",
        held.sysmem, held.charged
    );
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn memory_of_cuda_is_followed_to_the_drivers_pages_in_a_container_as_natively() {
    let Some(_modules) = stand_in(false) else { return };
    let dir = support::disk_dir();
    let mut faults = Faults::default();
    let program = cuda_workload();
    let native = held(&dir, "native", &program, None);
    faults.expect(held_by_modules() == [0; 3], || "native: not all of it was given back".to_owned());
    let container = Named::new("stand-in-cuda");
    let (shared, own) = (Path::new(&program).parent().unwrap().display(), dir.path().display());
    // The driver's nodes and libraries, as NVIDIA's container toolkit puts them there.
    let line = format!(
        "docker run --rm --name {} --network=none --device=/dev/nvidia-stand-in --device=/dev/nvidia-uvm-stand-in \
         -e SPARK_TRACE_SIMULATED_STAND_IN=1 -e SPARK_TRACE_SIMULATED_PAGE_SIZE={} -v /usr:/usr:ro \
         -v {shared}:{shared}:ro -v {own}:{own} {} {program}",
        container.0,
        page_size(),
        tree_image()
    );
    let contained = held(&dir, "container", &line, Some(&container));
    faults.expect(native.cgroup != contained.cgroup, || format!("both are in {}", native.cgroup));
    for run in [&native, &contained] {
        faults.expect(run.managed == MANAGED && run.sysmem >= DEVICE, || format!("{}: not staged", run.name));
        check(run, &mut faults);
    }
    // The driver took as much for both.
    let diff = native.recorded.diff_with(&contained.recorded, &["--plane", "system"]);
    for slug in ["nvidia-sysmem", "nvidia-managed"] {
        let delta = int(&source_row(&diff, slug)["delta_bytes"]);
        faults.expect(delta.abs() <= MIB, || format!("{slug} differs by {delta}"));
    }
    faults.finish();
}
