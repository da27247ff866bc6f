use proptest::prelude::*;

use super::*;
use crate::testing::{MIB, series};

fn system(columns: &[(&str, u64)]) -> Balance {
    balance(Plane::System, Facts::default(), &series(&[(0, columns)]), 0).unwrap()
}

#[test]
fn rows_follow_the_formulas() {
    let balance = system(&[
        ("meminfo.MemTotal", 100),
        ("meminfo.MemFree", 20),
        ("meminfo.AnonPages", 30),
        ("meminfo.Cached", 25),
        ("meminfo.Buffers", 5),
        ("meminfo.Shmem", 4),
        ("meminfo.Dirty", 3),
        ("meminfo.Writeback", 1),
    ]);
    assert_eq!(balance.bytes("anon"), Some(30));
    assert_eq!(balance.bytes("file-clean"), Some(22));
    assert_eq!(balance.bytes("file-dirty"), Some(4));
    assert_eq!(balance.bytes("shmem"), Some(4));
    assert_eq!((balance.expected, balance.attributed, balance.residual), (Some(80), 60, Some(20)));
}

#[test]
fn a_counter_the_kernel_does_not_have_is_not_zero() {
    let balance = system(&[("meminfo.MemTotal", 100), ("meminfo.MemFree", 20), ("meminfo.KernelStack", 8)]);
    assert_eq!(balance.bytes("percpu"), None);
    assert_eq!(balance.bytes("nvidia-sysmem"), None);
    // Without CONFIG_SHADOW_CALL_STACK the other term of the row is all there is.
    assert_eq!(balance.bytes("kernel-stack"), Some(8));
}

#[test]
fn a_row_of_which_only_the_subtracted_counters_exist_is_unknown() {
    let series = series(&[(0, &[("memory.current", 9), ("stat.slab_reclaimable", 1)])]);
    let balance = balance(Plane::CgroupV2, Facts::default(), &series, 0).unwrap();
    assert_eq!(balance.bytes("kernel-other"), None);
}

#[test]
fn a_counter_that_was_not_read_makes_its_row_unknown() {
    let series = series(&[
        (0, &[("memory.current", 9), ("stat.anon", 1), ("stat.kernel", 2)]),
        (1, &[("memory.current", 9), ("stat.kernel", 2)]),
    ]);
    let balance = balance(Plane::CgroupV2, Facts::default(), &series, 1).unwrap();
    assert_eq!(balance.bytes("anon"), None);
    assert_eq!((balance.attributed, balance.residual), (2, Some(7)));
}

#[test]
fn without_the_planes_counter_there_is_no_residual() {
    let series = series(&[(0, &[("memory.current", 9)]), (1, &[("stat.anon", 1)])]);
    let balance = balance(Plane::CgroupV2, Facts::default(), &series, 1).unwrap();
    assert_eq!((balance.expected, balance.attributed, balance.residual), (None, 1, None));
}

#[test]
fn a_level_is_never_below_zero_but_the_residual_may_be() {
    let balance = system(&[
        ("meminfo.MemTotal", 100),
        ("meminfo.MemFree", 90),
        ("meminfo.AnonPages", 30),
        ("meminfo.Cached", 3),
        ("meminfo.Dirty", 5),
    ]);
    assert_eq!(balance.bytes("file-clean"), Some(0));
    assert_eq!(balance.residual, Some(10 - 35));
}

#[test]
fn kernel_stacks_are_taken_out_of_vmalloc_where_they_lie_in_it() {
    let series = series(&[(0, &[("meminfo.VmallocUsed", 50), ("meminfo.KernelStack", 8)])]);
    for (vmap_stack, vmalloc) in [(Some(true), 42), (None, 42), (Some(false), 50)] {
        let balance = balance(Plane::System, Facts { vmap_stack, ..Facts::default() }, &series, 0).unwrap();
        assert_eq!(balance.bytes("vmalloc"), Some(vmalloc), "{vmap_stack:?}");
    }
}

#[test]
fn only_unmapped_swap_cache_counts() {
    let with = |unevictable| {
        system(&[
            ("meminfo.SwapCached", 10),
            ("meminfo.Active", 40),
            ("meminfo.Inactive", 20),
            ("meminfo.Unevictable", unevictable),
            ("meminfo.AnonPages", 30),
            ("meminfo.Cached", 25),
            ("meminfo.Buffers", 1),
        ])
        .bytes("swap-cache")
    };
    assert_eq!(with(0), Some(4));
    assert_eq!(with(100), Some(10), "never more than there is");
    assert_eq!(system(&[("meminfo.SwapCached", 0)]).bytes("swap-cache"), Some(0));
    assert_eq!(system(&[("meminfo.MemTotal", 1)]).bytes("swap-cache"), None);
}

