mod causes;

use super::*;
use spark_trace_recording::redact::Names;
use spark_trace_recording::{FileContent, Loss, MemoryQuery, MemoryState, ProcessContext, Recording, Series};
use spark_trace_testing as testing;
use spark_trace_testing::{MIB, SECOND, START};

fn native() -> Recording {
    testing::native()
}

/// On the machine's plane.
fn verdict(a: &Recording, b: &Recording, slug: &str) -> Finding {
    verdict_on(Scope::System, a, b, slug)
}

fn verdict_on(plane: Scope, a: &Recording, b: &Recording, slug: &str) -> Finding {
    let findings = judge_on(Some(a), b, InstantSpec::Peak, plane);
    findings.findings.into_iter().find(|finding| finding.hypothesis == slug).unwrap()
}

/// A plane that a hypothesis is judged on: the machine's, where it is one.
fn plane_of(row: &Hypothesis) -> Scope {
    row.planes.last().copied().unwrap_or(Scope::System)
}

/// Adds bytes to a column at the peak.
fn add(recording: &mut Recording, columns: &[(&str, i64)]) {
    add_to(&mut recording.samples.system, 1, columns);
}

fn add_to(series: &mut Series, reading: usize, columns: &[(&str, i64)]) {
    let readings = series.begin_ns.len();
    for (column, mib) in columns {
        let values = series.columns.entry((*column).to_owned());
        let values = values.or_insert_with(|| vec![Some(0); readings].into());
        values.set(reading, Some(values.get(reading).unwrap_or(0).strict_add_signed(mib * MIB as i64)));
    }
}

/// What the target is charged for, beside the machine's counter of the same memory.
const CHARGED: &[(&str, &[&str])] = &[
    ("meminfo.AnonPages", &["stat.anon"]),
    ("meminfo.Cached", &["stat.file"]),
    ("meminfo.PageTables", &["stat.kernel", "stat.pagetables"]),
    ("meminfo.SUnreclaim", &["stat.kernel", "stat.slab_unreclaimable"]),
    ("meminfo.SReclaimable", &["stat.kernel", "stat.slab_reclaimable"]),
    ("meminfo.VmallocUsed", &["stat.kernel", "stat.vmalloc"]),
];

/// What is staged by [`more`] and judged by what the target is charged.
const OF_TARGET: &[&str] = &[
    "page-cache",
    "dirty-files",
    "duplicate-files",
    "host-memory",
    "kernel-memory",
    "file-names",
    "ebpf-maps",
];

/// The target uses `mib` more memory at the peak, which `column` counts.
fn more(recording: &mut Recording, column: &str, mib: i64) {
    others_use(recording, column, mib);
    let Some((_, stats)) = CHARGED.iter().find(|(machine, _)| *machine == column) else { return };
    // The cgroup is read from its creation on: its peak is its first reading.
    let cgroup = &mut recording.samples.cgroups[0].series;
    let columns: Vec<_> = stats.iter().chain(&["memory.current"]).map(|column| (*column, mib)).collect();
    add_to(cgroup, 0, &columns);
}

/// Somebody else does.
fn others_use(recording: &mut Recording, column: &str, mib: i64) {
    add(recording, &[(column, mib), ("meminfo.MemFree", -mib)]);
}

type Change = fn(&mut Recording);

