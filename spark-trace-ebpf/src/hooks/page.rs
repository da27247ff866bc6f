//! Page allocations that are not movable user pages: kernel and driver memory, by stack.
//!
//! Movable pages (anonymous memory, page cache) are by far the most frequent and are counted exactly by
//! the kernel already, so they leave at the first comparison. For the rest the stack says who asked.
//!
//! A program on every free would cost as much again for each page of every process. So frees are not
//! watched (profile `deep` does): `page_sweep` looks at the pages that were allocated, when somebody wants to
//! know which are still in use, and retires the others.

use core::ffi::c_void;

use aya_ebpf::{
    EbpfContext,
    helpers::generated::{bpf_for_each_map_elem, bpf_get_stackid, bpf_task_pt_regs},
    macros::{btf_tracepoint, raw_tracepoint},
    programs::{BtfTracePointContext, RawTracePointContext},
};
use spark_trace_common::{
    config::NO_MEMBER,
    event::{LivePage, PAGE_CHARGED, PageKey, PageTotals, StackCache},
    hook::index,
    map::{LossKind, STACK_USES},
};

use crate::{
    config::conf,
    maps::{KERNEL_STACKS, LIVE_PAGES, PAGE_AGGREGATES, STACK_CACHE, add, hit, lost, run, stand_in},
    read::{load, probe},
    target::{current_task, current_tgid, is_target, memory_cgroup_of},
};

/// `void mm_page_alloc(struct page *page, unsigned int order, gfp_t gfp_flags, int migratetype)`
#[btf_tracepoint(function = "mm_page_alloc")]
pub fn page_alloc(ctx: BtfTracePointContext) -> i32 {
    if is_ours(&ctx) {
        run(const { index("page-alloc") }, ctx.arg(0));
        allocated(&ctx);
    }
    0
}

#[btf_tracepoint(function = "mm_page_alloc")]
pub fn page_alloc_nested(ctx: BtfTracePointContext) -> i32 {
    let page: u64 = ctx.arg(0);
    // A page that is known to be alive has been counted.
    if is_ours(&ctx)
        && stand_in(const { index("page-alloc-nested") }, const { index("page-alloc") }, page)
        && LIVE_PAGES.get_ptr(&page).is_none()
    {
        allocated(&ctx);
    }
    0
}

/// Whether an allocation is to be recorded. Nearly all leave here, so this comes before everything else.
#[inline(always)]
fn is_ours(ctx: &BtfTracePointContext) -> bool {
    ctx.arg::<u32>(3) != conf!(migrate_movable) || conf!(all_pages) != 0
}

#[inline(always)]
fn allocated(ctx: &BtfTracePointContext) {
    let migratetype: u32 = ctx.arg(3);
    let page: *const u8 = ctx.arg(0);
    if page.is_null() {
        return;
    }
    let order: u32 = ctx.arg(1);
    let gfp: u32 = ctx.arg(2);
    let bytes = u64::from(conf!(page_size)) << (order & 31);

    // SAFETY: the current task's type is known to the verifier.
    let mut cgroup = unsafe { memory_cgroup_of(current_task()) };
    if !is_target(cgroup, current_tgid()) {
        cgroup = 0;
    }
    let stack = kernel_stack(ctx, gfp, order);
    let charged = if gfp & conf!(gfp_account) != 0 { PAGE_CHARGED } else { 0 };
    let key = PageKey { cgroup, stack, class: migratetype & 0xff | charged };

    let Some(totals) = row_of(&key) else {
        lost(LossKind::PageAggregates);
        return;
    };
    // SAFETY: a live map value.
    unsafe {
        add(&raw mut (*totals).allocs, 1);
        add(&raw mut (*totals).bytes_allocated, bytes);
    }
    let live = LivePage { key, bytes };
    let address = page as u64;
    let Some(entry) = LIVE_PAGES.get_ptr_mut(&address) else {
        if LIVE_PAGES.insert(&address, &live, 0).is_err() {
            lost(LossKind::LivePages);
        }
        return;
    };
    // An entry that is still there is of a page whose free nobody has noticed yet. Most often it was of the
    // same place, and its row is at hand.
    // SAFETY: live map values. Nobody else allocates this page, so nobody changes the entry meanwhile.
    unsafe {
        let before = *entry;
        if before.key == key {
            retire(totals, before.bytes)
        } else {
            retire_from(&before)
        }
        *entry = live;
    }
}

