use proptest::prelude::*;

use super::detail::OnlyIn;
use super::*;
use spark_trace_testing as testing;
use spark_trace_testing::{MIB, SECOND, START};

const M: i64 = MIB as i64;

fn compare(plane: Option<Scope>) -> Report {
    report(&testing::native(), &testing::container(), plane, InstantSpec::Peak).unwrap()
}

fn row<'a>(report: &'a Report, source: &str) -> &'a SourceDelta {
    report.sources.iter().find(|row| row.source == source).unwrap()
}

#[test]
fn what_one_run_does_not_separate_is_not_separated_in_the_other() {
    let (mut without, with) = (testing::native(), testing::cuda());
    testing::hook(&mut without, "mapping").verdict = "off".into();
    let report = |without: &Recording, scope| report(without, &with, Some(scope), InstantSpec::Peak).unwrap();
    let unwatched = report(&without, Scope::System);
    assert_eq!(row(&unwatched, "anon").delta_bytes, Some(0), "800 MiB each, 100 of B's pinned");
    assert_eq!(row(&unwatched, "anon-pinned").b_bytes, None);
    let on_cgroup = report(&without, Scope::Cgroup);
    assert_eq!(
        row(&on_cgroup, "kernel-other").delta_bytes,
        Some(40 * M),
        "managed pages, which A may have too"
    );
    testing::hook(&mut without, "mapping").verdict = "ok".into();
    let watched = report(&without, Scope::System);
    assert_eq!(row(&watched, "anon").delta_bytes, Some(-100 * M));
    assert_eq!(row(&watched, "anon-pinned").delta_bytes, Some(100 * M));
    for report in [unwatched, on_cgroup, watched] {
        let sum: i64 = report.sources.iter().filter_map(|row| row.delta_bytes).sum();
        assert_eq!(Some(sum), report.total_delta_bytes);
    }
}

#[test]
fn the_container_pays_for_the_libraries() {
    let report = compare(None);
    assert_eq!(report.plane, Scope::Cgroup);
    let files = row(&report, "file-clean");
    assert_eq!(
        (files.a_bytes, files.b_bytes, files.delta_bytes),
        (Some(10 * M), Some(990 * M), Some(980 * M))
    );
    assert_eq!(report.total_delta_bytes, Some((10 + 980 + 20 + 2) * M));
    assert_eq!(report.residual_bytes, Some(0));
    assert!((files.share.unwrap() - 980.0 / 1012.0).abs() < 1e-9);
    assert!(report.comparable.ok);
}

#[test]
fn the_files_behind_the_difference_are_named() {
    let report = compare(None);
    let summary: Vec<_> =
        report.files.iter().map(|file| (file.path.as_str(), file.delta_bytes / M, file.only_in)).collect();
    let only_b = Some(OnlyIn::B);
    assert_eq!(summary, [("/usr/lib/libtorch_cuda.so", 980, only_b), ("/tmp/engine.plan", 20, only_b)]);
    let holder = &report.files[0].b_holders[0];
    assert_eq!(holder.charged_to, "/system.slice/docker-0123456789ab.scope");
    assert_eq!(holder.first_touch.as_ref().unwrap().comm, "python3");
}

#[test]
fn a_file_that_someone_else_pays_for_shows_its_holder() {
    let mut a = testing::native();
    testing::file(&mut a, 77, "/usr/lib/libtorch_cuda.so", 980, 1);
    let report = report(&a, &testing::container(), None, InstantSpec::Peak).unwrap();
    let file = &report.files[0];
    assert_eq!((file.a_bytes, file.only_in), (0, Some(OnlyIn::B)));
    assert_eq!(file.a_holders[0].charged_to, "/");
    // On the system plane both runs hold it.
    let system = super::report(&a, &testing::container(), Some(Scope::System), InstantSpec::Peak).unwrap();
    assert!(system.files.iter().all(|file| file.path != "/usr/lib/libtorch_cuda.so"));
}

#[test]
fn kernel_and_user_memory_have_their_details() {
    let report = compare(None);
    let stack = &report.stacks[0];
    assert_eq!(
        (stack.source, stack.delta_bytes / M),
        ("slab-unreclaimable", 2),
        "clones of a function match"
    );
    let region = &report.regions[0];
    assert_eq!((region.source, region.region.as_str(), region.delta_bytes / M), ("anon", "[heap]", 10));
}

