//! Page allocations that are not movable user pages: kernel and driver memory, by stack.
//!
//! Movable pages (anonymous memory, page cache) are by far the most frequent and are counted exactly by
//! the kernel already, so they leave at the first comparison. For the rest the stack says who allocated.
//!
//! A driver takes tens of gigabytes by single pages. What is dear (the stack, whose it is, the row) is found out
//! once for a burst, and a page within it costs a comparison, an addition and a store.
//!
//! A program on every free would cost as much again for each page of every process. So frees are not
//! watched (profile `deep` does, and the default one while a CUDA driver is in use): `page_sweep` looks at the
//! pages that were allocated, when somebody wants to know which are still in use, and retires the others.

use core::ffi::c_void;

use aya_ebpf::{
    EbpfContext, helpers::generated::bpf_task_pt_regs, macros::btf_tracepoint, programs::BtfTracePointContext,
};
use spark_trace_common::{
    capacities::{PAGE_PLACES, STACK_USES, STACK_USES_MOST},
    config::CONTROL_BY_PID,
    hook::index,
    map_records::{PAGE_CHARGED, PAGE_ORDER_SHIFT, PageCache, PageKey},
};

use super::driver_burst;
use super::page_rows::{retire, row_of};
use crate::{
    config::conf,
    loss::{lost, stand_in},
    maps::{CONTROL, PAGE_CACHE, PAGE_ROWS, PLACE, add, generation, next, run},
    page_frames::{frame_of, live_row, put, touch},
    read::load,
    stack::take_stack,
    target::{current_task, current_tgid, is_target, is_target_cgroup, memory_cgroup_of},
};

/// `void mm_page_alloc(struct page *page, unsigned int order, gfp_t gfp_flags, int migratetype)`
#[btf_tracepoint(function = "mm_page_alloc")]
pub fn page_alloc(ctx: BtfTracePointContext) -> i32 {
    if is_ours(&ctx) && !driver_burst::passes(ctx.arg(1), ctx.arg(2)) {
        cached(ctx.as_ptr());
    }
    0
}

#[btf_tracepoint(function = "mm_page_alloc")]
pub fn page_alloc_nested(ctx: BtfTracePointContext) -> i32 {
    if is_ours(&ctx)
        && driver_burst::that_counts(ctx.arg(1), ctx.arg(2)).is_none()
        && let Some(page) =
            stand_in(const { index("page-alloc-nested") }, const { index("page-alloc") }, ctx.arg(0))
        // A page that is known to be alive has been counted.
        // SAFETY: a live map value.
        && live_row(page).is_none_or(|row| unsafe { *row } == 0)
    {
        // Not by the cache, which the program that this one interrupts may be about to use.
        allocated(&ctx, page, |ctx| row_anew(ctx).0);
    }
    0
}

/// Whether an allocation is to be recorded. Nearly all leave here, so this comes before everything else.
#[inline(always)]
fn is_ours(ctx: &BtfTracePointContext) -> bool {
    ctx.arg::<u32>(3) != conf!(migrate_movable) || conf!(all_pages) != 0
}

/// A function of its own, so that an allocation that is not ours saves and restores no registers.
#[inline(never)]
fn cached(ctx: *mut c_void) {
    let ctx = BtfTracePointContext::new(ctx);
    let page = run(const { index("page-alloc") }, ctx.arg(0));
    allocated(&ctx, page, |ctx| {
        let row = row_by_place(ctx);
        driver_burst::first_page(page, ctx.arg(1), ctx.arg(2), row);
        row
    });
}

#[inline(always)]
fn allocated(ctx: &BtfTracePointContext, page: u64, row_of: impl FnOnce(&BtfTracePointContext) -> u32) {
    if page == 0 {
        return;
    }
    let row = row_of(ctx);
    let Some(totals) = PAGE_ROWS.get_ptr_mut(row) else { return };
    if row == 0 {
        lost!(PageAggregates);
        return;
    }
    let frame = frame_of(page).unwrap_or(u64::MAX);
    let before = put(frame, row);
    // SAFETY: a live map value.
    unsafe { next(&raw mut (*totals).allocs) };
    let Some(before) = before else {
        lost!(LivePages);
        return;
    };
    // The operation before is the barrier that it needs.
    touch(frame);
    // A row that is still there is of a page whose free nobody has noticed yet. Most often it was of the same
    // place.
    if before == row {
        // SAFETY: a live map value.
        unsafe { add(&raw mut (*totals).frees, 1) };
    } else if before != 0 {
        retire(before);
    }
}

