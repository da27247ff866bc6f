//! Charges to a cgroup, as hooks on its page counter count them.

use super::{MIB, Recording, stack};
use spark_trace_recording::{ChargeLevel, ChargeStack};

/// Adds what `cgroup` was charged by the peak for anonymous memory and page cache, in MiB.
pub(super) fn add(recording: &mut Recording, cgroup: u64, anon: u64, cache: u64) {
    let paths: [(u64, &[&str]); 2] = [
        (anon, &["try_charge_memcg", "__mem_cgroup_charge", "do_anonymous_page", "handle_mm_fault"]),
        (cache, &["try_charge_memcg", "__mem_cgroup_charge", "filemap_add_folio", "page_cache_ra_unbounded"]),
    ];
    for (mib, frames) in paths {
        let stack = stack(&mut recording.provenance, "kernel", frames);
        recording.provenance.charge_stacks.push(ChargeStack {
            cgroup,
            stack: Some(stack),
            charges: mib * 4,
            bytes_charged: mib * MIB,
            charged: [Some(0), Some(mib * MIB), Some(mib * MIB)].into(),
        });
    }
    recording.provenance.charge_levels.push(ChargeLevel {
        cgroup,
        seed: Some(0),
        bytes_charged: (anon + cache) * MIB,
        bytes_uncharged: anon * MIB,
        ..ChargeLevel::default()
    });
    let series = &mut recording.samples.cgroups[0].series;
    let usage = series.columns["memory.current"].clone();
    for column in ["hooks.before", "hooks.after"] {
        series.columns.insert(column.into(), usage.clone());
    }
}