#[test]
fn without_mappings_processes_are_compared() {
    let mut a = testing::native();
    a.provenance.regions.clear();
    let report = report(&a, &testing::container(), None, InstantSpec::Peak).unwrap();
    assert_eq!((report.regions[0].region.as_str(), report.regions[0].delta_bytes / M), ("(all)", 10));
}

#[test]
fn the_plane_can_be_chosen_and_is_the_systems_where_one_has_no_cgroup() {
    assert_eq!(compare(Some(Scope::System)).plane, Scope::System);
    let mut a = testing::native();
    a.samples.cgroups.clear();
    let b = testing::container();
    assert_eq!(report(&a, &b, None, InstantSpec::Peak).unwrap().plane, Scope::System);
    let error = report(&b, &a, Some(Scope::Cgroup), InstantSpec::Peak).unwrap_err();
    assert_eq!(error.to_string(), "B has no readings of the cgroup plane; choose another --plane");
    let error = report(&testing::empty(), &b, None, InstantSpec::Peak).unwrap_err();
    assert_eq!(error.to_string(), "A has no readings of any plane");
}

#[test]
fn a_counter_that_one_kernel_lacks_is_unattributed_in_both() {
    let mut a = testing::native();
    a.samples.cgroups[0].series.columns.remove("stat.slab_unreclaimable");
    let report = report(&a, &testing::container(), None, InstantSpec::Peak).unwrap();
    let slab = row(&report, "slab-unreclaimable");
    assert_eq!((slab.a_bytes, slab.b_bytes, slab.delta_bytes), (None, Some(8 * M), None));
    let sum: i64 = report.sources.iter().filter_map(|row| row.delta_bytes).sum();
    assert_eq!(Some(sum), report.total_delta_bytes);
}

/// A recording of one cgroup with arbitrary counters.
fn arbitrary() -> impl Strategy<Value = Recording> {
    prop::collection::vec(prop::option::of(0u64..1 << 50), 8).prop_map(|values| {
        let names =
            ["memory.current", "stat.anon", "stat.file", "stat.shmem", "stat.file_dirty", "stat.kernel"];
        let mut recording = testing::native();
        let series = &mut recording.samples.cgroups[0].series;
        *series = testing::series(&[(START + SECOND, &[])]);
        for (name, value) in names.into_iter().zip(values) {
            series.columns.insert(name.to_owned(), [value].into());
        }
        recording
    })
}

proptest! {
    #[test]
    fn the_difference_changes_its_sign_with_the_order(a in arbitrary(), b in arbitrary()) {
        let there = report(&a, &b, Some(Scope::Cgroup), InstantSpec::Peak).unwrap();
        let back = report(&b, &a, Some(Scope::Cgroup), InstantSpec::Peak).unwrap();
        let negated = |bytes: Option<i64>| bytes.map(|bytes| -bytes);
        prop_assert_eq!(there.total_delta_bytes, negated(back.total_delta_bytes));
        prop_assert_eq!(there.residual_bytes, negated(back.residual_bytes));
        for (there, back) in there.sources.iter().zip(&back.sources) {
            prop_assert_eq!((there.a_bytes, there.b_bytes), (back.b_bytes, back.a_bytes));
            prop_assert_eq!(there.delta_bytes, negated(back.delta_bytes));
        }
    }

    #[test]
    fn sources_add_up_to_the_total(a in arbitrary(), b in arbitrary()) {
        let report = report(&a, &b, Some(Scope::Cgroup), InstantSpec::Peak).unwrap();
        if let Some(total) = report.total_delta_bytes {
            let sum: i64 = report.sources.iter().filter_map(|row| row.delta_bytes).sum();
            prop_assert_eq!(sum, total);
        }
    }

    #[test]
    fn details_change_their_sign_too(live in 0i64..1 << 40, other in 0i64..1 << 40) {
        let with = |bytes| {
            let mut recording = testing::native();
            recording.provenance.files[0].live = [Some(bytes); 3].into();
            recording
        };
        let (a, b) = (with(live), with(other));
        let there = report(&a, &b, None, InstantSpec::Peak).unwrap();
        let back = report(&b, &a, None, InstantSpec::Peak).unwrap();
        prop_assert_eq!(there.files.len(), usize::from(live != other));
        for (there, back) in there.files.iter().zip(&back.files) {
            prop_assert_eq!(there.delta_bytes, -back.delta_bytes);
        }
    }
}