#[test]
fn the_file_counter_of_a_cgroup_contains_its_swap_cache() {
    let columns: &[_] = &[
        ("memory.current", 70),
        ("stat.anon", 30),
        ("stat.file", 30),
        ("stat.swapcached", 10),
        ("stat.active_anon", 34),
        ("stat.active_file", 20),
    ];
    let balance = balance(Plane::CgroupV2, Facts::default(), &series(&[(0, columns)]), 0).unwrap();
    assert_eq!(balance.bytes("swap-cache"), Some(4));
    assert_eq!(balance.bytes("file-clean"), Some(20));
}

#[test]
fn pinned_pages_move_out_of_their_owners_class() {
    let columns: &[_] = &[
        ("meminfo.MemTotal", 100),
        ("meminfo.MemFree", 20),
        ("meminfo.AnonPages", 40),
        ("meminfo.Shmem", 10),
        ("meminfo.Cached", 15),
    ];
    let pinned: &[_] = &[("cuda.pinned_anon", 30), ("cuda.pinned_shmem", 4), ("cuda.pinned_driver", 8)];
    let before = system(columns);
    let after = system(&[columns, pinned].concat());
    assert_eq!((after.bytes("anon"), after.bytes("anon-pinned")), (Some(10), Some(30)));
    assert_eq!((after.bytes("shmem"), after.bytes("shmem-pinned")), (Some(6), Some(4)));
    assert_eq!(after.bytes("file-clean"), Some(5), "shared memory is not a file's, pinned or not");
    assert_eq!(after.attributed, before.attributed, "pages of the driver are in nvidia-sysmem, not here");
    assert_eq!((before.bytes("anon"), before.bytes("anon-pinned")), (Some(40), None));
}

#[test]
fn before_its_first_value_a_column_of_the_trace_is_zero_and_not_unknown() {
    let anon: (&str, u64) = ("meminfo.AnonPages", 40);
    let series = series(&[(0, &[anon]), (1, &[anon, ("cuda.pinned_anon", 30)]), (2, &[anon])]);
    let at = |index| {
        let balance = balance(Plane::System, Facts::default(), &series, index).unwrap();
        (balance.bytes("anon"), balance.bytes("anon-pinned"))
    };
    assert_eq!(at(0), (Some(40), Some(0)));
    assert_eq!(at(1), (Some(10), Some(30)));
    assert_eq!(at(2), (None, None), "once it is there, a reading without it does not know");
}

#[test]
fn what_was_followed_and_never_happened_is_zero() {
    let series = series(&[(0, &[("meminfo.AnonPages", 40)])]);
    let followed = BTreeSet::from(["cuda.pinned_anon"]);
    let balance =
        balance(Plane::System, Facts { followed: Some(&followed), ..Facts::default() }, &series, 0).unwrap();
    assert_eq!((balance.bytes("anon"), balance.bytes("anon-pinned")), (Some(40), Some(0)));
    assert_eq!(balance.bytes("shmem-pinned"), None);
}

#[test]
fn pages_of_the_driver_are_levels_where_they_are_followed() {
    let balance = system(&[
        ("meminfo.MemTotal", 100),
        ("meminfo.MemFree", 20),
        ("driver.nvidia_sysmem", 50),
        ("driver.nvidia_managed", 7),
        ("driver.nvidia_pool", 3),
    ]);
    assert_eq!((balance.attributed, balance.residual), (60, Some(20)));
}

#[test]
fn managed_pages_of_a_cgroup_are_taken_out_of_its_other_kernel_memory() {
    let columns: &[_] = &[("memory.current", 30), ("stat.kernel", 20), ("stat.slab_unreclaimable", 2)];
    let of = |columns: &[_]| balance(Plane::CgroupV2, Facts::default(), &series(&[(0, columns)]), 0).unwrap();
    let (before, after) = (of(columns), of(&[columns, &[("driver.nvidia_managed", 15)]].concat()));
    assert_eq!((before.bytes("kernel-other"), before.bytes("nvidia-managed")), (Some(18), None));
    assert_eq!((after.bytes("kernel-other"), after.bytes("nvidia-managed")), (Some(3), Some(15)));
    assert_eq!(before.residual, after.residual);
}

#[test]
fn the_plane_of_a_cgroup_is_known_by_its_columns() {
    assert_eq!(Plane::of_cgroup(&series(&[(0, &[("memory.current", 1)])])), Some(Plane::CgroupV2));
    assert_eq!(Plane::of_cgroup(&series(&[(0, &[("memory.usage_in_bytes", 1)])])), Some(Plane::CgroupV1));
    assert_eq!(Plane::of_cgroup(&series(&[])), None);
}

