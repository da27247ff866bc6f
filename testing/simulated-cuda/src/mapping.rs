//! Host memory that plays the part of device memory.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use crate::abi::Error;
use crate::meminfo::MemInfo;

pub fn page_size() -> usize {
    // SAFETY: sysconf takes a plain number and touches no memory of ours.
    usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096)
}

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
}

impl Mapping {
    fn new(len: usize, prot: i32, flags: i32) -> Result<Self, Error> {
        let flags = flags | libc::MAP_ANONYMOUS;
        // SAFETY: at an address of the kernel's choice, a new mapping replaces nothing.
        let address = unsafe { libc::mmap(std::ptr::null_mut(), len, prot, flags, -1, 0) };
        if address == libc::MAP_FAILED {
            return Err(Error::OUT_OF_MEMORY);
        }
        let mapping = Self { address: address.addr(), len };
        // Base pages: the bytes taken should be the bytes requested. A kernel without huge pages refuses the advice.
        let _ = advise(mapping.address, len, libc::MADV_NOHUGEPAGE);
        Ok(mapping)
    }

    /// Pages of this process, present at once.
    pub fn resident(len: usize) -> Result<Self, Error> {
        check_free(len)?;
        let mapping = Self::new(len, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE)?;
        populate(mapping.address, len)?;
        Ok(mapping)
    }

    /// Memory of the device, present at once. Where `SPARK_TRACE_SIMULATED_UNCHARGED` is set it is huge pages, which no memory
    /// cgroup counts (mm/hugetlb.c charges them only where cgroup v2 is mounted with memory_hugetlb_accounting): NVIDIA's
    /// driver does not charge the pages of a GPU that shares the machine's memory either. They come from the free
    /// memory as far as vm.nr_overcommit_hugepages allows.
    pub fn device(len: usize) -> Result<Self, Error> {
        if std::env::var_os(UNCHARGED).is_none() {
            return Self::resident(len);
        }
        check_free(len)?;
        let unit = usize::try_from(MemInfo::read()?.huge_page).map_err(|_| Error::NOT_SUPPORTED)?;
        let len = round_up(len, unit)?;
        let mapping =
            Self::new(len, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_HUGETLB)?;
        populate(mapping.address, len)?;
        Ok(mapping)
    }

    /// Shared pages, present at once: pinned host memory of the real driver counts as shmem.
    pub fn resident_shared(len: usize) -> Result<Self, Error> {
        check_free(len)?;
        let mapping = Self::new(len, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED)?;
        populate(mapping.address, len)?;
        Ok(mapping)
    }

    /// Present page by page as they are touched.
    pub fn on_demand(len: usize) -> Result<Self, Error> {
        Self::new(len, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_NORESERVE)
    }

    /// Addresses only, at a multiple of `align` (a power of two).
    pub fn addresses(len: usize, align: usize) -> Result<Self, Error> {
        let room = len.checked_add(align).ok_or(Error::OUT_OF_MEMORY)?;
        let mut whole = Self::new(room, libc::PROT_NONE, libc::MAP_PRIVATE | libc::MAP_NORESERVE)?;
        let begin = whole.address.next_multiple_of(align);
        let (head, tail) = (begin - whole.address, whole.address + room - (begin + len));
        drop(Self { address: whole.address, len: head });
        drop(Self { address: begin + len, len: tail });
        (whole.address, whole.len) = (begin, len);
        Ok(whole)
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if self.len > 0 {
            // SAFETY: the range is ours alone. That the program no longer uses it is its part of the contract of
            // the function that frees, as it is with a GPU.
            unsafe { libc::munmap(std::ptr::with_exposed_provenance_mut(self.address), self.len) };
        }
    }
}

/// What cuMemCreate makes: pages in a memfd, which stay as long as it is open or mapped.
#[derive(Debug)]
pub struct Physical {
    pub file: OwnedFd,
    pub len: usize,
}

impl Physical {
    pub fn new(len: usize) -> Result<Self, Error> {
        check_free(len)?;
        // SAFETY: the name is a string that ends; a new descriptor touches nothing of ours.
        let fd = unsafe { libc::memfd_create(c"simulated-cuda".as_ptr(), libc::MFD_CLOEXEC) };
        if fd < 0 {
            return Err(Error::OUT_OF_MEMORY);
        }
        // SAFETY: just made, and nobody else's.
        let file = unsafe { OwnedFd::from_raw_fd(fd) };
        let size = libc::off_t::try_from(len).map_err(|_| Error::OUT_OF_MEMORY)?;
        // SAFETY: plain numbers; fallocate makes the file's pages now, as a GPU's would be.
        if unsafe { libc::fallocate(file.as_raw_fd(), 0, 0, size) } != 0 {
            return Err(Error::OUT_OF_MEMORY);
        }
        Ok(Self { file, len })
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
