//! The driver's functions with results in place of numbers. Each is one call of the function in its name: what a
//! tracer sees is what is written here.

use std::ffi::{CStr, c_char, c_int};
use std::fmt;

use anyhow::{Context as _, Result, bail};
use cudarc::driver::sys::{self, CUcontext, CUdevice, CUdevice_attribute, CUdeviceptr, CUresult};
use serde::Serialize;
use serde_json::{Value, json};

use crate::cli::cuda::DriverArgs;
use crate::cuda::select::{self, Choice};

/// A call that did not succeed.
#[derive(Debug, Clone, Copy)]
pub struct CudaError {
    pub call: &'static str,
    pub result: CUresult,
}

impl CudaError {
    /// As in cuda.h.
    pub fn name(&self) -> String {
        let mut name = std::ptr::null();
        // SAFETY: the pointer is good for the one pointer that is written.
        let known = unsafe { sys::cuGetErrorName(self.result, &mut name) } == CUresult::CUDA_SUCCESS;
        if known { text(name) } else { format!("{:?}", self.result) }
    }
}

impl fmt::Display for CudaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut description = std::ptr::null();
        // SAFETY: the pointer is good for the one pointer that is written.
        let known = unsafe { sys::cuGetErrorString(self.result, &mut description) } == CUresult::CUDA_SUCCESS;
        let description = if known { text(description) } else { "no description".to_owned() };
        write!(f, "{}: {} ({}): {description}", self.call, self.name(), self.result as u32)
    }
}

impl std::error::Error for CudaError {}

fn text(from: *const c_char) -> String {
    if from.is_null() {
        return String::new();
    }
    // SAFETY: the driver's strings end, and live as long as it does.
    unsafe { CStr::from_ptr(from) }.to_string_lossy().into_owned()
}

pub fn check(call: &'static str, result: CUresult) -> Result<(), CudaError> {
    if result == CUresult::CUDA_SUCCESS { Ok(()) } else { Err(CudaError { call, result }) }
}

/// Calls a function of the driver by its name: `call!(cuMemFree_v2(address))`. To be used within `unsafe`, as the
/// function itself.
#[macro_export]
macro_rules! call {
    ($name:ident($($argument:expr),* $(,)?)) => {
        $crate::cuda::driver::check(
            stringify!($name),
            cudarc::driver::sys::$name($($argument),*),
        )
    };
}
pub use call;

/// Has the simulated driver use the stand-in; it starts with it or not at all.
const STAND_IN: &str = "SPARK_TRACE_SIMULATED_STAND_IN";

/// What the report says of driver and device.
#[derive(Debug, Clone, Serialize)]
pub struct DriverInfo {
    /// "simulated" where there is no GPU behind it, else "cuda".
    pub driver: &'static str,
    /// The library, as /proc/self/maps names it.
    pub library: Option<String>,
    /// 1000 x major + 10 x minor.
    pub version: i32,
    pub device: String,
    /// The GPU says that it shares the system's memory.
    pub integrated: bool,
    pub compute_capability: String,
    pub total_bytes: usize,
    /// The simulated driver takes pages of the stand-in for NVIDIA's kernel modules (testing/stand-in/).
    pub stand_in: bool,
}

/// Functions whose calls the report lists: those that take memory, free it or query it.
const COUNTED: &[&CStr] = &[
    c"cuMemAlloc_v2",
    c"cuMemFree_v2",
    c"cuMemAllocHost_v2",
    c"cuMemHostAlloc",
    c"cuMemFreeHost",
    c"cuMemHostRegister_v2",
    c"cuMemHostUnregister",
    c"cuMemAllocManaged",
    c"cuMemAllocAsync",
    c"cuMemFreeAsync",
    c"cuMemCreate",
    c"cuMemRelease",
    c"cuMemMap",
    c"cuMemUnmap",
    c"cuMemGetInfo_v2",
    c"cuLaunchKernel",
];

/// An initialised driver and a device of it, without a context yet.
pub struct Driver {
    pub device: CUdevice,
    pub info: DriverInfo,
}

