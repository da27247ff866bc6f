//! What the target reads of the kernel's own figures (meminfo, its status, cgroup files, sysinfo), and which
//! watched libraries it maps.

use core::ffi::c_void;

use aya_ebpf::helpers::{
    bpf_get_current_pid_tgid, bpf_ktime_get_ns,
    generated::{bpf_get_stack, bpf_probe_read_kernel_str, bpf_probe_read_user, bpf_send_signal},
};
use spark_trace_common::{
    capacities::USER_STACK_DEPTH,
    config::{CONTROL_PAUSE, NO_MEMBER},
    event::{ANSWER_LEN, AnswerSource, EventKind, LibraryEvent, MemoryAnswerEvent, NAME_LEN},
    map_records::LibraryKey,
};

use crate::{
    config::conf,
    hooks::python,
    loss::lost,
    maps::{CONTROL, EVENTS, PAUSED, WATCHED_FILES},
    memory_state::memory_state,
    read::{load, probe},
    target::{USER_STACK, current_task, is_beside, memory_cgroup_read_of},
    wake::{self, Patience},
};

/// include/uapi/linux/magic.h
const PROC_SUPER_MAGIC: u64 = 0x9fa0;
const CGROUP_SUPER_MAGIC: u64 = 0x0027_e0eb;
const CGROUP2_SUPER_MAGIC: u64 = 0x6367_7270;

/// `struct sysinfo` (include/uapi/linux/sysinfo.h).
const SYSINFO_LEN: u64 = 112;

/// include/uapi/asm-generic/signal.h, and its bit in a set of signals; include/linux/sched/jobctl.h
const SIGSTOP: u32 = 19;
const STOP: u64 = 1 << (SIGSTOP - 1);
const JOBCTL_STOP_PENDING: u64 = 1 << 17;

/// Names of files in procfs about memory, the first eight bytes of each.
const PROC_FILES: [u64; 5] =
    [head(b"meminfo\0"), head(b"status\0\0"), head(b"statm\0\0\0"), head(b"smaps_ro"), head(b"vmstat\0\0")];
/// How the names of the memory controller's files begin.
const CGROUP_FILES: u64 = head(b"memory.\0");

const fn head(name: &[u8; 8]) -> u64 {
    u64::from_ne_bytes(*name)
}

/// What a system call left in the caller's memory, and where its stub returns to.
#[derive(Clone, Copy)]
pub(super) struct Answer {
    pub(super) buffer: u64,
    pub(super) length: u64,
    pub(super) caller: u64,
}

/// Where in the file a read began.
#[derive(Clone, Copy)]
pub(super) enum At {
    Given(u64),
    /// Where the file's position is.
    Here,
    /// By the length before the file's position, which the read has moved on.
    Before,
}

/// What the target read of a file has been copied to it.
#[inline(always)]
pub(super) fn read_returned(ctx: *mut c_void, fd: u32, at: At, answer: Answer) {
    let Some(file) = open_file(fd) else { return };
    let sb = probe::<*const u8>(file, conf!(file_inode))
        .and_then(|inode| probe::<*const u8>(inode, conf!(inode_sb)));
    let op = match sb.and_then(|sb| probe::<u64>(sb, conf!(sb_magic))) {
        Some(PROC_SUPER_MAGIC) => AnswerSource::ReadProc,
        Some(CGROUP_SUPER_MAGIC | CGROUP2_SUPER_MAGIC) => AnswerSource::ReadCgroup,
        _ => return,
    };
    let Some(name) = probe::<*const u8>(dentry_of(file), conf!(dentry_name)) else { return };
    let Some(head) = probe::<u64>(name, 0) else { return };
    let wanted = if op == AnswerSource::ReadProc {
        is_proc_file(head)
    } else {
        // The eighth byte is the first after the dot.
        head & (u64::MAX >> 8) == CGROUP_FILES
    };
    if wanted {
        let of_file = || probe::<u64>(file, conf!(file_pos)).unwrap_or(0);
        let position = match at {
            At::Given(position) => position,
            At::Here => of_file(),
            At::Before => of_file().wrapping_sub(answer.length),
        };
        report(ctx, op, Some(dentry_of(file)), position, answer);
    }
}

