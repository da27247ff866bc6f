//! Limits by the second, for what is too dear to be done at each event.

use aya_ebpf::helpers::bpf_ktime_get_ns;
use spark_trace_common::map_records::Rate;

use crate::maps::next;

const NS_A_SECOND: u64 = 1_000_000_000;

/// Counts that this CPU does once more what it may do `most` times a second. Gives a number that it gives to nothing else, also
/// where one program interrupts another; `None` if it may not.
///
/// # Safety
/// `rate` must be this CPU's slot of a per-CPU map: the map keeps it alive, and programs do not move between CPUs.
#[inline(always)]
pub(crate) unsafe fn allows(rate: *mut Rate, most: u64) -> Option<u64> {
    // SAFETY: by the caller's word; the helper takes no arguments.
    unsafe {
        let second = bpf_ktime_get_ns() / NS_A_SECOND;
        if (*rate).second != second {
            (*rate).second = second;
            (*rate).taken = 0;
        }
        if (*rate).taken >= most {
            return None;
        }
        (*rate).taken += 1;
        Some(next(&raw mut (*rate).all))
    }
}
