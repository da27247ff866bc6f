//! Cgroups of the memory hierarchy: created, removed, populated, emptied.
//!
//! Selection happens here, in the kernel, as a cgroup is created: a child of a selected cgroup is
//! selected, and while a client of a container engine that the target has started is at work every new cgroup is. Nothing
//! the container's first process does can be missed; user space drops what turns out to be somebody else's.

use aya_ebpf::{
    helpers::{bpf_ktime_get_ns, generated::bpf_probe_read_kernel_str},
    macros::btf_tracepoint,
    programs::BtfTracePointContext,
};
use spark_trace_common::{
    config::NO_MEMBER,
    event::{CGROUP_PATH_LEN, CgroupEvent, CgroupOp, EventKind},
    hook::index,
};

use crate::{
    config::conf,
    loss::lost,
    maps::{EVENTS, hit},
    read::probe,
    target::{awaits_container, cgroup_id_of, is_target_cgroup, select_cgroup},
    wake::{self, Patience},
};

/// `void cgroup_mkdir(struct cgroup *cgrp, const char *path)`
#[btf_tracepoint(function = "cgroup_mkdir")]
pub fn cgroup_mkdir(ctx: BtfTracePointContext) -> i32 {
    hit(const { index("cgroup-mkdir") });
    report(CgroupOp::Mkdir, ctx.arg(0), ctx.arg(1), 0)
}

/// `void cgroup_rmdir(struct cgroup *cgrp, const char *path)`
#[btf_tracepoint(function = "cgroup_rmdir")]
pub fn cgroup_rmdir(ctx: BtfTracePointContext) -> i32 {
    hit(const { index("cgroup-rmdir") });
    report(CgroupOp::Rmdir, ctx.arg(0), ctx.arg(1), 0)
}

/// `void cgroup_notify_populated(struct cgroup *cgrp, const char *path, int val)`
#[btf_tracepoint(function = "cgroup_notify_populated")]
pub fn cgroup_populated(ctx: BtfTracePointContext) -> i32 {
    hit(const { index("cgroup-populated") });
    report(CgroupOp::Populated, ctx.arg(0), ctx.arg(1), ctx.arg(2))
}

#[inline(always)]
fn report(op: CgroupOp, cgroup: *const u8, path: *const u8, populated: u32) -> i32 {
    if cgroup.is_null() {
        return 0;
    }
    let hierarchy = probe::<*const u8>(cgroup, conf!(cgroup_root))
        .and_then(|root| probe::<u32>(root, conf!(cgroup_root_hierarchy)));
    if hierarchy != Some(conf!(memory_hierarchy)) {
        return 0;
    }
    let id = cgroup_id_of(cgroup);
    let parent = probe::<*const u8>(cgroup, conf!(cgroup_self) + conf!(css_parent))
        .and_then(|css| probe(css, conf!(css_cgroup)))
        .map_or(0, cgroup_id_of);
    if op == CgroupOp::Mkdir {
        if awaits_container() || is_target_cgroup(parent) {
            select_cgroup(id);
        }
    }
    let target = is_target_cgroup(id);
    if op == CgroupOp::Populated && !target {
        return 0;
    }
    let Some(mut slot) = EVENTS.reserve::<CgroupEvent>(0) else {
        lost!(Events);
        return 0;
    };
    let event = slot.as_mut_ptr();
    // SAFETY (whole block): the slot is ours until it is submitted, and every field of it is written: of the path no more is
    // read than up to its NUL. The helper checks the address. The memory controller's state begins with its css.
    unsafe {
        (*event).kind = EventKind::Cgroup as u32;
        (*event).op = op as u32;
        (*event).at_ns = bpf_ktime_get_ns();
        (*event).id = id;
        (*event).parent = parent;
        (*event).target = u32::from(target);
        (*event).populated = populated;
        (*event).usage_pages = 0;
        (*event).peak_pages = 0;
        (*event).has_usage = 0;
        (*event).oom_kills = 0;
        (*event).has_oom_kills = 0;
        let css = probe::<*const u8>(cgroup, conf!(cgroup_subsys) + 8 * conf!(memory_subsys));
        if let Some(css) = css.filter(|css| !css.is_null()) {
            let memcg = css.wrapping_sub(conf!(memcg_css) as usize);
            if let (Some(usage), Some(peak)) =
                (probe::<u64>(memcg, conf!(memcg_usage)), probe::<u64>(memcg, conf!(memcg_watermark)))
            {
                (*event).usage_pages = usage;
                (*event).peak_pages = peak;
                (*event).has_usage = 1;
            }
            if conf!(memcg_oom_kills) != NO_MEMBER {
                if let Some(kills) = probe::<u64>(memcg, conf!(memcg_oom_kills)) {
                    (*event).oom_kills = kills;
                    (*event).has_oom_kills = 1;
                }
            }
        }
        (*event).path[0] = 0;
        bpf_probe_read_kernel_str((&raw mut (*event).path).cast(), CGROUP_PATH_LEN as u32, path.cast());
    }
    // It may be removed at once.
    slot.submit(wake::flags(Patience::None));
    0
}
