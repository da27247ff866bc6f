//! Cgroup memory accounting as it happens, by counter: profile `deep` only.
//!
//! Four events a page make this the dearest hook there is. It is for kernels whose cgroup files do not
//! split kernel memory (cgroup v1), and for watching the counters' provenance.
//!
//! The tracepoints (from 6.13 on) hand over pages, whatever unit a counter has; the functions that they are in hand
//! over the counter's own unit. User space knows which of them carried the hook.

use aya_ebpf::{
    macros::{btf_tracepoint, fentry, kprobe},
    programs::{BtfTracePointContext, FEntryContext, ProbeContext},
};
use spark_trace_common::{hook::index, map_records::ChargeKey};

use crate::{
    config::conf,
    loss::lost,
    maps::{CHARGES, add, hit},
    read::{load, probe},
    target::{cgroup_id, cgroup_id_of, is_target_cgroup},
};

/// `void mod_memcg_state(struct mem_cgroup *memcg, int item, int val)`; the last is a long from 7.0 on.
#[btf_tracepoint(function = "mod_memcg_state")]
pub fn charge_state(ctx: BtfTracePointContext) -> i32 {
    hit(const { index("charge") });
    // SAFETY: an argument of a BTF tracepoint.
    unsafe { count(ctx.arg(0), ctx.arg(1), ctx.arg(2), 0) }
}

/// `void mod_memcg_lruvec_state(struct mem_cgroup *memcg, int item, int val)`
#[btf_tracepoint(function = "mod_memcg_lruvec_state")]
pub fn charge_node_state(ctx: BtfTracePointContext) -> i32 {
    hit(const { index("charge-node") });
    // SAFETY: an argument of a BTF tracepoint.
    unsafe { count(ctx.arg(0), ctx.arg(1), ctx.arg(2), 1) }
}

/// `void __mod_memcg_state(struct mem_cgroup *memcg, int item, int val)`
#[fentry(function = "__mod_memcg_state")]
pub fn charge_state_function(ctx: FEntryContext) -> i32 {
    hit(const { index("charge") });
    // SAFETY: an argument of a function, with its type.
    unsafe { count(ctx.arg(0), ctx.arg(1), ctx.arg(2), 0) }
}

#[kprobe]
pub fn charge_state_probe(ctx: ProbeContext) -> u32 {
    hit(const { index("charge") });
    let memcg: u64 = ctx.arg(0).unwrap_or(0);
    count_address(memcg as *const u8, ctx.arg(1).unwrap_or(0), ctx.arg(2).unwrap_or(0), 0) as u32
}

/// `void __mod_memcg_lruvec_state(struct lruvec *lruvec, enum node_stat_item item, int val)`; from 7.0 on the first is
/// the `struct mem_cgroup_per_node` that the `lruvec` is part of.
#[fentry(function = "__mod_memcg_lruvec_state")]
pub fn charge_node_state_function(ctx: FEntryContext) -> i32 {
    hit(const { index("charge-node") });
    let node: *const u8 = ctx.arg(0);
    match probe(node.wrapping_sub(conf!(node_argument) as usize), conf!(node_memcg)) {
        Some(memcg) => count_address(memcg, ctx.arg(1), ctx.arg(2), 1),
        None => 0,
    }
}

#[kprobe]
pub fn charge_node_state_probe(ctx: ProbeContext) -> u32 {
    hit(const { index("charge-node") });
    let node: u64 = ctx.arg(0).unwrap_or(0);
    let node = node.wrapping_sub(u64::from(conf!(node_argument))) as *const u8;
    let Some(memcg) = probe(node, conf!(node_memcg)) else { return 0 };
    count_address(memcg, ctx.arg(1).unwrap_or(0), ctx.arg(2).unwrap_or(0), 1) as u32
}

/// Counts for a memory cgroup of which only the address is known.
#[inline(always)]
fn count_address(memcg: *const u8, item: u32, value: i32, per_node: u32) -> i32 {
    match probe(memcg, conf!(memcg_css) + conf!(css_cgroup)).map(cgroup_id_of) {
        Some(cgroup) => add_to(cgroup, item, value, per_node),
        None => 0,
    }
}

/// # Safety
/// `memcg` must be a memory cgroup pointer whose type the verifier knows.
#[inline(always)]
unsafe fn count(memcg: *const u8, item: u32, value: i32, per_node: u32) -> i32 {
    if memcg.is_null() {
        return 0;
    }
    // SAFETY: pointers loaded from structures the verifier knows the type of.
    let cgroup = unsafe { cgroup_id(load(memcg, conf!(memcg_css) + conf!(css_cgroup))) };
    add_to(cgroup, item, value, per_node)
}

#[inline(always)]
fn add_to(cgroup: u64, item: u32, value: i32, per_node: u32) -> i32 {
    if conf!(whole_system) == 0 && !is_target_cgroup(cgroup) {
        return 0;
    }
    let key = ChargeKey { cgroup, item, per_node };
    // Two's complement: adding a negative number as u64 subtracts.
    let delta = i64::from(value) as u64;
    if let Some(net) = CHARGES.get_ptr_mut(&key) {
        // SAFETY: a live map value.
        unsafe { add(net, delta) };
    } else if CHARGES.insert(&key, &delta, u64::from(aya_ebpf::bindings::BPF_NOEXIST)).is_err() {
        match CHARGES.get_ptr_mut(&key) {
            // SAFETY: a live map value.
            Some(net) => unsafe { add(net, delta) },
            None => lost!(Charges),
        }
    }
    0
}
