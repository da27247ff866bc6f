//! Kernel stacks, and what names a call of a kernel function from its entry to its return.

use core::ffi::c_void;

use aya_ebpf::{bindings::pt_regs, helpers::generated::bpf_get_stackid, programs::ProbeContext};

use crate::{loss::lost, maps::KERNEL_STACKS};

/// Takes the kernel stack; negative where that fails, which is counted.
#[inline(always)]
pub(crate) fn take_stack(ctx: *mut c_void) -> i32 {
    // The kernel refuses a stack whose hash bucket holds another one. Leaving out an inner frame, which is
    // only ever this program's own, makes another hash of the same stack.
    for skipped_frames in 0..3u64 {
        // SAFETY: the context and the map are live; the helper checks the rest.
        let stack = unsafe { bpf_get_stackid(ctx, KERNEL_STACKS.as_ptr(), skipped_frames) } as i32;
        if stack >= 0 {
            return stack;
        }
    }
    lost!(KernelStacks);
    -1
}

/// What the stack pointer will be at the return of the function that is entered. It names a call under way among all
/// of the machine: tasks and interrupts have stacks of their own.
#[inline(always)]
pub(crate) fn at_entry(ctx: &ProbeContext) -> u64 {
    // The return address lies on the stack; elsewhere it is in a register.
    let pushed = if cfg!(bpf_target_arch = "x86_64") { 8 } else { 0 };
    stack_pointer(ctx.regs) + pushed
}

#[inline(always)]
pub(crate) fn stack_pointer(regs: *const pt_regs) -> u64 {
    // SAFETY: the program's own context.
    unsafe {
        #[cfg(bpf_target_arch = "x86_64")]
        return (*regs).rsp;
        #[cfg(not(bpf_target_arch = "x86_64"))]
        return (*regs).sp;
    }
}
