//! Buffers of llama.cpp's log beside allocations that one function makes, on the simulated driver. Truth is what the program
//! itself allocated.

use serde_json::Value;

use crate::support::{self, array, cuda_workload, int, record_words, spark_trace};

/// As ggml does it: one function allocates every buffer, and a line states each after its allocation.
const PROGRAM: &str = r#"
import array, ctypes, fcntl, sys, termios, time
driver = ctypes.CDLL(sys.argv[1])
device, context = ctypes.c_int(), ctypes.c_void_p()
assert driver.cuInit(0) == 0 and driver.cuDeviceGet(ctypes.byref(device), 0) == 0
assert driver.cuCtxCreate_v2(ctypes.byref(context), 0, device) == 0

def allocate(size):
    pointer = ctypes.c_uint64()
    assert driver.cuMemAlloc_v2(ctypes.byref(pointer), ctypes.c_size_t(size)) == 0
    return pointer

def line(text, size):
    print(f"{text} = {size / 1048576:8.2f} MiB", flush=True)

def wait_until_read():
    waiting = array.array("i", [1])
    while waiting[0]:
        fcntl.ioctl(1, termios.FIONREAD, waiting)
        time.sleep(0.001)

print("llama_model_loader: loaded meta data with 12 key-value pairs and 147 tensors from m.gguf", flush=True)
dry = allocate(8388608)
assert driver.cuMemFree_v2(dry) == 0
kept = [allocate(22413312)]
line("load_tensors:        CUDA0 model buffer size", 22413312)
print("llama_context: constructing llama_context", flush=True)
kept.append(allocate(8388608))
line("llama_kv_cache:      CUDA0 KV buffer size", 8388608)
kept.append(allocate(3765248))
line("sched_reserve:      CUDA0 compute buffer size", 3765248)
kept.append(allocate(1048576))
own = 21 + 8 + 3
print(f"llama_memory_breakdown_print: |   - CUDA0 (simulated)   | 4096 = 4000 + ( {own} = 21 + 8 + 3) + {96 - own} |", flush=True)
# Two, one after the other: the second is read only when the first has its time.
wait_until_read()
print("freeing", flush=True)
wait_until_read()
for pointer in kept:
    assert driver.cuMemFree_v2(pointer) == 0
"#;

#[test]
#[ignore = "needs root: cargo xtask test"]
fn each_buffer_of_the_log_is_the_allocation_of_its_size() {
    let Some(python) = support::python::python() else {
        return;
    };
    let dir = support::disk_dir();
    let output = support::path(&dir, "llama.json");
    let driver = std::path::PathBuf::from(cuda_workload()).with_file_name("libspark_trace_simulated_cuda.so");
    let driver = driver.to_str().unwrap();
    let words = [
        "--quiet",
        "--python-frames",
        "off",
        "--log",
        "--cuda-library",
        driver,
        "--",
        python,
        "-c",
        PROGRAM,
        driver,
    ];
    let recorded = record_words(&output, &words);
    assert_eq!(recorded.code, Some(0), "{}", recorded.stdout);
    let recording = recorded.recording();
    assert_eq!(support::losses(&recording["health"]).0, 0, "{}", recording["health"]["losses"]);
    // Without lines of Python they have one caller: sums by caller cannot tell them from one another.
    let callers = array(&recording["provenance"]["cuda_allocs"]).iter().filter(|row| row["kind"] == "device");
    assert!(callers.clone().any(|row| int(&row["allocs"]) > 1), "{:?}", callers.collect::<Vec<_>>());

    let sizes = |rows: &Value| array(rows).iter().map(|row| int(&row["bytes"])).collect::<Vec<_>>();
    let largest = &recording["provenance"]["cuda_largest"];
    assert_eq!(sizes(largest), [8_388_608, 22_413_312, 8_388_608, 3_765_248, 1_048_576]);
    let times: Vec<_> =
        array(largest).iter().map(|row| (int(&row["allocated_ns"]), int(&row["freed_ns"]))).collect();
    assert!(times.is_sorted() && times.iter().all(|(allocated, freed)| allocated < freed), "{times:?}");
    assert!(times[0].1 <= times[1].0, "the first was freed before the second: {times:?}");

    let shown = spark_trace().args(["show", &output, "--format", "json"]).output().unwrap();
    assert!(shown.status.success(), "{}", String::from_utf8_lossy(&shown.stderr));
    let engine = serde_json::from_slice::<Value>(&shown.stdout).unwrap()["engine"].clone();
    assert_eq!(engine["engine"], "llama.cpp");
    let rows = array(&engine["buffers"]["rows"]);
    let found: Vec<_> = rows.iter().map(|row| (row["part"].as_str(), row["traced_bytes"].as_i64())).collect();
    assert_eq!(
        found,
        [
            (Some("weights"), Some(22_413_312)),
            (Some("kv-cache"), Some(8_388_608)),
            (Some("compute"), Some(3_765_248))
        ]
    );
    assert_eq!(rows[1]["allocated_ns"], largest[2]["allocated_ns"], "not the one that was freed before");
    let breakdown: Vec<_> = array(&engine["breakdown"])
        .iter()
        .map(|row| (row["of"].as_str(), row["traced_bytes"].as_i64()))
        .collect();
    assert!(breakdown.contains(&(Some("own"), Some(22_413_312 + 8_388_608 + 3_765_248))), "{breakdown:?}");
}
