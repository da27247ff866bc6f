//! Memory in stream order, from pools.

use std::ffi::{c_int, c_uint, c_void};

use crate::abi::{CUdevice, CUdeviceptr, Done, Error, Handle, Out, exported};
use crate::blocks::{Block, Kind};
use crate::mapping::{Mapping, round_up};
use crate::meminfo::page_size;
use crate::state::{Object, Pool, State, check_device, lock};

/// CU_MEMPOOL_ATTR_RELEASE_THRESHOLD and CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT.
const RELEASE_THRESHOLD: c_uint = 4;
const RESERVED_CURRENT: c_uint = 5;

fn default_pool(state: &mut State, device: CUdevice) -> usize {
    if let Some(pool) = state.default_pools.get(&device) {
        return *pool;
    }
    let pool = state.add(Object::Pool(Pool { device, ..Pool::default() }));
    state.default_pools.insert(device, pool);
    pool
}

/// What properties of memory (cuda.h, CUmemPoolProps and CUmemAllocationProp) say of its device: those of a type that is
/// none stand for the first.
///
/// # Safety
/// `properties` must be good for sixteen bytes.
pub unsafe fn device_of(properties: *const c_void) -> CUdevice {
    // SAFETY: the caller's word; the location is the third and fourth number.
    let [kind, number] = unsafe { properties.cast::<[c_int; 2]>().add(1).read_unaligned() };
    if kind == 1 { number } else { 0 }
}

fn allocate(bytes: usize, pool: Option<Handle>, stream: Handle) -> Result<u64, Error> {
    if bytes == 0 {
        return Err(Error::INVALID_VALUE);
    }
    let len = round_up(bytes, page_size())?;
    let mut state = lock()?;
    state.check_stream(stream)?;
    let context = state.current()?;
    let device = state.device_of_stream(stream)?;
    let number = pool.map_or_else(|| default_pool(&mut state, device), |pool| pool.addr());
    let of_pool = state.pool(number)?.device;
    state.check_room(of_pool, len)?;
    let pool = state.pool(number)?;
    let mapping = match pool.cached.iter().position(|mapping| mapping.len == len) {
        Some(index) => pool.cached.swap_remove(index),
        None => Mapping::device(len)?,
    };
    let (address, device) = (mapping.address, pool.device);
    let kind = Kind::Pool(number);
    state.blocks.insert(address, Block { kind, len, device, context, mapping: Some(mapping) });
    state.keep_accounts();
    Ok(address as u64)
}

/// Back to its pool; to the system at the next synchronisation.
fn free(address: CUdeviceptr, stream: Handle) -> Done {
    let address = usize::try_from(address).map_err(|_| Error::INVALID_VALUE)?;
    let mut state = lock()?;
    state.check_stream(stream)?;
    let wanted = |kind| matches!(kind, Kind::Pool(_) | Kind::Device | Kind::Managed);
    let block = state.blocks.remove(address, wanted).ok_or(Error::INVALID_VALUE)?;
    if let (Kind::Pool(number), Some(mapping)) = (block.kind, block.mapping) {
        // A pool that has been destroyed keeps nothing.
        if let Ok(pool) = state.pool(number) {
            pool.cached.push(mapping);
        }
        state.keep_accounts();
    }
    Ok(())
}

exported! {
    fn cuMemAllocAsync(address: Out<CUdeviceptr>, bytes: usize, stream: Handle) {
        address.put(allocate(bytes, None, stream)?)
    }

    fn cuMemAllocAsync_ptsz(address: Out<CUdeviceptr>, bytes: usize, stream: Handle) {
        address.put(allocate(bytes, None, stream)?)
    }

    fn cuMemAllocFromPoolAsync(address: Out<CUdeviceptr>, bytes: usize, pool: Handle, stream: Handle) {
        address.put(allocate(bytes, Some(pool), stream)?)
    }

    fn cuMemAllocFromPoolAsync_ptsz(address: Out<CUdeviceptr>, bytes: usize, pool: Handle, stream: Handle) {
        address.put(allocate(bytes, Some(pool), stream)?)
    }

    fn cuMemFreeAsync(address: CUdeviceptr, stream: Handle) {
        free(address, stream)
    }

    fn cuMemFreeAsync_ptsz(address: CUdeviceptr, stream: Handle) {
        free(address, stream)
    }

    fn cuDeviceGetDefaultMemPool(pool: Out<Handle>, device: CUdevice) {
        check_device(device)?;
        let number = default_pool(&mut *lock()?, device);
        pool.put(std::ptr::without_provenance_mut(number))
    }

    fn cuDeviceGetMemPool(pool: Out<Handle>, device: CUdevice) {
        check_device(device)?;
        let number = default_pool(&mut *lock()?, device);
        pool.put(std::ptr::without_provenance_mut(number))
    }

    fn cuMemPoolCreate(pool: Out<Handle>, properties: *const c_void) {
        if properties.is_null() {
            return Err(Error::INVALID_VALUE);
        }
        // SAFETY: the caller vouches for properties, which are longer.
        let device = unsafe { device_of(properties) };
        check_device(device)?;
        let number = lock()?.add(Object::Pool(Pool { device, ..Pool::default() }));
        pool.put(std::ptr::without_provenance_mut(number))
    }

    fn cuMemPoolDestroy(pool: Handle) {
        let mut state = lock()?;
        if state.default_pools.values().any(|number| *number == pool.addr()) {
            return Err(Error::INVALID_VALUE);
        }
        state.pool(pool.addr())?;
        state.objects.remove(&pool.addr());
        state.keep_accounts();
        Ok(())
    }

    fn cuMemPoolTrimTo(pool: Handle, keep: usize) {
        let mut state = lock()?;
        state.pool(pool.addr())?.trim(keep as u64);
        state.keep_accounts();
        Ok(())
    }

    /// Of the attributes, the release threshold has an effect; the others are accepted.
    fn cuMemPoolSetAttribute(pool: Handle, attribute: c_uint, value: *mut c_void) {
        let mut state = lock()?;
        let pool = state.pool(pool.addr())?;
        if value.is_null() {
            return Err(Error::INVALID_VALUE);
        }
        if attribute == RELEASE_THRESHOLD {
            // SAFETY: the caller vouches for the type that this attribute has, a cuuint64_t.
            pool.release_threshold = unsafe { value.cast::<u64>().read() };
        }
        Ok(())
    }

    fn cuMemPoolGetAttribute(pool: Handle, attribute: c_uint, value: *mut c_void) {
        let mut state = lock()?;
        let used = state.blocks.bytes_of(Kind::Pool(pool.addr()));
        let pool = state.pool(pool.addr())?;
        let cached: u64 = pool.cached.iter().map(|mapping| mapping.len as u64).sum();
        if value.is_null() {
            return Err(Error::INVALID_VALUE);
        }
        let answer = match attribute {
            // Reuse by event, by opportunity and by dependency: ints, and all of them on.
            1..=3 => {
                // SAFETY: the caller vouches for the type that these attributes have, an int.
                unsafe { value.cast::<c_int>().write(1) };
                return Ok(());
            }
            RELEASE_THRESHOLD => pool.release_threshold,
            RESERVED_CURRENT => used + cached,
            // CU_MEMPOOL_ATTR_USED_MEM_CURRENT.
            7 => used,
            _ => return Err(Error::NOT_SUPPORTED),
        };
        // SAFETY: as above; these are a cuuint64_t.
        unsafe { value.cast::<u64>().write(answer) };
        Ok(())
    }
}
