//! What user space has done with page frames when it wants to; attached to nothing.

use core::ffi::c_void;

use aya_ebpf::{helpers::generated::bpf_loop, macros::raw_tracepoint, programs::RawTracePointContext};
use spark_trace_common::{
    capacities::{LIVE_FRAMES, SWEEP_WORDS, TOUCHED_ELEMENTS},
    config::{NO_MEMBER, PLACE_FOUND, PLACE_SWEEP_LEFT, PLACE_SWEEP_NEXT},
    hook::index,
    map_records::LiveFrames,
};

use super::page_rows::retire;
use crate::{
    config::conf,
    maps::{LIVE, PLACE, TOUCHED, hit, replace, set_bits, take_bits},
    page_frames,
    read::probe,
};

/// Finds the page of a file of one page, whose descriptor in the calling process is the first argument.
#[raw_tracepoint]
pub fn page_of_file(ctx: RawTracePointContext) -> i32 {
    let fd: u64 = ctx.arg(0);
    if let Some(found) = PLACE.get_ptr_mut(PLACE_FOUND) {
        // SAFETY: a live map value that nobody else uses now.
        unsafe { *found = page_frames::first_page_of(fd as u32).unwrap_or(0) };
    }
    0
}

/// A part of the walk over `TOUCHED`. How far it is lies in `PLACE`: of the stack, verifiers before 6.7 believe that it is at
/// every word as it was at the first.
struct Walk {
    first: u32,
    base: u64,
}

/// Retires pages that are no longer what they were allocated for, in those elements of `LIVE` that have a row: from the word
/// of `TOUCHED` on that is the first argument, as many as the second. Leaves in `PLACE` where to go on.
#[raw_tracepoint]
pub fn page_sweep(ctx: RawTracePointContext) -> i32 {
    hit(const { index("page-sweep") });
    let (first, words): (u64, u64) = (ctx.arg(0), ctx.arg(1));
    let (Some(left), Some(next)) = (PLACE.get_ptr_mut(PLACE_SWEEP_LEFT), PLACE.get_ptr_mut(PLACE_SWEEP_NEXT))
    else {
        return 0;
    };
    // SAFETY: live map values that nobody else uses now. Where the walk does not begin, it has not come on either.
    unsafe {
        *left = u64::from(SWEEP_WORDS);
        *next = first;
    }
    let mut walk = Walk { first: first as u32, base: page_frames::base() };
    // SAFETY: a callback of the form that the helper wants, with what it expects.
    unsafe {
        bpf_loop(words as u32, sweep_touched as *mut c_void, (&raw mut walk).cast(), 0);
    }
    0
}

/// A word of `TOUCHED` that was not empty.
struct Touched {
    word: u32,
    bits: u64,
    base: u64,
}

/// `long callback(u32 index, void *ctx)`
extern "C" fn sweep_touched(index: u32, walk: *const Walk) -> i64 {
    // SAFETY: `page_sweep` hands it over.
    let (word, base) = unsafe { ((*walk).first + index, (*walk).base) };
    let (Some(left), Some(next), Some(bits)) =
        (PLACE.get_ptr_mut(PLACE_SWEEP_LEFT), PLACE.get_ptr_mut(PLACE_SWEEP_NEXT), TOUCHED.get_ptr_mut(word))
    else {
        return 1;
    };
    // SAFETY (whole block): live map values; a callback of the form that the helper wants, with what it expects.
    unsafe {
        if *left == 0 {
            return 1;
        }
        *next = u64::from(word) + 1;
        // Most of a machine is not followed: this is what a walk costs there.
        if bits.read_volatile() == 0 {
            return 0;
        }
        *left -= 1;
        // Taken before the rows are looked at: what is put into a row meanwhile sets its bit anew.
        let mut touched = Touched { word, bits: take_bits(bits), base };
        bpf_loop(TOUCHED_ELEMENTS, sweep_element as *mut c_void, (&raw mut touched).cast(), 0);
    }
    0
}

/// Frames to a word of an element.
const LANES: u32 = 4;