impl Driver {
    /// Loads the library that was chosen. If that takes a new start of the program, it happens here: nothing may
    /// have been printed before.
    pub fn load(args: &DriverArgs) -> Result<Self> {
        select::prepare(&args.driver)?;
        // SAFETY: opens libraries by name, which runs their initialisers. They are the requested driver.
        let present = unsafe { sys::is_culib_present() };
        if !present {
            select::finish();
            let hint = match args.driver {
                Choice::System => {
                    "cannot load libcuda.so or libcuda.so.1: is NVIDIA's driver installed (in a container: passed in)? \
                     Without a GPU, try --driver simulated"
                }
                _ => "cannot load the driver that --driver names: is it a library for this architecture?",
            };
            bail!("{hint}");
        }
        // SAFETY: as above; the library stays open.
        let library = unsafe { sys::culib() };
        let wanted = select::wanted();
        select::finish();
        // One that cannot be loaded is passed over, and the system's found instead.
        if let Some(wanted) = wanted.map(|path| path.display().to_string())
            && library_path().as_ref() != Some(&wanted)
        {
            bail!("{wanted} cannot be loaded: is it a driver for this architecture?");
        }
        // SAFETY: the symbol is only looked for.
        let simulated = unsafe { library.get::<*const ()>(b"spark_trace_simulated_cuda_calls\0") }.is_ok();
        Self::initialize(c_int::from(args.ordinal), simulated)
    }