/// The row of `key`, made if there is none; `None` where the map is full.
#[inline(always)]
fn row_of(key: &PageKey) -> Option<*mut PageTotals> {
    if let Some(totals) = PAGE_AGGREGATES.get_ptr_mut(key) {
        return Some(totals);
    }
    // Another CPU may have made it since.
    let _ = PAGE_AGGREGATES.insert(key, &PageTotals::default(), u64::from(aya_ebpf::bindings::BPF_NOEXIST));
    PAGE_AGGREGATES.get_ptr_mut(key)
}

/// Counts an allocation as freed. One may be freed in parts (split_page); its owner frees all of them, so the
/// head page's free retires it whole.
///
/// # Safety
/// `totals` must be a live value of `PAGE_AGGREGATES`.
#[inline(always)]
unsafe fn retire(totals: *mut PageTotals, bytes: u64) {
    // SAFETY: by the caller's word.
    unsafe {
        add(&raw mut (*totals).frees, 1);
        add(&raw mut (*totals).bytes_freed, bytes);
    }
}

#[inline(always)]
fn retire_from(live: &LivePage) {
    if let Some(totals) = PAGE_AGGREGATES.get_ptr_mut(&live.key) {
        // SAFETY: a live map value.
        unsafe { retire(totals, live.bytes) };
    }
}

/// The kernel stack of an allocation; negative where none can be had.
///
/// Unwinding costs a microsecond and more, and allocations come in bursts from one place. One that a task
/// makes at the same depth of its kernel stack, entered from the same user instruction by the same system
/// call, for the same kind of page, has the stack of the one before. It is taken anew now and then all the
/// same, so that a coincidence cannot last.
#[inline(always)]
fn kernel_stack(ctx: &BtfTracePointContext, gfp: u32, order: u32) -> i32 {
    let Some(cache) = STACK_CACHE.get_ptr_mut(0) else { return take_stack(ctx) };
    let task = current_task();
    // SAFETY: the current task's type is known to the verifier, and so is that of its registers.
    let (user_ip, system_call): (u64, u32) = unsafe {
        let regs = bpf_task_pt_regs(task.cast_mut().cast()) as *const u8;
        (load(regs, conf!(regs_ip)), load(regs, conf!(regs_nr)))
    };
    let (task, depth) = (task as u64, ctx.as_ptr() as u64);
    // SAFETY (whole block): a per-CPU slot that the map keeps alive; this program does not interrupt itself.
    unsafe {
        let same = (*cache).task == task
            && (*cache).depth == depth
            && (*cache).user_ip == user_ip
            && (*cache).system_call == system_call
            && (*cache).gfp == gfp
            && (*cache).order == order;
        if same && (*cache).uses < STACK_USES {
            (*cache).uses += 1;
            return (*cache).stack;
        }
        let stack = take_stack(ctx);
        // A failure is not remembered: the next try may find room.
        *cache = StackCache {
            task: if stack < 0 { 0 } else { task },
            depth,
            user_ip,
            system_call,
            gfp,
            order,
            uses: 0,
            stack,
            reserved: 0,
        };
        stack
    }
}

/// Takes the kernel stack; negative where that fails, which is counted.
#[inline(always)]
fn take_stack(ctx: &BtfTracePointContext) -> i32 {
    // The kernel refuses a stack whose hash bucket holds another one. Leaving out an inner frame, which is
    // only ever this program's own, makes another hash of the same stack.
    for skipped_frames in 0..3u64 {
        // SAFETY: the context and the map are live; the helper checks the rest.
        let stack = unsafe { bpf_get_stackid(ctx.as_ptr(), KERNEL_STACKS.as_ptr(), skipped_frames) } as i32;
        if stack >= 0 {
            return stack;
        }
    }
    lost(LossKind::KernelStacks);
    -1
}

