//! Storms of allocations by the driver.

use anyhow::Result;
use serde_json::{Value, json};

use super::driver::{Buffer, Driver, call};
use super::memory::take_managed;
use crate::cli::cuda::CudaStorm;
use crate::rounds::{Round, batch_sizes, time, until_stopped};
use crate::sys::Machine;

/// Name, operation, options, rounds, driver.
type Done = (&'static str, &'static str, Value, Vec<Round>, Value);

pub fn run(storm: &CudaStorm, machine: Machine) -> Result<Done> {
    match storm {
        CudaStorm::CudaAlloc { size, rounds, batches, driver } => {
            let driver = Driver::load(driver)?;
            let context = driver.context()?;
            let bytes = usize::try_from(*size)?;
            let list = until_stopped(batch_sizes(*rounds, *batches))
                .map(|count| time(|| alloc_batch(bytes, count)))
                .collect::<Result<Vec<_>>>()?;
            context.end()?;
            let options = json!({ "size": size, "rounds": rounds, "batches": batches });
            Ok(("cuda-alloc", "cuMemAlloc and cuMemFree", options, list, json!(driver.info)))
        }
        CudaStorm::CudaManaged { size, rounds, driver } => {
            let driver = Driver::load(driver)?;
            let context = driver.context()?;
            let bytes = machine.pages_up(*size)?;
            let list = until_stopped(0..*rounds)
                .map(|_| time(|| managed_round(machine, bytes)))
                .collect::<Result<Vec<_>>>()?;
            context.end()?;
            let options = json!({ "size": size, "rounds": rounds });
            Ok(("cuda-managed", "page of managed memory touched", options, list, json!(driver.info)))
        }
    }
}

#[inline(never)]
fn alloc_batch(bytes: usize, count: u32) -> Result<u64> {
    for _ in 0..count {
        Buffer::new(bytes)?.free()?;
    }
    Ok(u64::from(count))
}

#[inline(never)]
fn managed_round(machine: Machine, bytes: usize) -> Result<u64> {
    let address = take_managed(machine, bytes)?;
    // SAFETY: just allocated, and not used any more.
    unsafe { call!(cuMemFree_v2(address))? };
    Ok((bytes / machine.page) as u64)
}
