//! The CUDA workloads on the simulated driver: real calls, real memory, no GPU.

// Helpers unwrap as tests do: one that cannot go on should stop.
#![allow(clippy::unwrap_used, clippy::expect_used)]
#![cfg(feature = "cuda")]

#[allow(dead_code, reason = "another suite uses the rest")]
mod harness;

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use harness::*;
use serde_json::Value;

/// Where cargo leaves the library that this package's tests depend on.
fn library() -> PathBuf {
    let directory = Path::new(env!("CARGO_BIN_EXE_spark-trace-workload")).parent().unwrap();
    let library = directory.join("deps/libspark_trace_simulated_cuda.so");
    assert!(library.is_file(), "no {}", library.display());
    fs::canonicalize(library).unwrap()
}

fn simulated(line: &str) -> String {
    format!("{line} --driver {}", library().display())
}

fn meminfo(name: &str) -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap();
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() << 10
}

const EVERYTHING: &str = "cuda-alloc --device 8Mx3 --device 1M --pinned 4M --host-alloc 2M --registered 4M \
                          --managed 6M --async 2Mx2 --vmm 3M";

#[test]
fn every_kind_is_seen_from_outside() {
    let running = Running::start_until(&simulated(&format!("{EVERYTHING} --hold 60s")), "hold");
    let (before, after) = (running.before, running.status());
    assert_grew(before.rss_anon, after.rss_anon, (24 + 1 + 4 + 6 + 4) * MIB);
    assert_grew(before.rss_shmem, after.rss_shmem, (4 + 2 + 4) * MIB);
    let maps = fs::read_to_string(format!("/proc/{}/maps", running.pid())).unwrap();
    assert!(maps.contains(library().to_str().unwrap()), "the library is mapped by its true name");
    assert!(!maps.contains("spark-trace-driver-"));

    let report = running.stop();
    let kinds =
        [("pinned", 4), ("host-alloc", 2), ("registered", 4), ("managed", 6), ("async", 4), ("vmm", 4)];
    for (kind, mib) in kinds {
        let source = source(&report, kind);
        assert_eq!(source["bytes"], mib * MIB, "{kind}");
        let address = source["address"].as_u64().unwrap();
        let inside = |line: &str| {
            let (begin, end) = line.split_once(' ').unwrap().0.split_once('-').unwrap();
            let number = |text| u64::from_str_radix(text, 16).unwrap();
            (number(begin)..number(end)).contains(&address)
        };
        assert!(maps.lines().any(inside), "{kind} is not at {address:#x}");
    }
    let device: Vec<_> =
        report["sources"].as_array().unwrap().iter().filter(|source| source["kind"] == "device").collect();
    assert_eq!((device[0]["bytes"].as_u64(), device[1]["bytes"].as_u64()), (Some(24 * MIB), Some(MIB)));
}

