//! What could not be taken is counted, and what the kernel skipped is made good. In the object with messages there is a
//! line of the log about it, too.

use spark_trace_common::capacities::LossKind;

use crate::{
    maps::{EVENTS, LOSSES, RUNS, add, run},
    wake::{self, Patience},
};

/// Counts a loss of a [`LossKind`], or so many.
macro_rules! lost {
    ($kind:ident) => {
        lost!($kind, 1)
    };
    ($kind:ident, $losses:expr) => {{
        let losses: u64 = $losses;
        $crate::loss::count(spark_trace_common::capacities::LossKind::$kind, losses);
        #[cfg(feature = "messages")]
        $crate::loss::say_lost::<{ spark_trace_common::capacities::LossKind::$kind as u32 }>(losses);
    }};
}
pub(crate) use lost;

#[inline(always)]
pub(crate) fn count(kind: LossKind, losses: u64) {
    if let Some(count) = LOSSES.get_ptr_mut(kind as u32) {
        // SAFETY: a per-CPU slot that the map keeps alive; programs do not move between CPUs, but some preempt one another.
        unsafe { add(count, losses) };
    }
}

/// A function of its own, for it is large. `KIND`: the text of a message is a constant.
#[cfg(feature = "messages")]
#[inline(never)]
pub(crate) fn say_lost<const KIND: u32>(losses: u64) {
    let Some(count) = LOSSES.get_ptr(KIND) else { return };
    // SAFETY: as above.
    let counted = unsafe { *count };
    if is_worth_a_message(counted.wrapping_sub(losses), counted) {
        let kind = const { LossKind::ALL[KIND as usize] };
        aya_log_ebpf::debug!((), "lost {}: {}; {} on this CPU so far", kind.name(), kind.why(), counted);
    }
}

/// Sends an event, or counts its loss.
#[inline(always)]
pub(crate) fn send<T: Copy + 'static>(event: &T, patience: Patience) {
    if EVENTS.output::<T>(event, wake::flags(patience)).is_err() {
        lost!(Events);
    }
}

/// The address of `page` if the hook at `index` must do the work for it because the one at `original`, which
/// the kernel calls just before on this CPU, was skipped. An interrupt between the two can make it say yes
/// once too often, so that work must bear being done twice.
#[inline(always)]
pub(crate) fn stand_in(index: u32, original: u32, page: u64) -> Option<u64> {
    let done = RUNS.get_ptr(original)?;
    // SAFETY: as in `count`.
    let skipped = unsafe { (&raw const (*done).last).read_volatile() } != page;
    skipped.then(|| {
        let page = run(index, page);
        #[cfg(feature = "messages")]
        if let Some(run) = RUNS.get_ptr(index) {
            // SAFETY: as above.
            say_stood_in(index, unsafe { (*run).hits });
        }
        page
    })
}

/// The kernel has skipped a program, because one of the same kind ran on this CPU (its recursion guard), and the hook at
/// `index` of `HOOKS` does the work, for the `times`th time.
#[cfg(feature = "messages")]
#[inline(never)]
pub(crate) fn say_stood_in(index: u32, times: u64) {
    if is_worth_a_message(times.wrapping_sub(1), times) {
        aya_log_ebpf::trace!(
            (),
            "the kernel skipped a program; hook {} did its work, {} times on this CPU",
            index,
            times
        );
    }
}

/// A flood of losses is no flood of messages: they come where a count passes 1, 2, 4, ...
#[cfg(feature = "messages")]
#[inline(always)]
const fn is_worth_a_message(before: u64, after: u64) -> bool {
    // The highest bit is another one.
    (before ^ after) > before
}
