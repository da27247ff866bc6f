//! A run that uses the CUDA driver.

use std::collections::BTreeMap;

use super::*;
use spark_trace_recording::{Column, cuda::*};

const PID: u32 = 4242;
const MS: u64 = 1_000_000;
const LIBCUDA: &str = "/usr/lib/aarch64-linux-gnu/libspark_trace_simulated_cuda.so";

/// What the driver holds for the target at the peak, MiB: on unified memory all of it is system memory.
const DEVICE: u64 = 512;
const ASYNC: u64 = 32;
const PINNED_SHMEM: u64 = 64;
const PINNED_DRIVER: u64 = 16;
const REGISTERED: u64 = 100;
const MANAGED: u64 = 40;

/// The program loads a model onto a GPU that shares the memory; half of the device memory is left at its end.
pub fn cuda() -> Recording {
    let sysmem = DEVICE + ASYNC + PINNED_DRIVER;
    let peak = Levels { anon: 800, file: 10, dirty: 0, kernel: 6, unexplained: sysmem + MANAGED };
    let end = Levels { unexplained: sysmem / 2 + MANAGED, ..peak };
    let mut recording = run(30, "/spark-trace/run-3", &peak, &end);
    recording.target.argv = vec!["python3".into(), "serve.py".into()];
    file(&mut recording, 900, "/srv/model/config.json", 10, 30);
    levels(&mut recording, sysmem);
    pages(&mut recording);
    libraries(&mut recording.health);
    allocs(&mut recording);
    queries(&mut recording);
    context::add(&mut recording);
    recording
}

fn add(series: &mut Series, column: &str, index: usize, bytes: i64) {
    let readings = series.begin_ns.len();
    let values = series.columns.entry(column.to_owned()).or_insert_with(|| Column::absent(readings));
    values.set(index, Some(values.get(index).unwrap_or(0).strict_add_signed(bytes)));
}

/// Pinned shared memory and what the driver's pages are counted as, at the peak and at the end.
fn levels(recording: &mut Recording, sysmem: u64) {
    let mib = |mib: u64| (mib * MIB) as i64;
    for (reading, sysmem) in [(1, sysmem), (2, sysmem / 2)] {
        let system = &mut recording.samples.system;
        for (column, bytes) in [
            ("meminfo.MemFree", -mib(PINNED_SHMEM)),
            ("meminfo.Cached", mib(PINNED_SHMEM)),
            ("meminfo.Shmem", mib(PINNED_SHMEM)),
            ("cuda.pinned_anon", mib(REGISTERED)),
            ("cuda.pinned_shmem", mib(PINNED_SHMEM)),
            ("cuda.pinned_driver", mib(PINNED_DRIVER)),
            ("driver.nvidia_sysmem", mib(sysmem)),
            ("driver.nvidia_managed", mib(MANAGED)),
            ("driver.nvidia_pool", 0),
        ] {
            add(system, column, reading, bytes);
        }
        let cgroup = &mut recording.samples.cgroups[0].series;
        for (column, mib) in [
            ("memory.current", mib(PINNED_SHMEM + MANAGED)),
            ("memory.peak", mib(PINNED_SHMEM + MANAGED)),
            ("stat.file", mib(PINNED_SHMEM)),
            ("stat.shmem", mib(PINNED_SHMEM)),
            ("stat.kernel", mib(MANAGED)),
            ("driver.nvidia_managed", mib(MANAGED)),
        ] {
            add(cgroup, column, reading - 1, mib);
        }
        let live: [(&str, u64); 6] = [
            ("live.device", DEVICE / reading as u64),
            ("live.async", ASYNC / reading as u64),
            ("live.device-all", (DEVICE + ASYNC) / reading as u64),
            ("live.managed", MANAGED),
            ("live.pinned", PINNED_SHMEM + PINNED_DRIVER),
            ("live.registered", REGISTERED),
        ];
        let at_ns = START + [0, 5, 10][reading] * SECOND + MS;
        push(&mut recording.samples.cuda, at_ns, live.map(|(name, mib)| (name.to_owned(), mib * MIB)));
    }
}

