//! Copies user stacks: code of C and C++ that keeps no frame pointers is unwound by its tables, which is work for user space.

use core::ffi::c_void;

use aya_ebpf::{
    bindings::{BPF_RB_NO_WAKEUP, pt_regs},
    helpers::{bpf_get_smp_processor_id, generated::bpf_probe_read_user},
};
use spark_trace_common::{
    capacities::{STACK_COPIES_A_SECOND, STACK_COPY_BYTES, STACK_COPY_PIECE},
    config::NO_MEMBER,
    stack_copy::StackCopy,
};

use crate::{
    config::conf,
    loss::lost,
    maps::{COPY_RATE, STACK_COPIES},
    rate::allows,
};

/// Whether the stack is wanted of what takes so many bytes.
#[inline(always)]
pub(crate) fn is_wanted_of(bytes: u64) -> bool {
    is_wanted() && bytes >= u64::from(conf!(unwind_min_4k)) << 12
}

/// Whether stacks are wanted at all.
#[inline(always)]
pub(crate) fn is_wanted() -> bool {
    conf!(unwind_min_4k) != NO_MEMBER
}

/// Copies the user stack of the current thread. Gives the copy's number; 0 where there is none.
///
/// # Safety
/// `regs` must be the registers with which the thread goes on in user space, of a type that the verifier knows.
#[inline(always)]
pub(crate) unsafe fn copy(regs: *const pt_regs) -> u64 {
    let Some(number) = next_number() else { return 0 };
    let Some(mut slot) = STACK_COPIES.reserve::<StackCopy>(0) else {
        lost!(StackCopies);
        return 0;
    };
    let copy = slot.as_mut_ptr();
    // SAFETY: the slot is ours until it is submitted; the registers by the caller's word. The helper checks user addresses.
    unsafe {
        (*copy).number = number;
        let stack_pointer = registers(regs, copy);
        let start = stack_pointer & !(STACK_COPY_PIECE as u64 - 1);
        (*copy).start = start;
        let mut length = 0;
        for piece in 0..STACK_COPY_BYTES / STACK_COPY_PIECE {
            let at = piece * STACK_COPY_PIECE;
            let to = (&raw mut (*copy).bytes).cast::<u8>().add(at).cast::<c_void>();
            let from = start.wrapping_add(at as u64) as *const c_void;
            if bpf_probe_read_user(to, STACK_COPY_PIECE as u32, from) != 0 {
                break;
            }
            length = (at + STACK_COPY_PIECE) as u64;
        }
        (*copy).length = length;
    }
    // The event that names it wakes the reader.
    slot.submit(u64::from(BPF_RB_NO_WAKEUP));
    number
}

/// A number that no other copy has, if this CPU may make one.
#[inline(always)]
fn next_number() -> Option<u64> {
    let rate = COPY_RATE.get_ptr_mut(0)?;
    // SAFETY: this CPU's slot.
    let Some(number) = (unsafe { allows(rate, STACK_COPIES_A_SECOND) }) else {
        lost!(StackCopies);
        return None;
    };
    // SAFETY: no arguments.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    Some((u64::from(cpu) + 1) << 40 | number)
}

/// Fills in the registers; gives the stack pointer.
///
/// # Safety
/// As for [`copy`]; `to` must point at a slot of the ring buffer.
#[cfg(bpf_target_arch = "x86_64")]
#[inline(always)]
unsafe fn registers(regs: *const pt_regs, to: *mut StackCopy) -> u64 {
    // SAFETY: by the caller's word. Volatile, so that each is one load at a constant offset.
    unsafe {
        let stack_pointer = (&raw const (*regs).rsp).read_volatile();
        (*to).instruction = (&raw const (*regs).rip).read_volatile();
        (*to).registers[3] = (&raw const (*regs).rbx).read_volatile();
        (*to).registers[6] = (&raw const (*regs).rbp).read_volatile();
        (*to).registers[7] = stack_pointer;
        (*to).registers[12] = (&raw const (*regs).r12).read_volatile();
        (*to).registers[13] = (&raw const (*regs).r13).read_volatile();
        (*to).registers[14] = (&raw const (*regs).r14).read_volatile();
        (*to).registers[15] = (&raw const (*regs).r15).read_volatile();
        stack_pointer
    }
}

/// # Safety
/// As above.
#[cfg(not(bpf_target_arch = "x86_64"))]
#[inline(always)]
unsafe fn registers(regs: *const pt_regs, to: *mut StackCopy) -> u64 {
    macro_rules! kept {
        ($($number:literal)+) => {
            $((*to).registers[$number] = (&raw const (*regs).regs[$number]).read_volatile();)+
        };
    }
    // SAFETY: as above.
    unsafe {
        let stack_pointer = (&raw const (*regs).sp).read_volatile();
        (*to).instruction = (&raw const (*regs).pc).read_volatile();
        kept!(19 20 21 22 23 24 25 26 27 28 29 30);
        (*to).registers[31] = stack_pointer;
        stack_pointer
    }
}
