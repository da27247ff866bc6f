//! Device memory and managed memory.

use std::ffi::c_uint;

use crate::abi::{CUdeviceptr, Done, Error, Out, exported};
use crate::blocks::{Block, Kind};
use crate::mapping::{Mapping, round_up};
use crate::meminfo::page_size;
use crate::state::lock;

/// Puts a new mapping among the blocks and returns its address.
pub fn enter(mapping: Mapping, kind: Kind) -> Result<usize, Error> {
    let mut state = lock()?;
    let context = state.current()?;
    let (address, len) = (mapping.address, mapping.len);
    let device = state.current_device()?;
    state.blocks.insert(address, Block { kind, len, device, context, mapping: Some(mapping) });
    state.keep_accounts();
    Ok(address)
}

fn device_memory(bytes: usize) -> Result<u64, Error> {
    if bytes == 0 {
        return Err(Error::INVALID_VALUE);
    }
    let len = round_up(bytes, page_size())?;
    let state = lock()?;
    state.check_room(state.current_device()?, len)?;
    drop(state);
    let mapping = Mapping::device(len)?;
    Ok(enter(mapping, Kind::Device)? as u64)
}

/// Frees a block that begins at this address, if it is of a kind wanted.
pub fn free(address: usize, wanted: impl Fn(Kind) -> bool) -> Done {
    let mut state = lock()?;
    state.current()?;
    let block = state.blocks.remove(address, wanted).ok_or(Error::INVALID_VALUE)?;
    state.keep_accounts();
    // Unmapping takes long, and others may go on meanwhile.
    drop(state);
    drop(block.mapping);
    Ok(())
}

exported! {
    fn cuMemAlloc_v2(address: Out<CUdeviceptr>, bytes: usize) {
        address.put(device_memory(bytes)?)
    }

    fn cuMemAllocPitch_v2(
        address: Out<CUdeviceptr>, pitch: Out<usize>, width: usize, height: usize, element: c_uint,
    ) {
        if !matches!(element, 4 | 8 | 16) {
            return Err(Error::INVALID_VALUE);
        }
        let row = round_up(width.max(1), 512)?;
        let bytes = row.checked_mul(height).ok_or(Error::OUT_OF_MEMORY)?;
        address.put(device_memory(bytes)?)?;
        pitch.put(row)
    }

    fn cuMemAllocManaged(address: Out<CUdeviceptr>, bytes: usize, flags: c_uint) {
        // CU_MEM_ATTACH_GLOBAL or CU_MEM_ATTACH_HOST.
        if bytes == 0 || !matches!(flags, 1 | 2) {
            return Err(Error::INVALID_VALUE);
        }
        lock()?.current()?;
        let mapping = Mapping::managed(round_up(bytes, page_size())?)?;
        address.put(enter(mapping, Kind::Managed)? as u64)
    }

    fn cuMemFree_v2(address: CUdeviceptr) {
        if address == 0 {
            return Ok(());
        }
        let address = usize::try_from(address).map_err(|_| Error::INVALID_VALUE)?;
        free(address, |kind| matches!(kind, Kind::Device | Kind::Managed | Kind::Pool(_)))
    }

    fn cuMemGetAddressRange_v2(base: Out<CUdeviceptr>, size: Out<usize>, address: CUdeviceptr) {
        let state = lock()?;
        let (begin, len) = state.blocks.containing(address).ok_or(Error::INVALID_VALUE)?;
        base.put_if_wanted(begin as u64);
        size.put_if_wanted(len);
        Ok(())
    }
}
