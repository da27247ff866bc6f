//! Pages of the stand-in for NVIDIA's kernel modules (testing/stand-in/abi.h in Rust), where `SPARK_TRACE_SIMULATED_STAND_IN` is
//! set: device memory is then taken by the kernel as NVIDIA's driver takes it, and mapped into the program.

use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::LazyLock;

use crate::abi::Error;
use crate::meminfo::{framebuffer, page_size};

const WANTED: &str = "SPARK_TRACE_SIMULATED_STAND_IN";
/// Of a page that device memory is asked for in: single pages of the kernel, unless `SPARK_TRACE_SIMULATED_PAGE_SIZE` has another
/// number of bytes.
const PAGE_SIZE: &str = "SPARK_TRACE_SIMULATED_PAGE_SIZE";

const CONTIGUOUS: u32 = 1;
const ZEROED: u32 = 2;
const MAP_SHIFT: u32 = 40;

#[repr(C)]
#[derive(Default)]
struct Alloc {
    bytes: u64,
    page_size: u64,
    flags: u32,
    handle: u32,
}

#[repr(C)]
#[derive(Default)]
struct Lock {
    address: u64,
    bytes: u64,
    handle: u32,
    unused: u32,
}

/// The number of a call as asm-generic/ioctl.h makes it.
const fn call(direction: u32, number: u32, size: usize) -> libc::c_ulong {
    (direction << 30 | (size as u32) << 16 | (b's' as u32) << 8 | number) as libc::c_ulong
}

const ALLOC: libc::c_ulong = call(3, 1, size_of::<Alloc>());
const FREE: libc::c_ulong = call(0, 2, 0);
const LOCK: libc::c_ulong = call(3, 3, size_of::<Lock>());

/// The two devices. What was taken through them goes at the latest with the process.
#[derive(Debug)]
pub struct Devices {
    nvidia: File,
    uvm: File,
    page_size: u64,
}

/// Absent where they are not wanted. Wanted and not there is an error: nothing else takes their place.
pub fn devices() -> Result<Option<&'static Devices>, Error> {
    static DEVICES: LazyLock<Option<std::io::Result<Devices>>> = LazyLock::new(|| {
        std::env::var_os(WANTED).filter(|wanted| !wanted.is_empty())?;
        Some(Devices::open())
    });
    match &*DEVICES {
        None => Ok(None),
        Some(Ok(devices)) => Ok(Some(devices)),
        Some(Err(_)) => Err(Error::NO_DEVICE),
    }
}

impl Devices {
    fn open() -> std::io::Result<Self> {
        let open = |path| OpenOptions::new().read(true).write(true).custom_flags(libc::O_CLOEXEC).open(path);
        let page_size = match std::env::var(PAGE_SIZE) {
            Ok(bytes) => bytes.parse().map_err(|_| std::io::ErrorKind::InvalidInput)?,
            Err(_) => page_size() as u64,
        };
        Ok(Self { nvidia: open("/dev/nvidia-stand-in")?, uvm: open("/dev/nvidia-uvm-stand-in")?, page_size })
    }

    fn alloc(&'static self, bytes: usize, page_size: u64, flags: u32) -> Result<Taken, Error> {
        let mut request = Alloc { bytes: bytes as u64, page_size, flags, handle: 0 };
        // SAFETY: the call reads and writes one `Alloc`, which `request` is.
        if unsafe { libc::ioctl(self.nvidia.as_raw_fd(), ALLOC as _, &raw mut request) } != 0 {
            return Err(Error::OUT_OF_MEMORY);
        }
        Ok(Taken { handle: request.handle, devices: self })
    }

    /// Memory as programs get it: zeroed, and so from a pool where there is one.
    pub fn take(&'static self, bytes: usize) -> Result<Taken, Error> {
        self.alloc(bytes, self.page_size, ZEROED)
    }

    /// One run of pages, as for what the hardware reads by address.
    pub fn take_run(&'static self, bytes: usize) -> Result<Taken, Error> {
        self.alloc(bytes, page_size() as u64, ZEROED | CONTIGUOUS)
    }

    /// Pins memory of the program, in whole pages.
    pub fn pin(&'static self, address: usize, bytes: usize) -> Result<Taken, Error> {
        let mut request = Lock { address: address as u64, bytes: bytes as u64, ..Lock::default() };
        // SAFETY: the call reads and writes one `Lock`; the memory that it names is only looked up.
        if unsafe { libc::ioctl(self.nvidia.as_raw_fd(), LOCK as _, &raw mut request) } != 0 {
            return Err(Error::OUT_OF_MEMORY);
        }
        Ok(Taken { handle: request.handle, devices: self })
    }

    /// What is mapped from its beginning on is managed memory.
    pub fn managed(&self) -> &File {
        &self.uvm
    }
}

/// What the module has taken for us, until it is dropped.
#[derive(Debug)]
pub struct Taken {
    handle: u32,
    devices: &'static Devices,
}

impl Taken {
    /// File and offset by which its bytes from `offset` on are mapped.
    pub fn place(&self, offset: usize) -> (libc::c_int, usize) {
        (self.devices.nvidia.as_raw_fd(), (self.handle as usize) << MAP_SHIFT | offset)
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        // SAFETY: the call takes a number. It knows the handle, which goes nowhere else.
        unsafe { libc::ioctl(self.devices.nvidia.as_raw_fd(), FREE as _, libc::c_ulong::from(self.handle)) };
    }
}

/// Runs of pages that a context takes, as channels are of a real one.
const RUN: usize = 256 << 10;
const RUNS: usize = 16;
/// All of them, in bytes.
pub const CHANNELS: u64 = (RUN * RUNS) as u64;

/// Of a context that begins; none without the stand-in, or where the GPU has memory of its own.
pub fn channels() -> Result<Vec<Taken>, Error> {
    match devices()? {
        Some(devices) if framebuffer()?.is_none() => (0..RUNS).map(|_| devices.take_run(RUN)).collect(),
        _ => Ok(Vec::new()),
    }
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
