//! Host memory that plays the part of device memory.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use crate::abi::Error;
use crate::meminfo::{MemInfo, framebuffer, page_size};
use crate::stand_in::{Taken, devices};

pub fn round_up(bytes: usize, unit: usize) -> Result<usize, Error> {
    let rounded = bytes.checked_next_multiple_of(unit).filter(|bytes| isize::try_from(*bytes).is_ok());
    rounded.filter(|bytes| *bytes > 0).ok_or(Error::OUT_OF_MEMORY)
}

const UNCHARGED: &str = "SPARK_TRACE_SIMULATED_UNCHARGED";

/// Refuses what the machine has no free memory for, as a driver would that cannot push out the page cache.
pub fn check_free(len: usize) -> Result<(), Error> {
    if len as u64 > MemInfo::read()?.free { Err(Error::OUT_OF_MEMORY) } else { Ok(()) }
}

/// A mapping; unmapped when dropped.
#[derive(Debug)]
pub struct Mapping {
    pub address: usize,
    pub len: usize,
    /// The driver has pinned its pages.
    pin: Option<Taken>,
    /// Its pages are the driver's.
    pages: Option<Taken>,
}

const READ_WRITE: i32 = libc::PROT_READ | libc::PROT_WRITE;

impl Mapping {
    fn of(len: usize, prot: i32, flags: i32, (file, offset): (i32, usize)) -> Result<Self, Error> {
        let offset = libc::off_t::try_from(offset).map_err(|_| Error::OUT_OF_MEMORY)?;
        // SAFETY: at an address of the kernel's choice, a new mapping replaces nothing.
        let address = unsafe { libc::mmap(std::ptr::null_mut(), len, prot, flags, file, offset) };
        if address == libc::MAP_FAILED {
            return Err(Error::OUT_OF_MEMORY);
        }
        Ok(Self { address: address.addr(), len, pin: None, pages: None })
    }

    fn new(len: usize, prot: i32, flags: i32) -> Result<Self, Error> {
        let mapping = Self::of(len, prot, flags | libc::MAP_ANONYMOUS, (-1, 0))?;
        // Base pages: the bytes taken should be the bytes requested. A kernel without huge pages refuses the advice.
        let _ = advise(mapping.address, len, libc::MADV_NOHUGEPAGE);
        Ok(mapping)
    }

    /// Pages of this process, present at once.
    pub fn resident(len: usize) -> Result<Self, Error> {
        check_free(len)?;
        let mapping = Self::new(len, READ_WRITE, libc::MAP_PRIVATE)?;
        populate(mapping.address, len)?;
        Ok(mapping)
    }

    /// Memory of the device, present at once, if the device has none of its own. Where the stand-in for NVIDIA's modules is used it
    /// is the module's pages. Where `SPARK_TRACE_SIMULATED_UNCHARGED` is set it is huge pages, which no memory
    /// cgroup counts (mm/hugetlb.c charges them only where cgroup v2 is mounted with memory_hugetlb_accounting): NVIDIA's
    /// driver does not charge the pages of a GPU that shares the machine's memory either. They come from the free
    /// memory as far as vm.nr_overcommit_hugepages allows.
    pub fn device(len: usize) -> Result<Self, Error> {
        if framebuffer()?.is_some() {
            return Self::on_demand(len);
        }
        if let Some(devices) = devices()? {
            check_free(len)?;
            let pages = devices.take(len)?;
            let mut mapping = Self::of(len, READ_WRITE, libc::MAP_SHARED, pages.place(0))?;
            mapping.pages = Some(pages);
            return Ok(mapping);
        }
        if std::env::var_os(UNCHARGED).is_none() {
            return Self::resident(len);
        }
        check_free(len)?;
        let unit = usize::try_from(MemInfo::read()?.huge_page).map_err(|_| Error::NOT_SUPPORTED)?;
        let len = round_up(len, unit)?;
        let mapping = Self::new(len, READ_WRITE, libc::MAP_PRIVATE | libc::MAP_HUGETLB)?;
        populate(mapping.address, len)?;
        Ok(mapping)
    }

    /// Shared pages, present at once: pinned host memory of the real driver counts as shmem.
    pub fn pinned(len: usize) -> Result<Self, Error> {
        check_free(len)?;
        let mut mapping = Self::new(len, READ_WRITE, libc::MAP_SHARED)?;
        populate(mapping.address, len)?;
        mapping.pin = pin(mapping.address, len)?;
        Ok(mapping)
    }

    /// Memory of the program that stays the program's, in whole pages.
    pub fn registered(address: usize, len: usize) -> Result<Self, Error> {
        populate(address, len)?;
        Ok(Self { address, len: 0, pin: pin(address, len)?, pages: None })
    }

