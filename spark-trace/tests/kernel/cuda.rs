//! What goes through the CUDA driver, on the simulated driver: host memory behind the real functions. The hooks are
//! the real ones; truth is the workload's own report. Everything here is simulated but the kernel.

use std::{os::unix::process::CommandExt, process::Command};

use serde_json::Value;
use tempfile::TempDir;

use crate::support::{
    self, MIB, Recorded, Running, array, cuda_workload, int, json, record, spark_trace, text,
};

/// The simulated driver lies beside the workload.
fn driver() -> String {
    let workload = std::path::PathBuf::from(cuda_workload());
    workload.with_file_name("libspark_trace_simulated_cuda.so").to_str().unwrap().to_owned()
}

/// Records `cuda-alloc LINE` with the driver watched from the start; gives the workload's report too.
fn recorded(dir: &TempDir, line: &str) -> (Recorded, Value) {
    let (output, report) = (support::path(dir, "cuda.json"), support::path(dir, "report.json"));
    let (workload, driver) = (cuda_workload(), driver());
    let recorded = record(
        &output,
        &format!(
            "--cuda-library {driver} -- {workload} cuda-alloc --driver simulated --output {report} {line}"
        ),
    );
    (recorded.exited(0), json(report))
}

/// The target's total of a kind.
fn total<'a>(recording: &'a Value, kind: &str) -> &'a Value {
    let totals = array(&recording["provenance"]["cuda_totals"]);
    let found = totals.iter().find(|t| t["pid"].is_null() && t["kind"] == kind);
    found.unwrap_or_else(|| panic!("no total of {kind}: {totals:?}"))
}

fn counts(recording: &Value, kind: &str) -> [i64; 6] {
    let total = total(recording, kind);
    ["peak", "live", "allocs", "frees", "implicit_frees", "failures"].map(|name| int(&total[name]))
}

fn queries<'a>(recording: &'a Value, interface: &str) -> Vec<&'a Value> {
    array(&recording["provenance"]["queries"])
        .iter()
        .filter(|query| query["interface"] == interface)
        .collect()
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn every_kind_has_the_requested_sizes() {
    let dir = support::disk_dir();
    let line = "--device 64M --device 1Mx20 --pinned 16M --host-alloc 8M --registered 8M --managed 32M \
                --async 4Mx3 --vmm 12M --oom --hold 200ms";
    let (recorded, report) = recorded(&dir, line);
    let recording = recorded.recording();
    assert_eq!(support::losses(&recording["health"]).0, 0, "{}", recording["health"]["losses"]);

    assert_eq!(counts(&recording, "device"), [84 * MIB, 0, 21, 21, 0, 1]);
    assert_eq!(counts(&recording, "pinned"), [24 * MIB, 0, 2, 2, 0, 0]);
    assert_eq!(counts(&recording, "registered"), [8 * MIB, 0, 1, 1, 0, 0]);
    assert_eq!(counts(&recording, "managed"), [32 * MIB, 0, 1, 1, 0, 0]);
    assert_eq!(counts(&recording, "async"), [12 * MIB, 0, 3, 3, 0, 0]);
    assert_eq!(counts(&recording, "physical"), [12 * MIB, 0, 1, 1, 0, 0]);
    assert_eq!(counts(&recording, "device-all"), [108 * MIB, 0, 25, 25, 0, 1]);

    // Refused: the requested size, and the driver's result.
    let [failure] = array(&recording["provenance"]["cuda_failures"]) else { panic!("not one failure") };
    assert_eq!(failure["size"], report["cuda"]["out_of_memory"]["asked"]);
    assert_eq!(failure["result_name"], report["cuda"]["out_of_memory"]["result"]);
    assert!(!failure["stack"].is_null());

    // The simulated driver gives pinned memory as shared memory and registers what malloc gave.
    let backing: Vec<_> = array(&recording["provenance"]["cuda_allocs"])
        .iter()
        .filter(|row| !row["backing"].is_null())
        .map(|row| (text(&row["function"]), text(&row["backing"])))
        .collect();
    assert_eq!(
        backing,
        [("cuMemAllocHost_v2", "shmem"), ("cuMemHostAlloc", "shmem"), ("cuMemHostRegister_v2", "anon")]
    );
    let library =
        array(&recording["health"]["libraries"]).iter().find(|l| text(&l["path"]) == driver()).unwrap();
    assert_eq!((&library["simulated"], &library["verdict"]), (&true.into(), &"ok".into()));
}

