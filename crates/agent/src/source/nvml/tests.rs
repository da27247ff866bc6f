//! Against the simulated library: the same code reads the real one.

use std::{collections::BTreeMap, fs};

use super::*;
use spark_trace_recording::journal::SeriesId;

/// The library that cargo built beside this test program.
fn library() -> PathBuf {
    let program = std::env::current_exe().unwrap();
    program.with_file_name("libspark_trace_simulated_nvml.so")
}

/// The answers of the library are in a file that the environment names, and a process has one environment: one test.
#[test]
fn a_gpu_is_read_with_its_processes_and_one_without_memory_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("state");
    fs::write(&file, "gpus 2\nunified 1\nbusy 0 50\nprocess 0 7 1048576\nprocess 0 8 4096 graphics\n")
        .unwrap();
    // SAFETY: no other thread runs the library, which alone reads it.
    unsafe { std::env::set_var("SPARK_TRACE_SIMULATED_NVML", &file) };

    let mut nvml = Nvml::start(Some(library()), Duration::from_secs(3600));
    let machine = nvml.machine().clone();
    assert!(machine.is_ok(), "{:?}", machine.verdict);
    let nvidia = machine.nvidia.unwrap();
    assert!(nvidia.simulated && nvidia.kernel_module.is_none(), "{nvidia:?}");
    assert_eq!(nvidia.cuda_driver_version.as_deref(), Some("13.0"));
    let [own, shared] = &machine.gpus[..] else { panic!("two GPUs") };
    assert_eq!(
        (own.uuid.as_deref(), own.memory_total),
        (Some("GPU-73696d75-6c61-7465-642d-4750552d3030"), Some(8 << 30))
    );
    assert_eq!(own.pci_bus_id.as_deref(), Some("00000000:01:00.0"));
    assert_eq!(
        own.unknown,
        BTreeMap::from([("mig".into(), "NVML: not supported (nvmlDeviceGetMigMode)".into())])
    );
    assert_eq!(shared.memory_total, None);
    assert_eq!(shared.unknown["memory_total"], "NVML: not supported (nvmlDeviceGetMemoryInfo_v2)");

    let (samples, came) = nvml.read_now();
    assert!(came);
    let [own, shared] = &samples[..] else { panic!("one reading of each: {samples:?}") };
    assert_eq!((&own.series, &shared.series), (&SeriesId::Device(0), &SeriesId::Device(1)));
    assert_eq!(own.values["memory.total"] - own.values["memory.free"], (116 << 20) + 1_052_672);
    assert_eq!((own.values["process.7.used"], own.values["process.8.used"]), (1 << 20, 4096));
    assert_eq!((own.values["processes.listed"], own.values["utilization.gpu"]), (2, 50));
    // The lists that this library does not have are no reason to doubt those it has.
    let absent: Vec<_> = own.absent.iter().map(|(column, _)| column.as_str()).collect();
    assert_eq!(absent, ["processes.listed"], "{:?}", own.absent);
    assert!(!shared.values.keys().any(|column| column.starts_with("memory.")));
    let reasons: BTreeMap<_, _> = shared.absent.iter().cloned().collect();
    assert_eq!(reasons["memory.free"], "NVML: not supported (nvmlDeviceGetMemoryInfo_v2)");
    assert_eq!(reasons["clock.memory"], "NVML: not supported (nvmlDeviceGetClockInfo)");
    assert_eq!((shared.values["clock.sm"], shared.values["processes.listed"]), (300, 0));

    fs::write(&file, "delay 0 30\nprocess 0 9 -\n").unwrap();
    let (samples, came) = nvml.read_now();
    assert!(came && samples[0].end_ns - samples[0].begin_ns >= 30_000_000, "a slow call is in the window");
    assert_eq!(samples[0].values["processes.listed"], 1);
    assert!(samples[0].absent.iter().any(|(column, _)| column == "process.9.used"), "unknown is not zero");
    assert!(samples[1].values.is_empty() && !samples[1].absent.is_empty(), "the second GPU is gone");

    let (last, cost) = nvml.finish();
    let cost = cost.unwrap();
    assert_eq!((last.len(), cost.readings), (2, 3));
    assert!(cost.calls_ns >= 60_000_000 && cost.longest_ns >= 30_000_000 && cost.longest_ns < cost.calls_ns);

    fs::write(&file, "").unwrap();
    let mut often = Nvml::start(Some(library()), Duration::from_millis(5));
    assert!(often.read_now().1);
    thread::sleep(Duration::from_millis(200));
    assert!(often.take().len() > 2, "nobody asked but the interval");
    assert!(often.finish().1.is_some_and(|cost| cost.readings > 3));

    fs::write(&file, "no-driver\n").unwrap();
    let machine = Nvml::start(Some(library()), Duration::MAX).machine().clone();
    assert_eq!(machine.verdict.verdict, Verdict::Broken, "it was asked for by name");
    assert!(machine.verdict.reason.unwrap().contains("driver is not loaded (nvmlInit_v2)"));
    fs::write(&file, "gpus 0\n").unwrap();
    let machine = Nvml::start(Some(library()), Duration::MAX).machine().clone();
    assert_eq!(machine.verdict.reason.as_deref(), Some("NVML lists no GPU"));
}

#[test]
fn something_that_is_no_library_is_broken_and_none_at_all_is_not() {
    let broken = Nvml::start(Some("/dev/null".into()), Duration::MAX).machine().clone();
    assert_eq!(broken.verdict.verdict, Verdict::Broken, "{:?}", broken.verdict);
    assert!(broken.verdict.reason.unwrap().starts_with("/dev/null: NVML: "));
    let found = Nvml::start(None, Duration::MAX).machine().clone();
    // Machines with a GPU run these tests too.
    assert!(found.is_ok() || found.verdict.reason.is_some());
}
