//! `llm`: placeholder.
use crate::cli::cuda::LlmArgs;
use anyhow::Result;
use std::process::ExitCode;
pub fn run(_: &LlmArgs) -> Result<ExitCode> {
    anyhow::bail!("not yet")
}
