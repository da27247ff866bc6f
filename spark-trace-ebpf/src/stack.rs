//! Kernel stacks.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::bpf_get_stackid;
use spark_trace_common::map::LossKind;

use crate::maps::{KERNEL_STACKS, lost};

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
    lost(LossKind::KernelStacks);
    -1
}