    fn initialize(ordinal: c_int, simulated: bool) -> Result<Self> {
        let (mut version, mut count, mut device, mut total) = (0, 0, 0, 0_usize);
        let mut name = [0 as c_char; 256];
        // SAFETY: each pointer is good for what its function writes, and the name has the length that is passed.
        unsafe {
            call!(cuInit(0))?;
            call!(cuDriverGetVersion(&mut version))?;
            call!(cuDeviceGetCount(&mut count))?;
            if ordinal >= count {
                bail!("--ordinal {ordinal}: there are {count} devices, counted from 0");
            }
            call!(cuDeviceGet(&mut device, ordinal))?;
            call!(cuDeviceGetName(name.as_mut_ptr(), 256, device))?;
            call!(cuDeviceTotalMem_v2(&mut total, device))?;
        }
        use CUdevice_attribute as A;
        let attribute = |attribute| -> Result<c_int> {
            let mut value = 0;
            // SAFETY: the pointer is good for an int.
            unsafe { call!(cuDeviceGetAttribute(&mut value, attribute, device))? };
            Ok(value)
        };
        let major = attribute(A::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
        let minor = attribute(A::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
        let info = DriverInfo {
            driver: if simulated { "simulated" } else { "cuda" },
            library: library_path(),
            version,
            device: text(name.as_ptr()),
            integrated: attribute(A::CU_DEVICE_ATTRIBUTE_INTEGRATED)? != 0,
            compute_capability: format!("{major}.{minor}"),
            total_bytes: total,
            stand_in: simulated && std::env::var_os(STAND_IN).is_some_and(|wanted| !wanted.is_empty()),
        };
        Ok(Self { device, info })
    }

    pub fn is_simulated(&self) -> bool {
        self.info.driver == "simulated"
    }

    /// How often functions of the simulated driver were called in this process: what probes on them should count.
    /// Null for a real driver, which does not say.
    pub fn calls(&self) -> Value {
        type Calls = unsafe extern "C" fn(*const c_char, *mut i64) -> CUresult;
        // SAFETY: the library stays open; the type is that of the function in the simulated driver, and nobody else has
        // one of this name.
        let symbol = unsafe { sys::culib().get::<Calls>(b"spark_trace_simulated_cuda_calls\0") };
        let Ok(calls) = symbol else { return Value::Null };
        let count = |name: &CStr| {
            let mut count = -1;
            // SAFETY: a string that ends, and a pointer that is good for the count.
            unsafe { calls(name.as_ptr(), &mut count) };
            (name.to_string_lossy().into_owned(), json!(count))
        };
        Value::Object(COUNTED.iter().map(|name| count(name)).collect())
    }

    /// Makes the device's primary context current, as the CUDA runtime does.
    pub fn context(&self) -> Result<Context> {
        let mut context = std::ptr::null_mut();
        // SAFETY: the pointer is good for a context, which is then a valid one.
        unsafe {
            call!(cuDevicePrimaryCtxRetain(&mut context, self.device))?;
            call!(cuCtxSetCurrent(context))?;
        }
        Ok(Context { device: self.device, _context: context })
    }
}

/// Where cuInit is.
fn library_path() -> Option<String> {
    // SAFETY: the library is open; only the symbol's address is taken.
    let address = unsafe { sys::culib().get::<*const ()>(b"cuInit\0") }.ok().map(|symbol| symbol.addr())?;
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    let line = maps.lines().find(|line| {
        let range = line.split_once(' ').and_then(|(range, _)| range.split_once('-'));
        range.is_some_and(|(begin, end)| {
            let number = |text| usize::from_str_radix(text, 16).unwrap_or(0);
            (number(begin)..number(end)).contains(&address)
        })
    })?;
    line.find('/').map(|at| line[at..].to_owned())
}

/// A context, current in the thread that made it.
pub struct Context {
    device: CUdevice,
    _context: CUcontext,
}

impl Context {
    /// Ends it, with all that is still allocated in it.
    pub fn end(self) -> Result<()> {
        // SAFETY: nothing is in flight, since every workload synchronises before it ends.
        unsafe {
            call!(cuCtxSynchronize())?;
            call!(cuDevicePrimaryCtxRelease_v2(self.device))?;
        }
        Ok(())
    }
}

/// Free and total bytes.
#[inline(never)]
pub fn mem_get_info() -> Result<(usize, usize), CudaError> {
    let (mut free, mut total) = (0, 0);
    // SAFETY: both pointers are good for a size.
    unsafe { call!(cuMemGetInfo_v2(&mut free, &mut total))? };
    Ok((free, total))
}

pub fn synchronize() -> Result<(), CudaError> {
    // SAFETY: takes nothing.
    unsafe { call!(cuCtxSynchronize()) }
}

/// Device memory; freed when dropped.
#[derive(Debug)]
pub struct Buffer {
    pub address: CUdeviceptr,
    pub bytes: usize,
}

impl Buffer {
    pub fn new(bytes: usize) -> Result<Self, CudaError> {
        let mut address = 0;
        // SAFETY: the pointer is good for an address.
        unsafe { call!(cuMemAlloc_v2(&mut address, bytes))? };
        Ok(Self { address, bytes })
    }

    pub fn free(mut self) -> Result<(), CudaError> {
        let address = std::mem::take(&mut self.address);
        // SAFETY: ours, and not used any more; the driver waits for what is in flight.
        unsafe { call!(cuMemFree_v2(address)) }
    }

    /// Copies host memory to `offset`.
    pub fn fill_from(&self, offset: usize, from: &[u8]) -> Result<()> {
        if offset.checked_add(from.len()).is_none_or(|end| end > self.bytes) {
            bail!("{} bytes do not fit at {offset} of {}", from.len(), self.bytes);
        }
        // SAFETY: the range is within our memory, as just checked, and `from` is good for its length.
        unsafe {
            call!(cuMemcpyHtoD_v2(self.address + offset as u64, from.as_ptr().cast(), from.len()))?;
        }
        Ok(())
    }

    pub fn read_f32(&self, count: usize) -> Result<Vec<f32>> {
        let bytes =
            count.checked_mul(4).filter(|bytes| *bytes <= self.bytes).context("more than there is")?;
        let mut values = vec![0_f32; count];
        // SAFETY: both sides are good for this many bytes, and any bytes are an f32.
        unsafe { call!(cuMemcpyDtoH_v2(values.as_mut_ptr().cast(), self.address, bytes))? };
        Ok(values)
    }

    pub fn fill_f32(&self, values: &[f32]) -> Result<()> {
        // SAFETY: the bytes of a slice of f32, which has no padding, for as long as it is borrowed.
        let bytes = unsafe { std::slice::from_raw_parts(values.as_ptr().cast::<u8>(), size_of_val(values)) };
        self.fill_from(0, bytes)
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if self.address != 0 {
            // SAFETY: as in `free`. Only on the way out of an error, which is the news then.
            let _ = unsafe { call!(cuMemFree_v2(self.address)) };
        }
    }
}
