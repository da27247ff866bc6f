//! A cache that is a range of addresses first, and memory later: SGLang's, where it is sized after the capture of graphs
//! (sglang/srt/mem_cache/kv_vmm_backing.py).

use anyhow::{Context as _, Result};
use cudarc::driver::sys::{
    self, CUdeviceptr, CUmemAccess_flags, CUmemAccessDesc, CUmemAllocationProp, CUmemGenericAllocationHandle,
};

use crate::cuda::driver::{Driver, call};
use crate::cuda::memory::device_memory;
use crate::size::round_up;

/// One range for each layer. It stays until the process ends.
pub struct Ranges {
    properties: CUmemAllocationProp,
    granularity: u64,
    layers: Vec<Layer>,
}

struct Layer {
    address: CUdeviceptr,
    span: u64,
    backed: u64,
}

impl Ranges {
    /// Addresses for `bytes` in all, and memory for the first page of each layer: the capture writes there.
    pub fn new(driver: &Driver, bytes: u64, layers: u32) -> Result<Self> {
        let properties = device_memory(driver.device);
        let minimum = sys::CUmemAllocationGranularity_flags::CU_MEM_ALLOC_GRANULARITY_MINIMUM;
        let mut granularity = 0;
        // SAFETY: both pointers are good for what is read and written.
        unsafe { call!(cuMemGetAllocationGranularity(&mut granularity, &properties, minimum))? };
        let granularity = granularity as u64;
        let span = round_up(bytes / u64::from(layers.max(1)), granularity).context("size too large")?;
        let layers = (0..layers).map(|_| {
            let mut address = 0;
            // SAFETY: the pointer is good for an address.
            unsafe { call!(cuMemAddressReserve(&mut address, usize::try_from(span)?, 0, 0, 0))? };
            Ok(Layer { address, span, backed: 0 })
        });
        let mut ranges = Self { properties, granularity, layers: layers.collect::<Result<_>>()? };
        ranges.back(granularity * ranges.layers.len() as u64)?;
        Ok(ranges)
    }

    pub fn backed(&self) -> u64 {
        self.layers.iter().map(|layer| layer.backed).sum()
    }

    pub fn layers(&self) -> usize {
        self.layers.len()
    }

    /// Memory for the first `bytes` in all, in equal parts; what is there stays.
    pub fn back(&mut self, bytes: u64) -> Result<()> {
        let each = bytes / (self.layers.len() as u64).max(1);
        let each = round_up(each, self.granularity).context("size too large")?;
        let access = CUmemAccessDesc {
            location: self.properties.location,
            flags: CUmemAccess_flags::CU_MEM_ACCESS_FLAGS_PROT_READWRITE,
        };
        for layer in &mut self.layers {
            let wanted = each.min(layer.span);
            let Some(more) = wanted.checked_sub(layer.backed).filter(|more| *more > 0) else { continue };
            let size = usize::try_from(more)?;
            let mut handle: CUmemGenericAllocationHandle = 0;
            let at = layer.address + layer.backed;
            // SAFETY: pointers are good for what is read and written; the part is within the range that was reserved, and nothing
            // is mapped there yet.
            unsafe {
                call!(cuMemCreate(&mut handle, size, &self.properties, 0))?;
                call!(cuMemMap(at, size, 0, handle, 0))?;
                call!(cuMemSetAccess(at, size, &access, 1))?;
            }
            layer.backed = wanted;
        }
        Ok(())
    }
}
