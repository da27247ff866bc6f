//! Rows of page allocations: how many were allocated and freed of one key.

use aya_ebpf::bindings::BPF_NOEXIST;
use spark_trace_common::{
    capacities as cap,
    config::PLACE_ROWS,
    map_records::{PageKey, PageRow},
};

use crate::maps::{PAGE_KEYS, PAGE_ROWS, PLACE, add, next};

/// The row of `key`, made if there is none; 0 where there is no room for it.
#[inline(always)]
pub(super) fn row_of(key: &PageKey) -> u32 {
    if let Some(row) = PAGE_KEYS.get_ptr(key) {
        // SAFETY: a live map value, which never changes.
        return unsafe { *row };
    }
    let Some(given) = PLACE.get_ptr_mut(PLACE_ROWS) else { return 0 };
    // SAFETY: a live map value.
    let row = unsafe { next(given) } + 1;
    if row >= u64::from(cap::PAGE_ROWS) {
        return 0;
    }
    let row = row as u32;
    if let Some(totals) = PAGE_ROWS.get_ptr_mut(row) {
        // SAFETY: a live map value that nobody knows of yet.
        unsafe { *totals = PageRow { key: *key, allocs: 0, frees: 0 } };
    }
    if PAGE_KEYS.insert(key, &row, u64::from(BPF_NOEXIST)).is_ok() {
        return row;
    }
    // Another CPU has made one since; ours stays empty.
    // SAFETY: as above.
    PAGE_KEYS.get_ptr(key).map_or(0, |row| unsafe { *row })
}

/// Counts an allocation as freed. One may be freed in parts (split_page); its owner frees all of them, so the
/// head page's free retires it whole.
#[inline(always)]
pub(super) fn retire(row: u32) {
    if let Some(totals) = PAGE_ROWS.get_ptr_mut(row) {
        // SAFETY: a live map value.
        unsafe { add(&raw mut (*totals).frees, 1) };
    }
}