#[inline(always)]
fn is_proc_file(head: u64) -> bool {
    // Names shorter than eight bytes are followed by whatever was there before.
    let short = |wanted: u64, bytes: u32| head & (u64::MAX >> (64 - 8 * bytes)) == wanted;
    short(PROC_FILES[0], 8)
        || short(PROC_FILES[1], 7)
        || short(PROC_FILES[2], 6)
        || short(PROC_FILES[3], 8)
        || short(PROC_FILES[4], 7)
}

/// The target's sysinfo(2) has filled `buffer`.
#[inline(always)]
pub(super) fn sysinfo_returned(ctx: *mut c_void, buffer: u64, caller: u64) {
    report(ctx, AnswerSource::Sysinfo, None, 0, Answer { buffer, length: SYSINFO_LEN, caller });
}

#[inline(always)]
fn report(ctx: *mut c_void, op: AnswerSource, dentry: Option<*const u8>, position: u64, answer: Answer) {
    let Answer { buffer, length, caller } = answer;
    let ids = bpf_get_current_pid_tgid();
    let tgid = (ids >> 32) as u32;
    if tgid == conf!(own_tgid) || is_beside(tgid) {
        return;
    }
    let cgroup = memory_cgroup_read_of(current_task());
    let Some(mut slot) = EVENTS.reserve::<MemoryAnswerEvent>(0) else {
        lost!(Events);
        return;
    };
    let event = slot.as_mut_ptr();
    // SAFETY (whole block): the slot is ours until it is submitted; the helpers check what they read.
    unsafe {
        (*event).kind = EventKind::MemoryAnswer as u32;
        (*event).op = op as u32;
        (*event).at_ns = bpf_ktime_get_ns();
        (*event).tgid = tgid;
        (*event).tid = ids as u32;
        (*event).cgroup = cgroup;
        (*event).position = position;
        (*event).caller = caller;
        (*event).name[0] = 0;
        (*event).parent[0] = 0;
        if let Some(dentry) = dentry {
            name_of(dentry, (&raw mut (*event).name).cast());
            if let Some(parent) = probe::<*const u8>(dentry, conf!(dentry_parent)) {
                name_of(parent, (&raw mut (*event).parent).cast());
            }
        }
        (*event).state = memory_state();
        // By 32 bits: the verifier of Linux 6.1 forgets the bound of a comparison of 64.
        let wanted = (length as u32).min(ANSWER_LEN as u32);
        let content = (&raw mut (*event).content).cast::<c_void>();
        let failed = bpf_probe_read_user(content, wanted, buffer as *const c_void) != 0;
        (*event).length = if failed { 0 } else { wanted };
        let stack = (&raw mut (*event).stack).cast::<c_void>();
        let bytes = bpf_get_stack(ctx, stack, (8 * USER_STACK_DEPTH) as u32, USER_STACK);
        (*event).frames = if bytes > 0 { bytes as u32 / 8 } else { 0 };
    }
    slot.submit(wake::flags(Patience::Short));
}