    /// Managed memory: present page by page as it is touched.
    pub fn managed(len: usize) -> Result<Self, Error> {
        match devices()? {
            Some(devices) => Self::of(len, READ_WRITE, libc::MAP_SHARED, (devices.managed().as_raw_fd(), 0)),
            None => Self::on_demand(len),
        }
    }

    /// Present page by page as they are touched.
    pub fn on_demand(len: usize) -> Result<Self, Error> {
        Self::new(len, READ_WRITE, libc::MAP_PRIVATE | libc::MAP_NORESERVE)
    }

    /// Addresses only, at a multiple of `align` (a power of two).
    pub fn addresses(len: usize, align: usize) -> Result<Self, Error> {
        let room = len.checked_add(align).ok_or(Error::OUT_OF_MEMORY)?;
        let mut whole = Self::new(room, libc::PROT_NONE, libc::MAP_PRIVATE | libc::MAP_NORESERVE)?;
        let begin = whole.address.next_multiple_of(align);
        let (head, tail) = (begin - whole.address, whole.address + room - (begin + len));
        for (address, len) in [(whole.address, head), (begin + len, tail)] {
            drop(Self { address, len, pin: None, pages: None });
        }
        (whole.address, whole.len) = (begin, len);
        Ok(whole)
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // Unmapped first, they would be nobody's and still there.
        self.pin = None;
        if self.len > 0 {
            // SAFETY: the range is ours alone. That the program no longer uses it is its part of the contract of
            // the function that frees, as it is with a GPU.
            unsafe { libc::munmap(std::ptr::with_exposed_provenance_mut(self.address), self.len) };
        }
    }
}

/// Has the driver pin pages of this process, where it is one of the kernel's.
fn pin(address: usize, len: usize) -> Result<Option<Taken>, Error> {
    devices()?.map(|devices| devices.pin(address, len)).transpose()
}

/// What cuMemCreate makes: pages that stay as long as this lives, or they are mapped.
#[derive(Debug)]
pub struct Physical {
    pages: Pages,
    pub len: usize,
}

#[derive(Debug)]
enum Pages {
    /// Of a memfd.
    File(OwnedFd),
    /// Of the driver's module.
    Taken(Taken),
}

impl Physical {
    /// File and offset by which its bytes from `offset` on are mapped.
    pub fn place(&self, offset: usize) -> (i32, usize) {
        match &self.pages {
            Pages::File(file) => (file.as_raw_fd(), offset),
            Pages::Taken(taken) => taken.place(offset),
        }
    }

    pub fn new(len: usize) -> Result<Self, Error> {
        let own = framebuffer()?.is_some();
        if !own {
            check_free(len)?;
            if let Some(devices) = devices()? {
                return Ok(Self { pages: Pages::Taken(devices.take(len)?), len });
            }
        }
        // SAFETY: the name is a string that ends; a new descriptor touches nothing of ours.
        let fd = unsafe { libc::memfd_create(c"simulated-cuda".as_ptr(), libc::MFD_CLOEXEC) };
        if fd < 0 {
            return Err(Error::OUT_OF_MEMORY);
        }
        // SAFETY: just made, and nobody else's.
        let file = unsafe { OwnedFd::from_raw_fd(fd) };
        let size = libc::off_t::try_from(len).map_err(|_| Error::OUT_OF_MEMORY)?;
        // SAFETY: plain numbers; fallocate makes the file's pages now, as a GPU's would be. Those of a framebuffer come as they are
        // touched.
        let made = unsafe {
            match own {
                true => libc::ftruncate(file.as_raw_fd(), size),
                false => libc::fallocate(file.as_raw_fd(), 0, 0, size),
            }
        };
        if made != 0 {
            return Err(Error::OUT_OF_MEMORY);
        }
        Ok(Self { pages: Pages::File(file), len })
    }
}

fn advise(address: usize, len: usize, advice: i32) -> io::Result<()> {
    // SAFETY: only advice that keeps contents is given, on a range that its callers know to be mapped or that the
    // kernel refuses.
    match unsafe { libc::madvise(std::ptr::with_exposed_provenance_mut(address), len, advice) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Makes every page of a writable range present. Ranges that are not mapped, or not writable, are refused.
pub fn populate(address: usize, len: usize) -> Result<(), Error> {
    loop {
        match advise(address, len, libc::MADV_POPULATE_WRITE) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // A kernel before 5.14 does not know the advice.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => break,
            Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN)) => {}
            Err(_) => return Err(Error::OUT_OF_MEMORY),
        }
    }
    for page in (address..address + len).step_by(page_size()) {
        let byte: *mut u8 = std::ptr::with_exposed_provenance_mut(page);
        // SAFETY: only new mappings of ours and memory that the program registers come here, both of them
        // writable; what is there is written back.
        unsafe { byte.write_volatile(byte.read_volatile()) };
    }
    Ok(())
}
