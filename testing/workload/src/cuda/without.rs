//! In place of the CUDA workloads, where they cannot be: why.

use std::convert::Infallible;
use std::process::ExitCode;

use anyhow::{Result, bail};
use serde_json::Value;

use crate::cli::cuda::{CudaAllocArgs, CudaGpusArgs, CudaStorm, LlmArgs, MatmulArgs};
use crate::cli::engine::EngineArgs;
use crate::rounds::Round;
use crate::sys::Machine;

fn refuse() -> Result<Infallible> {
    const BUILD: &str = "cargo build -p spark-trace-workload -p spark-trace-simulated-cuda";
    if cfg!(target_feature = "crt-static") {
        bail!(
            "this program is linked statically, and such a program cannot load libcuda.so, which brings its own C \
             library along: use the dynamically linked one ({BUILD})"
        );
    }
    bail!("this program was built without its feature `cuda`: build it with ({BUILD})");
}

pub fn alloc(_: &CudaAllocArgs) -> Result<ExitCode> {
    match refuse()? {}
}

pub fn gpus(_: &CudaGpusArgs) -> Result<ExitCode> {
    match refuse()? {}
}

pub fn matmul(_: &MatmulArgs) -> Result<ExitCode> {
    match refuse()? {}
}

pub fn llm(_: &LlmArgs) -> Result<ExitCode> {
    match refuse()? {}
}

pub fn engine(_: &EngineArgs) -> Result<ExitCode> {
    match refuse()? {}
}

pub fn storm(_: &CudaStorm, _: Machine) -> Result<(&'static str, &'static str, Value, Vec<Round>, Value)> {
    match refuse()? {}
}