/// The task has mapped `fd` executable: reports it if it is a watched library.
#[inline(always)]
pub(super) fn mapped_executable(fd: u32, tgid: u32) {
    let Some(file) = open_file(fd) else { return };
    let dentry = dentry_of(file);
    let Some(name) = probe::<*const u8>(dentry, conf!(dentry_name)) else { return };
    let (Some(head), Some(next)) = (probe::<u64>(name, 0), probe::<u64>(name, 8)) else { return };
    // `libcuda.so`, `libnvidia-ml.so`, `libspark_trace_...`: user space looks closer.
    let watched = head == self::head(b"libcuda.") && next & 0xffff == u64::from(u16::from_ne_bytes(*b"so"))
        || head == self::head(b"libnvidi") && next & 0xff_ffff_ffff == self::head(b"a-ml.\0\0\0")
        || head == self::head(b"libspark");
    if !watched || is_beside(tgid) {
        return;
    }
    let Some(mut slot) = EVENTS.reserve::<LibraryEvent>(0) else {
        lost!(Events);
        return;
    };
    let event = slot.as_mut_ptr();
    let inode: Option<*const u8> = probe(file, conf!(file_inode));
    let number = inode.and_then(|inode| probe(inode, conf!(inode_ino))).unwrap_or(0);
    let device = inode
        .and_then(|inode| probe::<*const u8>(inode, conf!(inode_sb)))
        .and_then(|sb| probe(sb, conf!(sb_dev)))
        .unwrap_or(0);
    let file = LibraryKey { inode: number, device, reserved: 0 };
    // SAFETY: no arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    // So that its interpreter is known before it calls the driver.
    let awaits_python = conf!(python_min_4k) != NO_MEMBER && !python::is_known(tgid);
    let paused = (WATCHED_FILES.get_ptr(&file).is_none() || awaits_python) && pause(tgid, now);
    // SAFETY (whole block): the slot is ours until it is submitted.
    unsafe {
        (*event).kind = EventKind::Library as u32;
        (*event).tgid = tgid;
        (*event).at_ns = now;
        (*event).file = file;
        (*event).paused = u32::from(paused);
        (*event).pad = 0;
        (*event).name[0] = 0;
        name_of(dentry, (&raw mut (*event).name).cast());
    }
    // A process may be paused for it.
    slot.submit(wake::flags(Patience::None));
}

/// Pauses the current process, so that it calls nothing of a library before that is watched. It stops where it returns
/// from this system call (kernel/signal.c get_signal). Who lets it go on finds it in `PAUSED`, by the time: another
/// thread may map another library just now.
///
/// One that a debugger traces would stop for that one, and one that somebody else is stopping would be let go on
/// without their wish: both are left alone.
#[inline(always)]
fn pause(tgid: u32, now: u64) -> bool {
    if CONTROL.get(CONTROL_PAUSE).copied().unwrap_or(0) == 0 {
        return false;
    }
    let task = current_task();
    // SAFETY: the current task's type is known to the verifier.
    let (traced, jobs, pending): (u32, u64, u64) = unsafe {
        let pending = probe::<*const u8>(task, conf!(task_signal))
            .and_then(|signal| probe(signal, conf!(signal_pending)))
            .unwrap_or(STOP);
        (load(task, conf!(task_ptrace)), load(task, conf!(task_jobctl)), pending)
    };
    // Our own stop, for another thread's mapping, is no stop of others.
    let others = PAUSED.get_ptr(&tgid).is_none() && (jobs & JOBCTL_STOP_PENDING != 0 || pending & STOP != 0);
    if traced != 0 || others || PAUSED.insert(&tgid, &now, 0).is_err() {
        return false;
    }
    // SAFETY: a plain number. The kernel refuses where the task is ending or is the machine's init.
    let sent = unsafe { bpf_send_signal(SIGSTOP) } == 0;
    if !sent {
        let _ = PAUSED.remove(&tgid);
    }
    sent
}

/// The current task's open file `fd`.
#[inline(always)]
fn open_file(fd: u32) -> Option<*const u8> {
    let files: *const u8 = probe(current_task(), conf!(task_files))?;
    let table: *const u8 = probe(files, conf!(files_table))?;
    let size: u32 = probe(table, conf!(table_size))?;
    if fd >= size {
        return None;
    }
    let slots: *const u8 = probe(table, conf!(table_fds))?;
    probe::<*const u8>(slots.wrapping_add(8 * fd as usize), 0).filter(|file| !file.is_null())
}

#[inline(always)]
fn dentry_of(file: *const u8) -> *const u8 {
    probe(file, conf!(file_dentry)).unwrap_or(core::ptr::null())
}

/// Copies a directory entry's name to `to`, which has room for [`NAME_LEN`] bytes.
///
/// # Safety
/// `to` must have that room.
#[inline(always)]
unsafe fn name_of(dentry: *const u8, to: *mut c_void) {
    if let Some(name) = probe::<*const c_void>(dentry, conf!(dentry_name)) {
        // SAFETY: by the caller's word; the helper checks the address and ends the name with NUL.
        unsafe { bpf_probe_read_kernel_str(to, NAME_LEN as u32, name) };
    }
}
