//! Streams and events. Work is done when it is given, so nothing is ever waited for.

use std::ffi::{c_int, c_uint};
use std::time::Instant;

use crate::abi::{Done, Error, Handle, Out, exported};
use crate::state::{Object, lock};

fn new_stream(stream: &Out<Handle>) -> Done {
    let mut state = lock()?;
    state.current()?;
    let device = state.current_device()?;
    let number = state.add(Object::Stream(device));
    stream.put(std::ptr::without_provenance_mut(number))
}

fn synchronize(stream: Handle) -> Done {
    let mut state = lock()?;
    state.check_stream(stream)?;
    state.synchronize();
    Ok(())
}

fn recorded(event: Handle) -> Result<Option<Instant>, Error> {
    match lock()?.object(event)? {
        Object::Event(time) => Ok(*time),
        _ => Err(Error::INVALID_HANDLE),
    }
}

fn record(event: Handle, stream: Handle) -> Done {
    let mut state = lock()?;
    state.check_stream(stream)?;
    match state.object(event)? {
        Object::Event(time) => *time = Some(Instant::now()),
        _ => return Err(Error::INVALID_HANDLE),
    }
    Ok(())
}

fn destroy(handle: Handle, wanted: fn(&Object) -> bool) -> Done {
    let mut state = lock()?;
    if !wanted(state.object(handle)?) {
        return Err(Error::INVALID_HANDLE);
    }
    state.objects.remove(&handle.addr());
    Ok(())
}

exported! {
    fn cuStreamCreate(stream: Out<Handle>, _flags: c_uint) {
        new_stream(&stream)
    }

    fn cuStreamCreateWithPriority(stream: Out<Handle>, _flags: c_uint, _priority: c_int) {
        new_stream(&stream)
    }

    fn cuStreamDestroy_v2(stream: Handle) {
        destroy(stream, |object| matches!(object, Object::Stream(_)))
    }

    fn cuStreamSynchronize(stream: Handle) {
        synchronize(stream)
    }

    fn cuStreamSynchronize_ptsz(stream: Handle) {
        synchronize(stream)
    }

    fn cuStreamQuery(stream: Handle) {
        lock()?.check_stream(stream)
    }

    fn cuStreamWaitEvent(stream: Handle, event: Handle, _flags: c_uint) {
        lock()?.check_stream(stream)?;
        recorded(event).map(|_| ())
    }

    fn cuEventCreate(event: Out<Handle>, _flags: c_uint) {
        let mut state = lock()?;
        state.current()?;
        let number = state.add(Object::Event(None));
        event.put(std::ptr::without_provenance_mut(number))
    }

    fn cuEventDestroy_v2(event: Handle) {
        destroy(event, |object| matches!(object, Object::Event(_)))
    }

    fn cuEventRecord(event: Handle, stream: Handle) {
        record(event, stream)
    }

    fn cuEventRecord_ptsz(event: Handle, stream: Handle) {
        record(event, stream)
    }

    fn cuEventQuery(event: Handle) {
        recorded(event).map(|_| ())
    }

    fn cuEventSynchronize(event: Handle) {
        recorded(event)?;
        lock()?.synchronize();
        Ok(())
    }

    fn cuEventElapsedTime(milliseconds: Out<f32>, begin: Handle, end: Handle) {
        let (Some(begin), Some(end)) = (recorded(begin)?, recorded(end)?) else {
            return Err(Error::INVALID_HANDLE);
        };
        milliseconds.put(end.saturating_duration_since(begin).as_secs_f32() * 1e3)
    }
}
