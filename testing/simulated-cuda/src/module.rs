//! Modules and kernels.

use std::ffi::{CStr, c_char, c_uint, c_void};

use crate::abi::{Done, Error, Handle, Kernel, Out, Text, exported};
use crate::kernel::{self, Launch};
use crate::state::{Object, lock};

/// Names after `.entry` in PTX text.
fn entries(ptx: &str) -> Vec<String> {
    let after = ptx.split(".entry").skip(1);
    let is_name = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '_' | '$');
    after.map(|rest| rest.trim_start().chars().take_while(is_name).collect()).collect()
}

fn load(module: &Out<Handle>, image: *const c_void) -> Done {
    lock()?.current()?;
    if image.is_null() {
        return Err(Error::INVALID_VALUE);
    }
    // SAFETY: any image has a byte that shows its format.
    let first = unsafe { image.cast::<u8>().read() };
    // Compiled images begin with other bytes and do not end with a NUL.
    let is_text = |byte: &u8| byte.is_ascii_graphic() || byte.is_ascii_whitespace();
    if !is_text(&first) {
        return Err(Error::INVALID_IMAGE);
    }
    // SAFETY: the caller vouches for PTX being a string that ends.
    let ptx = unsafe { CStr::from_ptr(image.cast::<c_char>()) }.to_str().map_err(|_| Error::INVALID_IMAGE)?;
    if !ptx.contains(".version") || !ptx.contains(".target") {
        return Err(Error::INVALID_IMAGE);
    }
    let number = lock()?.add(Object::Module(entries(ptx)));
    module.put(std::ptr::without_provenance_mut(number))
}

#[allow(clippy::too_many_arguments)] // CUDA's, in its order.
fn launch(
    function: Handle,
    grid: [c_uint; 3],
    block: [c_uint; 3],
    stream: Handle,
    params: *mut *mut c_void,
) -> Done {
    let mut state = lock()?;
    state.check_stream(stream)?;
    let kernel = match state.object(function)? {
        Object::Function(kernel) => *kernel,
        _ => return Err(Error::INVALID_HANDLE),
    };
    drop(state);
    if params.is_null() {
        // Parameters in one buffer (`extra`) are for callers other than ours.
        return Err(Error::NOT_SUPPORTED);
    }
    kernel::run(kernel, &Launch { grid, block, params })
}

exported! {
    fn cuModuleLoadData(module: Out<Handle>, image: *const c_void) {
        load(&module, image)
    }

    fn cuModuleLoadDataEx(
        module: Out<Handle>, image: *const c_void, _count: c_uint, _options: *mut c_uint, _values: *mut *mut c_void,
    ) {
        load(&module, image)
    }

    fn cuModuleUnload(module: Handle) {
        let mut state = lock()?;
        match state.object(module)? {
            Object::Module(_) => state.objects.remove(&module.addr()),
            _ => return Err(Error::INVALID_HANDLE),
        };
        Ok(())
    }

    fn cuModuleGetFunction(function: Out<Handle>, module: Handle, name: Text) {
        let name = name.bytes()?;
        let mut state = lock()?;
        let Object::Module(entries) = state.object(module)? else {
            return Err(Error::INVALID_HANDLE);
        };
        if !entries.iter().any(|entry| entry.as_bytes() == name) {
            return Err(Error::NOT_FOUND);
        }
        let kernel = Kernel::by_name(name).ok_or(Error::NOT_SUPPORTED)?;
        let number = state.add(Object::Function(kernel));
        function.put(std::ptr::without_provenance_mut(number))
    }

    fn cuLaunchKernel(
        function: Handle,
        grid_x: c_uint, grid_y: c_uint, grid_z: c_uint,
        block_x: c_uint, block_y: c_uint, block_z: c_uint,
        _shared_bytes: c_uint, stream: Handle, params: *mut *mut c_void, _extra: *mut *mut c_void,
    ) {
        launch(function, [grid_x, grid_y, grid_z], [block_x, block_y, block_z], stream, params)
    }

    fn cuLaunchKernel_ptsz(
        function: Handle,
        grid_x: c_uint, grid_y: c_uint, grid_z: c_uint,
        block_x: c_uint, block_y: c_uint, block_z: c_uint,
        _shared_bytes: c_uint, stream: Handle, params: *mut *mut c_void, _extra: *mut *mut c_void,
    ) {
        launch(function, [grid_x, grid_y, grid_z], [block_x, block_y, block_z], stream, params)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entry_names() {
        assert_eq!(entries(".visible .entry a_1(\n.param .u64 x)\n{}\n.entry\tb$2 ("), ["a_1", "b$2"]);
        assert!(entries(".func f()").is_empty());
    }
}
