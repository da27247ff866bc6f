//! Contexts.

use std::ffi::{c_int, c_uint, c_void};

use crate::abi::{CUdevice, Error, Handle, Out, exported};
use crate::state::{Object, check_device, lock, set_current};

fn handle(number: usize) -> Handle {
    std::ptr::without_provenance_mut(number)
}

fn create(context: &Out<Handle>, device: CUdevice) -> Result<(), Error> {
    check_device(device)?;
    let number = lock()?.add(Object::Context);
    context.put(handle(number))?;
    set_current(number);
    Ok(())
}

fn is_context(context: Handle) -> Result<usize, Error> {
    match lock()?.object(context) {
        Ok(Object::Context) => Ok(context.addr()),
        _ => Err(Error::INVALID_CONTEXT),
    }
}

exported! {
    fn cuDevicePrimaryCtxRetain(context: Out<Handle>, device: CUdevice) {
        check_device(device)?;
        let mut state = lock()?;
        let (number, retained) = match state.primary {
            Some(primary) => primary,
            None => (state.add(Object::Context), 0),
        };
        state.primary = Some((number, retained + 1));
        context.put(handle(number))
    }

    fn cuDevicePrimaryCtxRelease_v2(device: CUdevice) {
        check_device(device)?;
        let mut state = lock()?;
        match state.primary {
            None => return Err(Error::INVALID_CONTEXT),
            Some((number, 1)) => {
                state.primary = None;
                state.end_context(number);
            }
            Some((number, retained)) => state.primary = Some((number, retained - 1)),
        }
        Ok(())
    }

    fn cuDevicePrimaryCtxReset_v2(device: CUdevice) {
        check_device(device)?;
        let mut state = lock()?;
        if let Some((number, _)) = state.primary.take() {
            state.end_context(number);
        }
        Ok(())
    }

    fn cuDevicePrimaryCtxGetState(device: CUdevice, flags: Out<c_uint>, active: Out<c_int>) {
        check_device(device)?;
        flags.put(0)?;
        active.put(c_int::from(lock()?.primary.is_some()))
    }

    fn cuCtxCreate_v2(context: Out<Handle>, _flags: c_uint, device: CUdevice) {
        create(&context, device)
    }

    fn cuCtxCreate_v4(context: Out<Handle>, _params: *mut c_void, _flags: c_uint, device: CUdevice) {
        create(&context, device)
    }

    fn cuCtxDestroy_v2(context: Handle) {
        let number = is_context(context)?;
        let mut state = lock()?;
        if state.primary.is_some_and(|(primary, _)| primary == number) {
            return Err(Error::INVALID_CONTEXT);
        }
        state.end_context(number);
        Ok(())
    }

    fn cuCtxSetCurrent(context: Handle) {
        if !context.is_null() {
            is_context(context)?;
        }
        set_current(context.addr());
        Ok(())
    }

    fn cuCtxGetCurrent(context: Out<Handle>) {
        let current = lock()?.current_or_none();
        context.put(handle(current))
    }

    fn cuCtxGetDevice(device: Out<CUdevice>) {
        lock()?.current()?;
        device.put(0)
    }

    fn cuCtxSynchronize() {
        let mut state = lock()?;
        state.current()?;
        state.synchronize();
        Ok(())
    }
}
