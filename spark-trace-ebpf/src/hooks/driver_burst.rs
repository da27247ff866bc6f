//! Single pages that the NVIDIA driver takes in one call, counted together at its return.
//!
//! A call for a gigabyte in pages of 4 KiB passes `mm_page_alloc` 262,144 times from one place. Where the driver's
//! functions can be hooked, the first of these pages is counted there, which finds out whose they are; those after it are
//! passed over, and when the call returns as many are marked from the list of addresses that it has filled in, from the
//! one of the first page on. What lies before that came from the driver's own pool and has a row already.
//!
//! A list without the first page is none of physical addresses, or the first page was not the driver's: then what was
//! passed over counts as lost, and from then on pages are counted one by one.

use core::ffi::c_void;

use aya_ebpf::helpers::{
    bpf_get_current_pid_tgid,
    generated::{bpf_loop, bpf_probe_read_kernel},
};
use spark_trace_common::{
    capacities::{self as cap, BURST_PAGES},
    config::PLACE_NO_BURSTS,
    map_records::Burst,
};

use super::page_rows::retire;
use crate::{
    config::conf,
    loss::lost,
    maps::{BURSTS, PAGE_ROWS, PLACE, add, replace},
    page_frames::{frame_at, frame_of, put, touch_at_once},
};

/// Addresses that are read at once.
const CHUNK: u32 = 16;
const _: () = assert!(CHUNK.is_power_of_two());

/// The place of the current task, and its name there. A CPU that has nothing to do has none.
#[inline(always)]
fn place() -> Option<(*mut Burst, u64)> {
    let task = bpf_get_current_pid_tgid();
    if task == 0 {
        return None;
    }
    Some((BURSTS.get_ptr_mut(task as u32 % cap::BURSTS)?, task))
}

/// The place of the current task if it is its own.
#[inline(always)]
fn own() -> Option<*mut Burst> {
    let (burst, task) = place()?;
    // SAFETY: a live map value.
    (unsafe { (&raw const (*burst).task).read_volatile() } == task).then_some(burst)
}

/// The current task enters a call for single pages.
#[inline(always)]
pub(super) fn begin() {
    if PLACE.get(PLACE_NO_BURSTS).copied().unwrap_or(0) != 0 {
        return;
    }
    let Some((burst, task)) = place() else { return };
    // SAFETY (whole block): a live map value, which belongs to the task named in it.
    unsafe {
        if (*burst).task == task {
            // The return of its last call was not seen.
            lost!(LivePages, (*burst).passed);
        } else if !replace(&raw mut (*burst).task, 0, task) {
            return;
        }
        clear(burst);
    }
}

/// # Safety
/// `burst` must point to a live map value that is the current task's.
#[inline(always)]
unsafe fn clear(burst: *mut Burst) {
    // SAFETY: by the caller's word.
    unsafe {
        (*burst).open = 0;
        (*burst).row = 0;
        (*burst).passed = 0;
        (*burst).again = 0;
        (*burst).met = 0;
    }
}

/// The current task begins or ends to take pages.
#[inline(always)]
pub(super) fn set_open(open: bool) {
    if let Some(burst) = own() {
        // SAFETY: a live map value that is the current task's.
        unsafe { (*burst).open = u32::from(open) };
    }
}

/// The call that is to count a page which the current task allocates.
#[inline(always)]
pub(super) fn that_counts(order: u32, gfp: u32) -> Option<*mut Burst> {
    if conf!(driver_bursts) == 0 || order != 0 {
        return None;
    }
    // SAFETY: a live map value that is the current task's. Other flags: an interrupt's, or of something else.
    own().filter(|burst| unsafe {
        (**burst).row != 0 && (**burst).open != 0 && (**burst).gfp == gfp && (**burst).passed < BURST_PAGES
    })
}

/// Leaves a page to the call that is to count it, if there is one.
#[inline(always)]
pub(super) fn passes(order: u32, gfp: u32) -> bool {
    match that_counts(order, gfp) {
        Some(burst) => {
            // SAFETY: a live map value that is the current task's.
            unsafe { (*burst).passed += 1 };
            true
        }
        None => false,
    }
}