/// What is staged in B, and which hypothesis must see it; without it that must be refuted.
const STAGED: &[(&str, Change)] = &[
    ("page-cache", |b| {
        more(b, "meminfo.Cached", 300);
        add(b, &[("meminfo.Inactive", 300)]);
    }),
    ("dirty-files", |b| {
        more(b, "meminfo.Cached", 300);
        add(b, &[("meminfo.Inactive", 300), ("meminfo.Dirty", 290)]);
        add_to(&mut b.samples.cgroups[0].series, 0, &[("stat.file_dirty", 290)]);
    }),
    ("duplicate-files", |b| {
        testing::file(b, 70, "/srv/lib/libtorch.so", 200, 10);
        testing::file(b, 71, "/var/lib/docker/overlay2/a/diff/usr/lib/libtorch.so", 200, 10);
        contain(b, &[(70, 7), (71, 7)]);
    }),
    ("host-memory", |b| {
        more(b, "meminfo.AnonPages", 300);
        add(b, &[("meminfo.Active", 300)]);
    }),
    ("kernel-memory", |b| more(b, "meminfo.PageTables", 300)),
    ("free-lists", |b| more(b, "zoneinfo.pcp_count", 300)),
    ("driver-memory", |b| {
        b.host.nvidia =
            Some(spark_trace_recording::Nvidia { kernel_module: Some("open".into()), ..Default::default() });
        more(b, "driver.nvidia_sysmem", 300);
    }),
    ("driver-pool", |b| more(b, "driver.nvidia_pool", 300)),
    ("leftovers", |b| {
        let shared = b.samples.system.columns.get_mut("meminfo.Shmem").unwrap();
        shared.map(|_| 300 * MIB);
        let cached = b.samples.system.columns.get_mut("meminfo.Cached").unwrap();
        cached.map(|value| value + 300 * MIB);
        let inactive = b.samples.system.columns.get_mut("meminfo.Inactive").unwrap();
        inactive.map(|value| value + 300 * MIB);
        let free = b.samples.system.columns.get_mut("meminfo.MemFree").unwrap();
        free.map(|value| value - 300 * MIB);
    }),
    ("environment", |b| {
        b.provenance.contexts[0].environment.insert("CUDA_MODULE_LOADING".into(), "EAGER".into());
    }),
    ("memory-limit", |b| {
        b.provenance.queries.push(MemoryQuery {
            at_ns: START + SECOND,
            interface: "memory.max".into(),
            directory: Some("/serve".into()),
            values: [("bytes".to_owned(), 1 << 30)].into(),
            ..MemoryQuery::default()
        });
    }),
    ("reclaim", |b| add_last(b, "vmstat.pgsteal_kswapd", 100_000)),
    ("huge-page-rest", |b| {
        add(b, &[("meminfo.MemFree", -300), ("meminfo.Inactive", 300), ("thp.anon_partially_mapped", 302)]);
    }),
    ("sockets", |b| {
        more(b, "meminfo.SUnreclaim", 300);
        add(b, &[("sockstat.TCP", 300)]);
    }),
    ("file-names", |b| {
        more(b, "meminfo.SReclaimable", 300);
        add(b, &[("meminfo.KReclaimable", 300)]);
        testing::page_allocs(b, 10, 300, &["allocate_slab", "kmem_cache_alloc_lru_noprof", "__d_alloc"]);
    }),
    ("ebpf-maps", |b| {
        more(b, "meminfo.VmallocUsed", 300);
        let frames = ["__vmalloc_node_range_noprof", "__bpf_map_area_alloc", "array_map_alloc", "map_create"];
        testing::page_allocs(b, 10, 300, &frames);
    }),
    ("limit-reclaim", |b| limited(b, 12, 100_000)),
    ("pin-leak", |b| add_last(b, "vmstat.nr_foll_pin_acquired", 100_000)),
];

/// Says what files contain: their inodes, and what makes their contents differ.
fn contain(recording: &mut Recording, contents: &[(u64, u32)]) {
    for file in &mut recording.provenance.files {
        let content = contents.iter().find(|(inode, _)| *inode == file.inode);
        let blocks = content.map(|(_, content)| (0..64).map(|block| Some(content + block)).collect());
        file.content = blocks.map(|blocks| FileContent { size: 200 * MIB, blocks });
    }
}

/// The target's cgroup has a limit, which was reached so many times, and so many pages were read again.
fn limited(recording: &mut Recording, reached: u64, refaults: u64) {
    let columns = [
        ("memory.max", 150 * MIB),
        ("events.max", reached),
        ("events.oom_kill", 0),
        ("stat.workingset_refault_file", refaults),
    ];
    let series = &mut recording.samples.cgroups[0].series;
    let readings = series.begin_ns.len();
    for (column, value) in columns {
        series.columns.insert(column.into(), vec![Some(value); readings].into());
    }
    add_last(recording, "vmstat.workingset_refault_file", refaults);
}

/// Counters of events that have come so far by the end.
fn add_last(recording: &mut Recording, column: &str, count: u64) {
    let readings = recording.samples.system.begin_ns.len();
    let values = recording.samples.system.columns.entry(column.to_owned());
    let values = values.or_insert_with(|| vec![Some(0); readings].into());
    values.set(readings - 1, Some(count));
}

