//! Copying and filling. All of it is done when the function returns.

use std::ffi::{c_uchar, c_uint, c_ushort, c_void};

use crate::abi::{CUdeviceptr, Done, Error, Handle, exported};
use crate::state::{State, lock};

/// Host memory of the program, which vouches for it; or what we know to be ours.
fn copy(to: *mut u8, from: *const u8, len: usize) {
    // SAFETY: device ranges have been looked up among the blocks, host ranges are vouched for by the caller of the
    // driver's function; and they may overlap.
    unsafe { std::ptr::copy(from, to, len) };
}

fn device(state: &State, address: CUdeviceptr, len: usize) -> Result<*mut u8, Error> {
    Ok(std::ptr::with_exposed_provenance_mut(state.blocks.range(address, len)?))
}

fn to_device(to: CUdeviceptr, from: *const c_void, len: usize, stream: Handle) -> Done {
    let state = lock()?;
    state.check_stream(stream)?;
    if from.is_null() {
        return Err(Error::INVALID_VALUE);
    }
    copy(device(&state, to, len)?, from.cast(), len);
    Ok(())
}

fn to_host(to: *mut c_void, from: CUdeviceptr, len: usize, stream: Handle) -> Done {
    let state = lock()?;
    state.check_stream(stream)?;
    if to.is_null() {
        return Err(Error::INVALID_VALUE);
    }
    copy(to.cast(), device(&state, from, len)?, len);
    Ok(())
}

fn within_device(to: CUdeviceptr, from: CUdeviceptr, len: usize, stream: Handle) -> Done {
    let state = lock()?;
    state.check_stream(stream)?;
    copy(device(&state, to, len)?, device(&state, from, len)?, len);
    Ok(())
}

/// cuMemcpy takes any two addresses: of the device where we know them, else of the host.
fn anywhere(to: CUdeviceptr, from: CUdeviceptr, len: usize, stream: Handle) -> Done {
    let state = lock()?;
    state.check_stream(stream)?;
    let pointer = |address: CUdeviceptr| match usize::try_from(address) {
        Ok(address) if address != 0 => Ok(std::ptr::with_exposed_provenance_mut::<u8>(address)),
        _ => Err(Error::INVALID_VALUE),
    };
    copy(pointer(to)?, pointer(from)?, len);
    Ok(())
}

fn fill<T: Copy>(to: CUdeviceptr, value: T, count: usize, stream: Handle) -> Done {
    let state = lock()?;
    state.check_stream(stream)?;
    let len = count.checked_mul(size_of::<T>()).ok_or(Error::INVALID_VALUE)?;
    let to = device(&state, to, len)?.cast::<T>();
    if !to.is_aligned() {
        return Err(Error::INVALID_VALUE);
    }
    for index in 0..count {
        // SAFETY: `count` of them fit into the range just looked up, which is aligned.
        unsafe { to.add(index).write(value) };
    }
    Ok(())
}

const DEFAULT: Handle = std::ptr::null_mut();

exported! {
    fn cuMemcpy(to: CUdeviceptr, from: CUdeviceptr, len: usize) {
        anywhere(to, from, len, DEFAULT)
    }

    fn cuMemcpyAsync(to: CUdeviceptr, from: CUdeviceptr, len: usize, stream: Handle) {
        anywhere(to, from, len, stream)
    }

    fn cuMemcpyHtoD_v2(to: CUdeviceptr, from: *const c_void, len: usize) {
        to_device(to, from, len, DEFAULT)
    }

    fn cuMemcpyHtoDAsync_v2(to: CUdeviceptr, from: *const c_void, len: usize, stream: Handle) {
        to_device(to, from, len, stream)
    }

    fn cuMemcpyDtoH_v2(to: *mut c_void, from: CUdeviceptr, len: usize) {
        to_host(to, from, len, DEFAULT)
    }

    fn cuMemcpyDtoHAsync_v2(to: *mut c_void, from: CUdeviceptr, len: usize, stream: Handle) {
        to_host(to, from, len, stream)
    }

    fn cuMemcpyDtoD_v2(to: CUdeviceptr, from: CUdeviceptr, len: usize) {
        within_device(to, from, len, DEFAULT)
    }

    fn cuMemcpyDtoDAsync_v2(to: CUdeviceptr, from: CUdeviceptr, len: usize, stream: Handle) {
        within_device(to, from, len, stream)
    }

    fn cuMemsetD8_v2(to: CUdeviceptr, value: c_uchar, count: usize) {
        fill(to, value, count, DEFAULT)
    }

    fn cuMemsetD8Async(to: CUdeviceptr, value: c_uchar, count: usize, stream: Handle) {
        fill(to, value, count, stream)
    }

    fn cuMemsetD16_v2(to: CUdeviceptr, value: c_ushort, count: usize) {
        fill(to, value, count, DEFAULT)
    }

    fn cuMemsetD16Async(to: CUdeviceptr, value: c_ushort, count: usize, stream: Handle) {
        fill(to, value, count, stream)
    }

    fn cuMemsetD32_v2(to: CUdeviceptr, value: c_uint, count: usize) {
        fill(to, value, count, DEFAULT)
    }

    fn cuMemsetD32Async(to: CUdeviceptr, value: c_uint, count: usize, stream: Handle) {
        fill(to, value, count, stream)
    }
}
