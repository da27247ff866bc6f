//! Cgroup memory accounting as it happens, by counter: profile `deep` only.
//!
//! Four events a page make this the dearest hook there is. It is for kernels whose cgroup files do not
//! split kernel memory (cgroup v1), and for watching the counters' provenance.

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};
use spark_trace_common::{event::ChargeKey, hook::index, map::LossKind};

use crate::{
    config::conf,
    maps::{CHARGES, add, hit, lost},
    read::load,
    target::{cgroup_id, is_target_cgroup},
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

/// # Safety
/// `memcg` must be a memory cgroup pointer whose type the verifier knows.
#[inline(always)]
unsafe fn count(memcg: *const u8, item: u32, value: i32, per_node: u32) -> i32 {
    if memcg.is_null() {
        return 0;
    }
    // SAFETY: pointers loaded from structures the verifier knows the type of.
    let cgroup = unsafe { cgroup_id(load(memcg, conf!(memcg_css) + conf!(css_cgroup))) };
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
            None => lost(LossKind::Charges),
        }
    }
    0
}
