//! The state of the machine's memory at this moment, from the counters that /proc/meminfo is made of.
//!
//! The way there is by the current task's memory cgroup, which knows the memory nodes: their counters are in no
//! structure that a program could name. Read through the helper, since this is for rare events and must work in
//! every type of program.

use spark_trace_common::event::MemoryState;

use crate::{
    config::conf,
    read::probe,
    target::{cgroup_id_of, current_task},
};

/// Memory nodes and zones looked at: the verifier wants bounds. Machines with unified memory have one node.
const NODES: u32 = 8;
const ZONES: u32 = 8;

/// Reads the counters. Those of a node or zone lag behind by what CPUs have not yet added (some hundred pages
/// each), as /proc/meminfo does.
#[inline(always)]
pub(crate) fn memory_state() -> MemoryState {
    let mut state = MemoryState::default();
    let Some(memcg) = memory_cgroup() else { return state };
    state.cgroup = probe::<*const u8>(memcg, conf!(memcg_css) + conf!(css_cgroup)).map_or(0, cgroup_id_of);
    state.cgroup_usage = probe(memcg, conf!(memcg_usage)).unwrap_or(0);
    let mut n = 0;
    while n < NODES && n < conf!(nodes) {
        if let Some(node) = node(memcg, n) {
            add_node(&mut state, node);
            state.has = 1;
        }
        n += 1;
    }
    state
}

/// The current task's memory cgroup.
#[inline(always)]
fn memory_cgroup() -> Option<*const u8> {
    let css_set: *const u8 = probe(current_task(), conf!(task_cgroups))?;
    let css: *const u8 = probe(css_set, conf!(css_set_subsys) + 8 * conf!(memory_subsys))?;
    Some(css.wrapping_sub(conf!(memcg_css) as usize))
}

#[inline(always)]
fn node(memcg: *const u8, number: u32) -> Option<*const u8> {
    let part: *const u8 = probe(memcg, conf!(memcg_nodes) + 8 * number)?;
    probe::<*const u8>(part, conf!(memcg_node_data)).filter(|node| !node.is_null())
}

#[inline(always)]
fn add_node(state: &mut MemoryState, node: *const u8) {
    let count = |item: u32| probe::<i64>(node, conf!(node_stat) + 8 * item).unwrap_or(0);
    state.file += count(conf!(nr_file_pages));
    state.dirty += count(conf!(nr_file_dirty));
    state.writeback += count(conf!(nr_writeback));
    state.shmem += count(conf!(nr_shmem));
    state.anon += count(conf!(nr_anon));
    state.slab_reclaimable += count(conf!(nr_slab_reclaimable));
    let mut z = 0;
    while z < ZONES && z < conf!(node_zone_count) {
        let zone = conf!(node_zones) + z * conf!(zone_size);
        state.free += probe::<i64>(node, zone + conf!(zone_stat) + 8 * conf!(nr_free_pages)).unwrap_or(0);
        z += 1;
    }
}
