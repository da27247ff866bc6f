//! What goes through a real CUDA driver, on a machine with an NVIDIA GPU. Truth is PyTorch's own accounting, the
//! workload's report, and the kernel's and NVML's counters.
//!
//! `cargo xtask gpu` runs these. Where something is missing that a test needs it says so and passes.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use crate::support::ledger::source_row;
use crate::support::{self, Faults, MIB, Recorded, Running, array, int, text};

const GIB: i64 = 1 << 30;

/// Says why a test does nothing.
macro_rules! skip {
    ($($reason:tt)*) => {{
        println!("SKIPPED: {}", format_args!($($reason)*));
        return;
    }};
}

fn has_gpu() -> bool {
    Path::new("/dev/nvidia0").exists()
}

/// The folder that holds the Python program.
fn files() -> PathBuf {
    std::env::var_os("SPARK_TRACE_GPU_FILES")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/gpu/files"), PathBuf::from)
}

/// A Python that has PyTorch.
fn python() -> Option<String> {
    let python = std::env::var("SPARK_TRACE_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let script = "import sys, torch; assert torch.cuda.is_available(); print(sys.executable)";
    let output = Command::new(python).args(["-c", script]).output().ok()?;
    output.status.success().then(|| String::from_utf8(output.stdout).unwrap().trim().to_owned())
}

/// How a container comes to the GPU without NVIDIA's toolkit: the devices, and the host's userland with the driver's
/// libraries. Arguments before the image's name.
fn container(files: &Path) -> Option<Vec<String>> {
    let image = std::env::var("SPARK_TRACE_IMAGE").ok()?;
    let mut words: Vec<String> =
        ["docker", "run", "--rm", "--network=none", "--cap-drop=SYS_RESOURCE"].map(String::from).into();
    for device in ["nvidia0", "nvidiactl", "nvidia-uvm", "nvidia-uvm-tools"] {
        words.push(format!("--device=/dev/{device}"));
    }
    for directory in ["/usr", "/opt", "/etc"] {
        words.push(format!("--volume={directory}:{directory}:ro"));
    }
    words.push(format!("--volume={}:/gpu:ro", files.display()));
    words.push(image);
    Some(words)
}

/// Records a command whose last line of output is a JSON object.
fn recorded(dir: &TempDir, name: &str, command: &[String]) -> (Recorded, Value) {
    let mut words = vec!["--"];
    words.extend(command.iter().map(String::as_str));
    let recorded = Running::start(&support::path(dir, name), &words).finish().exited(0);
    let truth = recorded.said();
    (recorded, truth)
}

fn total<'a>(recording: &'a Value, kind: &str) -> &'a Value {
    let totals = array(&recording["provenance"]["cuda_totals"]);
    let found = totals.iter().find(|t| t["pid"].is_null() && t["kind"] == kind);
    found.unwrap_or_else(|| panic!("no total of {kind}: {totals:?}"))
}

/// All that PyTorch's own accounting can say of a recording of `torch_truth.py`.
fn check_torch(what: &str, recorded: &Recorded, truth: &Value) {
    let (recording, show) = (recorded.recording(), recorded.show());
    let mut faults = Faults::default();
    faults.expect(int(&recording["health"]["lost_total"]) == 0, || {
        format!("losses {}", recording["health"]["losses"])
    });

    // Bytes by kind: exact.
    for (kind, name) in [
        ("device-all", "device_peak"),
        ("pinned", "pinned"),
        ("managed", "managed"),
        ("registered", "registered"),
    ] {
        let (seen, said) = (int(&total(&recording, kind)["peak"]), int(&truth[name]));
        faults.expect(seen == said, || format!("{kind}: {seen} bytes, PyTorch says {said}"));
    }
    let live = array(&recording["samples"]["cuda"]["columns"]["live.device-all"]);
    let left = live.iter().rev().filter_map(Value::as_i64).find(|bytes| *bytes > 0);
    faults.expect(left == Some(int(&truth["device_after_frees"])), || {
        format!("after the frees {left:?}, PyTorch says {}", truth["device_after_frees"])
    });
    faults.expect(int(&total(&recording, "device")["frees"]) == 20, || {
        format!("20 tensors were freed: {}", total(&recording, "device"))
    });

    // The answers that it got.
    let queries = array(&recording["provenance"]["queries"]);
    let answers: Vec<_> = queries
        .iter()
        .filter(|q| q["interface"] == "cuMemGetInfo_v2" && q["result"] == 0)
        .map(|q| (int(&q["values"]["free"]), int(&q["values"]["total"])))
        .collect();
    for got in array(&truth["mem_get_info"]) {
        let got = (int(&got["free"]), int(&got["total"]));
        faults
            .expect(answers.contains(&got), || format!("{got:?} was answered and is not among {answers:?}"));
    }

    // Refused: PyTorch frees its cache and tries again before it gives up.
    let failures = array(&recording["provenance"]["cuda_failures"]);
    let refused = failures.iter().find(|f| f["size"] == truth["out_of_memory"]);
    faults.expect(
        refused.is_some_and(|f| f["result_name"] == "CUDA_ERROR_OUT_OF_MEMORY" && f["stack"].is_i64()),
        || format!("the refused allocation is not among {failures:?}"),
    );

    // The planes close.
    for plane in ["system", "cgroup"] {
        let plane_report = &show["planes"][plane];
        let percent = plane_report["residual_percent"].as_f64().unwrap_or(100.0);
        println!("{what}: {plane} plane: unattributed {percent:.3} % of the growth");
        faults.expect(percent.abs() <= 1.0, || {
            format!(
                "{plane} plane: {} unattributed of {}",
                plane_report["residual"], plane_report["expected"]
            )
        });
    }
    let device = &array(&show["planes"]["devices"])[0];
    let percent = device["residual_percent"].as_f64().unwrap_or(100.0);
    println!("{what}: device plane: unattributed {percent:.3} % of the growth");
    faults.expect(percent.abs() <= 1.0, || format!("device plane: {}", device["residual"]));

    // Whose pages they are, and whether they are charged: as it was seen.
    let system = &show["planes"]["system"];
    let row = |slug: &str| source_row(system, slug);
    let seen = |slug: &str, name: &str| row(slug)[name].as_i64().unwrap_or(0);
    faults.near("shmem-pinned", int(&row("shmem-pinned")["bytes_at_peak"]), int(&truth["pinned"]));
    faults.near("anon-pinned", int(&row("anon-pinned")["bytes_at_peak"]), int(&truth["registered"]));
    let managed = int(&row("nvidia-managed")["bytes_at_peak"]);
    faults.expect((GIB..GIB + 32 * MIB).contains(&managed), || format!("nvidia-managed {managed}"));
    let (charged, uncharged) =
        (seen("nvidia-managed", "observed_charged"), seen("nvidia-managed", "observed_uncharged"));
    faults.expect(charged >= GIB && uncharged < charged / 50, || {
        format!("managed memory: {charged} charged, {uncharged} not")
    });
    let (charged, uncharged) =
        (seen("nvidia-sysmem", "observed_charged"), seen("nvidia-sysmem", "observed_uncharged"));
    faults.expect(charged == 0 && uncharged > 0, || format!("driver: {charged} charged, {uncharged} not"));
    faults.finish();
}

