use spark_trace_common::source::SOURCES;

use super::*;
use crate::warning::KilledSeen;
use spark_trace_testing as testing;
use spark_trace_testing::{MIB, SECOND, START};

const M: i64 = MIB as i64;

fn row<'a>(plane: &'a PlaneReport, source: &str) -> &'a SourceRow {
    plane.sources.iter().find(|row| row.source == source).unwrap()
}

#[test]
fn both_planes_are_reported_with_every_source() {
    let report = report(&testing::container(), InstantSpec::Peak);
    assert_eq!(report.planes.iter().count(), 2);
    for plane in report.planes.iter() {
        let slugs: Vec<_> = plane.sources.iter().map(|row| row.source).collect();
        let taxonomy = SOURCES.iter().filter(|source| source.device.is_empty()).map(|source| source.slug);
        assert_eq!(slugs, taxonomy.collect::<Vec<_>>());
    }
}

#[test]
fn the_cgroup_plane_of_a_new_cgroup_grows_from_nothing() {
    let report = report(&testing::container(), InstantSpec::Peak);
    let plane = report.planes.cgroup.unwrap();
    let anon = row(&plane, "anon");
    assert_eq!(
        (anon.bytes_at_start, anon.bytes_at_peak, anon.bytes_at_end),
        (Some(0), Some(810 * M), Some(20 * M))
    );
    assert_eq!(row(&plane, "file-clean").bytes, Some(990 * M));
    assert_eq!(row(&plane, "file-dirty").bytes, Some(20 * M));
    assert_eq!(row(&plane, "unattributed").bytes, Some(M));
    assert_eq!(plane.growth.expected, Some(1829 * M));
    assert_eq!(plane.growth.residual, Some(M));
    assert_eq!(plane.growth, plane.level);
    assert_eq!(plane.cgroup_version, Some("v2"));
    // 64 pages in stock, 64 that wait and 64 before they are taken in, on each CPU.
    let host = testing::container().host;
    let pages = 3 * 64 * u64::from(host.cpus);
    assert_eq!(plane.uncounted_at_most, Some(pages * host.page_size));
}

#[test]
fn the_system_plane_reconciles_growth_and_level() {
    let report = report(&testing::container(), InstantSpec::Peak);
    let plane = report.planes.system.unwrap();
    assert_eq!(plane.growth.expected, Some((810 + 990 + 20 + 8 + 64) * M));
    assert_eq!(plane.growth.residual, Some(64 * M));
    assert_eq!(plane.level.residual, Some((64 + 50) * M));
    assert_eq!(row(&plane, "unattributed").growth, Some(64 * M));
    assert_eq!(row(&plane, "anon").bytes_at_start, Some(500 * M));
    assert!(plane.roots.is_empty() && plane.uncounted_at_most.is_none());
}

#[test]
fn what_hooks_saw_explains_a_row_without_a_counter() {
    let report = report(&testing::container(), InstantSpec::Peak);
    let nvidia = |plane: &Option<PlaneReport>| row(plane.as_ref().unwrap(), "nvidia-sysmem").clone();
    let system = nvidia(&report.planes.system);
    assert_eq!((system.bytes, system.observed), (None, Some(64 * MIB)));
    assert_eq!((system.observed_charged, system.observed_uncharged), (Some(0), Some(64 * MIB)));
    assert_eq!(nvidia(&report.planes.cgroup).observed, None, "uncharged pages are in no cgroup");
}

#[test]
fn the_instant_can_be_chosen() {
    let recording = testing::container();
    let anon = |at| row(&report(&recording, at).planes.cgroup.unwrap(), "anon").bytes.unwrap() / M;
    assert_eq!(anon(InstantSpec::Peak), 810);
    assert_eq!(anon(InstantSpec::End), 20);
    assert_eq!(anon(InstantSpec::SinceStart(5 * SECOND)), 810);
    assert_eq!(anon(InstantSpec::Time(START + 10 * SECOND)), 20);
}

