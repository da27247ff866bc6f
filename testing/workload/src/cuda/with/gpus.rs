//! `cuda-gpus`: takes memory of several GPUs in one process, in each of the ways that a call has of meaning one.

use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use cudarc::driver::sys::{
    self, CUcontext, CUdevice, CUmemAllocationType, CUmemLocationType, CUmemPoolProps, CUstream,
};
use serde_json::json;

use super::driver::{Driver, call};
use super::memory::device_memory;
use crate::alloc::wait_for;
use crate::cli::cuda::{CudaGpusArgs, OnGpu, Way};

/// A primary context of each device, as the CUDA runtime has them. The first is current at any time but within a call.
struct Gpus {
    /// As numbers, which threads may share.
    contexts: Vec<usize>,
}

pub fn run(args: &CudaGpusArgs) -> Result<ExitCode> {
    let driver = Driver::load(&args.driver)?;
    if let Some(path) = &args.wait_go {
        wait_for(path)?;
    }
    let gpus = Gpus::new(driver.device, args)?;
    for take in &args.on {
        gpus.take(*take).with_context(|| format!("{take:?}"))?;
    }
    println!("{}", json!({ "pid": std::process::id(), "held": true }));
    if let Some(path) = &args.until {
        wait_for(path)?;
    }
    for device in (0..).take(gpus.contexts.len()) {
        // SAFETY: nothing is in flight, and nothing of it is used any more.
        unsafe { call!(cuDevicePrimaryCtxReset_v2(device))? };
    }
    Ok(ExitCode::SUCCESS)
}

impl Gpus {
    fn new(first: CUdevice, args: &CudaGpusArgs) -> Result<Self> {
        let count = 1 + args.on.iter().map(|take| take.device).max().unwrap_or(0);
        let mut contexts = Vec::new();
        for device in first..first + CUdevice::from(count) {
            let mut context: CUcontext = std::ptr::null_mut();
            // SAFETY: the pointers are good for what is written.
            unsafe {
                if !args.nameless {
                    let mut uuid = std::mem::zeroed();
                    call!(cuDeviceGetUuid_v2(&mut uuid, device))?;
                }
                call!(cuDevicePrimaryCtxRetain(&mut context, device))?;
            }
            contexts.push(context.expose_provenance());
        }
        let gpus = Self { contexts };
        gpus.set(0)?;
        Ok(gpus)
    }

    fn context(&self, device: u16) -> CUcontext {
        std::ptr::with_exposed_provenance_mut(self.contexts[usize::from(device)])
    }

    fn set(&self, device: u16) -> Result<()> {
        // SAFETY: a context of ours, which lives until the end.
        Ok(unsafe { call!(cuCtxSetCurrent(self.context(device))) }?)
    }

    /// Memory is freed by the end of its context, or of the process.
    fn take(&self, take: OnGpu) -> Result<()> {
        let OnGpu { device, way, bytes } = take;
        let bytes = usize::try_from(bytes).context("more than an address space holds")?;
        match way {
            Way::Set => {
                self.set(device)?;
                device_memory_of(bytes)?;
                self.set(0)
            }
            Way::Push => {
                // SAFETY: a context of ours, which lives until the end.
                unsafe { call!(cuCtxPushCurrent_v2(self.context(device)))? };
                device_memory_of(bytes)?;
                let mut popped = std::ptr::null_mut();
                // SAFETY: the pointer is good for a context.
                Ok(unsafe { call!(cuCtxPopCurrent_v2(&mut popped)) }?)
            }
            Way::Thread => std::thread::scope(|scope| {
                let taken = scope.spawn(|| {
                    self.set(device)?;
                    device_memory_of(bytes)
                });
                taken.join().unwrap_or_else(|_| bail!("the thread did not end well"))
            }),
            Way::Stream => {
                let mut stream: CUstream = std::ptr::null_mut();
                self.set(device)?;
                // SAFETY: the pointer is good for a stream.
                unsafe { call!(cuStreamCreate(&mut stream, 1))? };
                self.set(0)?;
                in_stream_order(bytes, stream)
            }
            Way::Async => {
                self.set(device)?;
                in_stream_order(bytes, std::ptr::null_mut())?;
                self.set(0)
            }
            Way::Pool => {
                let (mut pool, mut address) = (std::ptr::null_mut(), 0);
                let properties = pool_of(CUdevice::from(device));
                // SAFETY: pointers are good for what is read and written; the pool is the one just made.
                unsafe {
                    call!(cuMemPoolCreate(&mut pool, &properties))?;
                    Ok(call!(cuMemAllocFromPoolAsync(&mut address, bytes, pool, std::ptr::null_mut()))?)
                }
            }
            Way::Vmm => {
                let (properties, mut handle) = (device_memory(CUdevice::from(device)), 0);
                // SAFETY: pointers are good for what is read and written.
                Ok(unsafe { call!(cuMemCreate(&mut handle, bytes, &properties, 0)) }?)
            }
        }
    }
}

fn device_memory_of(bytes: usize) -> Result<()> {
    let mut address = 0;
    // SAFETY: the pointer is good for an address.
    Ok(unsafe { call!(cuMemAlloc_v2(&mut address, bytes)) }?)
}

fn in_stream_order(bytes: usize, stream: CUstream) -> Result<()> {
    let mut address = 0;
    // SAFETY: the pointer is good for an address, and the stream is one of ours or none.
    Ok(unsafe { call!(cuMemAllocAsync(&mut address, bytes, stream)) }?)
}

fn pool_of(device: CUdevice) -> CUmemPoolProps {
    // SAFETY: numbers, enums with a zero, and a null pointer.
    let mut properties: CUmemPoolProps = unsafe { std::mem::zeroed() };
    properties.allocType = CUmemAllocationType::CU_MEM_ALLOCATION_TYPE_PINNED;
    properties.location =
        sys::CUmemLocation { type_: CUmemLocationType::CU_MEM_LOCATION_TYPE_DEVICE, id: device };
    properties
}
