//! Requests to the stand-in's devices: testing/stand-in/abi.h in Rust.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;

use anyhow::{Context, Result, anyhow};

/// The two devices, as their modules name them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Module {
    Nvidia,
    Uvm,
}

impl Module {
    const fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::Nvidia => ("/dev/nvidia-stand-in", "nvidia.ko"),
            Self::Uvm => ("/dev/nvidia-uvm-stand-in", "nvidia-uvm.ko"),
        }
    }
}

pub const CONTIGUOUS: u32 = 1;
pub const ZEROED: u32 = 2;

#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct Alloc {
    pub bytes: u64,
    pub page_size: u64,
    pub flags: u32,
    pub handle: u32,
}

#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
struct Lock {
    address: u64,
    bytes: u64,
    handle: u32,
    unused: u32,
}

const READ_WRITE: u32 = 3;

/// The number of a call as asm-generic/ioctl.h makes it, which both architectures use.
const fn call(direction: u32, number: u32, size: usize) -> libc::c_ulong {
    (direction << 30 | (size as u32) << 16 | (b's' as u32) << 8 | number) as libc::c_ulong
}

const ALLOC: libc::c_ulong = call(READ_WRITE, 1, size_of::<Alloc>());
const FREE: libc::c_ulong = call(0, 2, 0);
const LOCK: libc::c_ulong = call(READ_WRITE, 3, size_of::<Lock>());

/// An open device. Its close gives back all that was taken through it.
#[derive(Debug)]
pub struct Device(File);

impl Device {
    pub fn open(module: Module) -> Result<Self> {
        let (device, object) = module.names();
        let opened = OpenOptions::new().read(true).write(true).open(device);
        opened.map(Self).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => anyhow!(
                "there is no {device}: driver-alloc needs the stand-in for NVIDIA's kernel modules, which is for test \
                 machines (testing/stand-in/README.md says how to build it; then: insmod {object}). On a machine with NVIDIA's \
                 driver use cuda-alloc"
            ),
            _ => anyhow!(error).context(format!("cannot open {device}")),
        })
    }

    /// Has the driver take memory, and gives its handle.
    pub fn alloc(&self, mut request: Alloc) -> io::Result<u32> {
        // SAFETY: the call reads and writes one `Alloc`, which `asked` is.
        result(unsafe { libc::ioctl(self.0.as_raw_fd(), ALLOC as _, &raw mut request) })?;
        Ok(request.handle)
    }

    pub fn free(&self, handle: u32) -> Result<()> {
        // SAFETY: the call takes a number.
        result(unsafe { libc::ioctl(self.0.as_raw_fd(), FREE as _, libc::c_ulong::from(handle)) })
            .with_context(|| format!("the stand-in does not free handle {handle}"))
    }

    /// Has the driver lock memory of this process, and gives its handle.
    pub fn lock(&self, address: usize, bytes: usize) -> io::Result<u32> {
        let mut request = Lock { address: address as u64, bytes: bytes as u64, ..Lock::default() };
        // SAFETY: the call reads and writes one `Lock`; the memory it names is only looked up.
        result(unsafe { libc::ioctl(self.0.as_raw_fd(), LOCK as _, &raw mut request) })?;
        Ok(request.handle)
    }
}

fn result(returned: libc::c_int) -> io::Result<()> {
    if returned == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_have_the_numbers_of_the_header() {
        // As the C compiler gives them for _IOWR('s', 1, 24 bytes), _IO('s', 2), _IOWR('s', 3, 24 bytes).
        assert_eq!([ALLOC, FREE, LOCK], [0xc018_7301, 0x7302, 0xc018_7303]);
    }
}
