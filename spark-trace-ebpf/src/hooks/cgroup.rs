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
    loss::send,
    maps::hit,
    read::load,
    target::{awaits_container, cgroup_id, is_target_cgroup, select_cgroup},
};

/// `void cgroup_mkdir(struct cgroup *cgrp, const char *path)`
#[btf_tracepoint(function = "cgroup_mkdir")]
pub fn cgroup_mkdir(ctx: BtfTracePointContext) -> i32 {
    hit(const { index("cgroup-mkdir") });
    // SAFETY: an argument of a BTF tracepoint.
    unsafe { report(CgroupOp::Mkdir, ctx.arg(0), ctx.arg(1), 0) }
}

/// `void cgroup_rmdir(struct cgroup *cgrp, const char *path)`
#[btf_tracepoint(function = "cgroup_rmdir")]
pub fn cgroup_rmdir(ctx: BtfTracePointContext) -> i32 {
    hit(const { index("cgroup-rmdir") });
    // SAFETY: an argument of a BTF tracepoint.
    unsafe { report(CgroupOp::Rmdir, ctx.arg(0), ctx.arg(1), 0) }
}

/// `void cgroup_notify_populated(struct cgroup *cgrp, const char *path, int val)`
#[btf_tracepoint(function = "cgroup_notify_populated")]
pub fn cgroup_populated(ctx: BtfTracePointContext) -> i32 {
    hit(const { index("cgroup-populated") });
    // SAFETY: an argument of a BTF tracepoint.
    unsafe { report(CgroupOp::Populated, ctx.arg(0), ctx.arg(1), ctx.arg(2)) }
}

/// # Safety
/// `cgroup` must be a cgroup pointer whose type the verifier knows.
#[inline(always)]
unsafe fn report(op: CgroupOp, cgroup: *const u8, path: *const u8, populated: u32) -> i32 {
    if cgroup.is_null() {
        return 0;
    }
    // SAFETY (whole block): pointers loaded from structures the verifier knows the type of.
    let (id, parent) = unsafe {
        let root: *const u8 = load(cgroup, conf!(cgroup_root));
        let hierarchy: u32 = load(root, conf!(cgroup_root_hierarchy));
        if hierarchy != conf!(memory_hierarchy) {
            return 0;
        }
        let parent_css: *const u8 = load(cgroup, conf!(cgroup_self) + conf!(css_parent));
        let parent_cgroup: *const u8 = load(parent_css, conf!(css_cgroup));
        (cgroup_id(cgroup), cgroup_id(parent_cgroup))
    };
    if op == CgroupOp::Mkdir {
        if awaits_container() || is_target_cgroup(parent) {
            select_cgroup(id);
        }
    }
    let target = is_target_cgroup(id);
    if op == CgroupOp::Populated && !target {
        return 0;
    }
    let mut event = CgroupEvent {
        kind: EventKind::Cgroup as u32,
        op: op as u32,
        // SAFETY: no arguments.
        at_ns: unsafe { bpf_ktime_get_ns() },
        id,
        parent,
        target: u32::from(target),
        populated,
        usage_pages: 0,
        peak_pages: 0,
        has_usage: 0,
        oom_kills: 0,
        has_oom_kills: 0,
        path: [0; CGROUP_PATH_LEN],
    };
    // SAFETY: as above; the memory controller's state begins with its css.
    unsafe {
        let css: *const u8 = load(cgroup, conf!(cgroup_subsys) + 8 * conf!(memory_subsys));
        if !css.is_null() {
            let memcg = css.wrapping_sub(conf!(memcg_css) as usize);
            if let (Some(usage), Some(peak)) = (
                crate::read::probe::<u64>(memcg, conf!(memcg_usage)),
                crate::read::probe::<u64>(memcg, conf!(memcg_watermark)),
            ) {
                event.usage_pages = usage;
                event.peak_pages = peak;
                event.has_usage = 1;
            }
            if conf!(memcg_oom_kills) != NO_MEMBER {
                if let Some(kills) = crate::read::probe::<u64>(memcg, conf!(memcg_oom_kills)) {
                    event.oom_kills = kills;
                    event.has_oom_kills = 1;
                }
            }
        }
        bpf_probe_read_kernel_str(event.path.as_mut_ptr().cast(), CGROUP_PATH_LEN as u32, path.cast());
    }
    send(&event);
    0
}
