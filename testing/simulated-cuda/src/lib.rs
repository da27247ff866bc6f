//! `libspark_trace_simulated_cuda.so`: the part of a CUDA driver that spark-trace's workloads call and its hooks
//! attach to, for machines without a GPU.
//!
//! Device memory is memory of the host, resident from the moment it is taken, as on a machine whose GPU shares the
//! system's memory; `cuMemGetInfo_v2` says what /proc/meminfo says. What is taken, given back and refused is real;
//! which kernel path it comes by is not (anonymous pages and shmem instead of a driver's pages), nor is any timing.
//! The device's name and the file's name say what this is.

// The contracts are those of CUDA's documentation, and the names those of its header.
#![allow(clippy::missing_safety_doc, non_snake_case)]

mod abi;
mod blocks;
mod context;
mod copy;
mod device;
mod host;
mod kernel;
mod lookup;
mod mapping;
mod meminfo;
mod memory;
mod module;
mod pool;
mod state;
mod stream;
mod vmm;

#[cfg(test)]
mod tests;
