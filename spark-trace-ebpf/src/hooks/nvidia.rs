//! Requests to the NVIDIA kernel modules, from entry to return, and until their memory is freed.
//!
//! Page allocations say which pages the driver holds. These say what was requested of it, by whom, and what of that lives:
//! the difference is what it keeps for later. Names and arguments are those of the published source, from 570 to 595.

use aya_ebpf::{
    EbpfContext,
    helpers::bpf_get_current_pid_tgid,
    macros::{kprobe, kretprobe},
    programs::{ProbeContext, RetProbeContext},
};
use spark_trace_common::{
    hook::index,
    map_records::{DriverAlloc, DriverKey, DriverKind, DriverObject, DriverRow, PendingAlloc},
};

use super::driver_burst;
use crate::{
    config::conf,
    loss::lost,
    maps::{DRIVER_ALLOCS, DRIVER_ROWS, PENDING_ALLOCS, add, hit, row_of},
    read::probe,
    stack::{at_entry, stack_pointer, take_stack},
    target::{current_task, is_target, memory_cgroup_of},
};

/// `NV_STATUS nv_alloc_pages(nv_state_t *nv, NvU32 page_count, NvU64 page_size, NvBool contiguous, NvU32 cache_type,
/// NvBool zeroed, NvBool unencrypted, NvS32 node_id, NvU64 *pte_array, void **priv_data)`
#[kprobe]
pub fn nvidia_alloc_enter(ctx: ProbeContext) -> u32 {
    let pages: u32 = ctx.arg(1).unwrap_or(0);
    // The last two arguments lie on the stack: behind the return address and two others, or at once.
    let at = if cfg!(bpf_target_arch = "x86_64") { 24 } else { 0 };
    let [list, out] = probe(stack_pointer(ctx.regs) as *const u8, at).unwrap_or_default();
    let (page_bytes, contiguous): (u64, u8) = (ctx.arg(2).unwrap_or(0), ctx.arg(3).unwrap_or(1));
    if contiguous == 0 && page_bytes <= u64::from(conf!(page_size)) {
        driver_burst::begin();
    }
    let pages = u64::from(pages);
    let hook = const { index("nvidia-alloc") };
    enter(&ctx, hook, DriverKind::Sysmem, Request { bytes: bytes_of(pages), out, list, listed: pages })
}

#[kretprobe]
pub fn nvidia_alloc_return(ctx: RetProbeContext) -> u32 {
    let done = leave(&ctx);
    driver_burst::end(done.map(|call| (call.list, call.listed as u32)));
    0
}

/// `NV_STATUS nv_alloc_system_pages(nv_state_t *nv, nv_alloc_t *at)`
#[kprobe]
pub fn nvidia_pages_enter(_: ProbeContext) -> u32 {
    hit(const { index("nvidia-pages") });
    driver_burst::set_open(true);
    0
}

#[kretprobe]
pub fn nvidia_pages_return(_: RetProbeContext) -> u32 {
    driver_burst::set_open(false);
    0
}

/// `NV_STATUS nv_free_pages(nv_state_t *nv, NvU32 page_count, NvBool contiguous, NvU32 cache_type, void *priv_data)`
#[kprobe]
pub fn nvidia_free(ctx: ProbeContext) -> u32 {
    free(const { index("nvidia-free") }, DriverKind::Sysmem, ctx.arg(4))
}

/// `NV_STATUS os_lock_user_pages(void *address, NvU64 page_count, void **page_array, NvU32 flags)`
#[kprobe]
pub fn nvidia_pin_enter(ctx: ProbeContext) -> u32 {
    let bytes = bytes_of(ctx.arg(1).unwrap_or(0));
    let request = Request { bytes, out: ctx.arg(2).unwrap_or(0), ..Request::default() };
    enter(&ctx, const { index("nvidia-pin") }, DriverKind::Pinned, request)
}

#[kretprobe]
pub fn nvidia_pin_return(ctx: RetProbeContext) -> u32 {
    leave(&ctx);
    0
}

/// `NV_STATUS os_unlock_user_pages(NvU64 page_count, void *page_array, NvU32 flags)`
#[kprobe]
pub fn nvidia_unpin(ctx: ProbeContext) -> u32 {
    free(const { index("nvidia-unpin") }, DriverKind::Pinned, ctx.arg(1))
}