#[test]
fn rows_and_residual_are_the_expected_at_every_instant() {
    for recording in [testing::native(), testing::container(), testing::gpus()] {
        for at in
            [InstantSpec::Peak, InstantSpec::End, InstantSpec::SinceStart(0), InstantSpec::SinceStart(SECOND)]
        {
            for plane in report(&recording, at).planes.iter() {
                let sum: i64 = plane.sources.iter().filter_map(|row| row.bytes).sum();
                let Some(expected) = plane.level.expected else { continue };
                assert_eq!(sum, expected);
                let sum: i64 = plane.sources.iter().filter_map(|row| row.growth).sum();
                assert_eq!(Some(sum), plane.growth.expected);
            }
        }
    }
}

#[test]
fn a_recording_without_readings_still_reports() {
    let report = report(&testing::empty(), InstantSpec::Peak);
    assert_eq!(report.planes.iter().count(), 0);
    assert!(report.warnings.is_empty());
}

#[test]
fn a_peak_between_readings_is_warned_about() {
    let mut recording = testing::container();
    assert!(report(&recording, InstantSpec::Peak).warnings.is_empty());
    recording.target.cgroups[0].peak_at_removal = Some(4000 * MIB);
    let warnings = report(&recording, InstantSpec::Peak).warnings;
    assert!(
        matches!(warnings[..], [Warning::PeakMissed { sampled, kernel, gap_ns: None, .. }] if sampled < kernel)
    );
    assert!(warnings[0].to_string().contains("--interval"), "{}", warnings[0]);
    // A peak from before the trace says nothing about the trace.
    recording.target.cgroups[0] = spark_trace_recording::TargetCgroup {
        created_ns: None,
        peak_at_removal: None,
        ..recording.target.cgroups[0].clone()
    };
    recording.samples.cgroups[0].series.columns.get_mut("memory.peak").unwrap().map(|_| 4000 * MIB);
    assert!(report(&recording, InstantSpec::Peak).warnings.is_empty());
}

#[test]
fn a_peak_that_lies_in_a_gap_names_the_gap() {
    let mut recording = testing::container();
    let series = &mut recording.samples.cgroups[0].series;
    let (readings, middle) = (series.begin_ns.len(), series.begin_ns.len() / 2);
    let interval_ns = series.begin_ns.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap();
    recording.tool.interval_ns = interval_ns;
    // The kernel's peak rises between two readings that lie far apart.
    let late = 20 * interval_ns;
    let gap_ns = series.begin_ns[middle] + late - series.end_ns[middle - 1];
    series.begin_ns[middle..].iter_mut().chain(&mut series.end_ns[middle..]).for_each(|at| *at += late);
    let peaks = (0..readings).map(|reading| Some(if reading < middle { 1 } else { 4000 * MIB }));
    series.columns.insert("memory.peak".to_owned(), peaks.collect());
    let missed = |recording: &Recording| {
        let warnings = report(recording, InstantSpec::Peak).warnings.into_iter();
        warnings.filter(|warning| matches!(warning, Warning::PeakMissed { .. })).collect::<Vec<_>>()
    };
    let found = missed(&recording);
    assert!(
        matches!(found[..], [Warning::PeakMissed { gap_ns: Some(gap), .. }] if gap == gap_ns),
        "{found:?}"
    );
    assert!(found[0].to_string().contains("gap of"), "{}", found[0]);
    // The same where they are not far apart.
    let series = &mut recording.samples.cgroups[0].series;
    series.begin_ns[middle..].iter_mut().chain(&mut series.end_ns[middle..]).for_each(|at| *at -= late);
    let found = missed(&recording);
    assert!(matches!(found[..], [Warning::PeakMissed { gap_ns: None, .. }]), "{found:?}");
}

#[test]
fn a_kill_after_the_last_reading_is_warned_about() {
    let mut recording = testing::container();
    let id = "0123456789abcdef".repeat(4);
    recording.target.cgroups[0].path = format!("/docker/{id}");
    recording.samples.cgroups[0].path = format!("/docker/{id}");
    let readings = recording.samples.cgroups[0].series.begin_ns.len();
    recording.samples.cgroups[0]
        .series
        .columns
        .insert("events.oom_kill".into(), vec![Some(0); readings].into());
    assert!(report(&recording, InstantSpec::Peak).warnings.is_empty());
    recording.target.cgroups[0].oom_kills_at_removal = Some(1);
    let warnings = report(&recording, InstantSpec::Peak).warnings;
    assert!(
        matches!(&warnings[..], [Warning::Killed { count: 1, seen: KilledSeen::AtRemoval, .. }]),
        "{warnings:?}"
    );
    let text = warnings[0].to_string();
    assert!(text.contains("/docker/0123456789ab") && !text.contains(&id), "{text}");
}

