use super::*;
use spark_trace_recording::{CgroupSeries, TargetCgroup, retention};
use spark_trace_testing as testing;
use spark_trace_testing::{MIB, SECOND, START, empty, series};

/// When a cgroup was created and removed, and its readings: seconds after the start, MiB.
type Life<'a> = (Option<u64>, Option<u64>, &'a [(u64, u64)]);

fn with_cgroups(cgroups: &[Life<'_>]) -> Recording {
    let mut recording = empty();
    for (id, &(created_ns, removed_ns, readings)) in (1..).zip(cgroups) {
        let path = format!("/{id}");
        let root =
            TargetCgroup { id, path: path.clone(), root: true, created_ns, removed_ns, ..Default::default() };
        recording.target.cgroups.push(root);
        let mut samples = series(&[]);
        for &(seconds, mib) in readings {
            let column = ("memory.current".to_owned(), mib * MIB);
            testing::push(
                &mut samples,
                START + seconds * SECOND,
                [column, ("stat.anon".to_owned(), mib * MIB)],
            );
        }
        recording.samples.cgroups.push(CgroupSeries { id, path, series: samples });
    }
    recording
}

fn mib(balance: &Balance) -> u64 {
    balance.expected.unwrap() / MIB
}

#[test]
fn the_peak_is_the_highest_reading_of_the_run() {
    let recording = testing::container();
    let system = View::new(&recording, Scope::System).unwrap();
    assert_eq!(system.peak().at_ns, START + 5 * SECOND + 500_000);
    let cgroup = View::new(&recording, Scope::Cgroup).unwrap();
    assert_eq!(mib(&cgroup.peak()), 810 + 990 + 20 + 8 + 1);
    // Read a millisecond after the system's counters, but it belongs to them.
    assert_eq!(mib(&cgroup.at(system.peak().at_ns)), mib(&cgroup.peak()));
}

#[test]
fn what_cpus_keep_at_hand_makes_no_peak() {
    let mut recording = testing::container();
    let peak = |recording: &Recording| View::new(recording, Scope::System).unwrap().peak();
    let before = peak(&recording);
    let system = &mut recording.samples.system;
    let mut change = |column: &str, change: fn(u64) -> u64| {
        let column = system.columns.get_mut(column).unwrap();
        column.set(0, column.get(0).map(change));
    };
    // More than at the peak is not free, and less in use than ever.
    change("meminfo.MemFree", |free| free - 8192 * MIB);
    change("zoneinfo.pcp_count", |at_hand| at_hand + 9216 * MIB);
    let counter = |index| ledger::expected_at(Plane::System, &recording.samples.system, index).unwrap();
    assert!((1..3).all(|index| counter(0) > counter(index)), "else this tests nothing");
    assert_eq!(peak(&recording).at_ns, before.at_ns);

    let at_hand = recording.samples.system.columns.remove("zoneinfo.pcp_count");
    assert_ne!(peak(&recording).at_ns, before.at_ns, "a recording without the column");
    recording.samples.system.columns.extend(at_hand.map(|column| ("zoneinfo.pcp_count".to_owned(), column)));
    recording.samples.system.columns.get_mut("zoneinfo.pcp_count").unwrap().set(0, None);
    assert_eq!(peak(&recording).at_ns, before.at_ns, "one reading without it");
}

#[test]
fn readings_outside_the_run_are_no_peak() {
    let mut recording = with_cgroups(&[(None, None, &[(0, 1), (5, 3), (20, 9)])]);
    assert_eq!(mib(&View::new(&recording, Scope::Cgroup).unwrap().peak()), 3);
    recording.target.ended_ns = 0;
    assert_eq!(mib(&View::new(&recording, Scope::Cgroup).unwrap().peak()), 9, "cut off: no end");
}

#[test]
fn of_equal_peaks_the_one_counts_whose_counters_have_caught_up() {
    let peak = |anon: [u64; 4]| {
        let mut recording = with_cgroups(&[(None, None, &[(1, 100), (2, 100), (4, 100), (9, 100)])]);
        let anon = anon.map(|mib| Some(mib * MIB)).into();
        recording.samples.cgroups[0].series.columns.insert("stat.anon".into(), anon);
        let peak = View::new(&recording, Scope::Cgroup).unwrap().peak();
        ((peak.at_ns - START) / SECOND, peak.residual.unwrap() / MIB as i64)
    };
    assert_eq!(peak([100; 4]), (1, 0));
    assert_eq!(peak([98, 99, 100, 100]), (4, 0));
    assert_eq!(peak([98, 102, 98, 98]), (1, 2), "not the one that has more than there is");
    assert_eq!(peak([98, 98, 98, 100]), (1, 2), "so late it is something else");
}

/// 64 pages of 4 KiB on each of 4 CPUs are 1 MiB.
#[test]
fn what_cpus_charge_ahead_makes_no_peak() {
    let level = mib;
    let peak = |mib: &[u64]| {
        let readings: Vec<_> = (1..).zip(mib.iter().copied()).collect();
        let mut recording = with_cgroups(&[(None, None, &readings)]);
        (recording.host.cpus, recording.host.page_size) = (4, 4096);
        let peak = View::new(&recording, Scope::Cgroup).unwrap().peak();
        ((peak.at_ns - START) / SECOND, level(&peak))
    };
    assert_eq!(peak(&[90, 101, 100, 100, 100]), (3, 100), "a level that lasts");
    assert_eq!(peak(&[90, 101, 100, 99]), (2, 101), "none lasts");
    assert_eq!(peak(&[90, 102, 100, 100, 100]), (2, 102), "more than CPUs hold");
}

#[test]
fn a_cgroup_created_while_tracing_starts_from_nothing() {
    let created = with_cgroups(&[(Some(START + SECOND), None, &[(2, 5), (3, 7)])]);
    let view = View::new(&created, Scope::Cgroup).unwrap();
    assert_eq!(mib(&view.start()), 0);
    assert_eq!(mib(&view.at(START)), 0);
    assert_eq!(mib(&view.at(START + 2 * SECOND)), 5);
    let older = with_cgroups(&[(None, None, &[(2, 5), (3, 7)])]);
    assert_eq!(mib(&View::new(&older, Scope::Cgroup).unwrap().start()), 5);
}

#[test]
fn a_removed_cgroup_holds_nothing_but_its_end_is_its_last_reading() {
    let recording = with_cgroups(&[(None, Some(START + 4 * SECOND), &[(2, 5), (3, 7)])]);
    let view = View::new(&recording, Scope::Cgroup).unwrap();
    assert_eq!(mib(&view.at(START + 5 * SECOND)), 0);
    assert_eq!(mib(&view.end()), 7);
}

#[test]
fn a_run_that_could_have_pinned_and_did_not_has_zero() {
    let pinned = |recording: &Recording| {
        let peak = View::new(recording, Scope::System).unwrap().peak();
        (peak.bytes("anon-pinned"), peak.bytes("anon"))
    };
    let anon = Some((500 + 810) * MIB);
    let with = |library_call: &str, mapping: &str| {
        let mut recording = testing::container();
        testing::hook(&mut recording, "library-call").verdict = library_call.into();
        testing::hook(&mut recording, "mapping").verdict = mapping.into();
        pinned(&recording)
    };
    assert_eq!(with("off", "off"), (None, anon), "nobody watched");
    assert_eq!(with("not-applicable", "off"), (None, anon), "a library could have come unseen");
    assert_eq!(with("not-applicable", "ok"), (Some(0), anon));
}

#[test]
fn a_root_without_managed_pages_does_not_make_them_unknown() {
    let mut recording = with_cgroups(&[(None, None, &[(2, 5)]), (None, None, &[(2, 7)])]);
    let series = &mut recording.samples.cgroups[1].series;
    series.columns.insert("driver.nvidia_managed".into(), [Some(2 * MIB)].into());
    let view = View::new(&recording, Scope::Cgroup).unwrap();
    assert_eq!(view.peak().bytes("nvidia-managed"), Some(2 * MIB));
}

#[test]
fn root_cgroups_add_up() {
    let recording = with_cgroups(&[
        (None, Some(START + 4 * SECOND), &[(2, 5), (3, 7)]),
        (Some(START + 3 * SECOND), None, &[(3, 1), (5, 10)]),
    ]);
    let view = View::new(&recording, Scope::Cgroup).unwrap();
    assert_eq!(mib(&view.start()), 5);
    assert_eq!(mib(&view.at(START + 3 * SECOND)), 8);
    assert_eq!(mib(&view.peak()), 10);
    assert_eq!(mib(&view.end()), 17);
}

#[test]
fn without_readings_there_is_no_view() {
    assert!(View::new(&empty(), Scope::System).is_none());
    assert!(View::new(&empty(), Scope::Cgroup).is_none());
    assert!(View::new(&with_cgroups(&[(None, None, &[])]), Scope::Cgroup).is_none());
}

#[test]
fn what_is_left_says_what_it_said() {
    let whole = testing::container();
    let mut rest = whole.clone();
    retention::forget(&mut rest, START + 30 * SECOND);
    assert!(rest.samples.system.begin_ns.len() < whole.samples.system.begin_ns.len());
    for scope in [Scope::System, Scope::Cgroup] {
        let (whole, rest) = (View::new(&whole, scope).unwrap(), View::new(&rest, scope).unwrap());
        for at_ns in rest.times() {
            let levels = |view: &View<'_>| {
                let balance = view.at(at_ns);
                balance.rows.iter().map(|row| (row.source.slug, row.bytes)).collect::<Vec<_>>()
            };
            assert_eq!(levels(&rest), levels(&whole), "{at_ns}");
        }
    }
}

#[test]
fn the_latest_reading_says_what_the_whole_says_of_that_time() {
    let mut whole = testing::container();
    whole.target.cgroups.iter_mut().for_each(|cgroup| cgroup.removed_ns = None);
    let thin = retention::latest(&whole);
    for scope in [Scope::System, Scope::Cgroup] {
        let (whole, thin) = (View::new(&whole, scope).unwrap(), View::new(&thin, scope).unwrap());
        let times = thin.times();
        let at_ns = *times.last().unwrap();
        let levels = |view: &View<'_>| {
            let balance = view.at(at_ns);
            balance.rows.iter().map(|row| (row.source.slug, row.bytes)).collect::<Vec<_>>()
        };
        assert_eq!(levels(&thin), levels(&whole));
        assert_eq!(times.len(), thin.roots.len().min(times.len()), "one reading each");
    }
}
