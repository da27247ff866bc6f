//! When the reader of the event buffer is woken.
//!
//! A wake-up costs the traced program an interrupt to itself (kernel/bpf/ringbuf.c bpf_ringbuf_commit queues irq_work) and
//! the reader a switch, several times what an event costs. So one wake-up serves all events of some milliseconds, but for
//! those that somebody waits for. The kernel's own rule (flags 0) wakes only where everything before has been read, so that
//! an event behind one that woke nobody would wake nobody either: here each event wakes by force or not at all.

use aya_ebpf::{
    bindings::{BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP, BPF_RB_RING_SIZE},
    helpers::bpf_ktime_get_ns,
};
use spark_trace_common::capacities::{WAKE_EVERY_NS, WAKE_FULL_EVERY_NS};

use crate::maps::{EVENTS, WOKEN};

/// How long an event may lie in the buffer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Patience {
    /// Somebody waits for it, or what it is about may be gone at once.
    None,
    /// Some milliseconds.
    Short,
    /// Until the next reading, unless the buffer is getting full.
    Long,
}

/// The flags with which an event is submitted.
#[inline(always)]
pub(crate) fn flags(patience: Patience) -> u64 {
    if patience == Patience::None || is_time(patience) {
        u64::from(BPF_RB_FORCE_WAKEUP)
    } else {
        u64::from(BPF_RB_NO_WAKEUP)
    }
}

/// Whether the last wake-up is long past, or not just past while the buffer is getting full.
#[inline(always)]
fn is_time(patience: Patience) -> bool {
    let Some(woken) = WOKEN.get_ptr_mut(0) else { return true };
    // SAFETY: no arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    // SAFETY: a live map value. Where two CPUs meet there is one wake-up more.
    let before = unsafe { woken.read_volatile() };
    // Another CPU's time may be the later one.
    let since = now.saturating_sub(before);
    let is_time =
        patience == Patience::Short && since >= WAKE_EVERY_NS || since >= WAKE_FULL_EVERY_NS && is_filling();
    if is_time {
        // SAFETY: as above.
        unsafe { woken.write_volatile(now) };
    }
    is_time
}

#[inline(always)]
fn is_filling() -> bool {
    EVENTS.query(u64::from(BPF_RB_AVAIL_DATA)) > EVENTS.query(u64::from(BPF_RB_RING_SIZE)) / 4
}
