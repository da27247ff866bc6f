//! Columns that no kernel file has, computed from those of the same reading.

use super::{Cell, Plane, Reading, device, unsigned};

type Derive = fn(&Reading<'_>) -> Cell;

const DERIVED: &[(&str, Derive)] = &[
    ("derived.swap_cache_unmapped", swap_cache_unmapped),
    ("derived.vmalloc_without_stacks", vmalloc_without_stacks),
    ("derived.gpu_target", device::target),
    ("derived.gpu_others", device::others),
];

pub(super) fn by_name(column: &str) -> Option<Derive> {
    DERIVED.iter().find(|(name, _)| *name == column).map(|&(_, derive)| derive)
}

/// Where a plane of system memory says what swap cache, the LRU lists and their other pages hold.
struct SwapCache {
    size: &'static str,
    lists: &'static [&'static str],
    /// Pages on the lists that are not in the swap cache alone.
    others: &'static [&'static str],
    /// `others` contain the swap cache: the file counter of a cgroup does, `Cached` does not.
    others_contain_it: bool,
}

const fn swap_cache(plane: Plane) -> Option<SwapCache> {
    Some(match plane {
        Plane::Device => return None,
        Plane::System => SwapCache {
            size: "meminfo.SwapCached",
            lists: &["meminfo.Active", "meminfo.Inactive", "meminfo.Unevictable"],
            others: &["meminfo.AnonPages", "meminfo.Cached", "meminfo.Buffers"],
            others_contain_it: false,
        },
        Plane::CgroupV2 => SwapCache {
            size: "stat.swapcached",
            lists: &[
                "stat.active_anon",
                "stat.inactive_anon",
                "stat.active_file",
                "stat.inactive_file",
                "stat.unevictable",
            ],
            others: &["stat.anon", "stat.file"],
            others_contain_it: true,
        },
        Plane::CgroupV1 => SwapCache {
            size: "stat.total_swapcached",
            lists: &[
                "stat.total_active_anon",
                "stat.total_inactive_anon",
                "stat.total_active_file",
                "stat.total_inactive_file",
                "stat.total_unevictable",
            ],
            others: &["stat.total_rss", "stat.total_cache"],
            others_contain_it: true,
        },
    })
}

/// Swap cache pages that no process maps: the mapped ones are anonymous pages too, and counted there.
///
/// No counter says it. Every page of the LRU lists is anonymous, file cache or swap cache, so what the first
/// two leave of the lists is swap cache alone.
fn swap_cache_unmapped(reading: &Reading<'_>) -> Cell {
    let Some(plane) = swap_cache(reading.plane) else { return Cell::NoColumn };
    let size = match reading.recorded(plane.size) {
        Cell::Known(0) => return Cell::Known(0),
        Cell::Known(size) => size,
        cell => return cell,
    };
    let (Some(lists), Some(others)) = (sum(reading, plane.lists), sum(reading, plane.others)) else {
        return Cell::Unknown;
    };
    let others = if plane.others_contain_it { others - i128::from(size) } else { others };
    Cell::Known(unsigned((lists - others).clamp(0, size.into())))
}

/// Absent where one of `columns` was not read, or none of them exists.
fn sum(reading: &Reading<'_>, columns: &[&str]) -> Option<i128> {
    let mut sum = None;
    for column in columns {
        match reading.recorded(column) {
            Cell::NoColumn => {}
            Cell::Unknown => return None,
            Cell::Known(value) => sum = Some(sum.unwrap_or(0) + i128::from(value)),
        }
    }
    sum
}

/// Kernel stacks lie in vmalloc areas unless the kernel was built otherwise, and have a row of their own.
fn vmalloc_without_stacks(reading: &Reading<'_>) -> Cell {
    let used = match reading.recorded("meminfo.VmallocUsed") {
        Cell::Known(used) => used,
        cell => return cell,
    };
    if reading.facts.vmap_stack == Some(false) {
        return Cell::Known(used);
    }
    match reading.recorded("meminfo.KernelStack") {
        Cell::NoColumn => Cell::Known(used),
        Cell::Unknown => Cell::Unknown,
        Cell::Known(stacks) => Cell::Known(used.saturating_sub(stacks)),
    }
}
