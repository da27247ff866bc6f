//! Single pages that the NVIDIA driver takes in one call, counted together at its return.
//!
//! A call for a gigabyte in pages of 4 KiB passes `mm_page_alloc` 262,144 times from one place. Where the driver's
//! functions can be hooked, the first of these pages is counted there, which finds out whose they are; the others are
//! passed over, and when the call returns all are marked from the list of physical addresses that it has filled in.
//! Pages that come out of the driver's own pool are on the list too, and go to who has them now.

use core::ffi::c_void;

use aya_ebpf::helpers::{
    bpf_get_current_pid_tgid,
    generated::{bpf_loop, bpf_probe_read_kernel},
};
use spark_trace_common::{
    event::Burst,
    map::{self as cap, LossKind},
};

use super::page::retire;
use crate::{
    config::conf,
    frame::live_row_of,
    maps::{BURSTS, PAGE_ROWS, add, lost, replace},
};

/// Addresses that are read at once.
const CHUNK: u32 = 16;
const _: () = assert!(CHUNK.is_power_of_two());

/// The place of the current task, and its name there.
#[inline(always)]
fn place() -> Option<(*mut Burst, u64)> {
    let task = bpf_get_current_pid_tgid();
    Some((BURSTS.get_ptr_mut(task as u32 % cap::BURSTS)?, task))
}

/// The place of the current task if it is its own.
#[inline(always)]
fn own() -> Option<*mut Burst> {
    let (burst, task) = place()?;
    // SAFETY: a live map value.
    (unsafe { (&raw const (*burst).task).read_volatile() } == task).then_some(burst)
}

/// The current task enters a call.
#[inline(always)]
pub(super) fn begin() {
    let Some((burst, task)) = place() else { return };
    // SAFETY (whole block): a live map value, which belongs to the task named in it.
    unsafe {
        if (*burst).task == task {
            // The return of its last call was not seen, and what it took then is not counted.
            lost(LossKind::LivePages);
        } else if !replace(&raw mut (*burst).task, 0, task) {
            return;
        }
        (*burst).row = 0;
        (*burst).open = 0;
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

/// Whether a page that the current task allocates is counted at the return of its call.
#[inline(always)]
pub(super) fn counts_later(order: u32, gfp: u32) -> bool {
    if conf!(driver_bursts) == 0 || order != 0 {
        return false;
    }
    // SAFETY: a live map value that is the current task's. Other flags: an interrupt's, or of something else.
    own().is_some_and(|burst| unsafe { (*burst).row != 0 && (*burst).open != 0 && (*burst).gfp == gfp })
}

/// Keeps the row of the first page of a call.
#[inline(always)]
pub(super) fn first_page(order: u32, gfp: u32, row: u32) {
    if conf!(driver_bursts) == 0 || order != 0 || row == 0 {
        return;
    }
    if let Some(burst) = own() {
        // SAFETY: a live map value that is the current task's.
        unsafe {
            if (*burst).open != 0 && (*burst).row == 0 {
                (*burst).gfp = gfp;
                (*burst).row = row;
            }
        }
    }
}

/// A part of the walk over the list of a call.
struct Walk {
    list: u64,
    pages: u32,
    row: u32,
    /// Pages that were not in it before, and those that could not be put there.
    more: u64,
    missing: u64,
    addresses: [u64; CHUNK as usize],
}

/// The current task leaves a call. `list`: where the physical addresses of its pages are and how many, if it succeeded;
/// else the driver has given them back.
#[inline(always)]
pub(super) fn end(list: Option<(u64, u32)>) {
    let Some(burst) = own() else { return };
    // SAFETY: a live map value that is the current task's.
    let row = unsafe { (*burst).row };
    if let Some((list, pages)) = list
        && row != 0
        && list != 0
    {
        let mut walk = Walk { list, pages, row, more: 0, missing: 0, addresses: [0; CHUNK as usize] };
        // SAFETY: a callback of the form that the helper wants, with what it expects.
        unsafe {
            bpf_loop(pages.div_ceil(CHUNK), mark_chunk as *mut c_void, (&raw mut walk).cast(), 0);
        }
        if let Some(totals) = PAGE_ROWS.get_ptr_mut(row) {
            // SAFETY: a live map value.
            unsafe { add(&raw mut (*totals).allocs, walk.more) };
        }
        if walk.missing != 0 {
            lost(LossKind::LivePages);
        }
    }
    // SAFETY: as above. From here on it may be another task's.
    unsafe { (&raw mut (*burst).task).write_volatile(0) };
}

/// `long callback(u32 index, void *ctx)`
extern "C" fn mark_chunk(index: u32, walk: *mut Walk) -> i64 {
    // SAFETY (whole block): `end` hands it over; the helper checks the address it reads from.
    unsafe {
        let first = index * CHUNK;
        let left = (*walk).pages - first;
        let count = if left < CHUNK { left } else { CHUNK };
        let to = (&raw mut (*walk).addresses).cast();
        let from = ((*walk).list + u64::from(first) * 8) as *const c_void;
        if bpf_probe_read_kernel(to, count * 8, from) == 0 {
            bpf_loop(count, mark as *mut c_void, walk.cast(), 0);
        } else {
            (*walk).missing += 1;
        }
    }
    0
}

/// The same for a page of the chunk: puts it into the row.
extern "C" fn mark(index: u32, walk: *mut Walk) -> i64 {
    // SAFETY (whole block): `mark_chunk` hands it over; what is found is a live map value.
    unsafe {
        let address = *(&raw const (*walk).addresses).cast::<u64>().add((index % CHUNK) as usize);
        let frame = frame_of(address).wrapping_sub(u64::from(conf!(first_frame)));
        let Some(live) = live_row_of(frame) else {
            (*walk).missing += 1;
            return 0;
        };
        let row = (*walk).row;
        let before = u32::from(live.replace(row as u16));
        if before != row {
            (*walk).more += 1;
            if before != 0 {
                retire(before);
            }
        }
    }
    0
}

/// Number of the frame at a physical address. The size is a constant to the verifier, so only one of these is left.
#[inline(always)]
fn frame_of(address: u64) -> u64 {
    match conf!(page_size) {
        0x1000 => address >> 12,
        0x4000 => address >> 14,
        0x1_0000 => address >> 16,
        _ => u64::MAX,
    }
}