/// `NV_STATUS uvm_cpu_chunk_alloc(uvm_chunk_size_t alloc_size, uvm_cpu_chunk_alloc_flags_t flags, int nid,
/// uvm_cpu_chunk_t **new_chunk)`
#[kprobe]
pub fn managed_alloc_enter(ctx: ProbeContext) -> u32 {
    // An enumerator whose value is the size.
    let bytes: u32 = ctx.arg(0).unwrap_or(0);
    let request = Request { bytes: bytes.into(), out: ctx.arg(3).unwrap_or(0), ..Request::default() };
    enter(&ctx, const { index("managed-alloc") }, DriverKind::Managed, request)
}

#[kretprobe]
pub fn managed_alloc_return(ctx: RetProbeContext) -> u32 {
    leave(&ctx);
    0
}

/// `void uvm_cpu_chunk_free(uvm_cpu_chunk_t *chunk)`
#[kprobe]
pub fn managed_free(ctx: ProbeContext) -> u32 {
    free(const { index("managed-free") }, DriverKind::Managed, ctx.arg(0))
}

fn bytes_of(pages: u64) -> u64 {
    pages * u64::from(conf!(page_size))
}

/// What a call requests; see [`PendingAlloc`].
#[derive(Default)]
struct Request {
    bytes: u64,
    out: u64,
    list: u64,
    listed: u64,
}

#[inline(always)]
fn enter(ctx: &ProbeContext, hook: u32, kind: DriverKind, request: Request) -> u32 {
    hit(hook);
    let tgid = (bpf_get_current_pid_tgid() >> 32) as u32;
    // SAFETY: the current task's type is known to the verifier.
    let cgroup = unsafe { memory_cgroup_of(current_task()) };
    let (cgroup, tgid) = if is_target(cgroup, tgid) { (cgroup, tgid) } else { (0, 0) };
    let key = DriverKey { cgroup, tgid, stack: take_stack(ctx.as_ptr()), kind: kind as u32, reserved: 0 };
    let Request { bytes, out, list, listed } = request;
    let pending = PendingAlloc { alloc: DriverAlloc { key, bytes }, out, list, listed };
    if PENDING_ALLOCS.insert(&at_entry(ctx), &pending, 0).is_err() {
        lost!(DriverAllocs);
    }
    0
}

/// Counts a call that has returned; gives it where it has succeeded.
#[inline(always)]
fn leave(ctx: &RetProbeContext) -> Option<PendingAlloc> {
    let at = stack_pointer(ctx.regs);
    let Some(pending) = PENDING_ALLOCS.get_ptr(&at) else {
        lost!(DriverAllocs);
        return None;
    };
    // SAFETY: a live map value.
    let pending = unsafe { *pending };
    let _ = PENDING_ALLOCS.remove(&at);
    // NV_OK is 0.
    if ctx.ret::<u64>() as u32 != 0 {
        return None;
    }
    let alloc = pending.alloc;
    let address = probe(pending.out as *const u8, 0).unwrap_or(0);
    let object = DriverObject { address, kind: alloc.key.kind.into() };
    let (key, bytes) = (alloc.key, alloc.bytes);
    match row_of(&DRIVER_ROWS, &key, &DriverRow::default()) {
        // Without the object it would never be seen freed.
        Some(row) if address != 0 && DRIVER_ALLOCS.insert(&object, &alloc, 0).is_ok() => unsafe {
            // SAFETY: a live map value.
            add(&raw mut (*row).allocs, 1);
            add(&raw mut (*row).bytes_allocated, bytes);
        },
        _ => lost!(DriverAllocs),
    }
    Some(pending)
}

/// What was allocated before the trace is not known and has no row.
#[inline(always)]
fn free(hook: u32, kind: DriverKind, address: Option<u64>) -> u32 {
    let object = DriverObject { address: address.unwrap_or(0), kind: kind as u64 };
    let Some(alloc) = DRIVER_ALLOCS.get_ptr(&object) else { return 0 };
    hit(hook);
    // SAFETY: a live map value.
    let alloc = unsafe { *alloc };
    if DRIVER_ALLOCS.remove(&object).is_ok()
        && let Some(row) = DRIVER_ROWS.get_ptr_mut(&alloc.key)
    {
        // SAFETY: a live map value.
        unsafe {
            add(&raw mut (*row).frees, 1);
            add(&raw mut (*row).bytes_freed, alloc.bytes);
        }
    }
    0
}