/// What the page-allocation program saw of it.
fn pages(recording: &mut Recording) {
    let path = ["nvidia:nv_alloc_system_pages", "nvidia:nv_alloc_pages", "nvidia:memdescAlloc"];
    page_allocs(recording, 0, DEVICE + ASYNC, &[&path[..], &["nvidia:sysmemConstruct_IMPL"]].concat());
    page_allocs(recording, 0, 12, &[&path[..], &["nvidia:kchannelAllocMem_GM107"]].concat());
    let managed = ["nvidia_uvm:uvm_cpu_chunk_alloc", "nvidia_uvm:block_populate_pages_cpu"];
    page_allocs(recording, 30, MANAGED - 8, &managed);
    page_allocs(recording, 30, 8, &["nvidia_uvm:phys_mem_allocate", "nvidia_uvm:page_tree_entries_alloc"]);
    // Not every page of a process is charged: UVM's own are not.
    recording.provenance.page_allocs.last_mut().unwrap().charged = false;
}

fn libraries(health: &mut Health) {
    let mut library = |library: &str, path: &str, attached: u32| {
        health.libraries.push(LibraryFile {
            library: library.into(),
            path: path.into(),
            device: "259:2".into(),
            inode: 1000 + u64::from(attached),
            verdict: "ok".into(),
            attached,
            attached_ns: Some(START - SECOND),
            ..LibraryFile::default()
        });
    };
    library("libnvidia-ml", "/usr/lib/aarch64-linux-gnu/libnvidia-ml.so.580.95.05", 3);
    library("libcuda", LIBCUDA, 55);
    let late = health.libraries.last_mut().unwrap();
    late.simulated = true;
    late.missing = vec!["cuCtxCreate_v4".into()];
    (late.mapped_by, late.mapped_ns) = (Some(PID), Some(START + SECOND));
    late.attached_ns = Some(START + SECOND + 12 * MS);
    health.hooks = hooks::with_cuda();
}

/// MiB taken and left at the end by one function from one stack.
struct Taken<'a> {
    kind: &'a str,
    function: &'a str,
    backing: Option<&'a str>,
    frames: &'a [&'a str],
    mib: u64,
    left: u64,
}

const TORCH: &[&str] =
    &["libcudart.so.13:cudaMalloc", "libc10_cuda.so:alloc_block", "libtorch_cuda.so:empty_cuda"];
const TORCH_HOST: &[&str] = &["libcudart.so.13:cudaHostAlloc", "libtorch_cuda.so:CachingHostAllocator"];
const DIRECT: &[&str] = &["serve_ext.so:load_weights", "python3:PyObject_Call"];

fn allocs(recording: &mut Recording) {
    let provenance = &mut recording.provenance;
    let row =
        |kind, function, backing, frames, mib, left| Taken { kind, function, backing, frames, mib, left };
    let rows = [
        row("device", "cuMemAlloc_v2", None, TORCH, DEVICE, DEVICE / 2),
        row("async", "cuMemAllocAsync", None, DIRECT, ASYNC, ASYNC / 2),
        row("managed", "cuMemAllocManaged", None, DIRECT, MANAGED, MANAGED),
        row("pinned", "cuMemHostAlloc", Some("shmem"), TORCH_HOST, PINNED_SHMEM, PINNED_SHMEM),
        row("pinned", "cuMemAllocHost_v2", Some("driver"), DIRECT, PINNED_DRIVER, PINNED_DRIVER),
        row("registered", "cuMemHostRegister_v2", Some("anon"), DIRECT, REGISTERED, REGISTERED),
    ];
    for Taken { kind, function, backing, frames, mib, left } in rows {
        let stack = stack(provenance, "user", frames);
        let failures = u64::from(kind == "device");
        provenance.cuda_allocs.push(CudaAllocs {
            pid: PID,
            kind: kind.into(),
            function: function.into(),
            stack: Some(stack),
            backing: backing.map(Into::into),
            allocs: 2,
            frees: u64::from(left != mib),
            failures,
            bytes_allocated: mib * MIB,
            bytes_freed: (mib - left) * MIB,
            live: [None, Some(mib * MIB), Some(left * MIB)].into(),
            ..CudaAllocs::default()
        });
        if failures > 0 {
            provenance.cuda_failures.push(CudaFailure {
                at_ns: START + 6 * SECOND,
                pid: PID,
                tid: PID,
                function: function.into(),
                kind: kind.into(),
                size: Some(20 << 30),
                result: 2,
                result_name: Some("CUDA_ERROR_OUT_OF_MEMORY".into()),
                stack: Some(stack),
            });
        }
    }
    let totals = [
        ("device", DEVICE, DEVICE / 2),
        ("async", ASYNC, ASYNC / 2),
        ("device-all", DEVICE + ASYNC, (DEVICE + ASYNC) / 2),
        ("managed", MANAGED, MANAGED),
        ("pinned", PINNED_SHMEM + PINNED_DRIVER, PINNED_SHMEM + PINNED_DRIVER),
        ("registered", REGISTERED, REGISTERED),
    ];
    for (pid, (kind, peak, live)) in [Some(PID), None].into_iter().flat_map(|p| totals.map(|t| (p, t))) {
        provenance.cuda_totals.push(CudaTotal {
            pid,
            kind: kind.into(),
            live: live * MIB,
            peak: peak * MIB,
            peak_ns: START + 4 * SECOND,
            allocs: if kind == "device-all" { 4 } else { 2 },
            frees: if kind == "device-all" { 2 } else { u64::from(live != peak) },
            failures: u64::from(kind.starts_with("device")),
            ..CudaTotal::default()
        });
    }
    let loads = [(2, 40), (3, 25)].map(|(at, ms)| ("module-load", "cuLibraryLoadData", at, ms));
    for (event, function, at, ms) in
        [("primary-context-retain", "cuDevicePrimaryCtxRetain", 1, 210)].into_iter().chain(loads)
    {
        provenance.cuda_events.push(CudaEvent {
            at_ns: START + at * SECOND,
            duration_ns: ms * MS,
            pid: PID,
            tid: PID,
            event: event.into(),
            function: function.into(),
            ..CudaEvent::default()
        });
    }
}