#[test]
fn nobody_takes_it_for_a_gpu() {
    let output = run(&simulated("cuda-alloc --device 1M --hold 0 --jsonl"));
    for line in std::str::from_utf8(&output.stdout).unwrap().lines() {
        assert!(line.contains(r#""device":"simulated (no GPU)""#), "{line}");
    }
    let report = last_line(&output);
    let info = &report["cuda"]["info"];
    assert_eq!((&info["driver"], &info["device"]), (&"simulated".into(), &"simulated (no GPU)".into()));
    assert_eq!(info["library"], library().to_str().unwrap());
    // It is found beside the program, too.
    let beside = harness::report("matmul --n 16 --driver simulated");
    assert_eq!(beside["cuda"]["info"]["driver"], "simulated");
    let storm = harness::report(&simulated("storm cuda-alloc --rounds 1"));
    assert_eq!(storm["cuda"]["driver"], "simulated");
}

#[test]
fn calls_are_counted() {
    let report = report(&simulated(&format!("{EVERYTHING} --query --hold 0")));
    let calls = &report["cuda"]["calls"];
    let count = |name: &str| calls[name].as_i64().unwrap();
    assert_eq!((count("cuMemAlloc_v2"), count("cuMemFree_v2")), (4, 5), "managed memory is freed so, too");
    assert_eq!((count("cuMemAllocHost_v2"), count("cuMemHostAlloc"), count("cuMemFreeHost")), (1, 1, 2));
    assert_eq!((count("cuMemHostRegister_v2"), count("cuMemHostUnregister")), (1, 1));
    assert_eq!((count("cuMemAllocAsync"), count("cuMemFreeAsync")), (2, 2));
    assert_eq!((count("cuMemCreate"), count("cuMemRelease")), (1, 1));
    let queries = report["cuda"]["mem_get_info"].as_array().unwrap().len();
    assert_eq!(count("cuMemGetInfo_v2"), i64::try_from(queries).unwrap());
}

#[test]
fn a_framebuffer_is_what_the_gpu_has() {
    const OWN: u64 = 1 << 30;
    const CONTEXT: u64 = 64 * MIB;
    let line = simulated(
        "cuda-alloc --device 8Mx3 --managed 4M --pinned 2M --async 6M --vmm 4M --oom --query --hold 0",
    );
    let output = command(&line).env("SPARK_TRACE_SIMULATED_FRAMEBUFFER", OWN.to_string()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let cuda = &last_line(&output)["cuda"];
    assert_eq!(
        (&cuda["info"]["integrated"], cuda["info"]["total_bytes"].as_u64()),
        (&false.into(), Some(OWN))
    );
    let answers = cuda["mem_get_info"].as_array().unwrap().iter();
    let free: Vec<_> =
        answers.map(|answer| (answer["phase"].as_str().unwrap(), answer["free"].as_u64())).collect();
    let taken = [("device", 24), ("pinned", 24), ("managed", 24), ("async", 30), ("vmm", 34), ("hold", 34)];
    for (phase, mib) in taken {
        assert!(free.contains(&(phase, Some(OWN - CONTEXT - mib * MIB))), "{phase}: {free:?}");
    }
    assert_eq!(cuda["out_of_memory"]["result"], "CUDA_ERROR_OUT_OF_MEMORY");
}

/// What else it could allocate would not be what was wanted.
#[test]
fn without_the_devices_that_are_wanted_nothing_starts() {
    if Path::new("/dev/nvidia-stand-in").exists() {
        return;
    }
    let line = simulated("cuda-alloc --device 1M");
    let output = command(&line).env("SPARK_TRACE_SIMULATED_STAND_IN", "1").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("CUDA_ERROR_NO_DEVICE"), "{said}");
}

#[test]
fn what_is_freed_is_gone() {
    for (how, kept) in [("all", 0), ("context", 4)] {
        let line = format!("{EVERYTHING} --hold 0 --free {how} --hold-release 60s");
        let running = Running::start_until(&simulated(&line), "release");
        let (before, after) = (running.before, running.status());
        // What was registered is the program's own, and stays when only the context goes.
        assert_grew(before.rss_anon, after.rss_anon, kept * MIB);
        // So do pages that are mapped at reserved addresses: those are of no context.
        assert_grew(before.rss_shmem, after.rss_shmem, kept * MIB);
        running.stop();
    }
    let report = report(&simulated("cuda-alloc --device 4M --hold 0 --free none"));
    assert_eq!(phases(&report), ["start", "context", "device", "hold"]);
}

#[test]
fn children_hold_the_same() {
    let running = Running::start_until(&simulated("cuda-alloc --device 8M --children 2 --hold 60s"), "hold");
    let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", running.pid())).unwrap();
    let pids: Vec<u32> = children.split_whitespace().map(|pid| pid.parse().unwrap()).collect();
    assert_eq!(pids.len(), 2);
    for pid in &pids {
        assert_grew(running.before.rss_anon, Status::of(*pid).rss_anon, 8 * MIB);
    }
    let report = running.stop();
    let said = report["cuda"]["children"].as_array().unwrap();
    assert_eq!(said.len(), 2);
    for child in said {
        assert!(pids.contains(&u32::try_from(child["pid"].as_u64().unwrap()).unwrap()));
        assert_eq!(child["sources"][0]["bytes"], 8 * MIB);
    }
    assert!(pids.iter().all(|pid| !Path::new(&format!("/proc/{pid}")).exists()), "none stays behind");
}

#[test]
fn too_much_is_out_of_memory() {
    let report = report(&simulated("cuda-alloc --oom --hold 0"));
    let refused = &report["cuda"]["out_of_memory"];
    assert_eq!(
        (&refused["call"], &refused["result"]),
        (&"cuMemAlloc_v2".into(), &"CUDA_ERROR_OUT_OF_MEMORY".into())
    );
    assert!(refused["asked"].as_u64().unwrap() > meminfo("MemTotal"));

    let (code, error) = fails(&simulated("cuda-alloc --device 1M --device 100T"));
    assert_eq!(code, Some(1));
    assert!(error.contains("cuMemAlloc_v2: CUDA_ERROR_OUT_OF_MEMORY (2)"), "{error}");
}

#[test]
fn free_memory_is_what_the_kernel_says() {
    if meminfo("MemFree") < 2 << 30 {
        return;
    }
    let report = report(&simulated("cuda-alloc --device 256Mx3 --query --hold 0"));
    let queries = report["cuda"]["mem_get_info"].as_array().unwrap();
    for query in queries {
        let number = |name: &str| query[name].as_u64().unwrap();
        let around = [number("mem_free_before"), number("mem_free_after")];
        // Between the readings, others may take and give.
        let slack = 32 * MIB;
        let (least, most) = (around.iter().min().unwrap(), around.iter().max().unwrap());
        assert_between(number("free"), least.saturating_sub(slack), most + slack);
        assert_eq!(number("total"), meminfo("MemTotal"));
    }
    let free =
        |phase: &str| queries.iter().find(|query| query["phase"] == phase).unwrap()["free"].as_u64().unwrap();
    // Not all of it shows: the kernel has free pages that MemFree does not count, in lists of each CPU.
    assert_between(free("context").saturating_sub(free("device")), 256 * MIB, 1280 * MIB);
}

#[test]
fn products_are_right() {
    for n in [1, 16, 100, 257] {
        let report = report(&simulated(&format!("matmul --n {n} --iterations 2 --samples 1000")));
        let matmul = &report["cuda"]["matmul"];
        assert_eq!((&matmul["n"], &matmul["iterations"]), (&n.into(), &2.into()));
        assert!(matmul["gflops"].as_f64().unwrap() > 0.0);
        assert_eq!(source(&report, "device")["bytes"], 3 * 4 * n * n);
        // Two to warm up, and two that count.
        assert_eq!(report["cuda"]["calls"]["cuLaunchKernel"], 4);
    }
}

#[test]
fn storms() {
    let report = report(&simulated("storm cuda-alloc --size 64K --rounds 40 --batches 4"));
    assert_eq!((report["rounds"].as_array().unwrap().len(), &report["operations"]), (4, &40.into()));
    let report = harness::report(&simulated("storm cuda-managed --size 1M --rounds 3"));
    assert_eq!(report["operations"], 3 * MIB / page_size());
    assert!(report["rounds"][0]["begin_ns"].as_u64().unwrap() > 0);
}

#[test]
fn a_storm_stops_at_a_signal() {
    let line = simulated("storm cuda-alloc --size 64K --rounds 2000000000 --batches 2000000");
    let mut child = command(&line).stdout(Stdio::piped()).spawn().unwrap();
    let pid = child.id();
    // Once the library is mapped, and the handler with it.
    while !fs::read_to_string(format!("/proc/{pid}/maps")).unwrap().contains("simulated_cuda.so") {
        std::thread::sleep(Duration::from_millis(10));
        assert!(child.try_wait().unwrap().is_none(), "it ended early");
    }
    std::thread::sleep(Duration::from_millis(100));
    // SAFETY: the process is our child and not waited for yet, so the number is still its.
    assert_eq!(unsafe { libc::kill(libc::pid_t::try_from(pid).unwrap(), libc::SIGTERM) }, 0);
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.status.signal()), (Some(0), None));
    let report: Value = last_line(&output);
    assert!(!report["rounds"].as_array().unwrap().is_empty());
}

#[test]
fn drivers_that_are_none() {
    assert_eq!(fails("matmul --driver Simulated").0, Some(2));
    let (code, error) = fails("matmul --driver /nonexistent/lib.so");
    assert!(code == Some(1) && error.contains("/nonexistent/lib.so"), "{error}");
    let (code, error) = fails(&format!("matmul --driver {}/Cargo.toml", env!("CARGO_MANIFEST_DIR")));
    assert!(code == Some(1) && error.contains("cannot"), "{error}");
}

#[test]
fn nothing_is_left_behind() {
    let directory = tempfile::tempdir().unwrap();
    for line in ["matmul --n 16".to_owned(), "cuda-alloc --device 100T".to_owned()] {
        command(&simulated(&line)).env("TMPDIR", directory.path()).output().unwrap();
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0, "{line}");
    }
}
