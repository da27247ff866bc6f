//! Life of the target's processes: fork, exec, exit.

use aya_ebpf::{
    helpers::{bpf_get_current_pid_tgid, bpf_ktime_get_ns},
    macros::btf_tracepoint,
    programs::BtfTracePointContext,
};
use spark_trace_common::{
    config::NO_MEMBER,
    engine::is_client,
    event::{EventKind, ProcessEvent, ProcessOp},
    hook::index,
    task::COMM_LEN,
};

use crate::{
    config::conf,
    hooks::current_context,
    loss::send,
    maps::{HEAPS, TARGET_PIDS, hit},
    read::{load, probe},
    target::{
        client_started, is_beside_no_more, is_target, is_target_pid, memory_cgroup_read_of, select_child,
    },
    wake::Patience,
};

/// `void sched_process_fork(struct task_struct *parent, struct task_struct *child)`
#[btf_tracepoint(function = "sched_process_fork")]
pub fn process_fork(ctx: BtfTracePointContext) -> i32 {
    hit(const { index("process-fork") });
    let (parent, child): (*const u8, *const u8) = (ctx.arg(0), ctx.arg(1));
    // SAFETY: arguments of a BTF tracepoint.
    let (parent_tgid, tgid, tid, cgroup): (u32, u32, u32, u64) = unsafe {
        (
            load(parent, conf!(task_tgid)),
            load(child, conf!(task_tgid)),
            load(child, conf!(task_pid)),
            memory_cgroup_read_of(child),
        )
    };
    // Threads come this way too.
    if tgid != tid || !is_target(cgroup, parent_tgid) {
        return 0;
    }
    if is_target_pid(parent_tgid) {
        select_child(tgid, cgroup);
    }
    // SAFETY: an argument of a BTF tracepoint.
    unsafe { report(ProcessOp::Fork, child, tgid, parent_tgid, cgroup) };
    0
}

/// `void sched_process_exec(struct task_struct *p, pid_t old_pid, struct linux_binprm *bprm)`
#[btf_tracepoint(function = "sched_process_exec")]
pub fn process_exec(ctx: BtfTracePointContext) -> i32 {
    hit(const { index("process-exec") });
    let task: *const u8 = ctx.arg(0);
    // SAFETY: an argument of a BTF tracepoint.
    unsafe {
        let tgid: u32 = load(task, conf!(task_tgid));
        let cgroup = memory_cgroup_read_of(task);
        if is_target(cgroup, tgid) {
            // The heap of the program before has nothing to do with the new one's.
            let _ = HEAPS.remove(&tgid);
            current_context::forget(bpf_get_current_pid_tgid());
            // Before the event: from here on no cgroup is created that user space does not hear of as a candidate.
            if is_client(&comm_of(task)) {
                client_started();
            }
            report(ProcessOp::Exec, task, tgid, parent_of(task), cgroup);
        }
    }
    0
}

/// `void sched_process_exit(struct task_struct *p, ...)`: once per thread; the last one ends the process.
#[btf_tracepoint(function = "sched_process_exit")]
pub fn process_exit(ctx: BtfTracePointContext) -> i32 {
    hit(const { index("process-exit") });
    let task: *const u8 = ctx.arg(0);
    // The number may be another thread's next.
    current_context::forget(bpf_get_current_pid_tgid());
    // SAFETY: an argument of a BTF tracepoint.
    unsafe {
        let Some(signal) = probe::<*const u8>(task, conf!(task_signal)) else { return 0 };
        if probe::<u32>(signal, conf!(signal_live)) != Some(0) {
            return 0;
        }
        let tgid: u32 = load(task, conf!(task_tgid));
        let cgroup = memory_cgroup_read_of(task);
        if is_target(cgroup, tgid) {
            report(ProcessOp::Exit, task, tgid, parent_of(task), cgroup);
        }
        is_beside_no_more(tgid);
        let _ = TARGET_PIDS.remove(&tgid);
        let _ = HEAPS.remove(&tgid);
    }
    0
}

/// # Safety
/// `task` must be a task pointer whose type the verifier knows.
#[inline(always)]
unsafe fn report(op: ProcessOp, task: *const u8, tgid: u32, parent: u32, cgroup: u64) {
    let mut event = ProcessEvent {
        kind: EventKind::Process as u32,
        op: op as u32,
        // SAFETY: no arguments.
        at_ns: unsafe { bpf_ktime_get_ns() },
        tgid,
        parent,
        cgroup,
        status: 0,
        has_rss: 0,
        rss_peak_pages: 0,
        // SAFETY: an array inside the task.
        comm: unsafe { comm_of(task) },
    };
    if op == ProcessOp::Exit {
        // SAFETY: pointers loaded from structures the verifier knows the type of.
        unsafe {
            let signal = probe::<*const u8>(task, conf!(task_signal)).unwrap_or(core::ptr::null());
            let group: u32 = probe(signal, conf!(signal_group_exit_code)).unwrap_or(0);
            event.status = if group != 0 { group } else { load(task, conf!(task_exit_code)) };
            // Kernels before 6.16 take the address space away before this tracepoint (kernel/exit.c, do_exit). What
            // they leave is the figure of getrusage: the most of all programs that the process has run.
            let mm = probe::<*const u8>(task, conf!(task_mm)).unwrap_or(core::ptr::null());
            if mm.is_null() {
                if let Some(most) = probe(signal, conf!(signal_maxrss)) {
                    event.has_rss = 1;
                    event.rss_peak_pages = most;
                }
            } else if let Some(highest) = probe::<u64>(mm, conf!(mm_hiwater_rss)) {
                let mut now = 0i64;
                // File, anonymous, (swap), shmem: the resident ones. Through the helper: Linux 6.1 has them in an array
                // of a type that its verifier does not follow.
                for counter in [0, 1, 3] {
                    if conf!(mm_rss) != NO_MEMBER {
                        let count = probe::<i64>(mm, conf!(mm_rss) + counter * conf!(mm_rss_stride));
                        now += count.unwrap_or(0).max(0);
                    }
                }
                event.has_rss = 1;
                event.rss_peak_pages = highest.max(now as u64);
            }
        }
    }
    // What surrounds a new program is read from the process while it lives.
    send(&event, if op == ProcessOp::Exec { Patience::None } else { Patience::Short });
}

/// The process that `task` is a child of.
#[inline(always)]
fn parent_of(task: *const u8) -> u32 {
    probe::<*const u8>(task, conf!(task_real_parent))
        .and_then(|parent| probe(parent, conf!(task_tgid)))
        .unwrap_or(0)
}

/// # Safety
/// `task` must be a task pointer whose type the verifier knows.
#[inline(always)]
unsafe fn comm_of(task: *const u8) -> [u8; COMM_LEN] {
    // SAFETY: `comm` is an array of 16 bytes in the task; two words of it.
    unsafe {
        let mut comm = [0; COMM_LEN];
        let mut i = 0;
        while i < COMM_LEN {
            comm[i] = load(task, conf!(task_comm) + i as u32);
            i += 1;
        }
        comm
    }
}
