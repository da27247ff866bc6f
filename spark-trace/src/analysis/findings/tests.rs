use super::*;
use crate::recording::testing::{self, MIB, SECOND, START};
use crate::recording::{FileContent, Hook, Loss, MemoryState, ProcessContext, Query, Recording, Series};

/// Hooks that hypotheses ask for.
fn seen(mut recording: Recording) -> Recording {
    for name in ["page-alloc", "file-add", "file-remove", "mapping"] {
        recording.health.hooks.push(Hook {
            name: name.into(),
            verdict: "ok".into(),
            lost: Some(0),
            ..Hook::default()
        });
    }
    recording
}

fn native() -> Recording {
    seen(testing::native())
}

/// On the machine's plane.
fn verdict(a: &Recording, b: &Recording, slug: &str) -> Finding {
    verdict_on(Scope::System, a, b, slug)
}

fn verdict_on(plane: Scope, a: &Recording, b: &Recording, slug: &str) -> Finding {
    let findings = judge_on(Some(a), b, At::Peak, plane);
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
            Some(crate::recording::Nvidia { kernel_module: Some("open".into()), ..Default::default() });
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
        b.provenance.queries.push(Query {
            at_ns: START + SECOND,
            asked: "memory.max".into(),
            directory: Some("/serve".into()),
            values: [("bytes".to_owned(), 1 << 30)].into(),
            ..Query::default()
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
    let findings = judge_on(Some(&a), &b, At::Peak, Scope::System);
    assert_eq!(findings.delta_bytes, Some(400 * MIB as i64));
    let first: Vec<_> = findings
        .findings
        .iter()
        .take(2)
        .map(|f| (f.hypothesis, f.share.map(|share| share * 100.0)))
        .collect();
    assert_eq!(first, [("kernel-memory", Some(75.0)), ("host-memory", Some(25.0))]);
    assert_eq!(
        findings.headline,
        "The machine has 400.0 MiB more in use with B than with A, each at its peak: kernel memory +300.0 MiB (75 %), memory \
         of processes +100.0 MiB (25 %). This includes everything else that ran on the machine. Memory counted twice: \
         refuted."
    );
    let target = judge(Some(&a), &b, At::Peak).remove(0);
    assert_eq!(
        target.headline,
        "The target of B is charged 400.0 MiB more than that of A, each at its peak: kernel memory +300.0 MiB (75 %), memory \
         of processes +100.0 MiB (25 %)."
    );
}

#[test]
fn no_source_of_a_plane_is_explained_twice_and_none_is_left_out() {
    use crate::ledger::Plane;
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
        assert!(finding.because.contains(others), "{}", finding.because);
    }
    let planes = judge(Some(&a), &b, At::Peak);
    assert_eq!(planes.iter().map(|of| of.plane).collect::<Vec<_>>(), [Scope::Cgroup, Scope::System]);
    assert!(planes[1].includes_others && !planes[0].includes_others);
    assert!(planes[1].headline.contains("other programs changed"), "{}", planes[1].headline);
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
    assert!(finding.because.contains("start state differs"), "{}", finding.because);
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
    let planes = judge(Some(&a), &b, At::Peak);
    assert_eq!(
        planes.iter().map(|of| of.plane).collect::<Vec<_>>(),
        [Scope::Device, Scope::Cgroup, Scope::System]
    );
    assert_eq!(planes[0].delta_bytes, Some(4096 * MIB as i64));
    assert!(planes[0].headline.starts_with("The GPUs have 4.00 GiB more in use"), "{}", planes[0].headline);
    let context = planes[0].findings.iter().find(|of| of.hypothesis == "gpu-contexts").unwrap();
    assert_eq!((context.verdict, context.share), (Verdict::Supported, Some(1.0)));
    // The run alone.
    assert!(judge(None, &b, At::Peak)[0].headline.starts_with("The memory in use on the GPUs grew by"));
    assert!(judge(None, &testing::native(), At::Peak).iter().all(|of| of.plane != Scope::Device));
}

#[test]
fn memory_that_is_counted_twice_is_seen_by_each_test() {
    let a = complete(native());
    // C1: a counter says more than is in use.
    let mut b = complete(native());
    add(&mut b, &[("meminfo.AnonPages", 2000), ("meminfo.Active", 2000)]);
    let finding = verdict(&a, &b, DOUBLE_COUNTING);
    assert!(
        finding.verdict == Verdict::Supported && finding.because.starts_with("the sources of B exceed"),
        "{}",
        finding.because
    );
    // C2: the driver's pages are charged.
    let mut b = complete(native());
    b.host.nvidia =
        Some(crate::recording::Nvidia { kernel_module: Some("open".into()), ..Default::default() });
    testing::page_allocs(&mut b, 10, 64, &["nvidia:nv_alloc_system_pages", "nvidia:nv_alloc_pages"]);
    let finding = verdict(&a, &b, DOUBLE_COUNTING);
    assert!(
        finding.verdict == Verdict::Supported
            && finding.because.contains("of the driver's pages are charged in B"),
        "{}",
        finding.because
    );
    // C3: MemFree falls, and nothing holds it.
    let mut b = complete(native());
    add(&mut b, &[("meminfo.MemFree", -500)]);
    let finding = verdict(&a, &b, DOUBLE_COUNTING);
    assert!(
        finding.verdict == Verdict::Inconclusive
            && finding.because.starts_with("the memory in no source does not decide"),
        "{}",
        finding.because
    );
    // C4: the GPU's library answers something else in one of them.
    let asked = |recording: &Recording, gap: u64| {
        let mut recording = recording.clone();
        recording.provenance.queries.push(Query {
            at_ns: START + SECOND,
            asked: "cuMemGetInfo_v2".into(),
            values: [("free".to_owned(), 8192 * MIB - gap * MIB)].into(),
            state: Some(MemoryState { mem_free: Some(8192 * MIB), ..MemoryState::default() }),
            ..Query::default()
        });
        recording
    };
    let base = complete(native());
    let finding = verdict(&asked(&base, 0), &asked(&base, 3000), DOUBLE_COUNTING);
    assert!(
        finding.verdict == Verdict::Supported
            && finding.because.starts_with("cuMemGetInfo answers MemFree in A"),
        "{}",
        finding.because
    );
    let finding = verdict(&asked(&base, 0), &asked(&base, 0), DOUBLE_COUNTING);
    assert!(finding.verdict == Verdict::Refuted && finding.because.contains("alike"), "{}", finding.because);
}

#[test]
fn free_pages_on_their_way_to_a_hypervisor_are_not_counted_twice() {
    const REPORTED: Option<u64> = Some(128 * MIB);
    const PEAK: usize = 1;
    /// All stands at every reading as at the peak, but that so many MiB are neither free nor in a source then.
    fn plateau(reporting: Option<u64>, gone: [i64; 3]) -> Recording {
        let mut recording = complete(native());
        recording.host.page_reporting_bytes = reporting;
        let times: Vec<_> = (1..=3).map(|second| START + second * SECOND).collect();
        recording.samples.system.begin_ns.clone_from(&times);
        recording.samples.system.end_ns = times;
        for (name, column) in &mut recording.samples.system.columns {
            let peak = column.get(PEAK);
            for (index, mib) in gone.into_iter().enumerate() {
                let hidden = if name == "meminfo.MemFree" { mib * MIB as i64 } else { 0 };
                column.set(index, peak.map(|peak| peak.strict_add_signed(-hidden)));
            }
        }
        recording
    }
    let still = || plateau(REPORTED, [0; 3]);
    let gone = |gone: [i64; 3]| plateau(REPORTED, gone);
    for (why, a, b, judged) in [
        ("in B", still(), gone([0, 100, 0]), Verdict::Refuted),
        ("in A", gone([0, 100, 0]), still(), Verdict::Refuted),
        ("alike in both", gone([0, 100, 0]), gone([0, 110, 0]), Verdict::Refuted),
        ("it stays", still(), gone([0, 100, 100]), Verdict::Inconclusive),
        ("it was there before", still(), gone([100; 3]), Verdict::Inconclusive),
        ("more than is reported at a time", still(), gone([0, 300, 0]), Verdict::Inconclusive),
        ("nothing is reported", still(), plateau(None, [0, 100, 0]), Verdict::Inconclusive),
    ] {
        let finding = verdict(&a, &b, DOUBLE_COUNTING);
        assert_eq!(finding.verdict, judged, "{why}: {}", finding.because);
        let told = finding.because.contains("reported to a hypervisor");
        assert_eq!(told, ["in B", "in A"].contains(&why), "{why}: {}", finding.because);
    }
}

#[test]
fn what_was_not_seen_or_was_lost_decides_nothing() {
    let a = complete(native());
    type Harm = fn(&mut Recording);
    let harms: &[Harm] = &[
        |b| {
            b.health.hooks.retain(|hook| !["page-alloc", "file-add", "mapping"].contains(&hook.name.as_str()))
        },
        |b| b.health.hooks.iter_mut().for_each(|hook| hook.verdict = "unsupported".into()),
        |b| b.health.hooks.iter_mut().for_each(|hook| hook.lost = Some(3)),
        |b| {
            b.health.losses.push(Loss { what: "events".into(), count: 2 });
            b.health.lost_total = 2;
        },
    ];
    for harm in harms {
        let mut b = complete(native());
        harm(&mut b);
        for hypothesis in HYPOTHESES.iter().filter(|row| !row.hooks.is_empty()) {
            let finding = verdict_on(plane_of(hypothesis), &a, &b, hypothesis.slug);
            assert_eq!(finding.verdict, Verdict::Untestable, "{}: {}", hypothesis.slug, finding.because);
        }
    }
}

#[test]
fn the_little_that_a_hook_missed_is_told_and_decides_nothing() {
    let a = complete(native());
    let mut b = complete(native());
    for hook in &mut b.health.hooks {
        (hook.runs, hook.lost) = (Some(4_997), Some(3));
    }
    b.health.losses.push(Loss { what: "skipped_runs".into(), count: 12 });
    b.health.losses.push(Loss { what: "log_lines".into(), count: 5 });
    for hypothesis in HYPOTHESES.iter().filter(|row| !row.hooks.is_empty()) {
        let plane = plane_of(hypothesis);
        let before = verdict_on(plane, &a, &a, hypothesis.slug);
        let after = verdict_on(plane, &a, &b, hypothesis.slug);
        assert_eq!(after.verdict, before.verdict, "{}: {}", hypothesis.slug, after.because);
        let told = format!("; hook {} missed 3 of 5000 events in B", hypothesis.hooks[0]);
        assert!(after.because.contains(&told), "{}: {}", hypothesis.slug, after.because);
    }
    // A map that was full touches those that rest on it.
    b.health.losses.push(Loss { what: "files".into(), count: 1 });
    assert_eq!(verdict(&a, &b, "duplicate-files").verdict, Verdict::Untestable);
    assert_ne!(verdict(&a, &b, "driver-memory").verdict, Verdict::Untestable);
}

#[test]
fn what_goes_the_other_way_explains_nothing() {
    let a = complete(native());
    let mut b = complete(native());
    more(&mut b, "meminfo.PageTables", 900);
    more(&mut b, "meminfo.AnonPages", -100);
    add(&mut b, &[("meminfo.Active", -100)]);
    let finding = verdict(&a, &b, "host-memory");
    assert!(
        finding.verdict == Verdict::Refuted && finding.because.contains("the other way"),
        "{}",
        finding.because
    );
}

#[test]
fn one_run_is_judged_by_its_growth() {
    let b = complete(native());
    let target = judge(None, &b, At::Peak).remove(0);
    assert_eq!(target.plane, Scope::Cgroup);
    assert!(
        target.headline.starts_with("The memory charged to the target grew by 817.0 MiB"),
        "{}",
        target.headline
    );
    let findings = judge_on(None, &b, At::Peak, Scope::System);
    assert_eq!(findings.a_at_ns, None);
    let of = |slug: &str| findings.findings.iter().find(|finding| finding.hypothesis == slug).unwrap();
    assert_eq!(of("host-memory").verdict, Verdict::Supported);
    assert_eq!(of("host-memory").explains_bytes, Some(800 * MIB as i64));
    assert_eq!(of("environment").verdict, Verdict::Untestable);
    assert!(findings.headline.starts_with("The machine's memory in use grew by"), "{}", findings.headline);
}

#[test]
fn without_readings_everything_is_untestable() {
    let findings = judge(None, &testing::empty(), At::Peak);
    assert_eq!(findings.len(), 1);
    assert!(findings[0].findings.iter().all(|finding| finding.verdict == Verdict::Untestable));
}

#[test]
fn what_a_target_at_its_limit_reads_again_is_no_shortage_of_the_machine() {
    let a = complete(native());
    let mut b = complete(native());
    limited(&mut b, 12, 100_000);
    testing::file(&mut b, 77, "/models/model.gguf", 100, 10);
    b.provenance.files.last_mut().unwrap().bytes_added = 400 * MIB;
    let limit = verdict(&a, &b, "limit-reclaim");
    assert_eq!(limit.verdict, Verdict::Supported, "{}", limit.because);
    assert_eq!(
        limit.because,
        "the limit of 150.0 MiB of B was reached 12 times: the kernel reclaimed pages of files, and 390.6 MiB of them were \
         read again, the most of /models/model.gguf"
    );
    assert!(limit.next.contains("Raise the limit"), "{}", limit.next);
    let machine = verdict(&a, &b, "reclaim");
    assert_eq!(machine.verdict, Verdict::Refuted, "{}", machine.because);
    // What others read again is the machine's.
    add_last(&mut b, "vmstat.workingset_refault_file", 200_000);
    assert_eq!(verdict(&a, &b, "reclaim").verdict, Verdict::Supported);
    // A limit that nobody met explains nothing, one that was met and did no harm decides nothing.
    for (reached, refaults, judged) in [(0, 100_000, Verdict::Refuted), (3, 10, Verdict::Inconclusive)] {
        let mut b = complete(native());
        limited(&mut b, reached, refaults);
        let finding = verdict(&a, &b, "limit-reclaim");
        assert_eq!(finding.verdict, judged, "{}", finding.because);
    }
    // What was killed for want of memory is told.
    let mut b = complete(native());
    limited(&mut b, 3, 10);
    let kills = &mut b.samples.cgroups[0].series.columns.get_mut("events.oom_kill").unwrap();
    kills.map(|_| 1);
    let finding = verdict(&a, &b, "limit-reclaim");
    assert!(
        finding.verdict == Verdict::Supported && finding.because.contains("killed 1 of"),
        "{}",
        finding.because
    );
}

#[test]
fn what_is_mapped_nowhere_without_huge_pages_is_not_called_huge_pages() {
    let unmapped = |column: &str, bytes: i64| {
        let mut b = complete(native());
        add(&mut b, &[("meminfo.MemFree", -300), ("meminfo.Inactive", 300), (column, bytes)]);
        verdict(&complete(native()), &b, "huge-page-rest")
    };
    let pinned = unmapped("thp.anon_partially_mapped", 0);
    assert!(
        pinned.verdict == Verdict::Refuted && pinned.because.contains("a pin or a pipe"),
        "{}",
        pinned.because
    );
    // A kernel that counts neither.
    let unknown = unmapped("meminfo.Other", 0);
    assert_eq!(unknown.verdict, Verdict::Inconclusive, "{}", unknown.because);
    // It is memory of processes in any case.
    let mut b = complete(native());
    add(&mut b, &[("meminfo.MemFree", -300), ("meminfo.Inactive", 300)]);
    let host = verdict(&complete(native()), &b, "host-memory");
    assert_eq!((host.verdict, host.explains_bytes), (Verdict::Supported, Some(300 * MIB as i64)));
}

#[test]
fn files_of_one_name_are_copies_only_where_their_contents_are_equal() {
    // As PostgreSQL's segments of its log, each of which was made under one temporary name.
    let segments = |contents: &[(u64, u32)]| {
        let mut b = complete(native());
        for inode in 70..78 {
            testing::file(&mut b, inode, "/data/pg_wal/xlogtemp.22957", 16, 10);
        }
        contain(&mut b, contents);
        verdict(&complete(native()), &b, "duplicate-files")
    };
    let unknown = segments(&[]);
    assert_eq!(unknown.verdict, Verdict::Inconclusive, "{}", unknown.because);
    assert!(unknown.evidence[0].what.contains("contents not compared"), "{:?}", unknown.evidence);
    let all = |content: fn(u64) -> u32| (70..78).map(|inode| (inode, content(inode))).collect::<Vec<_>>();
    assert_eq!(segments(&all(|inode| inode as u32 * 100)).verdict, Verdict::Refuted);
    let copies = segments(&all(|_| 5));
    assert_eq!(copies.verdict, Verdict::Supported);
    assert_eq!(copies.evidence[0].value, Some(7 * 16 * MIB as i64));
}

#[test]
fn a_copy_under_another_name_is_a_copy_and_what_a_left_is_compared_too() {
    let (mut a, mut b) = (complete(native()), complete(native()));
    testing::file(&mut a, 80, "/root/.cache/blobs/5f8a", 200, 10);
    testing::file(&mut b, 81, "/var/lib/docker/overlay2/a/diff/model.safetensors", 200, 10);
    contain(&mut a, &[(80, 3)]);
    contain(&mut b, &[(81, 3)]);
    b.target.started_ns = a.target.ended_ns;
    let finding = verdict(&a, &b, "duplicate-files");
    assert_eq!(finding.verdict, Verdict::Supported, "{}", finding.because);
    assert!(finding.evidence[0].what.contains("A, left cached"), "{:?}", finding.evidence);
    // Too little that is no zeros: nobody knows.
    for recording in [&mut a, &mut b] {
        for file in &mut recording.provenance.files {
            if let Some(content) = &mut file.content {
                content.blocks[10..].fill(Some(0));
            }
        }
    }
    let finding = verdict(&a, &b, "duplicate-files");
    assert_eq!(finding.verdict, Verdict::Refuted, "of two names: {}", finding.because);
}
