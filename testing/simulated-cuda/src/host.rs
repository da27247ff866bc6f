//! Pinned host memory.

use std::ffi::{c_uint, c_void};

use crate::abi::{CUdeviceptr, Error, Out, exported};
use crate::blocks::{Block, Kind};
use crate::mapping::{Mapping, round_up};
use crate::meminfo::page_size;
use crate::memory;
use crate::state::lock;

fn pinned(bytes: usize) -> Result<*mut c_void, Error> {
    if bytes == 0 {
        return Err(Error::INVALID_VALUE);
    }
    lock()?.current()?;
    let mapping = Mapping::pinned(round_up(bytes, page_size())?)?;
    Ok(std::ptr::with_exposed_provenance_mut(memory::enter(mapping, Kind::Host)?))
}

exported! {
    fn cuMemAllocHost_v2(address: Out<*mut c_void>, bytes: usize) {
        address.put(pinned(bytes)?)
    }

    fn cuMemHostAlloc(address: Out<*mut c_void>, bytes: usize, flags: c_uint) {
        // PORTABLE, DEVICEMAP and WRITECOMBINED.
        if flags & !7 != 0 {
            return Err(Error::INVALID_VALUE);
        }
        address.put(pinned(bytes)?)
    }

    fn cuMemFreeHost(address: *mut c_void) {
        memory::free(address.addr(), |kind| kind == Kind::Host)
    }

    fn cuMemHostRegister_v2(address: *mut c_void, bytes: usize, _flags: c_uint) {
        if address.is_null() || bytes == 0 {
            return Err(Error::INVALID_VALUE);
        }
        let mut state = lock()?;
        let context = state.current()?;
        let address = address.expose_provenance();
        if address.checked_add(bytes).is_none() {
            return Err(Error::INVALID_VALUE);
        }
        if state.blocks.overlaps(address, bytes) {
            return Err(Error::HOST_MEMORY_ALREADY_REGISTERED);
        }
        // Pinning brings in every page, and fails where nothing is mapped.
        let begin = address / page_size() * page_size();
        let end = round_up(address + bytes, page_size())?;
        let mapping = Mapping::registered(begin, end - begin).map_err(|_| Error::INVALID_VALUE)?;
        let block = Block { kind: Kind::Registered, len: bytes, device: 0, context, mapping: Some(mapping) };
        state.blocks.insert(address, block);
        Ok(())
    }

    fn cuMemHostUnregister(address: *mut c_void) {
        let mut state = lock()?;
        state.current()?;
        let block = state.blocks.remove(address.addr(), |kind| kind == Kind::Registered);
        block.map(drop).ok_or(Error::HOST_MEMORY_NOT_REGISTERED)
    }

    fn cuMemHostGetDevicePointer_v2(device: Out<CUdeviceptr>, address: *mut c_void, flags: c_uint) {
        if flags != 0 {
            return Err(Error::INVALID_VALUE);
        }
        let address = lock()?.blocks.range(address.addr() as u64, 1)?;
        device.put(address as u64)
    }
}