/// The row of an allocation; 0 where it could not be made.
///
/// Unwinding costs a microsecond and more, and allocations come in bursts from one place. One at the same depth of
/// the kernel stack, entered from the same user instruction by the same system call, for the same kind of page, has
/// the stack of the one before. So has that of another task of the same cgroup: children of one program have its
/// places. It is taken anew now and then all the same, so that a coincidence cannot last.
#[inline(always)]
fn row_by_place(ctx: &BtfTracePointContext) -> u32 {
    let task = current_task();
    // SAFETY: the current task's type is known to the verifier, and so is that of its registers.
    let (regs, cgroup, user_ip, system_call): (u64, u64, u64, u32) = unsafe {
        let regs = bpf_task_pt_regs(task.cast_mut().cast()) as *const u8;
        (regs as u64, memory_cgroup_of(task), load(regs, conf!(regs_ip)), load(regs, conf!(regs_nr)))
    };
    // The registers lie at the top of the task's stack. The difference of two pointers is a number, of which the
    // verifier lets a hash be made.
    let depth = regs.wrapping_sub(ctx.as_ptr() as u64);
    // A kernel thread comes from no user instruction.
    let own = if user_ip == 0 { task as u64 } else { u64::from(current_tgid()) };
    let (order, gfp, generation): (u32, u32, u32) = (ctx.arg(1), ctx.arg(2), generation());
    // Fibonacci hashing: the highest bits of the product are the best mixed.
    let hash = (depth ^ user_ip ^ u64::from(gfp)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    let slot = hash as u32 >> (32 - PAGE_PLACES.trailing_zeros());
    let Some(cache) = PAGE_CACHE.get_ptr_mut(slot) else { return 0 };
    // SAFETY (whole block): a per-CPU slot that the map keeps alive; this program does not interrupt itself.
    unsafe {
        let same = ((*cache).of == 0 || (*cache).of == own)
            && (*cache).depth == depth
            && (*cache).user_ip == user_ip
            && (*cache).system_call == system_call
            && (*cache).gfp == gfp
            && (*cache).order == order
            && (*cache).cgroup == cgroup
            && (*cache).generation == generation;
        if same && (*cache).left > 0 {
            (*cache).left -= 1;
            return (*cache).row;
        }
        let (row, whole) = row_anew(ctx);
        let uses = if same && (*cache).row == row {
            (2 * (*cache).uses + 1).min(STACK_USES_MOST)
        } else {
            STACK_USES
        };
        // Where single processes are the target, others of their cgroup are not.
        let by_pid = CONTROL.get(CONTROL_BY_PID).is_some_and(|on| *on != 0);
        let shared = user_ip != 0 && (!by_pid || conf!(whole_system) != 0 || is_target_cgroup(cgroup));
        *cache = PageCache {
            cgroup,
            of: if shared { 0 } else { own },
            depth,
            user_ip,
            system_call,
            gfp,
            order,
            generation,
            row,
            // A failure is not remembered: the next try may find room.
            left: if whole { uses } else { 0 },
            uses,
            reserved: 0,
        };
        row
    }
}

/// The row of an allocation by its stack and its task, and whether both could be had.
#[inline(always)]
fn row_anew(ctx: &BtfTracePointContext) -> (u32, bool) {
    let (order, gfp, migratetype): (u32, u32, u32) = (ctx.arg(1), ctx.arg(2), ctx.arg(3));
    // SAFETY: the current task's type is known to the verifier.
    let mut cgroup = unsafe { memory_cgroup_of(current_task()) };
    if !is_target(cgroup, current_tgid()) {
        cgroup = 0;
    }
    let stack = take_stack(ctx.as_ptr());
    let charged = if gfp & conf!(gfp_account) != 0 { PAGE_CHARGED } else { 0 };
    let class = migratetype & 0xff | charged | (order & 31) << PAGE_ORDER_SHIFT;
    let row = row_of(&PageKey { cgroup, stack, class });
    (row, row != 0 && stack >= 0)
}

/// `void mm_page_free(struct page *page, unsigned int order)`
#[btf_tracepoint(function = "mm_page_free")]
pub fn page_free(ctx: BtfTracePointContext) -> i32 {
    freed(run(const { index("page-free") }, ctx.arg(0)));
    0
}

#[btf_tracepoint(function = "mm_page_free")]
pub fn page_free_nested(ctx: BtfTracePointContext) -> i32 {
    // A page that has been retired is not found again.
    if let Some(page) =
        stand_in(const { index("page-free-nested") }, const { index("page-free") }, ctx.arg(0))
    {
        freed(page);
    }
    0
}

#[inline(always)]
fn freed(page: u64) {
    let Some(live) = live_row(page) else { return };
    // SAFETY: a live map value. Nobody else frees this page; a sweep that meets it within these few instructions would
    // retire it as well.
    let row = unsafe { *live };
    if row != 0 {
        // SAFETY: as above.
        unsafe { *live = 0 };
        retire(u32::from(row));
    }
}