/// `long callback(u32 index, void *ctx)`
extern "C" fn sweep_element(index: u32, touched: *const Touched) -> i64 {
    // SAFETY: `sweep_touched` hands it over.
    let (word, bits, base) = unsafe { ((*touched).word, (*touched).bits, (*touched).base) };
    let bit = 1 << (index % TOUCHED_ELEMENTS);
    if bits & bit == 0 {
        return 0;
    }
    let element = word * TOUCHED_ELEMENTS + index;
    let (Some(rows), Some(marks)) = (LIVE.get_ptr_mut(element), TOUCHED.get_ptr_mut(word)) else { return 1 };
    let rows = rows.cast::<u64>();
    sweep_words(rows, base, element * LIVE_FRAMES);
    // SAFETY: live map values, and words within them.
    unsafe {
        let any = (0..WORDS).fold(0, |any, word| any | rows.add(word as usize).read_volatile());
        if any != 0 {
            set_bits(marks, bit);
        }
    }
    0
}

/// Words to an element.
const WORDS: u32 = LIVE_FRAMES / LANES;

/// A function of its own, so that the walk over what is empty saves and restores no registers.
#[inline(never)]
fn sweep_words(words: *mut u64, base: u64, frame: u32) {
    for word in 0..WORDS {
        // SAFETY: a live value of `LIVE`, and a word within it.
        unsafe { sweep_word(words.add(word as usize), base, frame + word * LANES) };
    }
}
const _: () = assert!(size_of::<LiveFrames>() == (WORDS * 8) as usize);

/// # Safety
/// `word` must point into a live value of `LIVE`, to that of `frame` and the next three.
#[inline(always)]
unsafe fn sweep_word(word: *mut u64, base: u64, frame: u32) {
    // SAFETY: by the caller's word.
    let mut rows = unsafe { word.read_volatile() };
    if rows == 0 {
        return;
    }
    for lane in 0..LANES {
        let row = rows >> (16 * lane) & 0xffff;
        let page = base + u64::from(frame + lane) * u64::from(conf!(page_struct_size));
        if row == 0 || in_use(page) {
            continue;
        }
        let rest = rows & !(0xffff << (16 * lane));
        // A page that was allocated meanwhile is somebody's again.
        // SAFETY: by the caller's word.
        if !unsafe { replace(word, rows, rest) } {
            return;
        }
        rows = rest;
        retire(row as u32);
    }
}

/// Whether a page is still in a kernel allocation. Freed pages have no references, and user pages are up to
/// date: both show that the page is no longer what it was. (A new kernel allocation of the same page has
/// replaced its entry already.)
#[inline(always)]
fn in_use(page: u64) -> bool {
    // One read of it all costs less than four of its members.
    let Some(page) = probe::<[u64; 8]>(page as *const u8, 0) else { return false };
    // SAFETY: the verifier checks that what the kernel's types say lies within.
    let (flags, head, references, kind): (u64, u64, i32, u32) = unsafe {
        (
            member(&page, conf!(page_flags)),
            member(&page, conf!(page_head)),
            member(&page, conf!(page_refcount)),
            member(&page, conf!(page_type)),
        )
    };
    // Part of somebody else's larger page, or a page with contents that a process reads.
    if head & 1 != 0 || flags & (1 << (conf!(flag_uptodate) & 63)) != 0 {
        return false;
    }
    if references > 0 {
        return true;
    }
    // From 6.14 on some allocations (slab) hold pages without a reference; their type shows it.
    let kind = kind >> 24;
    conf!(page_type_buddy) != NO_MEMBER
        && kind != conf!(page_type_buddy)
        && kind >= conf!(page_type_first)
        && kind < conf!(page_type_last)
}

/// # Safety
/// `offset` must lie within. The verifier rejects the program otherwise.
#[inline(always)]
unsafe fn member<T: Copy>(page: &[u64; 8], offset: u32) -> T {
    // SAFETY: by the caller's word.
    unsafe { page.as_ptr().cast::<u8>().add(offset as usize).cast::<T>().read_volatile() }
}
