//! Finding functions by name, names of errors, and how often each function ran.

use std::ffi::{c_char, c_int, c_uint, c_ulonglong, c_void};
use std::sync::atomic::Ordering;

use crate::abi::{CUresult, ERRORS, Error, Function, Out, Text, exported};
use crate::{context, copy, device, host, memory, module, pool, stream, vmm};

/// All functions that the library exports under names of the driver.
pub fn functions() -> impl Iterator<Item = &'static Function> {
    [
        device::FUNCTIONS,
        context::FUNCTIONS,
        memory::FUNCTIONS,
        host::FUNCTIONS,
        pool::FUNCTIONS,
        vmm::FUNCTIONS,
        copy::FUNCTIONS,
        stream::FUNCTIONS,
        module::FUNCTIONS,
        FUNCTIONS,
    ]
    .into_iter()
    .flatten()
}

fn named(name: &[u8]) -> Option<&'static Function> {
    functions().find(|function| function.name.as_bytes() == name)
}

/// The exported function behind a name without version: its newest version that a program made for `version` of
/// CUDA knows, and for streams of one's own thread where wanted.
pub fn find(symbol: &[u8], version: c_int, per_thread: bool) -> Option<&'static Function> {
    let suffixes: &[&str] = match (version >= 13_000, per_thread) {
        (true, true) => &["_v4", "_v2_ptsz", "_ptsz", "_v2", ""],
        (true, false) => &["_v4", "_v2", ""],
        (false, true) => &["_v2_ptsz", "_ptsz", "_v2", ""],
        (false, false) => &["_v2", ""],
    };
    suffixes.iter().find_map(|suffix| named(&[symbol, suffix.as_bytes()].concat()))
}

fn text_of(
    error: CUresult,
    pick: fn(&(CUresult, &'static str, &'static str)) -> &'static str,
) -> *const c_char {
    let known = ERRORS.iter().find(|(number, ..)| *number == error);
    known.map_or(std::ptr::null(), |known| pick(known).as_ptr().cast())
}

/// CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND.
const SYMBOL_NOT_FOUND: c_uint = 1;
/// CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM.
const PER_THREAD: c_ulonglong = 2;

fn look_up(
    symbol: &Text,
    address: &Out<*const c_void>,
    version: c_int,
    flags: c_ulonglong,
    status: Option<&Out<c_uint>>,
) -> Result<(), Error> {
    let found = find(symbol.bytes()?, version, flags & PER_THREAD != 0);
    let put_status = |value| {
        if let Some(status) = status {
            status.put_if_wanted(value);
        }
    };
    address.put(found.map_or(std::ptr::null(), |function| function.address.cast()))?;
    put_status(if found.is_some() { 0 } else { SYMBOL_NOT_FOUND });
    found.map(|_| ()).ok_or(Error::NOT_FOUND)
}

exported! {
    fn cuGetProcAddress(symbol: Text, address: Out<*const c_void>, version: c_int, flags: c_ulonglong) {
        look_up(&symbol, &address, version, flags, None)
    }

    fn cuGetProcAddress_v2(
        symbol: Text, address: Out<*const c_void>, version: c_int, flags: c_ulonglong, status: Out<c_uint>,
    ) {
        look_up(&symbol, &address, version, flags, Some(&status))
    }

    fn cuGetErrorName(error: CUresult, name: Out<*const c_char>) {
        let text = text_of(error, |known| known.1);
        name.put(text)?;
        if text.is_null() { Err(Error::INVALID_VALUE) } else { Ok(()) }
    }

    fn cuGetErrorString(error: CUresult, description: Out<*const c_char>) {
        let text = text_of(error, |known| known.2);
        description.put(text)?;
        if text.is_null() { Err(Error::INVALID_VALUE) } else { Ok(()) }
    }

    /// Not CUDA's: marks this library, and says how often a function has been called in this process. -1 for a name
    /// that it does not export.
    fn spark_trace_simulated_cuda_calls(name: Text, calls: Out<i64>) {
        let count = named(name.bytes()?).map(|function| function.calls.load(Ordering::Relaxed));
        calls.put(count.and_then(|count| i64::try_from(count).ok()).unwrap_or(-1))
    }
}