/// The machine's own figures at `free` MiB, with as much page cache as that leaves.
fn state(free: u64) -> MemoryState {
    MemoryState {
        free: free * MIB,
        file: (15000 - free) * MIB,
        dirty: 20 * MIB,
        shmem: PINNED_SHMEM * MIB,
        anon: 1300 * MIB,
        slab_reclaimable: 200 * MIB,
        cgroup_usage: 900 * MIB,
        cgroup: 30,
        later: Some(LaterState {
            age_ns: 300_000,
            mem_free: Some(free * MIB),
            mem_available: Some(14000 * MIB),
            ..LaterState::default()
        }),
        ..MemoryState::default()
    }
}

fn queries(recording: &mut Recording) {
    let provenance = &mut recording.provenance;
    let torch = stack(
        provenance,
        "user",
        &["libcudart.so.13:cudaMemGetInfo", "libtorch_cuda.so:memory_stats", "python3:call"],
    );
    let psutil = stack(provenance, "user", &["libc.so.6:read", "python3:_io_FileIO_readall"]);
    let query = |ms: u64, interface: &str, values: &[(&str, u64)], free: u64| MemoryQuery {
        at_ns: START + ms * MS,
        pid: PID,
        tid: PID,
        cgroup: 30,
        interface: interface.into(),
        values: values.iter().map(|&(name, mib)| (name.to_owned(), mib * MIB)).collect(),
        state: Some(state(free)),
        ..MemoryQuery::default()
    };
    let mut all = Vec::new();
    for (ms, free) in [(1500, 12000), (4000, 11200), (4200, 11190)] {
        // What the library reads itself to know.
        all.push(query(ms - 1, "/proc/meminfo", &[("MemFree", free), ("MemAvailable", 14000)], free));
        let values = [("free", free), ("total", 16384)];
        let answer = query(ms, "cuMemGetInfo_v2", &values, free);
        all.push(MemoryQuery { began_ns: Some(START + (ms - 2) * MS), stack: Some(torch), ..answer });
    }
    for ms in [4300, 4310, 4320] {
        let resident = [("size", 9000), ("resident", ms - 3500)];
        let directory = Some(PID.to_string());
        all.push(MemoryQuery {
            directory,
            stack: Some(psutil),
            ..query(ms, "/proc/PID/statm", &resident, 11190)
        });
    }
    let limit = query(4400, "memory.max", &[], 11190);
    all.push(MemoryQuery {
        text: Some("max".into()),
        directory: Some("run-3".into()),
        values: BTreeMap::new(),
        stack: Some(psutil),
        ..limit
    });
    // Another thread, while the call above ran: not part of it.
    all.push(MemoryQuery {
        tid: PID + 1,
        ..query(3999, "sysinfo", &[("freeram", 11200), ("totalram", 16384)], 11200)
    });
    all.sort_by_key(|query| query.at_ns);
    provenance.queries = all;
}
