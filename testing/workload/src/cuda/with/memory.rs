//! Each way to take memory. Functions that take are not inlined, so that a stack names them.

use std::hint::black_box;

use anyhow::{Context as _, Result};
use cudarc::driver::sys::{
    self, CUdevice, CUdeviceptr, CUmemAccess_flags, CUmemAccessDesc, CUmemAllocationProp,
    CUmemAllocationType, CUmemGenericAllocationHandle, CUmemLocationType, CUstream,
};

use super::driver::{Buffer, Driver, call, synchronize};
use crate::alloc::map::Mapping;
use crate::cli::cuda::{Amount, CudaAllocArgs};
use crate::size::round_up;
use crate::sys::Machine;

/// What a step needs besides its size.
pub struct Env<'a> {
    pub machine: Machine,
    pub driver: &'a Driver,
    pub args: &'a CudaAllocArgs,
}

/// One allocation.
pub struct Piece {
    pub address: u64,
    pub bytes: u64,
    pub free: Box<dyn FnOnce() -> Result<()>>,
}

pub struct Step {
    /// The phase's name; also the option that requests it.
    pub phase: &'static str,
    pub amounts: fn(&CudaAllocArgs) -> &[Amount],
    pub take: fn(&Env<'_>, u64) -> Result<Piece>,
    /// Where its bytes are to be seen.
    pub source: fn(&Driver) -> &'static str,
}

/// Pinned memory is shmem: NVIDIA's driver pins shared pages of its own for it (580.159, seen on an H200).
#[rustfmt::skip]
pub const STEPS: &[Step] = &[
    Step { phase: "device", amounts: |a| &a.device, take: device, source: device_source },
    Step { phase: "pinned", amounts: |a| &a.pinned, take: pinned, source: |_| "shmem" },
    Step { phase: "host-alloc", amounts: |a| &a.host_alloc, take: host_alloc, source: |_| "shmem" },
    Step { phase: "registered", amounts: |a| &a.registered, take: registered, source: |_| "anon" },
    Step { phase: "managed", amounts: |a| &a.managed, take: managed, source: managed_source },
    Step { phase: "async", amounts: |a| &a.stream, take: stream_ordered, source: device_source },
    Step { phase: "vmm", amounts: |a| &a.vmm, take: vmm, source: vmm_source },
];

/// Anonymous pages play the device's memory in the simulated driver, unless it has the stand-in's; a GPU without memory of its
/// own takes the system's, by NVIDIA's driver.
pub fn device_source(driver: &Driver) -> &'static str {
    match (in_own_pages(driver), driver.info.integrated) {
        (true, true) => "anon",
        (false, true) => "nvidia-sysmem",
        (_, false) => "gpu-framebuffer",
    }
}

/// The simulated driver without kernel modules.
fn in_own_pages(driver: &Driver) -> bool {
    driver.is_simulated() && !driver.info.stand_in
}

fn managed_source(driver: &Driver) -> &'static str {
    if in_own_pages(driver) { "anon" } else { "nvidia-managed" }
}

fn vmm_source(driver: &Driver) -> &'static str {
    if in_own_pages(driver) && driver.info.integrated { "shmem" } else { device_source(driver) }
}

fn length(bytes: u64) -> Result<usize> {
    usize::try_from(bytes).context("more than an address space holds")
}

fn device(_env: &Env<'_>, bytes: u64) -> Result<Piece> {
    let buffer = take_device(length(bytes)?)?;
    Ok(Piece { address: buffer.address, bytes, free: Box::new(move || Ok(buffer.free()?)) })
}

#[inline(never)]
fn take_device(bytes: usize) -> Result<Buffer> {
    Ok(black_box(Buffer::new(bytes)?))
}

fn host_piece(address: *mut std::ffi::c_void, bytes: u64) -> Piece {
    let free = move || {
        // SAFETY: allocated by the function that this one goes with, and not used any more.
        unsafe { call!(cuMemFreeHost(address))? };
        Ok(())
    };
    Piece { address: address.addr() as u64, bytes, free: Box::new(free) }
}

#[inline(never)]
fn pinned(_env: &Env<'_>, bytes: u64) -> Result<Piece> {
    let mut address = std::ptr::null_mut();
    // SAFETY: the pointer is good for an address.
    unsafe { call!(cuMemAllocHost_v2(&mut address, length(bytes)?))? };
    Ok(host_piece(address, bytes))
}

#[inline(never)]
fn host_alloc(env: &Env<'_>, bytes: u64) -> Result<Piece> {
    let mut address = std::ptr::null_mut();
    // SAFETY: the pointer is good for an address.
    unsafe { call!(cuMemHostAlloc(&mut address, length(bytes)?, env.args.host_alloc_flags))? };
    Ok(host_piece(address, bytes))
}

