//! Initialisation, versions, devices.

use std::ffi::{c_char, c_int, c_uint, c_void};

use crate::abi::{CUdevice, Error, Out, exported};
use crate::ledger::visible;
use crate::meminfo::{MemInfo, framebuffer};
use crate::stand_in;
use crate::state::{State, check_device, lock, lock_any};

/// CUDA 13.0, as 1000 x major + 10 x minor.
const VERSION: c_int = 13_000;
/// What nobody can take for the name of a GPU.
const NAME: &[u8] = b"simulated (no GPU)";

/// As the simulated NVML has it.
fn uuid_of(gpu: u32) -> [u8; 16] {
    let mut uuid = *b"simulated-GPU-00";
    let digits = [gpu / 10 % 10, gpu % 10].map(|digit| b'0' + digit as u8);
    uuid[14..].copy_from_slice(&digits);
    uuid
}

/// Attributes by their numbers in cuda.h; those not named here are 0. The device says that it shares the host's
/// memory, unless it has a framebuffer, and has the compute capability of a GB10.
fn attribute(number: u32) -> Result<c_int, Error> {
    Ok(match number {
        // INTEGRATED.
        18 => c_int::from(framebuffer()?.is_none()),
        // MAX_THREADS_PER_BLOCK, MAX_BLOCK_DIM_X, MAX_BLOCK_DIM_Y.
        1..=3 => 1024,
        // MAX_BLOCK_DIM_Z.
        4 => 64,
        // MAX_GRID_DIM_X; Y and Z.
        5 => c_int::MAX,
        6 | 7 => 65_535,
        // WARP_SIZE.
        10 => 32,
        // MULTIPROCESSOR_COUNT.
        16 => 1,
        // CAN_MAP_HOST_MEMORY; UNIFIED_ADDRESSING; MANAGED_MEMORY.
        19 | 41 | 83 => 1,
        // COMPUTE_CAPABILITY_MAJOR; MINOR.
        75 => 12,
        76 => 1,
        // CONCURRENT_MANAGED_ACCESS; VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED; MEMORY_POOLS_SUPPORTED.
        89 | 102 | 115 => 1,
        _ => 0,
    })
}

/// Free and total bytes: of the device's own memory, or of the machine's.
fn bytes_of(state: &State, device: CUdevice) -> Result<(usize, usize), Error> {
    let (free, total) = match framebuffer()? {
        Some(own) => (own.saturating_sub(state.used_of(device)), own),
        None => MemInfo::read().map(|info| (info.free, info.total))?,
    };
    let bytes = |bytes| usize::try_from(bytes).map_err(|_| Error::NOT_SUPPORTED);
    Ok((bytes(free)?, bytes(total)?))
}

exported! {
    fn cuInit(flags: c_uint) {
        if flags != 0 {
            return Err(Error::INVALID_VALUE);
        }
        stand_in::devices()?;
        framebuffer()?;
        let mut state = lock_any();
        state.initialized = true;
        state.devices = visible();
        Ok(())
    }

    fn cuDriverGetVersion(version: Out<c_int>) {
        version.put(VERSION)
    }

    fn cuDeviceGetCount(count: Out<c_int>) {
        count.put(c_int::try_from(lock()?.devices.len()).map_err(|_| Error::NOT_SUPPORTED)?)
    }

    fn cuDeviceGet(device: Out<CUdevice>, ordinal: c_int) {
        check_device(ordinal)?;
        device.put(ordinal)
    }

    fn cuDeviceGetName(name: *mut c_char, len: c_int, device: CUdevice) {
        check_device(device)?;
        let room = usize::try_from(len).ok().filter(|room| *room > 0 && !name.is_null());
        let room = room.ok_or(Error::INVALID_VALUE)?;
        let shown = NAME.len().min(room - 1);
        // SAFETY: the caller vouches for `len` bytes, and shown + 1 are not more.
        unsafe {
            name.cast::<u8>().copy_from_nonoverlapping(NAME.as_ptr(), shown);
            name.add(shown).write(0);
        }
        Ok(())
    }

    fn cuDeviceGetUuid(uuid: Out<[u8; 16]>, device: CUdevice) {
        uuid.put(uuid_of(lock()?.gpu(device)?))
    }

    fn cuDeviceGetUuid_v2(uuid: Out<[u8; 16]>, device: CUdevice) {
        uuid.put(uuid_of(lock()?.gpu(device)?))
    }

    /// As the simulated NVML has it, but for the digits of the domain.
    fn cuDeviceGetPCIBusId(text: *mut c_char, len: c_int, device: CUdevice) {
        let bus = format!("0000:{:02x}:00.0\0", lock()?.gpu(device)? + 1);
        if text.is_null() || usize::try_from(len).map_or(true, |len| len < bus.len()) {
            return Err(Error::INVALID_VALUE);
        }
        // SAFETY: the caller vouches for `len` bytes, which are enough.
        unsafe { text.cast::<u8>().copy_from_nonoverlapping(bus.as_ptr(), bus.len()) };
        Ok(())
    }

    fn cuDeviceGetAttribute(value: Out<c_int>, number: c_uint, device: CUdevice) {
        check_device(device)?;
        value.put(attribute(number)?)
    }

    fn cuDeviceTotalMem_v2(bytes: Out<usize>, device: CUdevice) {
        check_device(device)?;
        bytes.put(bytes_of(&*lock()?, device)?.1)
    }

    fn cuMemGetInfo_v2(free: Out<usize>, total: Out<usize>) {
        let state = lock()?;
        let (of_free, of_total) = bytes_of(&state, state.current_device()?)?;
        free.put(of_free)?;
        total.put(of_total)
    }

    /// Where the table of private functions is that NVIDIA's own libraries look for: there is none.
    fn cuGetExportTable(table: Out<*const c_void>, _id: *const c_void) {
        table.put(std::ptr::null())?;
        Err(Error::NOT_FOUND)
    }
}
