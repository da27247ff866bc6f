//! The device plane of a recording, against a simulated NVML: a program plays the part of driver and GPU, everything
//! from loading the library on is real. A machine with a GPU is not needed.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::support::ledger::{phase_ns, source_row};
use crate::support::{self, MIB, Recorded, Running, array, cuda_workload, int, spark_trace, text};

/// The simulated library, which cargo builds beside this program.
pub(super) fn library() -> PathBuf {
    std::env::current_exe().unwrap().with_file_name("libspark_trace_simulated_nvml.so")
}

/// Records a shell script; `state` is what the library answers at first, and the script may add to it in `$STATE`.
fn recorded(dir: &tempfile::TempDir, state: &str, script: &str) -> Recorded {
    let (file, output) = (support::path(dir, "state"), support::path(dir, "gpu.json"));
    std::fs::write(&file, state).unwrap();
    let mut command = spark_trace();
    command.env("SPARK_TRACE_SIMULATED_NVML", &file).env("STATE", &file);
    let library = library();
    let words =
        ["--gpu-interval", "20ms", "--nvml", library.to_str().unwrap(), "--", "/bin/sh", "-c", script];
    Running::start_as(command, &output, &words).finish().exited(0)
}

fn column<'a>(device: &'a Value, name: &str) -> Vec<&'a Value> {
    array(&device["columns"][name]).iter().collect()
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_targets_device_memory_is_distinguished_from_that_of_others() {
    let dir = support::disk_dir();
    let script = "echo process 0 $$ 1073741824 >> $STATE; echo busy 0 90 >> $STATE; sleep 0.4; \
                  echo process 0 $$ 0 >> $STATE; echo busy 0 0 >> $STATE; sleep 0.2";
    // Nobody has the pid 4194305: it is above the kernel's limit.
    let recorded = recorded(&dir, "process 0 4194305 104857600\n", script);
    let (recording, show) = (recorded.recording(), recorded.show());

    let host = &recording["host"];
    assert_eq!(host["nvidia"]["simulated"], true);
    assert_eq!(
        (&host["gpus"][0]["name"], int(&host["gpus"][0]["memory_total"])),
        (&"Simulated GPU 0".into(), 8 << 30)
    );
    let verdict = &recording["health"]["sources"][0];
    assert_eq!((&verdict["name"], &verdict["verdict"]), (&"nvml".into(), &"ok".into()), "{verdict}");

    let device = &recording["samples"]["devices"][0];
    assert_eq!(device["uuid"], "GPU-73696d75-6c61-7465-642d-4750552d3030");
    let (begins, ends) = (array(&device["begin_ns"]), array(&device["end_ns"]));
    assert!(begins.iter().zip(ends).all(|(begin, end)| int(begin) <= int(end)));
    assert!(int(&ends[0]) <= int(&recording["target"]["started_ns"]), "none before the target started");
    assert!(int(begins.last().unwrap()) >= phase_ns(&recording, "exit"), "none after the command ended");
    // One each 20 ms for 0.6 s, or each second one where the machine is busy.
    let readings = int(&recording["cost"]["nvml"]["readings"]);
    assert!(readings >= 10 && readings == begins.len() as i64, "{readings} readings");
    assert!(int(&recording["cost"]["nvml"]["calls_ns"]) > 0);
    assert_eq!(column(device, "process.4194305.used").len(), begins.len());
    assert!(column(device, "utilization.gpu").contains(&&90.into()));

    let plane = &show["planes"]["devices"][0];
    let row = |slug: &str| source_row(plane, slug);
    let known = &recording["provenance"]["processes"];
    assert_eq!(int(&row("gpu-context")["bytes_at_peak"]), 1024 * MIB, "{device:#} {plane:#} {known:#}");
    assert_eq!(
        (int(&row("gpu-context")["bytes_at_start"]), int(&row("gpu-context")["bytes_at_end"])),
        (0, 0)
    );
    assert_eq!(int(&row("gpu-other-processes")["bytes_at_peak"]), 100 * MIB);
    assert_eq!(int(&row("gpu-reserved")["bytes_at_peak"]), 100 * MIB);
    assert_eq!(int(&row("gpu-allocated")["bytes_at_peak"]), 0, "no CUDA driver was used");
    assert_eq!((int(&plane["expected"]), int(&plane["residual"])), (1024 * MIB, 0));
    assert_eq!(int(&plane["level"]["residual"]), 16 * MIB);
    let processes = array(&plane["device"]["processes"]);
    assert_eq!((&processes[0]["comm"], &processes[0]["target"]), (&"sh".into(), &true.into()));
    assert_eq!(processes[1]["target"], false);
    let table = recorded.table();
    assert!(table.contains("GPU 0 Simulated GPU 0 (simulated)") && table.contains("sw-power-cap"), "{table}");
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_process_on_two_gpus_has_a_row_on_each() {
    let dir = support::disk_dir();
    let workload = cuda_workload();
    let script = format!(
        "echo process 0 $$ 1073741824 >> $STATE; echo process 1 $$ 2147483648 >> $STATE; \
         exec {workload} cuda-alloc --driver simulated --device 16M --hold 500ms > /dev/null"
    );
    let recorded = recorded(&dir, "gpus 2\n", &script);
    let show = recorded.show();
    for (index, in_use) in [(0, 1024 * MIB), (1, 2048 * MIB)] {
        let plane = &show["planes"]["devices"][index];
        let at_peak = |slug: &str| int(&source_row(plane, slug)["bytes_at_peak"]);
        let rows = ["gpu-shared-process", "gpu-allocated"].map(at_peak);
        // Before its first call it is all context; the peak is the first reading that stands so high.
        assert_eq!(rows[0] + at_peak("gpu-context"), in_use, "{plane:#}");
        assert_eq!(rows[1], 0, "which GPU its 16 MiB are on is not known");
        assert_eq!(int(&plane["residual"]), 0, "{plane:#}");
        let mixed = column(&recorded.recording()["samples"]["devices"][index], "cuda.mixed")
            .iter()
            .filter_map(|value| value.as_i64())
            .max();
        assert_eq!(mixed, Some(16 * MIB), "they may be on either");
    }
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn memory_of_a_process_from_before_the_trace_is_called_so() {
    let dir = support::disk_dir();
    let (state, output) = (support::path(&dir, "state"), support::path(&dir, "gpu.json"));
    let process = support::process::Other::start(std::process::Command::new("sleep").arg("600"));
    let pid = process.pid();
    // In one step: a reading in between would find that the process is gone.
    let says = |bytes: i64| {
        let next = support::path(&dir, "next");
        std::fs::write(&next, format!("process 0 {pid} {bytes}\n")).unwrap();
        std::fs::rename(&next, &state).unwrap();
    };
    says(1024 * MIB);
    let mut command = spark_trace();
    command.env("SPARK_TRACE_SIMULATED_NVML", &state);
    let (library, pid) = (library(), pid.to_string());
    let words = ["--gpu-interval", "20ms", "--nvml", library.to_str().unwrap(), "--pid", &pid];
    let running = Running::start_as(command, &output, &words);
    let has_read = |bytes: i64| {
        let column = format!("process.{pid}.used");
        running.has_entry("a reading of the GPU", |entry| {
            entry["entry"] == "sample" && entry["values"][&column] == bytes
        });
    };
    has_read(1024 * MIB);
    says(1536 * MIB);
    has_read(1536 * MIB);
    says(700 * MIB);
    has_read(700 * MIB);
    running.signal(libc::SIGINT);
    let show = running.finish().exited(0).show();
    let plane = &show["planes"]["devices"][0];
    let row = |slug: &str, when: &str| int(&source_row(plane, slug)[when]);
    let before = ["bytes_at_start", "bytes_at_peak", "bytes_at_end"].map(|when| row("gpu-before", when));
    assert_eq!(before, [1024 * MIB, 1024 * MIB, 700 * MIB], "{plane:#}");
    assert_eq!((row("gpu-context", "bytes_at_peak"), row("gpu-context", "bytes_at_end")), (512 * MIB, 0));
    assert_eq!(int(&plane["residual"]), 0);
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_gpu_without_memory_of_its_own_has_processes_and_no_figure() {
    let dir = support::disk_dir();
    let script = "echo process 0 $$ 1073741824 >> $STATE; sleep 0.2";
    let recorded = recorded(&dir, "unified 0\n", script);
    let (recording, show) = (recorded.recording(), recorded.show());
    assert!(recording["host"]["gpus"][0]["memory_total"].is_null());
    let device = &recording["samples"]["devices"][0];
    assert!(device["columns"].get("memory.total").is_none(), "unknown is no column of zeroes");
    let absent: Vec<_> = array(&device["absent"]).iter().map(|absent| text(&absent["reason"])).collect();
    assert!(absent.contains(&"NVML: not supported (nvmlDeviceGetMemoryInfo_v2)"), "{absent:?}");
    let plane = &show["planes"]["devices"][0];
    assert!(plane["expected"].is_null() && plane["level"]["residual"].is_null());
    assert_eq!(int(&source_row(plane, "gpu-context")["bytes_at_peak"]), 1024 * MIB);
    assert!(text(&plane["device"]["note"]).contains("system memory"));
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn memory_of_the_driver_from_before_is_system_memory_where_the_gpu_has_none_of_its_own() {
    let dir = support::disk_dir();
    let script = "sleep 0.3; echo process 0 4194305 104857600 >> $STATE; sleep 0.3";
    let recorded = recorded(&dir, "unified 0\nprocess 0 4194305 314572800\n", script);
    let system = &recorded.recording()["samples"]["system"];
    let before: Vec<_> =
        array(&system["columns"]["driver.nvidia_before"]).iter().filter_map(Value::as_i64).collect();
    assert_eq!((before.first(), before.last()), (Some(&(300 * MIB)), Some(&(100 * MIB))), "{before:?}");
    let show = recorded.show();
    let row = source_row(&show["planes"]["system"], "nvidia-sysmem");
    assert_eq!((int(&row["bytes_at_start"]), int(&row["bytes_at_end"])), (300 * MIB, 100 * MIB));
}

/// The line that begins with a GPU.
fn gpu_line(output: &std::process::Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    let mut lines = text.lines().skip_while(|line| !line.starts_with("GPU 0"));
    let first = lines.next().unwrap_or_else(|| panic!("{text}")).to_owned();
    // What a line goes on with is indented.
    lines.take_while(|line| line.starts_with("  ")).fold(first, |all, line| format!("{all} {}", line.trim()))
}

/// A GB10 has no memory of its own, and NVML no figure of it but those of its processes. They are the machine's memory, so
/// all figures together are what the machine has in use.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn one_line_says_who_uses_the_memory_of_a_gpu_that_nvml_has_no_figure_of() {
    let dir = support::disk_dir();
    let state = support::path(&dir, "state");
    let process = support::process::Other::start(std::process::Command::new("sleep").arg("600"));
    let (own, other) = (process.pid(), 4_194_305);
    std::fs::write(&state, format!("unified 0\nprocess 0 {own} 209715200\nprocess 0 {other} 104857600\n"))
        .unwrap();
    let nvml = library();
    let run = |words: &[&str]| {
        let mut command = spark_trace();
        command
            .env("SPARK_TRACE_SIMULATED_NVML", &state)
            .args(words)
            .args(["--nvml", nvml.to_str().unwrap()]);
        command.output().unwrap()
    };
    let by = format!("sleep ({own}) 200.0 MiB, process {other} 100.0 MiB; host ");
    for words in [&["snapshot"][..], &["top", "--once"]] {
        let line = gpu_line(&run(words));
        assert!(line.starts_with("GPU 0 (simulated) holds 300.0 MiB of the machine's "), "{line}");
        let rest = line.split_once(&by).unwrap_or_else(|| panic!("{by}: {line}")).1;
        assert!(rest.contains("; page cache ") && rest.contains("; unexplained "), "{line}");
    }

    let output = run(&["snapshot", "--format", "json"]);
    let show: Value = serde_json::from_slice(&output.stdout).unwrap();
    let (gpu, host) = (&show["memory_use"]["gpus"][0], &show["memory_use"]["host"]);
    assert_eq!((int(&gpu["bytes"]), &gpu["unified"]), (300 * MIB, &true.into()));
    assert_eq!(int(&gpu["total"]), support::meminfo("MemTotal"));
    let parts = ["bytes", "page_cache", "unexplained"].map(|part| int(&host[part]));
    let used = int(&show["planes"]["system"]["level"]["expected"]);
    assert_eq!(parts.iter().sum::<i64>() + 300 * MIB, used);
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn one_line_says_who_uses_a_gpus_own_memory() {
    let dir = support::disk_dir();
    let state = support::path(&dir, "state");
    std::fs::write(&state, "process 0 4194305 209715200\n").unwrap();
    let nvml = library();
    for words in [&["snapshot"][..], &["top", "--once"]] {
        let mut command = spark_trace();
        command
            .env("SPARK_TRACE_SIMULATED_NVML", &state)
            .args(words)
            .args(["--nvml", nvml.to_str().unwrap()]);
        let line = gpu_line(&command.output().unwrap());
        let expected = "GPU 0 (simulated) holds 316.0 MiB of 8.00 GiB: process 4194305 200.0 MiB, reserved 100.0 MiB, \
                    unexplained 16.0 MiB; host ";
        assert!(line.starts_with(expected), "{line}");
    }
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_slow_library_does_not_hold_up_the_rest() {
    let dir = support::disk_dir();
    let recorded = recorded(&dir, "delay 0 300\n", "sleep 1");
    let recording = recorded.recording();
    // The interval is 100 ms.
    let system = array(&recording["samples"]["system"]["begin_ns"]).len();
    let device = array(&recording["samples"]["devices"][0]["begin_ns"]).len();
    assert!(system >= 8 && (2..6).contains(&device), "{system} and {device} readings");
    assert!(int(&recording["cost"]["nvml"]["longest_ns"]) >= 300_000_000);
}

/// A reading whose answer takes long ends after calls that were made while it was under way. What is known of the device
/// beside it is of the time at which it ended, and of no other.
#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_reading_that_comes_late_stands_beside_what_was_allocated_at_its_end() {
    const TAKES_MS: i64 = 300;
    let dir = support::disk_dir();
    let (file, output) = (support::path(&dir, "state"), support::path(&dir, "gpu.json"));
    std::fs::write(&file, format!("delay 0 {TAKES_MS}\n")).unwrap();
    let (workload, library) = (cuda_workload(), library());
    let driver = PathBuf::from(&workload).with_file_name("libspark_trace_simulated_cuda.so");
    // The kernel's clock before the program, after it had ended, and each with readings on both sides.
    let times = support::path(&dir, "times");
    let script = format!(
        "sleep 1; cut -d' ' -f1 /proc/uptime >{times}; {workload} cuda-alloc --driver simulated --device 64M \
         --hold 2s >/dev/null; cut -d' ' -f1 /proc/uptime >>{times}; sleep 1"
    );
    let mut command = spark_trace();
    command.env("SPARK_TRACE_SIMULATED_NVML", &file);
    let (library, driver) = (library.to_str().unwrap(), driver.to_str().unwrap());
    let words =
        ["--gpu-interval", "20ms", "--nvml", library, "--cuda-library", driver, "--", "/bin/sh", "-c"];
    let words: Vec<&str> = words.into_iter().chain([script.as_str()]).collect();
    let recording = Running::start_as(command, &output, &words).finish().exited(0).recording();

    let times = std::fs::read_to_string(times).unwrap();
    let times: Vec<f64> = times.lines().map(|line| line.parse().unwrap()).collect();
    let [begun, ended] = times[..] else { panic!("{times:?}") };
    let device = &recording["samples"]["devices"][0];
    let (begins, ends) = (array(&device["begin_ns"]), array(&device["end_ns"]));
    let took = |(begin, end): (&Value, &Value)| int(end) - int(begin);
    assert!(begins.iter().zip(ends).map(took).all(|took| took >= TAKES_MS * 1_000_000));
    let mut seen = [0; 3];
    for (end, live) in ends.iter().zip(column(device, "cuda.live")) {
        // In hundredths of a second (fs/proc/uptime.c).
        let at = (int(end) / 10_000_000) as f64 / 100.0;
        let which = usize::from(at > begun) + usize::from(at > ended);
        // While the program runs it allocates and frees once.
        let may = if which == 1 { live == 0 || *live == 64 * MIB } else { live == 0 };
        assert!(may, "{live} allocated at {at} s, of a program from {begun} to {ended}");
        seen[which] += usize::from(*live == if which == 1 { 64 * MIB } else { 0 });
    }
    assert!(seen.iter().all(|count| *count > 0), "{seen:?} readings before, while and after it ran");
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn without_the_library_there_is_a_verdict_and_no_plane() {
    let dir = support::disk_dir();
    let recorded = support::record(&support::path(&dir, "none.json"), "-- true").exited(0);
    let recording = recorded.recording();
    let verdict = &recording["health"]["sources"][0];
    assert_eq!(verdict["name"], "nvml");
    if Path::new("/proc/driver/nvidia/version").exists() {
        return;
    }
    assert_eq!(verdict["verdict"], "not-applicable", "{verdict}");
    assert!(!text(&verdict["reason"]).is_empty());
    assert_eq!(recorded.stderr.matches("GPU").count(), 0, "no warning: {}", recorded.stderr);
    assert!(array(&recording["host"]["gpus"]).is_empty() && recording["host"]["nvidia"].is_null());
    assert!(array(&recording["samples"]["devices"]).is_empty() && recording["cost"]["nvml"].is_null());
    assert!(array(&recorded.show()["planes"]["devices"]).is_empty());
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn a_library_that_refuses_is_a_warning_and_one_that_is_not_there_wrong_usage() {
    let dir = support::disk_dir();
    let refused = recorded(&dir, "no-driver\n", "true");
    assert_eq!(refused.recording()["health"]["sources"][0]["verdict"], "broken");
    assert!(refused.stderr.contains("driver is not loaded (nvmlInit_v2)"), "{}", refused.stderr);
    let output = spark_trace().args(["record", "--nvml", "/nowhere/lib.so", "--", "true"]).output().unwrap();
    assert_eq!(output.status.code(), Some(64));
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn doctor_names_what_it_found() {
    let library = library();
    let output = spark_trace()
        .args(["doctor", "--format", "json", "--nvml", library.to_str().unwrap()])
        .output()
        .unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let check =
        |name: &str| array(&report["checks"]).iter().find(|check| check["name"] == name).unwrap().clone();
    assert!(
        text(&check("nvml")["found"]).starts_with("simulated: 13.580.0-simulated of driver 580.0-simulated")
    );
    assert_eq!(check("gpus")["found"], "0 Simulated GPU 0, 8.00 GiB of its own");
    assert_eq!(report["host"]["gpus"][0]["index"], 0);
}