#[inline(never)]
fn registered(env: &Env<'_>, bytes: u64) -> Result<Piece> {
    let mut mapping = Mapping::base_pages(env.machine.pages_up(bytes)?)?;
    mapping.write_each::<0x7265_6769>(env.machine.page);
    let address = mapping.address();
    let host: *mut std::ffi::c_void = std::ptr::with_exposed_provenance_mut(address);
    // SAFETY: the mapping is ours, and stays until it is unregistered below.
    unsafe { call!(cuMemHostRegister_v2(host, mapping.len(), 0))? };
    let bytes = mapping.len() as u64;
    let free = move || {
        let host: *mut std::ffi::c_void = std::ptr::with_exposed_provenance_mut(mapping.address());
        // SAFETY: registered above.
        unsafe { call!(cuMemHostUnregister(host))? };
        drop(mapping);
        Ok(())
    };
    Ok(Piece { address: address as u64, bytes, free: Box::new(free) })
}

/// Allocates managed memory and touches it on the CPU.
#[inline(never)]
pub fn take_managed(machine: Machine, bytes: usize) -> Result<CUdeviceptr> {
    let mut address = 0;
    let global = sys::CUmemAttach_flags::CU_MEM_ATTACH_GLOBAL as u32;
    // SAFETY: the pointer is good for an address.
    unsafe { call!(cuMemAllocManaged(&mut address, bytes, global))? };
    touch_managed(length(address)?, bytes, machine.page);
    Ok(address)
}

#[inline(never)]
fn touch_managed(address: usize, bytes: usize, page: usize) {
    for offset in (0..bytes).step_by(page) {
        let byte: *mut u8 = std::ptr::with_exposed_provenance_mut(address + offset);
        // SAFETY: managed memory is the CPU's as well, and nothing runs on the GPU meanwhile.
        unsafe { byte.write_volatile(1) };
    }
}

fn managed(env: &Env<'_>, bytes: u64) -> Result<Piece> {
    let address = take_managed(env.machine, length(bytes)?)?;
    let free = move || {
        // SAFETY: ours, and not used any more.
        unsafe { call!(cuMemFree_v2(address))? };
        Ok(())
    };
    Ok(Piece { address, bytes, free: Box::new(free) })
}

/// On the null stream; synchronised, so that the memory is there, and on the way back gone.
#[inline(never)]
fn stream_ordered(_env: &Env<'_>, bytes: u64) -> Result<Piece> {
    let stream: CUstream = std::ptr::null_mut();
    let mut address = 0;
    // SAFETY: the pointer is good for an address.
    unsafe {
        call!(cuMemAllocAsync(&mut address, length(bytes)?, stream))?;
        call!(cuStreamSynchronize(stream))?;
    }
    let free = move || {
        let stream: CUstream = std::ptr::null_mut();
        // SAFETY: ours, and not used any more.
        unsafe {
            call!(cuMemFreeAsync(address, stream))?;
            call!(cuStreamSynchronize(stream))?;
        }
        Ok(())
    };
    Ok(Piece { address, bytes, free: Box::new(free) })
}

#[inline(never)]
fn vmm(env: &Env<'_>, bytes: u64) -> Result<Piece> {
    let properties = device_memory(env.driver.device);
    let minimum = sys::CUmemAllocationGranularity_flags::CU_MEM_ALLOC_GRANULARITY_MINIMUM;
    let mut granularity = 0;
    // SAFETY: both pointers are good for what is read and written.
    unsafe { call!(cuMemGetAllocationGranularity(&mut granularity, &properties, minimum))? };
    let size = length(round_up(bytes, granularity as u64).context("size too large")?)?;

    let (mut address, mut handle): (CUdeviceptr, CUmemGenericAllocationHandle) = (0, 0);
    let access = CUmemAccessDesc {
        location: properties.location,
        flags: CUmemAccess_flags::CU_MEM_ACCESS_FLAGS_PROT_READWRITE,
    };
    // SAFETY: pointers are good for what is read and written; the range is the one reserved in the first call. After
    // an error the process ends, and what was taken with it.
    unsafe {
        call!(cuMemAddressReserve(&mut address, size, 0, 0, 0))?;
        call!(cuMemCreate(&mut handle, size, &properties, 0))?;
        call!(cuMemMap(address, size, 0, handle, 0))?;
        call!(cuMemSetAccess(address, size, &access, 1))?;
    }
    let free = move || {
        synchronize()?;
        // SAFETY: as taken above, and not used any more.
        unsafe {
            call!(cuMemUnmap(address, size))?;
            call!(cuMemRelease(handle))?;
            call!(cuMemAddressFree(address, size))?;
        }
        Ok(())
    };
    Ok(Piece { address, bytes: size as u64, free: Box::new(free) })
}

/// Properties of memory of a device.
pub fn device_memory(device: CUdevice) -> CUmemAllocationProp {
    // SAFETY: numbers, enums with a zero, and a null pointer.
    let mut properties: CUmemAllocationProp = unsafe { std::mem::zeroed() };
    properties.type_ = CUmemAllocationType::CU_MEM_ALLOCATION_TYPE_PINNED;
    properties.location.type_ = CUmemLocationType::CU_MEM_LOCATION_TYPE_DEVICE;
    properties.location.id = device;
    properties
}
