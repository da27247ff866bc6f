//! Address space changes of the target: mmap, munmap, mremap, brk, madvise.
//!
//! At the return the arguments and the result are seen together, so nothing has to be remembered between entry and exit.
//! Large regions become events with their user stack; small ones are counted by process.

use core::ffi::c_void;

use aya_ebpf::{
    bindings::BPF_NOEXIST,
    helpers::{bpf_ktime_get_ns, bpf_probe_read_user, generated::bpf_get_stack},
};
use spark_trace_common::{
    capacities::USER_STACK_DEPTH,
    config::NO_MEMBER,
    event::{EventKind, MappingEvent, MappingOp},
    hook::index,
    map_records::{Heap, MappingTotals},
};

use super::memory_query::mapped_executable;
use crate::{
    config::conf,
    loss::lost,
    maps::{EVENTS, HEAPS, MAPPING_TOTALS, add, hit_of_several},
    read::load,
    stack_copy,
    target::{USER_STACK, is_beside},
    wake::{self, Patience},
};

/// include/uapi/asm-generic/mman-common.h
const PROT_EXEC: u64 = 0x4;
const MAP_ANONYMOUS: u64 = 0x20;

/// Whether a call failed, and so changed nothing (errors are -1 to -4095).
#[inline(always)]
pub(super) fn failed(result: i64) -> bool {
    (-4095..0).contains(&result)
}

/// The target's process `ids` has made the call `op`, with the registers `regs`; `count` counts what is too small for an
/// event.
///
/// # Safety
/// `ctx` must be the program's own, and `regs` a register pointer whose type the verifier knows.
#[inline(always)]
pub(super) unsafe fn changed(
    ctx: *mut c_void,
    regs: *const u8,
    (op, ret): (MappingOp, i64),
    ids: u64,
    count: impl FnOnce(MappingTotals),
) {
    let tgid = (ids >> 32) as u32;
    hit_of_several(const { index("mapping") });
    // SAFETY: by the caller's word.
    let (arg0, arg1, arg2, arg3): (u64, u64, u64, u64) = unsafe {
        (
            load(regs, conf!(regs_arg0)),
            load(regs, conf!(regs_arg1)),
            load(regs, conf!(regs_arg2)),
            load(regs, conf!(regs_arg3)),
        )
    };
    if op == MappingOp::Mmap && arg2 & PROT_EXEC != 0 && arg3 & MAP_ANONYMOUS == 0 {
        // SAFETY: as above.
        mapped_executable(unsafe { load(regs, conf!(regs_arg4)) }, tgid);
    }
    let min_region = u64::from(conf!(min_region_4k)) << 12;
    let (mut address, mut length, mut detail) = (arg0, arg1 as i64, 0);
    match op {
        MappingOp::Mmap => {
            address = ret as u64;
            detail = arg3;
            if arg1 < min_region {
                count(MappingTotals { mmap_calls: 1, mmap_bytes: arg1, ..MappingTotals::default() });
                return;
            }
        }
        MappingOp::Munmap => {
            if arg1 < min_region {
                count(MappingTotals { munmap_calls: 1, munmap_bytes: arg1, ..MappingTotals::default() });
                return;
            }
        }
        MappingOp::Mremap => {
            address = ret as u64;
            length = arg2 as i64;
            detail = arg1;
            if arg1 < min_region && arg2 < min_region {
                return;
            }
        }
        MappingOp::Madvise => {
            detail = arg2;
            if arg1 < min_region {
                return;
            }
        }
        MappingOp::Brk => {
            let end = ret as u64;
            let Some(reported) = heap_reported(tgid, end) else { return };
            if end.abs_diff(reported) < min_region {
                return;
            }
            let _ = HEAPS.insert(&tgid, &Heap { end, reported: end }, 0);
            address = end;
            length = end.wrapping_sub(reported) as i64;
        }
    }
    // Not with the question whose target it is, which a CPU remembers for as long as nothing is selected anew.
    if is_beside(tgid) {
        return;
    }
    let copy = if stack_copy::is_wanted_of(taken(op, length, detail)) {
        // SAFETY: by the caller's word: the registers with which the thread returns.
        unsafe { stack_copy::copy(regs.cast()) }
    } else {
        0
    };
    let Some(mut slot) = EVENTS.reserve::<MappingEvent>(0) else {
        lost!(Events);
        return;
    };
    let event = slot.as_mut_ptr();
    // SAFETY: the slot is ours until it is submitted, and every field of it is written.
    unsafe {
        (*event).kind = EventKind::Mapping as u32;
        (*event).op = op as u32;
        (*event).at_ns = bpf_ktime_get_ns();
        (*event).tgid = tgid;
        (*event).tid = ids as u32;
        (*event).address = address;
        (*event).length = length;
        (*event).detail = detail;
        (*event).prot = if op == MappingOp::Mmap { arg2 as u32 } else { 0 };
        (*event).caller = caller(regs);
        (*event).from = if op == MappingOp::Mremap { arg0 } else { 0 };
        (*event).copy = copy;
        let stack = (&raw mut (*event).stack).cast::<c_void>();
        let bytes = bpf_get_stack(ctx, stack, (8 * USER_STACK_DEPTH) as u32, USER_STACK);
        // Negative where there is none: the address space is going away.
        (*event).frames = if bytes > 0 { bytes as u32 / 8 } else { 0 };
    }
    slot.submit(wake::flags(Patience::Short));
}

