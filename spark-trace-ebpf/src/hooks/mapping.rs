//! Address space changes of the target: mmap, munmap, mremap, brk, madvise.
//!
//! One program at system call exit sees the arguments and the result together, so nothing has to be
//! remembered between entry and exit. Large regions become events with their user stack; small ones are
//! counted by process.

use aya_ebpf::{
    EbpfContext,
    bindings::BPF_NOEXIST,
    helpers::{bpf_get_current_pid_tgid, bpf_ktime_get_ns, bpf_probe_read_user, generated::bpf_get_stackid},
    macros::btf_tracepoint,
    programs::BtfTracePointContext,
};
use spark_trace_common::{
    config::NO_MEMBER,
    event::{EventKind, Heap, MappingCache, MappingEvent, MappingOp, MappingTotals},
    hook::index,
    map::LossKind,
};

use crate::{
    config::conf,
    maps::{HEAPS, MAPPING_CACHE, MAPPING_TOTALS, USER_STACKS, add, generation, hit, lost, send},
    read::load,
    target::{current_task, is_target, memory_cgroup_of},
};

/// Take the user stack, not the kernel's (include/uapi/linux/bpf.h BPF_F_USER_STACK).
const USER_STACK: u64 = 1 << 8;

/// `void sys_exit(struct pt_regs *regs, long ret)`
#[btf_tracepoint(function = "sys_exit")]
pub fn mapping(ctx: BtfTracePointContext) -> i32 {
    let regs: *const u8 = ctx.arg(0);
    // SAFETY: an argument of a BTF tracepoint.
    let nr: u32 = unsafe { load(regs, conf!(regs_nr)) };
    let op = if nr == conf!(sys_mmap) {
        MappingOp::Mmap
    } else if nr == conf!(sys_munmap) {
        MappingOp::Munmap
    } else if nr == conf!(sys_brk) {
        MappingOp::Brk
    } else if nr == conf!(sys_mremap) {
        MappingOp::Mremap
    } else if nr == conf!(sys_madvise) {
        MappingOp::Madvise
    } else {
        return 0;
    };
    let ret: i64 = ctx.arg(1);
    // Failed calls changed nothing (errors are -1 to -4095).
    if (-4095..0).contains(&ret) {
        return 0;
    }
    let ids = bpf_get_current_pid_tgid();
    let tgid = (ids >> 32) as u32;
    let Some(cache) = cache_of(tgid) else { return 0 };
    hit(const { index("mapping") });
    // SAFETY: an argument of a BTF tracepoint.
    let (arg0, arg1, arg2, arg3): (u64, u64, u64, u64) = unsafe {
        (
            load(regs, conf!(regs_arg0)),
            load(regs, conf!(regs_arg1)),
            load(regs, conf!(regs_arg2)),
            load(regs, conf!(regs_arg3)),
        )
    };
    let min_region = u64::from(conf!(min_region_4k)) << 12;
    let mut event = MappingEvent {
        kind: EventKind::Mapping as u32,
        op: op as u32,
        at_ns: 0,
        tgid,
        tid: ids as u32,
        address: arg0,
        length: arg1 as i64,
        detail: 0,
        prot: 0,
        stack: -1,
        caller: 0,
    };
    match op {
        MappingOp::Mmap => {
            event.address = ret as u64;
            event.prot = arg2 as u32;
            event.detail = arg3;
            if arg1 < min_region {
                // SAFETY: a per-CPU slot that the map keeps alive; programs do not move between CPUs.
                unsafe {
                    (*cache).counted.mmap_calls += 1;
                    (*cache).counted.mmap_bytes += arg1;
                }
                return 0;
            }
        }
        MappingOp::Munmap => {
            if arg1 < min_region {
                // SAFETY: as above.
                unsafe {
                    (*cache).counted.munmap_calls += 1;
                    (*cache).counted.munmap_bytes += arg1;
                }
                return 0;
            }
        }
        MappingOp::Mremap => {
            event.address = ret as u64;
            event.length = arg2 as i64;
            event.detail = arg1;
            if arg1 < min_region && arg2 < min_region {
                return 0;
            }
        }
        MappingOp::Madvise => {
            event.detail = arg2;
            if arg1 < min_region {
                return 0;
            }
        }
        MappingOp::Brk => {
            let end = ret as u64;
            let Some(told) = heap_told(tgid, end) else { return 0 };
            if end.abs_diff(told) < min_region {
                return 0;
            }
            let _ = HEAPS.insert(&tgid, &Heap { end, told: end }, 0);
            event.address = end;
            event.length = end.wrapping_sub(told) as i64;
        }
    }
    // SAFETY: no arguments; then the context and the map are live and the helper checks the rest.
    unsafe {
        event.at_ns = bpf_ktime_get_ns();
        event.stack = bpf_get_stackid(ctx.as_ptr(), USER_STACKS.as_ptr(), USER_STACK) as i32;
    }
    if event.stack < 0 {
        lost(LossKind::UserStacks);
    }
    // SAFETY: an argument of a BTF tracepoint.
    event.caller = unsafe { caller(regs) };
    send(&event);
    0
}

