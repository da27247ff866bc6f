//! Synthetic recordings for tests. Two stories, [`native`] and [`container`]: the same
//! program, once as a command and once in a container whose image it is the first to touch. [`cuda()`]
//! is a third: it takes device, pinned and managed memory on a machine whose GPU shares the memory.
//!
//! tests/data/ holds them as files; `SPARK_TRACE_BLESS=1 cargo test` rewrites those.

use spark_trace_recording::{provenance::*, schema::*, target::*};

mod charges;
mod context;
mod cuda;
mod hooks;

pub use cuda::cuda;

pub const MIB: u64 = 1 << 20;
pub const SECOND: u64 = 1_000_000_000;
/// When every synthetic trace starts.
pub const START: u64 = 100 * SECOND;
pub const MEMORY_TOTAL: u64 = 16384 * MIB;

/// Columns of one reading, without their file's prefix.
pub type Columns<'a> = &'a [(&'a str, u64)];

/// An empty recording of a simulated machine, ten seconds long.
pub fn empty() -> Recording {
    Recording {
        schema: SCHEMA.into(),
        schema_version: SCHEMA_VERSION,
        tool: Tool {
            version: "0.1.0".into(),
            profile: "default".into(),
            interval_ns: 100_000_000,
            gpu_interval_ns: None,
            min_region: MIB,
            keep_fine_ns: None,
            pid: Some(4000),
        },
        host: Host {
            kernel: "6.11.0-test".into(),
            arch: "aarch64".into(),
            page_size: 4096,
            cpus: 4,
            memory_total: MEMORY_TOTAL,
            cgroup_version: "v2".into(),
            memory_controller: Some("/sys/fs/cgroup".into()),
            boot_id: "00000000-0000-0000-0000-000000000000".into(),
            vmap_stack: Some(true),
            provenance: "simulated".into(),
            ..Host::default()
        },
        clock: Clock { name: "CLOCK_MONOTONIC".into(), realtime_offset_ns: 0 },
        target: Target {
            kind: "command".into(),
            started_ns: START,
            ended_ns: START + 10 * SECOND,
            ..Target::default()
        },
        phases: vec![],
        health: Health { complete: true, ..Health::default() },
        cost: Cost { agent_cpu_ns: 30_000_000, agent_rss_peak: 20 * MIB, ..Cost::default() },
        samples: Samples::default(),
        provenance: Provenance::default(),
    }
}

/// Appends a reading; columns it lacks, or that are new with it, are null where they were not read.
pub fn push(series: &mut Series, at_ns: u64, columns: impl IntoIterator<Item = (String, u64)>) {
    let before = series.begin_ns.len();
    series.begin_ns.push(at_ns);
    series.end_ns.push(at_ns + 1_000_000);
    for (name, value) in columns {
        let column = series.columns.entry(name).or_default();
        column.resize(before);
        column.push(Some(value));
    }
    for column in series.columns.values_mut() {
        column.resize(before + 1);
    }
}

pub fn series(readings: &[(u64, Columns<'_>)]) -> Series {
    let mut series = Series::default();
    for &(at_ns, columns) in readings {
        push(&mut series, at_ns, columns.iter().map(|&(name, value)| (name.to_owned(), value)));
    }
    series
}

/// What one run has in memory, in MiB.
struct Levels {
    anon: u64,
    file: u64,
    dirty: u64,
    kernel: u64,
    unexplained: u64,
}

const IDLE: Levels = Levels { anon: 0, file: 0, dirty: 0, kernel: 0, unexplained: 0 };

/// The machine around the run: 2 GiB of page cache, and what every machine has.
fn system_columns(run: &Levels) -> Vec<(String, u64)> {
    let (anon, file, kernel) = (500 + run.anon, 2048 + run.file + run.dirty, 100 + run.kernel);
    let used = anon + file + 200 + kernel + 16 + 12 + 20 + 30 + 4 + 50 + run.unexplained;
    [
        ("meminfo.MemTotal", 16384),
        ("meminfo.MemFree", 16384 - used),
        ("meminfo.AnonPages", anon),
        ("meminfo.Cached", file),
        ("meminfo.Buffers", 0),
        ("meminfo.Shmem", 0),
        ("meminfo.Dirty", run.dirty),
        ("meminfo.Writeback", 0),
        ("meminfo.SwapCached", 0),
        ("meminfo.Active", anon / 2),
        ("meminfo.Inactive", anon - anon / 2 + file),
        ("meminfo.Unevictable", 0),
        ("meminfo.SReclaimable", 200),
        ("meminfo.KReclaimable", 200),
        ("meminfo.SUnreclaim", kernel),
        ("meminfo.KernelStack", 16),
        ("meminfo.PageTables", 12),
        ("meminfo.Percpu", 20),
        ("meminfo.VmallocUsed", 46),
        ("meminfo.Hugetlb", 0),
        ("zoneinfo.pcp_count", 4),
        ("kpageflags.huge_zero_page", 0),
    ]
    .map(|(name, mib)| (name.to_owned(), mib * MIB))
    .into()
}

fn cgroup_columns(run: &Levels, peak: u64) -> Vec<(String, u64)> {
    [
        ("memory.current", run.anon + run.file + run.dirty + run.kernel + 1),
        ("memory.peak", peak),
        ("stat.anon", run.anon),
        ("stat.file", run.file + run.dirty),
        ("stat.shmem", 0),
        ("stat.file_dirty", run.dirty),
        ("stat.file_writeback", 0),
        ("stat.swapcached", 0),
        ("stat.kernel", run.kernel),
        ("stat.slab_reclaimable", 0),
        ("stat.slab_unreclaimable", run.kernel),
        ("stat.kernel_stack", 0),
        ("stat.pagetables", 0),
        ("stat.percpu", 0),
        ("stat.vmalloc", 0),
        ("stat.sock", 0),
    ]
    .map(|(name, mib)| (name.to_owned(), mib * MIB))
    .into()
}

fn symbol(provenance: &mut Provenance, name: &str, module: Option<&str>) -> u32 {
    provenance.symbols.push(Symbol {
        name: Some(name.into()),
        module: module.map(str::to_owned),
        address: 0xffff_8000_0800_0000 + provenance.symbols.len() as u64 * 64,
        ..Symbol::default()
    });
    provenance.symbols.len() as u32 - 1
}

/// Adds a stack of frames `name` or `module:name`, innermost first, and returns its id.
pub fn stack(provenance: &mut Provenance, space: &str, frames: &[&str]) -> u32 {
    let frames = frames
        .iter()
        .map(|frame| match frame.split_once(':') {
            Some((module, name)) => symbol(provenance, name, Some(module)),
            None => symbol(provenance, frame, None),
        })
        .collect();
    let id = provenance.stacks.len() as u32 + 1;
    provenance.stacks.push(Stack { id, space: space.into(), frames, way: None });
    id
}

/// Adds page allocations of `cgroup` with `live` MiB at the peak, half of it at the end.
pub fn page_allocs(recording: &mut Recording, cgroup: u64, live: u64, frames: &[&str]) {
    let stack = stack(&mut recording.provenance, "kernel", frames);
    recording.provenance.page_allocs.push(PageAllocs {
        cgroup,
        charged: cgroup != 0,
        mobility: "unmovable".into(),
        stack: Some(stack),
        allocs: live * 256,
        frees: live * 128,
        bytes_allocated: live * MIB,
        bytes_freed: live * MIB / 2,
        live: [Some(0), Some(live * MIB), Some(live * MIB / 2)].into(),
    });
}

/// Adds a file of which `mib` MiB came into the page cache, charged to `charged_to`.
pub fn file(recording: &mut Recording, inode: u64, path: &str, mib: i64, charged_to: u64) {
    recording.provenance.files.push(FilePages {
        content: None,
        before: None,
        device: "259:2".into(),
        inode,
        path: Some(path.into()),
        charged_to,
        bytes_added: mib.unsigned_abs() * MIB,
        bytes_removed: 0,
        live: [Some(0), Some(mib * MIB as i64), Some(mib * MIB as i64)].into(),
        first_touch: Some(FirstTouch {
            at_ns: START + SECOND,
            pid: 4242,
            comm: "python3".into(),
            cgroup: charged_to,
        }),
        place: Some(FilePlace { path: path.into(), state: FileState::Found, ..FilePlace::default() }),
    });
}

/// One process with a heap of `anon` MiB, sampled at the peak.
fn process(recording: &mut Recording, cgroup: u64, anon: u64) {
    let (peak, pid) = (START + 5 * SECOND, 4242);
    recording.provenance.processes.push(Process {
        pid,
        parent: Some(1),
        comm: "python3".into(),
        argv: vec!["python3".into(), "serve.py".into()],
        cgroup,
        started_ns: Some(START),
        ended_ns: Some(START + 10 * SECOND),
        exit_status: Some(0),
        rss_peak: Some((anon + 40) * MIB),
        ..Process::default()
    });
    let columns: Columns<'_> =
        &[("rss_anon", anon * MIB), ("rss_file", 40 * MIB), ("rss_shmem", 0), ("swap", 0)];
    recording.samples.processes.push(ProcessSeries { pid, series: series(&[(peak, columns)]) });
    recording.provenance.regions.push(Region {
        smaller: None,
        at_ns: peak,
        pid,
        address: 0x5555_0000_0000,
        length: (anon + 1) * MIB,
        name: "[heap]".into(),
        rss: anon * MIB,
        pss: anon * MIB,
        anonymous: anon * MIB,
        swap: 0,
    });
    let user = stack(&mut recording.provenance, "user", &["libc.so.6:mmap", "python3:arena_alloc"]);
    recording.provenance.mappings.push(Mapping {
        from: None,
        at_ns: START + 2 * SECOND,
        pid,
        op: "mmap".into(),
        address: 0x7f00_0000_0000,
        length: (anon * MIB) as i64,
        kind: Some("anon".into()),
        detail: Some(3),
        stack: Some(user),
    });
}

/// A run in its own cgroup `id`: starts, peaks after five seconds, ends after ten.
fn run(id: u64, path: &str, peak: &Levels, end: &Levels) -> Recording {
    let mut recording = empty();
    recording.target.exit_code = Some(0);
    recording.target.cgroups = vec![TargetCgroup {
        id,
        path: path.into(),
        root: true,
        created_ns: Some(START),
        ..Default::default()
    }];
    recording.phases = vec![
        Phase { name: "start".into(), at_ns: START },
        Phase { name: "end".into(), at_ns: START + 10 * SECOND },
    ];
    recording.provenance.cgroups = vec![
        CgroupName { id: 1, path: "/".into(), target: false },
        CgroupName { id, path: path.into(), target: true },
    ];
    let charged_peak = peak.anon + peak.file + peak.dirty + peak.kernel + 1;
    let mut cgroup = Series::default();
    for (seconds, levels) in [(0, &IDLE), (5, peak), (10, end)] {
        let at_ns = START + seconds * SECOND;
        push(&mut recording.samples.system, at_ns, system_columns(levels));
        if seconds > 0 {
            push(&mut cgroup, at_ns + 1_000_000, cgroup_columns(levels, charged_peak));
        }
    }
    recording.samples.cgroups = vec![CgroupSeries { id, path: path.into(), series: cgroup }];
    recording.provenance.instants = [(0, "start"), (5, "cgroup-peak"), (10, "end")]
        .map(|(s, why)| Instant { at_ns: START + s * SECOND, why: why.into() })
        .into();
    // Its pages are seen in stacks, and no counter has them: the hooks on the driver could not be attached.
    recording.host.nvidia = Some(Nvidia { kernel_module: Some("open".into()), ..Nvidia::default() });
    recording.health.hooks = hooks::without_cuda();
    process(&mut recording, id, peak.anon);
    recording
}

/// The program as a command: its libraries were in the page cache already.
pub fn native() -> Recording {
    let peak = Levels { anon: 800, file: 10, dirty: 0, kernel: 6, unexplained: 64 };
    let end = Levels { anon: 20, ..peak };
    let mut recording = run(10, "/spark-trace/run-1", &peak, &end);
    recording.target.argv = vec!["python3".into(), "serve.py".into()];
    file(&mut recording, 900, "/srv/model/config.json", 10, 10);
    page_allocs(&mut recording, 10, 6, &["allocate_slab", "___slab_alloc", "kmem_cache_alloc_noprof"]);
    page_allocs(&mut recording, 0, 64, &["nvidia:nv_alloc_system_pages", "nvidia:nv_alloc_pages"]);
    charges::add(&mut recording, 10, 802, 10);
    recording
}

/// The program in a container: it is the first to touch the image's libraries.
pub fn container() -> Recording {
    let peak = Levels { anon: 810, file: 990, dirty: 20, kernel: 8, unexplained: 64 };
    let end = Levels { anon: 20, ..peak };
    let mut recording = run(20, "/system.slice/docker-0123456789ab.scope", &peak, &end);
    recording.target.kind = "container".into();
    recording.target.take_container(Container {
        engine: "docker".into(),
        id: "0123456789ab".into(),
        name: Some("serve".into()),
        ..Container::default()
    });
    file(&mut recording, 700, "/var/lib/docker/overlay2/abc123/diff/usr/lib/libtorch_cuda.so", 980, 20);
    file(&mut recording, 900, "/srv/model/config.json", 10, 20);
    file(&mut recording, 701, "/var/lib/docker/overlay2/def456/diff/tmp/engine.plan", 20, 20);
    page_allocs(
        &mut recording,
        20,
        8,
        &["allocate_slab.constprop.0", "___slab_alloc", "kmem_cache_alloc_noprof"],
    );
    page_allocs(&mut recording, 0, 64, &["nvidia:nv_alloc_system_pages", "nvidia:nv_alloc_pages"]);
    charges::add(&mut recording, 20, 812, 990);
    recording
}

/// [`container`] on a machine with two simulated GPUs: one with memory of its own, one that shares the system's.
/// The target allocates on both; on the first somebody else was before.
pub fn gpus() -> Recording {
    let mut recording = container();
    recording.tool.gpu_interval_ns = Some(100_000_000);
    recording.host.nvidia =
        Some(Nvidia { driver_version: Some("580.0-simulated".into()), simulated: true, ..Nvidia::default() });
    recording.health.sources =
        vec![SourceVerdict { name: "nvml".into(), verdict: "ok".into(), reason: None }];
    recording.cost.nvml =
        Some(Readings { readings: 3, calls_ns: 9_000_000, longest_ns: 4_000_000, start_ns: 50_000_000 });
    for (index, memory_total) in [(0, Some(143_771 * MIB)), (1, None)] {
        let uuid = Some(format!("GPU-simulated-{index}"));
        let name = Some(format!("Simulated GPU {index}"));
        let gpu = Gpu { index, uuid: uuid.clone(), name, memory_total, ..Gpu::default() };
        recording.host.gpus.push(gpu);
        let mut device = DeviceSeries { index, uuid, series: Series::default() };
        // Seconds, MiB of the target, MiB of somebody else.
        let others = if memory_total.is_some() { 500 } else { 0 };
        for (seconds, target) in [(0, None), (5, Some(if others > 0 { 30_000 } else { 700 })), (10, None)] {
            let of_target = target.unwrap_or(0);
            let listed = u64::from(target.is_some()) + u64::from(others > 0);
            let busy = target.is_some();
            let mut columns = vec![
                ("processes.listed".to_owned(), listed),
                ("utilization.gpu".to_owned(), if busy { 97 } else { 0 }),
                ("power.draw".to_owned(), if busy { 640_000 } else { 75_000 }),
                ("throttle.reasons".to_owned(), if busy { 0x8004 } else { 1 }),
            ];
            columns.extend(target.map(|mib| ("process.4242.used".to_owned(), mib * MIB)));
            if let Some(total) = memory_total {
                let used = of_target + others + 16;
                columns.push(("process.99.used".to_owned(), others * MIB));
                columns.push(("memory.total".to_owned(), total));
                columns.push(("memory.reserved".to_owned(), 605 * MIB));
                columns.push(("memory.used".to_owned(), used * MIB));
                columns.push(("memory.free".to_owned(), total - (used + 605) * MIB));
            }
            push(&mut device.series, START + seconds * SECOND, columns);
        }
        if memory_total.is_none() {
            device.series.absent = ["memory.total", "memory.free", "memory.used", "memory.reserved"]
                .map(|column| Absent {
                    column: column.into(),
                    since_ns: START,
                    reason: format!(
                        "{} (nvmlDeviceGetMemoryInfo_v2)",
                        spark_trace_recording::verdict::NVML_NOT_SUPPORTED
                    ),
                })
                .into();
        }
        recording.samples.devices.push(device);
    }
    recording
}
