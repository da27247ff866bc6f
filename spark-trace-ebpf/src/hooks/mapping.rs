//! Address space changes of the target: mmap, munmap, mremap, brk, madvise.
//!
//! One program at system call exit sees the arguments and the result together, so nothing has to be
//! remembered between entry and exit. Large regions become events with their user stack; small ones are
//! counted by process.

use aya_ebpf::{
    EbpfContext,
    helpers::{bpf_get_current_pid_tgid, bpf_ktime_get_ns, bpf_probe_read_user, generated::bpf_get_stackid},
    macros::btf_tracepoint,
    programs::BtfTracePointContext,
};
use spark_trace_common::{
    config::NO_MEMBER,
    event::{EventKind, MappingEvent, MappingOp, MappingTotals},
    hook::index,
    map::LossKind,
};

use crate::{
    config::conf,
    maps::{MAPPING_TOTALS, USER_STACKS, hit, lost, send},
    read::load,
    target::{current_task, is_target, memory_cgroup_of},
};

/// Take the user stack, not the kernel's (include/uapi/linux/bpf.h BPF_F_USER_STACK).
const USER_STACK: u64 = 1 << 8;

/// `void sys_exit(struct pt_regs *regs, long ret)`
#[btf_tracepoint(function = "sys_exit")]
pub fn mapping(ctx: BtfTracePointContext) -> i32 {
    hit(const { index("mapping") });
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
    // SAFETY: the current task's type is known to the verifier.
    if !is_target(unsafe { memory_cgroup_of(current_task()) }, tgid) {
        return 0;
    }
    // SAFETY: an argument of a BTF tracepoint.
    let (arg0, arg1, arg2, arg3): (u64, u64, u64, u64) = unsafe {
        (
            load(regs, conf!(regs_arg0)),
            load(regs, conf!(regs_arg1)),
            load(regs, conf!(regs_arg2)),
            load(regs, conf!(regs_arg3)),
        )
    };
    let Some(totals) = totals_of(tgid) else { return 0 };
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
    // SAFETY (whole match): `totals` is a live map value. Threads of one process may race on it: these
    // are counts of small mappings, and a lost addition of one is below their meaning.
    match op {
        MappingOp::Mmap => {
            event.address = ret as u64;
            event.prot = arg2 as u32;
            event.detail = arg3;
            if arg1 < min_region {
                unsafe {
                    (*totals).mmap_calls += 1;
                    (*totals).mmap_bytes += arg1;
                }
                return 0;
            }
        }
        MappingOp::Munmap => {
            if arg1 < min_region {
                unsafe {
                    (*totals).munmap_calls += 1;
                    (*totals).munmap_bytes += arg1;
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
            let told = unsafe {
                (*totals).brk = end;
                if (*totals).brk_told == 0 {
                    (*totals).brk_told = end;
                }
                (*totals).brk_told
            };
            if end.abs_diff(told) < min_region {
                return 0;
            }
            unsafe { (*totals).brk_told = end };
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

#[inline(always)]
fn totals_of(tgid: u32) -> Option<*mut MappingTotals> {
    if let Some(totals) = MAPPING_TOTALS.get_ptr_mut(&tgid) {
        return Some(totals);
    }
    let _ =
        MAPPING_TOTALS.insert(&tgid, &MappingTotals::default(), u64::from(aya_ebpf::bindings::BPF_NOEXIST));
    let totals = MAPPING_TOTALS.get_ptr_mut(&tgid);
    if totals.is_none() {
        lost(LossKind::MappingTotals);
    }
    totals
}
