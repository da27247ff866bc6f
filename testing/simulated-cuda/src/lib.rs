//! `libspark_trace_simulated_cuda.so`: the part of a CUDA driver that spark-trace's workloads call and its hooks
//! attach to, for machines without a GPU.
//!
//! Device memory is memory of the host, resident from the moment it is taken, as on a machine whose GPU shares the
//! system's memory; `cuMemGetInfo_v2` says what /proc/meminfo says. What is taken, given back and refused is real;
//! which kernel path it comes by is not (anonymous pages and shmem instead of a driver's pages), nor is any timing.
//! The device's name and the file's name say what this is.
//!
//! `SPARK_TRACE_SIMULATED_STAND_IN` makes the kernel path real, too: pages come from the stand-in for NVIDIA's kernel modules
//! (testing/stand-in/), and are mapped into the program; see [`stand_in`]. Without its devices `cuInit` fails.
//! `SPARK_TRACE_SIMULATED_FRAMEBUFFER` makes it a GPU with so many bytes of its own: `cuMemGetInfo_v2` then knows those, less what this
//! process has of them. They are addresses whose pages come when they are touched, and never the driver's.
//!
//! There is one device, or as many as `SPARK_TRACE_SIMULATED_GPUS` says; `CUDA_VISIBLE_DEVICES` leaves some out and orders
//! them. With that variable, the simulated NVML's file has what this process holds of each, by this driver's own accounts.

// The contracts are those of CUDA's documentation, and the names those of its header.
#![allow(clippy::missing_safety_doc, non_snake_case)]

mod abi;
mod blocks;
mod context;
mod copy;
mod device;
mod host;
mod kernel;
mod ledger;
mod lookup;
mod mapping;
mod meminfo;
mod memory;
mod module;
mod pool;
mod stand_in;
mod state;
mod stream;
mod vmm;

#[cfg(test)]
mod tests;
