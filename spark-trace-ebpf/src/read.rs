//! Reading kernel structures at offsets known only when the object is loaded.

use aya_ebpf::helpers::bpf_probe_read_kernel;
use spark_trace_common::config::NO_MEMBER;

/// Loads a `T` at `base + offset` directly.
///
/// The verifier checks the access: `base` must be a pointer whose BTF type it knows (an argument of a
/// BTF tracepoint, or what was loaded from one), and `offset` a constant. It costs one instruction, and
/// a bad pointer reads as zero.
///
/// # Safety
/// `base` must be such a pointer. The verifier rejects the program otherwise.
#[inline(always)]
pub(crate) unsafe fn load<T: Copy>(base: *const u8, offset: u32) -> T {
    // SAFETY: checked by the verifier, see above.
    unsafe { core::ptr::read_volatile(base.add(offset as usize).cast::<T>()) }
}

/// Reads a `T` at `base + offset` through the helper, for addresses whose type the verifier does not know.
///
/// Also for pointers in structures of known type where that is rare: for each such load and each way that leads to it the
/// verifier searches all types of the kernel by name, four times (kernel/bpf/verifier.c check_ptr_to_btf_access,
/// btf_nested_type_is_trusted), a millisecond of the start.
#[inline(always)]
pub(crate) fn probe<T>(base: *const u8, offset: u32) -> Option<T> {
    if base.is_null() || offset == NO_MEMBER {
        return None;
    }
    // SAFETY: the helper checks the address and fails on a bad one.
    unsafe { bpf_probe_read_kernel(base.wrapping_add(offset as usize).cast::<T>()) }.ok()
}
