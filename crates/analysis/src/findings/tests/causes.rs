//! Causes one by one: what shows them, and what does not.

use super::*;

#[test]
fn memory_that_is_counted_twice_is_seen_by_each_test() {
    let a = complete(native());
    // C1: a counter says more than is in use.
    let mut b = complete(native());
    add(&mut b, &[("meminfo.AnonPages", 2000), ("meminfo.Active", 2000)]);
    let finding = verdict(&a, &b, DOUBLE_COUNTING);
    assert!(
        finding.verdict == Verdict::Supported
            && finding.because.to_string().starts_with("the sources of B exceed"),
        "{}",
        finding.because
    );
    // C2: the driver's pages are charged.
    let mut b = complete(native());
    b.host.nvidia =
        Some(spark_trace_recording::Nvidia { kernel_module: Some("open".into()), ..Default::default() });
    testing::page_allocs(&mut b, 10, 64, &["nvidia:nv_alloc_system_pages", "nvidia:nv_alloc_pages"]);
    let finding = verdict(&a, &b, DOUBLE_COUNTING);
    assert!(
        finding.verdict == Verdict::Supported
            && finding.because.to_string().contains("of the driver's pages are charged in B"),
        "{}",
        finding.because
    );
    // C3: MemFree falls, and nothing holds it.
    let mut b = complete(native());
    add(&mut b, &[("meminfo.MemFree", -500)]);
    let finding = verdict(&a, &b, DOUBLE_COUNTING);
    assert!(
        finding.verdict == Verdict::Inconclusive
            && finding.because.to_string().starts_with("not decided by the memory in no source"),
        "{}",
        finding.because
    );
    // C4: the GPU's library answers something else in one of them.
    let queries = |recording: &Recording, gap: u64| {
        let mut recording = recording.clone();
        recording.provenance.queries.push(MemoryQuery {
            at_ns: START + SECOND,
            interface: "cuMemGetInfo_v2".into(),
            values: [("free".to_owned(), 8192 * MIB - gap * MIB)].into(),
            state: Some(MemoryState { mem_free: Some(8192 * MIB), ..MemoryState::default() }),
            ..MemoryQuery::default()
        });
        recording
    };
    let base = complete(native());
    let finding = verdict(&queries(&base, 0), &queries(&base, 3000), DOUBLE_COUNTING);
    assert!(
        finding.verdict == Verdict::Supported
            && finding.because.to_string().starts_with("cuMemGetInfo returns MemFree in A"),
        "{}",
        finding.because
    );
    let finding = verdict(&queries(&base, 0), &queries(&base, 0), DOUBLE_COUNTING);
    assert!(
        finding.verdict == Verdict::Refuted
            && finding.because.to_string().contains("the same counter in all runs"),
        "{}",
        finding.because
    );
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
        let names_a_report = finding.because.to_string().contains("reported to a hypervisor");
        assert_eq!(names_a_report, ["in B", "in A"].contains(&why), "{why}: {}", finding.because);
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
        |b| b.health.hooks.iter_mut().for_each(|hook| hook.lost = Some(30)),
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
fn the_little_that_a_hook_missed_is_named_and_decides_nothing() {
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
        let note = format!("; hook {} missed 3 of 5000 events in B", hypothesis.hooks[0]);
        assert!(after.because.to_string().contains(&note), "{}: {}", hypothesis.slug, after.because);
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
        finding.verdict == Verdict::Refuted && finding.because.to_string().contains("opposite direction"),
        "{}",
        finding.because
    );
}

#[test]
fn one_run_is_judged_by_its_growth() {
    let b = complete(native());
    let target = judge(None, &b, InstantSpec::Peak).remove(0);
    assert_eq!(target.plane, Scope::Cgroup);
    assert!(
        target.headline.to_string().starts_with("The memory charged to the target grew by 817.0 MiB"),
        "{}",
        target.headline
    );
    let findings = judge_on(None, &b, InstantSpec::Peak, Scope::System);
    assert_eq!(findings.a_at_ns, None);
    let of = |slug: &str| findings.findings.iter().find(|finding| finding.hypothesis == slug).unwrap();
    assert_eq!(of("host-memory").verdict, Verdict::Supported);
    assert_eq!(of("host-memory").explains_bytes, Some(800 * MIB as i64));
    assert_eq!(of("environment").verdict, Verdict::Untestable);
    assert!(
        findings.headline.to_string().starts_with("The machine's memory in use grew by"),
        "{}",
        findings.headline
    );
}

#[test]
fn without_readings_everything_is_untestable() {
    let findings = judge(None, &testing::empty(), InstantSpec::Peak);
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
        limit.because.to_string(),
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
    // What was killed for want of memory is reported.
    let mut b = complete(native());
    limited(&mut b, 3, 10);
    let kills = &mut b.samples.cgroups[0].series.columns.get_mut("events.oom_kill").unwrap();
    kills.map(|_| 1);
    let finding = verdict(&a, &b, "limit-reclaim");
    assert!(
        finding.verdict == Verdict::Supported && finding.because.to_string().contains("killed 1 of"),
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
        pinned.verdict == Verdict::Refuted && pinned.because.to_string().contains("a pin or a pipe"),
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
fn copies_may_be_among_files_that_only_b_found_cached() {
    let found = |mib: i64| {
        let mut b = complete(native());
        for reading in 0..b.samples.system.begin_ns.len() {
            add_to(&mut b.samples.system, reading, &[("meminfo.MemFree", -mib), ("meminfo.Cached", mib)]);
        }
        verdict(&complete(native()), &b, "duplicate-files")
    };
    assert_eq!(found(0).verdict, Verdict::Refuted);
    let unknown = found(300);
    assert_eq!(unknown.verdict, Verdict::Inconclusive, "{}", unknown.because);
    assert!(
        unknown.because.to_string().contains("300.0 MiB more page cache from before"),
        "{}",
        unknown.because
    );
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