#[test]
fn a_kill_that_only_the_machine_counted_names_who_ended_so() {
    let mut recording = testing::container();
    let readings = recording.samples.system.begin_ns.len();
    let mut kills = vec![Some(5); readings];
    kills[readings - 1] = Some(6);
    recording.samples.system.columns.insert("vmstat.oom_kill".into(), kills.into());
    assert!(report(&recording, InstantSpec::Peak).warnings.is_empty(), "somebody else's, as far as is known");
    recording.provenance.processes[0].exit_status = Some(9);
    let warnings = report(&recording, InstantSpec::Peak).warnings;
    assert!(
        matches!(&warnings[..], [Warning::MayBeKilled { count: 1, victims }] if victims.len() == 1),
        "{warnings:?}"
    );
}

#[test]
fn kills_for_want_of_memory_are_warned_about() {
    let mut recording = testing::container();
    let readings = recording.samples.cgroups[0].series.begin_ns.len();
    let mut kills = vec![Some(2); readings];
    kills[readings - 1] = Some(3);
    recording.samples.cgroups[0].series.columns.insert("events.oom_kill".into(), kills.into());
    let killed = |recording: &_| match &report(recording, InstantSpec::Peak).warnings[..] {
        [Warning::Killed { count, .. }] => *count,
        others => panic!("{others:?}"),
    };
    assert_eq!(killed(&recording), 3, "all of a cgroup that is no older than the trace");
    recording.target.cgroups[0].created_ns = None;
    assert_eq!(killed(&recording), 1, "what was killed before is not of the trace");
    recording.target.cgroups[0].root = false;
    assert!(report(&recording, InstantSpec::Peak).warnings.is_empty(), "counted by its ancestor");
}

#[test]
fn what_weakens_a_recording_is_warned_about() {
    let mut recording = testing::container();
    recording.health.lost_total = 3;
    recording.health.complete = false;
    recording.health.warnings = vec!["the clock jumped".into()];
    recording.target.cgroups.push(spark_trace_recording::TargetCgroup {
        id: 99,
        path: "/gone".into(),
        root: true,
        ..Default::default()
    });
    let warnings = report(&recording, InstantSpec::Time(START + 60 * SECOND)).warnings;
    let expected = |w: &Warning| -> u8 {
        match w {
            Warning::Lost { count: 3 } => 0,
            Warning::Incomplete => 1,
            Warning::NeverRead { .. } => 2,
            Warning::FarReading { .. } => 3,
            Warning::Recorded(_) => 4,
            _ => u8::MAX,
        }
    };
    assert_eq!(warnings.iter().map(expected).collect::<Vec<_>>(), [0, 1, 2, 3, 3, 4]);
}

#[test]
fn each_gpu_has_a_plane_of_its_own() {
    let report = report(&testing::gpus(), InstantSpec::Peak);
    let [own, shared] = &report.planes.devices[..] else { panic!("two devices") };
    let slugs: Vec<_> = own.sources.iter().map(|row| row.source).collect();
    assert_eq!(
        slugs,
        [
            "gpu-allocated",
            "gpu-shared-process",
            "gpu-before",
            "gpu-context",
            "gpu-other-processes",
            "gpu-reserved",
            "unattributed"
        ]
    );
    assert_eq!(row(own, "gpu-context").bytes_at_peak, Some(30_000 * M));
    assert_eq!(row(own, "gpu-other-processes").growth, Some(0));
    assert_eq!(row(own, "gpu-reserved").bytes_at_start, Some(605 * M));
    assert_eq!(row(own, "unattributed").bytes, Some(16 * M));
    assert_eq!((own.growth.expected, own.growth.residual), (Some(30_000 * M), Some(0)));
    assert_eq!((shared.level.expected, shared.level.residual), (None, None));
    assert_eq!(
        row(shared, "gpu-context").bytes_at_peak,
        Some(700 * M),
        "no counter: where the rows are highest"
    );
    assert_eq!(report.planes.system.unwrap().sources.len(), report.planes.cgroup.unwrap().sources.len());
}
