//! A program that does nothing at the end of every system call: what the kernel itself takes there, with which ours are
//! compared.

use std::{
    io,
    os::fd::{FromRawFd, OwnedFd},
};

use anyhow::{Context, Result};

/// Commands and program type of bpf(2), from include/uapi/linux/bpf.h.
const PROG_LOAD: i32 = 5;
const RAW_TRACEPOINT_OPEN: i32 = 17;
const TYPE_RAW_TRACEPOINT: u32 = 17;

/// `r0 = 0` and `exit`.
const PROGRAM: [u64; 2] = [0xb7, 0x95];

/// The beginning of the union bpf_attr as BPF_PROG_LOAD reads it.
#[repr(C)]
struct Load {
    kind: u32,
    instructions: u32,
    program: u64,
    license: u64,
}

/// The same for BPF_RAW_TRACEPOINT_OPEN.
#[repr(C)]
struct Open {
    name: u64,
    program: u32,
    reserved: u32,
}

/// The program, attached until this is dropped.
pub struct Empty {
    /// The kernel detaches it when the last descriptor of the link is closed.
    _link: OwnedFd,
}

impl Empty {
    /// Attaches it to `sys_exit`.
    pub fn attach() -> Result<Self> {
        let load = Load {
            kind: TYPE_RAW_TRACEPOINT,
            instructions: PROGRAM.len() as u32,
            program: PROGRAM.as_ptr() as u64,
            license: c"GPL".as_ptr() as u64,
        };
        let program = bpf(PROG_LOAD, &load).context("cannot load an empty program")?;
        let open = Open { name: c"sys_exit".as_ptr() as u64, program: raw(&program), reserved: 0 };
        let link = bpf(RAW_TRACEPOINT_OPEN, &open).context("cannot attach an empty program")?;
        Ok(Self { _link: link })
    }
}

fn raw(fd: &OwnedFd) -> u32 {
    use std::os::fd::AsRawFd;
    fd.as_raw_fd().cast_unsigned()
}

fn bpf<T>(command: i32, attr: &T) -> io::Result<OwnedFd> {
    // SAFETY: `attr` is as large as is said, and what it points to lives during the call.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attr), size_of::<T>()) };
    match i32::try_from(fd) {
        // SAFETY: the kernel has just given us this descriptor.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}
