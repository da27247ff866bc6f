//! Plays the part of `libnvidia-ml.so.1` where there is no GPU. **Nothing it says is measured**, and its driver's
//! version says `simulated`, which spark-trace passes on into the recording.
//!
//! It exports the functions that spark-trace's NVML source calls, so that the code that runs on a machine with a GPU
//! is the code that is tested. Its answers are in the file that `SPARK_TRACE_SIMULATED_NVML` names, read anew at
//! each call; see [`state`]. Functions that are not here are missing, as they are in old libraries.

#![allow(non_snake_case, reason = "names are those of nvml.h")]

mod state;

use std::ffi::{c_char, c_int, c_uint, c_ulonglong};

use nvml_wrapper_sys::bindings as ffi;
use state::{Gpu, List, State};

const OK: c_uint = ffi::nvmlReturn_enum_NVML_SUCCESS;
const NOT_SUPPORTED: c_uint = ffi::nvmlReturn_enum_NVML_ERROR_NOT_SUPPORTED;
const INVALID: c_uint = ffi::nvmlReturn_enum_NVML_ERROR_INVALID_ARGUMENT;
const TOO_SMALL: c_uint = ffi::nvmlReturn_enum_NVML_ERROR_INSUFFICIENT_SIZE;
const NO_DRIVER: c_uint = ffi::nvmlReturn_enum_NVML_ERROR_DRIVER_NOT_LOADED;

/// Writes to where a caller wants the answer.
///
/// # Safety
///
/// `to` is null or valid for a write of `T`.
unsafe fn put<T>(to: *mut T, value: T) -> c_uint {
    if to.is_null() {
        return INVALID;
    }
    // SAFETY: not null, and the caller says that it is valid then.
    unsafe { to.write(value) };
    OK
}

/// Writes a C string.
///
/// # Safety
///
/// `to` is null or valid for writes of `length` bytes.
unsafe fn put_text(to: *mut c_char, length: c_uint, text: &str) -> c_uint {
    let bytes = text.as_bytes();
    if to.is_null() || bytes.len() >= length as usize {
        return TOO_SMALL;
    }
    // SAFETY: there is room for the text and its end; the two do not overlap.
    unsafe {
        to.copy_from_nonoverlapping(bytes.as_ptr().cast(), bytes.len());
        to.add(bytes.len()).write(0);
    }
    OK
}

/// A handle is an index and one.
fn gpu(device: ffi::nvmlDevice_t) -> Option<Gpu> {
    State::read().gpus.into_iter().nth((device as usize).checked_sub(1)?)
}

/// A function that writes one value about a device, or a refusal.
macro_rules! device_value {
    ($($name:ident: $type:ty = $value:expr;)*) => {$(
        /// # Safety
        ///
        /// `out` is null or valid for a write.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name(device: ffi::nvmlDevice_t, out: *mut $type) -> c_uint {
            let value: fn(&Gpu) -> Result<$type, c_uint> = $value;
            match gpu(device).ok_or(INVALID).and_then(|gpu| value(&gpu)) {
                // SAFETY: as the caller says.
                Ok(value) => unsafe { put(out, value) },
                Err(refusal) => refusal,
            }
        }
    )*};
}

device_value! {
    nvmlDeviceGetUtilizationRates: ffi::nvmlUtilization_t =
        |gpu| Ok(ffi::nvmlUtilization_t { gpu: gpu.busy, memory: gpu.busy / 2 });
    nvmlDeviceGetPowerUsage: c_uint = |gpu| Ok(20_000 + 1000 * gpu.busy);
    nvmlDeviceGetCurrentClocksThrottleReasons: c_ulonglong = |gpu| Ok(if gpu.busy == 0 { 0x1 } else { 0x4 });
    nvmlDeviceGetPerformanceState: ffi::nvmlPstates_t = |gpu| Ok(if gpu.busy == 0 { 8 } else { 0 });
}

macro_rules! system_text {
    ($($name:ident = $text:expr;)*) => {$(
        /// # Safety
        ///
        /// `out` is null or valid for writes of `length` bytes.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name(out: *mut c_char, length: c_uint) -> c_uint {
            // SAFETY: as the caller says.
            unsafe { put_text(out, length, $text) }
        }
    )*};
}

system_text! {
    nvmlSystemGetDriverVersion = "580.0-simulated";
    nvmlSystemGetNVMLVersion = "13.580.0-simulated";
}

macro_rules! device_text {
    ($($name:ident = $text:expr;)*) => {$(
        /// # Safety
        ///
        /// `out` is null or valid for writes of `length` bytes.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name(device: ffi::nvmlDevice_t, out: *mut c_char, length: c_uint) -> c_uint {
            let text: fn(usize) -> String = $text;
            // SAFETY: as the caller says.
            unsafe { put_text(out, length, &text((device as usize).saturating_sub(1))) }
        }
    )*};
}

/// The same sixteen bytes as the simulated CUDA driver's: "simulated-GPU-" and two digits.
fn uuid(index: usize) -> String {
    format!("GPU-73696d75-6c61-7465-642d-4750552d3{}3{}", index / 10 % 10, index % 10)
}

device_text! {
    nvmlDeviceGetName = |index| format!("Simulated GPU {index}");
    nvmlDeviceGetUUID = uuid;
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlInit_v2() -> c_uint {
    if State::read().driver { OK } else { NO_DRIVER }
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlShutdown() -> c_uint {
    OK
}

/// # Safety
///
/// `out` is null or valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlSystemGetCudaDriverVersion_v2(out: *mut c_int) -> c_uint {
    // SAFETY: as the caller says.
    unsafe { put(out, 13_000) }
}

/// # Safety
///
/// `out` is null or valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetCount_v2(out: *mut c_uint) -> c_uint {
    // SAFETY: as the caller says.
    unsafe { put(out, State::read().gpus.len() as c_uint) }
}

