//! With CUDA.

mod alloc;
mod children;
pub mod driver;
pub mod gemm;
mod gpus;
mod matmul;
pub mod memory;
pub mod phases;
mod storm;

pub use alloc::run as alloc;
pub use gpus::run as gpus;
pub use matmul::run as matmul;
pub use storm::run as storm;

pub use crate::engine::run as engine;
pub use crate::llm::run as llm;