/// Keeps what is known by the first page of a call.
#[inline(always)]
pub(super) fn first_page(page: u64, order: u32, gfp: u32, row: u32) {
    if conf!(driver_bursts) == 0 || order != 0 || row == 0 {
        return;
    }
    if let Some(burst) = own()
        && let Some(frame) = frame_of(page)
    {
        // SAFETY: a live map value that is the current task's.
        unsafe {
            if (*burst).open != 0 && (*burst).row == 0 {
                (*burst).first = frame;
                (*burst).gfp = gfp;
                (*burst).row = row;
            }
        }
    }
}

/// A walk over the list of a call. What changes from page to page is in the call's place in the map: of the stack, verifiers
/// before 6.7 believe that it is at every page as it was at the first, and leave out what could then not be reached.
struct Walk {
    list: u64,
    burst: *mut Burst,
    pages: u32,
    row: u32,
    addresses: [u64; CHUNK as usize],
}

/// The current task leaves a call. `list`: where the addresses of its pages are and how many, if it succeeded; else the
/// driver has given them back.
#[inline(always)]
pub(super) fn end(list: Option<(u64, u32)>) {
    let Some(burst) = own() else { return };
    // SAFETY: a live map value that is the current task's.
    let (row, passed) = unsafe { ((*burst).row, (*burst).passed) };
    if let Some((list, pages)) = list
        && row != 0
        && passed != 0
    {
        let mut walk = Walk { list, burst, pages, row, addresses: [0; CHUNK as usize] };
        // SAFETY: a callback of the form that the helper wants, with what it expects.
        unsafe {
            bpf_loop(pages.div_ceil(CHUNK), mark_chunk as *mut c_void, (&raw mut walk).cast(), 0);
        }
        // SAFETY: a live map value that is the current task's.
        let (left, again) = unsafe { ((*burst).passed, (*burst).again) };
        if let Some(totals) = PAGE_ROWS.get_ptr_mut(row) {
            // SAFETY: a live map value.
            unsafe {
                add(&raw mut (*totals).allocs, passed.wrapping_sub(left));
                add(&raw mut (*totals).frees, again);
            }
        }
        if left != 0 {
            lost!(LivePages, left);
            if let Some(off) = PLACE.get_ptr_mut(PLACE_NO_BURSTS) {
                // SAFETY: a live map value.
                unsafe { *off = 1 };
            }
        }
    }
    // SAFETY: as above. From the last line on it may be another task's.
    unsafe {
        clear(burst);
        (&raw mut (*burst).task).write_volatile(0);
    }
}

/// `long callback(u32 index, void *ctx)`
extern "C" fn mark_chunk(index: u32, walk: *mut Walk) -> i64 {
    // SAFETY (whole block): `end` hands it over; the helper checks the address it reads from.
    unsafe {
        if (*(*walk).burst).passed == 0 {
            return 1;
        }
        let first = index * CHUNK;
        let left = (*walk).pages - first;
        let count = if left < CHUNK { left } else { CHUNK };
        let to = (&raw mut (*walk).addresses).cast();
        let from = ((*walk).list + u64::from(first) * 8) as *const c_void;
        if bpf_probe_read_kernel(to, count * 8, from) != 0 {
            return 1;
        }
        bpf_loop(count, mark as *mut c_void, walk.cast(), 0);
    }
    0
}

/// The same for a page of the chunk: puts it into the row.
extern "C" fn mark(index: u32, walk: *mut Walk) -> i64 {
    // SAFETY (whole block): `mark_chunk` hands it over; what is found is a live map value.
    unsafe {
        let burst = (*walk).burst;
        let address = *(&raw const (*walk).addresses).cast::<u64>().add((index % CHUNK) as usize);
        let frame = frame_at(address);
        if (*burst).met == 0 {
            (*burst).met = u32::from(frame == (*burst).first);
            return 0;
        }
        if (*burst).passed == 0 {
            return 1;
        }
        let row = (*walk).row;
        let Some(before) = put(frame, row) else { return 0 };
        touch_at_once(frame);
        (*burst).passed -= 1;
        if before == row {
            (*burst).again += 1;
        } else if before != 0 {
            retire(before);
        }
    }
    0
}