/// # Safety
///
/// `out` is null or valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetHandleByIndex_v2(index: c_uint, out: *mut ffi::nvmlDevice_t) -> c_uint {
    if index as usize >= State::read().gpus.len() {
        return INVALID;
    }
    // SAFETY: as the caller says.
    unsafe { put(out, (index as usize + 1) as ffi::nvmlDevice_t) }
}

/// # Safety
///
/// `out` is null or valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetPciInfo_v3(
    device: ffi::nvmlDevice_t,
    out: *mut ffi::nvmlPciInfo_t,
) -> c_uint {
    // SAFETY: numbers and arrays of them: all zero is a value of it.
    let mut info: ffi::nvmlPciInfo_t = unsafe { std::mem::zeroed() };
    let text = format!("00000000:{:02X}:00.0", device as usize);
    for (to, from) in info.busId.iter_mut().zip(text.bytes()) {
        *to = from as c_char;
    }
    // SAFETY: as the caller says.
    unsafe { put(out, info) }
}

/// # Safety
///
/// `major` and `minor` are null or valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetCudaComputeCapability(
    _device: ffi::nvmlDevice_t,
    major: *mut c_int,
    minor: *mut c_int,
) -> c_uint {
    // SAFETY: as the caller says.
    unsafe { put(major, 12).max(put(minor, 1)) }
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetMigMode(
    _device: ffi::nvmlDevice_t,
    _current: *mut c_uint,
    _pending: *mut c_uint,
) -> c_uint {
    NOT_SUPPORTED
}

/// # Safety
///
/// `out` is null or valid for a read and a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMemoryInfo_v2(
    device: ffi::nvmlDevice_t,
    out: *mut ffi::nvmlMemory_v2_t,
) -> c_uint {
    let Some(gpu) = gpu(device) else { return INVALID };
    std::thread::sleep(gpu.delay);
    let Some(total) = gpu.memory else { return NOT_SUPPORTED };
    let (used, reserved) = (gpu.used(), state::RESERVED);
    let free = total.saturating_sub(used + reserved);
    // SAFETY: as the caller says; the version says which structure it is.
    unsafe {
        if out.is_null() {
            return INVALID;
        }
        let version = (*out).version;
        put(out, ffi::nvmlMemory_v2_t { version, total, reserved, free, used })
    }
}

/// # Safety
///
/// `out` is null or valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetTemperature(
    device: ffi::nvmlDevice_t,
    _sensor: ffi::nvmlTemperatureSensors_t,
    out: *mut c_uint,
) -> c_uint {
    let Some(gpu) = gpu(device) else { return INVALID };
    // SAFETY: as the caller says.
    unsafe { put(out, 30 + gpu.busy / 2) }
}

/// Memory that a device does not have has no clock.
///
/// # Safety
///
/// `out` is null or valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetClockInfo(
    device: ffi::nvmlDevice_t,
    clock: ffi::nvmlClockType_t,
    out: *mut c_uint,
) -> c_uint {
    let Some(gpu) = gpu(device) else { return INVALID };
    let of_memory = clock == ffi::nvmlClockType_enum_NVML_CLOCK_MEM;
    if of_memory && gpu.memory.is_none() {
        return NOT_SUPPORTED;
    }
    // SAFETY: as the caller says.
    unsafe { put(out, if of_memory { 2600 } else { 300 + 15 * gpu.busy }) }
}

/// # Safety
///
/// `count` is null or valid for a read and a write, `out` is null or valid for writes of `count` elements.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetComputeRunningProcesses_v3(
    device: ffi::nvmlDevice_t,
    count: *mut c_uint,
    out: *mut ffi::nvmlProcessInfo_t,
) -> c_uint {
    // SAFETY: as the caller says.
    unsafe { put_processes(device, List::Compute, count, out) }
}

/// # Safety
///
/// As [`nvmlDeviceGetComputeRunningProcesses_v3`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetGraphicsRunningProcesses_v3(
    device: ffi::nvmlDevice_t,
    count: *mut c_uint,
    out: *mut ffi::nvmlProcessInfo_t,
) -> c_uint {
    // SAFETY: as the caller says.
    unsafe { put_processes(device, List::Graphics, count, out) }
}

/// Writes as many as there is room for; where that is too little, says how many there are.
///
/// # Safety
///
/// `count` is null or valid for a read and a write, `out` is null or valid for writes of `count` elements.
unsafe fn put_processes(
    device: ffi::nvmlDevice_t,
    list: List,
    count: *mut c_uint,
    out: *mut ffi::nvmlProcessInfo_t,
) -> c_uint {
    let Some(gpu) = gpu(device) else { return INVALID };
    if count.is_null() {
        return INVALID;
    }
    let processes: Vec<_> = gpu.processes.iter().filter(|process| process.list == list).collect();
    // SAFETY: not null, so it is valid.
    let room = unsafe { count.replace(processes.len() as c_uint) } as usize;
    if room < processes.len() || out.is_null() && !processes.is_empty() {
        return TOO_SMALL;
    }
    for (index, process) in processes.into_iter().enumerate() {
        let info = ffi::nvmlProcessInfo_t {
            pid: process.pid,
            usedGpuMemory: process.bytes.unwrap_or(c_ulonglong::MAX),
            gpuInstanceId: c_uint::MAX,
            computeInstanceId: c_uint::MAX,
        };
        // SAFETY: there is room for all of them.
        unsafe { out.add(index).write(info) };
    }
    OK
}
