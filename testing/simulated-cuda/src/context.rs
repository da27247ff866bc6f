//! Contexts.

use std::ffi::{c_int, c_uint, c_void};

use crate::abi::{CUdevice, Error, Handle, Out, exported};
use crate::state::{Object, check_device, lock, pop_current, push_current, set_current};

fn handle(number: usize) -> Handle {
    std::ptr::without_provenance_mut(number)
}

fn create(context: &Out<Handle>, device: CUdevice) -> Result<(), Error> {
    check_device(device)?;
    let mut state = lock()?;
    let number = state.add_context(device)?;
    context.put(handle(number))?;
    state.keep_accounts();
    push_current(number);
    Ok(())
}

fn is_context(context: Handle) -> Result<usize, Error> {
    match lock()?.object(context) {
        Ok(Object::Context(_)) => Ok(context.addr()),
        _ => Err(Error::INVALID_CONTEXT),
    }
}

exported! {
    fn cuDevicePrimaryCtxRetain(context: Out<Handle>, device: CUdevice) {
        check_device(device)?;
        let mut state = lock()?;
        let (number, retained) = match state.primary.get(&device) {
            Some(primary) => *primary,
            None => (state.add_context(device)?, 0),
        };
        state.primary.insert(device, (number, retained + 1));
        state.keep_accounts();
        context.put(handle(number))
    }

    fn cuDevicePrimaryCtxRelease_v2(device: CUdevice) {
        check_device(device)?;
        let mut state = lock()?;
        match state.primary.remove(&device) {
            None => return Err(Error::INVALID_CONTEXT),
            Some((number, 1)) => state.end_context(number),
            Some((number, retained)) => {
                state.primary.insert(device, (number, retained - 1));
            }
        }
        Ok(())
    }

    fn cuDevicePrimaryCtxReset_v2(device: CUdevice) {
        check_device(device)?;
        let mut state = lock()?;
        if let Some((number, _)) = state.primary.remove(&device) {
            state.end_context(number);
        }
        Ok(())
    }

    fn cuDevicePrimaryCtxGetState(device: CUdevice, flags: Out<c_uint>, active: Out<c_int>) {
        check_device(device)?;
        flags.put(0)?;
        active.put(c_int::from(lock()?.primary.contains_key(&device)))
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
        if state.primary.values().any(|(primary, _)| *primary == number) {
            return Err(Error::INVALID_CONTEXT);
        }
        if state.current_or_none() == number {
            pop_current();
        }
        state.end_context(number);
        Ok(())
    }

    fn cuCtxPushCurrent_v2(context: Handle) {
        push_current(is_context(context)?);
        Ok(())
    }

    fn cuCtxPopCurrent_v2(context: Out<Handle>) {
        let popped = pop_current().ok_or(Error::INVALID_CONTEXT)?;
        context.put_if_wanted(handle(popped));
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
        device.put(lock()?.current_device()?)
    }

    fn cuCtxSynchronize() {
        let mut state = lock()?;
        state.current()?;
        state.synchronize();
        Ok(())
    }
}