/// `void mm_page_free(struct page *page, unsigned int order)`
#[btf_tracepoint(function = "mm_page_free")]
pub fn page_free(ctx: BtfTracePointContext) -> i32 {
    let page: *const u8 = ctx.arg(0);
    // SAFETY: an argument of a BTF tracepoint.
    if unsafe { may_be_ours(page) } {
        run(const { index("page-free") }, page as u64);
        freed(page as u64);
    }
    0
}

#[btf_tracepoint(function = "mm_page_free")]
pub fn page_free_nested(ctx: BtfTracePointContext) -> i32 {
    let page: *const u8 = ctx.arg(0);
    // A page that has been retired is not found again.
    // SAFETY: an argument of a BTF tracepoint.
    if unsafe { may_be_ours(page) }
        && stand_in(const { index("page-free-nested") }, const { index("page-free") }, page as u64)
    {
        freed(page as u64);
    }
    0
}

/// Whether a freed page may have been recorded. User pages were marked up to date when they were filled and
/// still are when they are freed; kernel pages never are. This spares nearly every free the look-up.
///
/// # Safety
/// `page` must be a page pointer whose type the verifier knows.
#[inline(always)]
unsafe fn may_be_ours(page: *const u8) -> bool {
    if page.is_null() {
        return false;
    }
    // SAFETY: by the caller's word.
    let flags: u64 = unsafe { load(page, conf!(page_flags)) };
    flags & (1 << (conf!(flag_uptodate) & 63)) == 0 || conf!(all_pages) != 0
}

#[inline(always)]
fn freed(address: u64) {
    let Some(live) = LIVE_PAGES.get_ptr(&address) else { return };
    // SAFETY: a live map value. Nobody else frees this page, so nobody removes the entry meanwhile.
    retire_from(&unsafe { *live });
    let _ = LIVE_PAGES.remove(&address);
}

/// Retires pages that are no longer what they were allocated for. Run by user space; attached to nothing.
#[raw_tracepoint]
pub fn page_sweep(_ctx: RawTracePointContext) -> i32 {
    hit(const { index("page-sweep") });
    // SAFETY: a map of ours and a callback of the form that the helper wants.
    unsafe {
        bpf_for_each_map_elem(
            core::ptr::addr_of!(LIVE_PAGES).cast_mut().cast(),
            sweep_one as *mut c_void,
            core::ptr::null_mut(),
            0,
        )
    };
    0
}

/// `long callback(struct bpf_map *map, const void *key, void *value, void *ctx)`
extern "C" fn sweep_one(_map: *mut c_void, key: *const u64, _value: *mut LivePage, _ctx: *mut c_void) -> i64 {
    // SAFETY: the kernel hands over a key of the map.
    let page = unsafe { *key };
    if !in_use(page as *const u8) {
        freed(page);
    }
    0
}

/// Whether a page is still in a kernel allocation. Freed pages have no references, and user pages are up to
/// date: both tell that the page is no longer what it was. (A new kernel allocation of the same page has
/// replaced its entry already.)
#[inline(always)]
fn in_use(page: *const u8) -> bool {
    let (Some(flags), Some(head), Some(references), Some(kind)) = (
        probe::<u64>(page, conf!(page_flags)),
        probe::<u64>(page, conf!(page_head)),
        probe::<i32>(page, conf!(page_refcount)),
        probe::<u32>(page, conf!(page_type)),
    ) else {
        return false;
    };
    // Part of somebody else's larger page, or a page with contents that a process reads.
    if head & 1 != 0 || flags & (1 << (conf!(flag_uptodate) & 63)) != 0 {
        return false;
    }
    if references > 0 {
        return true;
    }
    // From 6.14 on some allocations (slab) hold pages without a reference; their type tells.
    let kind = kind >> 24;
    conf!(page_type_buddy) != NO_MEMBER
        && kind != conf!(page_type_buddy)
        && kind >= conf!(page_type_first)
        && kind < conf!(page_type_last)
}
