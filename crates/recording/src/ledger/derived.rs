//! Columns that no kernel file has, computed from those of the same reading.

use super::{Cell, Plane, Reading, device, unsigned};

type Derive = fn(&Reading<'_>) -> Cell;

const DERIVED: &[(&str, Derive)] = &[
    ("derived.swap_cache_unmapped", swap_cache_unmapped),
    ("derived.pinned_unmapped", pinned_unmapped),
    ("derived.anon_unmapped", anon_unmapped),
    ("derived.vmalloc_without_stacks", vmalloc_without_stacks),
    ("derived.gpu_target", device::target),
    ("derived.gpu_others", device::others),
    ("derived.gpu_before", device::before),
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
    match reading.recorded(plane.size) {
        Cell::Known(0) => Cell::Known(0),
        Cell::Known(size) => match beyond_mapped_and_cache(reading, &plane, size) {
            Some(beyond) => Cell::Known(unsigned(beyond.clamp(0, size.into()))),
            None => Cell::Unknown,
        },
        cell => cell,
    }
}

/// What the LRU lists hold beyond mapped anonymous pages and the page cache of files.
fn beyond_mapped_and_cache(reading: &Reading<'_>, plane: &SwapCache, swap_cache: u64) -> Option<i128> {
    let others = sum(reading, plane.others)?;
    let others = if plane.others_contain_it { others - i128::from(swap_cache) } else { others };
    Some(sum(reading, plane.lists)? - others)
}

/// Anonymous pages that no process maps any more and that a pin keeps: their process has given the addresses back
/// before the driver let go of the pages. They have left the counter of mapped anonymous pages; the LRU lists still
/// have them, beyond what is mapped, in the page cache or in the swap cache.
fn pinned_unmapped(reading: &Reading<'_>) -> Cell {
    let pinned = match reading.recorded("cuda.pinned_anon") {
        Cell::Known(0) => return Cell::Known(0),
        Cell::Known(pinned) => pinned,
        cell => return cell,
    };
    match unmapped(reading) {
        Cell::Known(unmapped) => Cell::Known(unmapped.min(pinned)),
        // Where there are no lists they is unknown from nothing.
        cell => cell,
    }
}

/// Pages that no process maps, no file has and the swap cache has not: what is left of a huge page of which some small
/// pages were unmapped (mm/rmap.c __folio_remove_rmap takes those out of NR_ANON_MAPPED and queues the page for
/// splitting; memory comes back when it is split, which is when memory is short), and pages that a pin or a pipe keeps.
/// What the CUDA driver has pinned of them is in the row of anonymous pages, or in that of pinned shared memory.
fn anon_unmapped(reading: &Reading<'_>) -> Cell {
    let pinned = match pinned_unmapped(reading) {
        Cell::Known(pinned) => pinned,
        Cell::NoColumn => 0,
        Cell::Unknown => return Cell::Unknown,
    };
    match unmapped(reading) {
        Cell::Known(unmapped) => {
            Cell::Known((unmapped - pinned).saturating_sub(pinned_without_a_file(reading)))
        }
        cell => cell,
    }
}

/// Pinned shared memory whose file is gone before the driver has let go of its pages: they have left the counter of
/// shared memory (mm/filemap.c filemap_unaccount_folio), and the LRU lists still have them.
fn pinned_without_a_file(reading: &Reading<'_>) -> u64 {
    let shmem = match reading.plane {
        Plane::System => "meminfo.Shmem",
        Plane::CgroupV2 => "stat.shmem",
        Plane::CgroupV1 => "stat.total_shmem",
        Plane::Device => return 0,
    };
    match (reading.recorded("cuda.pinned_shmem"), reading.recorded(shmem)) {
        (Cell::Known(pinned), Cell::Known(shmem)) => pinned.saturating_sub(shmem),
        _ => 0,
    }
}

/// What the LRU lists hold that is neither mapped, nor in a file's page cache, nor in the swap cache. Pages of files
/// and mapped pages that have not come to their list yet (mm/swap.c folio_add_lru: some for each CPU) make it smaller.
fn unmapped(reading: &Reading<'_>) -> Cell {
    let Some(plane) = swap_cache(reading.plane) else { return Cell::NoColumn };
    let lacks = |columns: &[&str]| columns.iter().all(|column| reading.recorded(column) == Cell::NoColumn);
    if lacks(plane.lists) || lacks(plane.others) {
        return Cell::NoColumn;
    }
    let swap_cache = match reading.recorded(plane.size) {
        Cell::Known(size) => size,
        Cell::NoColumn => 0,
        Cell::Unknown => return Cell::Unknown,
    };
    match beyond_mapped_and_cache(reading, &plane, swap_cache) {
        Some(beyond) => {
            // Unmapped pages of the swap cache come first: they have a row of their own.
            let of_swap_cache = beyond.clamp(0, swap_cache.into());
            Cell::Known(unsigned(beyond - of_swap_cache))
        }
        None => Cell::Unknown,
    }
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