/// This CPU's cache, filled for the current task; `None` where that is not of the target.
#[inline(always)]
fn cache_of(tgid: u32) -> Option<*mut MappingCache> {
    let cache = MAPPING_CACHE.get_ptr_mut(0)?;
    let task = current_task();
    // SAFETY: the current task's type is known to the verifier.
    let css_set: u64 = unsafe { load(task, conf!(task_cgroups)) };
    let generation = generation();
    // SAFETY (whole block): a per-CPU slot that the map keeps alive; programs do not move between CPUs.
    unsafe {
        if (*cache).css_set != css_set || (*cache).tgid != tgid || (*cache).generation != generation {
            settle(cache);
            (*cache).css_set = css_set;
            (*cache).tgid = tgid;
            (*cache).generation = generation;
            (*cache).target = u32::from(is_target(memory_cgroup_of(task), tgid));
        }
        ((*cache).target != 0).then_some(cache)
    }
}

/// Adds what a CPU has counted to the totals of the process it was counted for.
///
/// # Safety
/// `cache` must be this CPU's slot.
#[inline(always)]
unsafe fn settle(cache: *mut MappingCache) {
    // SAFETY: by the caller's word.
    let MappingCache { tgid, counted, .. } = unsafe { *cache };
    if counted.mmap_calls == 0 && counted.munmap_calls == 0 {
        return;
    }
    if MAPPING_TOTALS.get_ptr(&tgid).is_none() {
        let _ = MAPPING_TOTALS.insert(&tgid, &MappingTotals::default(), u64::from(BPF_NOEXIST));
    }
    match MAPPING_TOTALS.get_ptr_mut(&tgid) {
        // SAFETY: a live map value, and this CPU's slot.
        Some(totals) => unsafe {
            add(&raw mut (*totals).mmap_calls, counted.mmap_calls);
            add(&raw mut (*totals).mmap_bytes, counted.mmap_bytes);
            add(&raw mut (*totals).munmap_calls, counted.munmap_calls);
            add(&raw mut (*totals).munmap_bytes, counted.munmap_bytes);
        },
        None => lost(LossKind::MappingTotals),
    }
    // SAFETY: by the caller's word.
    unsafe { (*cache).counted = MappingTotals::default() };
}

/// Where the heap ended when an event last told of it; the end itself where it is seen for the first time.
#[inline(always)]
fn heap_told(tgid: u32, end: u64) -> Option<u64> {
    if let Some(heap) = HEAPS.get_ptr_mut(&tgid) {
        // SAFETY: a live map value; a heap has one end, and brk holds the address space's lock.
        return unsafe {
            (*heap).end = end;
            Some((*heap).told)
        };
    }
    if HEAPS.insert(&tgid, &Heap { end, told: end }, 0).is_err() {
        lost(LossKind::MappingTotals);
    }
    None
}

/// Where the system call's stub returns to, if it keeps no frame.
///
/// # Safety
/// `regs` must be a register pointer whose type the verifier knows.
#[inline(always)]
unsafe fn caller(regs: *const u8) -> u64 {
    // SAFETY: by the caller's word; the helper checks the user address.
    unsafe {
        if conf!(regs_link) != NO_MEMBER {
            return load(regs, conf!(regs_link));
        }
        let sp: u64 = load(regs, conf!(regs_sp));
        bpf_probe_read_user(sp as *const u64).unwrap_or(0)
    }
}