/// What every recording of a real machine has and the synthetic ones lack.
fn complete(mut recording: Recording) -> Recording {
    recording.host.nvidia = None;
    // What no source explains of the synthetic ones would be somebody else's.
    add(&mut recording, &[("meminfo.MemFree", 64)]);
    let readings = recording.samples.system.begin_ns.len();
    for column in [
        "vmstat.pgsteal_kswapd",
        "vmstat.nr_foll_pin_acquired",
        "vmstat.nr_foll_pin_released",
        "driver.nvidia_pool",
    ] {
        recording.samples.system.columns.insert(column.into(), vec![Some(0); readings].into());
    }
    recording.provenance.contexts = vec![ProcessContext { pid: 4242, ..ProcessContext::default() }];
    recording
}

#[test]
fn stand_ins_for_names_change_no_verdict() {
    let a = complete(native());
    for (slug, change) in STAGED {
        let mut b = complete(native());
        change(&mut b);
        let names = Names::new();
        let [hidden_a, hidden_b] = [&a, &b].map(|recording| names.hidden_in(recording.clone()).unwrap());
        for plane in [Scope::System, Scope::Cgroup] {
            let verdicts = |a: &Recording, b: &Recording| -> Vec<_> {
                let findings = judge_on(Some(a), b, InstantSpec::Peak, plane).findings;
                findings.iter().map(|it| (it.hypothesis, it.verdict, it.explains_bytes)).collect()
            };
            assert_eq!(verdicts(&hidden_a, &hidden_b), verdicts(&a, &b), "{slug}");
        }
    }
}

#[test]
fn what_is_staged_is_supported_and_what_is_not_is_refuted() {
    let a = complete(native());
    for (slug, change) in STAGED {
        let absent = verdict(&a, &complete(native()), slug);
        assert_eq!(absent.verdict, Verdict::Refuted, "{slug}: {}", absent.because);
        let mut b = complete(native());
        change(&mut b);
        let staged = verdict(&a, &b, slug);
        assert_eq!(staged.verdict, Verdict::Supported, "{slug}: {}", staged.because);
        assert!(!staged.evidence.is_empty(), "{slug}");
        // The target's own memory is judged by what it is charged.
        if OF_TARGET.contains(slug) {
            let of_target = verdict_on(Scope::Cgroup, &a, &b, slug);
            assert_eq!(of_target.verdict, Verdict::Supported, "{slug}: {}", of_target.because);
        }
        // None of it is memory counted twice.
        let double = verdict(&a, &b, DOUBLE_COUNTING);
        assert_eq!(double.verdict, Verdict::Refuted, "{slug}: {}", double.because);
    }
}

#[test]
fn shares_are_of_the_whole_difference() {
    let a = complete(native());
    let mut b = complete(native());
    more(&mut b, "meminfo.AnonPages", 100);
    add(&mut b, &[("meminfo.Active", 100)]);
    more(&mut b, "meminfo.PageTables", 300);
    let findings = judge_on(Some(&a), &b, InstantSpec::Peak, Scope::System);
    assert_eq!(findings.delta_bytes, Some(400 * MIB as i64));
    let first: Vec<_> = findings
        .findings
        .iter()
        .take(2)
        .map(|f| (f.hypothesis, f.share.map(|share| share * 100.0)))
        .collect();
    assert_eq!(first, [("kernel-memory", Some(75.0)), ("host-memory", Some(25.0))]);
    assert_eq!(
        findings.headline.to_string(),
        "The machine has 400.0 MiB more in use with B than with A, each at its peak: kernel memory +300.0 MiB (75 %), memory \
         of processes +100.0 MiB (25 %). This includes everything else that ran on the machine. Memory counted twice: \
         refuted."
    );
    let target = judge(Some(&a), &b, InstantSpec::Peak).remove(0);
    assert_eq!(
        target.headline.to_string(),
        "The target of B is charged 400.0 MiB more than that of A, each at its peak: kernel memory +300.0 MiB (75 %), memory \
         of processes +100.0 MiB (25 %)."
    );
}

#[test]
fn no_source_of_a_plane_is_explained_twice_and_none_is_left_out() {
    use spark_trace_recording::ledger::Plane;
    for (scope, planes) in [
        (Scope::System, &[Plane::System][..]),
        (Scope::Cgroup, &[Plane::CgroupV1, Plane::CgroupV2]),
        (Scope::Device, &[Plane::Device]),
    ] {
        let rows = HYPOTHESES.iter().filter(|row| row.planes.contains(&scope));
        let mut named: Vec<_> = rows.flat_map(|row| row.sources.iter().copied()).collect();
        let all = planes.iter().flat_map(|plane| {
            plane.sources().filter(|source| !plane.terms(source).is_empty()).map(|source| source.slug)
        });
        let missing: Vec<_> = all.filter(|slug| !named.contains(slug)).collect();
        assert_eq!(missing, Vec::<&str>::new(), "{scope:?}");
        named.sort_unstable();
        let count = named.len();
        named.dedup();
        assert_eq!(named.len(), count, "{scope:?}");
    }
}

