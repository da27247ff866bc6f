//! Who is traced: cgroup membership first, process ancestry second.

use aya_ebpf::helpers::{bpf_get_current_pid_tgid, generated::bpf_get_current_task_btf};
use spark_trace_common::config::{
    BESIDE_GONE, BESIDE_OTHER, CLIENTS_DONE, CLIENTS_STARTED, CONTROL_SELECT_NEW,
};

use crate::{
    config::conf,
    loss::lost,
    maps::{BESIDE, CLIENTS, CONTROL, TARGET_CGROUPS, TARGET_PIDS, add, selection_changed},
    read::{load, probe},
};

/// For bpf_get_stack: the user stack, not the kernel's (include/uapi/linux/bpf.h BPF_F_USER_STACK).
pub(crate) const USER_STACK: u64 = 1 << 8;

/// The current task, as a pointer whose type the verifier knows.
#[inline(always)]
pub(crate) fn current_task() -> *const u8 {
    // SAFETY: no arguments; always valid in a tracing program.
    unsafe { bpf_get_current_task_btf() }.cast::<u8>().cast_const()
}

#[inline(always)]
pub(crate) fn current_tgid() -> u32 {
    (bpf_get_current_pid_tgid() >> 32) as u32
}

/// Id of the memory cgroup `task` is in: the inode number of its directory, under cgroup v1 and v2 alike.
/// (bpf_get_current_cgroup_id would give the v2 hierarchy's, which on hybrid machines does not hold the
/// memory controller.)
///
/// # Safety
/// `task` must be a task pointer whose type the verifier knows.
#[inline(always)]
pub(crate) unsafe fn memory_cgroup_of(task: *const u8) -> u64 {
    // SAFETY: by the caller's word.
    unsafe { memory_cgroup_of_set(load(task, conf!(task_cgroups))) }
}

/// The same, of a task's set of cgroups.
///
/// # Safety
/// `css_set` must be such a pointer whose type the verifier knows.
#[inline(always)]
pub(crate) unsafe fn memory_cgroup_of_set(css_set: *const u8) -> u64 {
    // SAFETY: each pointer is loaded from a structure the verifier knows the type of.
    unsafe {
        let css: *const u8 = load(css_set, conf!(css_set_subsys) + 8 * conf!(memory_subsys));
        let cgroup: *const u8 = load(css, conf!(css_cgroup));
        cgroup_id(cgroup)
    }
}

/// The same, where that is rare: see [`probe`].
#[inline(always)]
pub(crate) fn memory_cgroup_read_of(task: *const u8) -> u64 {
    probe::<*const u8>(task, conf!(task_cgroups))
        .and_then(|set| probe::<*const u8>(set, conf!(css_set_subsys) + 8 * conf!(memory_subsys)))
        .and_then(|css| probe(css, conf!(css_cgroup)))
        .map_or(0, cgroup_id_of)
}

/// Id of a cgroup: its directory's inode number.
///
/// # Safety
/// `cgroup` must be a cgroup pointer whose type the verifier knows.
#[inline(always)]
pub(crate) unsafe fn cgroup_id(cgroup: *const u8) -> u64 {
    // SAFETY: as above.
    unsafe {
        let node: *const u8 = load(cgroup, conf!(cgroup_kn));
        load(node, conf!(kernfs_id))
    }
}

/// The same, for a pointer whose type the verifier does not know.
#[inline(always)]
pub(crate) fn cgroup_id_of(cgroup: *const u8) -> u64 {
    probe::<*const u8>(cgroup, conf!(cgroup_kn)).and_then(|node| probe(node, conf!(kernfs_id))).unwrap_or(0)
}

#[inline(always)]
pub(crate) fn is_target_cgroup(id: u64) -> bool {
    TARGET_CGROUPS.get_ptr(&id).is_some()
}

#[inline(always)]
pub(crate) fn is_target_pid(tgid: u32) -> bool {
    TARGET_PIDS.get_ptr(&tgid).is_some()
}

/// Whether a task in `cgroup` with process id `tgid` is traced.
#[inline(always)]
pub(crate) fn is_target(cgroup: u64, tgid: u32) -> bool {
    conf!(whole_system) != 0 || is_target_cgroup(cgroup) || is_target_pid(tgid)
}

/// Whether a process is another spark-trace: what it does is no part of the trace.
#[inline(always)]
pub(crate) fn is_beside(tgid: u32) -> bool {
    // SAFETY: a live map value.
    BESIDE.get_ptr(&tgid).is_some_and(|whose| unsafe { *whose == BESIDE_OTHER })
}

/// Whether a process is or was one, for as long as user space has not learned of its end: of calls that were made before.
#[inline(always)]
pub(crate) fn was_beside(tgid: u32) -> bool {
    // SAFETY: a live map value.
    BESIDE.get_ptr(&tgid).is_some_and(|whose| unsafe { *whose == BESIDE_OTHER || *whose == BESIDE_GONE })
}

/// A process has ended. User space still learns that it was there.
#[inline(always)]
pub(crate) fn is_beside_no_more(tgid: u32) {
    if let Some(whose) = BESIDE.get_ptr_mut(&tgid) {
        // SAFETY (whole block): a live map value.
        unsafe {
            // Its own number in a PID namespace may be that of another process here.
            if *whose == BESIDE_OTHER {
                *whose = BESIDE_GONE;
            }
        }
    }
}

/// Whether a cgroup that is created now may be that of a container which the target has requested.
#[inline(always)]
pub(crate) fn awaits_container() -> bool {
    let client = |index| CLIENTS.get(index).copied().unwrap_or(0);
    CONTROL.get(CONTROL_SELECT_NEW).is_some_and(|on| *on != 0)
        || client(CLIENTS_STARTED) > client(CLIENTS_DONE)
}

/// Counts a client of a container engine that the target has started.
#[inline(always)]
pub(crate) fn client_started() {
    if let Some(started) = CLIENTS.get_ptr_mut(CLIENTS_STARTED) {
        // SAFETY: a live map value.
        unsafe { add(started, 1) };
    }
}

pub(crate) fn select_cgroup(id: u64) {
    if TARGET_CGROUPS.insert(&id, &1, 0).is_err() {
        lost!(TargetCgroups);
    }
    selection_changed();
}

/// Selects a process that has just been forked into `cgroup`, wherever it goes later.
pub(crate) fn select_child(tgid: u32, cgroup: u64) {
    if TARGET_PIDS.insert(&tgid, &1, 0).is_err() {
        lost!(TargetPids);
    }
    // In a selected cgroup it is of the target already: what CPUs remember stays right, and a program that forks all the time
    // does not make them forget it each time.
    if !is_target_cgroup(cgroup) {
        selection_changed();
    }
}