/// Has the kernel answer as one before 6.11 does that was not made to say what lies at one address: ENOTTY to PROCMAP_QUERY
/// (include/uapi/linux/fs.h). Everything that it starts gets the same answer.
fn without_procmap_query(command: &mut Command) {
    const PROCMAP_QUERY: u32 = 0xc068_6611;
    const LOAD: u16 = 0x20;
    const EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    let line = |code, k, jt, jf| libc::sock_filter { code, jt, jf, k };
    let arguments = std::mem::offset_of!(libc::seccomp_data, args) as u32;
    let mut program = vec![
        line(LOAD, std::mem::offset_of!(libc::seccomp_data, nr) as u32, 0, 0),
        line(EQUAL, libc::SYS_ioctl as u32, 0, 3),
        line(LOAD, arguments + size_of::<u64>() as u32, 0, 0),
        line(EQUAL, PROCMAP_QUERY, 0, 1),
        line(RETURN, libc::SECCOMP_RET_ERRNO | libc::ENOTTY as u32, 0, 0),
        line(RETURN, libc::SECCOMP_RET_ALLOW, 0, 0),
    ];
    // SAFETY: one async-signal-safe call between fork and exec, with a program that has as many lines as it says.
    unsafe {
        command.pre_exec(move || {
            let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
            let none: libc::c_ulong = 0;
            let mode = libc::c_ulong::from(libc::SECCOMP_MODE_FILTER);
            match libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const program, none, none) {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            }
        });
    }
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn where_the_kernel_writes_out_all_mappings_only_every_pinned_allocation_has_what_it_lies_in() {
    const COUNT: i64 = 600;
    let dir = support::disk_dir();
    let output = support::path(&dir, "cuda.json");
    let (workload, driver) = (cuda_workload(), driver());
    let line = format!(
        "--ring-size 64M --cuda-library {driver} -- {workload} cuda-alloc --driver simulated --pinned 64Kx{COUNT} --hold 500ms"
    );
    let mut command = spark_trace();
    without_procmap_query(&mut command);
    let words: Vec<&str> = line.split_whitespace().collect();
    let recording = Running::start_as(command, &output, &words).finish().exited(0).recording();
    assert_eq!(support::losses(&recording["health"]).0, 0, "{}", recording["health"]["losses"]);
    // A row for each stack.
    let rows = array(&recording["provenance"]["cuda_allocs"]).iter().filter(|row| row["kind"] == "pinned");
    let (of_shmem, others): (Vec<_>, Vec<_>) = rows.partition(|row| row["backing"] == "shmem");
    assert_eq!((of_shmem.iter().map(|row| int(&row["allocs"])).sum::<i64>(), others.len()), (COUNT, 0));
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn every_answer_appears_with_the_values_the_program_got() {
    let dir = support::disk_dir();
    let (recorded, report) = recorded(&dir, "--device 64M --pinned 8M --query --hold 300ms");
    let recording = recorded.recording();
    let answers = array(&report["cuda"]["mem_get_info"]);
    assert!(answers.len() >= 4, "{answers:?}");
    let seen = queries(&recording, "cuMemGetInfo_v2");
    let figures = |value: &Value| (int(&value["free"]), int(&value["total"]));
    assert_eq!(
        seen.iter().map(|q| figures(&q["values"])).collect::<Vec<_>>(),
        answers.iter().map(figures).collect::<Vec<_>>()
    );
    for (query, answer) in seen.iter().zip(answers) {
        // The program looked at its clock just after the call.
        let late = int(&answer["time_ns"]) - int(&query["at_ns"]);
        assert!((0..50_000_000).contains(&late), "{late} ns: {query}");
        assert!(int(&query["began_ns"]) < int(&query["at_ns"]));
        // The driver read meminfo inside the call, by the same thread, and that has the same figure.
        let inside = queries(&recording, "/proc/meminfo").into_iter().find(|inner| {
            inner["tid"] == query["tid"]
                && (int(&query["began_ns"])..int(&query["at_ns"])).contains(&int(&inner["at_ns"]))
        });
        let inside = inside.unwrap_or_else(|| panic!("the driver's reading is missing: {query}"));
        assert_eq!(inside["values"]["MemFree"], query["values"]["free"]);
        let state = &query["state"];
        // As the kernel's own counters had it at that moment.
        let apart = (int(&state["mem_free"]) - int(&query["values"]["free"])).abs();
        assert!(apart <= 128 * MIB, "{apart} bytes apart: {state}");
        let apart = (int(&state["later"]["mem_free"]) - int(&query["values"]["free"])).abs();
        assert!(apart <= 256 * MIB, "{apart} bytes apart after {} ns", state["later"]["age_ns"]);
    }
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn what_is_never_freed_is_freed_by_the_end_of_context_or_process() {
    let dir = support::disk_dir();
    for (way, registered) in [("context", 0), ("none", 8)] {
        let (recorded, _) = recorded(
            &dir,
            &format!("--device 4Mx3 --pinned 2M --registered {registered}M --free {way}")
                .replace("--registered 0M ", ""),
        );
        let recording = recorded.recording();
        assert_eq!(counts(&recording, "device"), [12 * MIB, 0, 3, 0, 3, 0], "{way}");
        assert_eq!(counts(&recording, "pinned"), [2 * MIB, 0, 1, 0, 1, 0], "{way}");
        std::fs::remove_file(&recorded.output).unwrap();
    }
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn each_process_has_its_own() {
    let dir = support::disk_dir();
    let (recorded, _) = recorded(&dir, "--device 4M --children 3 --hold 100ms");
    let recording = recorded.recording();
    let totals = array(&recording["provenance"]["cuda_totals"]);
    let own: Vec<_> = totals.iter().filter(|t| !t["pid"].is_null() && t["kind"] == "device").collect();
    assert!(own.len() >= 3, "{totals:?}");
    assert!(own.iter().all(|total| int(&total["peak"]) == 4 * MIB && int(&total["live"]) == 0), "{own:?}");
}

#[test]
#[ignore = "needs root: cargo xtask test"]
fn what_a_program_reads_of_the_kernels_figures_is_kept() {
    let dir = support::disk_dir();
    let output = support::path(&dir, "read.json");
    // Not cat: busybox's lets the kernel copy (sendfile), and then no program reads anything.
    let script =
        "dd if=/proc/meminfo bs=64k 2>/dev/null > $0; dd if=/proc/self/statm bs=64k 2>/dev/null >> $0";
    let copy = support::path(&dir, "copy");
    let words = ["--", "/bin/sh", "-c", script, &copy];
    let recording = Running::start(&output, &words).finish().exited(0).recording();
    let copied = std::fs::read_to_string(&copy).unwrap();
    let kib = |name: &str| -> i64 {
        let line = copied.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    };
    let [meminfo] = &queries(&recording, "/proc/meminfo")[..] else { panic!("not one reading") };
    for (line, name) in [("MemTotal:", "MemTotal"), ("MemFree:", "MemFree"), ("Cached:", "Cached")] {
        assert_eq!(int(&meminfo["values"][name]), kib(line) << 10, "{name}");
    }
    let [statm] = &queries(&recording, "/proc/PID/statm")[..] else { panic!("not one reading") };
    let pages: i64 = copied.lines().last().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let page_size = int(&recording["host"]["page_size"]);
    assert_eq!(int(&statm["values"]["resident"]), pages * page_size);
    assert_eq!(statm["directory"], statm["pid"].to_string());
}