#[test]
fn what_others_did_decides_nothing_of_the_runs() {
    let a = complete(native());
    // Another program ended meanwhile and took as much as the target took more.
    let mut b = complete(native());
    more(&mut b, "meminfo.AnonPages", 300);
    add(&mut b, &[("meminfo.Active", 300)]);
    others_use(&mut b, "meminfo.Cached", -290);
    add(&mut b, &[("meminfo.Inactive", -290)]);
    for slug in ["page-cache", "host-memory", "kernel-memory", "free-lists"] {
        let finding = verdict(&a, &b, slug);
        assert_eq!(finding.verdict, Verdict::Untestable, "{slug}: {}", finding.because);
        // The synthetic target is charged for 1 MiB that is in none of the machine's counters.
        let others = "other programs changed the machine's memory by -291.0 MiB during B";
        assert!(finding.because.to_string().contains(others), "{}", finding.because);
    }
    let planes = judge(Some(&a), &b, InstantSpec::Peak);
    assert_eq!(planes.iter().map(|of| of.plane).collect::<Vec<_>>(), [Scope::Cgroup, Scope::System]);
    assert!(planes[1].includes_others && !planes[0].includes_others);
    assert!(planes[1].headline.to_string().contains("other programs changed"), "{}", planes[1].headline);
    // The target's own memory is what it was charged, whatever they did.
    assert_eq!(verdict_on(Scope::Cgroup, &a, &b, "host-memory").verdict, Verdict::Supported);
    assert_eq!(verdict_on(Scope::Cgroup, &a, &b, "page-cache").verdict, Verdict::Refuted);
}

#[test]
fn runs_that_began_differently_are_compared_by_their_own_memory_only() {
    let a = complete(native());
    let mut b = complete(native());
    for (column, mib) in [("meminfo.Cached", -1500), ("meminfo.Inactive", -1500), ("meminfo.MemFree", 1500)] {
        for reading in 0..3 {
            add_to(&mut b.samples.system, reading, &[(column, mib)]);
        }
    }
    let finding = verdict(&a, &b, "page-cache");
    assert_eq!(finding.verdict, Verdict::Untestable);
    assert!(finding.because.to_string().contains("start state differs"), "{}", finding.because);
    assert_eq!(verdict_on(Scope::Cgroup, &a, &b, "page-cache").verdict, Verdict::Refuted);
}

#[test]
fn what_the_gpu_has_comes_first_where_the_target_took_most_there() {
    let (mut a, mut b) = (testing::gpus(), testing::gpus());
    let used = b.samples.devices[0].series.columns.get_mut("process.4242.used").unwrap();
    used.map(|bytes| bytes + 4096 * MIB);
    for (column, less) in [("memory.free", true), ("memory.used", false)] {
        let values = b.samples.devices[0].series.columns.get_mut(column).unwrap();
        let moved = values.get(1).unwrap().strict_add_signed(if less { -4096 } else { 4096 } * MIB as i64);
        values.set(1, Some(moved));
    }
    // A GPU that shares the machine's memory has no counter of its own.
    for recording in [&mut a, &mut b] {
        recording.samples.devices.truncate(1);
    }
    let planes = judge(Some(&a), &b, InstantSpec::Peak);
    assert_eq!(
        planes.iter().map(|of| of.plane).collect::<Vec<_>>(),
        [Scope::Device, Scope::Cgroup, Scope::System]
    );
    assert_eq!(planes[0].delta_bytes, Some(4096 * MIB as i64));
    assert!(
        planes[0].headline.to_string().starts_with("The GPUs have 4.00 GiB more in use"),
        "{}",
        planes[0].headline
    );
    let context = planes[0].findings.iter().find(|of| of.hypothesis == "gpu-contexts").unwrap();
    assert_eq!((context.verdict, context.share), (Verdict::Supported, Some(1.0)));
    // The run alone.
    assert!(
        judge(None, &b, InstantSpec::Peak)[0]
            .headline
            .to_string()
            .starts_with("The memory in use on the GPUs grew by")
    );
    assert!(judge(None, &testing::native(), InstantSpec::Peak).iter().all(|of| of.plane != Scope::Device));
}
