//! What this process holds of each device, as a kernel driver would know it: in the file that the simulated NVML reads
//! (`SPARK_TRACE_SIMULATED_NVML`), whatever anybody who watches the calls makes of them.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write as _;

use crate::abi::{CUdevice, Done, Error};
use crate::blocks::Kind;
use crate::meminfo::framebuffer;
use crate::stand_in::CHANNELS;
use crate::state::{Object, State};

const FILE: &str = "SPARK_TRACE_SIMULATED_NVML";
const GPUS: &str = "SPARK_TRACE_SIMULATED_GPUS";
const VISIBLE: &str = "CUDA_VISIBLE_DEVICES";

/// What a context takes of its device, as code and stacks do of a real one.
const CONTEXT: u64 = 64 << 20;

/// The GPUs that this process sees, in its own order.
pub fn visible() -> Vec<u32> {
    let Some(count) = std::env::var(GPUS).ok().and_then(|count| count.parse::<u32>().ok()) else {
        return vec![0];
    };
    match std::env::var(VISIBLE) {
        // The first that is none ends the list (CUDA C++ Programming Guide, CUDA_VISIBLE_DEVICES).
        Ok(list) => {
            list.split(',').map_while(|gpu| gpu.trim().parse().ok().filter(|gpu| *gpu < count)).collect()
        }
        Err(_) => (0..count).collect(),
    }
}

impl State {
    /// Bytes of each device.
    fn used(&self) -> BTreeMap<CUdevice, u64> {
        let mut used: BTreeMap<CUdevice, u64> = BTreeMap::new();
        // On memory of the system it is what is really taken.
        let of_context = if self.channels.is_empty() { CONTEXT } else { CHANNELS };
        let mut add = |device: CUdevice, bytes: u64| *used.entry(device).or_default() += bytes;
        for object in self.objects.values() {
            match object {
                Object::Context(device) => add(*device, of_context),
                Object::Pool(pool) => {
                    pool.cached.iter().for_each(|mapping| add(pool.device, mapping.len as u64));
                }
                _ => {}
            }
        }
        let blocks = self.blocks.iter().filter(|block| matches!(block.kind, Kind::Device | Kind::Pool(_)));
        blocks.for_each(|block| add(block.device, block.len as u64));
        self.physical.values().for_each(|(physical, device)| add(*device, physical.len as u64));
        used
    }

    /// Bytes of one device.
    pub fn used_of(&self, device: CUdevice) -> u64 {
        self.used().get(&device).copied().unwrap_or(0)
    }

    /// Refuses what a device's own memory has no room for. What it takes of the system is refused there.
    pub fn check_room(&self, device: CUdevice, len: usize) -> Done {
        match framebuffer()? {
            Some(own) if self.used_of(device) + len as u64 > own => Err(Error::OUT_OF_MEMORY),
            _ => Ok(()),
        }
    }

    /// Writes down what has changed.
    pub fn keep_accounts(&mut self) {
        if std::env::var_os(GPUS).is_none() {
            return;
        }
        let Some(file) = std::env::var_os(FILE) else { return };
        let used = self.used();
        let mut text = String::new();
        for (device, gpu) in (0..).zip(&self.devices) {
            let bytes = used.get(&device).copied().unwrap_or(0);
            if self.accounts.insert(*gpu, bytes).unwrap_or(0) != bytes {
                text.push_str(&format!("process {gpu} {} {bytes}\n", std::process::id()));
            }
        }
        if text.is_empty() {
            return;
        }
        // In one piece: others write to it, too. A test that misses it fails.
        if let Ok(mut file) = OpenOptions::new().append(true).open(file) {
            let _ = file.write_all(text.as_bytes());
        }
    }
}