/// Bytes of anonymous memory that a call makes room for.
#[inline(always)]
fn taken(op: MappingOp, length: i64, detail: u64) -> u64 {
    let bytes = match op {
        MappingOp::Mmap if detail & MAP_ANONYMOUS != 0 => length,
        MappingOp::Brk => length,
        MappingOp::Mremap => length.wrapping_sub(detail as i64),
        _ => 0,
    };
    if bytes > 0 { bytes as u64 } else { 0 }
}

/// Adds to the totals of a process.
#[inline(always)]
pub(super) fn add_totals(tgid: u32, counted: MappingTotals) {
    if MAPPING_TOTALS.get_ptr(&tgid).is_none() {
        let _ = MAPPING_TOTALS.insert(&tgid, &MappingTotals::default(), u64::from(BPF_NOEXIST));
    }
    match MAPPING_TOTALS.get_ptr_mut(&tgid) {
        // SAFETY: a live map value.
        Some(totals) => unsafe {
            add(&raw mut (*totals).mmap_calls, counted.mmap_calls);
            add(&raw mut (*totals).mmap_bytes, counted.mmap_bytes);
            add(&raw mut (*totals).munmap_calls, counted.munmap_calls);
            add(&raw mut (*totals).munmap_bytes, counted.munmap_bytes);
        },
        None => lost!(MappingTotals),
    }
}

/// Where the heap ended at its last event; the end itself where it is seen for the first time.
#[inline(always)]
fn heap_reported(tgid: u32, end: u64) -> Option<u64> {
    if let Some(heap) = HEAPS.get_ptr_mut(&tgid) {
        // SAFETY: a live map value; a heap has one end, and brk holds the address space's lock.
        return unsafe {
            (*heap).end = end;
            Some((*heap).reported)
        };
    }
    if HEAPS.insert(&tgid, &Heap { end, reported: end }, 0).is_err() {
        lost!(MappingTotals);
    }
    None
}

/// Where the system call's stub returns to, if it keeps no frame.
///
/// # Safety
/// `regs` must be a register pointer whose type the verifier knows.
#[inline(always)]
pub(super) unsafe fn caller(regs: *const u8) -> u64 {
    // SAFETY: by the caller's word; the helper checks the user address.
    unsafe {
        if conf!(regs_link) != NO_MEMBER {
            return load(regs, conf!(regs_link));
        }
        let sp: u64 = load(regs, conf!(regs_sp));
        bpf_probe_read_user(sp as *const u64).unwrap_or(0)
    }
}
