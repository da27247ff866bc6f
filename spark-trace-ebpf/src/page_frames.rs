//! Page frames: two bytes each, found by arithmetic instead of by a look-up.
//!
//! The kernel keeps the `struct page`s of all frames in one array. Where that lies differs from boot to boot and
//! no interface shows, so user space has a program look it up ([`crate::hooks`]' `page_of_file`).

use spark_trace_common::{
    capacities::{LIVE_FRAMES, TOUCHED_ELEMENTS},
    config::{NO_MEMBER, PLACE_BASE},
};

use crate::{
    config::conf,
    maps::{LIVE, PLACE, TOUCHED, set_bits},
    read::probe,
    target::current_task,
};

/// Address of the `struct page` of the first frame.
#[inline(always)]
pub(crate) fn base() -> u64 {
    PLACE.get(PLACE_BASE).copied().unwrap_or(0)
}

/// Where the row of a page is kept; `None` for a page that is not followed.
#[inline(always)]
pub(crate) fn live_row(page: u64) -> Option<*mut u16> {
    live_row_of(frame_of(page)?)
}

/// Number of a page's frame among those that are followed, which it may lie behind.
#[inline(always)]
pub(crate) fn frame_of(page: u64) -> Option<u64> {
    let distance = page.wrapping_sub(base());
    // The size is a constant to the verifier, so only one of these is left. It is 64 on nearly every kernel.
    match conf!(page_struct_size) {
        64 => Some(distance >> 6),
        0 => None,
        size => Some(distance / u64::from(size)),
    }
}

/// The same of a physical address.
#[inline(always)]
pub(crate) fn frame_at(address: u64) -> u64 {
    let number = match conf!(page_size) {
        0x1000 => address >> 12,
        0x4000 => address >> 14,
        0x1_0000 => address >> 16,
        _ => return u64::MAX,
    };
    number.wrapping_sub(u64::from(conf!(first_frame)))
}

/// Where the row of a frame is kept.
#[inline(always)]
pub(crate) fn live_row_of(frame: u64) -> Option<*mut u16> {
    if frame >= u64::from(conf!(page_frames)) {
        return None;
    }
    let element = LIVE.get_ptr_mut(frame as u32 / LIVE_FRAMES)?;
    // SAFETY: a live map value, and the remainder lies within it.
    Some(unsafe { (&raw mut (*element).rows).cast::<u16>().add((frame as u32 % LIVE_FRAMES) as usize) })
}

/// Puts a frame into a row. Gives the row that it was in before, or 0; `None` for a frame that is not followed.
///
/// [`touch`] or [`touch_at_once`] must follow: a sweep that has looked at the row before does not come again without.
#[inline(always)]
pub(crate) fn put(frame: u64, row: u32) -> Option<u32> {
    let live = live_row_of(frame)?;
    // SAFETY: a live map value. Nobody else allocates this page, so only a sweep may change it meanwhile.
    Some(unsafe { u32::from(live.replace(row as u16)) })
}

/// Has the next sweep look at a frame. Between [`put`] and this there must be an atomic operation that gives a value, which all CPUs
/// take for a barrier: else this CPU may look at the bit before others see the row.
#[inline(always)]
pub(crate) fn touch(frame: u64) {
    let Some((word, bit)) = touched(frame) else { return };
    // SAFETY: a live map value. Volatile, since other CPUs change it.
    unsafe {
        if word.read_volatile() & bit == 0 {
            set_bits(word, bit);
        }
    }
}

/// The same without such an operation before it.
#[inline(always)]
pub(crate) fn touch_at_once(frame: u64) {
    let Some((word, bit)) = touched(frame) else { return };
    // SAFETY: a live map value.
    unsafe { set_bits(word, bit) };
}

#[inline(always)]
fn touched(frame: u64) -> Option<(*mut u64, u64)> {
    let element = frame as u32 / LIVE_FRAMES;
    Some((TOUCHED.get_ptr_mut(element / TOUCHED_ELEMENTS)?, 1 << (element % TOUCHED_ELEMENTS)))
}

/// The first page of a file that the current task has open, as the kernel's page cache has it.
#[inline(always)]
pub(crate) fn first_page_of(fd: u32) -> Option<u64> {
    let follow = |from: u64, offset: u32| match probe::<u64>(from as *const u8, offset) {
        Some(0) => None,
        found => found,
    };
    if conf!(table_fds) == NO_MEMBER {
        return None;
    }
    let table = follow(follow(current_task() as u64, conf!(task_files))?, conf!(files_table))?;
    let file = follow(follow(table, conf!(table_fds))?, 8 * fd)?;
    let entry = follow(follow(file, conf!(file_mapping))?, conf!(mapping_pages))?;
    // A file of one page has it in place of the tree's root. Anything else is marked in the lowest bits.
    (entry & 3 == 0).then_some(entry)
}