#[test]
fn balances_of_separate_cgroups_add_up() {
    let series = series(&[
        (0, &[("memory.current", 9 * MIB), ("stat.anon", 5 * MIB)]),
        (1, &[("memory.current", MIB)]),
    ]);
    let first = balance(Plane::CgroupV2, Facts::default(), &series, 0).unwrap();
    let both = first.plus(&first);
    assert_eq!(
        (both.bytes("anon"), both.expected, both.residual),
        (Some(10 * MIB), Some(18 * MIB), Some(8 << 20))
    );
    let unknown = first.plus(&balance(Plane::CgroupV2, Facts::default(), &series, 1).unwrap());
    assert_eq!(unknown.bytes("anon"), None);
    assert_eq!(first.emptied(0).bytes("anon"), Some(0));
}

/// Every column some plane's formulas name.
fn columns() -> Vec<&'static str> {
    let planes = [Plane::System, Plane::CgroupV1, Plane::CgroupV2];
    let terms = planes
        .iter()
        .flat_map(|plane| SOURCES.iter().flat_map(|source| plane.terms(source)).chain(plane.expected()));
    terms.map(|term| term.column).collect()
}

proptest! {
    #[test]
    fn rows_and_residual_are_the_planes_counter(
        values in prop::collection::vec(prop::option::of(0u64..1 << 55), columns().len()),
        absent in prop::collection::vec(any::<bool>(), columns().len()),
    ) {
        let mut series = series(&[(0, &[])]);
        for ((name, value), absent) in columns().into_iter().zip(values).zip(absent) {
            if !absent {
                series.columns.insert(name.to_owned(), [value].into());
            }
        }
        for plane in [Plane::System, Plane::CgroupV1, Plane::CgroupV2] {
            let balance = balance(plane, Facts::default(), &series, 0).unwrap();
            let rows: i128 = balance.rows.iter().filter_map(|row| row.bytes).map(i128::from).sum();
            prop_assert_eq!(rows, i128::from(balance.attributed));
            match balance.expected {
                Some(expected) => prop_assert_eq!(rows + i128::from(balance.residual.unwrap()), i128::from(expected)),
                None => prop_assert_eq!(balance.residual, None),
            }
        }
    }

    #[test]
    fn no_counter_overflows(value in any::<u64>()) {
        let mut series = series(&[(u64::MAX - 1_000_000, &[])]);
        for name in columns() {
            series.columns.insert(name.to_owned(), [Some(value)].into());
        }
        for plane in [Plane::System, Plane::CgroupV1, Plane::CgroupV2] {
            balance(plane, Facts::default(), &series, 0).unwrap();
        }
    }
}

#[test]
fn pinned_pages_that_nobody_maps_any_more_stay_in_the_balance() {
    // 512 of 865 anonymous pages are pinned; their process unmaps them: the counter falls, the lists keep them.
    let lists =
        |inactive| [("meminfo.Inactive", inactive), ("meminfo.Active", 0), ("meminfo.Unevictable", 0)];
    for (mapped, anon) in [(865, 353), (353, 353), (600, 353)] {
        let mut columns = vec![
            ("meminfo.MemTotal", 10_000),
            ("meminfo.MemFree", 10_000 - 865 - 100),
            ("meminfo.AnonPages", mapped),
            ("meminfo.Cached", 100),
            ("meminfo.Buffers", 0),
            ("meminfo.Shmem", 0),
            ("meminfo.Dirty", 0),
            ("meminfo.Writeback", 0),
            ("meminfo.SwapCached", 0),
            ("cuda.pinned_anon", 512),
        ];
        columns.extend(lists(865 + 100));
        let balance = balance(Plane::System, Facts::default(), &series(&[(0, &columns)]), 0).unwrap();
        assert_eq!(
            (balance.bytes("anon"), balance.bytes("anon-pinned")),
            (Some(anon), Some(512)),
            "{mapped}"
        );
        assert_eq!(balance.residual, Some(0));
    }
}

