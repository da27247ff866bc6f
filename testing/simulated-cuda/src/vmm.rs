//! Virtual memory management: physical memory and addresses apart.

use std::ffi::{c_int, c_uint, c_ulonglong, c_void};
use std::io;

use crate::abi::{CUdeviceptr, Error, Out, exported};
use crate::blocks::{Block, Kind};
use crate::mapping::{Mapping, Physical, populate};
use crate::pool::device_of;
use crate::state::{check_device, check_initialized, lock};

/// Sizes are multiples of this, as on every GPU so far.
const GRANULARITY: usize = 2 << 20;

fn whole(size: usize) -> Result<usize, Error> {
    if size > 0 && size.is_multiple_of(GRANULARITY) { Ok(size) } else { Err(Error::INVALID_VALUE) }
}

/// Replaces part of a reservation by `fd`, or by nothing again.
fn map_over(address: usize, len: usize, fd: Option<(c_int, usize)>) -> Result<(), Error> {
    let (kind, fd, offset) = match fd {
        Some((fd, offset)) => (libc::MAP_SHARED, fd, offset),
        None => (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE, -1, 0),
    };
    let offset = libc::off_t::try_from(offset).map_err(|_| Error::INVALID_VALUE)?;
    let at = std::ptr::with_exposed_provenance_mut(address);
    // SAFETY: callers have checked that the range lies within addresses that we reserved; what is there is
    // replaced on the program's own request.
    let got = unsafe { libc::mmap(at, len, libc::PROT_NONE, kind | libc::MAP_FIXED, fd, offset) };
    if got == libc::MAP_FAILED { Err(Error::OUT_OF_MEMORY) } else { Ok(()) }
}

fn in_reservation(reserved: &[Mapping], address: u64, len: usize) -> Result<usize, Error> {
    let address = usize::try_from(address).map_err(|_| Error::INVALID_VALUE)?;
    let end = address.checked_add(len).ok_or(Error::INVALID_VALUE)?;
    let inside = |mapping: &Mapping| mapping.address <= address && end <= mapping.address + mapping.len;
    if reserved.iter().any(inside) { Ok(address) } else { Err(Error::INVALID_VALUE) }
}

exported! {
    fn cuMemGetAllocationGranularity(granularity: Out<usize>, properties: *const c_void, _option: c_uint) {
        check_initialized()?;
        if properties.is_null() {
            return Err(Error::INVALID_VALUE);
        }
        granularity.put(GRANULARITY)
    }

    fn cuMemCreate(handle: Out<c_ulonglong>, size: usize, properties: *const c_void, flags: c_ulonglong) {
        if properties.is_null() || flags != 0 {
            return Err(Error::INVALID_VALUE);
        }
        // SAFETY: the caller vouches for properties, which are longer.
        let device = unsafe { device_of(properties) };
        check_device(device)?;
        let mut state = lock()?;
        state.check_room(device, whole(size)?)?;
        let physical = Physical::new(size)?;
        let number = state.physical.keys().next_back().map_or(1, |last| last + 1);
        handle.put(number)?;
        state.physical.insert(number, (physical, device));
        state.keep_accounts();
        Ok(())
    }

    /// The memory goes when it is mapped nowhere any more: the kernel counts that. It leaves the accounts at once.
    fn cuMemRelease(handle: c_ulonglong) {
        let mut state = lock()?;
        state.physical.remove(&handle).map(drop).ok_or(Error::INVALID_VALUE)?;
        state.keep_accounts();
        Ok(())
    }

    /// An address to be reserved is a wish, and this driver does not grant it.
    fn cuMemAddressReserve(
        address: Out<CUdeviceptr>, size: usize, alignment: usize, _wish: CUdeviceptr, flags: c_ulonglong,
    ) {
        let alignment = alignment.max(GRANULARITY);
        if flags != 0 || !alignment.is_power_of_two() {
            return Err(Error::INVALID_VALUE);
        }
        let mut state = lock()?;
        let mapping = Mapping::addresses(whole(size)?, alignment)?;
        address.put(mapping.address as u64)?;
        state.reserved.push(mapping);
        Ok(())
    }

    fn cuMemAddressFree(address: CUdeviceptr, size: usize) {
        let mut state = lock()?;
        let found = state.reserved.iter().position(|mapping| {
            mapping.address as u64 == address && mapping.len == size
        });
        let index = found.ok_or(Error::INVALID_VALUE)?;
        let address = in_reservation(&state.reserved, address, size)?;
        if state.blocks.overlaps(address, size) {
            // Still mapped.
            return Err(Error::INVALID_VALUE);
        }
        state.reserved.swap_remove(index);
        Ok(())
    }

    fn cuMemMap(address: CUdeviceptr, size: usize, offset: usize, handle: c_ulonglong, flags: c_ulonglong) {
        let mut state = lock()?;
        if flags != 0 {
            return Err(Error::INVALID_VALUE);
        }
        let begin = in_reservation(&state.reserved, address, whole(size)?)?;
        let (physical, device) = state.physical.get(&handle).ok_or(Error::INVALID_VALUE)?;
        let fits = offset.checked_add(size).is_some_and(|end| end <= physical.len);
        if !fits || state.blocks.overlaps(begin, size) {
            return Err(Error::INVALID_VALUE);
        }
        map_over(begin, size, Some(physical.place(offset)))?;
        // Not of a context: the end of one does not unmap it.
        let block = Block { kind: Kind::Mapped, len: size, device: *device, context: 0, mapping: None };
        state.blocks.insert(begin, block);
        Ok(())
    }

    fn cuMemUnmap(address: CUdeviceptr, size: usize) {
        let mut state = lock()?;
        let begin = in_reservation(&state.reserved, address, size)?;
        if state.blocks.get(begin).is_none_or(|block| block.len != size) {
            return Err(Error::INVALID_VALUE);
        }
        state.blocks.remove(begin, |kind| kind == Kind::Mapped).ok_or(Error::INVALID_VALUE)?;
        map_over(begin, size, None)
    }

    /// Access for the device is access for all of this process: there is but one memory.
    fn cuMemSetAccess(address: CUdeviceptr, size: usize, accesses: *const c_void, count: usize) {
        let state = lock()?;
        if accesses.is_null() || count == 0 {
            return Err(Error::INVALID_VALUE);
        }
        let begin = state.blocks.range(address, size)?;
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: the range is within a block that cuMemMap has mapped.
        if unsafe { libc::mprotect(std::ptr::with_exposed_provenance_mut(begin), size, prot) } != 0 {
            return Err(match io::Error::last_os_error().raw_os_error() {
                Some(libc::ENOMEM) => Error::OUT_OF_MEMORY,
                _ => Error::INVALID_VALUE,
            });
        }
        // The pages are there; this puts them into the page tables, too.
        populate(begin, size)
    }
}