#[test]
#[ignore = "needs an NVIDIA GPU: cargo xtask gpu"]
fn pytorch_natively() {
    if !has_gpu() {
        skip!("no NVIDIA GPU");
    }
    let Some(python) = python() else { skip!("no Python with PyTorch") };
    let dir = support::disk_dir();
    let script = files().join("torch_truth.py").display().to_string();
    let (recorded, truth) = recorded(&dir, "torch.json", &[python, script]);
    check_torch("native", &recorded, &truth);
}

#[test]
#[ignore = "needs an NVIDIA GPU: cargo xtask gpu"]
fn pytorch_in_docker() {
    if !has_gpu() {
        skip!("no NVIDIA GPU");
    }
    let Some(python) = python() else { skip!("no Python with PyTorch") };
    let Some(mut command) = container(&files()) else { skip!("no Docker") };
    let dir = support::disk_dir();
    command.extend([python, "/gpu/torch_truth.py".to_owned()]);
    let (recorded, truth) = recorded(&dir, "torch.json", &command);
    assert_eq!(recorded.recording()["target"]["kind"], "container");
    check_torch("docker", &recorded, &truth);
}

#[test]
#[ignore = "needs an NVIDIA GPU: cargo xtask gpu"]
fn every_kind_of_the_driver_has_the_requested_sizes() {
    if !has_gpu() {
        skip!("no NVIDIA GPU");
    }
    let Ok(workload) = std::env::var("SPARK_TRACE_CUDA_WORKLOAD") else {
        skip!("no SPARK_TRACE_CUDA_WORKLOAD")
    };
    let dir = support::disk_dir();
    let line = format!(
        "{workload} cuda-alloc --device 1G --device 64Mx10 --pinned 256M --host-alloc 128M --registered 128M \
         --managed 256M --async 64Mx2 --vmm 256M --oom --query --hold 1s"
    );
    let command: Vec<String> = line.split_whitespace().map(String::from).collect();
    let (recorded, report) = recorded(&dir, "alloc.json", &command);
    let recording = recorded.recording();
    assert_eq!(int(&recording["health"]["lost_total"]), 0, "{}", recording["health"]["losses"]);
    let counts = |kind: &str| {
        let total = total(&recording, kind);
        ["peak", "live", "failures"].map(|name| int(&total[name]))
    };
    // The workload's kernel needs no device memory of its own beside these.
    assert_eq!(counts("pinned"), [384 * MIB, 0, 0]);
    assert_eq!(counts("registered"), [128 * MIB, 0, 0]);
    assert_eq!(counts("managed"), [256 * MIB, 0, 0]);
    assert_eq!(counts("async"), [128 * MIB, 0, 0]);
    assert_eq!(counts("physical"), [256 * MIB, 0, 0]);
    assert_eq!(counts("device"), [GIB + 640 * MIB, 0, 1]);

    let answers: Vec<_> = array(&report["cuda"]["mem_get_info"])
        .iter()
        .map(|answers| (int(&answers["free"]), int(&answers["total"])))
        .collect();
    let queries = array(&recording["provenance"]["queries"]);
    let seen: Vec<_> = queries
        .iter()
        .filter(|q| q["interface"] == "cuMemGetInfo_v2")
        .map(|q| (int(&q["values"]["free"]), int(&q["values"]["total"])))
        .collect();
    assert_eq!(seen, answers);
    let library = array(&recording["health"]["libraries"])
        .iter()
        .find(|l| l["library"] == "libcuda" && l["verdict"] == "ok")
        .expect("no driver was attached to");
    assert_eq!(library["simulated"], false);
    println!("{}: {} functions, missing {}", text(&library["path"]), library["attached"], library["missing"]);
}