/// The rest of huge pages of which all but one small page was given back: 1 of 513 is mapped, all are on the lists.
#[test]
fn what_is_on_the_lists_and_mapped_nowhere_has_a_row_on_every_plane() {
    let cases: [(Plane, &[(&str, u64)]); 3] = [
        (
            Plane::System,
            &[
                ("meminfo.MemTotal", 10_000),
                ("meminfo.MemFree", 10_000 - 713),
                ("meminfo.AnonPages", 1),
                ("meminfo.Cached", 190),
                ("meminfo.Buffers", 10),
                ("meminfo.Shmem", 20),
                ("meminfo.SwapCached", 0),
                ("meminfo.Active", 100),
                ("meminfo.Inactive", 600),
                ("meminfo.Unevictable", 13),
            ],
        ),
        (
            Plane::CgroupV2,
            &[
                ("memory.current", 713),
                ("stat.anon", 1),
                ("stat.file", 200),
                ("stat.shmem", 20),
                ("stat.swapcached", 0),
                ("stat.inactive_anon", 533),
                ("stat.active_file", 100),
                ("stat.inactive_file", 80),
                ("stat.unevictable", 0),
            ],
        ),
        (
            Plane::CgroupV1,
            &[
                ("memory.usage_in_bytes", 713),
                // A cgroup's own and those below it: the latter stands without a prefix.
                ("stat.rss", 7),
                ("stat.total_rss", 1),
                ("stat.total_cache", 200),
                ("stat.total_shmem", 20),
                ("stat.total_active_anon", 533),
                ("stat.total_active_file", 100),
                ("stat.total_inactive_file", 80),
            ],
        ),
    ];
    for (plane, columns) in cases {
        let balance = balance(plane, Facts::default(), &series(&[(0, columns)]), 0).unwrap();
        assert_eq!(balance.bytes("anon"), Some(1), "{plane:?}");
        assert_eq!(balance.bytes("anon-unmapped"), Some(512), "{plane:?}");
        assert_eq!(balance.residual, Some(0), "{plane:?}");
    }
}

#[test]
fn swap_cache_and_pinned_pages_that_nobody_maps_keep_their_rows() {
    let with = |more: &[(&str, u64)]| {
        let columns: &[_] = &[("meminfo.AnonPages", 30), ("meminfo.Cached", 20), ("meminfo.Active", 110)];
        system(&[columns, more].concat())
    };
    let rows = |balance: &Balance| {
        ["anon", "anon-pinned", "swap-cache", "anon-unmapped"].map(|slug| balance.bytes(slug).unwrap_or(0))
    };
    assert_eq!(rows(&with(&[])), [30, 0, 0, 60]);
    assert_eq!(rows(&with(&[("meminfo.SwapCached", 10)])), [30, 0, 10, 50]);
    // Which of the unmapped pages are pinned no counter shows: as many as can be, count as anonymous.
    assert_eq!(rows(&with(&[("meminfo.SwapCached", 10), ("cuda.pinned_anon", 20)])), [30, 20, 10, 30]);
    assert_eq!(rows(&with(&[("cuda.pinned_anon", 200)])), [0, 200, 0, 0]);
    // Pages on their way to the lists make it too small, never negative.
    assert_eq!(rows(&with(&[("meminfo.Unevictable", 0), ("meminfo.Buffers", 100)])), [30, 0, 0, 0]);
}

/// While a process is torn down its shared memory has left the counter, and the driver has not let go of the pages.
#[test]
fn pinned_shared_memory_without_a_file_is_counted_once() {
    for (shmem, pinned_anon) in [(2000, 0), (0, 0), (500, 0), (0, 400)] {
        let (charged, anon) = (2100 + 400, 400 - pinned_anon);
        let columns = [
            ("memory.current", charged),
            ("stat.anon", anon),
            ("stat.file", 100 + shmem),
            ("stat.shmem", shmem),
            ("stat.swapcached", 0),
            ("stat.inactive_anon", 2000 + 400),
            ("stat.active_file", 100),
            ("cuda.pinned_shmem", 2000),
            ("cuda.pinned_anon", pinned_anon),
        ];
        let balance = balance(Plane::CgroupV2, Facts::default(), &series(&[(0, &columns)]), 0).unwrap();
        let rows = ["shmem", "shmem-pinned", "anon-pinned", "anon-unmapped"].map(|slug| balance.bytes(slug));
        assert_eq!(rows, [Some(0), Some(2000), Some(pinned_anon), Some(0)], "{shmem} {pinned_anon}");
        assert_eq!(balance.residual, Some(0), "{shmem} {pinned_anon}");
    }
}

#[test]
fn without_lists_or_with_one_that_was_not_read_nobody_knows_what_is_unmapped() {
    assert_eq!(system(&[("meminfo.AnonPages", 30), ("meminfo.Cached", 20)]).bytes("anon-unmapped"), None);
    let mut readings = series(&[(0, &[("meminfo.AnonPages", 30), ("meminfo.Active", 90)])]);
    readings.columns.insert("meminfo.Inactive".to_owned(), [None].into());
    let balance = balance(Plane::System, Facts::default(), &readings, 0).unwrap();
    assert_eq!((balance.bytes("anon-unmapped"), balance.bytes("anon")), (None, Some(30)));
}
