//! What the reader of strangers' files may do: read what it is given, answer, and take a bounded amount of memory.

use std::{fs, io, mem::offset_of};

/// The user and group that own nothing (`nobody`).
const NOBODY: u32 = 65_534;
/// Of address space. Tables are read in pieces, so it needs some megabytes of its own; the program's own mappings and
/// those of its libraries are the larger part.
const MEMORY: u64 = 1 << 30;
/// Standard input, output and error, and the file that is read.
const OPEN_FILES: u64 = 8;

/// Gives up whatever this process may do that reading needs not. An error names the step that failed.
pub fn give_up() -> Result<(), String> {
    // Where the machine is out of memory, this one goes first. It may not be there (no /proc), which does no harm.
    let _ = fs::write("/proc/self/oom_score_adj", "1000");
    step("close other files", || {
        // SAFETY: descriptors above standard error, of which this process uses none.
        check(unsafe { libc::syscall(libc::SYS_close_range, 3u32, u32::MAX, 0u32) })
    })?;
    for (resource, limit) in [
        (libc::RLIMIT_AS, MEMORY),
        (libc::RLIMIT_NOFILE, OPEN_FILES),
        (libc::RLIMIT_FSIZE, 0),
        (libc::RLIMIT_CORE, 0),
        (libc::RLIMIT_MEMLOCK, 0),
        (libc::RLIMIT_NPROC, 0),
    ] {
        step("set limits", || {
            let limit = libc::rlimit { rlim_cur: limit, rlim_max: limit };
            // SAFETY: a pointer to a valid limit.
            check(i64::from(unsafe { libc::setrlimit(resource, &raw const limit) }))
        })?;
    }
    // SAFETY: no arguments, cannot fail.
    if unsafe { libc::geteuid() } == 0 {
        step("become nobody", become_nobody)?;
    }
    step("drop capabilities", drop_capabilities)?;
    for (option, value) in [
        (libc::PR_SET_NO_NEW_PRIVS, 1),
        (libc::PR_SET_DUMPABLE, 0),
        // After the change of user, which takes it back (prctl(2)): it does not outlive the tracer.
        (libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong),
    ] {
        step("set process attributes", || {
            let none: libc::c_ulong = 0;
            // SAFETY: options that take numbers.
            check(i64::from(unsafe { libc::prctl(option, value, none, none, none) }))
        })?;
    }
    step("filter system calls", filter_calls)
}

/// A service may lack the right to change users (packaging/spark-trace.service). It stays root by name then: without
/// capabilities and with the filter below, which opens nothing, that is no right to anything.
fn become_nobody() -> io::Result<()> {
    // SAFETY: an empty list, of which no element is read; the others take numbers.
    let result = unsafe {
        check(i64::from(libc::setgroups(0, std::ptr::null())))
            .and_then(|()| check(i64::from(libc::setresgid(NOBODY, NOBODY, NOBODY))))
            .and_then(|()| check(i64::from(libc::setresuid(NOBODY, NOBODY, NOBODY))))
    };
    match result {
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => Ok(()),
        result => result,
    }
}

fn step(what: &str, work: impl FnOnce() -> io::Result<()>) -> Result<(), String> {
    work().map_err(|error| format!("the reader of symbols cannot {what}: {error}"))
}

fn check(result: i64) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// A change of user takes them from root; whoever had them without being root has them still.
fn drop_capabilities() -> io::Result<()> {
    /// _LINUX_CAPABILITY_VERSION_3 of linux/capability.h: two words of bits for each set.
    const VERSION: u32 = 0x2008_0522;
    let header = [VERSION, 0];
    let none = [[0u32; 3]; 2];
    // SAFETY: the header and the two elements of data that this version has.
    check(unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), none.as_ptr()) })
}

/// System calls that are answered. All others fail with EPERM: no file is opened, no process or socket made, nothing
/// sent to another process.
const ALLOWED: &[libc::c_long] = &[
    libc::SYS_read,
    libc::SYS_pread64,
    libc::SYS_write,
    libc::SYS_recvmsg,
    libc::SYS_sendmsg,
    libc::SYS_close,
    libc::SYS_brk,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    libc::SYS_futex,
    libc::SYS_getrandom,
    libc::SYS_clock_gettime,
    libc::SYS_fcntl,
    // A panic and an end of the process.
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xc000_00b7;

/// Of linux/bpf_common.h: load a word of the call's data, compare, jump, return.
const LOAD: u16 = 0x20;
const EQUAL: u16 = 0x15;
const RETURN: u16 = 0x06;

fn filter_calls() -> io::Result<()> {
    let load = |at: usize| line(LOAD, at as u32, 0, 0);
    let mut program = vec![
        load(offset_of!(libc::seccomp_data, arch)),
        line(EQUAL, ARCHITECTURE, 1, 0),
        line(RETURN, libc::SECCOMP_RET_KILL_PROCESS, 0, 0),
        load(offset_of!(libc::seccomp_data, nr)),
    ];
    // Each compares the number and lets it pass. Calls of x32 have a bit in theirs, so none of them is equal.
    for call in ALLOWED {
        program.push(line(EQUAL, *call as u32, 0, 1));
        program.push(line(RETURN, libc::SECCOMP_RET_ALLOW, 0, 0));
    }
    // abort(3) sends itself a signal: to this process and no other.
    let own = std::process::id();
    program.extend([
        line(EQUAL, libc::SYS_tgkill as u32, 0, 3),
        load(offset_of!(libc::seccomp_data, args)),
        line(EQUAL, own, 0, 1),
        line(RETURN, libc::SECCOMP_RET_ALLOW, 0, 0),
        line(RETURN, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32, 0, 0),
    ]);
    let length = u16::try_from(program.len()).map_err(io::Error::other)?;
    let program = libc::sock_fprog { len: length, filter: program.as_mut_ptr() };
    let none: libc::c_ulong = 0;
    let mode = libc::c_ulong::from(libc::SECCOMP_MODE_FILTER);
    // SAFETY: a program of as many lines as it says, which the kernel copies.
    check(i64::from(unsafe { libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const program, none, none) }))
}

const fn line(code: u16, k: u32, jt: u8, jf: u8) -> libc::sock_filter {
    libc::sock_filter { code, jt, jf, k }
}
