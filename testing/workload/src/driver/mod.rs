//! `driver-alloc`: takes memory through the stand-in for NVIDIA's kernel modules, and times each call.

mod abi;

use std::process::ExitCode;

use anyhow::{Context, Result, anyhow};
use serde::Serialize;
use serde_json::json;

use crate::alloc::map::Mapping;
use crate::alloc::{Env, Holding, Step, Taken, run_steps};
use crate::cli::driver::DriverAllocArgs;
use crate::output::SourceRecord;
use crate::sys::{self, clock_ns, monotonic_ns};
use abi::{Alloc, Device, Module};

pub fn run(args: &DriverAllocArgs) -> Result<ExitCode> {
    let mut steps: Vec<Step> = Vec::new();
    if let Some(bytes) = args.bytes {
        steps.push(("driver-alloc", Box::new(move |env| pages(args, bytes, env))));
    }
    if let Some(bytes) = args.lock {
        steps.push(("lock", Box::new(move |env| lock(bytes, env))));
    }
    run_steps(&args.course, None, &steps)
}

/// One call to the driver.
#[derive(Debug, Serialize)]
struct Call {
    bytes: u64,
    /// CLOCK_MONOTONIC.
    begin_ns: u64,
    wall_ns: u64,
    /// Of our one thread: what the kernel does for it in the call.
    cpu_ns: u64,
}

/// Handles of a device; the device goes last.
struct Handles {
    handles: Vec<u32>,
    device: Device,
    /// What the driver has locked.
    mapping: Option<Mapping>,
}

impl Holding for Handles {
    fn release(self: Box<Self>) -> Result<()> {
        let Self { handles, device, mapping } = *self;
        handles.into_iter().rev().try_for_each(|handle| device.free(handle))?;
        mapping.map_or(Ok(()), |mapping| Box::new(mapping).release())
    }
}

fn pages(args: &DriverAllocArgs, bytes: u64, env: &Env) -> Result<Taken> {
    let (module, source, kind) = match args.uvm {
        true => (Module::Uvm, "nvidia-managed", "driver-alloc-uvm"),
        false => (Module::Nvidia, "nvidia-sysmem", "driver-alloc"),
    };
    let device = Device::open(module)?;
    // What a page is to the driver: the kernel's page at least.
    let unit = args.page_size.next_power_of_two().max(env.machine.page as u64);
    let mut flags = if args.not_zeroed { 0 } else { abi::ZEROED };
    if args.contiguous {
        flags |= abi::CONTIGUOUS;
    }
    let (mut calls, mut handles) = (Vec::new(), Vec::new());
    for size in call_sizes(bytes.div_ceil(unit), args.calls) {
        if sys::stop_signal().is_some() {
            break;
        }
        let request = Alloc { bytes: size * unit, page_size: unit, flags, handle: 0 };
        let (call, handle) = timed(&device, request);
        let number = calls.len() + 1;
        handles.push(handle.map_err(|error| {
            let bytes = call.bytes;
            match error.raw_os_error() {
                Some(libc::ENOMEM) if args.contiguous => anyhow!(
                    "call {number}: the kernel has no {bytes} bytes in one run (4 MiB at most with pages of 4 KiB): \
                     use more --calls"
                ),
                Some(libc::ENOMEM) => anyhow!("call {number}: the kernel has no {bytes} bytes more"),
                _ => anyhow!(error).context(format!("call {number} for {bytes} bytes: the stand-in refuses")),
            }
        })?);
        calls.push(call);
    }
    let sum = |part: fn(&Call) -> u64| calls.iter().map(part).sum::<u64>();
    let detail = json!({
        "page_size": unit,
        "contiguous": args.contiguous,
        "zeroed": !args.not_zeroed,
        "wall_ns": sum(|call| call.wall_ns),
        "cpu_ns": sum(|call| call.cpu_ns),
        "calls": calls,
    });
    let record = SourceRecord::new(source, kind, sum(|call| call.bytes), detail);
    Ok(Taken::new(record, Handles { handles, device, mapping: None }))
}

/// `pages` in up to `calls` parts which differ by one at most.
fn call_sizes(pages: u64, calls: u32) -> impl Iterator<Item = u64> {
    let calls = u64::from(calls).min(pages);
    (0..calls).map(move |index| pages / calls + u64::from(index < pages % calls))
}

#[inline(never)]
fn timed(device: &Device, request: Alloc) -> (Call, std::io::Result<u32>) {
    let (begin_ns, cpu) = (monotonic_ns(), clock_ns(libc::CLOCK_THREAD_CPUTIME_ID));
    let handle = device.alloc(request);
    let cpu_ns = clock_ns(libc::CLOCK_THREAD_CPUTIME_ID).saturating_sub(cpu);
    let wall_ns = monotonic_ns().saturating_sub(begin_ns);
    (Call { bytes: request.bytes, begin_ns, wall_ns, cpu_ns }, handle)
}

fn lock(bytes: u64, env: &Env) -> Result<Taken> {
    let device = Device::open(Module::Nvidia)?;
    let len = env.machine.pages_up(bytes)?;
    let mut mapping = Mapping::base_pages(len)?;
    mapping.write_each::<0x6c6f_636b>(env.machine.page);
    let address = mapping.address();
    let handle = device
        .lock(address, len)
        .with_context(|| format!("the stand-in cannot lock {len} bytes at {address:#x}"))?;
    let detail = json!({ "locked": true });
    let record = SourceRecord::new("anon", "driver-lock", len as u64, detail).at(address);
    Ok(Taken::new(record, Handles { handles: vec![handle], device, mapping: Some(mapping) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_hold_all_pages() {
        assert_eq!(call_sizes(10, 4).collect::<Vec<_>>(), [3, 3, 2, 2]);
        assert_eq!(call_sizes(2, 8).collect::<Vec<_>>(), [1, 1]);
        assert_eq!(call_sizes(131_072, 8).sum::<u64>(), 131_072);
    }
}
